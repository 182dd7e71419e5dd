/* SPDX-License-Identifier: Apache-2.0
 *
 * A member: down (process.pid 0) -> running <-> frozen -> down. The loopback address is made of the
 * test's own pid (127.192.0.0/10), so that tests that run side by side never meet on a port. The
 * data lies in shared memory where there is some: what is tested is the protocol, not the disk.
 */
#include "support/etcd_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/checks.h"

#define READY_MS 60000u
#define CTL_MS   30000u

/* ---- one member ---- */

static void describe(struct etcd_server *server, uint32_t index) {
    struct etcd_member *member = &server->members[index];
    uint32_t pid = (uint32_t)getpid();
    uint32_t port = 2379 + 10 * index;
    member->client_port = (uint16_t)port;
    snprintf(member->name, sizeof member->name, "m%u", index);
    snprintf(member->host, sizeof member->host, "127.%u.%u.%u", 192 + (pid >> 16) % 64,
             pid >> 8 & 255, pid & 255);
    snprintf(member->client_url, sizeof member->client_url, "http%s://%s:%u",
             server->tls ? "s" : "", member->host, port);
    snprintf(member->health_url, sizeof member->health_url, "http://%s:%u", member->host, port + 2);
    snprintf(member->peer_url, sizeof member->peer_url, "http://%s:%u", member->host, port + 1);
    snprintf(member->data_path, sizeof member->data_path, "%s/%s", server->directory, member->name);
    snprintf(member->log_path, sizeof member->log_path, "%s/%s.log", server->directory,
             member->name);
}

static void spawn(struct etcd_server *server, uint32_t index) {
    struct etcd_member *member = &server->members[index];
    char initial[256] = "";
    for (uint32_t i = 0; i < server->count; i++)
        snprintf(initial + strlen(initial), sizeof initial - strlen(initial), "%s%s=%s",
                 i ? "," : "", server->members[i].name, server->members[i].peer_url);
    const char *argv[] = {"/usr/bin/etcd",
                          "--name",
                          member->name,
                          "--data-dir",
                          member->data_path,
                          "--listen-client-urls",
                          member->client_url,
                          "--advertise-client-urls",
                          member->client_url,
                          "--listen-peer-urls",
                          member->peer_url,
                          "--initial-advertise-peer-urls",
                          member->peer_url,
                          "--initial-cluster",
                          initial,
                          "--listen-metrics-urls",
                          member->health_url,
                          "--log-level",
                          "warn",
                          server->tls ? "--client-cert-auth" : NULL,
                          "--trusted-ca-file",
                          server->ca_path,
                          "--cert-file",
                          server->cert_path,
                          "--key-file",
                          server->key_path,
                          NULL};
    process_spawn(&member->process, argv, member->log_path);
}

static bool is_healthy(const struct etcd_member *member) {
    static const char request[] = "GET /health HTTP/1.0\r\n\r\n";
    uint16_t port = (uint16_t)(member->client_port + 2);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 5};
    char answer[1024] = "";
    inet_pton(AF_INET, member->host, &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t used = 0;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0)
        for (ssize_t got; (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0;)
            used += got;
    close(fd);
    return strstr(answer, "\"health\":\"true\"") != NULL;
}

void etcd_server_await_healthy(struct etcd_server *server, uint32_t index) {
    WAIT_UNTIL(is_healthy(&server->members[index]), READY_MS);
}

void etcd_server_kill(struct etcd_server *server, uint32_t member) {
    process_kill(&server->members[member].process);
}

void etcd_server_restart(struct etcd_server *server, uint32_t member) {
    spawn(server, member);
    etcd_server_await_healthy(server, member);
}

void etcd_server_freeze(struct etcd_server *server, uint32_t member) {
    process_signal(&server->members[member].process, SIGSTOP);
}

void etcd_server_thaw(struct etcd_server *server, uint32_t member) {
    process_signal(&server->members[member].process, SIGCONT);
}

/* ---- all of them ---- */

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *where) {
    (void)facts, (void)kind, (void)where;
    return remove(path);
}

static void remove_tree(const char *path) {
    CHECK(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, "%s: %s", path, strerror(errno));
}

void etcd_server_restart_empty(struct etcd_server *server) {
    remove_tree(server->members[0].data_path);
    etcd_server_restart(server, 0);
}

static void openssl(const char *const argv[]) {
    struct process_output output;
    process_run(&output, argv, CTL_MS);
    CHECK(output.status == 0, "openssl: %s", output.err);
    process_output_deinit(&output);
}

static void snapshot_path(const struct etcd_server *server, char out[96]) {
    snprintf(out, 96, "%s/snapshot", server->directory);
}

void etcd_server_back_up(struct etcd_server *server) {
    char path[96];
    snapshot_path(server, path);
    remove(path);
    free(etcd_server_ctl(server, (const char *[]){"snapshot", "save", path, NULL}));
}

