/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/client_fixture.h"

#define LARGE_BYTES 300000u

static void round_trip(size_t bytes) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", bytes, 3);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    assert_two_tensors(view, bytes, 3);
    OK(feature_view_check(view));
    OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    cr_assert(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0).consumed);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, a_small_sample_goes_inline) {
    round_trip(500);
}

Test(client_samples, a_large_sample_goes_through_the_arena) {
    round_trip(LARGE_BYTES);
}

Test(client_samples, an_empty_tensor_has_no_bytes) {
    round_trip(0);
}

Test(client_samples, get_by_id_makes_the_whole_ref) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 500, 3);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_ID("s"), NULL, &view));
    const struct feature_ref *got = feature_view_ref(view);
    cr_assert_eq(feature_ref_generation(got), feature_ref_generation(ref));
    cr_assert_str_eq(feature_ref_home(got), FAKE_NODE);
    cr_assert_eq(feature_ref_tensor_count(got), 2);
    cr_assert(feature_ref_has_checksums(got));
    cr_assert_eq(feature_ref_tensor(got, 0)->checksum, feature_ref_tensor(ref, 0)->checksum);
    cr_assert_eq(feature_view_find(view, "b"), 1);
    cr_assert_eq(feature_view_find(view, "c"), -1);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, zero_copy_put_is_what_was_written) {
    struct fixture *f = fixture_new();
    struct two_tensors s;
    struct feature_reservation *reservation;
    struct feature_ref *ref;
    struct feature_view *view;
    two_tensors_init(&s, "s", LARGE_BYTES, 9);
    OK(feature_reserve(f->store, &s.sample, 0, &reservation));
    memcpy(feature_reservation_data(reservation, 0), s.a, LARGE_BYTES);
    memcpy(feature_reservation_data(reservation, 1), s.b, sizeof s.b);
    cr_assert_null(feature_reservation_data(reservation, 2));
    OK(feature_commit(reservation, &ref));
    f->broker.over_network = true;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    assert_two_tensors(view, LARGE_BYTES, 9);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    two_tensors_deinit(&s);
    fixture_free(f);
}

Test(client_samples, cancel_gives_the_room_back) {
    struct fixture *f = fixture_new();
    struct two_tensors s;
    struct feature_reservation *reservation;
    two_tensors_init(&s, "s", 100, 9);
    OK(feature_reserve(f->store, &s.sample, 0, &reservation));
    feature_cancel(reservation);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL, 1));
    cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL, 0).id, 1);
    two_tensors_deinit(&s);
    fixture_free(f);
}

Test(client_samples, a_batch_is_split_over_frames) {
    enum { COUNT = 200 };
    struct fixture *f = fixture_new();
    struct two_tensors *s = calloc(COUNT, sizeof *s);
    struct feature_put_item *puts = calloc(COUNT, sizeof *puts);
    struct feature_get_item *gets = calloc(COUNT, sizeof *gets);
    struct feature_view **views = calloc(COUNT, sizeof *views);
    static char ids[COUNT][16];
    for (int i = 0; i < COUNT; i++) {
        snprintf(ids[i], sizeof ids[i], "s%d", i);
        two_tensors_init(&s[i], ids[i], i == 50 ? 100000 : 1000, (uint8_t)i);
        puts[i] = (struct feature_put_item){
            .size = sizeof(struct feature_put_item), .sample = &s[i].sample, .data = s[i].data};
    }
    OK(feature_put_batch(f->store, puts, COUNT, 1000));
    /* 200 KB inline cannot be one frame, and the large one goes by itself. */
    cr_assert_geq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_PUT), 3);
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_RESERVE), 1);
    for (int i = 0; i < COUNT; i++)
        gets[i] = (struct feature_get_item){.size = sizeof(struct feature_get_item),
                                            .ref = i % 2 ? puts[i].ref : NULL,
                                            .sample_id = i % 2 ? NULL : ids[i]};
    OK(feature_get_batch(f->store, gets, COUNT, NULL));
    for (int i = 0; i < COUNT; i++) {
        assert_two_tensors(gets[i].view, s[i].data[0].iov_len, (uint8_t)i);
        views[i] = gets[i].view;
    }
    OK(feature_release_batch(views, COUNT, FEATURE_RELEASE_RETURNED));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 0).items, COUNT);
    for (int i = 0; i < COUNT; i++) {
        feature_ref_free(puts[i].ref);
        two_tensors_deinit(&s[i]);
    }
    free(s);
    free(puts);
    free(gets);
    free(views);
    fixture_free(f);
}

