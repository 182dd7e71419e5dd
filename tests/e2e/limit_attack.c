/* SPDX-License-Identifier: Apache-2.0
 *
 * A client that takes as much as it can, in every way that the table in docs/OPERATIONS.md names.
 * Each way ends when it has been refused, and checks that it got no more than the limit allows.
 */
#include "e2e/limit_attack.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"

#define ANSWER_MS 20000u

static const uint8_t bytes[60000];

void attack_note(struct attack *attack, const char *status) {
    snprintf(attack->status, sizeof attack->status, "%s", status);
}

static void note_refusal(struct attack *attack, Fb__Status status, const char *sentence) {
    attack_note(attack, feature_strerror(-(int)status));
    snprintf(attack->sentence, sizeof attack->sentence, "%s", sentence);
}

#define ITEM_REFUSAL(list)                                                                         \
    for (size_t i = 0; reply->list && i < reply->list->n_items; i++)                               \
        if (reply->list->items[i]->status != FB__STATUS__OK) {                                     \
            note_refusal(attack, reply->list->items[i]->status, reply->list->items[i]->error);     \
            return true;                                                                           \
        }

static bool has_refusal(struct attack *attack, const Fb__ClientReply *reply) {
    if (reply->status != FB__STATUS__OK) {
        note_refusal(attack, reply->status, reply->error);
        return true;
    }
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_PUT)
        ITEM_REFUSAL(put)
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        ITEM_REFUSAL(get)
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_ITEMS)
        ITEM_REFUSAL(items)
    return false;
}

/* Frees the reply. */
static bool refused(struct attack *attack, Fb__ClientReply *reply) {
    CHECK(reply != NULL, "the session was closed");
    bool is_refused = has_refusal(attack, reply);
    fb__client_reply__free_unpacked(reply, NULL);
    return is_refused;
}

static void check_count(uint32_t count, uint32_t limit) {
    CHECK(count == limit, "%u were granted, the limit is %u", count, limit);
}

/* ---- requests ---- */

static const char *socket_of(const struct attack *attack, uint32_t node) {
    return attack->cluster->nodes[node].socket_path;
}

static bool connect_refused(struct attack *attack, struct wire *wire) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = 7;
    hello.client_name = (char *)"attacker";
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    wire_connect(wire, socket_of(attack, 0));
    return refused(attack, wire_call(wire, &request));
}

static struct wire greeted(const struct attack *attack) {
    struct wire wire;
    wire_connect(&wire, socket_of(attack, 0));
    wire_hello(&wire, (uint64_t)getpid());
    return wire;
}

static void send_open(struct wire *wire, const char *store) {
    static uint8_t nonce[32];
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    open.store = (char *)store;
    open.client_nonce = (ProtobufCBinaryData){.data = nonce, .len = sizeof nonce};
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    CHECK(wire_send(wire, FRAME_REQUEST, &request, NULL, 0), "send: %s", strerror(errno));
}

static void send_reserve(struct wire *wire, uint32_t handle, const char *sample_id, size_t size,
                         uint32_t deadline_ms) {
    struct wire_sample sample;
    wire_sample(&sample, bytes, size);
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    Fb__Reserve reserve = FB__RESERVE__INIT;
    reserve.handle = handle;
    reserve.n_items = 1;
    reserve.items = &items;
    reserve.deadline_ms = deadline_ms;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &reserve;
    CHECK(wire_send(wire, FRAME_REQUEST, &request, NULL, 0), "send: %s", strerror(errno));
}

static bool reserve_refused(struct attack *attack, struct wire *wire, uint32_t handle,
                            size_t size) {
    send_reserve(wire, handle, "r", size, 0);
    return refused(attack, wire_receive(wire, ANSWER_MS));
}

/* Gets of samples that never come. */
static void send_waits(struct wire *wire, uint32_t handle, size_t count, uint32_t wait_ms) {
    Fb__GetItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (size_t i = 0; i < count; i++) {
        fb__get_item__init(&items[i]);
        items[i].sample_id = (char *)"never";
        pointers[i] = &items[i];
    }
    Fb__Get get = FB__GET__INIT;
    get.handle = handle;
    get.n_items = count;
    get.items = pointers;
    get.wait_ms = wait_ms;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    CHECK(wire_send(wire, FRAME_REQUEST, &request, NULL, 0), "send: %s", strerror(errno));
}

