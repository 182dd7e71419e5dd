/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clause 12: who may connect, open, read and write. Other users are played by helper
 * processes that drop to an unprivileged uid; without the right to do that those tests are skipped.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/frame.h"
#include "support/checks.h"
#include "support/wire.h"
#include "support/world.h"

#define STRANGER_UID 65534u
#define SECRET       "correct horse battery staple"

static int open_with(struct feature *feature, const char *store, const char *secret,
                     bool read_only) {
    struct feature_open_options options = {.size = sizeof options,
                                           .read_only = read_only,
                                           .secret = secret,
                                           .secret_bytes = secret != NULL ? strlen(secret) : 0};
    struct feature_store *out = NULL;
    int status = feature_store_open(feature, store, &options, &out);
    if (status == FEATURE_OK)
        feature_store_close(out);
    return status;
}

static const struct cluster_options with_secret = {
    .nodes = 1,
    .ini = "[store run]\nsecret_file = %D/run.secret\n",
    .files = {{"run.secret", SECRET "\n"}},
};

Test(contract, c12_access_takes_the_secret, .timeout = 120) {
    struct cluster cluster;
    cluster_start(&cluster, &with_secret);
    struct feature *feature = cluster_connect(&cluster, 0);
    CHECK_STATUS(FEATURE_E_DENIED, open_with(feature, "run", NULL, false));
    CHECK_SAYS("run");
    CHECK_STATUS(FEATURE_E_DENIED, open_with(feature, "run", SECRET "!", false));
    CHECK_STATUS(FEATURE_E_DENIED, open_with(feature, "run", "", true));
    CHECK_OK(open_with(feature, "run", SECRET, false));
    CHECK_OK(open_with(feature, "run", SECRET, true));
    feature_disconnect(feature);
    CHECK(!cluster_log_has(&cluster, 0, SECRET), "the secret is in the log");
    cluster_stop(&cluster);
}

Test(contract, c12_access_to_a_created_store_takes_its_secret, .timeout = 120) {
    struct cluster cluster;
    struct feature_store_options options = {.size = sizeof options,
                                            .max_resident_bytes = 1048576,
                                            .secret = SECRET,
                                            .secret_bytes = strlen(SECRET)};
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1});
    struct feature *feature = cluster_connect(&cluster, 0);
    CHECK_OK(feature_store_create(feature, "mine", &options));
    CHECK_STATUS(FEATURE_E_DENIED,
                 open_with(feature, "mine", "wrong secret, same length!!!", false));
    CHECK_OK(open_with(feature, "mine", SECRET, false));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, open_with(feature, "theirs", SECRET, false));
    CHECK_OK(feature_store_drop(feature, "mine"));
    CHECK_STATUS(FEATURE_E_NOT_FOUND, open_with(feature, "mine", SECRET, false));
    feature_disconnect(feature);
    cluster_stop(&cluster);
}

/* ---- other users ---- */

struct stranger {
    const struct cluster *cluster;
    int connect_status, write_status, read_status;
};

static int act_as_stranger(int channel, void *context) {
    struct stranger *stranger = context;
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = stranger->cluster->nodes[0].socket_path,
                                      .connect_timeout_ms = 2000};
    struct feature *feature = NULL;
    if (setgroups(0, NULL) < 0 || setgid(STRANGER_UID) < 0 || setuid(STRANGER_UID) < 0)
        return 77;
    int status = feature_connect(&options, &feature);
    CHECK_STATUS(stranger->connect_status, status);
    if (status == FEATURE_OK) {
        CHECK_STATUS(stranger->write_status, open_with(feature, "run", NULL, false));
        CHECK_STATUS(stranger->read_status, open_with(feature, "run", NULL, true));
    }
    feature_disconnect(feature);
    channel_say(channel, "done");
    return 0;
}

