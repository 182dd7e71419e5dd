/* SPDX-License-Identifier: Apache-2.0
 *
 * Coming back to a session, spoken frame by frame: who may, who may not, and what ends because the
 * client did not name it. Whoever may not gets a session of its own, and nothing of the other's.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define DEADLINE_MS 20000u

/* A client that would come back: its connection, and what it names its session by. */
struct guest {
    struct wire wire;
    uint64_t session_id;
    uint8_t token[16];
    void *lock; /* mapped; NULL = let go */
    uint32_t handle;
    bool resumed;
    Fb__Status status; /* of the last Hello */
};

/* Says Hello, as the session that is named or as none, and takes what the answer brings. */
static void greet(struct guest *guest, const char *socket_path, uint64_t session_id,
                  const uint8_t *token) {
    Fb__Hello hello = FB__HELLO__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    wire_connect(&guest->wire, socket_path);
    hello.version_min = VERSION_CLIENT.lowest;
    hello.version_max = VERSION_CLIENT.highest;
    hello.client_name = (char *)"guest";
    hello.client_id = 77;
    hello.lasts = true;
    hello.session_id = session_id;
    hello.token = (ProtobufCBinaryData){.data = (uint8_t *)token, .len = token ? 16 : 0};
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    Fb__ClientReply *reply = wire_call(&guest->wire, &request);
    CHECK(reply != NULL, "Hello is not answered");
    guest->status = reply->status;
    if (reply->status == FB__STATUS__OK) {
        CHECK(reply->hello->token.len == 16, "a token of %zu bytes", reply->hello->token.len);
        guest->session_id = reply->hello->session_id;
        guest->resumed = reply->hello->resumed;
        memcpy(guest->token, reply->hello->token.data, 16);
    }
    if (guest->wire.passed_fd >= 0) {
        guest->lock = mmap(NULL, 4096, PROT_READ, MAP_SHARED, guest->wire.passed_fd, 0);
        CHECK(guest->lock != MAP_FAILED, "the lock cannot be mapped");
        CHECK(madvise(guest->lock, 4096, MADV_DONTFORK) == 0, "madvise");
        close(guest->wire.passed_fd);
        guest->wire.passed_fd = -1;
    }
    fb__client_reply__free_unpacked(reply, NULL);
}

static void let_go(struct guest *guest) {
    if (guest->lock)
        munmap(guest->lock, 4096);
    guest->lock = NULL;
}

static void leave(struct guest *guest) {
    let_go(guest);
    wire_close(&guest->wire);
}

struct lease {
    uint64_t hi, lo;
};

static struct lease get(struct guest *guest, const char *sample_id) {
    Fb__ClientReply *reply = wire_get(&guest->wire, guest->handle, sample_id, 0);
    CHECK(reply && reply->get->items[0]->status == FB__STATUS__OK, "no lease");
    struct lease lease = {reply->get->items[0]->lease_hi, reply->get->items[0]->lease_lo};
    fb__client_reply__free_unpacked(reply, NULL);
    return lease;
}

static uint64_t reserve(struct guest *guest, const char *sample_id) {
    static const uint8_t bytes[5000];
    struct wire_sample sample;
    wire_sample(&sample, bytes, sizeof bytes);
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    Fb__Reserve asked = FB__RESERVE__INIT;
    asked.handle = guest->handle;
    asked.n_items = 1;
    asked.items = &items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &asked;
    Fb__ClientReply *reply = wire_call(&guest->wire, &request);
    CHECK(reply && reply->put->items[0]->status == FB__STATUS__OK, "no room");
    uint64_t token = reply->put->items[0]->reservation;
    fb__client_reply__free_unpacked(reply, NULL);
    return token;
}

/* Names one store with these, and that this is all. True: it was carried out. */
static bool say_holdings(struct guest *guest, uint32_t handle, const struct lease *lease,
                         const uint64_t *reservation) {
    Fb__HeldStore store = FB__HELD_STORE__INIT, *stores[1] = {&store};
    uint64_t leases[2] = {lease ? lease->hi : 0, lease ? lease->lo : 0};
    Fb__Holds holds = FB__HOLDS__INIT;
    store.handle = handle;
    store.n_leases = lease ? 2 : 0;
    store.leases = leases;
    store.n_reservations = reservation ? 1 : 0;
    store.reservations = (uint64_t *)reservation;
    holds.n_stores = 1;
    holds.stores = stores;
    holds.complete = true;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HOLDS;
    request.holds = &holds;
    Fb__ClientReply *reply = wire_call(&guest->wire, &request);
    bool carried_out = reply && reply->status == FB__STATUS__OK;
    if (reply)
        fb__client_reply__free_unpacked(reply, NULL);
    return carried_out;
}

