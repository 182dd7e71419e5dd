/* SPDX-License-Identifier: Apache-2.0
 *
 * Lost connections, the same broker again or another one.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "unit/client_fixture.h"

/* Carries the first of the context's operation out without answering. */
static enum fake_verdict drop_first(struct fake_broker *broker,
                                    const struct fake_request *request) {
    Fb__ClientRequest__OpCase *op = broker->context;
    if (request->message->op_case != *op)
        return FAKE_ANSWER;
    *op = FB__CLIENT_REQUEST__OP__NOT_SET;
    return FAKE_DROP;
}

Test(client_reconnect, a_put_is_repeated_with_its_operation_id) {
    struct fixture *f = fixture_new();
    Fb__ClientRequest__OpCase op = FB__CLIENT_REQUEST__OP_PUT;
    f->broker.context = &op;
    f->broker.on_request = drop_first;
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct fake_record first = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_PUT, 0);
    struct fake_record second = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_PUT, 1);
    cr_assert_neq(first.op_id, 0);
    cr_assert_eq(first.op_id, second.op_id);
    cr_assert_neq(first.connection, second.connection);
    cr_assert_eq(f->broker.effects, 1);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_reconnect, a_commit_is_repeated_with_its_operation_id) {
    struct fixture *f = fixture_new();
    Fb__ClientRequest__OpCase op = FB__CLIENT_REQUEST__OP_COMMIT;
    f->broker.context = &op;
    f->broker.on_request = drop_first;
    struct feature_ref *ref = put_two_tensors(f->store, "s", 200000, 1);
    cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_COMMIT, 0).op_id,
                 fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_COMMIT, 1).op_id);
    cr_assert_eq(f->broker.effects, 1);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_reconnect, an_old_reservation_is_unavailable) {
    struct fixture *f = fixture_new();
    struct two_tensors s;
    struct feature_reservation *one, *two;
    two_tensors_init(&s, "s", 100, 1);
    OK(feature_reserve(f->store, &s.sample, 0, &one));
    OK(feature_reserve(f->store, &s.sample, 0, &two));
    fake_broker_drop_sessions(&f->broker);
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
    FAILS(FEATURE_E_UNAVAILABLE, feature_commit(one, NULL));
    SAYS("reserved in");
    feature_cancel(two);
    OK(feature_health(f->feature, &health));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_COMMIT), 0);
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL), 0);
    two_tensors_deinit(&s);
    fixture_free(f);
}

Test(client_reconnect, views_of_a_restarted_broker_are_lost_but_readable) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 5000, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    OK(feature_view_check(view));
    fake_broker_restart(&f->broker);
    FAILS(FEATURE_E_LOST, feature_view_check(view));
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
    FAILS(FEATURE_E_LOST, feature_view_check(view));
    FAILS(FEATURE_E_NOT_FOUND, feature_exists(f->store, FEATURE_BY_REF(ref)));
    feature_ref_free(put_two_tensors(f->store, "s", 5000, 2));
    assert_two_tensors(view, 5000, 1);
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    OK(feature_health(f->feature, &health));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE), 0);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_reconnect, a_consumed_release_survives_the_connection) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_view *consumed, *returned;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &consumed));
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &returned));
    fake_broker_drop_sessions(&f->broker);
    OK(feature_exists(f->store, FEATURE_BY_REF(ref)));
    OK(feature_release(returned, FEATURE_RELEASE_RETURNED));
    OK(feature_release(consumed, FEATURE_RELEASE_CONSUMED));
    OK(feature_exists(f->store, FEATURE_BY_REF(ref)));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE), 1);
    struct fake_record release = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0);
    cr_assert(release.consumed);
    cr_assert_eq(release.id, 1);
    feature_ref_free(ref);
    fixture_free(f);
}

/* The note may or may not have been read when the connection went: it is said again. */
static enum fake_verdict close_on_release(struct fake_broker *broker,
                                          const struct fake_request *request) {
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_RELEASE)
        return FAKE_ANSWER;
    broker->on_request = NULL;
    return FAKE_CLOSE;
}

Test(client_reconnect, an_unconfirmed_consumed_release_is_said_again) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    f->broker.on_request = close_on_release;
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    OK(feature_drain(f->feature, 5000));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE), 2);
    OK(feature_drain(f->feature, 5000));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE), 2,
                 "once confirmed it is not said a third time");
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_reconnect, without_a_broker_calls_are_unavailable_at_their_deadline) {
    struct fixture *f = fixture_new();
    struct feature_view *view;
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 1};
    fake_broker_stop(&f->broker);
    FAILS(FEATURE_E_UNAVAILABLE, feature_get(f->store, FEATURE_BY_ID("s"), &options, &view));
    SAYS("is featured running?");
    fixture_free(f);
}

static void count_logs(void *context, enum feature_log_level level, const char *sentence) {
    int *count = context;
    *count += level == FEATURE_LOG_WARNING && strstr(sentence, "lost") != NULL;
}

Test(client_reconnect, a_lost_connection_is_logged_once) {
    struct fixture *f = fixture_new();
    struct feature *feature;
    int count = 0;
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = f->broker.path,
                                      .log = count_logs,
                                      .log_context = &count};
    OK(feature_connect(&options, &feature));
    fake_broker_drop_sessions(&f->broker);
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(feature, &health));
    OK(feature_health(feature, &health));
    cr_assert_eq(count, 1);
    feature_disconnect(feature);
    fixture_free(f);
}

Test(client_reconnect, views_outlive_their_connection) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    feature_disconnect(f->feature);
    f->feature = NULL;
    assert_two_tensors(view, 100, 1);
    FAILS(FEATURE_E_LOST, feature_view_check(view));
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    feature_ref_free(ref);
    fixture_free(f);
}

/* ---- fork ---- */

/* Exit status of the child: the number of the check that failed, or 0. */
static int check_in_child(struct fixture *f, struct feature_ref *ref, struct feature_view *view) {
    struct feature_view *other;
    struct two_tensors s;
    two_tensors_init(&s, "child", 10, 1);
    if (feature_get(f->store, FEATURE_BY_REF(ref), NULL, &other) != FEATURE_E_INVALID)
        return 1;
    if (!strstr(feature_last_error(), "fork"))
        return 2;
    if (feature_put(f->store, &s.sample, s.data, 0, NULL) != FEATURE_E_INVALID)
        return 3;
    struct feature_health health = {.size = sizeof health};
    if (feature_health(f->feature, &health) != FEATURE_E_INVALID)
        return 4;
    if (((const uint8_t *)feature_view_data(view, 1))[0] != 1)
        return 5;
    if (feature_release(view, FEATURE_RELEASE_CONSUMED) != FEATURE_E_INVALID)
        return 6;
    feature_ref_free(ref);
    feature_disconnect(f->feature);
    two_tensors_deinit(&s);
    return 0;
}

Test(client_reconnect, a_forked_child_is_refused_and_the_parent_goes_on) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 100, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (!child)
        _exit(check_in_child(f, ref, view));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "check %d failed in the child", WEXITSTATUS(status));
    OK(feature_view_check(view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    OK(feature_exists(f->store, FEATURE_BY_REF(ref)));
    cr_assert_eq(f->broker.connections, 1);
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE), 1);
    feature_ref_free(ref);
    fixture_free(f);
}
