/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "busy_poll.h"

/* Requests that come `gap_ns` apart; turns every 1000 ns in between. Returns the turns spent
 * looking. */
static unsigned run(struct busy_poll *poll, unsigned requests, uint64_t gap_ns, uint64_t *now_ns,
                    uint64_t *count) {
    unsigned looks = 0;
    for (unsigned i = 0; i < requests; i++) {
        bool hot = busy_poll_turn(poll, ++*count, *now_ns);
        for (uint64_t t = 1000; t < gap_ns && hot; t += 1000) {
            looks++;
            hot = busy_poll_turn(poll, *count, *now_ns + t);
        }
        *now_ns += gap_ns;
    }
    return looks;
}

Test(busy_poll, looks_all_the_time_while_it_pays) {
    struct busy_poll poll = {.span_ns = 50000};
    uint64_t now_ns = 1, count = 0;
    run(&poll, 64, 10000, &now_ns, &count); /* learns */
    cr_assert_geq(run(&poll, 100, 10000, &now_ns, &count), 100 * 9);
}

Test(busy_poll, gives_up_on_requests_that_come_seldom) {
    struct busy_poll poll = {.span_ns = 50000};
    uint64_t now_ns = 1, count = 0;
    run(&poll, 64, 10000, &now_ns, &count);
    run(&poll, 64, 1000000, &now_ns, &count); /* unlearns */
    /* One probe of 50 turns for every 32 requests. */
    cr_assert_leq(run(&poll, 320, 1000000, &now_ns, &count), 11 * 50);
}

Test(busy_poll, span_of_zero_never_looks) {
    struct busy_poll poll = {.span_ns = 0};
    uint64_t now_ns = 1, count = 0;
    cr_assert_eq(run(&poll, 200, 10000, &now_ns, &count), 0);
}
