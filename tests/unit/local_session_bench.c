/* SPDX-License-Identifier: Apache-2.0
 *
 * The stub, and the client's side of its sessions. A watchdog ends a test in which nothing happens
 * for DEADLINE_MS.
 */
#include "unit/local_session_bench.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEADLINE_MS 10000u

/* ---- the stub ---- */

static struct broker_session *stub_open(struct broker *broker, const struct broker_client_ops *ops,
                                        void *client, const struct broker_credentials *credentials,
                                        char *why, size_t why_bytes) {
    snprintf(why, why_bytes, "full");
    if (broker->full)
        return NULL;
    struct broker_session *session = calloc(1, sizeof *session);
    *session = (struct broker_session){.broker = broker, .ops = ops, .client = client};
    snprintf(session->name, sizeof session->name, "session %u pid %d", ++broker->opened,
             credentials->pid);
    account_init(&session->account, ACCOUNT_SESSION, broker->opened, &broker->user,
                 &broker->limits);
    broker->last_opened = session;
    return session;
}

static void stub_reply(struct broker_session *session, uint32_t request_id,
                       Fb__ClientReply__ResultCase result, size_t sentence_bytes, int fd) {
    Fb__HelloReply hello = FB__HELLO_REPLY__INIT;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    if (result == FB__CLIENT_REPLY__RESULT_HELLO) {
        reply.result_case = result;
        reply.hello = &hello;
    }
    char *sentence = calloc(1, sentence_bytes + 1);
    memset(sentence, 'x', sentence_bytes);
    reply.error = sentence;
    session->ops->reply(session->client, request_id, &reply, fd);
    free(sentence);
}

static void stub_notice(struct broker_session *session, uint32_t request_id) {
    Fb__Landed landed = FB__LANDED__INIT;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    landed.bytes = 1;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_LANDED;
    notice.landed = &landed;
    session->ops->notice(session->client, request_id, &notice);
}

static bool stub_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                         const Fb__ClientRequest *request, const uint8_t *payload,
                         size_t payload_bytes, uint64_t now_ns, const char **why) {
    struct broker *broker = session->broker;
    (void)payload;
    broker->requests++;
    broker->last_now_ns = now_ns;
    switch (request->op_case) {
    case FB__CLIENT_REQUEST__OP_HELLO:
        stub_reply(session, request_id, FB__CLIENT_REPLY__RESULT_HELLO, 0, -1);
        return true;
    case FB__CLIENT_REQUEST__OP_HEALTH:
        stub_reply(session, request_id, FB__CLIENT_REPLY__RESULT__NOT_SET, payload_bytes,
                   broker->fd);
        return true;
    case FB__CLIENT_REQUEST__OP_RELEASE:
        broker->releases++;
        poll(NULL, 0, (int)broker->release_ms);
        if (wants_reply)
            stub_reply(session, request_id, FB__CLIENT_REPLY__RESULT__NOT_SET, 0, -1);
        return true;
    case FB__CLIENT_REQUEST__OP_NODES:
        for (uint32_t i = 0; i < broker->flood; i++)
            stub_reply(broker->victim, i, FB__CLIENT_REPLY__RESULT__NOT_SET, broker->flood_bytes,
                       -1);
        return true;
    case FB__CLIENT_REQUEST__OP_DRAIN:
        for (uint32_t i = 0; i < broker->notices; i++)
            stub_notice(session, request_id);
        return true;
    default:
        *why = "empty request";
        return false;
    }
}

static void stub_close(struct broker_session *session, uint64_t now_ns) {
    session->broker->closed++;
    account_deinit(&session->account);
    session->broker->last_now_ns = now_ns;
    free(session);
}

static const char *stub_name(const struct broker_session *session) {
    return session->name;
}

static struct account *stub_account(const struct broker_session *session) {
    return session->broker->charged ? (struct account *)&session->account : NULL;
}

const struct session_backend session_bench_backend = {.open = stub_open,
                                                      .request = stub_request,
                                                      .close = stub_close,
                                                      .name = stub_name,
                                                      .account = stub_account};

void session_bench_count_turn(void *owner, uint64_t now_ns) {
    struct broker *broker = owner;
    broker->turns++;
    cr_expect_geq(now_ns, broker->last_now_ns, "a turn ends after its requests");
}

/* ---- the bench ---- */

uv_loop_t session_bench_loop;
struct sessions session_bench_sessions;
struct broker session_bench_broker;
static uv_timer_t watchdog;

static void on_watchdog(uv_timer_t *timer) {
    (void)timer;
    cr_assert_fail("nothing happened for %u ms", DEADLINE_MS);
}

