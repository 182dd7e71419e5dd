/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions over real sockets, with a stub in the broker's place that says which answers go where.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "local/codec.h"
#include "local/listener.h"
#include "local/session.h"

#define DEADLINE_MS 10000u

/* ---- the stub ---- */

struct broker_session {
    struct broker *broker;
    const struct broker_client_ops *ops;
    void *client;
    char name[32];
    struct account account;
};

struct broker {
    bool full;      /* no more sessions */
    int fd;         /* rides on the answer to Health */
    uint32_t flood; /* answers of flood_bytes to `victim` for each Nodes */
    size_t flood_bytes;
    uint32_t notices;    /* to whoever sends a Drain */
    uint32_t release_ms; /* a Release takes so long */
    struct broker_session *victim, *last_opened;
    uint32_t opened, closed, requests, releases, turns;
    uint64_t last_now_ns;
    bool charged; /* sessions have accounts */
    struct charge_limits limits;
    struct account user;
};

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

static const struct session_backend stub_backend = {.open = stub_open,
                                                    .request = stub_request,
                                                    .close = stub_close,
                                                    .name = stub_name,
                                                    .account = stub_account};

static void count_turn(void *owner, uint64_t now_ns) {
    struct broker *broker = owner;
    broker->turns++;
    cr_expect_geq(now_ns, broker->last_now_ns, "a turn ends after its requests");
}

/* ---- the bench ---- */

static uv_loop_t loop;
static uv_timer_t watchdog;
static struct sessions sessions;
static struct broker broker;

static void on_watchdog(uv_timer_t *timer) {
    (void)timer;
    cr_assert_fail("nothing happened for %u ms", DEADLINE_MS);
}

static void set_up(void) {
    broker = (struct broker){.fd = -1};
    const struct sessions_options options = {.after_turn = count_turn, .owner = &broker};
    uv_loop_init(&loop);
    uv_timer_init(&loop, &watchdog);
    uv_timer_start(&watchdog, on_watchdog, DEADLINE_MS, 0);
    cr_assert_eq(sessions_init(&sessions, &loop, &broker, &stub_backend, &options), 0);
}

static void tear_down(void) {
    sessions_close(&sessions, NULL, NULL);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(sessions.unfreed, 0);
    cr_expect_eq(broker.closed, broker.opened);
    cr_expect_eq(uv_loop_close(&loop), 0);
    sessions_deinit(&sessions);
}

TestSuite(local_session, .init = set_up, .fini = tear_down);

static int connect_client(void) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    const struct broker_credentials credentials = {.pid = getpid()};
    cr_assert_eq(session_new(&sessions, ends[1], &credentials, (char[320]){0}, 320), 0);
    return ends[0];
}

static void send_frame(int client, enum frame_type type, Fb__ClientRequest__OpCase op,
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

/* Bytes of the next packet (0 = closed), its descriptor in *fd_out. Turns the loop until one is
 * there. */
static size_t receive(int client, struct frame_header *header, int *fd_out) {
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
            uv_run(&loop, UV_RUN_ONCE);
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

static void expect_closed(int client) {
    struct frame_header header;
    while (receive(client, &header, NULL) > 0)
        ;
    close(client);
}

static void expect_answer(int client, uint32_t request_id) {
    struct frame_header header;
    cr_assert_gt(receive(client, &header, NULL), 0);
    cr_expect_eq(header.type, FRAME_REPLY);
    cr_expect_eq(header.request_id, request_id);
}

static void expect_alive(int client) {
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 77, 0);
    expect_answer(client, 77);
}

static void run_until(const uint32_t *counter, uint32_t at_least) {
    while (*counter < at_least)
        uv_run(&loop, UV_RUN_ONCE);
}

/* ---- tests ---- */

Test(local_session, a_request_is_answered_in_the_same_turn) {
    int client = connect_client();
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 9, 0);
    uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(broker.turns, 1);
    expect_answer(client, 9);
    close(client);
}

Test(local_session, a_note_is_carried_out_and_not_answered) {
    int client = connect_client();
    send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    expect_alive(client); /* whose answer is the first one */
    cr_expect_eq(broker.releases, 1);
    close(client);
}

