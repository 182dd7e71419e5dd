/* SPDX-License-Identifier: Apache-2.0
 *
 * Ack and abort: the same message under two names. Ack is a reader's ("I have what I need"), and
 * is kept and repeated by the broker when the home is away. Abort is a writer's, and is done or
 * fails.
 *
 * Each key has its own operation id, so that a repeat on a new connection is the same operation
 * for each.
 */
#include <stdlib.h>

#include "error.h"
#include "key.h"
#include "limit.h"
#include "request.h"
#include "sized.h"

/* One frame's worth of keys, which are valid; places[i]: where the status of keys[i] goes. */
static int retire_chunk(struct feature_store *store, bool ack, const struct feature_key *keys,
                        int *const *places, size_t count, struct fc_first_error *failure) {
    Fb__RetireItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Retire retire = FB__RETIRE__INIT;
    for (size_t i = 0; i < count; i++) {
        pointers[i] = &items[i];
        fc_key_fill(keys[i], &items[i]);
    }
    retire.items = pointers;
    retire.n_items = count;
    retire.op_id = fc_connection_op_ids(store->feature, (uint32_t)count);
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &retire.handle,
                   .what = ack ? "ack" : "abort", .expected = FB__CLIENT_REPLY__RESULT_ITEMS);
    request.message.op_case = ack ? FB__CLIENT_REQUEST__OP_ACK : FB__CLIENT_REQUEST__OP_ABORT;
    request.message.ack = &retire; /* the same place as .abort */
    int rc = fc_request(&request);
    if (!rc && request.reply->items->n_items != count)
        rc = fc_request_nonsense(&request);
    for (size_t i = 0; i < count; i++) {
        const Fb__ItemResult *result = rc ? NULL : request.reply->items->items[i];
        *places[i] = rc;
        if (result && result->status != FB__STATUS__OK)
            *places[i] = fc_fail_status(result->status, result->error, request.what);
        fc_first_error_note(failure, *places[i]);
    }
    fc_request_deinit(&request);
    return rc;
}

/* Sends the keys that are valid, a frame's worth at a time. After a frame that failed as a whole
 * (the broker is out of reach) the rest is not sent: each would wait as long again. */
static void retire_each(struct feature_store *store, bool ack, const struct feature_key *keys,
                        size_t count, int *statuses, struct fc_first_error *failure) {
    struct feature_key chunk[FRAME_BATCH_ITEMS_MAX];
    int *places[FRAME_BATCH_ITEMS_MAX], unreached = FEATURE_OK;
    const size_t chunk_max = fc_connection_limits(store->feature).batch_items;
    size_t chunk_count = 0;
    for (size_t i = 0; i < count; i++) {
        statuses[i] = unreached;
        if (unreached)
            continue;
        statuses[i] = fc_key_read(store, fc_sized_at(keys, i), &chunk[chunk_count]);
        fc_first_error_note(failure, statuses[i]);
        if (statuses[i])
            continue;
        places[chunk_count++] = &statuses[i];
        if (chunk_count == chunk_max) {
            unreached = retire_chunk(store, ack, chunk, places, chunk_count, failure);
            chunk_count = 0;
        }
    }
    if (chunk_count)
        (void)retire_chunk(store, ack, chunk, places, chunk_count, failure);
}

static int retire_all(struct feature_store *store, bool ack, const struct feature_key *keys,
                      size_t count, int *statuses_out) {
    const char *what = ack ? "ack" : "abort";
    struct fc_first_error failure = {.error = FEATURE_OK};
    int rc = FEATURE_OK;
    if (!keys && count)
        rc = fc_fail(FEATURE_E_INVALID, "%s: %zu keys, and the list of keys is NULL", what, count);
    if (!rc)
        rc = fc_store_check(store);
    if (!rc)
        rc = fc_sized_check(keys, count, sizeof *keys,
                            FC_SIZED_UNTIL(struct feature_key, sample_id), "feature_key");
    int *statuses = statuses_out ? statuses_out : calloc(count ? count : 1, sizeof *statuses);
    if (!rc && !statuses)
        rc = fc_fail_memory(what);
    if (!rc)
        retire_each(store, ack, keys, count, statuses, &failure);
    for (size_t i = 0; rc && statuses_out && i < count; i++)
        statuses_out[i] = rc;
    if (!statuses_out)
        free(statuses);
    return rc ? rc : fc_first_error_raise(&failure);
}

/* Both are the same but for what the broker does when the home is away; see feature.h. */
int feature_ack(struct feature_store *store, const struct feature_key *keys, size_t count,
                int *statuses_out) {
    return retire_all(store, true, keys, count, statuses_out);
}

int feature_abort(struct feature_store *store, const struct feature_key *keys, size_t count,
                  int *statuses_out) {
    return retire_all(store, false, keys, count, statuses_out);
}
