/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue on a connection to a fake broker, and an event loop's way to wait for it: every wait is a
 * poll of the queue's descriptor with a deadline. A request that ends without the descriptor saying
 * so is not found.
 */
#ifndef FEATURED_TESTS_UNIT_CLIENT_QUEUE_H
#define FEATURED_TESTS_UNIT_CLIENT_QUEUE_H

#include <poll.h>
#include <time.h>

#include "unit/client_fixture.h"

#define AWAIT_MS 20000

enum { MANY = 1000 };

static struct fixture *f;
static struct feature_queue *queue;

static inline void set_up(void) {
    f = fixture_new();
    OK(feature_queue_open(f->feature, NULL, &queue));
}
static inline void tear_down(void) {
    feature_queue_close(queue);
    fixture_free(f);
}
/* Only what the broker has said before counts, so the queue's connection is made anew. */
static inline void set_limits(uint32_t requests, uint32_t items) {
    feature_queue_close(queue);
    feature_disconnect(f->feature);
    f->broker.requests_said = requests;
    f->broker.items_said = items;
    OK(fixture_connect(f));
    OK(feature_store_open(f->feature, FAKE_STORE, NULL, &f->store));
    OK(feature_queue_open(f->feature, NULL, &queue));
}

static inline struct feature_request *
start_with(const char *id, const struct feature_get_options *options, void *context) {
    const struct feature_get_item item = {.size = sizeof item, .sample_id = id};
    struct feature_request *request = NULL;
    OK(feature_get_start(queue, f->store, &item, 1, options, context, &request));
    cr_assert_not_null(request);
    return request;
}

static inline struct feature_request *start(const char *id) {
    return start_with(id, NULL, NULL);
}

static inline bool is_readable(int timeout_ms) {
    struct pollfd fd = {.fd = feature_queue_fd(queue), .events = POLLIN};
    return poll(&fd, 1, timeout_ms) > 0;
}

static inline uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The next request that ends; asks only after the descriptor has said that there is something. */
static inline struct feature_request *await_next(void) {
    for (uint64_t until_ms = now_ms() + AWAIT_MS; now_ms() < until_ms;) {
        cr_assert(is_readable(AWAIT_MS), "nothing came");
        struct feature_request *request = feature_queue_next(queue);
        if (request)
            return request;
    }
    cr_assert_fail("readable again and again, and nothing to give");
    return NULL;
}

static inline int finish(struct feature_request *request, struct feature_view **view_out) {
    struct feature_get_item item = FEATURE_GET_ITEM_INIT;
    int rc = feature_get_finish(request, &item, 1);
    if (rc != FEATURE_PENDING)
        cr_assert_eq(rc, item.status);
    *view_out = item.view;
    return rc;
}

/* Looks until the condition holds; what ends meanwhile is none of the test's. */
#define LOOK_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t until_ms_ = now_ms() + AWAIT_MS;                                                  \
        while (!(condition)) {                                                                     \
            cr_assert(now_ms() < until_ms_, "never: %s", #condition);                              \
            (void)is_readable(10);                                                                 \
            cr_assert_null(feature_queue_next(queue));                                             \
        }                                                                                          \
    } while (0)

static inline void put(const char *id, size_t bytes, uint8_t seed) {
    feature_ref_free(put_two_tensors(f->store, id, bytes, seed));
}

static inline void fence(void) {
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
}

static inline unsigned released(void) {
    return fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE);
}

static inline enum fake_verdict hold_gets(struct fake_broker *broker,
                                          const struct fake_request *request) {
    (void)broker;
    return request->message->op_case == FB__CLIENT_REQUEST__OP_GET ? FAKE_HOLD : FAKE_ANSWER;
}

static const struct feature_get_options short_deadline = {
    .size = sizeof(struct feature_get_options), .deadline_ms = 1};

#endif
