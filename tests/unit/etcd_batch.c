/* SPDX-License-Identifier: Apache-2.0
 *
 * Group commit by hand, then with random operations, takes, failures and removals against what must
 * always hold.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/batch.h"
#include "support/checks.h"

#define MS 1000000ull

static struct batch *batch_new(uint32_t ops_max, uint32_t flights_max) {
    struct batch *batch = malloc(sizeof *batch);
    batch_init(batch, ops_max, 1000, MS, flights_max);
    return batch;
}

static struct batch_op op_of(const char *key) {
    return (struct batch_op){.key = key, .bytes = 10};
}

Test(etcd_batch, a_lone_write_goes_at_once) {
    struct batch *batch = batch_new(10, 2);
    struct batch_op a = op_of("a"), *taken[10];
    cr_expect_eq(batch_deadline_ns(batch), UINT64_MAX);
    batch_add(batch, &a, 5 * MS);
    cr_expect_eq(batch_deadline_ns(batch), 0);
    cr_expect_eq(batch_take(batch, 5 * MS, taken), 1);
    cr_expect_eq(taken[0], &a);
    cr_expect_eq(batch_take(batch, 5 * MS, taken), 0);
    free(batch);
}

Test(etcd_batch, beside_a_flight_a_write_waits_for_the_delay_or_a_full_batch) {
    struct batch *batch = batch_new(3, 2);
    struct batch_op ops[8], *taken[3];
    const char *keys[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    for (size_t i = 0; i < 8; i++)
        ops[i] = op_of(keys[i]);
    batch_add(batch, &ops[0], 0);
    cr_expect_eq(batch_take(batch, 0, taken), 1);
    batch_add(batch, &ops[1], 0);
    cr_expect_eq(batch_deadline_ns(batch), MS);
    cr_expect_eq(batch_take(batch, MS - 1, taken), 0);
    cr_expect_eq(batch_take(batch, MS, taken), 1, "the delay is over");
    for (size_t i = 2; i < 8; i++)
        batch_add(batch, &ops[i], MS);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 0, "no flight is free");
    cr_expect_eq(batch_deadline_ns(batch), UINT64_MAX);
    batch_land(batch);
    cr_expect_eq(batch_take(batch, MS, taken), 3, "full");
    cr_expect_eq(taken[0], &ops[2], "the oldest first");
    free(batch);
}

Test(etcd_batch, writes_of_one_key_go_one_after_the_other) {
    struct batch *batch = batch_new(10, 4);
    struct batch_op put = op_of("k"), retire = op_of("k"), again = op_of("k"), *taken[10];
    batch_add(batch, &put, 0);
    batch_add(batch, &retire, 0);
    batch_add(batch, &again, 0);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 1);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 0);
    batch_return(batch, &put);
    batch_land(batch);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 1);
    cr_expect_eq(taken[0], &put, "returned: still the first");
    batch_finish(batch, &put);
    batch_land(batch);
    batch_remove(batch, &again);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 1);
    cr_expect_eq(taken[0], &retire);
    batch_finish(batch, &retire);
    batch_land(batch);
    cr_expect_eq(batch_take(batch, 9 * MS, taken), 0);
    free(batch);
}

Test(etcd_batch, bytes_are_bounded_and_one_that_is_too_big_goes_alone) {
    struct batch *batch = batch_new(10, 4);
    struct batch_op ops[3], *taken[10];
    const char *keys[] = {"0", "1", "2"};
    for (size_t i = 0; i < 3; i++) {
        ops[i] = (struct batch_op){.key = keys[i], .bytes = i == 0 ? 5000 : 501};
        batch_add(batch, &ops[i], 0);
    }
    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(batch_take(batch, 9 * MS, taken), 1);
    free(batch);
}

/* ---- random ---- */

enum { OPS = 400, KEYS = 12, FLIGHTS = 3, PER_TXN = 7 };

struct model {
    struct batch *batch;
    struct batch_op ops[OPS];
    char keys[KEYS][8];
    uint32_t key_of[OPS], order[OPS]; /* order: of the operations of a key */
    bool added[OPS], gone[OPS], in_flight[OPS];
    uint32_t next_order[KEYS];
    struct batch_op *flights[FLIGHTS][PER_TXN];
    size_t counts[FLIGHTS]; /* 0 = free */
    uint64_t now_ns;
};

static void take(struct model *m) {
    struct batch_op *taken[PER_TXN];
    size_t count = batch_take(m->batch, m->now_ns, taken), flight = 0;
    if (!count)
        return;
    while (m->counts[flight])
        flight++;
    cr_assert_lt(flight, FLIGHTS, "more flights than allowed");
    m->counts[flight] = count;
    memcpy(m->flights[flight], taken, sizeof taken);
    for (size_t i = 0; i < count; i++) {
        size_t index = (size_t)(taken[i] - m->ops);
        for (size_t other = 0; other < OPS; other++) {
            if (m->key_of[other] != m->key_of[index] || !m->added[other] || m->gone[other])
                continue;
            cr_assert_not(m->in_flight[other], "a key is under way twice");
            cr_assert_geq(m->order[other], m->order[index], "overtaken");
        }
        m->in_flight[index] = true;
    }
}

static void land(struct model *m, uint64_t choice) {
    size_t flight = choice % FLIGHTS;
    if (!m->counts[flight])
        return;
    bool failed = choice / FLIGHTS % 3 == 0;
    for (size_t i = m->counts[flight]; i-- > 0;) {
        struct batch_op *op = m->flights[flight][i];
        size_t index = (size_t)(op - m->ops);
        m->in_flight[index] = false;
        m->gone[index] = !failed;
        if (failed)
            batch_return(m->batch, op);
        else
            batch_finish(m->batch, op);
    }
    batch_land(m->batch);
    m->counts[flight] = 0;
}

static void drop(struct model *m, uint64_t choice) {
    size_t index = choice % OPS;
    if (!m->added[index] || m->gone[index] || m->ops[index].taken)
        return;
    batch_remove(m->batch, &m->ops[index]);
    m->gone[index] = true;
}

static void add(struct model *m, uint32_t index, uint64_t choice) {
    uint32_t key = (uint32_t)(choice % KEYS);
    m->ops[index] = op_of(m->keys[key]);
    m->key_of[index] = key;
    m->order[index] = m->next_order[key]++;
    m->added[index] = true;
    batch_add(m->batch, &m->ops[index], m->now_ns);
}

Test(etcd_batch, no_key_is_under_way_twice_none_overtakes_and_none_is_lost) {
    uint64_t state = check_seed("etcd_batch");
    for (uint32_t round = 0; round < 50; round++) {
        struct model *m = calloc(1, sizeof *m);
        uint32_t added = 0, left = 0;
        m->batch = batch_new(PER_TXN, FLIGHTS);
        for (uint32_t k = 0; k < KEYS; k++)
            snprintf(m->keys[k], sizeof m->keys[k], "k%u", k);
        for (uint32_t turn = 0; turn < 20000 && (added < OPS || turn < 10000); turn++) {
            uint64_t choice = check_random(&state);
            m->now_ns += choice % MS;
            if (choice % 4 == 0 && added < OPS)
                add(m, added++, choice >> 8);
            else if (choice % 4 == 1)
                land(m, choice >> 8);
            else if (choice % 64 == 2)
                drop(m, choice >> 8);
            else
                take(m);
        }
        for (uint32_t i = 0; i < OPS; i++)
            left += m->added[i] && !m->gone[i];
        cr_assert_eq(left, 0);
        cr_expect_eq(batch_deadline_ns(m->batch), UINT64_MAX);
        free(m->batch);
        free(m);
    }
}
