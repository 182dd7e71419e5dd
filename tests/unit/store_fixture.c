/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/store_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

void fixture_options(struct fixture *f) {
    *f = (struct fixture){.now_ns = 1000};
    f->account.limit_bytes = 1024 * KIB;
    charge_limits_init(&f->limits);
    account_init(&f->session, ACCOUNT_SESSION, 7, NULL, &f->limits);
    f->options = (struct store_options){.max_resident_bytes = 64 * KIB,
                                        .landing_bytes = 32 * KIB,
                                        .max_samples = 64,
                                        .max_tombstones = 64,
                                        .max_leases = 64,
                                        .max_holders = 8,
                                        .max_waiters = 16,
                                        .max_replays = 4,
                                        .max_events = 256,
                                        .policy = STORE_ON_RELEASE,
                                        .readers = 1,
                                        .seed = 42};
}

void fixture_init(struct fixture *f) {
    const char *why = NULL;
    f->options.account = &f->account;
    f->block_bytes = store_block_bytes(&f->options, &why);
    cr_assert(f->block_bytes, "%s", why);
    f->block = aligned_alloc(64, (f->block_bytes + 63) & ~(size_t)63);
    cr_assert(f->block);
    memset(f->block, 0, f->block_bytes);
    f->store = store_init(f->block, f->block_bytes, &f->options);
    cr_assert(f->store);
    f->holder = fixture_holder(f);
}

void fixture_deinit(struct fixture *f) {
    char why[256];
    const char *broken = store_audit(f->store, why, sizeof why);
    cr_assert_null(broken, "%s", broken);
    store_deinit(f->store);
    cr_assert_eq(f->account.used_bytes, 0);
    free(f->block);
}

uint32_t fixture_holder(struct fixture *f) {
    uint32_t holder;
    cr_assert_eq(store_holder_open(f->store, 7, &f->session, &holder), STORE_OK);
    return holder;
}

struct store_put fixture_put(const char *id, uint64_t bytes) {
    return (struct store_put){.sample_id = id,
                              .sample_id_bytes = (uint32_t)strlen(id),
                              .spec = "spec",
                              .spec_bytes = 4,
                              .tensor_count = 1,
                              .extent_bytes = bytes,
                              .align_bytes = bytes % 4096 ? 64 : 4096};
}

enum store_result fixture_reserve(struct fixture *f, uint32_t holder, const struct store_put *put,
                                  struct store_reservation *out) {
    return store_reserve(f->store, holder, put, f->now_ns, out, &f->refusal);
}

uint64_t fixture_publish(struct fixture *f, const char *id, uint64_t bytes) {
    struct store_put put = fixture_put(id, bytes);
    struct store_reservation reservation;
    uint64_t superseded, generation = ++f->last_generation, checksum = generation * 3;
    cr_assert_eq(fixture_reserve(f, f->holder, &put, &reservation), STORE_OK);
    cr_assert_eq(store_seal(f->store, f->holder, reservation.token, &checksum, sizeof checksum,
                            generation, f->now_ns),
                 STORE_OK);
    cr_assert_eq(store_publish(f->store, generation, f->now_ns, &superseded), STORE_OK);
    return generation;
}

enum store_result fixture_get_id(struct fixture *f, uint32_t holder, const char *id,
                                 struct store_lease *out) {
    struct store_get get = {.sample_id = id, .sample_id_bytes = (uint32_t)strlen(id)};
    return store_get(f->store, holder, &get, f->now_ns, out, &f->refusal);
}

enum store_result fixture_get(struct fixture *f, uint32_t holder, uint64_t generation,
                              struct store_lease *out) {
    struct store_get get = {.generation = generation};
    return store_get(f->store, holder, &get, f->now_ns, out, &f->refusal);
}

void fixture_release(struct fixture *f, uint32_t holder, const struct store_lease *lease,
                     enum store_how how) {
    cr_assert_eq(store_release(f->store, holder, lease->hi, lease->lo, how, f->now_ns), STORE_OK);
}

bool fixture_effect(struct fixture *f, enum store_effect_kind kind, struct store_effect *out) {
    while (store_next_effect(f->store, f->now_ns, out))
        if (out->kind == kind)
            return true;
    return false;
}

unsigned fixture_drain(struct fixture *f) {
    struct store_effect effect;
    unsigned count = 0;
    while (store_next_effect(f->store, f->now_ns, &effect))
        count++;
    return count;
}

enum store_state fixture_state(struct fixture *f, uint64_t generation) {
    struct store_info info;
    return store_stat(f->store, NULL, 0, generation, &info) ? info.state : STORE_FREE;
}

enum store_reason fixture_reason(struct fixture *f, uint64_t generation) {
    struct store_info info;
    return store_stat(f->store, NULL, 0, generation, &info) ? info.reason : STORE_REASON_NONE;
}

struct store_totals fixture_totals(struct fixture *f) {
    struct store_totals totals;
    store_totals(f->store, &totals);
    return totals;
}

struct store_land fixture_land(uint64_t generation, uint64_t bytes) {
    return (struct store_land){
        .put = fixture_put("landed", bytes), .generation = generation, .origin = 9};
}