static void check_stranger(const char *ini, int connect_status, int write_status, int read_status) {
    struct cluster cluster;
    struct process process;
    if (geteuid() != 0)
        cr_skip_test("needs root to act as another user");
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = ini});
    CHECK(chmod(cluster.directory, 0755) == 0, "%s", strerror(errno));
    struct stranger stranger = {&cluster, connect_status, write_status, read_status};
    process_fork(&process, act_as_stranger, &stranger);
    channel_expect(process.channel, "done", 20000);
    process_join(&process, 20000);
    struct feature *feature = cluster_connect(&cluster, 0);
    CHECK_OK(open_with(feature, "run", NULL, false));
    feature_disconnect(feature);
    cluster_stop(&cluster);
}

Test(contract, c12_access_by_socket_mode, .timeout = 120) {
    check_stranger("[store run]\n[local]\nsocket_mode = 0600\n", FEATURE_E_DENIED, 0, 0);
}
Test(contract, c12_access_open_to_all, .timeout = 120) {
    check_stranger("[store run]\n[local]\nsocket_mode = 0666\n", FEATURE_OK, FEATURE_OK,
                   FEATURE_OK);
}
Test(contract, c12_access_by_allow_list, .timeout = 120) {
    check_stranger("[store run]\n[local]\nsocket_mode = 0666\nallow_uids = 0\n", FEATURE_E_DENIED,
                   0, 0);
}
Test(contract, c12_access_by_list_of_the_store, .timeout = 120) {
    check_stranger("[local]\nsocket_mode = 0666\n[store run]\nallow_uids = 0\n", FEATURE_OK,
                   FEATURE_E_DENIED, FEATURE_E_DENIED);
}
Test(contract, c12_access_to_read_only, .timeout = 120) {
    check_stranger("[local]\nsocket_mode = 0666\n[store run]\nwriter_uids = 0\n", FEATURE_OK,
                   FEATURE_E_DENIED, FEATURE_OK);
}

static int steer_as_stranger(int channel, void *context) {
    const struct cluster *cluster = context;
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = cluster->nodes[0].socket_path};
    struct feature_store_options store = {.size = sizeof store};
    struct feature *feature = NULL;
    if (setgroups(0, NULL) < 0 || setgid(STRANGER_UID) < 0 || setuid(STRANGER_UID) < 0)
        return 77;
    CHECK_OK(feature_connect(&options, &feature));
    CHECK_STATUS(FEATURE_E_DENIED, feature_store_create(feature, "new", &store));
    CHECK_STATUS(FEATURE_E_DENIED, feature_store_drop(feature, "run"));
    feature_disconnect(feature);
    channel_say(channel, "done");
    return 0;
}

Test(contract, c12_access_to_steering, .timeout = 120) {
    struct cluster cluster;
    struct process process;
    if (geteuid() != 0)
        cr_skip_test("needs root to act as another user");
    cluster_start(&cluster, &(struct cluster_options){
                                .nodes = 1, .ini = "[store run]\n[local]\nsocket_mode = 0666\n"});
    CHECK(chmod(cluster.directory, 0755) == 0, "%s", strerror(errno));
    process_fork(&process, steer_as_stranger, &cluster);
    channel_expect(process.channel, "done", 20000);
    process_join(&process, 20000);
    cluster_stop(&cluster);
}

/* ---- what a read-only session cannot do ---- */

CONTRACT(c12_a_reader_cannot_write, "[store run]\n") {
    struct payload payload;
    struct feature_reservation *reservation = NULL;
    payload_init(&payload, "s1", 1, 1048576);
    CHECK_STATUS(FEATURE_E_DENIED, payload_put(&payload, world->consumer, 0, NULL));
    CHECK_STATUS(FEATURE_E_DENIED,
                 feature_reserve(world->consumer, &payload.sample, 0, &reservation));
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    struct feature_view *view = payload_view(&payload, world->consumer, by_id("s1"));
    void *page = (void *)((uintptr_t)feature_view_data(view, 0) & ~(uintptr_t)4095);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
          "a read-only session made its mapping writable");
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    world_settle(world);
    payload_deinit(&payload);
}

/* ---- stores a session has not opened ---- */