static const char *path_of(const struct world *world) {
    return world->cluster.nodes[0].socket_path;
}

/* A guest with the store open, and one sample there. */
static void come(struct world *world, struct guest *guest) {
    static const uint8_t bytes[100];
    *guest = (struct guest){0};
    greet(guest, path_of(world), 0, NULL);
    CHECK(!guest->resumed && guest->lock, "a new session has a lock");
    guest->handle = wire_open(&guest->wire, "run");
    fb__client_reply__free_unpacked(
        wire_put(&guest->wire, guest->handle, "x", 0, bytes, sizeof bytes), NULL);
}

static void tidy(struct world *world) {
    const struct feature_key *key = by_id("x");
    WAIT_UNTIL(world_home(world).leases + world_home(world).reservations == 0, DEADLINE_MS);
    CHECK_OK(feature_abort(world->producer, key, 1, NULL));
}

/* ---- what ends, what stays ---- */

/* One lease and one reservation are named, others are not, as if their answers had been lost. */
static void what_is_not_named_ends(struct world *world) {
    struct guest guest;
    come(world, &guest);
    struct lease known = get(&guest, "x"), unknown = get(&guest, "x");
    uint64_t room = reserve(&guest, "r1");
    (void)reserve(&guest, "r2");
    uint32_t second = wire_open(&guest.wire, "run");
    CHECK(second != guest.handle, "the same handle");
    uint64_t session_id = guest.session_id;
    wire_close(&guest.wire);
    CHECK(world_home(world).leases == 2 && world_home(world).reservations == 2, "it is parked");

    greet(&guest, path_of(world), session_id, guest.token);
    CHECK(guest.resumed && guest.session_id == session_id, "it came back to another session");
    CHECK(world_home(world).leases == 2 && world_home(world).reservations == 2, "ended too early");
    CHECK(say_holdings(&guest, guest.handle, &known, &room), "Holds is not carried out");
    CHECK(world_home(world).leases == 1 && world_home(world).reservations == 1,
          "%" PRIu64 " leases, %" PRIu64 " reservations", world_home(world).leases,
          world_home(world).reservations);
    /* The second handle was not named: it is free, and given out again. */
    CHECK(wire_open(&guest.wire, "run") == second, "the handle is in use");
    (void)unknown;
    CHECK(wire_release(&guest.wire, guest.handle, known.hi, known.lo, false) == FB__STATUS__OK,
          "release");
    leave(&guest);
    tidy(world);
}
Test(session_claim, what_is_not_named_ends, .timeout = 120) {
    world_run(1, "[store run]\n", what_is_not_named_ends);
}

/* Names are of use only to the session that they are of. */
static void naming_what_others_hold_changes_nothing(struct world *world) {
    struct guest one, other;
    come(world, &one);
    struct lease lease = get(&one, "x");
    other = (struct guest){0};
    greet(&other, path_of(world), 0, NULL);
    other.handle = wire_open(&other.wire, "run");
    struct lease own = get(&other, "x");
    uint64_t session_id = other.session_id;
    wire_close(&other.wire);
    greet(&other, path_of(world), session_id, other.token);
    CHECK(other.resumed, "not come back");
    CHECK(say_holdings(&other, other.handle, &lease, NULL), "Holds is not carried out");
    CHECK(world_home(world).leases == 1, "the lease of the other one stays, the own one ends");
    (void)own;
    CHECK(wire_release(&one.wire, one.handle, lease.hi, lease.lo, false) == FB__STATUS__OK,
          "release");
    leave(&other);
    leave(&one);
    tidy(world);
}
Test(session_claim, naming_what_others_hold_changes_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", naming_what_others_hold_changes_nothing);
}

