/* SPDX-License-Identifier: Apache-2.0
 *
 * A broker is running from start_one() until brokers_stop(): pid > 0, pidfd open. Ports are taken
 * by binding port 0 and letting go again: the one moment in which somebody else could take them
 * shows as a broker that does not start.
 */
#include "bench/brokers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "admin.h"
#include "bench/cpus.h"
#include "bench/rounds.h"

#define START_TIMEOUT_NS  60000000000ull /* prefaulting GiBs of fresh memory takes seconds */
#define STOP_TIMEOUT_MS   15000
#define ADMIN_DEADLINE_MS 5000u
#define LOOK_AGAIN_MS     20u
#define LOG_TAIL_BYTES    2000

static int write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return bench_fail("%s: %s", path, strerror(errno));
    const bool written = fputs(text, file) >= 0 && fchmod(fileno(file), 0600) == 0;
    if (fclose(file) != 0 || !written)
        return bench_fail("%s: %s", path, strerror(errno));
    return 0;
}

static int write_secret(const struct bench *bench, char *path, size_t room) {
    unsigned char random[16];
    char text[2 * sizeof random + 2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return bench_fail("getrandom: %s", strerror(errno));
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(text + 2 * i, 4, "%02x\n", random[i]);
    snprintf(path, room, "%s/cluster.secret", bench->directory);
    return write_file(path, text);
}

/* A loopback port that is free now; 0 with the reason written. */
static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) {
        bench_fail("a free port: %s", strerror(errno));
        address.sin_port = 0;
    }
    if (fd >= 0)
        close(fd);
    return ntohs(address.sin_port);
}

static int place(struct broker *broker, const struct bench *bench, size_t index) {
    static unsigned serial;
    *broker = (struct broker){.node = {(char)('a' + index), '\0'}, .port = free_port()};
    if (broker->port == 0)
        return -1;
    snprintf(broker->directory, sizeof broker->directory, "%s/%u%s", bench->directory, serial++,
             broker->node);
    if (mkdir(broker->directory, 0700) != 0)
        return bench_fail("%s: %s", broker->directory, strerror(errno));
    snprintf(broker->socket_path, sizeof broker->socket_path, "%s/socket", broker->directory);
    snprintf(broker->config_path, sizeof broker->config_path, "%s/conf", broker->directory);
    snprintf(broker->log_path, sizeof broker->log_path, "%s/log", broker->directory);
    return 0;
}

/* directory NULL: each is told who the others are. */
static int write_config(const struct brokers *brokers, size_t index, const char *secret_path,
                        const char *settings, const char *directory) {
    const struct broker *broker = &brokers->list[index];
    char peers[256] = "", text[8192];
    for (size_t i = 0; i < brokers->count; i++)
        if (i != index && directory == NULL)
            snprintf(peers, sizeof peers, "[peer %s]\naddress = 127.0.0.1:%u\n",
                     brokers->list[i].node, brokers->list[i].port);
    const int bytes = snprintf(text, sizeof text,
                               "[node]\nname = %s\n[local]\nsocket = %s\nsocket_mode = 0600\n"
                               "[peers]\nlisten = 127.0.0.1:%u\ncluster_secret_file = %s\n%s%s%s",
                               broker->node, broker->socket_path, broker->port, secret_path, peers,
                               settings, directory != NULL ? directory : "");
    if (bytes >= (int)sizeof text)
        return bench_fail("the settings of a broker are longer than %zu bytes", sizeof text);
    return write_file(broker->config_path, text);
}

