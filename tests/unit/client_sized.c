/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs that were compiled with an older and with a newer feature.h. Their structs are made by
 * hand: an older one ends early, a newer one has a field behind the end that this library does not
 * know. What lies behind an older one is filled with a pattern, and must still be there afterwards.
 */
#include "unit/client_fixture.h"

#define PATTERN 0xa5

/* Behind the struct that the library is told of. */
static void assert_untouched(const void *theirs, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        cr_assert_eq(((const uint8_t *)theirs)[i], PATTERN, "byte %zu was written", i);
}

static void assert_zero(const void *theirs, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        cr_assert_eq(((const uint8_t *)theirs)[i], 0, "byte %zu is not zero", i);
}

static struct feature_ref *put_one(struct fixture *f, const char *id) {
    struct two_tensors s;
    struct feature_ref *ref;
    two_tensors_init(&s, id, 1000, 1);
    OK(feature_put(f->store, &s.sample, s.data, 1000, &ref));
    two_tensors_deinit(&s);
    return ref;
}

Test(client_sized, an_older_program_passes_smaller_options) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_one(f, "s");
    struct {
        size_t size;
        const char *socket_path, *client_name;
    } connect = {.size = sizeof connect, .socket_path = f->broker.path, .client_name = "old"};
    struct {
        size_t size;
    } open = {.size = sizeof open};
    struct {
        size_t size;
        uint32_t deadline_ms;
    } get = {.size = sizeof get, .deadline_ms = 1000};
    struct {
        size_t size;
        enum feature_policy policy;
        uint32_t readers;
    } create = {.size = sizeof create, .policy = FEATURE_POLICY_RETAIN, .readers = 1};
    struct feature *feature;
    struct feature_store *store;
    struct feature_view *view;
    OK(feature_connect((const struct feature_options *)&connect, &feature));
    OK(feature_store_create(feature, "new", (const struct feature_store_options *)&create));
    OK(feature_store_open(feature, FAKE_STORE, (const struct feature_open_options *)&open, &store));
    OK(feature_get(store, FEATURE_BY_REF(ref), (const struct feature_get_options *)&get, &view));
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    feature_disconnect(feature);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_sized, nothing_is_written_behind_an_older_programs_struct) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_one(f, "s");
    struct feature_info info;
    struct feature_health health;
    const size_t old_info = offsetof(struct feature_info, reason);
    const size_t old_health = offsetof(struct feature_health, sessions);
    memset(&info, PATTERN, sizeof info);
    memset(&health, PATTERN, sizeof health);
    info.size = old_info;
    health.size = old_health;
    OK(feature_stat(f->store, FEATURE_BY_REF(ref), &info, NULL));
    OK(feature_health(f->feature, &health));
    cr_assert_str_eq(info.sample_id, "s");
    cr_assert_eq(info.state, FEATURE_STATE_RESIDENT);
    cr_assert_str_eq(health.node, FAKE_NODE);
    cr_assert_eq(info.size, old_info);
    assert_untouched(&info, old_info, sizeof info);
    assert_untouched(&health, old_health, sizeof health);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_sized, a_newer_programs_unknown_fields_come_back_zero) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_one(f, "s");
    struct {
        struct feature_info known;
        uint8_t unknown[40];
    } info;
    struct {
        struct feature_health known;
        uint8_t unknown[40];
    } health;
    memset(&info, PATTERN, sizeof info);
    memset(&health, PATTERN, sizeof health);
    info.known.size = sizeof info;
    health.known.size = sizeof health;
    OK(feature_stat(f->store, FEATURE_BY_REF(ref), &info.known, NULL));
    OK(feature_health(f->feature, &health.known));
    cr_assert_str_eq(info.known.sample_id, "s");
    cr_assert_str_eq(health.known.node, FAKE_NODE);
    cr_assert_eq(info.known.size, sizeof info);
    assert_zero(&info, sizeof info.known, sizeof info);
    assert_zero(&health, sizeof health.known, sizeof health);
    feature_ref_free(ref);
    fixture_free(f);
}

/* What a newer program has: the struct of today and one more field. */
struct newer_tensor {
    struct feature_tensor known;
    uint64_t unknown;
};
struct newer_put_item {
    struct feature_put_item known;
    uint64_t unknown;
};
struct newer_get_item {
    struct feature_get_item known;
    uint64_t unknown;
};
struct newer_key {
    struct feature_key known;
    uint64_t unknown;
};

