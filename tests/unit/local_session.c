/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions over real sockets: what ends one, what it takes to be served, and what a client that
 * does not read its answers costs.
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

#include "unit/local_session_bench.h"

TestSuite(local_session, .init = session_bench_set_up, .fini = session_bench_tear_down);

Test(local_session, a_request_is_answered_in_the_same_turn) {
    int client = session_bench_connect();
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 9, 0);
    uv_run(&session_bench_loop, UV_RUN_ONCE);
    cr_expect_eq(session_bench_broker.turns, 1);
    session_bench_expect_answer(client, 9);
    close(client);
}

Test(local_session, a_note_is_carried_out_and_not_answered) {
    int client = session_bench_connect();
    session_bench_send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    session_bench_expect_alive(client); /* whose answer is the first one */
    cr_expect_eq(session_bench_broker.releases, 1);
    close(client);
}

Test(local_session, a_descriptor_arrives_with_its_answer) {
    int client = session_bench_connect(), got;
    session_bench_broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    struct frame_header header;
    cr_assert_gt(session_bench_receive(client, &header, &got), 0);
    cr_expect_geq(fcntl(got, F_GETFD), 0);
    cr_expect_geq(fcntl(session_bench_broker.fd, F_GETFD), 0, "the broker keeps its own");
    close(got);
    close(session_bench_broker.fd);
    close(client);
}

Test(local_session, rubbish_ends_this_session_only) {
    int client = session_bench_connect(), bystander = session_bench_connect();
    cr_assert_eq(send(client, "rubbish, but long enough", 24, MSG_NOSIGNAL), 24);
    session_bench_expect_closed(client);
    cr_expect_eq(session_bench_broker.closed, 1);
    session_bench_expect_alive(bystander);
    close(bystander);
}

Test(local_session, a_breach_of_the_protocol_ends_the_session) {
    int client = session_bench_connect();
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP__NOT_SET, 1, 0);
    session_bench_send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    session_bench_expect_closed(client);
    cr_expect_eq(session_bench_broker.closed, 1);
    cr_expect_eq(session_bench_broker.releases, 0, "what follows is not looked at");
}

Test(local_session, an_empty_packet_ends_the_session) {
    int client = session_bench_connect();
    cr_assert_eq(send(client, "", 0, MSG_NOSIGNAL), 0);
    session_bench_expect_closed(client);
    cr_expect_eq(session_bench_broker.closed, 1);
}

Test(local_session, a_packet_larger_than_a_frame_ends_the_session) {
    static const uint8_t packet[FRAME_CLIENT_BYTES_MAX + 1];
    int client = session_bench_connect();
    cr_assert_eq(send(client, packet, sizeof packet, MSG_NOSIGNAL), (ssize_t)sizeof packet);
    session_bench_expect_closed(client);
}

Test(local_session, a_descriptor_from_a_client_is_closed_and_ends_the_session) {
    int client = session_bench_connect(), pipe_ends[2];
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
    session_bench_expect_closed(client);
    char byte;
    cr_expect_eq(read(pipe_ends[0], &byte, 1), 0, "no writer is left");
    close(pipe_ends[0]);
}

Test(local_session, disconnecting_tells_the_broker_at_once) {
    int client = session_bench_connect();
    session_bench_expect_alive(client);
    close(client);
    uv_run(&session_bench_loop, UV_RUN_ONCE);
    cr_expect_eq(session_bench_broker.closed, 1);
}

Test(local_session, what_was_sent_before_leaving_counts_even_with_answers_unread) {
    int client = session_bench_connect();
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    session_bench_run_until(&session_bench_broker.requests,
                            1);  /* its answer stays unread: the kernel then reports a reset */
    for (int i = 0; i < 40; i++) /* more than one wake-up's worth */
        session_bench_send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    close(client);
    session_bench_run_until(&session_bench_broker.closed, 1);
    cr_expect_eq(session_bench_broker.releases, 40);
}

