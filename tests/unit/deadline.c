/* SPDX-License-Identifier: Apache-2.0
 *
 * One deadline covers a whole call, whatever it does inside: waiting for room, copying, commit,
 * connecting again; half a second of grace is all that comes on top (feature.h). The bounds here
 * are wide, for a machine that is busy: what they tell apart is this from the ten seconds that one
 * round trip is given.
 */
#include "support/checks.h"
#include "unit/client_fixture.h"

#define DEADLINE_MS 300u
#define SOON_MS     7000u /* less than a round trip's own bound */
#define LARGE_BYTES 200000u

static Fb__ClientRequest__OpCase held; /* what is not answered */

static enum fake_verdict hold(struct fake_broker *broker, const struct fake_request *request) {
    (void)broker;
    return request->message->op_case == held ? FAKE_HOLD : FAKE_ANSWER;
}

static struct fixture *fixture_holding(Fb__ClientRequest__OpCase op) {
    struct fixture *f = fixture_new();
    held = op;
    f->broker.on_request = hold;
    return f;
}

/* Fails with this status, and soon. */
#define SOON(status, call)                                                                         \
    do {                                                                                           \
        uint64_t begun_ms_ = check_now_ms();                                                       \
        FAILS(status, call);                                                                       \
        cr_expect_lt(check_now_ms() - begun_ms_, SOON_MS, "it took %llu ms: %s",                   \
                     (unsigned long long)(check_now_ms() - begun_ms_), feature_last_error());      \
    } while (0)

static int put(struct fixture *f, size_t bytes, uint32_t deadline_ms) {
    struct two_tensors s;
    two_tensors_init(&s, "s", bytes, 1);
    int rc = feature_put(f->store, &s.sample, s.data, deadline_ms, NULL);
    two_tensors_deinit(&s);
    return rc;
}

Test(deadline, a_put_whose_commit_is_not_answered) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_COMMIT);
    SOON(FEATURE_E_TIMEOUT, put(f, LARGE_BYTES, DEADLINE_MS));
    SAYS("commit");
    fixture_free(f);
}

Test(deadline, a_put_whose_room_is_not_granted) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_RESERVE);
    SOON(FEATURE_E_TIMEOUT, put(f, LARGE_BYTES, DEADLINE_MS));
    SAYS("reserve");
    fixture_free(f);
}

Test(deadline, a_small_put_that_is_not_answered) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_PUT);
    SOON(FEATURE_E_TIMEOUT, put(f, 100, DEADLINE_MS));
    fixture_free(f);
}

/* Once it is over, no item of the batch gets ten seconds of its own. */
Test(deadline, a_batch_has_one_deadline) {
    enum { ITEMS = 6 };
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_RESERVE);
    struct two_tensors s[ITEMS];
    struct feature_put_item items[ITEMS];
    static const char *const ids[ITEMS] = {"a", "b", "c", "d", "e", "f"};
    for (int i = 0; i < ITEMS; i++) {
        two_tensors_init(&s[i], ids[i], LARGE_BYTES, 1);
        items[i] = (struct feature_put_item){
            .size = sizeof(struct feature_put_item), .sample = &s[i].sample, .data = s[i].data};
    }
    SOON(FEATURE_E_TIMEOUT, feature_put_batch(f->store, items, ITEMS, DEADLINE_MS));
    for (int i = 0; i < ITEMS; i++) {
        cr_expect_eq(items[i].status, FEATURE_E_TIMEOUT, "item %d: %s", i,
                     feature_strerror(items[i].status));
        cr_expect_null(items[i].ref);
        two_tensors_deinit(&s[i]);
    }
    fixture_free(f);
}

Test(deadline, a_get_that_is_not_answered) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_GET);
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = DEADLINE_MS};
    struct feature_view *view;
    SOON(FEATURE_E_TIMEOUT, feature_get(f->store, FEATURE_BY_REF(ref), &options, &view));
    feature_ref_free(ref);
    fixture_free(f);
}

Test(deadline, a_drain_that_is_not_answered) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_DRAIN);
    SOON(FEATURE_E_TIMEOUT, feature_drain(f->feature, DEADLINE_MS));
    fixture_free(f);
}

/* Flushing releases must not use up the deadline and then leave the drain a round trip's. */
Test(deadline, a_drain_whose_releases_are_not_confirmed) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_HEALTH);
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    pthread_mutex_lock(&f->broker.lock); /* answers nothing at all */
    SOON(FEATURE_E_TIMEOUT, feature_drain(f->feature, DEADLINE_MS));
    pthread_mutex_unlock(&f->broker.lock);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(deadline, a_broker_that_is_gone_is_looked_for_until_then) {
    struct fixture *f = fixture_new();
    fake_broker_stop(&f->broker);
    SOON(FEATURE_E_UNAVAILABLE, put(f, 100, DEADLINE_MS));
    SOON(FEATURE_E_UNAVAILABLE, put(f, LARGE_BYTES, DEADLINE_MS));
    SOON(FEATURE_E_UNAVAILABLE, feature_drain(f->feature, DEADLINE_MS));
    fake_broker_start(&f->broker);
    fixture_free(f);
}

Test(deadline, a_store_is_opened_again_within_it) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_STORE_OPEN);
    fake_broker_drop_sessions(&f->broker);
    SOON(FEATURE_E_TIMEOUT, put(f, 100, DEADLINE_MS));
    SAYS("open store");
    fixture_free(f);
}

Test(deadline, a_broker_that_does_not_greet) {
    struct fixture *f = fixture_holding(FB__CLIENT_REQUEST__OP_HELLO);
    struct feature *feature;
    struct feature_options options = {
        .size = sizeof options, .socket_path = f->broker.path, .connect_timeout_ms = DEADLINE_MS};
    SOON(FEATURE_E_UNAVAILABLE, feature_connect(&options, &feature));
    fixture_free(f);
}
