/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets of a queue (feature_get_start()) that are under way when one of these happens: the
 * connection is lost, the broker dies, another thread closes the store, or the process forks.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/client_queue.h"

TestSuite(client_queue_life, .init = set_up, .fini = tear_down, .timeout = 120);

/* ---- connections ---- */

Test(client_queue_life, what_is_under_way_is_asked_again_on_the_next_connection) {
    struct feature_request *requests[5];
    struct feature_view *view;
    put("s", 300, 1);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 5; i++)
        requests[i] = start("s");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 5));
    f->broker.on_request = NULL;
    fake_broker_drop_sessions(&f->broker);
    for (size_t i = 0; i < 5; i++) {
        OK(finish(await_next(), &view));
        assert_two_tensors(view, 300, 1);
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    }
    cr_assert_eq(f->broker.connections, 2);
    (void)requests;
}

/* The descriptor alone moves the queue: nobody makes a call that waits. */
Test(client_queue_life, a_broker_that_comes_back_is_found) {
    struct feature_view *view;
    put("s", 300, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *request = start("s");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    fake_broker_stop(&f->broker);
    for (unsigned i = 0; i < 10; i++) { /* a few attempts find nobody */
        cr_assert(is_readable(AWAIT_MS));
        cr_assert_null(feature_queue_next(queue));
    }
    f->broker.on_request = NULL;
    fake_broker_start(&f->broker);
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue_life, without_a_broker_gets_end_at_their_deadline) {
    struct feature_view *view;
    fake_broker_stop(&f->broker);
    (void)start_with("s", &short_deadline, NULL);
    (void)start_with("s", &short_deadline, NULL);
    for (size_t i = 0; i < 2; i++) {
        FAILS(FEATURE_E_UNAVAILABLE, finish(await_next(), &view));
        SAYS("is featured running?");
    }
}

/* A new broker has another arena: what is got of it is mapped anew. */
Test(client_queue_life, another_broker_in_its_place) {
    struct feature_view *view;
    put("s", 300, 1);
    fake_broker_restart(&f->broker);
    struct feature_request *request = start("s");
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_NOT_FOUND, finish(request, &view));
    put("s", 300, 2);
    request = start("s");
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    assert_two_tensors(view, 300, 2);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue_life, after_disconnect_what_is_under_way_is_unavailable) {
    struct feature_view *view;
    set_limits(4, 100);
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 5; i++)
        (void)start("s");
    feature_disconnect(f->feature);
    for (size_t i = 0; i < 5; i++) {
        FAILS(FEATURE_E_UNAVAILABLE, finish(await_next(), &view));
        SAYS("was closed");
    }
    cr_assert_not(is_readable(0));
    feature_queue_close(queue);
    OK(fixture_connect(f));
    OK(feature_queue_open(f->feature, NULL, &queue));
}

Test(client_queue_life, a_store_that_is_closed_stays_open_for_its_gets) {
    struct feature_view *view;
    put("s", 300, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *request = start("s");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    feature_store_close(f->store);
    fence();
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE), 0);
    fake_broker_answer_held(&f->broker);
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    assert_two_tensors(view, 300, 1);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, 1));
}

/* ---- other threads ---- */

static void *get_and_wait(void *argument) {
    const char *id = argument;
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_ID(id), NULL, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    return NULL;
}

/* A thread that waits has the receive role and gets the queue's answer: the queue must hear of it,
 * although its socket is never readable. */
Test(client_queue_life, answers_that_another_thread_receives) {
    struct feature_view *view;
    pthread_t waits;
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    cr_assert_eq(pthread_create(&waits, NULL, get_and_wait, "s"), 0);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    f->broker.on_request = NULL;
    for (unsigned i = 0; i < 50; i++) {
        struct feature_request *request = start("s");
        cr_assert_eq(await_next(), request);
        OK(finish(request, &view));
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    }
    fake_broker_answer_held(&f->broker);
    pthread_join(waits, NULL);
}

struct worker {
    pthread_t thread;
    struct feature_queue *queue;
    bool waits;
};

static void *work(void *argument) {
    const struct worker *worker = argument;
    for (unsigned i = 0; i < 200; i++) {
        const struct feature_get_item item = {.size = sizeof item, .sample_id = "s"};
        struct feature_get_item got = FEATURE_GET_ITEM_INIT;
        struct feature_request *request, *next = NULL;
        if (worker->waits) {
            get_and_wait("s");
            continue;
        }
        OK(feature_get_start(worker->queue, f->store, &item, 1, NULL, NULL, &request));
        while (!next) {
            struct pollfd fd = {.fd = feature_queue_fd(worker->queue), .events = POLLIN};
            cr_assert_gt(poll(&fd, 1, AWAIT_MS), 0);
            next = feature_queue_next(worker->queue);
        }
        cr_assert_eq(next, request);
        OK(feature_get_finish(request, &got, 1));
        assert_two_tensors(got.view, 300, 1);
        OK(feature_release(got.view, FEATURE_RELEASE_RETURNED));
    }
    return NULL;
}