/* FEATURE_OK, or what the library says of the field that it does not know. */
#define REFUSES_UNKNOWN(name, call)                                                                \
    do {                                                                                           \
        FAILS(FEATURE_E_UNSUPPORTED, call);                                                        \
        SAYS(name " has a field this library");                                                    \
    } while (0)

Test(client_sized, a_newer_program_puts_and_gets_batches) {
    enum { COUNT = 3 };
    static const char *const ids[COUNT] = {"a", "b", "c"};
    struct fixture *f = fixture_new();
    struct newer_tensor tensors[2] = {{.known = {.size = sizeof tensors[0],
                                                 .name = "x",
                                                 .dtype = FEATURE_DTYPE_U8,
                                                 .rank = 1,
                                                 .shape = {8}}},
                                      {.known = {.size = sizeof tensors[0],
                                                 .name = "y",
                                                 .dtype = FEATURE_DTYPE_U8,
                                                 .rank = 1,
                                                 .shape = {8}}}};
    struct {
        struct feature_sample known;
        uint64_t unknown;
    } samples[COUNT];
    struct newer_put_item puts[COUNT];
    struct newer_get_item gets[COUNT];
    struct newer_key keys[COUNT];
    const struct iovec data[2] = {{"12345678", 8}, {"87654321", 8}};
    for (int i = 0; i < COUNT; i++) {
        memset(&samples[i], 0, sizeof samples[i]);
        samples[i].known = (struct feature_sample){.size = sizeof samples[i],
                                                   .sample_id = ids[i],
                                                   .tensors = &tensors[0].known,
                                                   .tensor_count = 2};
        puts[i] = (struct newer_put_item){
            .known = {.size = sizeof puts[i], .sample = &samples[i].known, .data = data}};
        gets[i] = (struct newer_get_item){.known = {.size = sizeof gets[i], .sample_id = ids[i]}};
        keys[i] = (struct newer_key){.known = {.size = sizeof keys[i], .sample_id = ids[i]}};
    }
    OK(feature_put_batch(f->store, &puts[0].known, COUNT, 1000));
    OK(feature_get_batch(f->store, &gets[0].known, COUNT, NULL));
    for (int i = 0; i < COUNT; i++) {
        cr_assert_str_eq(feature_ref_sample_id(puts[i].known.ref), ids[i]);
        cr_assert_arr_eq(feature_view_data(gets[i].known.view, 1), "87654321", 8);
        cr_assert_eq(puts[i].unknown, 0);
        OK(feature_release(gets[i].known.view, FEATURE_RELEASE_RETURNED));
        feature_ref_free(puts[i].known.ref);
    }
    int statuses[COUNT] = {1, 1, 1};
    OK(feature_ack(f->store, &keys[0].known, COUNT, statuses));
    cr_assert(!statuses[0] && !statuses[1] && !statuses[2]);

    struct feature_view *view;
    tensors[1].unknown = puts[2].unknown = gets[2].unknown = keys[2].unknown = 1;
    REFUSES_UNKNOWN("feature_put_item", feature_put_batch(f->store, &puts[0].known, COUNT, 1000));
    puts[2].unknown = 0;
    REFUSES_UNKNOWN("feature_tensor", feature_put_batch(f->store, &puts[0].known, COUNT, 1000));
    cr_assert_eq(puts[2].known.status, FEATURE_E_UNSUPPORTED);
    REFUSES_UNKNOWN("feature_get_item", feature_get_batch(f->store, &gets[0].known, COUNT, NULL));
    REFUSES_UNKNOWN("feature_key", feature_abort(f->store, &keys[0].known, COUNT, statuses));
    cr_assert_eq(statuses[0], FEATURE_E_UNSUPPORTED);
    REFUSES_UNKNOWN("feature_key", feature_get(f->store, &keys[2].known, NULL, &view));
    fixture_free(f);
}