Test(local_session, a_descriptor_arrives_with_its_answer) {
    int client = connect_client(), got;
    broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    struct frame_header header;
    cr_assert_gt(receive(client, &header, &got), 0);
    cr_expect_geq(fcntl(got, F_GETFD), 0);
    cr_expect_geq(fcntl(broker.fd, F_GETFD), 0, "the broker keeps its own");
    close(got);
    close(broker.fd);
    close(client);
}

Test(local_session, rubbish_ends_this_session_only) {
    int client = connect_client(), bystander = connect_client();
    cr_assert_eq(send(client, "rubbish, but long enough", 24, MSG_NOSIGNAL), 24);
    expect_closed(client);
    cr_expect_eq(broker.closed, 1);
    expect_alive(bystander);
    close(bystander);
}

Test(local_session, a_breach_of_the_protocol_ends_the_session) {
    int client = connect_client();
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP__NOT_SET, 1, 0);
    send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    expect_closed(client);
    cr_expect_eq(broker.closed, 1);
    cr_expect_eq(broker.releases, 0, "what follows is not looked at");
}

Test(local_session, an_empty_packet_ends_the_session) {
    int client = connect_client();
    cr_assert_eq(send(client, "", 0, MSG_NOSIGNAL), 0);
    expect_closed(client);
    cr_expect_eq(broker.closed, 1);
}

Test(local_session, a_packet_larger_than_a_frame_ends_the_session) {
    static const uint8_t packet[FRAME_CLIENT_BYTES_MAX + 1];
    int client = connect_client();
    cr_assert_eq(send(client, packet, sizeof packet, MSG_NOSIGNAL), (ssize_t)sizeof packet);
    expect_closed(client);
}

Test(local_session, a_descriptor_from_a_client_is_closed_and_ends_the_session) {
    int client = connect_client(), pipe_ends[2];
    cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK), 0);
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    memcpy(CMSG_DATA(&control.header), &pipe_ends[1], sizeof(int));
    struct iovec part = {.iov_base = (char *)"x", .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    cr_assert_eq(sendmsg(client, &message, MSG_NOSIGNAL), 1);
    close(pipe_ends[1]);
    expect_closed(client);
    char byte;
    cr_expect_eq(read(pipe_ends[0], &byte, 1), 0, "no writer is left");
    close(pipe_ends[0]);
}

Test(local_session, disconnecting_tells_the_broker_at_once) {
    int client = connect_client();
    expect_alive(client);
    close(client);
    uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(broker.closed, 1);
}

Test(local_session, what_was_sent_before_leaving_counts_even_with_answers_unread) {
    int client = connect_client();
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    run_until(&broker.requests, 1); /* its answer stays unread: the kernel then reports a reset */
    for (int i = 0; i < 40; i++)    /* more than one wake-up's worth */
        send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    close(client);
    run_until(&broker.closed, 1);
    cr_expect_eq(broker.releases, 40);
}

Test(local_session, one_wake_up_serves_a_bounded_number_of_packets) {
    int busy = connect_client();
    for (int i = 0; i < 40; i++)
        send_frame(busy, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    uv_run(&loop, UV_RUN_ONCE);
    cr_expect_gt(broker.releases, 0);
    cr_expect_lt(broker.releases, 40);
    run_until(&broker.releases, 40);
    close(busy);
}

Test(local_session, a_slow_reader_gets_every_answer_in_order) {
    int client = connect_client();
    for (uint32_t id = 1; id <= 20; id++) {
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        run_until(&broker.requests, id);
    }
    for (uint32_t id = 1; id <= 20; id++)
        expect_answer(client, id);
    expect_alive(client);
    close(client);
}

/* Requests stay in the socket while half of what may be queued is. */
Test(local_session, limit_who_does_not_read_is_not_listened_to_until_it_does) {
    int client = connect_client(), other = connect_client();
    uint32_t sent = 0;
    for (struct pollfd room = {client, POLLOUT, 0}; poll(&room, 1, 0) > 0;) {
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, ++sent, 100000);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    expect_alive(other);
    uint32_t taken = broker.requests - 1;
    cr_expect(taken < 30 && taken < sent, "%u of %u requests taken", taken, sent);
    for (uint32_t id = 1; id <= sent; id++)
        expect_answer(client, id);
    cr_expect_eq(broker.closed, 0);
    close(client);
    close(other);
}

static uint64_t charged(const struct account *account, enum charge charge) {
    return account->used[charge];
}

/* What it has not taken is not multiplied by asking again, and is the room of its user. */
Test(local_session, limit_descriptors_on_their_way_are_few_and_come_back) {
    broker.charged = true;
    charge_limits_init(&broker.limits);
    broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_DESCRIPTORS] = 3;
    account_init(&broker.user, ACCOUNT_USER, 1000, NULL, &broker.limits);
    int client = connect_client(), got;
    broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (uint32_t id = 1; id <= 10; id++)
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 0);
    for (uint32_t i = 0; i < 100; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_eq(broker.requests, 3);
    cr_expect_eq(charged(&broker.user, CHARGE_UNREAD_DESCRIPTORS), 3);
    for (uint32_t id = 1; id <= 10; id++) {
        struct frame_header header;
        cr_assert_gt(receive(client, &header, &got), 0);
        cr_expect_eq(header.request_id, id);
        cr_expect_eq(close(got), 0);
    }
    while (charged(&broker.user, CHARGE_UNREAD_DESCRIPTORS))
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(broker.requests, 10);
    for (uint32_t id = 11; id <= 20; id++)
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 0);
    run_until(&broker.requests, 13);
    close(client); /* it leaves without taking them: what it has sent is read to its end */
    run_until(&broker.closed, 1);
    cr_expect_eq(broker.requests, 20);
    account_deinit(&broker.user);
    close(broker.fd);
}

