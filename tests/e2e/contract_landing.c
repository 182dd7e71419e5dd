/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clause 11, for samples large enough to be checked while they land: what is told on
 * the way is true, and neither damage nor a transfer that fails half-way makes wrong bytes pass.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/frame.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define MIB      1048576u
#define LANDING  "[store run]\nmax_resident_bytes = 256MiB\nlanding_bytes = 256MiB\n"
#define REPLY_MS 30000u

/* ---- what is told ---- */

struct told {
    const uint8_t *arena;
    const struct payload *payload; /* one tensor after the other; the first is looked at */
    uint64_t transfer, extent_offset, bytes;
    unsigned count;
};

static void on_notice(void *context, const Fb__ClientNotice *notice) {
    struct told *told = context;
    const Fb__Landed *landed = notice->landed;
    if (notice->note_case != FB__CLIENT_NOTICE__NOTE_LANDED)
        return;
    CHECK(landed->item == 0 && landed->transfer != 0, "item %u", landed->item);
    CHECK(landed->bytes > told->bytes, "no more bytes than before");
    const struct iovec *first = &told->payload->data[0];
    size_t bytes = landed->bytes < first->iov_len ? landed->bytes : first->iov_len;
    CHECK(memcmp(told->arena + landed->extent_offset, first->iov_base, bytes) == 0,
          "%zu bytes had not landed", bytes);
    *told = (struct told){.arena = told->arena,
                          .payload = told->payload,
                          .transfer = landed->transfer,
                          .extent_offset = landed->extent_offset,
                          .bytes = landed->bytes,
                          .count = told->count + 1};
}

/* A client of the consumer's node that speaks for itself. */
struct reader {
    struct wire wire;
    uint32_t handle;
    const uint8_t *arena;
    size_t arena_bytes;
};

static void reader_open(struct reader *reader, const struct world *world) {
    struct stat arena;
    wire_connect(&reader->wire, world->cluster.nodes[world->consumer_node].socket_path);
    wire_hello(&reader->wire, 4711);
    reader->handle = wire_open(&reader->wire, "run");
    CHECK(fstat(reader->wire.passed_fd, &arena) == 0, "no arena");
    reader->arena_bytes = (size_t)arena.st_size;
    reader->arena =
        mmap(NULL, reader->arena_bytes, PROT_READ, MAP_SHARED, reader->wire.passed_fd, 0);
    CHECK(reader->arena != MAP_FAILED, "the arena cannot be mapped");
}

static void reader_close(struct reader *reader) {
    munmap((void *)reader->arena, reader->arena_bytes);
    wire_close(&reader->wire);
}

static void send_get(struct reader *reader, const struct feature_ref *ref, bool want_landed) {
    Fb__GetItem item = FB__GET_ITEM__INIT, *items = &item;
    item.sample_id = (char *)feature_ref_sample_id(ref);
    item.generation = feature_ref_generation(ref);
    item.home = (char *)feature_ref_home(ref);
    item.incarnation = feature_ref_incarnation(ref);
    Fb__Get get = FB__GET__INIT;
    get.handle = reader->handle;
    get.n_items = 1;
    get.items = &items;
    get.deadline_ms = REPLY_MS;
    get.want_landed = want_landed;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    CHECK(wire_send(&reader->wire, FRAME_REQUEST, &request, NULL, 0) != 0, "session closed");
}

/* The result of one get, whose lease is given back. */
static Fb__GetResult receive_get(struct reader *reader, struct told *told) {
    Fb__ClientReply *reply =
        wire_receive_noticing(&reader->wire, REPLY_MS, told ? on_notice : NULL, told);
    CHECK(reply != NULL, "session closed without an answer");
    CHECK(reply->result_case == FB__CLIENT_REPLY__RESULT_GET && reply->get->n_items == 1 &&
              reply->get->items[0]->status == FB__STATUS__OK,
          "refused: %s", reply->error);
    Fb__GetResult result = *reply->get->items[0];
    fb__client_reply__free_unpacked(reply, NULL);
    return result;
}