static void exec_broker(const struct broker *broker, const struct bench *bench, pid_t parent) {
    const int log = open(broker->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    cpus_take_place(broker->node[0] == 'a' ? CPU_NODE_A : CPU_NODE_B);
    if (getppid() == parent && log >= 0 && dup2(log, STDOUT_FILENO) >= 0 &&
        dup2(log, STDERR_FILENO) >= 0)
        execl(bench->program, "featured", "--config", broker->config_path, (char *)NULL);
    _exit(127);
}

static int start_one(struct broker *broker, const struct bench *bench) {
    const pid_t parent = getpid();
    broker->pid = fork();
    if (broker->pid == 0)
        exec_broker(broker, bench, parent);
    if (broker->pid < 0)
        return bench_fail("fork: %s", strerror(errno));
    broker->pidfd = (int)syscall(SYS_pidfd_open, broker->pid, 0);
    return broker->pidfd >= 0 ? 0 : bench_fail("pidfd_open: %s", strerror(errno));
}

static void show_log(const struct broker *broker) {
    char tail[LOG_TAIL_BYTES + 1];
    FILE *file = fopen(broker->log_path, "re");
    if (file == NULL)
        return;
    if (fseek(file, -LOG_TAIL_BYTES, SEEK_END) != 0)
        rewind(file);
    tail[fread(tail, 1, LOG_TAIL_BYTES, file)] = '\0';
    fclose(file);
    fprintf(stderr, "--- the log of broker %s ends:\n%s---\n", broker->node, tail);
}

int broker_idle(const struct broker *broker, uint32_t ms) {
    struct pollfd ended = {.fd = broker->pidfd, .events = POLLIN};
    if (poll(&ended, 1, (int)ms) <= 0)
        return 0;
    return bench_fail("broker %s has ended", broker->node);
}

/* Asks until the broker answers. */
static int await_answer(const struct broker *broker, uint64_t deadline_ns, struct feature **out) {
    const struct feature_options options = {.size = sizeof options,
                                            .socket_path = broker->socket_path,
                                            .client_name = "feature-bench",
                                            .connect_timeout_ms = 1000};
    int status;
    while ((status = feature_connect(&options, out)) != FEATURE_OK) {
        if (rounds_now_ns() > deadline_ns)
            return bench_fail_feature("connecting to a broker just started", status);
        if (broker_idle(broker, LOOK_AGAIN_MS) != 0)
            return -1;
    }
    return 0;
}

static Fb__ClientReply *ask(struct feature *feature, const Fb__ClientRequest *request) {
    Fb__ClientReply *reply = NULL;
    const int status = feature_admin_call(feature, request, ADMIN_DEADLINE_MS, &reply);
    if (status != FEATURE_OK)
        bench_fail_feature("asking a broker about itself", status);
    return reply;
}

/* 1 = all peers up, 0 = not yet, -1 = failed. */
static int peers_up(struct feature *feature, size_t expected) {
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    Fb__ClientReply *reply = ask(feature, &request);
    if (reply == NULL)
        return -1;
    size_t up = 0;
    for (size_t i = 0; i < reply->nodes->n_nodes; i++)
        up += !reply->nodes->nodes[i]->self && strcmp(reply->nodes->nodes[i]->state, "up") == 0;
    fb__client_reply__free_unpacked(reply, NULL);
    return up >= expected;
}

static int arenas_prefaulted(struct feature *feature) {
    Fb__Stores stores = FB__STORES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    Fb__ClientReply *reply = ask(feature, &request);
    if (reply == NULL)
        return -1;
    size_t waiting = 0;
    for (size_t i = 0; i < reply->stores->n_stores; i++)
        waiting +=
            reply->stores->stores[i]->prefaulted_bytes < reply->stores->stores[i]->arena_bytes;
    fb__client_reply__free_unpacked(reply, NULL);
    return waiting == 0;
}

static int settled(struct feature *feature, size_t peers) {
    const int up = peers_up(feature, peers);
    return up == 1 ? arenas_prefaulted(feature) : up;
}

static int await_settled(const struct brokers *brokers, const struct broker *broker,
                         uint64_t deadline_ns) {
    struct feature *feature;
    if (await_answer(broker, deadline_ns, &feature) != 0)
        return -1;
    int state;
    while ((state = settled(feature, brokers->count - 1)) == 0) {
        if (rounds_now_ns() > deadline_ns)
            state = bench_fail("broker %s has no peer or is still prefaulting", broker->node);
        else if (broker_idle(broker, LOOK_AGAIN_MS) != 0)
            state = -1;
        if (state < 0)
            break;
    }
    feature_disconnect(feature);
    return state == 1 ? 0 : -1;
}

static int start_all(struct brokers *brokers, const struct bench *bench, const char *settings,
                     const char *directory) {
    char secret_path[300];
    if (write_secret(bench, secret_path, sizeof secret_path) != 0)
        return -1;
    for (size_t i = 0; i < brokers->count; i++)
        if (place(&brokers->list[i], bench, i) != 0)
            return -1;
    for (size_t i = 0; i < brokers->count; i++)
        if (write_config(brokers, i, secret_path, settings, directory) != 0 ||
            start_one(&brokers->list[i], bench) != 0)
            return -1;
    const uint64_t deadline_ns = rounds_now_ns() + START_TIMEOUT_NS;
    for (size_t i = 0; i < brokers->count; i++)
        if (await_settled(brokers, &brokers->list[i], deadline_ns) != 0)
            return -1;
    return 0;
}

int brokers_start(struct brokers *brokers, const struct bench *bench, size_t count,
                  const char *settings) {
    return brokers_start_in(brokers, bench, count, settings, NULL);
}

int brokers_start_in(struct brokers *brokers, const struct bench *bench, size_t count,
                     const char *settings, const char *directory) {
    *brokers = (struct brokers){.count = count};
    if (start_all(brokers, bench, settings, directory) == 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        show_log(&brokers->list[i]);
    brokers_stop(brokers);
    return -1;
}

static void stop_one(struct broker *broker) {
    struct pollfd ended = {.fd = broker->pidfd, .events = POLLIN};
    kill(broker->pid, SIGTERM);
    if (poll(&ended, 1, STOP_TIMEOUT_MS) <= 0)
        kill(broker->pid, SIGKILL);
    waitpid(broker->pid, NULL, 0);
    close(broker->pidfd);
    *broker = (struct broker){0};
}

void brokers_stop(struct brokers *brokers) {
    for (size_t i = 0; i < brokers->count; i++)
        if (brokers->list[i].pid > 0)
            stop_one(&brokers->list[i]);
    brokers->count = 0;
}

int broker_connect(const struct broker *broker, struct feature **out) {
    return await_answer(broker, rounds_now_ns(), out);
}

int broker_open_store(struct feature *feature, const char *name, struct feature_store **out) {
    const int status = feature_store_open(feature, name, NULL, out);
    return status == FEATURE_OK ? 0 : bench_fail_feature(name, status);
}

int broker_peer_bytes_in(struct feature *feature, uint64_t *out) {
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    Fb__ClientReply *reply = ask(feature, &request);
    if (reply == NULL)
        return -1;
    *out = 0;
    for (size_t i = 0; i < reply->nodes->n_nodes; i++)
        *out += reply->nodes->nodes[i]->bytes_in;
    fb__client_reply__free_unpacked(reply, NULL);
    return 0;
}

int broker_cpu_ns(const struct broker *broker, uint64_t *out) {
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(broker->pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return bench_fail("the CPU clock of broker %s cannot be read", broker->node);
    *out = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
    return 0;
}
