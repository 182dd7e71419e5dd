/* SPDX-License-Identifier: Apache-2.0
 *
 * featurectl from the outside: files in, files out, what it prints for programs, its exit codes.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/world.h"

#define EXIT_LOCAL     1
#define EXIT_USAGE     2
#define EXIT_INVALID   11
#define EXIT_NOT_FOUND 13

/* ---- files in, files out ---- */

struct names {
    char list[16][64]; /* without .safetensors */
    int count;
};

static struct names data_files(void) {
    struct names names = {0};
    DIR *directory = opendir(payload_data_directory());
    CHECK(directory != NULL, "%s", strerror(errno));
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const char *dot = strstr(entry->d_name, ".safetensors");
        if (dot != NULL && names.count < 16)
            snprintf(names.list[names.count++], 64, "%.*s", (int)(dot - entry->d_name),
                     entry->d_name);
    }
    closedir(directory);
    CHECK(names.count >= 6, "%d files in tests/data", names.count);
    return names;
}

/* Both files hold the same tensors, bit for bit, under the same names, dtypes and shapes. */
static void check_same_content(const char *path, const char *other_path) {
    struct payload one, other;
    payload_init_file(&one, "x", path);
    payload_init_file(&other, "x", other_path);
    CHECK(one.sample.tensor_count == other.sample.tensor_count && one.bytes == other.bytes,
          "%s: %u tensors", other_path, other.sample.tensor_count);
    CHECK(strcmp(one.metadata, other.metadata) == 0, "metadata %s, was %s", other.metadata,
          one.metadata);
    for (uint32_t i = 0; i < one.sample.tensor_count; i++)
        CHECK(strcmp(one.names[i], other.names[i]) == 0 &&
                  one.tensors[i].dtype == other.tensors[i].dtype &&
                  one.tensors[i].rank == other.tensors[i].rank &&
                  memcmp(one.tensors[i].shape, other.tensors[i].shape,
                         sizeof one.tensors[i].shape) == 0 &&
                  one.data[i].iov_len == other.data[i].iov_len &&
                  memcmp(one.data[i].iov_base, other.data[i].iov_base, one.data[i].iov_len) == 0,
              "%s: tensor %s differs", other_path, one.names[i]);
    payload_deinit(&one);
    payload_deinit(&other);
}

static void round_trip(struct world *world) {
    const struct cluster *cluster = &world->cluster;
    struct process_output result;
    struct names names = data_files();
    char manifest[128];
    snprintf(manifest, sizeof manifest, "%s/refs.jsonl", cluster->directory);
    CTL(&result, cluster, world->producer_node, "ingest", payload_data_directory(), "--store",
        "run", "--manifest", manifest, "--json");
    json_t *rows = ctl_rows(&result);
    CHECK(ctl_number(json_array_get(rows, 0), "samples") == names.count, "not all were ingested");
    json_decref(rows);
    for (int i = 0; i < names.count; i++) {
        char from[PATH_MAX + 128], to[PATH_MAX];
        snprintf(from, sizeof from, "%s/%s.safetensors", payload_data_directory(), names.list[i]);
        snprintf(to, sizeof to, "%s/%s.safetensors", cluster->directory, names.list[i]);
        CTL(&result, cluster, world->consumer_node, "get", "--manifest", manifest, "--id",
            names.list[i], "-o", to, "--consume", "--json");
        rows = ctl_rows(&result);
        CHECK(strcmp(ctl_text(json_array_get(rows, 0), "home"), "a") == 0, "home %s",
              ctl_text(json_array_get(rows, 0), "home"));
        json_decref(rows);
        check_same_content(from, to);
    }
    CTL(&result, cluster, world->consumer_node, "drain");
    CHECK(result.status == 0, "drain: %s", result.err);
    process_output_deinit(&result);
    cluster_await_empty(&world->cluster, world->producer_node);
    CTL(&result, cluster, world->consumer_node, "get", "--manifest", manifest, "--id",
        names.list[0], "-o", manifest);
    CHECK(result.status == EXIT_NOT_FOUND, "exit %d: %s", result.status, result.err);
    CHECK(strstr(result.err, names.list[0]) != NULL, "%s", result.err);
    process_output_deinit(&result);
}
Test(featurectl, round_trip_one_node, .timeout = 120) {
    world_run(1, "[store run]\n", round_trip);
}
Test(featurectl, round_trip_two_nodes, .timeout = 120) {
    world_run(2, "[store run]\n", round_trip);
}