Test(client_samples, items_of_a_batch_stand_alone) {
    struct fixture *f = fixture_new();
    struct two_tensors good, bad;
    two_tensors_init(&good, "good", 10, 1);
    two_tensors_init(&bad, "bad", 10, 1);
    bad.data[0].iov_len = 9;
    struct feature_put_item items[] = {FEATURE_PUT_ITEM_INIT, FEATURE_PUT_ITEM_INIT};
    items[0].sample = &bad.sample, items[0].data = bad.data;
    items[1].sample = &good.sample, items[1].data = good.data;
    FAILS(FEATURE_E_INVALID, feature_put_batch(f->store, items, 2, 0));
    SAYS("9 bytes");
    cr_assert_eq(items[0].status, FEATURE_E_INVALID);
    cr_assert_null(items[0].ref);
    OK(items[1].status);
    struct feature_get_item gets[] = {FEATURE_GET_ITEM_INIT, FEATURE_GET_ITEM_INIT};
    gets[0].sample_id = "absent";
    gets[1].ref = items[1].ref;
    FAILS(FEATURE_E_NOT_FOUND, feature_get_batch(f->store, gets, 2, NULL));
    cr_assert_null(gets[0].view);
    OK(feature_release(gets[1].view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(items[1].ref);
    two_tensors_deinit(&good);
    two_tensors_deinit(&bad);
    fixture_free(f);
}

Test(client_samples, get_into_copies_the_tensors_named) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 700, 5);
    uint8_t b[100], small[10];
    const char *names[] = {"b"}, *unknown[] = {"z"};
    struct iovec room = {.iov_base = b, .iov_len = sizeof b};
    struct iovec too_small = {.iov_base = small, .iov_len = sizeof small};
    const struct feature_key *key = FEATURE_BY_REF(ref);
    OK(feature_get_into(f->store, key, NULL, names, &room, 1, FEATURE_RELEASE_CONSUMED));
    for (size_t i = 0; i < sizeof b; i++)
        cr_assert_eq(b[i], 5);
    FAILS(FEATURE_E_INVALID,
          feature_get_into(f->store, key, NULL, names, &too_small, 1, FEATURE_RELEASE_CONSUMED));
    FAILS(FEATURE_E_INVALID,
          feature_get_into(f->store, key, NULL, unknown, &room, 1, FEATURE_RELEASE_CONSUMED));
    FAILS(FEATURE_E_INVALID,
          feature_get_into(f->store, key, NULL, NULL, &room, 1, FEATURE_RELEASE_CONSUMED));
    /* what could not be copied was not consumed */
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 4));
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, i).consumed,
                     i == 0);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, a_corrupt_copy_is_fetched_once_more) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 700, 5);
    struct feature_view *view;
    f->broker.over_network = true;
    uint64_t tensor_bytes;
    memcpy(&tensor_bytes, &feature_ref_tensor(ref, 0)->bytes, sizeof tensor_bytes);
    cr_assert_eq(tensor_bytes, 700);
    f->broker.arena[0] ^= 1;
    FAILS(FEATURE_E_CORRUPT, feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    SAYS("tensor a");
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_GET), 2);
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 2));
    for (unsigned i = 0; i < 2; i++)
        cr_assert(fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, i).corrupt);
    feature_ref_free(ref);
    fixture_free(f);
}