Test(local_session, one_wake_up_serves_a_bounded_number_of_packets) {
    int busy = session_bench_connect();
    for (int i = 0; i < 40; i++)
        session_bench_send_frame(busy, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    uv_run(&session_bench_loop, UV_RUN_ONCE);
    cr_expect_gt(session_bench_broker.releases, 0);
    cr_expect_lt(session_bench_broker.releases, 40);
    session_bench_run_until(&session_bench_broker.releases, 40);
    close(busy);
}

Test(local_session, a_slow_reader_gets_every_answer_in_order) {
    int client = session_bench_connect();
    for (uint32_t id = 1; id <= 20; id++) {
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        session_bench_run_until(&session_bench_broker.requests, id);
    }
    for (uint32_t id = 1; id <= 20; id++)
        session_bench_expect_answer(client, id);
    session_bench_expect_alive(client);
    close(client);
}

/* Requests stay in the socket while half of what may be queued is. */
Test(local_session, limit_who_does_not_read_is_not_listened_to_until_it_does) {
    int client = session_bench_connect(), other = session_bench_connect();
    uint32_t sent = 0;
    for (struct pollfd room = {client, POLLOUT, 0}; poll(&room, 1, 0) > 0;) {
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, ++sent,
                                 100000);
        uv_run(&session_bench_loop, UV_RUN_NOWAIT);
    }
    session_bench_expect_alive(other);
    uint32_t taken = session_bench_broker.requests - 1;
    cr_expect(taken < 30 && taken < sent, "%u of %u requests taken", taken, sent);
    for (uint32_t id = 1; id <= sent; id++)
        session_bench_expect_answer(client, id);
    cr_expect_eq(session_bench_broker.closed, 0);
    close(client);
    close(other);
}

static uint64_t charged(const struct account *account, enum charge charge) {
    return account->used[charge];
}

/* What it has not taken is not multiplied by asking again, and is the room of its user. */
Test(local_session, limit_descriptors_on_their_way_are_few_and_come_back) {
    session_bench_broker.charged = true;
    charge_limits_init(&session_bench_broker.limits);
    session_bench_broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_DESCRIPTORS] = 3;
    account_init(&session_bench_broker.user, ACCOUNT_USER, 1000, NULL,
                 &session_bench_broker.limits);
    int client = session_bench_connect(), got;
    session_bench_broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (uint32_t id = 1; id <= 10; id++)
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 0);
    for (uint32_t i = 0; i < 100; i++)
        uv_run(&session_bench_loop, UV_RUN_NOWAIT);
    cr_expect_eq(session_bench_broker.requests, 3);
    cr_expect_eq(charged(&session_bench_broker.user, CHARGE_UNREAD_DESCRIPTORS), 3);
    for (uint32_t id = 1; id <= 10; id++) {
        struct frame_header header;
        cr_assert_gt(session_bench_receive(client, &header, &got), 0);
        cr_expect_eq(header.request_id, id);
        cr_expect_eq(close(got), 0);
    }
    while (charged(&session_bench_broker.user, CHARGE_UNREAD_DESCRIPTORS))
        uv_run(&session_bench_loop, UV_RUN_ONCE);
    cr_expect_eq(session_bench_broker.requests, 10);
    for (uint32_t id = 11; id <= 20; id++)
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 0);
    session_bench_run_until(&session_bench_broker.requests, 13);
    close(client); /* it leaves without taking them: what it has sent is read to its end */
    session_bench_run_until(&session_bench_broker.closed, 1);
    cr_expect_eq(session_bench_broker.requests, 20);
    account_deinit(&session_bench_broker.user);
    close(session_bench_broker.fd);
}

Test(local_session, limit_unread_bytes_of_a_user_end_the_session_that_asks_for_more) {
    session_bench_broker.charged = true;
    charge_limits_init(&session_bench_broker.limits);
    session_bench_broker.limits.of[ACCOUNT_USER][CHARGE_UNREAD_BYTES] = 1 << 20;
    account_init(&session_bench_broker.user, ACCOUNT_USER, 1000, NULL,
                 &session_bench_broker.limits);
    int victim = session_bench_connect();
    session_bench_broker.victim = session_bench_broker.last_opened;
    int other = session_bench_connect();
    session_bench_broker.flood = 100;
    session_bench_broker.flood_bytes = 100000;
    session_bench_send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    session_bench_run_until(&session_bench_broker.closed, 1);
    session_bench_expect_alive(other);
    session_bench_expect_closed(victim);
    close(other);
    account_deinit(&session_bench_broker.user);
}

