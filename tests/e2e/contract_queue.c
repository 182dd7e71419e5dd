/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets that do not wait, with real brokers: many at a time, of this node's samples and of
 * another's; checked while they land; and a broker that is killed meanwhile. The descriptor alone
 * says when there is something to do: every wait is one for it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB      1048576u
#define AWAIT_MS 60000
#define MANY     1000u

/* ---- an event loop ---- */

struct loop {
    struct feature_queue *queue;
    int epoll;
};

static void loop_init(struct loop *loop, struct feature *feature) {
    struct epoll_event event = {.events = EPOLLIN};
    CHECK_OK(feature_queue_open(feature, NULL, &loop->queue));
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(epoll_ctl(loop->epoll, EPOLL_CTL_ADD, feature_queue_fd(loop->queue), &event) == 0,
          "epoll");
}

static void loop_deinit(const struct loop *loop) {
    close(loop->epoll);
    feature_queue_close(loop->queue);
}

static struct feature_request *loop_start(const struct loop *loop, struct feature_store *store,
                                          const struct feature_key *key,
                                          const struct feature_get_options *options,
                                          void *context) {
    const struct feature_get_item item = {
        .size = sizeof item, .ref = key->ref, .sample_id = key->sample_id};
    struct feature_request *request = NULL;
    CHECK_OK(feature_get_start(loop->queue, store, &item, 1, options, context, &request));
    return request;
}

static struct feature_request *loop_next(const struct loop *loop) {
    struct feature_request *request = NULL;
    const uint64_t until_ms = check_now_ms() + AWAIT_MS;
    while (!request) {
        struct epoll_event event;
        CHECK(check_now_ms() < until_ms, "nothing ended within %d ms", AWAIT_MS);
        if (epoll_wait(loop->epoll, &event, 1, 1000) > 0)
            request = feature_queue_next(loop->queue);
    }
    return request;
}

static int loop_finish(struct feature_request *request, struct feature_view **view_out) {
    struct feature_get_item item = FEATURE_GET_ITEM_INIT;
    int rc = feature_get_finish(request, &item, 1);
    *view_out = item.view;
    return rc;
}

static void check_view(const struct payload *payload, struct feature_view *view,
                       enum feature_release_how how) {
    const char *why = payload_difference(payload, view);
    CHECK(why == NULL, "%s: %s", payload->sample_id, why);
    CHECK_OK(feature_release(view, how));
}

/* ---- many ---- */

CONTRACT(queue_a_thousand_gets_at_a_time, "[store run]\n") {
    static struct payload payloads[MANY];
    static struct feature_ref *refs[MANY];
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    for (uint32_t i = 0; i < MANY; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%u", i);
        payload_init(&payloads[i], id, i, 500 + i);
        CHECK_OK(payload_put(&payloads[i], world->producer, 20000, &refs[i]));
    }
    for (uint32_t i = 0; i < MANY; i++)
        loop_start(&loop, world->consumer, by_ref(refs[i]), NULL, &payloads[i]);
    for (uint32_t i = 0; i < MANY; i++) {
        struct feature_request *request = loop_next(&loop);
        const struct payload *payload = feature_request_context(request);
        struct feature_view *view;
        CHECK_OK(loop_finish(request, &view));
        check_view(payload, view, FEATURE_RELEASE_CONSUMED);
    }
    world_settle(world);
    for (uint32_t i = 0; i < MANY; i++) {
        CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_ref(refs[i])));
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
    loop_deinit(&loop);
}

/* More than the broker takes at a time, of which none can be answered yet; calls that wait get
 * through beside them. */