void etcd_server_restart_restored(struct etcd_server *server) {
    struct etcd_member *member = &server->members[0];
    char path[96], initial[96];
    snapshot_path(server, path);
    snprintf(initial, sizeof initial, "%s=%s", member->name, member->peer_url);
    remove_tree(member->data_path);
    free(etcd_server_ctl(
        server, (const char *[]){"snapshot", "restore", path, "--name", member->name, "--data-dir",
                                 member->data_path, "--initial-cluster", initial,
                                 "--initial-advertise-peer-urls", member->peer_url, NULL}));
    etcd_server_restart(server, 0);
}

/* One authority, and one certificate of it for both ends. */
static void make_certificates(struct etcd_server *server) {
    char ca_key[96], name[64];
    snprintf(ca_key, sizeof ca_key, "%s/ca.key", server->directory);
    snprintf(server->ca_path, sizeof server->ca_path, "%s/ca.pem", server->directory);
    snprintf(server->cert_path, sizeof server->cert_path, "%s/cert.pem", server->directory);
    snprintf(server->key_path, sizeof server->key_path, "%s/key.pem", server->directory);
    snprintf(name, sizeof name, "subjectAltName=IP:%s,IP:127.0.0.1", server->members[0].host);
    openssl((const char *[]){"/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                             "/CN=authority", "-keyout", ca_key, "-out", server->ca_path, NULL});
    openssl((const char *[]){"/usr/bin/openssl",
                             "req",
                             "-x509",
                             "-newkey",
                             "ec",
                             "-pkeyopt",
                             "ec_paramgen_curve:prime256v1",
                             "-nodes",
                             "-days",
                             "2",
                             "-subj",
                             "/CN=etcd",
                             "-addext",
                             name,
                             "-CA",
                             server->ca_path,
                             "-CAkey",
                             ca_key,
                             "-keyout",
                             server->key_path,
                             "-out",
                             server->cert_path,
                             NULL});
}

void etcd_server_start(struct etcd_server *server, uint32_t members, bool tls) {
    *server = (struct etcd_server){.count = members, .tls = tls};
    const char *ram = getenv("FEATURED_TEST_RAM"); /* scripts/run-tests removes it at the end */
    if (!ram)
        ram = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(server->directory, sizeof server->directory, "%s/featured-etcd-XXXXXX", ram);
    CHECK(mkdtemp(server->directory) != NULL, "%s: %s", server->directory, strerror(errno));
    for (uint32_t i = 0; i < members; i++)
        describe(server, i);
    if (tls)
        make_certificates(server);
    for (uint32_t i = 0; i < members; i++)
        spawn(server, i);
    for (uint32_t i = 0; i < members; i++)
        etcd_server_await_healthy(server, i);
}

void etcd_server_stop(struct etcd_server *server) {
    for (uint32_t i = 0; i < server->count; i++)
        process_kill(&server->members[i].process);
    remove_tree(server->directory);
}

void etcd_server_endpoints(const struct etcd_server *server, char out[256]) {
    out[0] = '\0';
    for (uint32_t i = 0; i < server->count; i++)
        snprintf(out + strlen(out), 256 - strlen(out), "%s%s", i ? "," : "",
                 server->members[i].client_url);
}

static char *run_ctl(const char *endpoints, const char *const arguments[]) {
    const char *argv[16] = {"/usr/bin/etcdctl", "--endpoints", endpoints};
    struct process_output output;
    size_t count = 3;
    for (; *arguments != NULL && count < 15; arguments++)
        argv[count++] = *arguments;
    setenv("ETCDCTL_API", "3", 1);
    process_run(&output, argv, CTL_MS);
    CHECK(output.status == 0, "etcdctl %s: status %d: %s%s", argv[3], output.status, output.out,
          output.err);
    free(output.err);
    return output.out;
}

char *etcd_server_ctl(struct etcd_server *server, const char *const arguments[]) {
    char endpoints[256];
    etcd_server_endpoints(server, endpoints);
    return run_ctl(endpoints, arguments);
}

/* "URL, ID, version, size, is leader, ..." */
static bool leads(const struct etcd_member *member) {
    char *text = run_ctl(member->client_url, (const char *[]){"endpoint", "status", NULL});
    bool yes = strstr(text, "B, true,") != NULL;
    free(text);
    return yes;
}

uint32_t etcd_server_leader(struct etcd_server *server) {
    uint64_t end_ms = check_now_ms() + READY_MS; /* an election may be under way */
    for (uint32_t i = 0;; i = (i + 1) % server->count) {
        if (process_running(&server->members[i].process) && leads(&server->members[i]))
            return i;
        CHECK(check_now_ms() < end_ms, "%u members and none leads", server->count);
    }
}
