/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to an etcd that is not there, with each allocation of the client failing once: every one
 * is answered once, from the loop, and nothing is left. (What libcurl allocates does not fail
 * here.)
 */
#include <criterion/criterion.h>
#include <string.h>
#include <uv.h>

#include "directory/etcd/etcd.h"
#include "directory/etcd/gateway.h"
#include "memory/counted.h"

struct asked {
    unsigned answers, inside; /* inside: the call that asks is on the stack */
};

static void on_done(void *context, enum etcd_result result, const struct etcd_answer *answer,
                    const char *why) {
    struct asked *asked = context;
    cr_assert_null(answer);
    cr_assert_neq(result, ETCD_OK);
    cr_assert_eq(asked->inside, 0, "answered from inside the call that asks");
    asked->answers++;
    (void)why;
}

static uint64_t ask_once(uint64_t n) {
    uv_loop_t loop;
    struct etcd *etcd;
    char why[256];
    struct etcd_client_options options = {.endpoints = "http://127.0.0.1:1"};
    struct etcd_request request = {.kind = ETCD_READ, .read = {.kind = ETCD_RANGE, .key = "/k"}};
    struct asked asked = {0};
    int64_t live_before = counted_live();
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(etcd_client_new(&loop, &options, &etcd, why, sizeof why), 0, "%s", why);
    counted_fail_at(n);
    asked.inside = 1;
    etcd->ops->ask(etcd, &request, 1000, on_done, &asked);
    asked.inside = 0;
    while (!asked.answers)
        uv_run(&loop, UV_RUN_ONCE);
    uint64_t calls = counted_calls();
    counted_fail_at(0);
    etcd->ops->destroy(etcd, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    cr_assert_eq(asked.answers, 1);
    /* The body is made by the JSON library, which is not counted, and freed by the client. */
    cr_assert_leq(counted_live(), live_before);
    return calls;
}

Test(memory, requests_to_etcd_whose_every_allocation_fails_once) {
    uint64_t calls = ask_once(0);
    cr_assert_geq(calls, 2u);
    for (uint64_t n = 1; n <= 2;
         n++) /* the transfer and its body: what comes later is its failing */
        ask_once(n);
}
