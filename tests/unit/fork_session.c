/* SPDX-License-Identifier: Apache-2.0
 *
 * A session ends with the process that connected, where the kernel does not tell the broker which
 * one that is (before Linux 6.5, another pid namespace): the client sends a pidfd. A stub stands in
 * for the broker; tests/e2e/fork_death.c has real ones.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "feature.h"
#include "local/listener.h"
#include "local/session.h"
#include "proto/frame.h"
#include "proto/version.h"
#include "socket.h"
#include "support/checks.h"
#include "support/process.h"

#define DEADLINE_MS 10000u

/* ---- the stub: answers Hello and Health ---- */

struct broker_session {
    struct broker *broker;
    const struct broker_client_ops *ops;
    void *client;
};
struct broker {
    uint32_t opened, closed, requests;
};

static struct broker_session *stub_open(struct broker *broker, const struct broker_client_ops *ops,
                                        void *client, const struct broker_credentials *credentials,
                                        char *why, size_t why_bytes) {
    (void)why, (void)why_bytes;
    struct broker_session *session = calloc(1, sizeof *session);
    (void)credentials;
    cr_assert(session);
    *session = (struct broker_session){.broker = broker, .ops = ops, .client = client};
    broker->opened++;
    return session;
}

static bool stub_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                         const Fb__ClientRequest *request, const uint8_t *payload,
                         size_t payload_bytes, uint64_t now_ns, const char **why) {
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    Fb__HelloReply hello = FB__HELLO_REPLY__INIT;
    (void)wants_reply, (void)payload, (void)payload_bytes, (void)now_ns, (void)why;
    session->broker->requests++;
    if (request->op_case == FB__CLIENT_REQUEST__OP_HELLO) {
        hello.version = VERSION_CLIENT.highest;
        reply.result_case = FB__CLIENT_REPLY__RESULT_HELLO;
        reply.hello = &hello;
    }
    session->ops->reply(session->client, request_id, &reply, -1);
    return true;
}

static void stub_close(struct broker_session *session, uint64_t now_ns) {
    (void)now_ns;
    session->broker->closed++;
    free(session);
}

static const char *stub_name(const struct broker_session *session) {
    (void)session;
    return "session 1";
}

static const struct session_backend stub_backend = {
    .open = stub_open, .request = stub_request, .close = stub_close, .name = stub_name};

/* ---- the bench ---- */

static uv_loop_t loop;
static uv_timer_t watchdog;
static struct sessions sessions;
static struct broker broker;

static int not_told(int socket_fd, pid_t pid) {
    (void)socket_fd, (void)pid;
    return -ENOPROTOOPT;
}
static int none_left(int socket_fd, pid_t pid) {
    (void)socket_fd, (void)pid;
    return -EMFILE;
}

static void on_watchdog(uv_timer_t *timer) {
    (void)timer;
    cr_assert_fail("nothing happened for %u ms", DEADLINE_MS);
}

static void set_up(void) {
    broker = (struct broker){0};
    const struct sessions_options options = {.peer_pidfd = not_told};
    uv_loop_init(&loop);
    uv_timer_init(&loop, &watchdog);
    uv_timer_start(&watchdog, on_watchdog, DEADLINE_MS, 0);
    cr_assert_eq(sessions_init(&sessions, &loop, &broker, &stub_backend, &options), 0);
}

static void tear_down(void) {
    sessions_close(&sessions, NULL, NULL);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(broker.closed, broker.opened);
    cr_expect_eq(uv_loop_close(&loop), 0);
    sessions_deinit(&sessions);
}

TestSuite(fork_session, .init = set_up, .fini = tear_down);

static int connect_as(pid_t pid) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    const struct broker_credentials credentials = {.pid = pid};
    cr_assert_eq(session_new(&sessions, ends[1], &credentials, (char[320]){0}, 320), 0);
    return ends[0];
}

/* A Hello; with a descriptor the one that brings a pidfd, which wants no answer. */
static void send_hello(int client, int passed_fd) {
    uint8_t packet[64];
    Fb__Hello hello = FB__HELLO__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    hello.pidfd = passed_fd >= 0;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    size_t body_bytes = fb__client_request__pack(&request, packet + FRAME_HEADER_BYTES);
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = passed_fd >= 0 ? FRAME_NOTE : FRAME_REQUEST,
                                  .request_id = passed_fd >= 0 ? 0 : 1,
                                  .body_bytes = (uint32_t)body_bytes};
    frame_encode(&header, packet);
    const struct iovec part = {packet, FRAME_HEADER_BYTES + body_bytes};
    int rc = passed_fd >= 0 ? fc_socket_send_with(client, packet, part.iov_len, passed_fd)
                            : fc_socket_send(client, &part, 1, 0);
    cr_assert_eq(rc, 0);
}