/* Two queues and two threads that wait, over connections that are lost. */
Test(client_queue_life, queues_and_threads_that_wait_share_a_connection) {
    struct worker workers[4];
    put("s", 300, 1);
    for (size_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){.waits = i >= 2};
        OK(feature_queue_open(f->feature, NULL, &workers[i].queue));
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 1; i <= 4; i++) {
        cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, i * 100));
        fake_broker_drop_sessions(&f->broker);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        feature_queue_close(workers[i].queue);
    }
    cr_assert_geq(released(), 1);
}

/* One request is given to one thread, however many ask. */
static void *take_all(void *argument) {
    unsigned *taken = argument;
    while (is_readable(200)) {
        struct feature_request *request = feature_queue_next(queue);
        struct feature_view *view;
        if (!request)
            continue;
        OK(finish(request, &view));
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        ++*taken;
    }
    return NULL;
}

Test(client_queue_life, threads_share_a_queue) {
    unsigned taken[3] = {0};
    pthread_t threads[3];
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < MANY; i++)
        (void)start("s");
    f->broker.on_request = NULL;
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_all, &taken[i]), 0);
    fake_broker_answer_held(&f->broker);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    take_all(&taken[0]);
    cr_assert_eq(taken[0] + taken[1] + taken[2], MANY);
}

/* ---- fork ---- */

static void in_child(struct feature_request *request) {
    const struct feature_get_item item = {.size = sizeof item, .sample_id = "s"};
    struct feature_get_item got = FEATURE_GET_ITEM_INIT;
    struct feature_request *started;
    if (feature_queue_fd(queue) != -1 || feature_queue_next(queue))
        _exit(1);
    if (feature_get_start(queue, f->store, &item, 1, NULL, NULL, &started) != FEATURE_E_INVALID)
        _exit(2);
    if (feature_get_finish(request, &got, 1) != FEATURE_E_INVALID)
        _exit(3);
    feature_request_cancel(request);
    feature_queue_close(queue);
    feature_disconnect(f->feature);
    _exit(0);
}

Test(client_queue_life, a_forked_child_changes_nothing) {
    struct feature_view *view;
    int status;
    put("s", 300, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *first = start("s"), *second = start("s");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 2));
    pid_t child = fork();
    if (!child)
        in_child(first);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "status %#x", (unsigned)status);
    fake_broker_answer_held(&f->broker);
    cr_assert_eq(await_next(), first);
    cr_assert_eq(await_next(), second);
    OK(finish(first, &view));
    assert_two_tensors(view, 300, 1);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    OK(finish(second, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

/* ---- arguments ---- */

Test(client_queue_life, arguments_are_checked) {
    struct feature_get_item item = {.size = sizeof item, .sample_id = "s"};
    struct feature_request *request;
    struct feature *second;
    struct feature_queue *other;
    FAILS(FEATURE_E_INVALID, feature_queue_open(NULL, NULL, &other));
    FAILS(FEATURE_E_INVALID, feature_queue_open(f->feature, NULL, NULL));
    cr_assert_eq(feature_queue_fd(NULL), -1);
    cr_assert_null(feature_queue_next(NULL));
    cr_assert_null(feature_request_context(NULL));
    feature_queue_close(NULL);
    FAILS(FEATURE_E_INVALID, feature_get_start(NULL, f->store, &item, 1, NULL, NULL, &request));
    FAILS(FEATURE_E_INVALID, feature_get_start(queue, NULL, &item, 1, NULL, NULL, &request));
    FAILS(FEATURE_E_INVALID, feature_get_start(queue, f->store, NULL, 1, NULL, NULL, &request));
    FAILS(FEATURE_E_INVALID, feature_get_start(queue, f->store, &item, 0, NULL, NULL, &request));
    FAILS(FEATURE_E_INVALID, feature_get_start(queue, f->store, &item, 1, NULL, NULL, NULL));
    FAILS(FEATURE_E_INVALID, feature_get_finish(NULL, &item, 1));
    put("s", 100, 1);
    request = start("s");
    FAILS(FEATURE_E_INVALID, feature_get_finish(request, NULL, 1));
    feature_request_cancel(request);
    struct feature_options options = {.size = sizeof options, .socket_path = f->broker.path};
    OK(feature_connect(&options, &second));
    OK(feature_queue_open(second, NULL, &other));
    FAILS(FEATURE_E_INVALID, feature_get_start(other, f->store, &item, 1, NULL, NULL, &request));
    SAYS("another connection");
    feature_queue_close(other);
    feature_disconnect(second);
}
