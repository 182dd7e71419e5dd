/* SPDX-License-Identifier: Apache-2.0
 *
 * How many lines of a kind and a source, and what is said of those left out.
 */
#include <criterion/criterion.h>

#include "ops/log_limit.h"

#define SECOND_NS 1000000000ull

static struct log_limits limits;
static const char kind_a[] = "a", kind_b[] = "b";

static uint32_t take(const char *kind, uint64_t source, uint32_t times, uint64_t now_ns) {
    uint32_t shown = 0;
    for (uint32_t i = 0; i < times; i++)
        shown += log_limit_take(&limits, kind, source, 10, now_ns) != NULL;
    return shown;
}

Test(log_limit, each_kind_and_source_has_its_own) {
    cr_expect_eq(take(kind_a, 1, 100, SECOND_NS), 10);
    cr_expect_eq(take(kind_a, 2, 100, SECOND_NS), 10);
    cr_expect_eq(take(kind_b, 1, 5, SECOND_NS), 5);
}

Test(log_limit, what_was_left_out_is_due_once_when_the_span_is_over) {
    uint64_t end_ns = SECOND_NS + LOG_LIMIT_SPAN_NS;
    take(kind_a, 1, 133, SECOND_NS);
    take(kind_b, 1, 5, SECOND_NS);
    cr_expect_eq(log_limit_next_ns(&limits), end_ns);
    cr_expect_null(log_limit_due(&limits, end_ns - 1));
    struct log_limit_place *place = log_limit_due(&limits, end_ns);
    cr_assert_not_null(place);
    cr_expect_eq(place->hidden, 123);
    cr_expect_eq(place->kind, kind_a);
    log_limit_told(place);
    cr_expect_null(log_limit_due(&limits, end_ns));
    cr_expect_eq(log_limit_next_ns(&limits), UINT64_MAX);
    cr_expect_eq(take(kind_a, 1, 100, end_ns), 10, "a new span has lines again");
}

Test(log_limit, sources_without_number_share_what_is_left) {
    uint32_t shown = 0;
    for (uint64_t source = 0; source < 100000; source++)
        shown += take(kind_a, source, 1, SECOND_NS);
    cr_expect_eq(shown, LOG_LIMIT_PLACES - 1 + LOG_LIMIT_SHARED);
    struct log_limit_place *place = log_limit_due(&limits, 2 * LOG_LIMIT_SPAN_NS);
    cr_assert_not_null(place);
    cr_expect_null(place->kind);
    cr_expect_eq(place->hidden, 100000 - shown);
}

Test(log_limit, places_are_free_again_after_their_span) {
    for (uint64_t round = 1; round < 5; round++)
        for (uint64_t source = 0; source < LOG_LIMIT_PLACES - 1; source++)
            cr_assert_eq(take(kind_a, source, 10, round * LOG_LIMIT_SPAN_NS), 10);
}