Test(local_session, limit_unread_bytes_of_a_user_end_the_session_that_asks_for_more) {
    broker.charged = true;
    charge_limits_init(&broker.limits);
    broker.limits.of[ACCOUNT_USER][CHARGE_UNREAD_BYTES] = 1 << 20;
    account_init(&broker.user, ACCOUNT_USER, 1000, NULL, &broker.limits);
    int victim = connect_client();
    broker.victim = broker.last_opened;
    int other = connect_client();
    broker.flood = 100;
    broker.flood_bytes = 100000;
    send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    run_until(&broker.closed, 1);
    expect_alive(other);
    expect_closed(victim);
    close(other);
    account_deinit(&broker.user);
}

/* Sends a Health and skips notices until its answer; how many they were. */
static uint32_t count_notices(int client) {
    struct frame_header header;
    uint32_t count = 0;
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 77, 0);
    while (receive(client, &header, NULL) > 0 && header.type == FRAME_NOTICE)
        count++;
    cr_expect_eq(header.type, FRAME_REPLY);
    cr_expect_eq(header.request_id, 77);
    return count;
}

/* Its socket comes up late in a turn, after it has taken some of its answers, with more of them
 * queued than let it ask. */
Test(local_session, turn_who_does_not_read_and_comes_late_holds_up_nobody) {
    broker.charged = true;
    charge_limits_init(&broker.limits);
    broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES] = UINT64_MAX;
    broker.limits.of[ACCOUNT_USER][CHARGE_UNREAD_BYTES] = UINT64_MAX;
    account_init(&broker.user, ACCOUNT_USER, 1000, NULL, &broker.limits);
    int busy = connect_client(), victim = connect_client();
    broker.victim = broker.last_opened;
    int other = connect_client();
    broker.flood = 300;
    broker.flood_bytes = 100000;
    send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    run_until(&broker.requests, 1);
    broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES] = 1 << 20;
    broker.release_ms = 30; /* longer than the reads of a turn may take */
    send_frame(busy, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    send_frame(victim, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    while (recv(victim, packet, sizeof packet, MSG_DONTWAIT) > 0)
        ;
    run_until(&broker.releases, 1);
    cr_assert_gt(charged(&broker.user, CHARGE_UNREAD_BYTES), 1 << 20, "it is to be paused");
    expect_alive(other);
    close(busy);
    close(victim);
    close(other);
    run_until(&broker.closed, 3);
    account_deinit(&broker.user);
}

Test(local_session, notices_are_never_queued_for_a_slow_reader) {
    int client = connect_client();
    broker.notices = 100000; /* several times what the queue would hold */
    for (uint32_t id = 1; id <= 10; id++) {
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        run_until(&broker.requests, id);
    }
    send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_DRAIN, 0, 0);
    run_until(&broker.requests, 11);
    for (uint32_t id = 1; id <= 10; id++)
        expect_answer(client, id);
    cr_expect_eq(count_notices(client), 0, "none while answers were waiting");
    send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_DRAIN, 0, 0);
    run_until(&broker.requests, 13);
    uint32_t count = count_notices(client);
    cr_expect(count > 0 && count < broker.notices, "%u: what the socket holds, no more", count);
    close(client);
}

