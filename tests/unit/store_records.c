/* SPDX-License-Identifier: Apache-2.0
 *
 * What is kept beside the samples: tombstones, replays, events, probes; and the block's options.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "unit/store_fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_options(&f);
    f.options.max_tombstones = 3;
    f.options.max_events = 4;
    fixture_init(&f);
}

static void teardown(void) {
    fixture_deinit(&f);
}

TestSuite(store_records, .init = setup, .fini = teardown);

static uint64_t publish_and_abort(const char *id) {
    bool retired;
    uint64_t generation = fixture_publish(&f, id, 4096);
    store_retire(f.store, NULL, 0, generation, STORE_ABORTED, f.now_ns, &retired);
    cr_assert(retired);
    return generation;
}

Test(store_records, oldest_tombstone_goes_first) {
    uint64_t first = publish_and_abort("a");
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(fixture_state(&f, first), STORE_GONE);
        publish_and_abort("b");
        fixture_drain(&f);
    }
    cr_assert_eq(fixture_state(&f, first), STORE_FREE);
    struct store_info info;
    cr_assert_not(store_stat(f.store, "a", 1, 0, &info));
    cr_assert(store_stat(f.store, "b", 1, 0, &info));
    cr_assert_eq(info.generation, first + 3, "the newest tombstone of the id");
}

Test(store_records, effects_survive_any_number_of_tombstones) {
    struct store_effect effect;
    for (int i = 0; i < 50; i++)
        publish_and_abort("a");
    for (uint64_t generation = 1; generation <= 50; generation++) {
        cr_assert(store_next_effect(f.store, f.now_ns, &effect));
        cr_assert_eq(effect.generation, generation);
    }
    cr_assert_eq(fixture_drain(&f), 0);
    cr_assert_eq(fixture_totals(&f).tombstones, 3);
}

Test(store_records, replay_keeps_the_first_answer_and_forgets_the_oldest) {
    struct store_answer answer = {.status = 1, .value = 10}, found;
    struct store_op op = {.client_id = 7, .op_id = 1};
    store_replay_record(f.store, op, &answer);
    answer.value = 11;
    store_replay_record(f.store, op, &answer);
    cr_assert(store_replay_find(f.store, op, &found));
    cr_assert_eq(found.value, 10);
    cr_assert_not(store_replay_find(f.store, (struct store_op){8, 1}, &found));
    for (uint64_t i = 2; i <= 5; i++)
        store_replay_record(f.store, (struct store_op){7, i}, &answer);
    cr_assert_not(store_replay_find(f.store, op, &found));
    for (uint64_t i = 2; i <= 5; i++)
        cr_assert(store_replay_find(f.store, (struct store_op){7, i}, &found));
    store_replay_record(f.store, (struct store_op){7, 0}, &answer);
    cr_assert_not(store_replay_find(f.store, (struct store_op){7, 0}, &found));
}

Test(store_records, event_ring_tells_what_was_missed) {
    struct store_event event;
    uint64_t sequence = 0, missed;
    fixture_publish(&f, "a", 4096); /* planned, sealed, resident */
    cr_assert(store_event_next(f.store, &sequence, &event, &missed));
    cr_assert_eq(event.state, STORE_PLANNED);
    cr_assert_eq(missed, 0);
    publish_and_abort("b"); /* five more */
    cr_assert_eq(store_event_last(f.store), 8);
    cr_assert(store_event_next(f.store, &sequence, &event, &missed));
    cr_assert_eq(event.sequence, 5);
    cr_assert_eq(missed, 3);
    while (store_event_next(f.store, &sequence, &event, &missed))
        ;
    cr_assert_eq(event.state, STORE_GONE);
    cr_assert_eq(event.reason, STORE_ABORTED);
    cr_assert_str_eq(event.sample_id, "b");
}

Test(store_records, probes_list_samples_and_leases) {
    struct store_lease lease;
    struct store_info info;
    struct store_lease_info held;
    uint64_t generation = fixture_publish(&f, "a", 4096), cursor = 0;
    unsigned shown = 0;
    fixture_publish(&f, "b", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    while (store_list_next(f.store, &cursor, &info))
        shown += info.state == STORE_RESIDENT;
    cr_assert_eq(shown, 2);
    cursor = shown = 0;
    while (store_slot_lease_next(f.store, lease.slot, &cursor, &held)) {
        cr_assert_eq(held.generation, generation);
        cr_assert_eq(held.owner, 7);
        cr_assert_str_eq(held.sample_id, "a");
        shown++;
    }
    cr_assert_eq(shown, 2);
    cursor = shown = 0;
    while (store_lease_next(f.store, &cursor, &held))
        shown += held.generation == generation;
    cr_assert_eq(shown, 2);
}

Test(store_records, options_out_of_range_are_named) {
    struct store_options options = f.options;
    const char *why = NULL;
    options.max_resident_bytes = 4097;
    cr_assert_eq(store_block_bytes(&options, &why), 0);
    cr_assert(strstr(why, "max_resident_bytes"));
    options = f.options;
    options.readers = 0;
    cr_assert_eq(store_block_bytes(&options, &why), 0);
    cr_assert(strstr(why, "readers"));
    cr_assert_null(store_init(f.block, f.block_bytes - 64, &f.options));
}

Test(store_records, audit_notices_bytes_that_do_not_add_up) {
    const uint64_t bytes = 28672; /* nothing else in the store has this value */
    char why[128];
    fixture_publish(&f, "a", bytes);
    cr_assert_null(store_audit(f.store, why, sizeof why));
    uint64_t *word = f.block;
    while (*word != bytes) /* the store's count of home bytes, at the start of the block */
        word++;
    *word += 64;
    cr_assert(store_audit(f.store, why, sizeof why));
    *word -= 64;
}