static uint64_t put_one(struct wire *wire, uint32_t handle, const char *sample_id, size_t size) {
    Fb__ClientReply *reply = wire_put(wire, handle, sample_id, 0, bytes, size);
    CHECK(reply->put && reply->put->items[0]->status == FB__STATUS__OK, "put: %s", reply->error);
    uint64_t generation = reply->put->items[0]->generation;
    fb__client_reply__free_unpacked(reply, NULL);
    return generation;
}

/* Of generations that were never, at a node that is never there. */
static bool acks_refused(struct attack *attack, struct wire *wire, uint32_t handle, uint32_t first,
                         uint32_t count) {
    Fb__RetireItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        fb__retire_item__init(&items[i]);
        items[i].sample_id = (char *)"acked";
        items[i].generation = first + i;
        items[i].home = (char *)"zz";
        pointers[i] = &items[i];
    }
    Fb__Retire ack = FB__RETIRE__INIT;
    ack.handle = handle;
    ack.n_items = count;
    ack.items = pointers;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_ACK;
    request.ack = &ack;
    CHECK(wire_send(wire, FRAME_REQUEST, &request, NULL, 0), "send: %s", strerror(errno));
    return refused(attack, wire_receive(wire, ANSWER_MS));
}

static Fb__Holdings own_holdings(struct wire *wire) {
    Fb__Sessions sessions = FB__SESSIONS__INIT;
    sessions.by_owner = true;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_SESSIONS;
    request.sessions = &sessions;
    Fb__ClientReply *reply = wire_call(wire, &request);
    CHECK(reply->sessions && reply->sessions->n_owners == 1, "it sees others than itself");
    Fb__Holdings holds = *reply->sessions->owners[0]->holds;
    fb__client_reply__free_unpacked(reply, NULL);
    return holds;
}

static uint64_t put_waiters(struct wire *wire, const char *store) {
    Fb__Stores stores = FB__STORES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    Fb__ClientReply *reply = wire_call(wire, &request);
    uint64_t count = 0;
    for (size_t i = 0; reply->stores && i < reply->stores->n_stores; i++)
        if (strcmp(reply->stores->stores[i]->store, store) == 0)
            count = reply->stores->stores[i]->put_waiters;
    fb__client_reply__free_unpacked(reply, NULL);
    return count;
}

/* ---- connections ---- */

static void open_sessions(struct attack *attack) {
    static struct wire wires[20];
    for (size_t i = 0; i < 20; i++)
        if (connect_refused(attack, &wires[i]))
            return;
}

/* ... and then as many connections as it likes that say nothing. */
static void take_descriptors(struct attack *attack) {
    static struct wire silent[40];
    open_sessions(attack);
    for (size_t i = 0; i < 40; i++)
        wire_connect(&silent[i], socket_of(attack, 0));
}

static void say_nothing(struct attack *attack) {
    struct wire wire;
    wire_connect(&wire, socket_of(attack, 0));
    if (wire_closed(&wire, ANSWER_MS))
        attack_note(attack, "closed");
}

static void knock_without_right(struct attack *attack) {
    static struct wire wires[70];
    for (size_t i = 0; i < 70; i++)
        wire_connect(&wires[i], socket_of(attack, 0));
    if (wire_closed(&wires[69], 2000))
        attack_note(attack, "closed");
}

/* ---- handles, leases, reservations ---- */

static void open_handles(struct attack *attack, uint32_t sessions) {
    struct wire wires[2] = {greeted(attack), greeted(attack)};
    uint32_t count = 0;
    for (;; count++) {
        struct wire *wire = &wires[count % sessions];
        send_open(wire, "run");
        if (refused(attack, wire_receive(wire, ANSWER_MS)))
            break;
    }
    check_count(count, 3);
}

static void session_opens_handles(struct attack *attack) {
    open_handles(attack, 1);
}

static void user_opens_handles(struct attack *attack) {
    open_handles(attack, 2);
}

