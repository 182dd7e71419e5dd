/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of what a handle holds, against a plain list.
 */
#include <criterion/criterion.h>

#include "libclient/held.h"
#include "support/checks.h"

#define TOKENS 600u

static void enter_lease(struct fc_held *held, uint64_t hi, uint64_t lo) {
    Fb__GetResult item = FB__GET_RESULT__INIT, *items = &item;
    Fb__GetReply get = FB__GET_REPLY__INIT;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    item.lease_hi = hi;
    item.lease_lo = lo;
    get.n_items = 1;
    get.items = &items;
    reply.result_case = FB__CLIENT_REPLY__RESULT_GET;
    reply.get = &get;
    cr_assert(fc_held_promise(held, 1));
    fc_held_enter(held, 7, &reply, 1);
    fc_held_unpromise(held, 1);
}

static bool is_there(const struct fc_held *held, uint64_t hi, uint64_t lo) {
    unsigned found = 0;
    for (size_t i = 0; i < held->place_count; i++)
        found += held->places[i].handle && held->places[i].hi == hi && held->places[i].lo == lo;
    cr_assert_leq(found, 1);
    return found;
}

/* Tokens of which many want the same place, entered and dropped in any order. */
Test(client_held, agrees_with_a_list) {
    uint64_t seed = check_seed("client_held");
    struct fc_held held = {0};
    bool there[TOKENS] = {false};
    size_t count = 0;
    for (uint32_t round = 0; round < 20000; round++) {
        uint32_t i = (uint32_t)(check_random(&seed) % TOKENS);
        bool grows = round / 2000 % 2 == 0;
        if (check_random(&seed) % 3 != 0 ? grows : !grows)
            enter_lease(&held, 1 + i % 3, i / 3);
        else
            fc_held_drop(&held, 1 + i % 3, i / 3);
        bool now = is_there(&held, 1 + i % 3, i / 3);
        count += now && !there[i];
        count -= !now && there[i];
        there[i] = now;
        cr_assert_eq(held.count, count);
        if (round % 500 == 0)
            for (uint32_t k = 0; k < TOKENS; k++)
                cr_assert_eq(is_there(&held, 1 + k % 3, k / 3), there[k], "token %u", k);
    }
    fc_held_clear(&held);
    cr_assert_eq(held.count, 0);
    fc_held_deinit(&held);
}

/* A broker that grants more than it was asked for. */
Test(client_held, enters_no_more_than_was_promised) {
    Fb__PutResult items[40], *pointers[40];
    Fb__PutReply put = FB__PUT_REPLY__INIT;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    struct fc_held held = {0};
    for (uint32_t i = 0; i < 40; i++) {
        pointers[i] = &items[i];
        fb__put_result__init(&items[i]);
        items[i].reservation = i + 1;
    }
    put.n_items = 40;
    put.items = pointers;
    reply.result_case = FB__CLIENT_REPLY__RESULT_PUT;
    reply.put = &put;
    cr_assert(fc_held_promise(&held, 2));
    fc_held_enter(&held, 1, &reply, 2);
    fc_held_unpromise(&held, 2);
    cr_assert_eq(held.count, 2);
    fc_held_drop(&held, 0, 1);
    fc_held_drop(&held, 0, 2);
    fc_held_drop(&held, 0, 3);
    cr_assert_eq(held.count, 0);
    fc_held_deinit(&held);
}
