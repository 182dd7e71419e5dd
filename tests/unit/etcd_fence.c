/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "directory/etcd/fence.h"

#define S 1000000000ull

Test(etcd_fence, without_a_lease_nothing_holds_and_nothing_is_due) {
    struct fence fence;
    fence_drop(&fence);
    cr_expect_not(fence_holds(&fence, 0));
    cr_expect_not(fence_keep_alive_due(&fence, UINT64_MAX - 1));
    cr_expect_eq(fence_expiry_ns(&fence), UINT64_MAX);
    fence_kept(&fence, 5 * S, 10); /* a late acknowledgement of a lease that was dropped */
    cr_expect_not(fence_holds(&fence, 5 * S));
}

Test(etcd_fence, it_counts_from_the_sending_and_stops_a_margin_early) {
    struct fence fence;
    fence_drop(&fence);
    fence_granted(&fence, 100 * S, 10);
    cr_expect(fence_holds(&fence, 108 * S - 1));
    cr_expect_not(fence_holds(&fence, 108 * S));
    fence_kept(&fence, 103 * S, 10); /* whenever the answer came */
    cr_expect(fence_holds(&fence, 111 * S - 1));
    cr_expect_not(fence_holds(&fence, 111 * S));
    cr_expect_eq(fence_expiry_ns(&fence), 111 * S);
}

Test(etcd_fence, an_older_acknowledgement_takes_nothing_back) {
    struct fence fence;
    fence_drop(&fence);
    fence_granted(&fence, 100 * S, 10);
    fence_kept(&fence, 104 * S, 10);
    fence_kept(&fence, 102 * S, 10);
    cr_expect_eq(fence_expiry_ns(&fence), 112 * S);
}

Test(etcd_fence, a_shorter_lease_than_asked_for_is_believed) {
    struct fence fence;
    fence_drop(&fence);
    fence_granted(&fence, 100 * S, 10);
    fence_kept(&fence, 104 * S, 5);
    cr_expect_eq(fence_expiry_ns(&fence), 108 * S);
}

Test(etcd_fence, keep_alives_leave_time_for_two_failures) {
    struct fence fence;
    uint32_t sent = 0;
    fence_drop(&fence);
    fence_granted(&fence, 0, 10);
    cr_expect_not(fence_keep_alive_due(&fence, 3 * S));
    for (uint64_t now_ns = 0; fence_holds(&fence, now_ns);) {
        if (!fence_keep_alive_due(&fence, now_ns)) {
            now_ns += S / 100;
            continue;
        }
        fence_keep_alive_sent(&fence);
        cr_expect_not(fence_keep_alive_due(&fence, now_ns + S), "one at a time");
        sent++;
        now_ns += fence_timeout_ms(&fence) * 1000000ull; /* no answer */
        fence_keep_alive_failed(&fence, now_ns);
    }
    cr_expect_geq(sent, 3);
}
