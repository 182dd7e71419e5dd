/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets that do not wait: from start over the descriptor to finish; many of them; deadlines,
 * cancelling, checksums and progress. What cuts in between is in client_queue_life.c.
 */
#include <dirent.h>

#include "unit/client_queue.h"

TestSuite(client_queue, .init = set_up, .fini = tear_down, .timeout = 120);

/* ---- one get ---- */

Test(client_queue, a_get_ends_when_its_answer_has_come) {
    struct feature_view *view;
    int context;
    put("s", 5000, 1);
    cr_assert_not(is_readable(0), "readable with nothing under way");
    struct feature_request *request = start_with("s", NULL, &context);
    cr_assert_eq(feature_request_context(request), &context);
    cr_assert_eq(await_next(), request);
    cr_assert_null(feature_queue_next(queue), "given out twice");
    OK(finish(request, &view));
    assert_two_tensors(view, 5000, 1);
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    cr_assert_not(is_readable(0), "still readable");
}

Test(client_queue, by_ref_too_and_the_ref_need_not_live) {
    struct feature_ref *ref = put_two_tensors(f->store, "s", 5000, 3);
    struct feature_get_item item = {.size = sizeof item, .ref = ref};
    struct feature_request *request;
    struct feature_view *view;
    OK(feature_get_start(queue, f->store, &item, 1, NULL, NULL, &request));
    feature_ref_free(ref);
    memset(&item, 0xff, sizeof item);
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    assert_two_tensors(view, 5000, 3);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue, a_refusal_is_told_with_its_sentence) {
    struct feature_view *view;
    struct feature_request *request = start("absent");
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_NOT_FOUND, finish(request, &view));
    SAYS("no such sample");
}

Test(client_queue, a_wrong_key_ends_at_once) {
    struct feature_view *view;
    struct feature_request *request = start("");
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_INVALID, finish(request, &view));
    SAYS("is empty");
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_GET), 0);
}

Test(client_queue, finish_before_the_end_is_pending) {
    struct feature_view *view = NULL;
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *request = start("s");
    cr_assert_eq(finish(request, &view), FEATURE_PENDING);
    cr_assert_null(view);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    fake_broker_answer_held(&f->broker);
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

/* ---- many keys ---- */

Test(client_queue, each_key_stands_alone) {
    static const char *const ids[] = {"a", "absent", "b\n", "c"};
    struct feature_get_item items[4];
    struct feature_request *request;
    put("a", 300, 1);
    put("c", 300, 3);
    for (size_t i = 0; i < 4; i++)
        items[i] = (struct feature_get_item){.size = sizeof items[i], .sample_id = ids[i]};
    OK(feature_get_start(queue, f->store, items, 4, NULL, NULL, &request));
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_INVALID, feature_get_finish(request, items, 3));
    SAYS("4 keys were started, there are 3");
    FAILS(FEATURE_E_INVALID, feature_get_finish(request, items, 4));
    SAYS("control character");
    OK(items[0].status);
    cr_assert_eq(items[1].status, FEATURE_E_NOT_FOUND);
    cr_assert_null(items[1].view);
    cr_assert_eq(items[2].status, FEATURE_E_INVALID);
    OK(items[3].status);
    assert_two_tensors(items[0].view, 300, 1);
    assert_two_tensors(items[3].view, 300, 3);
    OK(feature_release(items[0].view, FEATURE_RELEASE_RETURNED));
    OK(feature_release(items[3].view, FEATURE_RELEASE_RETURNED));
}