/* Two handles of one store and one of another: together no more than one has. */
static void lease(struct attack *attack, uint32_t sessions) {
    struct wire wires[2] = {greeted(attack), greeted(attack)};
    uint32_t handles[3] = {0}, count = 0;
    put_one(&wires[0], wire_open(&wires[0], "run"), "leased", 100);
    put_one(&wires[0], wire_open(&wires[0], "small"), "leased", 100);
    for (uint32_t i = 0; i < 3; i++)
        handles[i] = wire_open(&wires[i % sessions], i < 2 ? "run" : "small");
    for (;; count++)
        if (refused(attack,
                    wire_get(&wires[count % 3 % sessions], handles[count % 3], "leased", 0)))
            break;
    check_count(count, 4);
}

static void session_leases(struct attack *attack) {
    lease(attack, 1);
}

static void user_leases(struct attack *attack) {
    lease(attack, 2);
}

static void reserve(struct attack *attack, uint32_t sessions) {
    struct wire wires[2] = {greeted(attack), greeted(attack)};
    uint32_t handles[3], count = 0;
    for (uint32_t i = 0; i < 3; i++)
        handles[i] = wire_open(&wires[i % sessions], i < 2 ? "run" : "small");
    while (!reserve_refused(attack, &wires[count % 3 % sessions], handles[count % 3], 100))
        count++;
    check_count(count, 4);
}

static void session_reserves(struct attack *attack) {
    reserve(attack, 1);
}

static void user_reserves(struct attack *attack) {
    reserve(attack, 2);
}

/* ---- what waits ---- */

static void wait_in_requests(struct attack *attack, uint32_t sessions, uint32_t items) {
    struct wire wires[2] = {greeted(attack), greeted(attack)};
    uint32_t handles[2] = {wire_open(&wires[0], "run"), wire_open(&wires[1], "run")};
    for (uint32_t i = 0; i < 8; i++)
        send_waits(&wires[i % sessions], handles[i % sessions], items, 60000);
    if (sessions == 2) /* the last of the first session's may have been the one */
        send_waits(&wires[0], handles[0], items, 60000);
    CHECK(refused(attack, wire_receive(&wires[0], ANSWER_MS)), "it was granted");
}

static void session_asks(struct attack *attack) {
    wait_in_requests(attack, 1, 1);
}

static void user_asks(struct attack *attack) {
    wait_in_requests(attack, 2, 1);
}

static void session_waits(struct attack *attack) {
    wait_in_requests(attack, 1, 100);
}

static void user_waits(struct attack *attack) {
    wait_in_requests(attack, 2, 100);
}

/* Fills the store, then waits for room in it. */
static void queue(struct attack *attack, uint32_t sessions, bool inline_put) {
    struct wire filler = greeted(attack), wires[2] = {greeted(attack), greeted(attack)};
    uint32_t handles[2] = {wire_open(&wires[0], "small"), wire_open(&wires[1], "small")};
    CHECK(!reserve_refused(attack, &filler, wire_open(&filler, "small"), 60000), "%s",
          attack->sentence);
    for (uint32_t i = 0; i < 2; i++) {
        struct wire *wire = &wires[i % sessions];
        if (inline_put)
            wire_send_put(wire, handles[i % sessions], "queued", 0, bytes, 10000, 60000);
        else
            send_reserve(wire, handles[i % sessions], "queued", 40000, 60000);
        if (i == 0)
            WAIT_UNTIL(put_waiters(&filler, "small") == 1, ANSWER_MS);
    }
    CHECK(refused(attack, wire_receive(&wires[sessions - 1], ANSWER_MS)), "it was granted");
}

static void session_queues(struct attack *attack) {
    queue(attack, 1, false);
}

static void user_queues(struct attack *attack) {
    queue(attack, 2, false);
}

static void session_has_kept(struct attack *attack) {
    queue(attack, 1, true);
}

static void user_has_kept(struct attack *attack) {
    queue(attack, 2, true);
}

static void hold_a_reservation(struct attack *attack) {
    struct wire wire = greeted(attack);
    uint32_t handle = wire_open(&wire, "small");
    send_reserve(&wire, handle, "held", 60000, 0);
    Fb__ClientReply *reply = wire_receive(&wire, ANSWER_MS);
    CHECK(reply && reply->put && reply->put->items[0]->reservation, "not reserved");
    Fb__CommitItem item = FB__COMMIT_ITEM__INIT, *items = &item;
    item.reservation = reply->put->items[0]->reservation;
    fb__client_reply__free_unpacked(reply, NULL);
    WAIT_UNTIL(own_holdings(&wire).reservations == 0, ANSWER_MS);
    Fb__Commit commit = FB__COMMIT__INIT;
    commit.handle = handle;
    commit.n_items = 1;
    commit.items = &items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_COMMIT;
    request.commit = &commit;
    CHECK(refused(attack, wire_call(&wire, &request)), "its room was still its own");
}

