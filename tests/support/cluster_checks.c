/* SPDX-License-Identifier: Apache-2.0
 *
 * What a cluster is asked about itself, and its end.
 */
#include "support/cluster.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admin.h"
#include "support/checks.h"

#define SETTLE_MS 60000u
#define END_MS    60000u

static struct feature *probe(struct cluster *cluster, uint32_t index) {
    struct node *node = &cluster->nodes[index];
    if (node->probe == NULL)
        node->probe = cluster_connect(cluster, index);
    return node->probe;
}

static void drop_probe(struct node *node) {
    feature_disconnect(node->probe);
    node->probe = NULL;
}

static Fb__ClientReply *ask(struct cluster *cluster, uint32_t node,
                            const Fb__ClientRequest *request) {
    Fb__ClientReply *reply = NULL;
    CHECK_OK(feature_admin_call(probe(cluster, node), request, SETTLE_MS, &reply));
    return reply;
}

struct feature_health cluster_health(struct cluster *cluster, uint32_t node) {
    struct feature_health health = {.size = sizeof health};
    CHECK_OK(feature_health(probe(cluster, node), &health));
    return health;
}

static struct store_numbers numbers_of(const Fb__StoreInfo *info) {
    return (struct store_numbers){
        .resident_bytes = info->resident_bytes,
        .landing_used_bytes = info->landing_used_bytes,
        .keeps_copies = info->settings != NULL && info->settings->policy == FB__POLICY__RETAIN,
        .planned = info->planned,
        .resident = info->resident,
        .retired = info->retired,
        .landing = info->landing,
        .leases = info->leases,
        .reservations = info->reservations,
        .put_waiters = info->put_waiters,
        .get_waiters = info->get_waiters,
        .puts = info->puts,
        .gets = info->gets,
        .max_resident_bytes = info->settings != NULL ? info->settings->max_resident_bytes : 0,
    };
}

static Fb__ClientReply *ask_stores(struct cluster *cluster, uint32_t node) {
    Fb__Stores stores = FB__STORES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    return ask(cluster, node, &request);
}

struct store_numbers cluster_numbers(struct cluster *cluster, uint32_t node, const char *store) {
    Fb__ClientReply *reply = ask_stores(cluster, node);
    struct store_numbers numbers = {0};
    bool found = false;
    for (size_t i = 0; i < reply->stores->n_stores; i++) {
        if (strcmp(reply->stores->stores[i]->store, store) != 0)
            continue;
        numbers = numbers_of(reply->stores->stores[i]);
        found = true;
    }
    fb__client_reply__free_unpacked(reply, NULL);
    CHECK(found, "node %s has no store %s", cluster->nodes[node].name, store);
    return numbers;
}

static struct store_numbers sum(struct store_numbers a, struct store_numbers b) {
    return (struct store_numbers){
        .resident_bytes = a.resident_bytes + b.resident_bytes,
        .landing_used_bytes = a.landing_used_bytes + (b.keeps_copies ? 0 : b.landing_used_bytes),
        .planned = a.planned + b.planned,
        .leases = a.leases + b.leases,
        .reservations = a.reservations + b.reservations,
        .put_waiters = a.put_waiters + b.put_waiters,
        .get_waiters = a.get_waiters + b.get_waiters,
    };
}

/* Empty: "". Else what is left, in words. */
static const char *left_over(struct cluster *cluster, uint32_t node, bool bytes_too) {
    static char words[256];
    struct store_numbers all = {0};
    Fb__ClientReply *reply = ask_stores(cluster, node);
    for (size_t i = 0; i < reply->stores->n_stores; i++)
        all = sum(all, numbers_of(reply->stores->stores[i]));
    fb__client_reply__free_unpacked(reply, NULL);
    struct feature_health health = cluster_health(cluster, node);
    uint64_t busy = all.planned + all.leases + all.reservations + all.put_waiters +
                    all.get_waiters + health.leases + health.release_pending;
    uint64_t bytes = all.resident_bytes + all.landing_used_bytes + health.resident_bytes;
    words[0] = '\0';
    if (busy != 0 || (bytes_too && bytes != 0))
        snprintf(words, sizeof words,
                 "%" PRIu64 " bytes resident, %" PRIu64 " landed, %" PRIu64 " planned, %" PRIu64
                 " leases (health: %" PRIu64 "), %" PRIu64 " reservations, %" PRIu64 "+%" PRIu64
                 " waiters, %" PRIu64 " releases pending",
                 all.resident_bytes, all.landing_used_bytes, all.planned, all.leases, health.leases,
                 all.reservations, all.put_waiters, all.get_waiters, health.release_pending);
    return words;
}

