/* SPDX-License-Identifier: Apache-2.0
 *
 * featurectl on a cluster with an index: `index check` finds what was planted in etcd and nothing
 * else, mends it, and says what it could not look at; records of dead homes are swept; nodes,
 * samples and explain tell of the whole cluster, also when a part of it is silent.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2e/ctl.h"
#include "e2e/traffic.h"
#include "support/checks.h"

#define SETTLE_MS      30000u
#define EXIT_FINDINGS  1
#define EXIT_UNCHECKED 2
#define EXIT_TIMEOUT   16

/* The options: .nodes at least. */
#define CLUSTER_OF(NAME, ...)                                                                      \
    static void NAME(struct index_world *world);                                                   \
    Test(index_check, NAME, .timeout = 240) {                                                      \
        index_world_run(&(struct cluster_options){.etcd_members = 1, __VA_ARGS__}, NAME);          \
    }                                                                                              \
    static void NAME(struct index_world *world)

/* ---- what is in etcd, behind the brokers' backs ---- */

static char *etcdctl(struct index_world *world, const char *const words[]) {
    return etcd_server_ctl(&world->cluster.etcd, words);
}

static void key_of(const char *tail, char key[128]) {
    snprintf(key, 128, "/featured/test/%s", tail);
}

static void plant(struct index_world *world, const char *tail, const char *value) {
    char key[128];
    key_of(tail, key);
    free(etcdctl(world, (const char *[]){"put", key, value, NULL}));
}

static void uproot(struct index_world *world, const char *tail) {
    char key[128];
    key_of(tail, key);
    free(etcdctl(world, (const char *[]){"del", key, NULL}));
}

/* To be freed. */
static char *value_of(struct index_world *world, const char *tail) {
    char key[128];
    key_of(tail, key);
    return etcdctl(world, (const char *[]){"get", "--print-value-only", key, NULL});
}

/* A record of a sample that this node never had. */
static void plant_record(struct index_world *world, const char *tail, uint32_t node,
                         uint64_t generation) {
    struct feature_health health = cluster_health(&world->cluster, node);
    char value[256];
    snprintf(value, sizeof value,
             "{\"gen\":%" PRIu64 ",\"home\":\"%s\",\"inc\":\"%" PRIx64 "\",\"bytes\":1,\"time\":1}",
             generation, world->cluster.nodes[node].name, health.incarnation);
    plant(world, tail, value);
}

/* ---- the check ---- */

struct checked {
    json_t *rows; /* the last is the summary */
    int status;
    char *err;
};

static struct checked check_index(struct index_world *world, uint32_t node, bool repair) {
    struct process_output result;
    CTL(&result, &world->cluster, node, "--json", "index", "check", repair ? "--repair" : NULL);
    struct checked checked = {.status = result.status, .err = strdup(result.err)};
    checked.rows = ctl_rows_of(&result);
    return checked;
}

static json_t *summary_of(const struct checked *checked) {
    CHECK(json_array_size(checked->rows) > 0, "nothing printed: %s", checked->err);
    return json_array_get(checked->rows, json_array_size(checked->rows) - 1);
}

static void checked_free(struct checked *checked) {
    json_decref(checked->rows);
    free(checked->err);
}

static void expect_clean(struct index_world *world, uint32_t node) {
    struct checked checked = check_index(world, node, false);
    CHECK(checked.status == 0, "exit %d: %s", checked.status, checked.err);
    CHECK(ctl_number(summary_of(&checked), "findings") == 0 &&
              ctl_number(summary_of(&checked), "unknown") == 0,
          "findings");
    checked_free(&checked);
}

static json_t *find_finding(const struct checked *checked, const char *sample_id,
                            const char *finding, const char *node) {
    json_t *row;
    size_t i;
    json_array_foreach(checked->rows, i, row) {
        if (json_object_get(row, "sample_id") && !strcmp(ctl_text(row, "sample_id"), sample_id) &&
            !strcmp(ctl_text(row, "finding"), finding) && !strcmp(ctl_text(row, "node"), node))
            return row;
    }
    return NULL;
}

static void expect_finding(const struct checked *checked, const char *sample_id,
                           const char *finding, const char *node, bool repaired) {
    json_t *row = find_finding(checked, sample_id, finding, node);
    if (row == NULL)
        check_failed(__FILE__, __LINE__, "a finding", "%s is not %s at node %s but: %s", sample_id,
                     finding, node, json_dumps(checked->rows, 0));
    CHECK(strstr(ctl_text(row, "what"), sample_id) && *ctl_text(row, "remedy"), "no words");
    CHECK(json_is_true(json_object_get(row, "repaired")) == repaired, "%s: repaired: %s", sample_id,
          ctl_text(row, "remedy"));
}