/* put prints a URI that get takes, on another node. */
static void put_and_get_by_uri(struct world *world) {
    struct process_output result;
    char file[PATH_MAX + 32], to[128], uri[1024];
    snprintf(file, sizeof file, "%s/sample-021.safetensors", payload_data_directory());
    snprintf(to, sizeof to, "%s/out.safetensors", world->cluster.directory);
    CTL(&result, &world->cluster, 0, "put", file, "--store", "run", "--id", "by uri/1");
    CHECK(result.status == 0, "%s", result.err);
    snprintf(uri, sizeof uri, "%.*s", (int)strcspn(result.out, "\n"), result.out);
    process_output_deinit(&result);
    CHECK(strncmp(uri, "feature://run/", 14) == 0, "%s", uri);
    CTL(&result, &world->cluster, 1, "get", uri, "-o", to);
    CHECK(result.status == 0, "%s", result.err);
    process_output_deinit(&result);
    check_same_content(file, to);
    CTL(&result, &world->cluster, 0, "abort", uri);
    CHECK(result.status == 0, "%s", result.err);
    process_output_deinit(&result);
    CTL(&result, &world->cluster, 1, "get", uri, "-o", to);
    CHECK(result.status == EXIT_NOT_FOUND, "exit %d: %s", result.status, result.err);
    process_output_deinit(&result);
    world_settle(world);
}
Test(featurectl, put_and_get_by_uri, .timeout = 120) {
    world_run(2, "[store run]\n", put_and_get_by_uri);
}

/* ---- what it tells ---- */

static json_t *ask(struct world *world, uint32_t node, const char *command, const char *argument) {
    struct process_output result;
    CTL(&result, &world->cluster, node, "--json", command, argument);
    return ctl_rows(&result);
}

static void check_status_facts(struct world *world) {
    json_t *rows = ask(world, 0, "status", NULL), *row = json_array_get(rows, 0);
    CHECK(strcmp(ctl_text(row, "node"), "a") == 0, "node %s", ctl_text(row, "node"));
    CHECK(ctl_number(row, "leases") == 1 && ctl_number(row, "release_pending") == 0, "leases %lld",
          (long long)ctl_number(row, "leases"));
    CHECK(ctl_number(row, "resident_bytes") >= 100000, "resident");
    json_decref(rows);
}

static void check_stores_facts(struct world *world) {
    json_t *rows = ask(world, 0, "stores", NULL), *row = ctl_row(rows, "store", "run");
    CHECK(strcmp(ctl_text(row, "policy"), "on-release") == 0, "policy %s", ctl_text(row, "policy"));
    CHECK(ctl_number(row, "readers") == 2 && ctl_number(row, "resident") == 1 &&
              ctl_number(row, "leases") == 1,
          "readers %lld", (long long)ctl_number(row, "readers"));
    json_decref(rows);
    rows = ask(world, 1, "stores", NULL);
    row = ctl_row(rows, "store", "run");
    CHECK(ctl_number(row, "landing_used_bytes") >= 100000 && ctl_number(row, "resident") == 0,
          "landing");
    json_decref(rows);
}

static void check_samples_facts(struct world *world) {
    json_t *rows = ask(world, 0, "samples", NULL), *row = ctl_row(rows, "sample_id", "s1");
    CHECK(strcmp(ctl_text(row, "state"), "resident") == 0, "state %s", ctl_text(row, "state"));
    CHECK(ctl_number(row, "leases") == 1 && ctl_number(row, "readers") == 2, "leases");
    CHECK(strlen(ctl_text(row, "why")) > 0, "does not say why it is kept");
    json_decref(rows);
}

static void check_leases_facts(struct world *world) {
    json_t *rows = ask(world, 0, "leases", NULL), *row = ctl_row(rows, "sample_id", "s1");
    CHECK(strstr(ctl_text(row, "holder"), "b") != NULL, "holder %s", ctl_text(row, "holder"));
    json_decref(rows);
    rows = ask(world, 1, "leases", NULL);
    row = ctl_row(rows, "sample_id", "s1");
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", getpid());
    CHECK(strstr(ctl_text(row, "holder"), pid) != NULL, "holder %s", ctl_text(row, "holder"));
    json_decref(rows);
}

/* By which the brokers reach each other: in a machine of tests/vm, over RDMA alone. */
static const char *between_nodes(void) {
    const char *given = getenv("FEATURED_TEST_TRANSPORT");
    return given != NULL ? given : "tcp";
}

static void check_rails_facts(const json_t *node) {
    const json_t *rails = json_object_get(json_object_get(node, "path"), "rails");
    double bytes_in = 0;
    for (size_t i = 0; i < json_array_size(rails); i++)
        bytes_in += (double)ctl_number(json_array_get(rails, i), "bytes_in");
    CHECK(bytes_in >= 100000, "%.0f bytes came in over %zu rails", bytes_in,
          json_array_size(rails));
}

static void check_nodes_facts(struct world *world) {
    json_t *rows = ask(world, 1, "nodes", NULL), *row = ctl_row(rows, "node", "a");
    CHECK(strcmp(ctl_text(row, "state"), "up") == 0, "state %s", ctl_text(row, "state"));
    CHECK(strcmp(ctl_text(row, "transport"), between_nodes()) == 0, "transport %s",
          ctl_text(row, "transport"));
    CHECK(ctl_number(row, "bytes_in") >= 100000, "bytes_in");
    if (strcmp(between_nodes(), "rdma") == 0)
        check_rails_facts(row);
    json_decref(rows);
}

