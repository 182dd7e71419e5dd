/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/rdma/pairing.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>

enum { RAILS = 3 };

static void set(struct sockaddr_storage *out, const char *text) {
    memset(out, 0, sizeof *out);
    if (text == NULL)
        return;
    out->ss_family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    void *at = out->ss_family == AF_INET ? (void *)&((struct sockaddr_in *)out)->sin_addr
                                         : (void *)&((struct sockaddr_in6 *)out)->sin6_addr;
    cr_assert_eq(inet_pton(out->ss_family, text, at), 1);
}

static void expect(const char *const ours[RAILS], const char *const theirs[RAILS],
                   const int wanted[RAILS]) {
    struct sockaddr_storage a[RAILS], b[RAILS];
    int got[RAILS];
    uint32_t pairs = 0;
    for (int i = 0; i < RAILS; i++) {
        set(&a[i], ours[i]);
        set(&b[i], theirs[i]);
        pairs += wanted[i] >= 0;
    }
    cr_expect_eq(rdma_pair_rails(a, RAILS, b, RAILS, got), pairs);
    for (int i = 0; i < RAILS; i++)
        cr_expect_eq(got[i], wanted[i], "rail %d goes to %d", i, got[i]);
}

Test(rdma_pairing, rails_of_one_subnet_find_each_other) {
    expect((const char *[]){"10.0.0.1", "10.0.1.1", NULL},
           (const char *[]){"10.0.1.2", NULL, "10.0.0.2"}, (int[]){2, 0, -1});
}

Test(rdma_pairing, without_a_common_subnet_they_go_in_order) {
    expect((const char *[]){"10.0.0.1", "10.0.1.1", "10.0.2.1"},
           (const char *[]){"192.168.0.1", "192.168.0.2", "192.168.0.3"}, (int[]){0, 1, 2});
}

Test(rdma_pairing, families_do_not_mix) {
    expect((const char *[]){"10.0.0.1", "fd00::1", NULL},
           (const char *[]){"fd00::2", "fd00::3", NULL}, (int[]){-1, 0, -1});
}

Test(rdma_pairing, the_surplus_of_one_side_stays_alone) {
    expect((const char *[]){"10.0.0.1", "10.0.1.1", "10.0.2.1"},
           (const char *[]){"10.0.1.9", NULL, NULL}, (int[]){-1, 0, -1});
}
