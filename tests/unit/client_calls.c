/* SPDX-License-Identifier: Apache-2.0
 *
 * Many calls on one connection, and answers that come late, never or out of order.
 */
#include <pthread.h>

#include "unit/client_fixture.h"

enum { THREADS = 4, ROUNDS = 60 };

struct worker {
    pthread_t thread;
    struct fixture *f;
    int number;
};

static void *work(void *argument) {
    const struct worker *worker = argument;
    for (int i = 0; i < ROUNDS; i++) {
        char id[32];
        snprintf(id, sizeof id, "w%d-%d", worker->number, i);
        uint8_t seed = (uint8_t)(worker->number * 50 + i);
        struct feature_ref *ref = put_two_tensors(worker->f->store, id, 300, seed);
        struct feature_view *view;
        OK(feature_get(worker->f->store, FEATURE_BY_REF(ref), NULL, &view));
        assert_two_tensors(view, 300, seed);
        OK(feature_release(view, i % 2 ? FEATURE_RELEASE_CONSUMED : FEATURE_RELEASE_RETURNED));
        feature_ref_free(ref);
    }
    return NULL;
}

static void start(struct worker workers[THREADS], struct fixture *f) {
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.f = f, .number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void join(const struct worker workers[THREADS]) {
    for (int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
}

Test(client_calls, threads_share_a_handle) {
    struct fixture *f = fixture_new();
    struct worker workers[THREADS];
    start(workers, f);
    join(workers);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, THREADS * ROUNDS));
    fixture_free(f);
}

Test(client_calls, threads_go_on_over_lost_connections) {
    struct fixture *f = fixture_new();
    struct worker workers[THREADS];
    start(workers, f);
    for (unsigned i = 1; i <= 5; i++) {
        cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_PUT, i * 20));
        fake_broker_drop_sessions(&f->broker);
    }
    join(workers);
    cr_assert_eq(f->broker.effects, THREADS * ROUNDS, "every put was carried out once");
    fixture_free(f);
}

/* ---- held answers ---- */

static enum fake_verdict hold_op(struct fake_broker *broker, const struct fake_request *request) {
    const Fb__ClientRequest__OpCase *op = broker->context;
    return request->message->op_case == *op ? FAKE_HOLD : FAKE_ANSWER;
}

static void *get_slowly(void *argument) {
    struct fixture *f = argument;
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_ID("s"), NULL, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    return NULL;
}

Test(client_calls, a_slow_answer_does_not_hold_up_another_thread) {
    struct fixture *f = fixture_new();
    Fb__ClientRequest__OpCase op = FB__CLIENT_REQUEST__OP_GET;
    pthread_t slow;
    feature_ref_free(put_two_tensors(f->store, "s", 100, 1));
    f->broker.context = &op;
    f->broker.on_request = hold_op;
    cr_assert_eq(pthread_create(&slow, NULL, get_slowly, f), 0);
    cr_assert(fake_broker_await(&f->broker, op, 1));
    /* The slow thread has the receive role; this one's answers come through it. */
    struct feature_health health = {.size = sizeof health};
    for (int i = 0; i < 20; i++)
        OK(feature_health(f->feature, &health));
    fake_broker_answer_held(&f->broker);
    pthread_join(slow, NULL);
    fixture_free(f);
}

Test(client_calls, a_late_lease_is_returned) {
    struct fixture *f = fixture_new();
    Fb__ClientRequest__OpCase op = FB__CLIENT_REQUEST__OP_GET;
    struct feature_view *view;
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 1};
    feature_ref_free(put_two_tensors(f->store, "s", 100, 1));
    f->broker.context = &op;
    f->broker.on_request = hold_op;
    FAILS(FEATURE_E_TIMEOUT, feature_get(f->store, FEATURE_BY_ID("s"), &options, &view));
    fake_broker_answer_held(&f->broker);
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    struct fake_record release = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0);
    cr_assert_eq(release.id, 1);
    cr_assert(release.note);
    cr_assert_not(release.consumed);
    fixture_free(f);
}

Test(client_calls, a_late_reservation_is_cancelled) {
    struct fixture *f = fixture_new();
    Fb__ClientRequest__OpCase op = FB__CLIENT_REQUEST__OP_RESERVE;
    struct two_tensors s;
    struct feature_reservation *reservation;
    two_tensors_init(&s, "s", 100, 1);
    f->broker.context = &op;
    f->broker.on_request = hold_op;
    FAILS(FEATURE_E_TIMEOUT, feature_reserve(f->store, &s.sample, 1, &reservation));
    fake_broker_answer_held(&f->broker);
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL, 1));
    cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL, 0).id, 1);
    two_tensors_deinit(&s);
    fixture_free(f);
}

/* ---- progress ---- */

static enum fake_verdict tell_progress(struct fake_broker *broker,
                                       const struct fake_request *request) {
    (void)broker;
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_GET)
        return FAKE_ANSWER;
    for (unsigned i = 1; i <= 3; i++) {
        Fb__Progress progress = FB__PROGRESS__INIT;
        Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
        progress.bytes_done = i * 100;
        progress.bytes_total = 300;
        notice.note_case = FB__CLIENT_NOTICE__NOTE_PROGRESS;
        notice.progress = &progress;
        fake_broker_notice(request, request->header.request_id, &notice);
        /* of a request that nobody waits for */
        fake_broker_notice(request, request->header.request_id + 1000, &notice);
    }
    return FAKE_ANSWER;
}

static void sum_progress(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    uint64_t *sum = context;
    *sum += bytes_done;
    cr_assert_eq(bytes_total, 300);
}

Test(client_calls, progress_is_shown_to_the_caller) {
    struct fixture *f = fixture_new();
    struct feature_view *view;
    uint64_t sum = 0;
    struct feature_get_options options = {
        .size = sizeof options, .progress = sum_progress, .progress_context = &sum};
    feature_ref_free(put_two_tensors(f->store, "s", 100, 1));
    f->broker.on_request = tell_progress;
    OK(feature_get(f->store, FEATURE_BY_ID("s"), &options, &view));
    cr_assert_eq(sum, 600);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    fixture_free(f);
}
