/* SPDX-License-Identifier: Apache-2.0
 *
 * Who sits on the room of a store, or first in the line for it, does not sit there for ever, and
 * everybody is told who it is.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define MIB 1048576u

#define SQUAT(NAME, INI)                                                                           \
    static void NAME(struct world *world);                                                         \
    Test(squat, NAME, .timeout = 120) {                                                            \
        world_run(1, INI, NAME);                                                                   \
    }                                                                                              \
    static void NAME(struct world *world)

#define FOUR_MIB "[store run]\nmax_resident_bytes = 4MiB\n"

/* A payload and a second connection of the test, which has reserved or filled the whole store. */
struct squatter {
    struct payload all;
    struct feature *feature;
    struct feature_store *store;
    struct feature_reservation *reservation;
};

static void squatter_open(struct squatter *squatter, struct world *world) {
    *squatter = (struct squatter){0};
    payload_init(&squatter->all, "all", 1, 4 * MIB - 32768);
    squatter->feature = cluster_connect(&world->cluster, 0);
    squatter->store = cluster_open(squatter->feature, "run", false);
}

static void squatter_reserve(struct squatter *squatter, struct world *world) {
    squatter_open(squatter, world);
    CHECK_OK(feature_reserve(squatter->store, &squatter->all.sample, 0, &squatter->reservation));
}

static void squatter_close(struct squatter *squatter) {
    feature_disconnect(squatter->feature);
    payload_deinit(&squatter->all);
}

static void put_and_consume(struct world *world, const char *sample_id, uint32_t deadline_ms) {
    struct payload payload;
    payload_init(&payload, sample_id, 7, 60000);
    CHECK_OK(payload_put(&payload, world->producer, deadline_ms, NULL));
    payload_check_get(&payload, world->consumer, by_id(sample_id), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
}

/* ---- reservations ---- */

static void check_ended(struct world *world) {
    struct squatter squatter;
    squatter_reserve(&squatter, world);
    put_and_consume(world, "victim", 30000);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_commit(squatter.reservation, NULL));
    CHECK_SAYS("max_reserve = 300ms");
    CHECK_SAYS("put the sample again");
    CHECK(world_try_get(world->consumer, by_id("all"), 0) == FEATURE_E_NOT_FOUND,
          "what ended can be read");
    WAIT_UNTIL(
        cluster_log_has(&world->cluster, 0, "1 reservations ended after max_reserve = 300ms"),
        20000);
    squatter_close(&squatter);
    world_settle(world);
}

SQUAT(squat_reservation_ends_after_max_reserve,
      FOUR_MIB "max_reserve = 300ms\n[daemon]\ngc_interval = 10ms\n") {
    check_ended(world);
}

SQUAT(squat_max_hold_counts_where_it_is_smaller,
      FOUR_MIB "max_reserve = 1h\nmax_hold = 300ms\n[daemon]\ngc_interval = 10ms\n") {
    check_ended(world);
}

SQUAT(squat_a_reload_ends_what_stands, FOUR_MIB "max_reserve = 0\n") {
    struct squatter squatter;
    squatter_reserve(&squatter, world);
    cluster_reconfigure(&world->cluster, 0, FOUR_MIB "max_reserve = 100ms\n");
    process_signal(&world->cluster.nodes[0].process, SIGHUP);
    put_and_consume(world, "victim", 30000);
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_commit(squatter.reservation, NULL));
    squatter_close(&squatter);
    world_settle(world);
}

SQUAT(squat_what_was_committed_stays, FOUR_MIB "max_reserve = 300ms\n") {
    struct squatter squatter;
    struct payload payload;
    squatter_open(&squatter, world);
    CHECK_OK(payload_put(&squatter.all, squatter.store, 0, NULL));
    uint64_t begun_ms = check_now_ms();
    payload_init(&payload, "other", 2, 100000);
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&payload, world->producer, 1000, NULL));
    CHECK(check_now_ms() - begun_ms >= 900, "refused before its deadline");
    payload_check_get(&squatter.all, world->consumer, by_id("all"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    squatter_close(&squatter);
    world_settle(world);
}

/* A copy of so many bytes takes longer than a millisecond on any machine. */
SQUAT(squat_a_copying_put_stops_in_time,
      "[store run]\nmax_resident_bytes = 128MiB\nmax_reserve = 1ms\n") {
    struct payload large;
    payload_init(&large, "large", 9, 100 * MIB);
    CHECK_STATUS(FEATURE_E_TIMEOUT, payload_put(&large, world->producer, 0, NULL));
    CHECK_SAYS("max_reserve");
    put_and_consume(world, "small", 20000); /* inline: committed with the reservation */
    payload_deinit(&large);
    world_settle(world);
}

/* ---- waits ---- */

SQUAT(squat_max_wait_cuts_a_put, FOUR_MIB "max_wait = 300ms\n") {
    struct squatter squatter;
    struct payload payload;
    squatter_reserve(&squatter, world);
    payload_init(&payload, "late", 3, 100000);
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&payload, world->producer, UINT32_MAX, NULL));
    CHECK_SAYS("cut to max_wait = 300ms");
    feature_cancel(squatter.reservation);
    payload_deinit(&payload);
    squatter_close(&squatter);
    world_settle(world);
}

SQUAT(squat_max_wait_cuts_a_get, "[store run]\nmax_wait = 300ms\n") {
    struct feature_get_options options = {
        .size = sizeof options, .deadline_ms = UINT32_MAX, .wait_ms = UINT32_MAX};
    struct feature_view *view = NULL;
    CHECK_STATUS(FEATURE_E_TIMEOUT, feature_get(world->consumer, by_id("never"), &options, &view));
    CHECK_SAYS("cut to max_wait = 300ms");
}