/* Sends a Health and skips notices until its answer; how many they were. */
static uint32_t count_notices(int client) {
    struct frame_header header;
    uint32_t count = 0;
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 77, 0);
    while (session_bench_receive(client, &header, NULL) > 0 && header.type == FRAME_NOTICE)
        count++;
    cr_expect_eq(header.type, FRAME_REPLY);
    cr_expect_eq(header.request_id, 77);
    return count;
}

/* Its socket comes up late in a turn, after it has taken some of its answers, with more of them
 * queued than let it ask. */
Test(local_session, turn_who_does_not_read_and_comes_late_holds_up_nobody) {
    session_bench_broker.charged = true;
    charge_limits_init(&session_bench_broker.limits);
    session_bench_broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES] = UINT64_MAX;
    session_bench_broker.limits.of[ACCOUNT_USER][CHARGE_UNREAD_BYTES] = UINT64_MAX;
    account_init(&session_bench_broker.user, ACCOUNT_USER, 1000, NULL,
                 &session_bench_broker.limits);
    int busy = session_bench_connect(), victim = session_bench_connect();
    session_bench_broker.victim = session_bench_broker.last_opened;
    int other = session_bench_connect();
    session_bench_broker.flood = 300;
    session_bench_broker.flood_bytes = 100000;
    session_bench_send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    session_bench_run_until(&session_bench_broker.requests, 1);
    session_bench_broker.limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES] = 1 << 20;
    session_bench_broker.release_ms = 30; /* longer than the reads of a turn may take */
    session_bench_send_frame(busy, FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    session_bench_send_frame(victim, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, 1, 0);
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    while (recv(victim, packet, sizeof packet, MSG_DONTWAIT) > 0)
        ;
    session_bench_run_until(&session_bench_broker.releases, 1);
    cr_assert_gt(charged(&session_bench_broker.user, CHARGE_UNREAD_BYTES), 1 << 20,
                 "it is to be paused");
    session_bench_expect_alive(other);
    close(busy);
    close(victim);
    close(other);
    session_bench_run_until(&session_bench_broker.closed, 3);
    account_deinit(&session_bench_broker.user);
}

Test(local_session, notices_are_never_queued_for_a_slow_reader) {
    int client = session_bench_connect();
    session_bench_broker.notices = 100000; /* several times what the queue would hold */
    for (uint32_t id = 1; id <= 10; id++) {
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        session_bench_run_until(&session_bench_broker.requests, id);
    }
    session_bench_send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_DRAIN, 0, 0);
    session_bench_run_until(&session_bench_broker.requests, 11);
    for (uint32_t id = 1; id <= 10; id++)
        session_bench_expect_answer(client, id);
    cr_expect_eq(count_notices(client), 0, "none while answers were waiting");
    session_bench_send_frame(client, FRAME_NOTE, FB__CLIENT_REQUEST__OP_DRAIN, 0, 0);
    session_bench_run_until(&session_bench_broker.requests, 13);
    uint32_t count = count_notices(client);
    cr_expect(count > 0 && count < session_bench_broker.notices,
              "%u: what the socket holds, no more", count);
    close(client);
}

Test(local_session, a_slow_readers_descriptors_are_kept_for_it) {
    int client = session_bench_connect(), got;
    for (uint32_t id = 1; id <= 20; id++) {
        session_bench_broker.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HEALTH, id, 100000);
        session_bench_run_until(&session_bench_broker.requests, id);
        close(session_bench_broker.fd);
    }
    for (uint32_t id = 1; id <= 20; id++) {
        struct frame_header header;
        cr_assert_gt(session_bench_receive(client, &header, &got), 0);
        cr_expect_eq(header.request_id, id);
        cr_expect_eq(close(got), 0);
    }
    close(client);
}