static void wait_for_ever(struct attack *attack) {
    struct wire filler = greeted(attack), wire = greeted(attack);
    CHECK(!reserve_refused(attack, &filler, wire_open(&filler, "small"), 60000), "%s",
          attack->sentence);
    send_reserve(&wire, wire_open(&wire, "small"), "waits", 40000, 4000000000u);
    CHECK(refused(attack, wire_receive(&wire, ANSWER_MS)), "there was room");
}

/* ---- what is not read ---- */

/* Asks for much at once, which is answered at one time, and does not read. */
static void leave_unread(struct attack *attack) {
    struct wire wire = greeted(attack);
    uint32_t handle = wire_open(&wire, "run");
    for (uint32_t i = 0; i < 100; i++)
        send_waits(&wire, handle, FRAME_BATCH_ITEMS_MAX, 300);
    struct pollfd ended = {.fd = wire.fd, .events = POLLRDHUP};
    if (poll(&ended, 1, (int)ANSWER_MS) > 0)
        attack_note(attack, "closed");
}

static void session_leaves_descriptors(struct attack *attack) {
    struct wire wire = greeted(attack), other = greeted(attack);
    for (uint32_t i = 0; i < 10; i++)
        send_open(&wire, "run");
    WAIT_UNTIL(own_holdings(&other).unread_descriptors == 3, ANSWER_MS);
    for (uint32_t i = 0; i < 20; i++)
        CHECK(own_holdings(&other).handles == 3, "the limit is 3");
    for (uint32_t i = 0; i < 10; i++)
        CHECK(!refused(attack, wire_receive(&wire, ANSWER_MS)), "%s", attack->sentence);
    WAIT_UNTIL(own_holdings(&other).unread_descriptors == 0, ANSWER_MS);
    attack_note(attack, "waits");
}

static void user_leaves_descriptors(struct attack *attack) {
    struct wire wire = greeted(attack), other = greeted(attack);
    for (uint32_t i = 0; i < 3; i++)
        send_open(&wire, "run");
    struct pollfd answers = {.fd = wire.fd, .events = POLLIN};
    CHECK(poll(&answers, 1, (int)ANSWER_MS) > 0, "no answer");
    send_open(&wire, "run"); /* is not listened to: then all three are out */
    send_open(&other, "run");
    answers.fd = other.fd;
    if (poll(&answers, 1, 300) == 0)
        attack_note(attack, "waits");
    for (uint32_t i = 0; i < 4; i++)
        CHECK(!refused(attack, wire_receive(&wire, ANSWER_MS)), "%s", attack->sentence);
    CHECK(!refused(attack, wire_receive(&other, ANSWER_MS)), "%s", attack->sentence);
}

/* ---- acks that cannot be delivered ---- */

static void session_acks(struct attack *attack) {
    struct wire wire = greeted(attack);
    uint32_t handle = wire_open(&wire, "run");
    CHECK(!acks_refused(attack, &wire, handle, 1, 8), "%s", attack->sentence);
    CHECK(!acks_refused(attack, &wire, handle, 1, 8), "the same ones again: %s", attack->sentence);
    CHECK(acks_refused(attack, &wire, handle, 9, 1), "one more than the limit was kept");
}

/* What the first session has left behind counts. */
static void user_acks(struct attack *attack) {
    struct wire first = greeted(attack), second = greeted(attack);
    uint32_t handle = wire_open(&second, "run");
    CHECK(!acks_refused(attack, &first, wire_open(&first, "run"), 1, 6), "%s", attack->sentence);
    wire_close(&first);
    WAIT_UNTIL(own_holdings(&second).handles == 1, ANSWER_MS);
    CHECK(!acks_refused(attack, &second, handle, 7, 2), "%s", attack->sentence);
    CHECK(acks_refused(attack, &second, handle, 9, 1), "one more than the limit was kept");
}

/* ---- stores ---- */