static void holds_without_coming_back_is_a_breach(struct world *world) {
    struct guest guest;
    come(world, &guest);
    Fb__Holds holds = FB__HOLDS__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HOLDS;
    request.holds = &holds;
    CHECK(wire_send(&guest.wire, FRAME_NOTE, &request, NULL, 0) == 0 ||
              wire_closed(&guest.wire, DEADLINE_MS),
          "it was carried out");
    leave(&guest);
    tidy(world);
}
Test(session_claim, holds_without_coming_back_ends_the_connection, .timeout = 120) {
    world_run(1, "[store run]\n", holds_without_coming_back_is_a_breach);
}

/* ---- who may not ---- */

static void check_stranger(struct world *world, struct guest *stranger, const struct guest *host) {
    CHECK(stranger->status == FB__STATUS__OK && !stranger->resumed, "a stranger came in");
    CHECK(stranger->session_id != host->session_id, "the session of another");
    CHECK(memcmp(stranger->token, host->token, 16) != 0, "the token of another");
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases", world_home(world).leases);
}

static void a_wrong_token(struct world *world) {
    struct guest host, stranger = {0};
    come(world, &host);
    struct lease lease = get(&host, "x");
    uint64_t seed = check_seed("session_claim");
    for (uint32_t i = 0; i < 64; i++) {
        uint8_t token[16];
        memcpy(token, host.token, sizeof token);
        token[check_random(&seed) % sizeof token] ^= (uint8_t)(1u << check_random(&seed) % 8);
        greet(&stranger, path_of(world), host.session_id, i ? token : NULL);
        check_stranger(world, &stranger, &host);
        leave(&stranger);
    }
    CHECK(wire_release(&host.wire, host.handle, lease.hi, lease.lo, false) == FB__STATUS__OK,
          "the host's connection was cut");
    leave(&host);
    tidy(world);
}
Test(session_claim, a_wrong_token_gains_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_wrong_token);
}

struct intrusion {
    struct world *world;
    struct guest host;
    bool as_another_user;
};

/* Number and token are right: a forked child has its parent's memory. */
static int intrude(int channel, void *context) {
    const struct intrusion *given = context;
    struct guest stranger = {0};
    (void)channel;
    if (given->as_another_user)
        CHECK(setgid(4242) == 0 && setuid(4242) == 0, "setuid");
    greet(&stranger, path_of(given->world), given->host.session_id, given->host.token);
    CHECK(stranger.status == FB__STATUS__OK && !stranger.resumed, "the child is its parent");
    return 0;
}

static void check_intrusion(struct world *world, bool as_another_user, bool parked) {
    struct intrusion given = {.world = world, .as_another_user = as_another_user};
    struct process child;
    come(world, &given.host);
    struct lease lease = get(&given.host, "x");
    if (parked)
        wire_close(&given.host.wire);
    process_fork(&child, intrude, &given);
    process_join(&child, DEADLINE_MS);
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases", world_home(world).leases);
    if (parked)
        greet(&given.host, path_of(world), given.host.session_id, given.host.token);
    CHECK(given.host.resumed == parked, "the host cannot come back");
    CHECK(wire_release(&given.host.wire, given.host.handle, lease.hi, lease.lo, false) ==
              FB__STATUS__OK,
          "release");
    leave(&given.host);
    tidy(world);
}
static void another_process(struct world *world) {
    check_intrusion(world, false, false);
}
static void another_process_while_parked(struct world *world) {
    check_intrusion(world, false, true);
}
static void another_user(struct world *world) {
    CHECK(chmod(world->cluster.directory, 0711) == 0, "chmod");
    check_intrusion(world, true, true);
}
Test(session_claim, another_process_gains_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", another_process);
}
Test(session_claim, another_process_gains_nothing_while_it_is_parked, .timeout = 120) {
    world_run(1, "[store run]\n", another_process_while_parked);
}
Test(session_claim, another_user_gains_nothing, .timeout = 120) {
    if (geteuid() != 0)
        cr_skip_test("it takes root to be another user");
    world_run(1, "[store run]\n[local]\nsocket_mode = 0666\n", another_user);
}

/* ---- one client, two connections ---- */

