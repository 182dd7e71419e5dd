/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking a block over: what is there again, what is refused, and that a refused block is not
 * touched. What a death in the middle of a transition leaves is tested by
 * tests/model/store_crash.c.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "store/slots.h"
#include "unit/store_fixture.h"

/* The account and the node's account are of the process that died. */
static void forget_process(struct fixture *f) {
    f->account.used_bytes = 0;
    account_init(&f->session, ACCOUNT_SESSION, 7, NULL, &f->limits);
}

static enum store_attached attach(struct fixture *f, char why[256]) {
    why[0] = 0;
    return store_attach(f->block, f->block_bytes, &f->options, f->now_ns, &f->store, why, 256);
}

/* A new process: attach, and see that all that was derived agrees with the slots. */
static void restart(struct fixture *f) {
    char why[256];
    forget_process(f);
    cr_assert_eq(attach(f, why), STORE_ATTACHED, "%s", why);
    cr_assert_null(store_audit(f->store, why, sizeof why), "%s", why);
}

/* The owner of each holder lives. */
static void adopt_all(struct fixture *f) {
    uint32_t cursor = 0, holder;
    uint64_t owner;
    while (store_holder_next(f->store, &cursor, &holder, &owner))
        store_holder_adopt(f->store, holder, owner, &f->session);
}

Test(store_attach, finds_samples_leases_and_reservations_again) {
    struct fixture f;
    fixture_options(&f);
    fixture_init(&f);
    uint64_t kept = fixture_publish(&f, "kept", 4096), read = fixture_publish(&f, "read", 8192);
    struct store_lease lease;
    struct store_put put = fixture_put("being-written", 4096);
    struct store_reservation reservation;
    cr_assert_eq(fixture_get(&f, f.holder, read, &lease), STORE_OK);
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    restart(&f);
    cr_assert_eq(f.account.used_bytes, 4096 + 8192 + 4096);
    cr_assert_eq(fixture_state(&f, kept), STORE_RESIDENT);
    adopt_all(&f);
    cr_assert_eq(f.session.used[CHARGE_LEASES], 1);
    cr_assert_eq(f.session.used[CHARGE_RESERVATIONS], 1);
    cr_assert_eq(f.session.used[CHARGE_RESERVED_BYTES], 4096);
    uint64_t sum = 1, superseded, generation = ++f.last_generation;
    cr_assert_eq(store_seal(f.store, f.holder, reservation.token, &sum, 8, generation, f.now_ns),
                 STORE_OK);
    cr_assert_eq(store_publish(f.store, generation, f.now_ns, &superseded), STORE_OK);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_reason(&f, read), STORE_CONSUMED);
    store_holder_close(f.store, f.holder, f.now_ns);
    cr_assert(account_is_empty(&f.session));
    fixture_deinit(&f);
}

Test(store_attach, holders_that_nobody_adopts_are_closed_without_a_charge) {
    struct fixture f;
    fixture_options(&f);
    fixture_init(&f);
    uint64_t generation = fixture_publish(&f, "a", 4096);
    struct store_lease lease;
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    restart(&f);
    uint32_t cursor = 0, holder;
    uint64_t owner;
    cr_assert(store_holder_next(f.store, &cursor, &holder, &owner));
    cr_assert_eq(holder, f.holder);
    cr_assert_eq(owner, 7);
    cr_assert_not(store_holder_next(f.store, &cursor, &holder, &owner));
    store_holder_close(f.store, holder, f.now_ns);
    cr_assert_eq(fixture_totals(&f).leases, 0);
    cr_assert_eq(fixture_totals(&f).holders, 0);
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT);
    fixture_deinit(&f);
}