static void facts(struct world *world) {
    struct payload payload;
    payload_init(&payload, "s1", 1, 100000);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    struct feature_view *view = payload_view(&payload, world->consumer, by_id("s1"));
    check_status_facts(world);
    check_stores_facts(world);
    check_samples_facts(world);
    check_leases_facts(world);
    check_nodes_facts(world);
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("s1"), 1, NULL));
    world_settle(world);
    payload_deinit(&payload);
}
Test(featurectl, json_holds_the_facts, .timeout = 120) {
    world_run(2, "[store run]\nreaders = 2\n", facts);
}

static void check_explained(struct world *world, uint32_t node, const char *target,
                            const char *state, const char *word) {
    json_t *rows = ask(world, node, "explain", target), *row = json_array_get(rows, 0);
    CHECK(strcmp(ctl_text(row, "state"), state) == 0, "%s is %s: %s", target,
          ctl_text(row, "state"), ctl_text(row, "sentence"));
    CHECK(strstr(ctl_text(row, "sentence"), word) != NULL, "no \"%s\" in: %s", word,
          ctl_text(row, "sentence"));
    json_decref(rows);
}

static void check_path(struct world *world, uint32_t node, const char *target, const char *path) {
    json_t *rows = ask(world, node, "explain", target);
    const char *said = ctl_text(json_array_get(rows, 0), "path");
    CHECK(strncmp(said, path, strlen(path)) == 0, "%s comes by: %s", target, said);
    json_decref(rows);
}

static void explanations(struct world *world) {
    struct payload payload;
    struct feature_ref *ref = NULL;
    struct feature_reservation *reservation = NULL;
    char uri[512];
    size_t bytes = 0;
    payload_init(&payload, "s1", 2, 100000);
    check_explained(world, 1, "run/s1", "never-seen", "s1");
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 0, &reservation));
    check_explained(world, 0, "run/s1", "planned", "s1");
    feature_cancel(reservation);
    CHECK_OK(payload_put(&payload, world->producer, 0, &ref));
    CHECK_OK(feature_ref_to_uri(ref, uri, sizeof uri, &bytes));
    struct feature_view *view = payload_view(&payload, world->consumer, by_ref(ref));
    check_explained(world, 0, uri, "resident", "lease");
    check_explained(world, 1, uri, "resident", "lease"); /* asks the home */
    check_path(world, 0, uri, "shared memory of node a");
    check_path(world, 1, uri, between_nodes());
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    check_explained(world, 1, uri, "retired", "supersede");
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    world_settle(world);
    check_explained(world, 1, uri, "gone", "supersede");
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("s1"), 1, NULL));
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}
Test(featurectl, every_failed_get_can_be_explained, .timeout = 120) {
    world_run(2, "[store run]\n", explanations);
}

/* ---- exit codes ---- */

static void check_exit(struct process_output *result, int expected, const char *word) {
    CHECK(result->status == expected, "exit %d, not %d: %s", result->status, expected, result->err);
    CHECK(strstr(result->err, word) != NULL, "no \"%s\" in: %s", word, result->err);
    process_output_deinit(result);
}

static void exit_codes(struct world *world) {
    struct process_output result;
    const struct cluster *cluster = &world->cluster;
    char file[PATH_MAX + 32];
    snprintf(file, sizeof file, "%s/sample-002.safetensors", payload_data_directory());
    CTL(&result, cluster, 0, "frobnicate");
    check_exit(&result, EXIT_USAGE, "frobnicate");
    CTL(&result, cluster, 0, "put", file);
    check_exit(&result, EXIT_USAGE, "--store");
    CTL(&result, cluster, 0, "put", "/nowhere/x.safetensors", "--store", "run");
    check_exit(&result, EXIT_LOCAL, "/nowhere/x.safetensors");
    CTL(&result, cluster, 0, "put", cluster->nodes[0].config_path, "--store", "run", "--id", "x");
    check_exit(&result, EXIT_LOCAL, cluster->nodes[0].config_path);
    CTL(&result, cluster, 0, "put", file, "--store", "theirs");
    check_exit(&result, EXIT_NOT_FOUND, "theirs");
    CTL(&result, cluster, 0, "get", "run/never", "-o", "/dev/null");
    check_exit(&result, EXIT_NOT_FOUND, "never");
    CTL(&result, cluster, 0, "put", file, "--store", "run", "--deadline",
        "0ms"); /* 400 KB into 256 KiB */
    check_exit(&result, EXIT_INVALID, "run");
    CTL(&result, cluster, 0, "--help");
    CHECK(result.status == 0 && strstr(result.out, "ingest") != NULL, "%s", result.out);
    process_output_deinit(&result);
}
Test(featurectl, exit_codes, .timeout = 120) {
    world_run(1, "[store run]\nmax_resident_bytes = 256KiB\n", exit_codes);
}