/* ---- the line ---- */

/* Asks for the whole store, and waits for it for as long as it may. */
static void wire_wait_for_all(struct wire *wire, const struct cluster *cluster) {
    static const uint8_t nothing[8];
    struct wire_sample sample;
    uint64_t shape = 4 * MIB - 4096;
    wire_sample(&sample, nothing, sizeof nothing);
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors = &tensor;
    tensor.name = (char *)"x";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = &shape;
    tensor.bytes = shape;
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    spec.n_tensors = 1;
    spec.tensors = &tensors;
    sample.spec_bytes = fb__sample_spec__pack(&spec, sample.spec);
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
    item.sample_id = (char *)"all";
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    Fb__Reserve reserve = FB__RESERVE__INIT;
    reserve.n_items = 1;
    reserve.items = &items;
    reserve.deadline_ms = UINT32_MAX;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &reserve;
    wire_connect(wire, cluster->nodes[0].socket_path);
    wire_hello(wire, 4711);
    reserve.handle = wire_open(wire, "run");
    CHECK(wire_send(wire, 1, &request, NULL, 0) != 0, "session closed");
}

SQUAT(squat_smaller_puts_pass_the_first_in_line, FOUR_MIB "max_pass = 1h\n") {
    struct payload kept;
    struct wire wire;
    payload_init(&kept, "kept", 4, 100000);
    CHECK_OK(payload_put(&kept, world->producer, 0, NULL));
    wire_wait_for_all(&wire, &world->cluster);
    WAIT_UNTIL(world_home(world).put_waiters == 1, 20000);
    put_and_consume(world, "with a deadline", 20000);
    put_and_consume(world, "without", 0);
    CHECK(world_home(world).put_waiters == 1, "the first has left the line");
    wire_close(&wire);
    payload_check_get(&kept, world->consumer, by_id("kept"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&kept);
    world_settle(world);
}

SQUAT(squat_after_max_pass_nobody_passes, FOUR_MIB "max_pass = 200ms\n") {
    struct payload kept, small;
    struct wire wire;
    payload_init(&kept, "kept", 5, 100000);
    payload_init(&small, "small", 6, 100000);
    CHECK_OK(payload_put(&kept, world->producer, 0, NULL));
    wire_wait_for_all(&wire, &world->cluster);
    WAIT_UNTIL(world_home(world).put_waiters == 1, 20000);
    int status = FEATURE_OK;
    WAIT_UNTIL((status = payload_put(&small, world->producer, 0, NULL)) == FEATURE_E_FULL, 20000);
    CHECK_SAYS("first in line: session");
    CHECK_SAYS("wire, for 4.0 MiB");
    /* Everything goes, and the first of the line has its turn. */
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("kept"), 1, NULL));
    (void)feature_abort(world->producer, FEATURE_BY_ID("small"), 1, NULL);
    Fb__ClientReply *reply = wire_receive(&wire, 20000);
    CHECK(reply && reply->put && reply->put->items[0]->status == FB__STATUS__OK, "%s",
          reply ? reply->put->items[0]->error : "closed");
    fb__client_reply__free_unpacked(reply, NULL);
    wire_close(&wire);
    payload_deinit(&kept);
    payload_deinit(&small);
    WAIT_UNTIL(world_home(world).resident_bytes == 0, 20000);
    world_settle(world);
}

/* ---- who it is ---- */

SQUAT(squat_full_and_featurectl_name_who_holds_the_room, FOUR_MIB) {
    struct squatter squatter;
    struct payload payload;
    struct process_output result;
    char who[64];
    squatter_reserve(&squatter, world);
    payload_init(&payload, "late", 8, 100000);
    CHECK_STATUS(FEATURE_E_FULL, payload_put(&payload, world->producer, 0, NULL));
    snprintf(who, sizeof who, "pid %d uid %u", (int)getpid(), getuid());
    CHECK_SAYS("of it by session ");
    CHECK_SAYS(who);

    CTL(&result, &world->cluster, 0, "stores", "--json");
    json_t *rows = ctl_rows(&result), *row = ctl_row(rows, "store", "run");
    json_t *reserver = json_object_get(row, "reserver");
    CHECK(strstr(ctl_text(reserver, "holder"), who) != NULL, "%s", ctl_text(reserver, "holder"));
    CHECK(ctl_number(row, "reserved_bytes") >= 4 * MIB - 65536, "%lld bytes reserved",
          (long long)ctl_number(row, "reserved_bytes"));
    CHECK(ctl_number(row, "max_reserve_ms") == 600000, "max_reserve is not 10min");
    json_decref(rows);

    CTL(&result, &world->cluster, 0, "leases", "--json");
    rows = ctl_rows(&result);
    CHECK(strstr(ctl_text(ctl_row(rows, "kind", "reservations"), "holder"), who) != NULL,
          "the holder is not named");
    json_decref(rows);

    CTL(&result, &world->cluster, 0, "samples", "--all", "--json");
    rows = ctl_rows(&result);
    row = ctl_row(rows, "sample_id", "all");
    CHECK(strstr(ctl_text(row, "why"), who) != NULL, "%s", ctl_text(row, "why"));
    json_decref(rows);

    feature_cancel(squatter.reservation);
    payload_deinit(&payload);
    squatter_close(&squatter);
    world_settle(world);
}