Test(store_attach, effects_and_answers_that_were_not_heard_are_there_again) {
    struct fixture f;
    fixture_options(&f);
    fixture_init(&f);
    struct store_op op = {.client_id = 3, .op_id = 4};
    struct store_answer answer = {.status = 5, .value = 6};
    uint64_t generation = fixture_publish(&f, "a", 4096);
    bool retired;
    store_replay_record(f.store, op, &answer);
    store_retire(f.store, "a", 1, generation, STORE_ACKED, f.now_ns, &retired);
    restart(&f);
    struct store_effect effect;
    cr_assert(fixture_effect(&f, STORE_EFFECT_RETIRED, &effect));
    cr_assert_eq(effect.generation, generation);
    cr_assert_eq(effect.reason, STORE_ACKED);
    memset(&answer, 0, sizeof answer);
    cr_assert(store_replay_find(f.store, op, &answer));
    cr_assert_eq(answer.value, 6);
    restart(&f);
    cr_assert_not(fixture_effect(&f, STORE_EFFECT_RETIRED, &effect), "told once, told for good");
    fixture_deinit(&f);
}

Test(store_attach, events_go_on_with_their_numbers) {
    struct fixture f;
    fixture_options(&f);
    fixture_init(&f);
    fixture_publish(&f, "a", 4096);
    uint64_t last = store_event_last(f.store), sequence = 0, missed, count = 0;
    restart(&f);
    cr_assert_eq(store_event_last(f.store), last);
    struct store_event event;
    for (; store_event_next(f.store, &sequence, &event, &missed); count++)
        cr_assert_eq(missed, 0);
    cr_assert_eq(count, last);
    fixture_publish(&f, "b", 4096);
    cr_assert(store_event_next(f.store, &sequence, &event, &missed));
    cr_assert_eq(event.sequence, last + 1);
    fixture_deinit(&f);
}

/* The seed makes the key of hashes and tokens; a lease's token would not be found with another. */
Test(store_attach, settings_may_change_and_the_seed_stays) {
    struct fixture f;
    fixture_options(&f);
    fixture_init(&f);
    uint64_t generation = fixture_publish(&f, "a", 4096);
    struct store_lease lease;
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    f.options.policy = STORE_RETAIN;
    f.options.seed = 43;
    restart(&f);
    fixture_release(&f, f.holder, &lease, STORE_CONSUMED_BY_READER);
    cr_assert_eq(fixture_totals(&f).leases, 0, "the token still fits");
    cr_assert_eq(fixture_state(&f, generation), STORE_RESIDENT, "the new policy counts");
    fixture_deinit(&f);
}

/* ---- what is refused ---- */
/* Contract of store_attach(): what it refuses it leaves as it is, byte for byte. */
static void expect_refused(struct fixture *f, enum store_attached expected, const char *words) {
    char why[256];
    size_t bytes = f->block_bytes;
    void *before = malloc(bytes);
    cr_assert(before);
    memcpy(before, f->block, bytes);
    cr_assert_eq(attach(f, why), expected, "%s", why);
    cr_assert(strstr(why, words), "\"%s\" does not say \"%s\"", why, words);
    cr_assert_eq(memcmp(before, f->block, bytes), 0, "a refused block was changed (%s)", why);
    free(before);
}

/* A block with two samples, a lease on the first one, and a reservation. Its account is not the one
 * in the copy that is returned, so that callers set it. */
static struct fixture filled(void) {
    struct fixture f;
    struct store_lease lease;
    struct store_reservation reservation;
    fixture_options(&f);
    fixture_init(&f);
    f.options.account = &f.account;
    uint64_t generation = fixture_publish(&f, "a", 4096);
    fixture_publish(&f, "b", 4096);
    cr_assert_eq(fixture_get(&f, f.holder, generation, &lease), STORE_OK);
    struct store_put put = fixture_put("c", 4096);
    cr_assert_eq(fixture_reserve(&f, f.holder, &put, &reservation), STORE_OK);
    f.account.used_bytes = 0;
    return f;
}

Test(store_attach, refuses_another_layout_and_says_what_to_do) {
    struct fixture f = filled();
    f.options.account = &f.account;
    f.options.max_leases++;
    expect_refused(&f, STORE_ATTACH_REFUSED, "max_leases 64, the configuration now means 65");
    expect_refused(&f, STORE_ATTACH_REFUSED, "drop the store");
    free(f.block);
}