static void a_new_connection_takes_over(struct world *world) {
    struct guest guest;
    come(world, &guest);
    struct lease lease = get(&guest, "x");
    struct wire before = guest.wire;
    greet(&guest, path_of(world), guest.session_id, guest.token);
    CHECK(guest.resumed, "not come back");
    CHECK(wire_closed(&before, DEADLINE_MS), "the old connection lives on");
    wire_close(&before);
    CHECK(wire_release(&guest.wire, guest.handle, lease.hi, lease.lo, false) == FB__STATUS__OK,
          "release");
    leave(&guest);
    tidy(world);
}
Test(session_claim, a_new_connection_takes_over_from_the_old, .timeout = 120) {
    world_run(1, "[store run]\n", a_new_connection_takes_over);
}

/* ---- the end ---- */

/* Its process lives, and it has let go of the lock. */
static void without_its_lock(struct world *world) {
    struct guest guest;
    come(world, &guest);
    (void)get(&guest, "x");
    leave(&guest);
    WAIT_UNTIL(world_home(world).leases == 0, DEADLINE_MS);
    uint64_t session_id = guest.session_id;
    greet(&guest, path_of(world), session_id, guest.token);
    CHECK(!guest.resumed && guest.session_id != session_id, "a session that has ended");
    leave(&guest);
    tidy(world);
}
Test(session_claim, a_session_without_its_lock_ends_with_its_connection, .timeout = 120) {
    world_run(1, "[store run]\n", without_its_lock);
}

static void let_go_while_parked(struct world *world) {
    struct guest guest;
    come(world, &guest);
    (void)get(&guest, "x");
    wire_close(&guest.wire);
    CHECK(world_home(world).leases == 1, "%" PRIu64 " leases", world_home(world).leases);
    let_go(&guest);
    WAIT_UNTIL(world_home(world).leases == 0, DEADLINE_MS);
    tidy(world);
}
Test(session_claim, a_parked_session_ends_with_its_lock, .timeout = 120) {
    world_run(1, "[store run]\n", let_go_while_parked);
}

/* ---- limits ---- */

#define GUESTS_MAX 8u

/* Every place that is left is taken, by sessions that are parked: they come back, and nobody else
 * comes in. */
static void a_full_broker(struct world *world) {
    struct guest guests[GUESTS_MAX] = {0}, newcomer = {0};
    uint32_t count = 0;
    (void)world_home(world); /* the probe has its place */
    for (; count < GUESTS_MAX; count++) {
        greet(&guests[count], path_of(world), 0, NULL);
        if (guests[count].status != FB__STATUS__OK)
            break;
    }
    CHECK(count > 0 && count < GUESTS_MAX, "%u guests came in", count);
    leave(&guests[count]);
    for (uint32_t i = 0; i < count; i++)
        wire_close(&guests[i].wire);
    greet(&newcomer, path_of(world), 0, NULL);
    CHECK(newcomer.status == FB__STATUS__FULL, "one more came in: %d", (int)newcomer.status);
    leave(&newcomer);
    for (uint32_t i = 0; i < count; i++) {
        greet(&guests[i], path_of(world), guests[i].session_id, guests[i].token);
        CHECK(guests[i].status == FB__STATUS__OK && guests[i].resumed, "guest %u: %d", i,
              (int)guests[i].status);
    }
    for (uint32_t i = 0; i < count; i++)
        leave(&guests[i]);
}
Test(session_claim, at_max_sessions_the_parked_come_back, .timeout = 120) {
    world_run(1, "[store run]\n[local]\nmax_sessions = 8\nadmin_sessions = 0\n", a_full_broker);
}

/* ---- what is shown ---- */

static void a_parked_session_is_shown(struct world *world) {
    struct guest guest;
    come(world, &guest);
    wire_close(&guest.wire);
    struct process_output result;
    CTL(&result, &world->cluster, 0, "--json", "sessions");
    json_t *rows = ctl_rows(&result);
    size_t i;
    json_t *row;
    bool found = false;
    json_array_foreach(rows, i, row) {
        bool is_guest = !strcmp(ctl_text(row, "name"), "guest");
        CHECK((ctl_number(row, "parked_ms") > 0) == is_guest, "who is parked");
        CHECK(!strncmp(ctl_text(row, "state"), is_guest ? "parked " : "connected", 7), "%s",
              ctl_text(row, "state"));
        found |= is_guest;
    }
    CHECK(found, "it is not listed");
    json_decref(rows);
    let_go(&guest);
    tidy(world);
}
Test(session_claim, a_parked_session_is_shown, .timeout = 120) {
    world_run(1, "[store run]\n", a_parked_session_is_shown);
}
