/* SPDX-License-Identifier: Apache-2.0
 *
 * libfeature of today and brokers that are older or newer: played by the fake broker, whose
 * answers say other versions, fields and enum values than the library knows. The other direction is
 * in tests/e2e/versions.c.
 */
#include "proto/version.h"
#include "unit/client_fixture.h"

Test(versions, the_highest_of_both_is_spoken) {
    static const struct {
        struct version_range ours, theirs;
        uint32_t spoken;
    } cases[] = {
        {{1, 1}, {1, 1}, 1}, {{1, 3}, {2, 9}, 3}, {{2, 9}, {1, 3}, 3}, {{1, 9}, {3, 4}, 4},
        {{1, 1}, {2, 3}, 0}, {{2, 3}, {1, 1}, 0}, {{1, 1}, {0, 0}, 0}, {{1, 3}, {3, 1}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_eq(version_choose(cases[i].ours, cases[i].theirs), cases[i].spoken, "case %zu",
                     i);
    char words[VERSION_WORDS_BYTES];
    cr_expect_str_eq(version_words((struct version_range){2, 2}, words), "version 2");
    cr_expect_str_eq(version_words((struct version_range){2, 4}, words), "versions 2 to 4");
}

static struct fixture *begin(void) {
    struct fixture *f = calloc(1, sizeof *f);
    cr_assert(f);
    fake_broker_init(&f->broker);
    return f;
}

static void end(struct fixture *f) {
    fake_broker_deinit(&f->broker);
    free(f);
}

/* As a broker does that has no version in common with the client. */
static void refuse_hello(struct fake_broker *broker, const struct fake_request *request,
                         Fb__ClientReply *reply) {
    (void)broker;
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_HELLO)
        return;
    cr_assert_eq(request->message->hello->version_min, VERSION_CLIENT.lowest);
    cr_assert_eq(request->message->hello->version_max, VERSION_CLIENT.highest);
    cr_assert_eq(request->header.version, FRAME_VERSION);
    reply->result_case = FB__CLIENT_REPLY__RESULT__NOT_SET;
    reply->status = FB__STATUS__UNSUPPORTED;
    reply->error = (char *)"this broker speaks versions 7 to 9, the client version 1";
}

Test(versions, a_broker_without_a_common_version_is_told_in_its_words) {
    struct fixture *f = begin();
    f->broker.on_reply = refuse_hello;
    fake_broker_start(&f->broker);
    FAILS(FEATURE_E_UNSUPPORTED, fixture_connect(f));
    SAYS("versions 7 to 9, the client version 1");
    end(f);
}

Test(versions, a_broker_that_chooses_what_was_not_offered_is_refused) {
    for (uint32_t chosen = 0; chosen < 4; chosen += 2) {
        struct fixture *f = begin();
        f->broker.version = chosen;
        fake_broker_start(&f->broker);
        FAILS(FEATURE_E_UNSUPPORTED, fixture_connect(f));
        SAYS("of the client protocol");
        SAYS("speaks version 1");
        end(f);
    }
}

/* A broker from before the limits, the rights and the pidfd were told. */
static void say_little(struct fake_broker *broker, const struct fake_request *request,
                       Fb__ClientReply *reply) {
    (void)broker, (void)request;
    if (reply->result_case != FB__CLIENT_REPLY__RESULT_HELLO)
        return;
    reply->hello->limits = NULL;
    reply->hello->broker_version = (char *)protobuf_c_empty_string;
    reply->hello->admin = false;
}

/* A broker that says in every answer what the library has never heard of. */
static ProtobufCMessageUnknownField newer_field = {
    .tag = 900,
    .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
    .len = 1,
    .data = (uint8_t *)"",
};
static void say_more(struct fake_broker *broker, const struct fake_request *request,
                     Fb__ClientReply *reply) {
    (void)broker, (void)request;
    reply->base.n_unknown_fields = 1;
    reply->base.unknown_fields = &newer_field;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_HELLO) {
        reply->hello->base.n_unknown_fields = 1;
        reply->hello->base.unknown_fields = &newer_field;
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_STAT && reply->stat->n_items) {
        reply->stat->items[0]->info->state = (Fb__SampleState)77;
        reply->stat->items[0]->info->reason = (Fb__Reason)77;
    }
}

/* A notice of a kind that came later, in front of every answer to a get. */
static enum fake_verdict notify_newly(struct fake_broker *broker,
                                      const struct fake_request *request) {
    (void)broker;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.base.n_unknown_fields = 1;
    notice.base.unknown_fields = &newer_field;
    if (request->message->op_case == FB__CLIENT_REQUEST__OP_GET)
        fake_broker_notice(request, request->header.request_id, &notice);
    return FAKE_ANSWER;
}

static void live_a_life(struct fixture *f) {
    struct feature_ref *ref;
    struct feature_view *view;
    struct two_tensors s;
    OK(fixture_connect(f));
    OK(feature_store_open(f->feature, FAKE_STORE, NULL, &f->store));
    two_tensors_init(&s, "s", 1000, 1);
    OK(feature_put(f->store, &s.sample, s.data, 1000, &ref));
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    two_tensors_deinit(&s);
    feature_ref_free(ref);
}

Test(versions, an_older_broker_is_understood) {
    struct fixture *f = begin();
    f->broker.on_reply = say_little;
    fake_broker_start(&f->broker);
    live_a_life(f);
    fixture_free(f);
}

Test(versions, a_newer_broker_is_understood) {
    struct feature_info info = FEATURE_INFO_INIT;
    struct fixture *f = begin();
    f->broker.on_reply = say_more;
    f->broker.on_request = notify_newly;
    fake_broker_start(&f->broker);
    live_a_life(f);
    OK(feature_stat(f->store, FEATURE_BY_ID("s"), &info, NULL));
    cr_assert_eq((int)info.state, 77);
    cr_assert_str_eq(info.reason, "unknown");
    FAILS(FEATURE_E_NOT_FOUND, feature_exists(f->store, FEATURE_BY_ID("s")));
    fixture_free(f);
}

/* To a broker that does not know it, an operation is one of no effect, and the session stands. */
static void know_no_drain(struct fake_broker *broker, const struct fake_request *request,
                          Fb__ClientReply *reply) {
    (void)broker;
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_DRAIN)
        return;
    reply->result_case = FB__CLIENT_REPLY__RESULT__NOT_SET;
    reply->status = FB__STATUS__UNSUPPORTED;
    reply->error = (char *)"this broker does not know that request";
}

Test(versions, an_operation_that_the_broker_does_not_know_fails_alone) {
    struct fixture *f = begin();
    f->broker.on_reply = know_no_drain;
    fake_broker_start(&f->broker);
    live_a_life(f);
    FAILS(FEATURE_E_UNSUPPORTED, feature_drain(f->feature, 1000));
    SAYS("does not know that request");
    OK(feature_exists(f->store, FEATURE_BY_ID("s")));
    cr_assert_eq(f->broker.connections, 1);
    fixture_free(f);
}