static void put_one(struct index_world *world, uint32_t node, struct payload *payload,
                    const char *id, struct feature_ref **ref) {
    payload_init(payload, id, node + 1, 70000);
    CHECK_OK(payload_put(payload, world->run[node], 5000, ref));
}

static void abort_one(struct index_world *world, uint32_t node, const char *id) {
    CHECK_OK(feature_abort(world->run[node], FEATURE_BY_ID(id), 1, NULL));
}

static void await_count(struct index_world *world, const char *prefix, uint32_t count) {
    WAIT_UNTIL(cluster_etcd_count(&world->cluster, prefix) == count, SETTLE_MS);
}

CLUSTER_OF(traffic_is_no_finding, .nodes = INDEX_NODES) {
    struct traffic traffic;
    expect_clean(world, A);
    traffic_start(&traffic, world);
    traffic_await_all(&traffic);
    for (uint32_t i = 0; i < INDEX_NODES; i++) {
        struct checked checked = check_index(world, i, true);
        CHECK(checked.status == 0, "exit %d: %s: %s", checked.status, checked.err,
              json_dumps(checked.rows, JSON_INDENT(1)));
        checked_free(&checked);
    }
    traffic_stop(&traffic, "index check", 0);
    index_world_settle(world);
    expect_clean(world, C);
}

/* One of each kind; s4 is left alone. */
static void plant_all(struct index_world *world) {
    char *other = value_of(world, "samples/run/s4");
    plant_record(world, "samples/run/never", B, 7);
    plant_record(world, "samples/nowhere/x", C, 8);
    plant(world, "samples/run/dead",
          "{\"gen\":9,\"home\":\"a\",\"inc\":\"1\",\"bytes\":1,\"time\":1}");
    uproot(world, "samples/run/s1");
    plant(world, "samples/run/s2", other);
    plant_record(world, "samples/run/s3", C, 10);
    free(other);
}

static void expect_all(const struct checked *checked, bool repaired) {
    CHECK(checked->status == EXIT_FINDINGS, "exit %d: %s", checked->status, checked->err);
    expect_finding(checked, "never", "not-held", "b", repaired);
    expect_finding(checked, "x", "not-held", "c", repaired);
    expect_finding(checked, "dead", "home-dead", "a", repaired);
    expect_finding(checked, "s1", "not-recorded", "a", repaired);
    /* A repair asks all nodes at once. Once a has removed the record that stands in s2's place, b
     * holds a sample without a record. */
    bool removed = repaired && !find_finding(checked, "s2", "replaced", "b");
    expect_finding(checked, "s2", removed ? "not-recorded" : "replaced", "b", repaired);
    expect_finding(checked, "s2", "not-held", "a", repaired);
    expect_finding(checked, "s3", "other-generation", "c", repaired);
    CHECK(ctl_count(checked->rows, "sample_id", "s4") == 0, "s4 is nobody's finding");
}

/* s2's record names what a holds of s4: then a is asked for s2 as well, and holds none. */
CLUSTER_OF(planted_orphans_are_found_and_mended, .nodes = INDEX_NODES) {
    struct payload payloads[4];
    struct feature_ref *refs[4] = {NULL};
    for (uint32_t i = 0; i < 4; i++) {
        char id[8];
        snprintf(id, sizeof id, "s%u", i + 1);
        put_one(world, i % 3, &payloads[i], id, &refs[i]);
    }
    expect_clean(world, B);
    plant_all(world);
    struct checked found = check_index(world, B, false);
    expect_all(&found, false);
    checked_free(&found);
    struct checked mended = check_index(world, C, true);
    expect_all(&mended, true);
    CHECK(ctl_number(summary_of(&mended), "repaired") ==
              ctl_number(summary_of(&mended), "findings"),
          "not all is repaired");
    checked_free(&mended);
    await_count(world, "samples/", 4); /* b publishes s2 when a has said that it has no such */
    expect_clean(world, A);
    index_world_expect_current(world, &payloads[0], refs[0]);
    index_world_expect_current(world, &payloads[2], refs[2]);
    index_world_expect_current(world, &payloads[3], refs[3]);
    index_world_await_current(world, &payloads[1], refs[1]); /* a wrong record ends nothing */
    index_world_expect(world, by_id("never"), FEATURE_E_NOT_FOUND);
    for (uint32_t i = 0; i < 4; i++) {
        abort_one(world, B, payloads[i].sample_id);
        feature_ref_free(refs[i]);
        payload_deinit(&payloads[i]);
    }
}