/* By id an answer has room for a dozen specs, so these are several requests. */
Test(client_queue, more_keys_than_fit_one_request) {
    enum { COUNT = 100 };
    static struct feature_get_item items[COUNT];
    static char ids[COUNT][16];
    struct feature_request *request;
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(ids[i], sizeof ids[i], "s%zu", i);
        put(ids[i], 50, (uint8_t)i);
        items[i] = (struct feature_get_item){.size = sizeof items[i], .sample_id = ids[i]};
    }
    OK(feature_get_start(queue, f->store, items, COUNT, NULL, NULL, &request));
    cr_assert_eq(await_next(), request);
    OK(feature_get_finish(request, items, COUNT));
    cr_assert_gt(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_GET), 1);
    for (size_t i = 0; i < COUNT; i++) {
        assert_two_tensors(items[i].view, 50, (uint8_t)i);
        OK(feature_release(items[i].view, FEATURE_RELEASE_RETURNED));
    }
}

/* ---- many gets ---- */

static unsigned count_descriptors(void) {
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (directory && readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static unsigned held(void) {
    pthread_mutex_lock(&f->broker.lock);
    unsigned count = f->broker.held_count;
    pthread_mutex_unlock(&f->broker.lock);
    return count;
}

Test(client_queue, a_thousand_gets_keep_within_what_the_broker_allows) {
    static struct feature_request *requests[MANY];
    const unsigned allowed = 64, most = allowed * 3 / 4;
    set_limits(allowed, 8192);
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    unsigned descriptors = count_descriptors(), ended = 0;
    for (size_t i = 0; i < MANY; i++)
        requests[i] = start_with("s", NULL, &requests[i]);
    cr_assert_eq(count_descriptors(), descriptors, "a get takes a descriptor");
    while (ended < MANY) {
        unsigned expected = MANY - ended < most ? MANY - ended : most;
        cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, ended + expected));
        fence(); /* a call that waits gets through, and everything sent before it is there */
        cr_assert_eq(held(), expected, "%u of %u at a time", held(), most);
        fake_broker_answer_held(&f->broker);
        for (unsigned i = 0; i < expected; i++) {
            struct feature_request *request = await_next();
            struct feature_view *view;
            cr_assert_eq(*(struct feature_request **)feature_request_context(request), request);
            OK(finish(request, &view));
            OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        }
        ended += expected;
    }
    cr_assert_not(is_readable(0), "still readable");
}

Test(client_queue, items_are_counted_too) {
    struct feature_get_item items[10];
    struct feature_request *requests[4];
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    set_limits(64, 40);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 10; i++)
        items[i] = (struct feature_get_item){.size = sizeof items[i], .ref = ref};
    for (size_t i = 0; i < 4; i++)
        OK(feature_get_start(queue, f->store, items, 10, NULL, NULL, &requests[i]));
    fence();
    cr_assert_eq(held(), 3, "30 of 40 items");
    fake_broker_answer_held(&f->broker);
    for (size_t i = 0; i < 3; i++)
        feature_request_cancel(await_next());
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 4));
    feature_ref_free(ref);
}

Test(client_queue, a_queue_may_have_a_limit_of_its_own) {
    struct feature_queue_options options = {.size = sizeof options, .requests_max = 2};
    struct feature_queue *other = queue;
    OK(feature_queue_open(f->feature, &options, &queue));
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 5; i++)
        (void)start("s");
    fence();
    cr_assert_eq(held(), 2);
    feature_queue_close(queue);
    queue = other;
}

/* Two queues share what the session may have: what one gives up the other hears of. */
Test(client_queue, room_that_another_queue_gives_up_is_used) {
    struct feature_queue *mine = queue, *other;
    struct feature_request *requests[6], *last;
    set_limits(8, 8192);
    mine = queue;
    OK(feature_queue_open(f->feature, NULL, &other));
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 6; i++)
        requests[i] = start("s");
    queue = other;
    last = start("s");
    fence();
    cr_assert_eq(held(), 6);
    f->broker.on_request = NULL;
    fake_broker_answer_held(&f->broker);
    queue = mine;
    for (size_t i = 0; i < 6; i++)
        feature_request_cancel(await_next());
    queue = other;
    cr_assert_eq(await_next(), last);
    feature_queue_close(other);
    queue = mine;
    (void)requests;
}

