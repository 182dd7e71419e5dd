/* SPDX-License-Identifier: Apache-2.0
 *
 * A store that is dropped while somebody reads of it: its leases are counted and listed until they
 * end, their ends reach their homes, and a new store of the same name is apart from it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/world.h"

#define PATIENCE_MS 30000u
#define ROUNDS      40u

static const char ini[] = "[store run]\n[daemon]\ngc_interval = 10ms\n";

static json_int_t leases_counted(const struct cluster *cluster, uint32_t node) {
    struct process_output output;
    CTL(&output, cluster, node, "status", "--json");
    json_t *rows = ctl_rows_of(&output);
    json_int_t leases = ctl_number(json_array_get(rows, 0), "leases");
    json_decref(rows);
    return leases;
}

static json_t *leases_listed(const struct cluster *cluster, uint32_t node, const char *store) {
    struct process_output output;
    if (store != NULL)
        CTL(&output, cluster, node, "leases", "--json", "--store", store);
    else
        CTL(&output, cluster, node, "leases", "--json");
    return ctl_rows(&output);
}

static void create(struct feature *feature, const char *name) {
    struct feature_store_options options = {
        .size = sizeof options, .max_resident_bytes = 1u << 20, .landing_bytes = 1u << 20};
    CHECK_OK(feature_store_create(feature, name, &options));
}

Test(ending, leases_of_a_dropped_store_are_listed_as_they_are_counted, .timeout = 120) {
    struct cluster cluster;
    struct payload payload;
    struct feature_ref *ref = NULL;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = ini});
    struct feature *feature = cluster_connect(&cluster, 0);
    create(feature, "tmp");
    struct feature_store *store = cluster_open(feature, "tmp", false);
    payload_init(&payload, "s1", 1, 70000);
    CHECK_OK(payload_put(&payload, store, 5000, &ref));
    struct feature_view *view = payload_view(&payload, store, by_ref(ref));
    CHECK_OK(feature_store_drop(feature, "tmp"));
    create(feature, "tmp"); /* anew, and empty */
    json_t *rows = leases_listed(&cluster, 0, NULL);
    CHECK(leases_counted(&cluster, 0) == 1 && json_array_size(rows) == 1, "%zu listed",
          json_array_size(rows));
    json_t *row = json_array_get(rows, 0);
    CHECK(!strcmp(ctl_text(row, "store"), "tmp") && !strcmp(ctl_text(row, "sample_id"), "s1") &&
              json_is_true(json_object_get(row, "dropped")),
          "another lease");
    json_decref(rows);
    rows = leases_listed(&cluster, 0, "tmp");
    CHECK(json_array_size(rows) == 1, "%zu listed", json_array_size(rows));
    json_decref(rows);
    struct process_output output;
    CTL(&output, &cluster, 0, "samples", "--json", "--all");
    rows = ctl_rows(&output);
    row = ctl_row(rows, "sample_id", "s1");
    CHECK(ctl_number(row, "leases") == 1, "its lease is not shown");
    json_decref(rows);
    CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_store_close(store);
    CHECK_OK(feature_store_drop(feature, "tmp"));
    feature_disconnect(feature);
    WAIT_UNTIL(leases_counted(&cluster, 0) == 0, PATIENCE_MS);
    rows = leases_listed(&cluster, 0, NULL);
    CHECK(json_array_size(rows) == 0, "%zu listed", json_array_size(rows));
    json_decref(rows);
    feature_ref_free(ref);
    payload_deinit(&payload);
    cluster_stop(&cluster);
}

/* The reader says consumed and leaves in one breath: the last that a dropped store waits for. */
Test(ending, what_is_consumed_of_a_dropped_store_reaches_its_home, .timeout = 120) {
    struct cluster cluster;
    struct payload payload;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 2, .ini = ini});
    struct feature *home = cluster_connect(&cluster, 0), *admin = cluster_connect(&cluster, 1);
    create(home, "tmp");
    struct feature_store *homes = cluster_open(home, "tmp", false);
    payload_init(&payload, "s1", 1, 70000);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct feature_ref *ref = NULL;
        create(admin, "tmp");
        struct feature *reader = cluster_connect(&cluster, 1);
        struct feature_store *store = cluster_open(reader, "tmp", true);
        CHECK_OK(payload_put(&payload, homes, 5000, &ref));
        struct feature_view *view = payload_view(&payload, store, by_ref(ref));
        CHECK_OK(feature_store_drop(admin, "tmp"));
        CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
        feature_store_close(store);
        feature_disconnect(reader);
        feature_ref_free(ref);
    }
    WAIT_UNTIL(leases_counted(&cluster, 0) == 0 && leases_counted(&cluster, 1) == 0, PATIENCE_MS);
    WAIT_UNTIL(cluster_numbers(&cluster, 0, "tmp").resident == 0, PATIENCE_MS);
    feature_store_close(homes);
    CHECK_OK(feature_store_drop(home, "tmp"));
    feature_disconnect(home);
    feature_disconnect(admin);
    payload_deinit(&payload);
    cluster_stop(&cluster);
}