static Fb__Status whole_status(Fb__ClientReply *reply) {
    Fb__Status status = reply->status;
    if (status == FB__STATUS__OK && reply->get != NULL &&
        reply->result_case == FB__CLIENT_REPLY__RESULT_GET)
        status = reply->get->items[0]->status;
    fb__client_reply__free_unpacked(reply, NULL);
    return status;
}

Test(contract, c12_access_only_to_stores_that_were_opened, .timeout = 120) {
    struct cluster cluster;
    struct wire owner, intruder;
    cluster_start(&cluster,
                  &(struct cluster_options){.nodes = 1, .ini = "[store run]\n[store other]\n"});
    wire_connect(&owner, cluster.nodes[0].socket_path);
    wire_connect(&intruder, cluster.nodes[0].socket_path);
    wire_hello(&owner, 1);
    wire_hello(&intruder, 2);
    uint32_t run = wire_open(&owner, "run"), other = wire_open(&owner, "other");
    CHECK(whole_status(wire_put(&owner, run, "s1", 1, "bytes", 5)) == FB__STATUS__OK,
          "put refused");

    for (uint32_t handle = 0; handle < 8; handle++) {
        Fb__Status status = whole_status(wire_get(&intruder, handle, "s1", 0));
        CHECK(status == FB__STATUS__DENIED || status == FB__STATUS__INVALID,
              "handle %u gave status %d", handle, status);
    }
    CHECK(whole_status(wire_get(&owner, other, "s1", 0)) == FB__STATUS__NOT_FOUND,
          "found in another store");

    /* nor can a lease be ended through another session or store */
    Fb__ClientReply *reply = wire_get(&owner, run, "s1", 0);
    CHECK(reply->status == FB__STATUS__OK && reply->get->items[0]->status == FB__STATUS__OK,
          "get refused");
    uint64_t hi = reply->get->items[0]->lease_hi, lo = reply->get->items[0]->lease_lo;
    fb__client_reply__free_unpacked(reply, NULL);
    wire_release(&owner, other, hi, lo, true);
    uint32_t theirs = wire_open(&intruder, "other");
    wire_release(&intruder, theirs, hi, lo, true);
    CHECK(cluster_numbers(&cluster, 0, "run").leases == 1, "a stranger ended the lease");
    CHECK(wire_release(&owner, run, hi, lo, true) == FB__STATUS__OK, "release refused");
    CHECK(cluster_numbers(&cluster, 0, "run").resident_bytes == 0, "not consumed");
    wire_close(&owner);
    wire_close(&intruder);
    cluster_await_empty(&cluster, 0);
    cluster_stop(&cluster);
}

/* ---- brokers ---- */

Test(contract, c12_brokers_with_different_secrets_do_not_talk, .timeout = 120) {
    struct cluster cluster;
    struct payload payload;
    struct feature_ref *ref = NULL;
    cluster_start(&cluster,
                  &(struct cluster_options){.nodes = 2,
                                            .ini = "[store run]\n",
                                            .secret_of = {NULL, "some other secret of 27 bytes\n"},
                                            .unconnected = true});
    struct feature *near = cluster_connect(&cluster, 0), *far = cluster_connect(&cluster, 1);
    struct feature_store *producer = cluster_open(near, "run", false),
                         *consumer = cluster_open(far, "run", true);
    payload_init(&payload, "s1", 2, 1048576);
    CHECK_OK(payload_put(&payload, producer, 0, &ref));
    CHECK_STATUS(FEATURE_E_UNAVAILABLE, world_try_get(consumer, by_ref(ref), 3000));
    CHECK(cluster_numbers(&cluster, 0, "run").leases == 0, "a lease was given");
    CHECK(cluster_numbers(&cluster, 1, "run").landing_used_bytes == 0, "bytes landed");
    payload_check_get(&payload, producer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    CHECK_OK(feature_drain(near, 20000));
    feature_ref_free(ref);
    payload_deinit(&payload);
    feature_disconnect(far);
    feature_disconnect(near);
    cluster_stop(&cluster);
}