/* The broker does not read: the socket fills, and start returns all the same. */
Test(client_queue, a_full_socket_does_not_stop_start) {
    enum { GETS = 1500 };
    set_limits(1u << 20, 1u << 20);
    put("s", 100, 1);
    fence();
    pthread_mutex_lock(&f->broker.lock); /* its thread stands */
    for (size_t i = 0; i < GETS; i++)
        (void)start("s");
    while (is_readable(0)) /* nothing can be done, and the descriptor must say so */
        cr_assert_null(feature_queue_next(queue));
    pthread_mutex_unlock(&f->broker.lock);
    for (size_t i = 0; i < GETS; i++) {
        struct feature_view *view;
        OK(finish(await_next(), &view));
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    }
}

/* ---- deadlines and cancelling ---- */

Test(client_queue, the_deadline_ends_it_and_a_late_lease_is_returned) {
    struct feature_view *view;
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *request = start_with("s", &short_deadline, NULL);
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_TIMEOUT, finish(request, &view));
    SAYS("did not answer");
    fake_broker_answer_held(&f->broker);
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    cr_assert_not(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0).consumed);
}

/* One that waits for its turn has all of its time still before it. */
Test(client_queue, the_deadline_does_not_run_before_its_turn) {
    struct feature_get_options half_a_second = {.size = sizeof half_a_second, .deadline_ms = 500};
    struct feature_view *view;
    set_limits(1, 100); /* one at a time */
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *first = start("s");
    struct feature_request *second = start_with("s", &half_a_second, NULL);
    (void)is_readable(700); /* longer than its deadline; timing alone never fails */
    cr_assert_null(feature_queue_next(queue));
    f->broker.on_request = NULL;
    fake_broker_answer_held(&f->broker);
    cr_assert_eq(await_next(), first);
    cr_assert_eq(await_next(), second);
    OK(finish(first, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    OK(finish(second, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue, what_is_cancelled_in_flight_is_given_back) {
    put("s", 100, 1);
    f->broker.on_request = hold_gets;
    struct feature_request *request = start("s");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    feature_request_cancel(request);
    fake_broker_answer_held(&f->broker);
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    while (is_readable(0))
        cr_assert_null(feature_queue_next(queue));
}

Test(client_queue, what_is_cancelled_after_its_end_is_given_back) {
    put("s", 100, 1);
    (void)start("s");
    struct feature_request *given = await_next();
    feature_request_cancel(given);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    /* and one whose answer lies in the socket */
    struct feature_request *unseen = start("s");
    fence();
    feature_request_cancel(unseen);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 2));
    feature_request_cancel(NULL);
}

Test(client_queue, closing_the_queue_gives_everything_back) {
    set_limits(4, 100); /* three at a time */
    put("s", 100, 1);
    for (size_t i = 0; i < 3; i++)
        (void)start("s");
    (void)await_next(); /* given out and not finished */
    fence();
    f->broker.on_request = hold_gets;
    for (size_t i = 0; i < 5; i++)
        (void)start("s"); /* in flight, and waiting for their turn */
    feature_queue_close(queue);
    fence();
    unsigned in_flight = held();
    fake_broker_answer_held(&f->broker);
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 3 + in_flight));
    f->broker.on_request = NULL;
    OK(feature_queue_open(f->feature, NULL, &queue));
}

/* ---- integrity ---- */

/* Of the sample's bytes: changed before the get with this number is answered, from 1. */
static unsigned spoilt_from, spoilt_to, gets_seen;

static enum fake_verdict spoil(struct fake_broker *broker, const struct fake_request *request) {
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_GET)
        return FAKE_ANSWER;
    gets_seen++;
    broker->arena[broker->samples[0].extent_offset] =
        gets_seen >= spoilt_from && gets_seen <= spoilt_to ? 0xee : 1;
    return FAKE_ANSWER;
}

