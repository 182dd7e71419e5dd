/* SPDX-License-Identifier: Apache-2.0
 *
 * See rounds.h. Sizes go from some bytes to 200 KB, so that both ways of putting are taken, in one
 * message and with a reservation.
 */
#include "e2e/rounds.h"

#include <inttypes.h>
#include <stdio.h>

#include "support/checks.h"
#include "support/payload.h"

#define VIEWS 6u

static void id_of(const char *prefix, uint32_t sample, uint64_t round, char out[64]) {
    snprintf(out, 64, "%s%u.%" PRIu64, prefix, sample, round);
}

/* Tensor by tensor, with a request in between, which may meet what the test does meanwhile. */
static void put_slowly(const struct payload *payload, struct feature_store *store) {
    struct feature_reservation *reservation;
    CHECK_OK(feature_reserve(store, &payload->sample, ROUND_DEADLINE_MS, &reservation));
    for (uint32_t i = 0; i < payload->sample.tensor_count; i++) {
        payload_write(payload, reservation, i);
        CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(store, FEATURE_BY_ID(payload->sample_id)));
    }
    CHECK_OK(feature_commit(reservation, NULL));
}

static void check_view(const struct payload *payload, const struct feature_view *view) {
    CHECK_OK(feature_view_check(view));
    CHECK(payload_difference(payload, view) == NULL, "%s", payload_difference(payload, view));
}

void round_run(struct feature_store *producer, struct feature_store *consumer, const char *prefix,
               uint64_t round, uint64_t *seed) {
    struct payload payloads[ROUND_SAMPLES];
    struct feature_view *kept[VIEWS] = {NULL};
    char id[64];
    for (uint32_t i = 0; i < ROUND_SAMPLES; i++) {
        id_of(prefix, i, round, id);
        payload_init(&payloads[i], id, round * ROUND_SAMPLES + i,
                     100 + check_random(seed) % 200000);
        if (i % 2)
            put_slowly(&payloads[i], producer);
        else
            CHECK_OK(payload_put(&payloads[i], producer, ROUND_DEADLINE_MS, NULL));
        if (i < VIEWS)
            kept[i] = payload_view(&payloads[i], consumer, FEATURE_BY_ID(id));
    }
    for (uint32_t reader = 0; reader < 2; reader++)
        for (uint32_t i = VIEWS; i < ROUND_SAMPLES; i++) {
            id_of(prefix, i, round, id);
            payload_check_get(&payloads[i], consumer, FEATURE_BY_ID(id), FEATURE_RELEASE_CONSUMED);
        }
    for (uint32_t i = 0; i < ROUND_SAMPLES; i++) {
        if (i < VIEWS) {
            id_of(prefix, i, round, id);
            check_view(&payloads[i], kept[i]);
            CHECK_OK(feature_release(kept[i], FEATURE_RELEASE_CONSUMED));
            payload_check_get(&payloads[i], consumer, FEATURE_BY_ID(id), FEATURE_RELEASE_CONSUMED);
        }
        payload_deinit(&payloads[i]);
    }
}