static bool create_refused(struct attack *attack, struct wire *wire, char *name) {
    Fb__StoreSettings settings = FB__STORE_SETTINGS__INIT;
    settings.max_resident_bytes = settings.landing_bytes = 4096;
    settings.max_samples = 4;
    Fb__StoreCreate create = FB__STORE_CREATE__INIT;
    create.store = name;
    create.settings = &settings;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_CREATE;
    request.store_create = &create;
    return refused(attack, wire_call(wire, &request));
}

static void drop_store(struct wire *wire, char *name) {
    Fb__StoreDrop drop = FB__STORE_DROP__INIT;
    drop.store = name;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_DROP;
    request.store_drop = &drop;
    fb__client_reply__free_unpacked(wire_call(wire, &request), NULL);
}

/* A dropped one is no longer charged. */
static void create_stores(struct attack *attack) {
    struct wire wire = greeted(attack);
    char name[16];
    uint32_t count = 0;
    do
        snprintf(name, sizeof name, "made%u", count);
    while (!create_refused(attack, &wire, name) && ++count < 10);
    check_count(count, 2);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "made%u", i);
        drop_store(&wire, name);
    }
    WAIT_UNTIL(!create_refused(attack, &wire, name), ANSWER_MS);
    drop_store(&wire, name);
}

static void fill_store(struct attack *attack) {
    struct wire wire = greeted(attack);
    uint32_t handle = wire_open(&wire, "small");
    for (uint32_t i = 0; i < 10 && !reserve_refused(attack, &wire, handle, 30000);)
        i++;
}

static void fill_slots(struct attack *attack) {
    struct wire wire = greeted(attack);
    uint32_t handle = wire_open(&wire, "small"), count = 0;
    while (!reserve_refused(attack, &wire, handle, 100))
        count++;
    check_count(count, 4);
}

/* Reads samples of node a on node b. */
static void fill_landing(struct attack *attack) {
    struct wire wire = greeted(attack), reader;
    uint32_t handle = wire_open(&wire, "run");
    wire_connect(&reader, socket_of(attack, 1));
    wire_hello(&reader, 8);
    uint32_t reader_handle = wire_open(&reader, "run");
    for (uint32_t i = 0; i < 2; i++) {
        Fb__GetItem item = FB__GET_ITEM__INIT, *items = &item;
        item.sample_id = (char *)(i ? "second" : "first");
        item.home = (char *)"a";
        item.generation = put_one(&wire, handle, item.sample_id, 40000);
        Fb__Get get = FB__GET__INIT;
        get.handle = reader_handle;
        get.n_items = 1;
        get.items = &items;
        get.deadline_ms = i ? 300 : ANSWER_MS;
        Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
        request.op_case = FB__CLIENT_REQUEST__OP_GET;
        request.get = &get;
        CHECK(refused(attack, wire_call(&reader, &request)) == i, "get %u: %s", i,
              attack->sentence);
    }
}

#define LOCAL(key) "[local]\n" key "\n"
#define CASE(limit_, ini_, ...)                                                                    \
    { .limit = (limit_), .ini = (ini_), .reach = __VA_ARGS__ }
#define UNREACHABLE                                                                                \
    "[peers]\ncluster_secret_file = %D/a.cluster\n[peer zz]\naddress = 127.0.0.1:9\n"              \
    "[daemon]\ndrain_timeout = 0\n"

