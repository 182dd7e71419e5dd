/* SPDX-License-Identifier: Apache-2.0
 *
 * Every public function with NULL where something is needed, and with lengths that do not fit their
 * pointers: FEATURE_E_INVALID with a sentence, or for those without a status nothing at all.
 */
#include "unit/client_fixture.h"

static struct fixture *f;
static struct feature_ref *ref;

static void set_up(void) {
    f = fixture_new();
    ref = put_two_tensors(f->store, "s", 100, 1);
}
static void tear_down(void) {
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health)); /* nothing of it disturbed the connection */
    cr_expect_eq(f->broker.connections, 1);
    feature_ref_free(ref);
    fixture_free(f);
}
TestSuite(client_null, .init = set_up, .fini = tear_down);

#define REFUSED(word, call)                                                                        \
    do {                                                                                           \
        FAILS(FEATURE_E_INVALID, call);                                                            \
        SAYS(word);                                                                                \
    } while (0)

Test(client_null, metadata_with_a_length_and_no_bytes) {
    struct two_tensors s;
    struct feature_reservation *room;
    two_tensors_init(&s, "bad", 100, 1);
    s.sample.metadata = NULL;
    for (size_t bytes = 1; bytes < 100000; bytes *= 10) {
        s.sample.metadata_bytes = bytes;
        REFUSED("metadata is NULL", feature_put(f->store, &s.sample, s.data, 0, NULL));
        REFUSED("metadata is NULL", feature_reserve(f->store, &s.sample, 0, &room));
    }
    s.sample.metadata_bytes = 0;
    OK(feature_put(f->store, &s.sample, s.data, 0, NULL));
    s.sample.metadata = "ignored";
    OK(feature_put(f->store, &s.sample, s.data, 0, NULL));
    two_tensors_deinit(&s);
}

Test(client_null, samples) {
    struct two_tensors s;
    struct feature_reservation *room;
    two_tensors_init(&s, "bad", 100, 1);
    REFUSED("store", feature_put(NULL, &s.sample, s.data, 0, NULL));
    REFUSED("no sample", feature_put(f->store, NULL, s.data, 0, NULL));
    REFUSED("tensor a", feature_put(f->store, &s.sample, NULL, 0, NULL));
    REFUSED("store", feature_put_new(NULL, &s.sample, s.data, 0, NULL));
    REFUSED("no sample", feature_put_new(f->store, NULL, s.data, 0, NULL));
    REFUSED("tensor a", feature_put_new(f->store, &s.sample, NULL, 0, NULL));
    REFUSED("store", feature_reserve(NULL, &s.sample, 0, &room));
    REFUSED("no sample", feature_reserve(f->store, NULL, 0, &room));
    REFUSED("out", feature_reserve(f->store, &s.sample, 0, NULL));
    REFUSED("items", feature_put_batch(f->store, NULL, 1, 0));
    OK(feature_put_batch(f->store, NULL, 0, 0));

    struct feature_sample sample = s.sample;
    sample.sample_id = NULL;
    REFUSED("sample_id", feature_put(f->store, &sample, s.data, 0, NULL));
    sample = s.sample;
    sample.tensors = NULL;
    REFUSED("tensors", feature_put(f->store, &sample, s.data, 0, NULL));
    sample = s.sample;
    sample.tensor_count = UINT32_MAX;
    REFUSED("tensors", feature_put(f->store, &sample, s.data, 0, NULL));
    sample = s.sample;
    sample.size = 0;
    REFUSED("size", feature_put(f->store, &sample, s.data, 0, NULL));
    sample = s.sample;
    sample.metadata_bytes = SIZE_MAX;
    REFUSED("metadata", feature_put(f->store, &sample, s.data, 0, NULL));
    s.tensors[1].name = NULL;
    REFUSED("name", feature_put(f->store, &s.sample, s.data, 0, NULL));
    s.tensors[1].name = "b";
    s.tensors[1].rank = UINT32_MAX;
    REFUSED("dimensions", feature_put(f->store, &s.sample, s.data, 0, NULL));
    s.tensors[1].rank = 2;
    s.data[0].iov_base = NULL;
    REFUSED("tensor a", feature_put(f->store, &s.sample, s.data, 0, NULL));
    two_tensors_deinit(&s);
}

