/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/version.h"
#include "unit/client_fixture.h"

static struct feature_open_options with_secret(const char *secret) {
    return (struct feature_open_options){.size = sizeof(struct feature_open_options),
                                         .secret = secret,
                                         .secret_bytes = secret ? strlen(secret) : 0};
}

static struct fixture *with_secret_store(const char *secret) {
    struct fixture *f = calloc(1, sizeof *f);
    cr_assert(f);
    fake_broker_init(&f->broker);
    f->broker.has_secret = true;
    auth_key("store:" FAKE_STORE, secret, strlen(secret), f->broker.key);
    fake_broker_start(&f->broker);
    OK(fixture_connect(f));
    return f;
}

Test(client_handshake, opens_a_store_without_secret) {
    struct fixture *f = fixture_new();
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_STORE_OPEN), 1);
    feature_store_close(f->store);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, 1));
    fixture_free(f);
}

Test(client_handshake, proves_the_secret_and_checks_the_brokers_proof) {
    struct fixture *f = with_secret_store("hunter2");
    struct feature_open_options options = with_secret("hunter2");
    OK(feature_store_open(f->feature, FAKE_STORE, &options, &f->store));
    fixture_free(f);
}

Test(client_handshake, wrong_secret_is_denied) {
    struct fixture *f = with_secret_store("hunter2");
    struct feature_open_options options = with_secret("hunter3");
    FAILS(FEATURE_E_DENIED, feature_store_open(f->feature, FAKE_STORE, &options, &f->store));
    SAYS("wrong secret");
    fixture_free(f);
}

Test(client_handshake, wrong_proof_of_the_broker_is_refused) {
    struct fixture *f = with_secret_store("hunter2");
    struct feature_open_options options = with_secret("hunter2");
    f->broker.wrong_proof = true;
    FAILS(FEATURE_E_DENIED, feature_store_open(f->feature, FAKE_STORE, &options, &f->store));
    SAYS("did not prove");
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, 1));
    fixture_free(f);
}

Test(client_handshake, a_missing_secret_is_named) {
    struct fixture *f = with_secret_store("hunter2");
    FAILS(FEATURE_E_DENIED, feature_store_open(f->feature, FAKE_STORE, NULL, &f->store));
    SAYS("wants a secret");
    fixture_free(f);
}

Test(client_handshake, a_broker_that_does_not_ask_for_the_secret_is_refused) {
    struct fixture *f = fixture_new();
    struct feature_store *store;
    struct feature_open_options options = with_secret("hunter2");
    FAILS(FEATURE_E_DENIED, feature_store_open(f->feature, FAKE_STORE, &options, &store));
    SAYS("has no secret");
    fixture_free(f);
}

Test(client_handshake, an_arena_smaller_than_said_is_refused) {
    struct fixture *f = fixture_new();
    struct feature_store *store;
    f->broker.arena_bytes_said = FAKE_ARENA_BYTES + 1;
    FAILS(FEATURE_E_INTERNAL, feature_store_open(f->feature, FAKE_STORE, NULL, &store));
    SAYS("arena");
    fixture_free(f);
}

Test(client_handshake, another_protocol_version_is_unsupported) {
    struct fixture *f = calloc(1, sizeof *f);
    cr_assert(f);
    fake_broker_init(&f->broker);
    f->broker.version = VERSION_CLIENT.highest + 1;
    fake_broker_start(&f->broker);
    FAILS(FEATURE_E_UNSUPPORTED, fixture_connect(f));
    fake_broker_deinit(&f->broker);
    free(f);
}

Test(client_handshake, no_broker_is_unavailable_after_the_timeout) {
    struct feature *feature;
    struct feature_options options = {
        .size = sizeof options, .socket_path = "/nonexistent/socket", .connect_timeout_ms = 30};
    FAILS(FEATURE_E_UNAVAILABLE, feature_connect(&options, &feature));
    SAYS("/nonexistent/socket");
}

Test(client_handshake, two_handles_share_one_mapping) {
    struct fixture *f = fixture_new();
    struct feature_store *other;
    OK(feature_store_open(f->feature, FAKE_STORE, NULL, &other));
    struct feature_ref *ref = put_two_tensors(f->store, "s", 5000, 1);
    struct feature_view *one, *two;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &one));
    OK(feature_get(other, FEATURE_BY_REF(ref), NULL, &two));
    cr_assert_eq(feature_view_data(one, 0), feature_view_data(two, 0));
    OK(feature_release(one, FEATURE_RELEASE_RETURNED));
    OK(feature_release(two, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_handshake, options_of_another_version_are_understood_or_refused) {
    struct {
        struct feature_options known;
        uint64_t unknown;
    } newer = {.known = {.size = sizeof newer,
                         .socket_path = "/nonexistent/socket",
                         .connect_timeout_ms = 1}};
    struct feature *feature;
    FAILS(FEATURE_E_UNAVAILABLE, feature_connect(&newer.known, &feature));
    newer.unknown = 1;
    FAILS(FEATURE_E_UNSUPPORTED, feature_connect(&newer.known, &feature));
    newer.known.size = 0;
    FAILS(FEATURE_E_INVALID, feature_connect(&newer.known, &feature));
}