/* The second copy is sound. */
static enum fake_verdict mend_on_second_get(struct fake_broker *broker,
                                            const struct fake_request *request) {
    unsigned *gets = broker->context;
    if (request->message->op_case == FB__CLIENT_REQUEST__OP_GET && ++*gets == 2)
        broker->arena[0] ^= 1;
    return FAKE_ANSWER;
}

Test(client_samples, the_second_copy_is_taken_when_it_is_sound) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 700, 5);
    struct feature_view *view;
    unsigned gets = 0;
    f->broker.over_network = true;
    f->broker.arena[0] ^= 1;
    f->broker.context = &gets;
    f->broker.on_request = mend_on_second_get;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    assert_two_tensors(view, 700, 5);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, without_a_network_hop_nothing_is_verified) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 700, 5);
    struct feature_view *view;
    f->broker.arena[0] ^= 1;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    fixture_free(f);
}

/* ---- hostile answers ---- */

static void (*spoil)(Fb__ClientReply *reply);

static void spoil_reply(struct fake_broker *broker, const struct fake_request *request,
                        Fb__ClientReply *reply) {
    (void)broker;
    (void)request;
    spoil(reply);
}

static void get_outside(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->items[0]->extent_offset = FAKE_ARENA_BYTES;
}

static void get_overflow(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->items[0]->extent_offset = UINT64_MAX - 63;
}

static void get_short(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->items[0]->extent_bytes -= 64;
}

static void get_misaligned(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->items[0]->extent_offset += 1;
}

static void get_other_generation(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->items[0]->generation += 1;
}

static void get_too_few(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        reply->get->n_items = 0;
}

static void reserve_outside(Fb__ClientReply *reply) {
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_PUT)
        reply->put->items[0]->extent_offset = FAKE_ARENA_BYTES - 64;
}

Test(client_samples, extents_outside_the_arena_are_refused_and_released) {
    void (*const spoilers[])(Fb__ClientReply *) = {get_outside, get_overflow, get_short,
                                                   get_misaligned, get_other_generation};
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 700, 5);
    struct feature_view *view;
    f->broker.on_reply = spoil_reply;
    for (unsigned i = 0; i < sizeof spoilers / sizeof *spoilers; i++) {
        spoil = spoilers[i];
        FAILS(FEATURE_E_INTERNAL, feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
        cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_RELEASE, i + 1));
    }
    spoil = get_too_few;
    FAILS(FEATURE_E_INTERNAL, feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, a_reservation_outside_the_arena_is_refused_and_cancelled) {
    struct fixture *f = fixture_new();
    struct two_tensors s;
    struct feature_reservation *reservation;
    two_tensors_init(&s, "s", 10000, 1);
    f->broker.on_reply = spoil_reply;
    spoil = reserve_outside;
    FAILS(FEATURE_E_INTERNAL, feature_reserve(f->store, &s.sample, 0, &reservation));
    cr_assert(fake_broker_await(&f->broker, FB__CLIENT_REQUEST__OP_CANCEL, 1));
    two_tensors_deinit(&s);
    fixture_free(f);
}

/* ---- the rest ---- */

Test(client_samples, keys_are_checked_before_anything_is_sent) {
    struct fixture *f = fixture_new();
    struct feature_view *view;
    struct feature_ref *foreign;
    OK(feature_ref_from_uri("feature://other/s?generation=5&home=node-a", &foreign));
    const struct feature_key both = {.size = sizeof both, .ref = foreign, .sample_id = "s"};
    FAILS(FEATURE_E_INVALID, feature_get(f->store, FEATURE_BY_ID(NULL), NULL, &view));
    FAILS(FEATURE_E_INVALID, feature_get(f->store, FEATURE_BY_REF(foreign), NULL, &view));
    SAYS("store other");
    FAILS(FEATURE_E_INVALID, feature_ack(f->store, &both, 1, NULL));
    FAILS(FEATURE_E_INVALID, feature_exists(f->store, FEATURE_BY_ID("")));
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_GET), 0);
    feature_ref_free(foreign);
    fixture_free(f);
}