static struct feature_request *start_spoilt(unsigned from, unsigned to) {
    spoilt_from = from;
    spoilt_to = to;
    gets_seen = 0;
    f->broker.over_network = true;
    put("s", 5000, 1);
    f->broker.on_request = spoil;
    return start("s");
}

Test(client_queue, what_is_corrupt_is_asked_for_once_more) {
    struct feature_view *view;
    struct feature_request *request = start_spoilt(1, 1);
    cr_assert_eq(await_next(), request);
    cr_assert_eq(finish(request, &view), FEATURE_PENDING);
    cr_assert_eq(await_next(), request);
    OK(finish(request, &view));
    assert_two_tensors(view, 5000, 1);
    cr_assert_eq(gets_seen, 2);
    cr_assert(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0).corrupt);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue, what_is_corrupt_twice_is_never_data) {
    struct feature_view *view;
    struct feature_request *request = start_spoilt(1, 2);
    cr_assert_eq(await_next(), request);
    cr_assert_eq(finish(request, &view), FEATURE_PENDING);
    cr_assert_eq(await_next(), request);
    FAILS(FEATURE_E_CORRUPT, finish(request, &view));
    SAYS("tensor a does not match");
    cr_assert_null(view);
}

Test(client_queue, the_others_of_a_batch_wait_for_the_one_that_was_corrupt) {
    struct feature_get_item items[2] = {{.size = sizeof items[0], .sample_id = "s"},
                                        {.size = sizeof items[1], .sample_id = "t"}};
    struct feature_request *request;
    feature_request_cancel(start_spoilt(2, 2));
    put("t", 300, 9);
    OK(feature_get_start(queue, f->store, items, 2, NULL, NULL, &request));
    cr_assert_eq(await_next(), request);
    cr_assert_eq(feature_get_finish(request, items, 2), FEATURE_PENDING);
    cr_assert_eq(await_next(), request);
    OK(feature_get_finish(request, items, 2));
    assert_two_tensors(items[0].view, 5000, 1);
    assert_two_tensors(items[1].view, 300, 9);
    for (size_t i = 0; i < 2; i++)
        OK(feature_release(items[i].view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue, cancelled_while_the_corrupt_one_comes_again) {
    struct feature_view *view;
    struct feature_request *request = start_spoilt(1, 1);
    cr_assert_eq(await_next(), request);
    cr_assert_eq(finish(request, &view), FEATURE_PENDING);
    feature_request_cancel(request);
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 2));
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
    }
    return broker->context ? FAKE_HOLD : FAKE_ANSWER;
}

struct shown {
    uint64_t sum;
    struct feature_request *to_cancel;
};

static void on_progress(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    struct shown *shown = context;
    cr_assert_eq(bytes_total, 300);
    shown->sum += bytes_done;
    feature_request_cancel(shown->to_cancel);
    shown->to_cancel = NULL;
}

Test(client_queue, progress_is_shown_by_next) {
    struct shown shown = {0};
    struct feature_view *view;
    struct feature_get_options options = {
        .size = sizeof options, .progress = on_progress, .progress_context = &shown};
    put("s", 100, 1);
    f->broker.on_request = tell_progress;
    struct feature_request *request = start_with("s", &options, NULL);
    cr_assert_eq(await_next(), request);
    cr_assert_eq(shown.sum, 600);
    OK(finish(request, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

Test(client_queue, cancelled_by_its_own_progress) {
    struct shown shown = {0};
    struct feature_get_options options = {
        .size = sizeof options, .progress = on_progress, .progress_context = &shown};
    put("s", 100, 1);
    f->broker.context = f; /* hold the answer */
    f->broker.on_request = tell_progress;
    shown.to_cancel = start_with("s", &options, NULL);
    LOOK_UNTIL(shown.sum >= 100 && !shown.to_cancel);
    fake_broker_answer_held(&f->broker);
    fence();
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
}
