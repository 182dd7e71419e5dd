/* SPDX-License-Identifier: Apache-2.0
 *
 * A node: down (process.pid 0) -> running <-> frozen -> down. The loopback address is made of the
 * test's own pid (127.64.0.0/10), so that tests that run side by side never meet on a port.
 *
 * FEATURED_TEST_TRANSPORT=rdma with FEATURED_TEST_ADDRESS, of an RDMA rail of this machine, has the
 * brokers reach each other so (tests/vm/run).
 */
#include "support/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/checks.h"

#define READY_MS 60000u
/* Connections that a broker may have later on: to etcd now and then, with peers not met yet. */
#define ETCD_FDS_MAX 8u
#define PEER_FDS_MAX 16u

static const char common_ini[] =
    "[memory]\nmax_resident_bytes = 512MiB\nprefault = off\n"
    "[stores]\nmax_resident_bytes = 32MiB\nlanding_bytes = 32MiB\nmax_samples = 4096\n"
    "[daemon]\nlog_level = info\ndrain_timeout = 5s\ngc_interval = 100ms\n"
    "[peers]\npeer_timeout = 2s\nping_interval = 200ms\nreconnect_max = 500ms\n";

/* ---- files ---- */

static void write_file(const char *path, const char *text, mode_t mode) {
    FILE *file = fopen(path, "we");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    CHECK(fputs(text, file) >= 0 && fchmod(fileno(file), mode) == 0 && fclose(file) == 0, "%s: %s",
          path, strerror(errno));
}

static void write_config(struct cluster *cluster, uint32_t index,
                         const struct cluster_options *options) {
    struct node *node = &cluster->nodes[index];
    const char *secret = options->secret_of[index];
    char text[512];
    snprintf(text, sizeof text, "%s/%s.cluster", cluster->directory, node->name);
    write_file(text, secret != NULL ? secret : "the common secret of all nodes\n", 0600);
    config_text_add(&node->ini, common_ini, cluster->directory);
    snprintf(text, sizeof text, "[node]\nname = %s\n[local]\nsocket = %%D/%s.sock\n", node->name,
             node->name);
    config_text_add(&node->ini, text, cluster->directory);
    const char *transport = getenv("FEATURED_TEST_TRANSPORT");
    snprintf(text, sizeof text,
             "[peers]\nlisten = %s\ncluster_secret_file = %%D/%s.cluster\ntransport = %s\n",
             node->address, node->name, transport != NULL ? transport : "auto");
    config_text_add(&node->ini, cluster->count > 1 ? text : NULL, cluster->directory);
    for (uint32_t i = 0; i < cluster->count && options->etcd_members == 0; i++) {
        snprintf(text, sizeof text, "[peer %s]\naddress = %s\n", cluster->nodes[i].name,
                 cluster->nodes[i].address);
        config_text_add(&node->ini, i != index ? text : NULL, cluster->directory);
    }
    if (options->etcd_members != 0)
        cluster_etcd_configure(cluster, index, options);
    if (transport != NULL) /* an emulated machine: everything takes its time */
        config_text_add(&node->ini, "[peers]\npeer_timeout = 9s\n", cluster->directory);
    config_text_add(&node->ini, options->ini, cluster->directory);
    config_text_add(&node->ini, options->ini_of[index], cluster->directory);
    config_text_write(&node->ini, node->config_path);
}

void cluster_reconfigure(struct cluster *cluster, uint32_t index, const char *ini) {
    struct node *node = &cluster->nodes[index];
    config_text_add(&node->ini, ini, cluster->directory);
    config_text_write(&node->ini, node->config_path);
}

void cluster_program(const char *name, char path_out[4096]) {
    ssize_t bytes = readlink("/proc/self/exe", path_out, 4000);
    CHECK(bytes > 0, "no /proc/self/exe");
    path_out[bytes] = '\0';
    for (int i = 0; i < 2; i++) /* build/tests/e2e -> build */
        *strrchr(path_out, '/') = '\0';
    strncat(path_out, "/", 2);
    strncat(path_out, name, 64);
    CHECK(access(path_out, X_OK) == 0, "%s: %s", path_out, strerror(errno));
}

/* ---- start ---- */

static uint16_t free_port(in_addr_t address) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    socklen_t name_bytes = sizeof name;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    CHECK(fd >= 0, "%s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(bind(fd, (struct sockaddr *)&name, name_bytes) == 0, "bind: %s", strerror(errno));
    CHECK(getsockname(fd, (struct sockaddr *)&name, &name_bytes) == 0, "%s", strerror(errno));
    close(fd);
    return ntohs(name.sin_port);
}