static bool count_one(void *context, const struct feature_info *info) {
    unsigned *count = context;
    cr_assert_eq(info->state, FEATURE_STATE_RESIDENT);
    return ++*count < 17;
}

Test(client_samples, probes_ack_and_gc_reach_the_broker) {
    struct fixture *f = fixture_new();
    char id[16];
    for (int i = 0; i < 25; i++) {
        snprintf(id, sizeof id, "s%d", i);
        feature_ref_free(put_two_tensors(f->store, id, 10, 1));
    }
    unsigned count = 0;
    OK(feature_list(f->store, "s", count_one, &count));
    cr_assert_eq(count, 17, "stops when told to");
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_LIST), 2);
    struct feature_info info = FEATURE_INFO_INIT;
    struct feature_ref *ref;
    OK(feature_stat(f->store, FEATURE_BY_ID("s3"), &info, &ref));
    cr_assert_str_eq(info.sample_id, "s3");
    cr_assert_eq(feature_ref_tensor_count(ref), 2);
    OK(feature_exists(f->store, FEATURE_BY_REF(ref)));
    FAILS(FEATURE_E_NOT_FOUND, feature_exists(f->store, FEATURE_BY_ID("no")));
    OK(feature_ack(f->store, FEATURE_BY_REF(ref), 1, NULL));
    OK(feature_abort(f->store, FEATURE_BY_ID("s4"), 1, NULL));
    uint64_t freed;
    OK(feature_gc(f->store, 1, &freed));
    cr_assert_eq(freed, 3);
    OK(feature_drain(f->feature, 1000));
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(f->feature, &health));
    cr_assert_str_eq(health.node, FAKE_NODE);
    cr_assert_eq(fake_broker_count(&f->broker, FB__CLIENT_REQUEST__OP_GET), 0);
    feature_ref_free(ref);
    fixture_free(f);
}

Test(client_samples, acks_are_split_into_batches_with_their_own_operation_ids) {
    enum { COUNT = 300 };
    struct fixture *f = fixture_new();
    struct feature_key keys[COUNT];
    for (int i = 0; i < COUNT; i++)
        keys[i] = *FEATURE_BY_ID("s");
    OK(feature_ack(f->store, keys, COUNT, NULL));
    struct fake_record first = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_ACK, 0);
    struct fake_record second = fake_broker_record(&f->broker, FB__CLIENT_REQUEST__OP_ACK, 1);
    cr_assert_eq(first.items, 256);
    cr_assert_eq(second.items, 44);
    cr_assert_eq(second.op_id, first.op_id + 256);
    fixture_free(f);
}

Test(client_samples, a_read_only_store_refuses_puts) {
    struct fixture *f = fixture_new();
    struct feature_store *reader;
    struct feature_open_options options = {.size = sizeof options, .read_only = true};
    OK(feature_store_open(f->feature, FAKE_STORE, &options, &reader));
    struct two_tensors s;
    two_tensors_init(&s, "s", 10, 1);
    FAILS(FEATURE_E_DENIED, feature_put(reader, &s.sample, s.data, 0, NULL));
    struct feature_reservation *reservation;
    FAILS(FEATURE_E_DENIED, feature_reserve(reader, &s.sample, 0, &reservation));
    two_tensors_deinit(&s);
    fixture_free(f);
}

Test(client_samples, a_store_that_never_checks_gets_no_checksums) {
    struct fixture *f = fixture_new();
    struct feature_store *store;
    f->broker.checksum = FB__CHECKSUM_POLICY__NEVER;
    OK(feature_store_open(f->feature, FAKE_STORE, NULL, &store));
    struct feature_ref *small = put_two_tensors(store, "s", 10, 1);
    struct feature_ref *large = put_two_tensors(store, "l", LARGE_BYTES, 1);
    cr_assert_not(feature_ref_has_checksums(small));
    cr_assert_not(feature_ref_has_checksums(large));
    feature_ref_free(small);
    feature_ref_free(large);
    fixture_free(f);
}