/* clang-format off */
const struct limit_case limit_cases[] = {
    CASE("max_sessions", LOCAL("max_sessions = 8\nadmin_sessions = 0\nmax_sessions_per_user = 20"), open_sessions),
    CASE("max_sessions_per_user", LOCAL("max_sessions_per_user = 4"), open_sessions),
    CASE("admin_sessions", LOCAL("max_sessions = 8\nadmin_sessions = 3\nmax_sessions_per_user = 20"), open_sessions),
    CASE("open files", "", take_descriptors, .open_files = 48),
    CASE("hello_timeout", LOCAL("hello_timeout = 200ms"), say_nothing, .in_log = true),
    CASE("refused connections", LOCAL("allow_uids = 4243"), knock_without_right),
    CASE("max_handles_per_session", LOCAL("max_handles_per_session = 3"), session_opens_handles),
    CASE("max_handles_per_user", LOCAL("max_handles_per_user = 3"), user_opens_handles),
    CASE("max_leases_per_session", LOCAL("max_leases_per_session = 4"), session_leases),
    CASE("max_leases_per_user", LOCAL("max_leases_per_user = 4"), user_leases),
    CASE("max_reservations_per_session", LOCAL("max_reservations_per_session = 4"), session_reserves),
    CASE("max_reservations_per_user", LOCAL("max_reservations_per_user = 4"), user_reserves),
    CASE("max_requests_per_session", LOCAL("max_requests_per_session = 4"), session_asks),
    CASE("max_requests_per_user", LOCAL("max_requests_per_user = 4"), user_asks),
    CASE("max_waits_per_session", LOCAL("max_waits_per_session = 300"), session_waits),
    CASE("max_waits_per_user", LOCAL("max_waits_per_user = 300"), user_waits),
    CASE("max_queued_bytes_per_session", LOCAL("max_queued_bytes_per_session = 64KiB"), session_queues),
    CASE("max_queued_bytes_per_user", LOCAL("max_queued_bytes_per_user = 64KiB"), user_queues),
    CASE("max_kept_bytes_per_session", LOCAL("max_kept_bytes_per_session = 20000"), session_has_kept),
    CASE("max_kept_bytes_per_user", LOCAL("max_kept_bytes_per_user = 20000"), user_has_kept),
    CASE("max_unread_bytes_per_session",
     LOCAL("max_unread_bytes_per_session = 256KiB\nmax_waits_per_session = 30000\nmax_waits_per_user = 60000"),
     leave_unread, .in_log = true),
    CASE("max_unread_bytes_per_user",
     LOCAL("max_unread_bytes_per_user = 256KiB\nmax_waits_per_session = 30000\nmax_waits_per_user = 60000"),
     leave_unread, .in_log = true),
    CASE("max_unread_descriptors_per_session", LOCAL("max_unread_descriptors_per_session = 3"),
     session_leaves_descriptors),
    CASE("max_unread_descriptors_per_user", LOCAL("max_unread_descriptors_per_user = 3"), user_leaves_descriptors),
    CASE("max_pending_ends_per_session", UNREACHABLE LOCAL("max_pending_ends_per_session = 8"), session_acks,
     .unconnected = true),
    CASE("max_pending_ends_per_user", UNREACHABLE LOCAL("max_pending_ends_per_user = 8"), user_acks, .unconnected = true),
    CASE("max_pending_ends", UNREACHABLE LOCAL("max_pending_ends = 8"), session_acks, .unconnected = true),
    CASE("max_stores", "[stores]\nmax_stores = 4\n", create_stores, .as_root = true),
    CASE("max_stores_per_user", "[stores]\nmax_stores_per_user = 2\n", create_stores, .as_root = true),
    CASE("[stores] max_resident_bytes", "", fill_store),
    CASE("[memory] max_resident_bytes", "[memory]\nmax_resident_bytes = 40KiB\n", fill_store, .others_cannot = true),
    CASE("landing_bytes", "[stores]\nlanding_bytes = 64KiB\n", fill_landing, .nodes = 2),
    CASE("max_samples", "[store small]\nmax_samples = 4\n", fill_slots),
    CASE("max_reserve", "[stores]\nmax_reserve = 200ms\n", hold_a_reservation),
    CASE("max_wait", "[stores]\nmax_wait = 200ms\n", wait_for_ever),
    CASE("max_connections", "[peers]\nmax_connections = 1\n", peer_opens_connections, .nodes = 2, .as_root = true,
     .in_log = true),
    CASE("max_connections_per_peer", "[peers]\nmax_connections_per_peer = 1\n", peer_opens_connections, .nodes = 2,
     .as_root = true, .in_log = true),
    CASE("strangers", "", strangers_knock, .nodes = 2, .in_log = true),
    CASE("max_leases_per_peer", "[peers]\nmax_leases_per_peer = 2\n", peer_takes_leases, .nodes = 2, .as_root = true),
    CASE("max_waits_per_peer", "[peers]\nmax_waits_per_peer = 2\n", peer_waits, .nodes = 2, .as_root = true),
    CASE("max_unread_bytes_per_peer", "[peers]\nmax_unread_bytes_per_peer = 1MiB\n", peer_does_not_read, .nodes = 2,
     .as_root = true, .in_log = true),
};
/* clang-format on */
const size_t limit_case_count = sizeof limit_cases / sizeof *limit_cases;
