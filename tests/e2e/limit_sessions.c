/* SPDX-License-Identifier: Apache-2.0
 *
 * `featurectl sessions`: finds who holds what, session by session and user by user; and shows who
 * is no admin nothing of others.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

static json_t *ask(const struct cluster *cluster, const char *option) {
    struct process_output result;
    CTL(&result, cluster, 0, "--json", "sessions", option);
    return ctl_rows(&result);
}

static json_t *row_of(json_t *rows, const char *name) {
    json_t *row = ctl_row(rows, "name", name);
    CHECK(row != NULL, "%s is not listed", name);
    return row;
}

static void check_number(json_t *row, const char *key, json_int_t expected) {
    CHECK(ctl_number(row, key) == expected, "%s is %lld, expected %lld", key,
          (long long)ctl_number(row, key), (long long)expected);
}

static void reserve(struct wire *wire, uint32_t handle) {
    static const uint8_t bytes[5000];
    struct wire_sample sample;
    wire_sample(&sample, bytes, sizeof bytes);
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
    item.sample_id = (char *)"reserved";
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    Fb__Reserve asked = FB__RESERVE__INIT;
    asked.handle = handle;
    asked.n_items = 1;
    asked.items = &items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &asked;
    fb__client_reply__free_unpacked(wire_call(wire, &request), NULL);
}

static void check_listed(const struct cluster *cluster, json_int_t sessions, bool by_user) {
    char user[32];
    snprintf(user, sizeof user, "user %u", geteuid());
    json_t *rows = ask(cluster, by_user ? "--by-user" : NULL);
    json_t *row = row_of(rows, by_user ? user : "wire");
    if (by_user)
        CHECK(ctl_number(row, "sessions") >= sessions, "%lld sessions",
              (long long)ctl_number(row, "sessions"));
    else
        check_number(row, "pid", getpid());
    check_number(row, "handles", by_user ? 3 : 2);
    check_number(row, "leases", 2);
    check_number(row, "reservations", 1);
    CHECK(ctl_number(row, "reserved_bytes") >= 5000, "%lld bytes reserved",
          (long long)ctl_number(row, "reserved_bytes"));
    json_decref(rows);
}

Test(limit_sessions, limit_sessions_finds_who_holds_what, .timeout = 120) {
    static const uint8_t bytes[100];
    struct cluster cluster;
    struct wire wire, idle;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    wire_connect(&idle, cluster.nodes[0].socket_path);
    wire_hello(&idle, 2);
    wire_open(&idle, "run");
    wire_connect(&wire, cluster.nodes[0].socket_path);
    wire_hello(&wire, 1);
    uint32_t handles[2] = {wire_open(&wire, "run"), wire_open(&wire, "run")};
    fb__client_reply__free_unpacked(wire_put(&wire, handles[0], "x", 0, bytes, sizeof bytes), NULL);
    for (int i = 0; i < 2; i++)
        fb__client_reply__free_unpacked(wire_get(&wire, handles[i], "x", 0), NULL);
    reserve(&wire, handles[0]);
    wire_close(&idle); /* so that one "wire" is left */
    WAIT_UNTIL(cluster_health(&cluster, 0).sessions <= 2, 20000);
    check_listed(&cluster, 2, false);
    wire_connect(&idle, cluster.nodes[0].socket_path);
    wire_hello(&idle, 2);
    wire_open(&idle, "run");
    check_listed(&cluster, 3, true);
    json_t *rows = ask(&cluster, NULL);
    CHECK(ctl_count(rows, "name", "wire") == 2, "both are listed");
    json_decref(rows);
    wire_close(&wire);
    wire_close(&idle);
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    CHECK_OK(feature_abort(store, FEATURE_BY_ID("x"), 1, NULL));
    feature_disconnect(feature);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

static int look_as_another(int channel, void *context) {
    const struct cluster *cluster = context;
    struct wire wire;
    (void)channel;
    CHECK(setgid(4242) == 0 && setuid(4242) == 0, "setuid");
    wire_connect(&wire, cluster->nodes[0].socket_path);
    wire_hello(&wire, 5);
    for (int by_owner = 0; by_owner < 2; by_owner++) {
        Fb__Sessions sessions = FB__SESSIONS__INIT;
        sessions.by_owner = by_owner;
        Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
        request.op_case = FB__CLIENT_REQUEST__OP_SESSIONS;
        request.sessions = &sessions;
        Fb__ClientReply *reply = wire_call(&wire, &request);
        CHECK(reply->sessions->n_sessions + reply->sessions->n_owners == 1, "it sees others");
        CHECK(by_owner ? reply->sessions->owners[0]->uid == 4242
                       : reply->sessions->sessions[0]->uid == 4242,
              "it sees another");
        fb__client_reply__free_unpacked(reply, NULL);
    }
    wire_close(&wire);
    return 0;
}

Test(limit_sessions, limit_sessions_shows_nobody_others_than_his_own, .timeout = 120) {
    struct cluster cluster;
    struct process other;
    if (geteuid() != 0)
        cr_skip_test("it takes root to be another user");
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1,
                                                      .ini = "[store run]\n[local]\nsocket_mode = "
                                                             "0666\n"});
    CHECK(chmod(cluster.directory, 0711) == 0, "chmod");
    process_fork(&other, look_as_another, &cluster);
    process_join(&other, 20000);
    cluster_stop(&cluster);
}

/* Pages: more sessions than one answer holds. */
Test(limit_sessions, limit_sessions_are_listed_page_by_page, .timeout = 120) {
    static struct wire wires[300];
    struct cluster cluster;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = "[store run]\n"});
    for (size_t i = 0; i < 300; i++) {
        wire_connect(&wires[i], cluster.nodes[0].socket_path);
        wire_hello(&wires[i], i + 1);
    }
    json_t *rows = ask(&cluster, NULL);
    CHECK(ctl_count(rows, "name", "wire") == 300, "%zu are listed",
          ctl_count(rows, "name", "wire"));
    json_decref(rows);
    for (size_t i = 0; i < 300; i++)
        wire_close(&wires[i]);
    cluster_stop(&cluster);
}