Test(client_null, handles) {
    struct feature *feature;
    struct feature_store *store;
    struct feature_open_options options = {.size = sizeof options};
    struct feature_store_options settings = {.size = sizeof settings};
    struct feature_health health = {.size = sizeof health};
    REFUSED("out", feature_connect(NULL, NULL));
    feature_disconnect(NULL);
    REFUSED("handle is NULL", feature_store_open(NULL, FAKE_STORE, NULL, &store));
    REFUSED("name", feature_store_open(f->feature, NULL, NULL, &store));
    REFUSED("out", feature_store_open(f->feature, FAKE_STORE, NULL, NULL));
    options.secret_bytes = 3;
    REFUSED("secret", feature_store_open(f->feature, FAKE_STORE, &options, &store));
    options = (struct feature_open_options){.size = sizeof options, .secret = ""};
    FAILS(FEATURE_E_DENIED, feature_store_open(f->feature, FAKE_STORE, &options, &store));
    REFUSED("handle is NULL", feature_store_create(NULL, "new", &settings));
    REFUSED("name", feature_store_create(f->feature, NULL, &settings));
    settings.secret_bytes = 3;
    REFUSED("secret", feature_store_create(f->feature, "new", &settings));
    REFUSED("handle is NULL", feature_store_drop(NULL, "new"));
    REFUSED("name", feature_store_drop(f->feature, NULL));
    feature_store_close(NULL);
    REFUSED("handle is NULL", feature_drain(NULL, 1));
    REFUSED("handle is NULL", feature_health(NULL, &health));
    REFUSED("out", feature_health(f->feature, NULL));
    struct feature_options bad = {.size = 3};
    REFUSED("size", feature_connect(&bad, &feature));
}

Test(client_null, gets) {
    const struct feature_key *key = FEATURE_BY_REF(ref), *none = FEATURE_BY_REF(NULL);
    const struct feature_key both = {.size = sizeof both, .ref = ref, .sample_id = "s"};
    struct feature_view *view;
    struct feature_info info = FEATURE_INFO_INIT;
    uint8_t room[100];
    const char *no_name[] = {NULL};
    const struct iovec buffer = {room, sizeof room}, no_room = {NULL, 100};
    REFUSED("store", feature_get(NULL, key, NULL, &view));
    REFUSED("out", feature_get(f->store, key, NULL, NULL));
    REFUSED("neither", feature_get(f->store, none, NULL, &view));
    REFUSED("both", feature_get(f->store, &both, NULL, &view));
    REFUSED("items", feature_get_batch(f->store, NULL, 1, NULL));
    OK(feature_get_batch(f->store, NULL, 0, NULL));
    REFUSED("buffers",
            feature_get_into(f->store, key, NULL, NULL, NULL, 2, FEATURE_RELEASE_RETURNED));
    REFUSED("names",
            feature_get_into(f->store, key, NULL, no_name, &buffer, 1, FEATURE_RELEASE_RETURNED));
    REFUSED("iov_base",
            feature_get_into(f->store, key, NULL, NULL, &no_room, 1, FEATURE_RELEASE_RETURNED));
    REFUSED("store", feature_get_into(NULL, key, NULL, NULL, &buffer, 1, FEATURE_RELEASE_RETURNED));
    REFUSED("2 tensors",
            feature_get_into(f->store, key, NULL, NULL, NULL, 0, FEATURE_RELEASE_RETURNED));
    REFUSED("view", feature_view_copy(NULL, NULL, &buffer, 1, NULL));
    REFUSED("store", feature_ack(NULL, key, 1, NULL));
    REFUSED("keys", feature_ack(f->store, NULL, 1, NULL));
    OK(feature_ack(f->store, NULL, 0, NULL));
    REFUSED("keys", feature_abort(f->store, NULL, 1, NULL));
    REFUSED("neither", feature_abort(f->store, none, 1, NULL));
    REFUSED("store", feature_exists(NULL, key));
    REFUSED("neither", feature_exists(f->store, none));
    REFUSED("out", feature_stat(f->store, key, NULL, NULL));
    REFUSED("store", feature_stat(NULL, key, &info, NULL));
    REFUSED("visit", feature_list(f->store, NULL, NULL, NULL));
    REFUSED("store", feature_gc(NULL, 0, NULL));
}

