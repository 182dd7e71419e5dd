/* SPDX-License-Identifier: Apache-2.0
 *
 * feature_put_new(): the broker is asked whether a sample is there before room is asked for, and
 * the answer is looked at before anything becomes visible.
 */
#include <pthread.h>

#include "unit/client_fixture.h"

#define LARGE_BYTES 300000u
#define ASKED       FB__CLIENT_REQUEST__OP_STAT
#define RESERVED    FB__CLIENT_REQUEST__OP_RESERVE
#define COMMITTED   FB__CLIENT_REQUEST__OP_COMMIT
#define CANCELLED   FB__CLIENT_REQUEST__OP_CANCEL

static void assert_sample(struct fixture *f, size_t bytes, uint8_t seed) {
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_ID("s"), NULL, &view));
    assert_two_tensors(view, bytes, seed);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

static int put_new(struct fixture *f, size_t bytes, uint8_t seed, uint32_t deadline_ms) {
    struct two_tensors s;
    two_tensors_init(&s, "s", bytes, seed);
    int rc = feature_put_new(f->store, &s.sample, s.data, deadline_ms, NULL);
    two_tensors_deinit(&s);
    return rc;
}

static void puts_and_keeps(size_t bytes) {
    struct fixture *f = fixture_new();
    OK(put_new(f, bytes, 3, 1000));
    FAILS(FEATURE_E_EXISTS, put_new(f, bytes, 4, 1000));
    SAYS("sample s");
    assert_sample(f, bytes, 3);
    cr_assert_eq(f->broker.effects, 1);
    cr_assert_eq(fake_broker_count(&f->broker, ASKED), 2);
    fixture_free(f);
}

Test(client_put_new, a_small_sample_that_is_there_stays) {
    puts_and_keeps(500);
}

Test(client_put_new, a_large_sample_that_is_there_stays) {
    puts_and_keeps(LARGE_BYTES);
}

/* ---- an answer that comes late ---- */

static enum fake_verdict hold_stats(struct fake_broker *broker,
                                    const struct fake_request *request) {
    (void)broker;
    return request->message->op_case == ASKED ? FAKE_HOLD : FAKE_ANSWER;
}

struct late_put {
    struct fixture *f;
    pthread_t thread;
    int rc;
};

static void *put_late(void *context) {
    struct late_put *put = context;
    put->rc = put_new(put->f, LARGE_BYTES, 4, 1000);
    return NULL;
}

/* The answer is given once the room has been asked for: that did not wait for it. */
static int put_with_a_late_answer(struct fixture *f, unsigned reserved_before) {
    struct late_put put = {.f = f};
    f->broker.on_request = hold_stats;
    cr_assert_eq(pthread_create(&put.thread, NULL, put_late, &put), 0);
    cr_assert(fake_broker_await(&f->broker, RESERVED, reserved_before + 1));
    fake_broker_answer_held(&f->broker);
    pthread_join(put.thread, NULL);
    return put.rc;
}

Test(client_put_new, the_answer_may_come_after_the_room) {
    struct fixture *f = fixture_new();
    OK(put_with_a_late_answer(f, 0));
    assert_sample(f, LARGE_BYTES, 4);
    fixture_free(f);
}

Test(client_put_new, what_turns_out_to_be_there_is_not_replaced_and_the_room_is_given_back) {
    struct fixture *f = fixture_new();
    feature_ref_free(put_two_tensors(f->store, "s", LARGE_BYTES, 3));
    FAILS(FEATURE_E_EXISTS, put_with_a_late_answer(f, 1));
    cr_assert(fake_broker_await(&f->broker, CANCELLED, 1));
    cr_assert_eq(fake_broker_count(&f->broker, COMMITTED), 1);
    assert_sample(f, LARGE_BYTES, 3);
    fixture_free(f);
}

/* The connection breaks between the question and the answer: it is asked again on the next one. */
static enum fake_verdict drop_first_stat(struct fake_broker *broker,
                                         const struct fake_request *request) {
    bool *dropped = broker->context;
    if (request->message->op_case != ASKED || *dropped)
        return FAKE_ANSWER;
    *dropped = true;
    return FAKE_CLOSE;
}

Test(client_put_new, a_broken_connection_is_no_answer) {
    struct fixture *f = fixture_new();
    bool dropped = false;
    feature_ref_free(put_two_tensors(f->store, "s", LARGE_BYTES, 3));
    f->broker.context = &dropped;
    f->broker.on_request = drop_first_stat;
    FAILS(FEATURE_E_EXISTS, put_new(f, LARGE_BYTES, 4, 10000));
    cr_assert(dropped);
    assert_sample(f, LARGE_BYTES, 3);
    fixture_free(f);
}

/* ---- a full store ---- */

static void refuse_room(struct fake_broker *broker, const struct fake_request *request,
                        Fb__ClientReply *reply) {
    unsigned *waited = broker->context;
    if (request->message->op_case != RESERVED)
        return;
    *waited += request->message->reserve->deadline_ms > 0;
    reply->put->items[0]->status = FB__STATUS__FULL;
}

Test(client_put_new, what_is_there_does_not_wait_for_room) {
    struct fixture *f = fixture_new();
    unsigned waited = 0;
    feature_ref_free(put_two_tensors(f->store, "s", LARGE_BYTES, 3));
    f->broker.context = &waited;
    f->broker.on_reply = refuse_room;
    FAILS(FEATURE_E_EXISTS, put_new(f, LARGE_BYTES, 4, 1000));
    cr_assert_eq(waited, 0);
    fixture_free(f);
}

Test(client_put_new, what_is_new_waits_for_room) {
    struct fixture *f = fixture_new();
    unsigned waited = 0;
    f->broker.context = &waited;
    f->broker.on_reply = refuse_room;
    FAILS(FEATURE_E_FULL, put_new(f, LARGE_BYTES, 4, 1000));
    cr_assert_eq(waited, 1);
    cr_assert_eq(fake_broker_count(&f->broker, RESERVED), 2);
    FAILS(FEATURE_E_FULL,
          put_new(f, LARGE_BYTES, 4, 0)); /* whoever does not wait is told at once */
    cr_assert_eq(waited, 1);
    fixture_free(f);
}

/* ---- a question without an answer ---- */

static void refuse_stats(struct fake_broker *broker, const struct fake_request *request,
                         Fb__ClientReply *reply) {
    (void)broker;
    if (request->message->op_case == ASKED)
        reply->stat->items[0]->status = FB__STATUS__UNAVAILABLE;
}

Test(client_put_new, nothing_is_put_where_it_cannot_be_found_out) {
    struct fixture *f = fixture_new();
    f->broker.on_reply = refuse_stats;
    FAILS(FEATURE_E_UNAVAILABLE, put_new(f, LARGE_BYTES, 4, 1000));
    FAILS(FEATURE_E_UNAVAILABLE, put_new(f, 500, 4, 1000));
    cr_assert_eq(f->broker.effects, 0);
    fixture_free(f);
}