Test(store_attach, refuses_what_is_no_index) {
    struct fixture f = filled();
    f.options.account = &f.account;
    struct store_header *header = f.block, good = *header;
    f.block_bytes -= 64;
    expect_refused(&f, STORE_ATTACH_REFUSED, "bytes and its header says");
    f.block_bytes = 8;
    expect_refused(&f, STORE_ATTACH_REFUSED, "less than a header");
    f.block_bytes = good.block_bytes;
    header->magic = 0;
    expect_refused(&f, STORE_ATTACH_EMPTY, "holds nothing");
    header->magic = 7;
    expect_refused(&f, STORE_ATTACH_REFUSED, "which no index of a store does");
    header->magic = good.magic;
    header->format_version++;
    expect_refused(&f, STORE_ATTACH_REFUSED, "start the version that made it");
    header->format_version--;
    header->touched[POOL_CHUNKS] = UINT32_MAX;
    expect_refused(&f, STORE_ATTACH_REFUSED, "slots of table 4 were used");
    free(f.block);
}

/* Damages `member` of a slot, sees that it is found, and mends it. */
#define REFUSED(f, member, value, words)                                                           \
    do {                                                                                           \
        unsigned char good[sizeof(member)];                                                        \
        memcpy(good, &(member), sizeof good);                                                      \
        (member) = (value);                                                                        \
        expect_refused(f, STORE_ATTACH_REFUSED, words);                                            \
        memcpy(&(member), good, sizeof good);                                                      \
    } while (0)

Test(store_attach, refuses_damaged_samples) {
    struct fixture f = filled();
    f.options.account = &f.account;
    struct sample_slot *a = sample_at(f.store, 0), *b = sample_at(f.store, 1);
    struct sample_slot *c = sample_at(f.store, 2);
    REFUSED(&f, a->word, a->word | 0x40, "which says nothing");
    REFUSED(&f, a->name, 1000, "has name 1000");
    REFUSED(&f, name_at(f.store, a->name)->id_bytes, 129, "an id of 129 bytes");
    REFUSED(&f, a->chunk, b->chunk, "the specs of two samples");
    REFUSED(&f, a->chunk, NONE, "ends 1 chunks too early");
    REFUSED(&f, chunk_at(f.store, a->chunk)->next, b->chunk, "does not end where it should");
    REFUSED(&f, a->tensor_count, 65, "impossible sizes");
    REFUSED(&f, b->extent_offset, a->extent_offset, "have bytes in common");
    REFUSED(&f, b->extent_offset, 64 * KIB, "are not in its region");
    REFUSED(&f, b->extent_bytes, UINT64_MAX - 63, "are not in its region");
    REFUSED(&f, b->generation, 0, "has no generation");
    REFUSED(&f, b->generation, a->generation, "the same generation");
    REFUSED(&f, b->stamps[0].order, 1ull << 40, "after everything that happened");
    REFUSED(&f, c->holder, 5, "reserved by holder 5");
    memcpy(name_at(f.store, b->name)->id, "a", 1);
    expect_refused(&f, STORE_ATTACH_REFUSED, "the same id");
    free(f.block);
}

Test(store_attach, refuses_damaged_leases_and_rings) {
    struct fixture f = filled();
    f.options.account = &f.account;
    struct lease_slot *lease = lease_at(f.store, 0);
    struct store_event *event = (struct store_event *)store_at(f.store, f.store->events) + 1;
    struct replay_slot *replay = store_at(f.store, f.store->replays);
    REFUSED(&f, lease->word, lease->word | 0x10, "says nothing");
    REFUSED(&f, lease->hi, lease->hi + 1, "says nothing");
    REFUSED(&f, lease->sample, 1000, "sample slot 1000");
    REFUSED(&f, lease->sample_use, 9, "a generation that is not there");
    REFUSED(&f, lease->holder, 3, "belongs to holder 3");
    REFUSED(&f, event->sequence, 3, "the event in place 1");
    *replay = (struct replay_slot){.op = {1, 1}, .order = 1ull << 40};
    expect_refused(&f, STORE_ATTACH_REFUSED, "answer 0");
    free(f.block);
}