/* Bytes of the next packet, 0 = closed. */
static ssize_t turn_until_packet(int client, uint8_t *packet, size_t room) {
    for (;;) {
        ssize_t bytes = recv(client, packet, room, 0);
        if (bytes >= 0)
            return bytes;
        cr_assert(errno == EAGAIN || errno == ECONNRESET);
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static bool greet(int client) {
    uint8_t packet[1024];
    send_hello(client, -1);
    ssize_t bytes = turn_until_packet(client, packet, sizeof packet);
    cr_assert_gt(bytes, (ssize_t)FRAME_HEADER_BYTES);
    Fb__ClientReply *reply = fb__client_reply__unpack(NULL, (size_t)bytes - FRAME_HEADER_BYTES,
                                                      packet + FRAME_HEADER_BYTES);
    cr_assert(reply && reply->result_case == FB__CLIENT_REPLY__RESULT_HELLO);
    bool wanted = reply->hello->pidfd_wanted;
    fb__client_reply__free_unpacked(reply, NULL);
    return wanted;
}

static int wait_for_the_end(int channel, void *context) {
    char word[8];
    (void)context;
    (void)channel_receive(channel, word, sizeof word, 60000);
    return 0;
}

/* ---- tests ---- */

Test(fork_session, ends_with_the_process_whose_pidfd_came_though_its_socket_is_open) {
    struct process process;
    uint8_t packet[1024];
    process_fork(&process, wait_for_the_end, NULL);
    int client = connect_as(process.pid);
    cr_assert(greet(client));
    send_hello(client, process.pidfd);
    send_hello(client, -1); /* it is alive: still served */
    cr_assert_gt(turn_until_packet(client, packet, sizeof packet), 0);
    process_signal(&process, SIGKILL); /* not reaped: a zombie is dead */
    cr_expect_eq(turn_until_packet(client, packet, sizeof packet), 0);
    while (!broker.closed)
        uv_run(&loop, UV_RUN_ONCE);
    close(client);
    cr_assert(process_wait(&process, DEADLINE_MS, NULL));
}

Test(fork_session, what_was_sent_before_the_death_still_counts) {
    struct process process;
    uint8_t packet[1024];
    process_fork(&process, wait_for_the_end, NULL);
    int client = connect_as(process.pid);
    cr_assert(greet(client));
    send_hello(client, process.pidfd);
    send_hello(client, -1); /* answered: the pidfd has been taken */
    cr_assert_gt(turn_until_packet(client, packet, sizeof packet), 0);
    uint32_t before = broker.requests;
    for (int i = 0; i < 5; i++)
        send_hello(client, -1);
    process_kill(&process);
    while (!broker.closed)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(broker.requests - before, 5);
    close(client);
}

Test(fork_session, a_descriptor_that_is_no_pidfd_of_it_ends_the_session) {
    struct process process;
    uint8_t packet[64];
    process_fork(&process, wait_for_the_end, NULL);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int other = (int)syscall(SYS_pidfd_open, getpid(), 0);
    cr_assert(file >= 0 && other >= 0);
    for (int i = 0; i < 2; i++) {
        int client = connect_as(process.pid);
        cr_assert(greet(client));
        send_hello(client, i ? other : file);
        cr_expect_eq(turn_until_packet(client, packet, sizeof packet), 0, "descriptor %d", i);
        close(client);
    }
    close(file);
    close(other);
    process_kill(&process);
}

Test(fork_session, a_second_pidfd_ends_the_session) {
    uint8_t packet[64];
    int own = (int)syscall(SYS_pidfd_open, getpid(), 0), client = connect_as(getpid());
    cr_assert(greet(client));
    send_hello(client, own);
    send_hello(client, own);
    cr_expect_eq(turn_until_packet(client, packet, sizeof packet), 0);
    close(own);
    close(client);
}

Test(fork_session, an_empty_packet_with_a_descriptor_leaves_none_open) {
    int own = (int)syscall(SYS_pidfd_open, getpid(), 0), client = connect_as(getpid());
    cr_assert(greet(client));
    uint32_t before = check_fd_count(0);
    cr_assert_eq(fc_socket_send_with(client, "", 0, own), 0);
    while (!broker.closed)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(check_fd_count(0), before - 1, "the session's socket is closed, and no more");
    close(own);
    close(client);
}

Test(fork_session, works_with_the_socket_alone_when_no_descriptor_is_left) {
    sessions.options.peer_pidfd = none_left;
    int client = connect_as(getpid());
    cr_expect_not(greet(client), "and asks the client for none");
    close(client);
    while (!broker.closed)
        uv_run(&loop, UV_RUN_ONCE);
}

/* ---- libfeature's side ---- */

static int connect_and_leave_a_worker(int channel, void *context) {
    struct feature *feature;
    struct feature_options options = {.size = sizeof options, .socket_path = context};
    CHECK_OK(feature_connect(&options, &feature));
    /* Not fork(): a child of which the library hears nothing keeps the socket. */
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0)
        _exit(wait_for_the_end(channel, NULL));
    channel_say(channel, "forked");
    return wait_for_the_end(channel, NULL);
}

static void count_closed(void *owner) {
    ++*(uint32_t *)owner;
}

Test(fork_session, libfeature_sends_its_pidfd_when_asked) {
    static const struct config_ids everybody;
    char directory[] = "/tmp/featured-fork-XXXXXX", path[64], why[256] = "";
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/s", directory);
    const struct listener_options options = {.socket_path = path,
                                             .socket_mode = 0600,
                                             .allow_uids = &everybody,
                                             .allow_gids = &everybody,
                                             .sessions = {.peer_pidfd = not_told},
                                             .backend = &stub_backend};
    struct listener *listener;
    struct process trainer;
    uint32_t closed = 0;
    cr_assert_eq(listener_new(&loop, &options, &broker, &listener, why, sizeof why), 0, "%s", why);
    process_fork(&trainer, connect_and_leave_a_worker, path);
    while (!channel_pending(trainer.channel, 0))
        uv_run(&loop, UV_RUN_NOWAIT);
    channel_expect(trainer.channel, "forked", DEADLINE_MS);
    cr_expect_eq(broker.closed, 0);
    process_signal(&trainer, SIGKILL);
    while (!broker.closed)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert(process_wait(&trainer, DEADLINE_MS, NULL)); /* closes the channel: the worker ends */
    listener_close(listener, count_closed, &closed);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
    rmdir(directory);
}