static void await(struct cluster *cluster, uint32_t node, bool bytes_too) {
    uint64_t end_ms = check_now_ms() + SETTLE_MS;
    const char *words;
    while (*(words = left_over(cluster, node, bytes_too)) != '\0') {
        CHECK(check_now_ms() < end_ms, "node %s still has %s", cluster->nodes[node].name, words);
        check_pause(10);
    }
}

void cluster_await_empty(struct cluster *cluster, uint32_t node) {
    await(cluster, node, true);
}

void cluster_await_idle(struct cluster *cluster, uint32_t node) {
    await(cluster, node, false);
}

static bool peer_connected(struct cluster *cluster, uint32_t node, const char *peer) {
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    Fb__ClientReply *reply = ask(cluster, node, &request);
    bool connected = false;
    for (size_t i = 0; i < reply->nodes->n_nodes; i++)
        connected |= strcmp(reply->nodes->nodes[i]->node, peer) == 0 &&
                     strcmp(reply->nodes->nodes[i]->state, "up") == 0;
    fb__client_reply__free_unpacked(reply, NULL);
    return connected;
}

void cluster_await_peer(struct cluster *cluster, uint32_t node, uint32_t peer) {
    WAIT_UNTIL(peer_connected(cluster, node, cluster->nodes[peer].name), SETTLE_MS);
}

bool cluster_log_has(const struct cluster *cluster, uint32_t node, const char *text) {
    char line[1024];
    FILE *file = fopen(cluster->nodes[node].log_path, "re");
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = strstr(line, text) != NULL;
    if (file != NULL)
        fclose(file);
    return found;
}

/* ---- signals and the end ---- */

/* A broker built with a sanitizer reports into its log, which goes with the directory. */
static void check_sanitizers(const struct node *node) {
    static const char *const marks[] = {"ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
                                        "runtime error: "};
    char line[1024];
    bool found = false;
    FILE *file = fopen(node->log_path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
            found |= strstr(line, marks[i]) != NULL;
        if (found)
            fprintf(stderr, "%s| %s", node->name, line);
    }
    if (file != NULL)
        fclose(file);
    CHECK(!found, "node %s: a sanitizer's report", node->name);
}

void cluster_node_kill(struct cluster *cluster, uint32_t index) {
    struct node *node = &cluster->nodes[index];
    drop_probe(node);
    process_kill(&node->process);
    check_sanitizers(node);
}

void cluster_node_terminate(struct cluster *cluster, uint32_t index) {
    struct node *node = &cluster->nodes[index];
    int status = 0;
    drop_probe(node);
    process_signal(&node->process, SIGTERM);
    bool ended = process_wait(&node->process, END_MS, &status);
    if (!ended)
        process_kill(&node->process);
    check_sanitizers(node);
    CHECK(ended, "node %s does not end on SIGTERM", node->name);
    CHECK(status == 0, "node %s ended with wait status 0x%x", node->name, status);
}

void cluster_node_freeze(struct cluster *cluster, uint32_t node) {
    int status = 0;
    process_signal(&cluster->nodes[node].process, SIGSTOP);
    CHECK(waitpid(cluster->nodes[node].process.pid, &status, WUNTRACED) > 0 && WIFSTOPPED(status),
          "not stopped: %s", strerror(errno));
}

void cluster_node_thaw(struct cluster *cluster, uint32_t node) {
    process_signal(&cluster->nodes[node].process, SIGCONT);
}

static int remove_entry(const char *path, const struct stat *facts, int type, struct FTW *where) {
    (void)facts, (void)type, (void)where;
    return remove(path);
}

void cluster_stop(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct node *node = &cluster->nodes[i];
        drop_probe(node);
        if (node->process.pid == 0)
            continue;
        WAIT_UNTIL(check_fd_count(node->process.pid) <= node->fd_baseline, SETTLE_MS);
    }
    for (uint32_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].process.pid != 0)
            cluster_node_terminate(cluster, i);
    if (cluster->etcd.count != 0)
        cluster_etcd_stop(cluster);
    CHECK(check_child_count() == 0, "%u children are left", check_child_count());
    CHECK(check_fd_count(0) == cluster->own_fds, "%u fds, %u at the start", check_fd_count(0),
          cluster->own_fds);
    CHECK(nftw(cluster->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0, "%s",
          strerror(errno));
}