/* Whoever has forgotten to set it passes 0, or whatever was on the stack. */
Test(client_sized, a_size_that_nobody_has_set_is_refused_with_a_sentence) {
    const size_t sizes[] = {0, 3, (size_t)0xa5a5a5a5a5a5a5a5u};
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_one(f, "s");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct feature_info info = {.size = sizes[i]};
        struct feature_health health = {.size = sizes[i]};
        struct feature_key key = {.size = sizes[i], .ref = ref};
        struct feature_get_options options = {.size = sizes[i]};
        struct feature_get_item get = {.size = sizes[i], .ref = ref};
        struct feature_put_item put = {.size = sizes[i]};
        struct feature_view *view;
        FAILS(FEATURE_E_INVALID, feature_stat(f->store, FEATURE_BY_REF(ref), &info, NULL));
        SAYS("set it to sizeof(struct feature_info)");
        FAILS(FEATURE_E_INVALID, feature_health(f->feature, &health));
        SAYS("set it to sizeof(struct feature_health)");
        FAILS(FEATURE_E_INVALID, feature_exists(f->store, &key));
        SAYS("set it to sizeof(struct feature_key)");
        FAILS(FEATURE_E_INVALID, feature_get(f->store, FEATURE_BY_REF(ref), &options, &view));
        SAYS("set it to sizeof(struct feature_get_options)");
        FAILS(FEATURE_E_INVALID, feature_get_batch(f->store, &get, 1, NULL));
        SAYS("set it to sizeof(struct feature_get_item)");
        FAILS(FEATURE_E_INVALID, feature_put_batch(f->store, &put, 1, 0));
        SAYS("set it to sizeof(struct feature_put_item)");
        FAILS(FEATURE_E_INVALID, feature_ack(f->store, &key, 1, NULL));
    }
    struct feature_get_item gets[2] = {FEATURE_GET_ITEM_INIT, FEATURE_GET_ITEM_INIT};
    gets[1].size = 0;
    FAILS(FEATURE_E_INVALID, feature_get_batch(f->store, gets, 2, NULL));
    SAYS("element 1");
    feature_ref_free(ref);
    fixture_free(f);
}

/* The library's own structs, as a program sees them. */
static bool look_at(void *context, const struct feature_info *info) {
    *(size_t *)context = info->size;
    return true;
}

Test(client_sized, what_the_library_lends_has_its_size) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_one(f, "s");
    size_t size = 0;
    OK(feature_list(f->store, NULL, look_at, &size));
    cr_assert_eq(size, sizeof(struct feature_info));
    cr_assert_eq(feature_ref_tensor(ref, 1)->size, sizeof(struct feature_tensor));
    feature_ref_free(ref);
    fixture_free(f);
}

/* ---- ack and abort ---- */

/* Of what reaches the broker it refuses the second. */
static void refuse_second(struct fake_broker *broker, const struct fake_request *request,
                          Fb__ClientReply *reply) {
    (void)broker;
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_ACK)
        return;
    reply->items->items[1]->status = FB__STATUS__UNAVAILABLE;
    reply->items->items[1]->error = (char *)"its home is away";
}

Test(client_retire, each_key_is_told_what_became_of_it) {
    struct fixture *f = fixture_new();
    struct feature_ref *foreign;
    OK(feature_ref_from_uri("feature://other/s?generation=5&home=node-a", &foreign));
    f->broker.on_reply = refuse_second;
    const struct feature_key keys[] = {*FEATURE_BY_ID("s1"), *FEATURE_BY_REF(foreign),
                                       *FEATURE_BY_ID("s2"), *FEATURE_BY_ID(""),
                                       *FEATURE_BY_ID("s3")};
    int statuses[5] = {1, 1, 1, 1, 1};
    FAILS(FEATURE_E_INVALID, feature_ack(f->store, keys, 5, statuses));
    SAYS("store other");
    cr_assert_eq(statuses[0], FEATURE_OK);
    cr_assert_eq(statuses[1], FEATURE_E_INVALID);
    cr_assert_eq(statuses[2], FEATURE_E_UNAVAILABLE);
    cr_assert_eq(statuses[3], FEATURE_E_INVALID);
    cr_assert_eq(statuses[4], FEATURE_OK);
    cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_ACK, 0).items, 3);
    FAILS(FEATURE_E_INVALID, feature_abort(NULL, keys, 5, statuses));
    cr_assert_eq(statuses[4], FEATURE_E_INVALID);
    feature_ref_free(foreign);
    fixture_free(f);
}