Test(client_null, views_and_reservations) {
    struct feature_view *view, *no_views[2] = {NULL, NULL};
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    cr_expect_eq(feature_view_find(view, NULL), -1);
    cr_expect_eq(feature_view_find(NULL, "a"), -1);
    cr_expect_null(feature_view_data(NULL, 0));
    cr_expect_null(feature_view_ref(NULL));
    REFUSED("view", feature_view_check(NULL));
    REFUSED("how", feature_release(view, (enum feature_release_how)7));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED)); /* the refused one did not take it */
    OK(feature_release(NULL, FEATURE_RELEASE_RETURNED));
    OK(feature_release_batch(no_views, 2, FEATURE_RELEASE_RETURNED));
    OK(feature_release_batch(NULL, 0, FEATURE_RELEASE_RETURNED));
    REFUSED("views", feature_release_batch(NULL, 1, FEATURE_RELEASE_RETURNED));
    cr_expect_null(feature_reservation_data(NULL, 0));
    REFUSED("reservation", feature_commit(NULL, NULL));
    feature_cancel(NULL);
}

Test(client_null, refs) {
    struct feature_ref *out;
    size_t bytes;
    char room[512];
    cr_expect_str_eq(feature_ref_store(NULL), "");
    cr_expect_str_eq(feature_ref_sample_id(NULL), "");
    cr_expect_str_eq(feature_ref_home(NULL), "");
    cr_expect_eq(feature_ref_generation(NULL), 0);
    cr_expect_eq(feature_ref_incarnation(NULL), 0);
    cr_expect_eq(feature_ref_bytes(NULL), 0);
    cr_expect_eq(feature_ref_tensor_count(NULL), 0);
    cr_expect_null(feature_ref_tensor(NULL, 0));
    cr_expect_null(feature_ref_metadata(NULL, &bytes));
    cr_expect_eq(bytes, 0);
    cr_expect_not_null(feature_ref_metadata(ref, NULL));
    cr_expect_not(feature_ref_has_checksums(NULL));
    cr_expect_null(feature_ref_dup(NULL));
    feature_ref_free(NULL);
    REFUSED("ref", feature_ref_encode(NULL, room, sizeof room, &bytes));
    REFUSED("bytes_out", feature_ref_encode(ref, room, sizeof room, NULL));
    REFUSED("buffer", feature_ref_encode(ref, NULL, sizeof room, &bytes));
    FAILS(FEATURE_E_FULL, feature_ref_encode(ref, NULL, 0, &bytes));
    REFUSED("buffer", feature_ref_decode(NULL, 10, &out));
    REFUSED("not a ref", feature_ref_decode(NULL, 0, &out));
    REFUSED("out", feature_ref_decode(room, 4, NULL));
    REFUSED("ref", feature_ref_to_uri(NULL, room, sizeof room, &bytes));
    REFUSED("buffer", feature_ref_to_uri(ref, NULL, sizeof room, &bytes));
    REFUSED("bytes_out", feature_ref_to_uri(ref, room, sizeof room, NULL));
    REFUSED("uri", feature_ref_from_uri(NULL, &out));
    REFUSED("out", feature_ref_from_uri("feature://a/b?generation=1&home=n", NULL));
    cr_expect_eq(feature_dtype_parse(NULL), 0);
    cr_expect_null(feature_dtype_name((enum feature_dtype)4711));
    cr_expect_eq(feature_dtype_bytes((enum feature_dtype)4711), 0);
    cr_expect_str_eq(feature_strerror(4711), "UNKNOWN");
    cr_expect_str_eq(feature_strerror(-4711), "UNKNOWN");
}