CLUSTER_OF(foreign_keys_are_counted_and_left_alone, .nodes = 2) {
    plant(world, "samples/run/s1", "not a record");
    struct checked checked = check_index(world, A, true);
    CHECK(checked.status == EXIT_FINDINGS, "exit %d", checked.status);
    CHECK(ctl_number(summary_of(&checked), "unreadable") == 1, "not counted");
    CHECK(strstr(checked.err, "etcdctl") != NULL, "%s", checked.err);
    checked_free(&checked);
    await_count(world, "samples/", 1);
    uproot(world, "samples/run/s1");
    expect_clean(world, B);
}

/* ---- a part of the cluster is silent ---- */

static json_t *ask(struct index_world *world, uint32_t node, const char *command,
                   const char *argument, int status) {
    struct process_output result;
    CTL(&result, &world->cluster, node, "--json", command, argument);
    CHECK(result.status == status, "%s: exit %d: %s", command, result.status, result.err);
    CHECK(status == 0 || strstr(result.err, "node b") != NULL, "%s: does not name b: %s", command,
          result.err);
    return ctl_rows_of(&result);
}

/* b is alive and tells etcd so, but the others do not reach it. */
CLUSTER_OF(an_unreachable_node_is_named_and_its_records_are_unknown, .nodes = 2, .proxied = true) {
    struct payload mine, its;
    put_one(world, A, &mine, "mine", NULL);
    put_one(world, B, &its, "its", NULL);
    plant_record(world, "samples/run/never", B, 7);
    proxy_hold(&world->cluster.proxies[B].peers, PROXY_HOLD_BOTH);
    json_t *rows = ask(world, A, "nodes", NULL, 0), *row = ctl_row(rows, "node", "b");
    CHECK(*ctl_text(row, "silence") != '\0', "b is not silent");
    CHECK(json_is_null(json_object_get(row, "resident_samples")), "b has said something");
    CHECK(*ctl_text(row, "incarnation") && *ctl_text(row, "address"), "b is not described");
    json_decref(rows);
    rows = ask(world, A, "samples", NULL, 17);
    CHECK(ctl_count(rows, "sample_id", "mine") == 1 && ctl_count(rows, "sample_id", "its") == 0,
          "samples");
    json_decref(rows);
    rows = ask(world, A, "explain", "run/its", 0);
    row = json_array_get(rows, 0);
    CHECK(strstr(ctl_text(row, "index"), "node b") != NULL, "index: %s", ctl_text(row, "index"));
    CHECK(ctl_row(json_object_get(row, "silent"), "node", "b") != NULL, "b is not named");
    json_decref(rows);
    struct checked checked = check_index(world, A, true);
    CHECK(checked.status == EXIT_UNCHECKED, "exit %d: %s", checked.status, checked.err);
    CHECK(ctl_number(summary_of(&checked), "unknown") == 2, "unknown");
    CHECK(strstr(checked.err, "\"b\"") != NULL, "does not name b: %s", checked.err);
    checked_free(&checked);
    await_count(world, "samples/", 3); /* and nothing of it was repaired */
    proxy_hold(&world->cluster.proxies[B].peers, PROXY_OPEN);
    cluster_await_peer(&world->cluster, A, B);
    checked = check_index(world, A, true);
    CHECK(checked.status == EXIT_FINDINGS, "exit %d: %s", checked.status, checked.err);
    expect_finding(&checked, "never", "not-held", "b", true);
    checked_free(&checked);
    await_count(world, "samples/", 2);
    abort_one(world, A, "mine");
    abort_one(world, B, "its");
    payload_deinit(&mine);
    payload_deinit(&its);
}

/* ---- a node dies ---- */

static void kill_node(struct index_world *world, uint32_t node) {
    feature_disconnect(world->features[node]);
    world->features[node] = NULL;
    cluster_node_kill(&world->cluster, node);
    cluster_etcd_await_fenced(&world->cluster, node);
}