/* The flood comes while another session's request is being served: the victim must not vanish under
 * it. */
Test(local_session, a_client_that_stops_reading_loses_its_session_and_nobody_elses) {
    int victim = session_bench_connect();
    session_bench_broker.victim = session_bench_broker.last_opened;
    int other = session_bench_connect();
    session_bench_broker.flood = 100;
    session_bench_broker.flood_bytes = 100000;
    session_bench_send_frame(other, FRAME_NOTE, FB__CLIENT_REQUEST__OP_NODES, 0, 0);
    session_bench_run_until(&session_bench_broker.closed, 1);
    session_bench_expect_alive(other);
    session_bench_expect_closed(victim);
    close(other);
}

Test(local_session, no_hello_in_time_ends_the_session) {
    session_bench_sessions.options.hello_timeout_ms = 1;
    int client = session_bench_connect();
    session_bench_run_until(&session_bench_broker.closed, 1);
    session_bench_expect_closed(client);
}

Test(local_session, after_hello_silence_is_fine) {
    session_bench_sessions.options.hello_timeout_ms = 50;
    int client = session_bench_connect();
    session_bench_send_frame(client, FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 1, 0);
    session_bench_expect_answer(client, 1);
    int silent = session_bench_connect(); /* its timer ends after the first one's would have */
    session_bench_run_until(&session_bench_broker.closed, 1);
    session_bench_expect_alive(client);
    session_bench_expect_closed(silent);
    close(client);
}

Test(local_session, a_full_broker_takes_no_session) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    session_bench_broker.full = true;
    const struct broker_credentials credentials = {0};
    cr_expect_eq(session_new(&session_bench_sessions, ends[1], &credentials, (char[320]){0}, 320),
                 -EBUSY);
    cr_expect_eq(close(ends[1]), 0, "the caller still owns it");
    close(ends[0]);
}

Test(local_session, a_refused_client_is_told_why_and_closed) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(
        session_refuse(&session_bench_sessions, ends[1], 0, FB__STATUS__DENIED, "not on the list"),
        0);
    session_bench_send_frame(ends[0], FRAME_REQUEST, FB__CLIENT_REQUEST__OP_HELLO, 5, 0);
    session_bench_send_frame(ends[0], FRAME_NOTE, FB__CLIENT_REQUEST__OP_RELEASE, 0, 0);
    session_bench_expect_answer(ends[0], 5);
    session_bench_expect_closed(ends[0]);
    cr_expect_eq(session_bench_broker.requests, 0, "the broker never hears of it");
    cr_expect_eq(session_bench_sessions.refused, 0);
}

Test(local_session, only_so_many_are_refused_with_an_answer_at_once) {
    int ends[100][2], error = 0;
    size_t count = 0;
    for (; count < 100 && !error; count++) {
        cr_assert_eq(
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends[count]), 0);
        error =
            session_refuse(&session_bench_sessions, ends[count][1], 0, FB__STATUS__FULL, "full");
    }
    cr_expect_eq(error, -EBUSY);
    cr_expect_eq(close(ends[count - 1][1]), 0, "the caller still owns the last one");
    for (size_t i = 0; i < count; i++)
        close(ends[i][0]);
    while (session_bench_sessions.refused > 0)
        uv_run(&session_bench_loop, UV_RUN_ONCE);
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
        .sessions = {.after_turn = session_bench_count_turn, .owner = &session_bench_broker},
        .backend = &session_bench_backend,
    };
    struct listener *listener;
    cr_assert_eq(listener_new(&session_bench_loop, &options, &session_bench_broker, &listener, why,
                              sizeof why),
                 0, "%s", why);

    int client = connect_to(path);
    cr_assert_geq(client, 0);
    session_bench_expect_alive(client);
    listener_stop_accepting(listener);
    cr_expect_eq(connect_to(path), -1);
    session_bench_expect_alive(client);

    uint32_t closed = 0;
    listener_close(listener, count_closed, &closed);
    session_bench_run_until(&closed, 1);
    session_bench_expect_closed(client);
    cr_expect_eq(rmdir(directory), 0, "the socket file is gone");
}