static void give_back(struct reader *reader, const Fb__GetResult *result) {
    CHECK(wire_release(&reader->wire, reader->handle, result->lease_hi, result->lease_lo, false) ==
              FB__STATUS__OK,
          "release refused");
}

CONTRACT_TWO_NODES(c11_landed_bytes_are_told_truly, LANDING) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct reader reader;
    payload_init(&payload, "s1", 1, 24 * MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    reader_open(&reader, world);
    struct told told = {.arena = reader.arena, .payload = &payload};
    send_get(&reader, ref, true);
    Fb__GetResult result = receive_get(&reader, &told);
    CHECK(told.count > 0 && told.count <= 64, "%u notices", told.count);
    CHECK(result.transfer == told.transfer && result.extent_offset == told.extent_offset,
          "the answer speaks of another transfer");
    give_back(&reader, &result);

    /* a client that does not ask */
    struct told none = {.arena = reader.arena, .payload = &payload};
    send_get(&reader, ref, false);
    result = receive_get(&reader, &none);
    CHECK(none.count == 0, "%u notices that nobody asked for", none.count);
    CHECK(result.transfer != told.transfer, "two transfers of one number");
    give_back(&reader, &result);
    reader_close(&reader);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* Notices are left out for it; its answers are not, and it keeps its session. */
CONTRACT_TWO_NODES(c11_a_slow_client_misses_notices_only, LANDING) {
    enum { GETS = 60 };
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct reader reader;
    payload_init(&payload, "s1", 1, 64 * MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    reader_open(&reader, world);
    for (unsigned i = 0; i < GETS; i++)
        send_get(&reader, ref, true);
    /* another client of the node gets its sample meanwhile, after all those notices */
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    static Fb__GetResult results[GETS];
    for (unsigned i = 0; i < GETS; i++)
        results[i] = receive_get(&reader, NULL);
    for (unsigned i = 0; i < GETS; i++)
        give_back(&reader, &results[i]);
    reader_close(&reader);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- damage ---- */

CONTRACT_TWO_NODES(c11_damage_is_found_early_and_late_in_a_large_sample, LANDING) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct feature_reservation *reservation = NULL;
    uint8_t *bytes[PAYLOAD_TENSORS_MAX];
    payload_init(&payload, "s1", 1, 12 * MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    for (uint32_t i = 0; i < payload.sample.tensor_count; i++) {
        payload_write(&payload, reservation, i);
        bytes[i] = feature_reservation_data(reservation, i);
    }
    CHECK_OK(feature_commit(reservation, &ref));
    for (uint32_t i = 0; i < payload.sample.tensor_count; i++) {
        uint64_t last = payload.data[i].iov_len - 1;
        const uint64_t places[] = {0, last / 2, last};
        for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
            bytes[i][places[k]] ^= 0x40;
            CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->consumer, by_ref(ref), REPLY_MS));
            CHECK_SAYS(payload.names[i]);
            bytes[i][places[k]] ^= 0x40;
        }
    }
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT_TWO_NODES(c11_damage_in_a_batch_spares_the_others, LANDING) {
    enum { COUNT = 4, BAD = 2 };
    struct payload payloads[COUNT];
    struct feature_get_item items[COUNT];
    struct feature_ref *refs[COUNT];
    uint8_t *bad = NULL;
    for (unsigned i = 0; i < COUNT; i++) {
        struct feature_reservation *reservation = NULL;
        payload_init(&payloads[i], (const char *[]){"s0", "s1", "s2", "s3"}[i], i, 8 * MIB);
        CHECK_OK(feature_reserve(world->producer, &payloads[i].sample, 0, &reservation));
        for (uint32_t t = 0; t < payloads[i].sample.tensor_count; t++)
            payload_write(&payloads[i], reservation, t);
        if (i == BAD)
            bad = feature_reservation_data(reservation, 0);
        CHECK_OK(feature_commit(reservation, &refs[i]));
        items[i] =
            (struct feature_get_item){.size = sizeof(struct feature_get_item), .ref = refs[i]};
    }
    bad[100] ^= 1;
    CHECK_STATUS(FEATURE_E_CORRUPT, feature_get_batch(world->consumer, items, COUNT, NULL));
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK(items[i].status == (i == BAD ? FEATURE_E_CORRUPT : FEATURE_OK), "item %u: %s", i,
              feature_strerror(items[i].status));
        const char *difference = i == BAD ? NULL : payload_difference(&payloads[i], items[i].view);
        CHECK(difference == NULL, "item %u: %s", i, difference);
        feature_release(items[i].view, FEATURE_RELEASE_CONSUMED);
    }
    bad[100] ^= 1;
    payload_check_get(&payloads[BAD], world->consumer, by_ref(refs[BAD]), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    for (unsigned i = 0; i < COUNT; i++) {
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
}

/* ---- transfers that fail ---- */

struct killing {
    struct cluster *cluster;
    uint32_t node;
    bool done;
};

static void kill_home(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    struct killing *killing = context;
    CHECK(bytes_done < bytes_total, "it has ended already");
    if (!killing->done)
        cluster_node_kill(killing->cluster, killing->node);
    killing->done = true;
}

/* Its home dies while it lands. The next sample lands at the same place, over what is left of it.
 */
CONTRACT_TWO_NODES(c11_a_transfer_killed_half_way_leaves_nothing_believed, LANDING) {
    struct payload before, after;
    struct feature_ref *ref = NULL;
    struct feature_view *view = NULL;
    struct killing killing = {.cluster = &world->cluster, .node = world->producer_node};
    struct feature_get_options options = {
        .size = sizeof options, .progress = kill_home, .progress_context = &killing};
    payload_init(&before, "s1", 1, 96 * MIB);
    payload_init(&after, "s1", 2, 96 * MIB);
    CHECK_OK(payload_put(&before, world->producer, 0, &ref));
    int status = feature_get(world->consumer, by_ref(ref), &options, &view);
    CHECK(killing.done, "no progress was told");
    if (status == FEATURE_OK) { /* all of it was on its way already */
        const char *difference = payload_difference(&before, view);
        CHECK(difference == NULL, "%s", difference);
        feature_release(view, FEATURE_RELEASE_RETURNED);
    } else {
        CHECK_STATUS(FEATURE_E_UNAVAILABLE, status);
    }
    feature_ref_free(ref);
    cluster_node_start(&world->cluster, world->producer_node);
    cluster_await_peer(&world->cluster, world->consumer_node, world->producer_node);
    CHECK_OK(payload_put(&after, world->producer, 0, &ref));
    payload_check_get(&after, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    payload_check_get(&after, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&before);
    payload_deinit(&after);
}

/* ---- many threads ---- */

struct getter {
    pthread_t thread;
    struct world *world;
    struct payload payload;
    struct feature_ref *ref;
};

static void *get_repeatedly(void *context) {
    enum { ROUNDS = 5 };
    struct getter *getter = context;
    for (unsigned i = 0; i < ROUNDS; i++)
        payload_check_get(&getter->payload, getter->world->consumer, by_ref(getter->ref),
                          i + 1 < ROUNDS ? FEATURE_RELEASE_RETURNED : FEATURE_RELEASE_CONSUMED);
    return NULL;
}

CONTRACT_TWO_NODES(c11_threads_check_at_once_on_one_handle, LANDING) {
    enum { THREADS = 4 };
    static struct getter getters[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        getters[i] = (struct getter){.world = world};
        payload_init(&getters[i].payload, (const char *[]){"s0", "s1", "s2", "s3"}[i], i,
                     (5 + 3 * i) * MIB);
        CHECK_OK(payload_put(&getters[i].payload, world->producer, 0, &getters[i].ref));
    }
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_create(&getters[i].thread, NULL, get_repeatedly, &getters[i]) == 0,
              "no thread");
    struct feature_health health = {.size = sizeof health};
    for (unsigned i = 0; i < 100; i++)
        CHECK_OK(feature_health(world->consumer_feature, &health));
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(getters[i].thread, NULL);
        feature_ref_free(getters[i].ref);
        payload_deinit(&getters[i].payload);
    }
    world_settle(world);
}