static void name_nodes(struct cluster *cluster) {
    uint32_t pid = (uint32_t)getpid();
    char directory[sizeof cluster->directory];
    memcpy(directory, cluster->directory, sizeof directory);
    const char *given = getenv("FEATURED_TEST_ADDRESS");
    struct in_addr address = {.s_addr = htonl((127u << 24) | (64u << 16) | (pid & 0x3fffffu))};
    CHECK(given == NULL || inet_aton(given, &address), "FEATURED_TEST_ADDRESS = %s", given);
    uint16_t first_port = free_port(address.s_addr);
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct node *node = &cluster->nodes[i];
        node->name[0] = (char)('a' + i);
        snprintf(node->socket_path, sizeof node->socket_path, "%s/%c.sock", directory,
                 'a' + (int)i);
        snprintf(node->config_path, sizeof node->config_path, "%s/%c.conf", directory,
                 'a' + (int)i);
        snprintf(node->log_path, sizeof node->log_path, "%s/%c.log", directory, 'a' + (int)i);
        snprintf(node->address, sizeof node->address, "%s:%u", inet_ntoa(address),
                 (first_port - 1024u + i) % 64000u + 1024u);
    }
}

static void show_log(const struct node *node) {
    char line[512];
    FILE *file = fopen(node->log_path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        fprintf(stderr, "%s| %s", node->name, line);
    if (file != NULL)
        fclose(file);
}

static struct feature *try_connect(const struct node *node) {
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = node->socket_path,
                                      .client_name = "test",
                                      .connect_timeout_ms = 1000};
    struct feature *feature = NULL;
    return feature_connect(&options, &feature) == FEATURE_OK ? feature : NULL;
}

void cluster_node_start(struct cluster *cluster, uint32_t index) {
    struct node *node = &cluster->nodes[index];
    char program[4096];
    cluster_program("featured", program);
    process_spawn(&node->process,
                  (const char *[]){program, "--config", node->config_path,
                                   cluster->supervised ? "--supervise" : NULL, NULL},
                  node->log_path);
    uint64_t end_ms = check_now_ms() + READY_MS;
    struct feature *feature = NULL;
    while ((feature = try_connect(node)) == NULL) {
        bool hopeless = !process_running(&node->process) || check_now_ms() > end_ms;
        if (hopeless)
            show_log(node);
        CHECK(!hopeless, "node %s %s: %s", node->name,
              check_now_ms() > end_ms ? "is not ready" : "ended", feature_last_error());
        check_pause(10);
    }
    feature_disconnect(feature);
}

/* Once the broker has seen our last connection go: a count that does not change for 50 ms. */
static uint32_t settled_fd_count(struct node *node) {
    feature_disconnect(node->probe);
    node->probe = NULL;
    uint32_t count = check_fd_count(node->process.pid);
    for (uint32_t steady = 0; steady < 5; steady++) {
        check_pause(10);
        uint32_t now = check_fd_count(node->process.pid);
        steady = now == count ? steady : 0;
        count = now;
    }
    return count;
}

void cluster_start(struct cluster *cluster, const struct cluster_options *options) {
    *cluster = (struct cluster){
        .count = options->nodes, .supervised = options->supervised, .own_fds = check_fd_count(0)};
    CHECK(cluster->count >= 1 && cluster->count <= CLUSTER_NODES_MAX, "%u nodes", cluster->count);
    snprintf(cluster->directory, sizeof cluster->directory, "/tmp/featured-test-XXXXXX");
    CHECK(mkdtemp(cluster->directory) != NULL, "%s", strerror(errno));
    for (uint32_t i = 0; i < 4 && options->files[i].name != NULL; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", cluster->directory, options->files[i].name);
        write_file(path, options->files[i].text, 0600);
    }
    name_nodes(cluster);
    if (options->etcd_members != 0)
        cluster_etcd_start(cluster, options);
    for (uint32_t i = 0; i < cluster->count; i++)
        write_config(cluster, i, options);
    for (uint32_t i = 0; i < cluster->count; i++)
        cluster_node_start(cluster, i);
    bool connected = !options->unconnected && !options->etcd_late;
    for (uint32_t i = 0; i < cluster->count && connected; i++)
        for (uint32_t peer = 0; peer < cluster->count; peer++)
            if (peer != i)
                cluster_await_peer(cluster, i, peer);
    for (uint32_t i = 0; i < cluster->count; i++)
        cluster->nodes[i].fd_baseline = settled_fd_count(&cluster->nodes[i]) +
                                        (options->etcd_members != 0 ? ETCD_FDS_MAX : 0) +
                                        (connected ? 0 : PEER_FDS_MAX);
}

/* ---- clients ---- */

struct feature *cluster_connect(const struct cluster *cluster, uint32_t node) {
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = cluster->nodes[node].socket_path,
                                      .client_name = "test",
                                      .connect_timeout_ms = 10000};
    struct feature *feature = NULL;
    CHECK_OK(feature_connect(&options, &feature));
    return feature;
}

struct feature_store *cluster_open(struct feature *feature, const char *store, bool read_only) {
    struct feature_open_options options = {.size = sizeof options, .read_only = read_only};
    struct feature_store *out = NULL;
    CHECK_OK(feature_store_open(feature, store, &options, &out));
    return out;
}