CONTRACT(queue_gets_before_the_puts,
         "[store run]\npolicy = on-ack\n[local]\nmax_requests_per_session = 40\n") {
    struct feature_get_options options = {.size = sizeof options, .wait_ms = 60000};
    struct payload payload;
    struct feature_view *view;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "later", 1, 5000);
    for (uint32_t i = 0; i < 100; i++)
        loop_start(&loop, world->consumer, by_id("later"), &options, NULL);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->consumer, by_id("later")));
    CHECK_OK(payload_put(&payload, world->producer, 20000, NULL));
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_OK(loop_finish(loop_next(&loop), &view));
        check_view(&payload, view, FEATURE_RELEASE_RETURNED);
    }
    CHECK_OK(feature_ack(world->consumer_writer, by_id("later"), 1, NULL));
    payload_deinit(&payload);
    world_settle(world);
    loop_deinit(&loop);
}

/* Another node that was asked goes on waiting for "never" until wait_ms is over, and the end of the
 * test waits for that. */
CONTRACT(queue_closed_with_gets_under_way, "[store run]\n") {
    struct feature_get_options options = {.size = sizeof options, .wait_ms = 5000};
    struct payload payload;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "s", 1, 5000);
    CHECK_OK(payload_put(&payload, world->producer, 20000, NULL));
    for (uint32_t i = 0; i < 50; i++) {
        loop_start(&loop, world->consumer, by_id("s"), &options, NULL);
        loop_start(&loop, world->consumer, by_id("never"), &options, NULL);
    }
    (void)loop_next(&loop);
    loop_deinit(&loop);
    /* what was granted has been given back: nothing keeps the sample from being consumed */
    payload_check_get(&payload, world->consumer, by_id("s"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    payload_deinit(&payload);
}

/* As many as the session may have wait for what never comes; given up, they are in nobody's way. On
 * one node only: another one that was asked goes on waiting until the hour is over. */
static void queue_what_is_cancelled_no_longer_counts(struct world *world) {
    struct feature_get_options options = {.size = sizeof options, .wait_ms = 3600000};
    struct feature_request *requests[6];
    struct payload payload;
    struct feature_view *view;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "s", 1, 5000);
    CHECK_OK(payload_put(&payload, world->producer, 20000, NULL));
    for (uint32_t i = 0; i < 6; i++)
        requests[i] = loop_start(&loop, world->consumer, by_id("never"), &options, NULL);
    struct feature_request *last = loop_start(&loop, world->consumer, by_id("s"), NULL, NULL);
    for (uint32_t i = 0; i < 6; i++)
        feature_request_cancel(requests[i]);
    CHECK(loop_next(&loop) == last, "another one");
    CHECK_OK(loop_finish(last, &view));
    check_view(&payload, view, FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    CHECK(cluster_numbers(&world->cluster, world->consumer_node, "run").get_waiters == 0,
          "something still waits");
    loop_deinit(&loop);
    payload_deinit(&payload);
}

Test(contract, queue_what_is_cancelled_no_longer_counts_one_node, .timeout = 120) {
    world_run(1, "[store run]\n[local]\nmax_requests_per_session = 8\n",
              queue_what_is_cancelled_no_longer_counts);
}

/* ---- integrity and progress ---- */

static void count_progress(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    unsigned *count = context;
    CHECK(bytes_done <= bytes_total, "more than there is");
    ++*count;
}

CONTRACT_TWO_NODES(queue_what_is_corrupt_on_the_way,
                   "[store run]\nmax_resident_bytes = 256MiB\nlanding_bytes = 256MiB\n") {
    unsigned shown = 0;
    struct feature_get_options options = {
        .size = sizeof options, .progress = count_progress, .progress_context = &shown};
    struct feature_reservation *reservation = NULL;
    struct feature_ref *ref = NULL;
    struct feature_view *view;
    struct payload payload;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "large", 7, 32 * MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    for (uint32_t i = 0; i < payload.sample.tensor_count; i++)
        payload_write(&payload, reservation, i);
    uint8_t *bytes = feature_reservation_data(reservation, 0);
    CHECK_OK(feature_commit(reservation, &ref));

    bytes[payload.tensors[0].bytes / 2] ^= 1;
    struct feature_request *request =
        loop_start(&loop, world->consumer, by_ref(ref), &options, NULL);
    CHECK(loop_next(&loop) == request, "another one");
    CHECK_STATUS(FEATURE_PENDING, loop_finish(request, &view));
    CHECK(loop_next(&loop) == request, "another one");
    CHECK_STATUS(FEATURE_E_CORRUPT, loop_finish(request, &view));
    CHECK_SAYS("large");

    bytes[payload.tensors[0].bytes / 2] ^= 1;
    request = loop_start(&loop, world->consumer, by_ref(ref), &options, NULL);
    CHECK(loop_next(&loop) == request, "another one");
    CHECK_OK(loop_finish(request, &view));
    check_view(&payload, view, FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    loop_deinit(&loop);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- brokers that are killed ---- */

/* The consumer's broker dies with gets under way and comes back: nobody else calls anything, and
 * what is put then ends them. */
CONTRACT(queue_goes_on_after_its_broker_was_killed, "[store run]\n") {
    struct feature_get_options options = {
        .size = sizeof options, .wait_ms = 60000, .deadline_ms = 60000};
    struct payload payload;
    struct feature_view *view;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "s", 1, 100000);
    for (uint32_t i = 0; i < 300; i++)
        loop_start(&loop, world->consumer, by_id("s"), &options, NULL);
    cluster_node_kill(&world->cluster, world->consumer_node);
    cluster_node_start(&world->cluster, world->consumer_node);
    if (world->producer_node != world->consumer_node)
        cluster_await_peer(&world->cluster, world->consumer_node, world->producer_node);
    CHECK_OK(payload_put(&payload, world->producer, 20000, NULL));
    for (uint32_t i = 0; i < 300; i++) {
        CHECK_OK(loop_finish(loop_next(&loop), &view));
        check_view(&payload, view, FEATURE_RELEASE_RETURNED);
    }
    payload_check_get(&payload, world->consumer, by_id("s"), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    loop_deinit(&loop);
    payload_deinit(&payload);
}

/* It does not come back: each get ends at its deadline, and says that nobody is there. */
CONTRACT(queue_ends_when_its_broker_stays_away, "[store run]\n") {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 300};
    struct feature_view *view;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    cluster_node_kill(&world->cluster, world->consumer_node);
    for (uint32_t i = 0; i < 300; i++)
        loop_start(&loop, world->consumer, by_id("s"), &options, NULL);
    for (uint32_t i = 0; i < 300; i++) {
        CHECK_STATUS(FEATURE_E_UNAVAILABLE, loop_finish(loop_next(&loop), &view));
        CHECK_SAYS("is featured running?");
    }
    loop_deinit(&loop);
    cluster_node_start(&world->cluster, world->consumer_node);
}

/* The home dies: its samples cannot be had, and the queue goes on with others. */
CONTRACT_TWO_NODES(queue_gets_from_a_home_that_was_killed, "[store run]\n") {
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 2000};
    struct payload payload, local;
    struct feature_ref *ref = NULL;
    struct feature_view *view;
    struct loop loop;
    loop_init(&loop, world->consumer_feature);
    payload_init(&payload, "there", 1, 100000);
    payload_init(&local, "here", 2, 100000);
    CHECK_OK(payload_put(&payload, world->producer, 20000, &ref));
    CHECK_OK(payload_put(&local, world->consumer_writer, 20000, NULL));
    cluster_node_kill(&world->cluster, world->producer_node);
    struct feature_request *there = loop_start(&loop, world->consumer, by_ref(ref), &options, NULL);
    struct feature_request *here = loop_start(&loop, world->consumer, by_id("here"), NULL, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        struct feature_request *request = loop_next(&loop);
        int rc = loop_finish(request, &view);
        CHECK(request == here || request == there, "another one");
        CHECK_STATUS(request == here ? FEATURE_OK : FEATURE_E_UNAVAILABLE, rc);
        if (request == here)
            check_view(&local, view, FEATURE_RELEASE_CONSUMED);
    }
    cluster_node_start(&world->cluster, world->producer_node);
    loop_deinit(&loop);
    feature_ref_free(ref);
    payload_deinit(&payload);
    payload_deinit(&local);
}
