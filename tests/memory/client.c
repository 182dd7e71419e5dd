/* SPDX-License-Identifier: Apache-2.0
 *
 * The same for the library: the life of samples in one process, against a broker that the test
 * plays, once for every allocation of the library with that one made to fail. The call that meets
 * it fails with FEATURE_E_FULL and a sentence that names memory, or succeeds without it; the
 * connection lives and works afterwards; and in the end no memory and no descriptor is left.
 */
#include <fcntl.h>

#include "memory/counted.h"
#include "unit/client_fixture.h"

#define PATIENCE_MS 2000u
#define BYTES       300u

struct life {
    uint64_t n; /* the allocation that fails */
    struct fixture f;
    bool refused;
    char first_refusal[600];
};

/* True: OK. */
static bool went_well(struct life *life, const char *what, int status) {
    if (status == FEATURE_OK || life->refused)
        return status == FEATURE_OK;
    life->refused = true;
    snprintf(life->first_refusal, sizeof life->first_refusal, "%s: %s: %s", what,
             feature_strerror(status), feature_last_error());
    cr_expect(status == FEATURE_E_FULL && strstr(feature_last_error(), "memory"),
              "allocation %llu: %s", (unsigned long long)life->n, life->first_refusal);
    return false;
}

static struct feature_ref *put_small(struct life *life, const char *id) {
    struct two_tensors s;
    struct feature_ref *ref = NULL;
    two_tensors_init(&s, id, BYTES, 1);
    went_well(life, "put", feature_put(life->f.store, &s.sample, s.data, PATIENCE_MS, &ref));
    two_tensors_deinit(&s);
    return ref;
}

static struct feature_ref *put_reserved(struct life *life, const char *id) {
    struct two_tensors s;
    struct feature_reservation *reservation = NULL;
    struct feature_ref *ref = NULL;
    two_tensors_init(&s, id, BYTES, 2);
    if (went_well(life, "reserve",
                  feature_reserve(life->f.store, &s.sample, PATIENCE_MS, &reservation))) {
        memcpy(feature_reservation_data(reservation, 0), s.a, BYTES);
        went_well(life, "commit", feature_commit(reservation, &ref));
    }
    two_tensors_deinit(&s);
    return ref;
}

static void put_batch(struct life *life) {
    struct two_tensors s[2];
    struct feature_put_item items[2] = {0};
    two_tensors_init(&s[0], "b0", BYTES, 3);
    two_tensors_init(&s[1], "b1", BYTES, 4);
    for (int i = 0; i < 2; i++) {
        items[i].size = sizeof items[i];
        items[i].sample = &s[i].sample;
        items[i].data = s[i].data;
    }
    went_well(life, "put batch", feature_put_batch(life->f.store, items, 2, PATIENCE_MS));
    for (int i = 0; i < 2; i++) {
        feature_ref_free(items[i].ref);
        two_tensors_deinit(&s[i]);
    }
}

static void get_batch(struct life *life) {

    struct feature_get_item items[2] = {0};
    for (int i = 0; i < 2; i++) {
        items[i].size = sizeof items[i];
        items[i].sample_id = i ? "b1" : "b0";
    }
    went_well(life, "get batch", feature_get_batch(life->f.store, items, 2, NULL));
    for (int i = 0; i < 2; i++)
        if (items[i].view)
            went_well(life, "release", feature_release(items[i].view, FEATURE_RELEASE_RETURNED));
}

static void get(struct life *life, const struct feature_key *key, enum feature_release_how how) {
    struct feature_view *view = NULL;
    if (!went_well(life, "get", feature_get(life->f.store, key, NULL, &view)))
        return;
    went_well(life, "check", feature_view_check(view));
    went_well(life, "release", feature_release(view, how));
}

static void live(struct life *life) {
    if (!went_well(life, "connect", fixture_connect(&life->f)))
        return;
    if (!went_well(life, "open",
                   feature_store_open(life->f.feature, FAKE_STORE, NULL, &life->f.store)))
        return;
    struct feature_ref *small = put_small(life, "small");
    struct feature_ref *reserved = put_reserved(life, "reserved");
    put_batch(life);
    get(life, FEATURE_BY_ID("small"), FEATURE_RELEASE_RETURNED);
    if (reserved)
        get(life, FEATURE_BY_REF(reserved), FEATURE_RELEASE_CONSUMED);
    get_batch(life);
    if (small)
        went_well(life, "ack", feature_ack(life->f.store, FEATURE_BY_REF(small), 1, NULL));
    feature_ref_free(small);
    feature_ref_free(reserved);
}

static int descriptors_open(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static uint64_t live_once(uint64_t n) {
    struct life *life = calloc(1, sizeof *life);
    int64_t blocks_before = counted_live();
    int descriptors_before = descriptors_open();
    life->n = n;
    fake_broker_init(&life->f.broker);
    fake_broker_start(&life->f.broker);
    counted_fail_at(n);
    live(life);
    uint64_t calls = counted_calls();
    counted_fail_at(0);
    if (life->f.store) { /* whatever failed, the session goes on */
        struct feature_ref *ref = put_two_tensors(life->f.store, "after", BYTES, 5);
        struct feature_view *view;
        OK(feature_get(life->f.store, FEATURE_BY_REF(ref), NULL, &view));
        assert_two_tensors(view, BYTES, 5);
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        feature_ref_free(ref);
    }
    feature_disconnect(life->f.feature);
    fake_broker_deinit(&life->f.broker);
    free(life);
    cr_assert_eq(counted_live(), blocks_before, "allocation %llu: %lld blocks are not freed",
                 (unsigned long long)n, (long long)(counted_live() - blocks_before));
    cr_assert_eq(descriptors_open(), descriptors_before, "allocation %llu: descriptors",
                 (unsigned long long)n);
    return calls;
}

Test(memory, a_client_whose_every_allocation_fails_once) {
    live_once(0); /* what is made once for the whole process */
    uint64_t calls = live_once(0);
    cr_assert_gt(calls, 30u);
    for (uint64_t n = 1; n <= calls; n++)
        live_once(n);
    printf("memory: %llu allocations of a client, each failed once\n", (unsigned long long)calls);
}