Test(local_session, a_slow_readers_descriptors_are_kept_for_it) {
    int client = connect_client(), got;
    for (uint32_t id = 1; id <= 20; id++) {
        broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        run_until(&broker.requests, id);
        close(broker.fd);
    }
    for (uint32_t id = 1; id <= 20; id++) {
        struct frame_header header;
        cr_assert_gt(receive(client, &header, &got), 0);
        cr_expect_eq(header.request_id, id);
        cr_expect_eq(close(got), 0);
    }
    close(client);
}

/* The flood comes while another session's request is being served: the victim must not vanish under
 * it. */
Test(local_session, a_client_that_stops_reading_loses_its_session_and_nobody_elses) {
    int victim = connect_client();
    broker.victim = broker.last_opened;
    int other = connect_client();
    broker.flood = 100;
    broker.flood_bytes = 100000;
    send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    run_until(&broker.closed, 1);
    expect_alive(other);
    expect_closed(victim);
    close(other);
}

Test(local_session, no_hello_in_time_ends_the_session) {
    sessions.options.hello_timeout_ms = 1;
    int client = connect_client();
    run_until(&broker.closed, 1);
    expect_closed(client);
}

Test(local_session, after_hello_silence_is_fine) {
    sessions.options.hello_timeout_ms = 50;
    int client = connect_client();
    send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 1, 0);
    expect_answer(client, 1);
    int silent = connect_client(); /* its timer ends after the first one's would have */
    run_until(&broker.closed, 1);
    expect_alive(client);
    expect_closed(silent);
    close(client);
}

Test(local_session, a_full_broker_takes_no_session) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    broker.full = true;
    const struct broker_credentials credentials = {0};
    cr_expect_eq(session_new(&sessions, ends[1], &credentials, (char[320]){0}, 320), -EBUSY);
    cr_expect_eq(close(ends[1]), 0, "the caller still owns it");
    close(ends[0]);
}

Test(local_session, a_refused_client_is_told_why_and_closed) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(session_refuse(&sessions, ends[1], 0, FB__STATUS__DENIED, "not on the list"), 0);
    send_frame(ends[0], FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 5, 0);
    send_frame(ends[0], FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    expect_answer(ends[0], 5);
    expect_closed(ends[0]);
    cr_expect_eq(broker.requests, 0, "the broker never hears of it");
    cr_expect_eq(sessions.refused, 0);
}

Test(local_session, only_so_many_are_refused_with_an_answer_at_once) {
    int ends[100][2], error = 0;
    size_t count = 0;
    for (; count < 100 && !error; count++) {
        cr_assert_eq(
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends[count]), 0);
        error = session_refuse(&sessions, ends[count][1], 0, FB__STATUS__FULL, "full");
    }
    cr_expect_eq(error, -EBUSY);
    cr_expect_eq(close(ends[count - 1][1]), 0, "the caller still owns the last one");
    for (size_t i = 0; i < count; i++)
        close(ends[i][0]);
    while (sessions.refused > 0)
        uv_run(&loop, UV_RUN_ONCE);
}

/* ---- listener ---- */

static void count_closed(void *owner) {
    ++*(uint32_t *)owner;
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

Test(local_session, the_listener_serves_stops_accepting_and_closes) {
    static const struct config_ids everybody;
    char directory[] = "/tmp/featured-listener-XXXXXX", path[64], why[256] = "";
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/s", directory);
    const struct listener_options options = {
        .socket_path = path,
        .socket_mode = 0600,
        .allow_uids = &everybody,
        .allow_gids = &everybody,
        .sessions = {.after_turn = count_turn, .owner = &broker},
        .backend = &stub_backend,
    };
    struct listener *listener;
    cr_assert_eq(listener_new(&loop, &options, &broker, &listener, why, sizeof why), 0, "%s", why);

    int client = connect_to(path);
    cr_assert_geq(client, 0);
    expect_alive(client);
    listener_stop_accepting(listener);
    cr_expect_eq(connect_to(path), -1);
    expect_alive(client);

    uint32_t closed = 0;
    listener_close(listener, count_closed, &closed);
    run_until(&closed, 1);
    expect_closed(client);
    cr_expect_eq(rmdir(directory), 0, "the socket file is gone");
}