CLUSTER_OF(what_died_with_a_node_is_told_and_swept_by_a_check, .nodes = 2) {
    struct payload kept, lost;
    put_one(world, A, &kept, "kept", NULL);
    put_one(world, B, &lost, "lost", NULL);
    kill_node(world, B);
    WAIT_UNTIL(world_try_get(world->run[A], by_id("lost"), 1000) == FEATURE_E_LOST, SETTLE_MS);
    json_t *rows = ask(world, A, "nodes", NULL, 0);
    CHECK(strcmp(ctl_text(ctl_row(rows, "node", "b"), "state"), "left") == 0, "b has left");
    json_decref(rows);
    rows = ask(world, A, "samples", NULL, 0);
    CHECK(strcmp(ctl_text(ctl_row(rows, "sample_id", "lost"), "state"), "home-lost") == 0 &&
              strcmp(ctl_text(ctl_row(rows, "sample_id", "kept"), "state"), "resident") == 0,
          "samples");
    json_decref(rows);
    rows = ask(world, A, "explain", "run/lost", 0);
    CHECK(strstr(ctl_text(json_array_get(rows, 0), "sentence"), "lost with node b") != NULL, "%s",
          ctl_text(json_array_get(rows, 0), "sentence"));
    json_decref(rows);
    struct checked checked = check_index(world, A, true);
    CHECK(checked.status == EXIT_FINDINGS, "exit %d: %s", checked.status, checked.err);
    expect_finding(&checked, "lost", "home-dead", "b", true);
    checked_free(&checked);
    await_count(world, "samples/", 1);
    expect_clean(world, A);
    abort_one(world, A, "kept");
    payload_deinit(&kept);
    payload_deinit(&lost);
}

#define KEEP_MS 3000u
#define KEEP    "[directory]\nlost_keep = 3s\n"

CLUSTER_OF(records_of_a_dead_home_are_swept_after_lost_keep, .nodes = INDEX_NODES,
           .ini_of = {KEEP, KEEP, KEEP}) {
    struct payload kept, lost[20];
    put_one(world, B, &kept, "kept", NULL);
    for (uint32_t i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "lost-%u", i);
        put_one(world, A, &lost[i], id, NULL);
    }
    uint64_t killed_ms = check_now_ms();
    kill_node(world, A);
    await_count(world, "samples/", 1);
    CHECK(check_now_ms() - killed_ms >= KEEP_MS, "swept after %" PRIu64 " ms already",
          check_now_ms() - killed_ms);
    for (uint32_t i = 0; i < 20; i++) {
        CHECK(world_try_get(world->run[C], by_id(lost[i].sample_id), 1000) == FEATURE_E_NOT_FOUND,
              "%s", feature_last_error());
        payload_deinit(&lost[i]);
    }
    payload_check_get(&kept, world->run[C], by_id("kept"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&kept);
}

/* What b has consumed of a's cannot reach a any more, until b gives a up. */
CLUSTER_OF(drain_fails_and_names_what_is_left_until_it_is_given_up, .nodes = 2) {
    struct process_output result;
    struct payload payload;
    struct feature_ref *ref = NULL;
    put_one(world, A, &payload, "s1", &ref);
    struct feature_view *view = payload_view(&payload, world->run[B], by_ref(ref));
    kill_node(world, A);
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    WAIT_UNTIL(cluster_health(&world->cluster, B).release_pending == 1, SETTLE_MS);
    CTL(&result, &world->cluster, B, "drain", "--deadline", "200ms");
    CHECK(result.status == EXIT_TIMEOUT, "exit %d: %s", result.status, result.err);
    CHECK(strstr(result.err, "1 release for node a") != NULL, "%s", result.err);
    process_output_deinit(&result);
    cluster_reconfigure(&world->cluster, B, "[directory]\nlost_keep = 1s\n");
    process_signal(&world->cluster.nodes[B].process, SIGHUP);
    CTL(&result, &world->cluster, B, "drain", "--deadline", "50s");
    CHECK(result.status == 0, "exit %d: %s", result.status, result.err);
    process_output_deinit(&result);
    await_count(world, "samples/", 0);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* ---- without an index ---- */

static void check_static(struct world *world) {
    struct process_output result;
    CTL(&result, &world->cluster, 0, "index", "check");
    CHECK(result.status == EXIT_UNCHECKED && strstr(result.err, "static") != NULL, "exit %d: %s",
          result.status, result.err);
    process_output_deinit(&result);
}
Test(index_check, there_is_nothing_to_check_without_an_index, .timeout = 120) {
    world_run(1, "[store run]\n", check_static);
}