void session_bench_set_up(void) {
    session_bench_broker = (struct broker){.fd = -1};
    const struct sessions_options options = {.after_turn = session_bench_count_turn,
                                             .owner = &session_bench_broker};
    uv_loop_init(&session_bench_loop);
    uv_timer_init(&session_bench_loop, &watchdog);
    uv_timer_start(&watchdog, on_watchdog, DEADLINE_MS, 0);
    cr_assert_eq(sessions_init(&session_bench_sessions, &session_bench_loop, &session_bench_broker,
                               &session_bench_backend, &options),
                 0);
}

void session_bench_tear_down(void) {
    sessions_close(&session_bench_sessions, NULL, NULL);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&session_bench_loop, UV_RUN_DEFAULT);
    cr_expect_eq(session_bench_sessions.unfreed, 0);
    cr_expect_eq(session_bench_broker.closed, session_bench_broker.opened);
    cr_expect_eq(uv_loop_close(&session_bench_loop), 0);
    sessions_deinit(&session_bench_sessions);
}

int session_bench_connect(void) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    const struct broker_credentials credentials = {.pid = getpid()};
    cr_assert_eq(session_new(&session_bench_sessions, ends[1], &credentials, (char[320]){0}, 320),
                 0);
    return ends[0];
}

void session_bench_send_frame(int client, enum frame_type type, Fb__ClientRequest__OpCase op,
                              uint32_t request_id, uint32_t payload_bytes) {
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    Fb__Hello hello = FB__HELLO__INIT;
    request.op_case = op;
    request.hello =
        op == FB__CLIENT_REQUEST__OP__NOT_SET ? NULL : &hello; /* an empty message packs alike */
    Fb__Health health = FB__HEALTH__INIT;
    Fb__Release release = FB__RELEASE__INIT;
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__Drain drain = FB__DRAIN__INIT;
    if (op == FB__CLIENT_REQUEST__OP_HEALTH)
        request.health = &health;
    if (op == FB__CLIENT_REQUEST__OP_RELEASE)
        request.release = &release;
    if (op == FB__CLIENT_REQUEST__OP_NODES)
        request.nodes = &nodes;
    if (op == FB__CLIENT_REQUEST__OP_DRAIN)
        request.drain = &drain;
    struct frame_header header = {
        .version = FRAME_VERSION,
        .type = (uint8_t)type,
        .request_id = request_id,
        .body_bytes = (uint32_t)fb__client_request__get_packed_size(&request),
        .payload_bytes = payload_bytes,
    };
    frame_encode(&header, packet);
    fb__client_request__pack(&request, packet + FRAME_HEADER_BYTES);
    size_t bytes = (size_t)FRAME_HEADER_BYTES + header.body_bytes + payload_bytes;
    cr_assert_eq(send(client, packet, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

size_t session_bench_receive(int client, struct frame_header *header, int *fd_out) {
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = packet, .iov_len = sizeof packet};
    for (;;) {
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.room,
                                 .msg_controllen = sizeof control.room};
        ssize_t bytes = recvmsg(client, &message, MSG_CMSG_CLOEXEC);
        if (bytes < 0 && errno == EAGAIN) {
            uv_run(&session_bench_loop, UV_RUN_ONCE);
            continue;
        }
        if (bytes < 0 && errno == ECONNRESET)
            continue;
        cr_assert_geq(bytes, 0);
        if (fd_out) {
            *fd_out = -1;
            if (message.msg_controllen > 0)
                memcpy(fd_out, CMSG_DATA(&control.header), sizeof *fd_out);
        }
        if (bytes > 0)
            cr_assert_null(frame_decode(packet, FRAME_CLIENT_BYTES_MAX, header));
        return (size_t)bytes;
    }
}

void session_bench_expect_closed(int client) {
    struct frame_header header;
    while (session_bench_receive(client, &header, NULL) > 0)
        ;
    close(client);
}

void session_bench_expect_answer(int client, uint32_t request_id) {
    struct frame_header header;
    cr_assert_gt(session_bench_receive(client, &header, NULL), 0);
    cr_expect_eq(header.type, FRAME_REPLY);
    cr_expect_eq(header.request_id, request_id);
}

void session_bench_expect_alive(int client) {
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 77, 0);
    session_bench_expect_answer(client, 77);
}

void session_bench_run_until(const uint32_t *counter, uint32_t at_least) {
    while (*counter < at_least)
        uv_run(&session_bench_loop, UV_RUN_ONCE);
}
