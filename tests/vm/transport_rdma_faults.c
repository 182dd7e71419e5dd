/* SPDX-License-Identifier: Apache-2.0
 *
 * What may happen to devices, links and QPs while brokers read each other. One machine plays both
 * sides; what needs two is in tests/vm/nodes. The commands of a test leave the machine as they
 * found it: two devices, both links up.
 */
#include "vm/fixture_rdma.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "conformance/transport_world.h"
#include "transport/rdma/conn_rails.h"

#define RDMA_CASE(name)                                                                            \
    static void name(struct suite *s);                                                             \
    Test(transport_rdma_faults, name) {                                                            \
        transport_suite_run(&transport_fixture_rdma, name);                                        \
    }                                                                                              \
    static void name(struct suite *s)

/* ---- the machine ---- */

static pid_t start_command(const char *command) {
    char *arguments[] = {"sh", "-c", (char *)command, NULL};
    pid_t pid;
    cr_assert_eq(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
    return pid;
}

static bool command_ended(pid_t pid) {
    int status;
    pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == 0)
        return false;
    cr_assert(ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    return true;
}

/* Runs a command while the transports go on: removing a device waits for those who hold it. */
static void command(struct suite *s, const char *text) {
    pid_t pid = start_command(text);
    WAIT_FOR(s, command_ended(pid));
}

static struct rdma_conn *conn_of(struct link *link) {
    return container_of(connection_of(link->conn), struct rdma_conn, base);
}

static uint32_t rails_up(struct link *link) {
    return link->closed ? 0 : rconn_rails_up(conn_of(link));
}

static const char *detail(struct link *link) {
    static struct transport_info info;
    link->node->t->ops->query(link->conn, &info);
    return info.detail;
}

static void connect_on_two_rails(struct suite *s) {
    suite_connect(s);
    cr_assert_eq(rails_up(s->ab), 2, "%s", detail(s->ab));
}

static void start_huge_read(struct suite *s) {
    connect_on_two_rails(s);
    suite_fill(s, 64 * MIB);
    cr_assert_eq(suite_read(s, 0, 0, 64 * MIB), 0);
    WAIT_FOR(s, s->reads[0].bytes_done > 4 * MIB);
}

static void expect_whole(struct suite *s, uint64_t bytes) {
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0, "%d", s->reads[0].status);
    cr_assert(memcmp(s->a.memory, s->b.memory, bytes) == 0);
}

static void expect_lost(struct suite *s) {
    WAIT_FOR(s, s->ab->closed && s->ba->closed);
    cr_assert(s->reads[0].done);
    cr_assert_lt(s->reads[0].status, 0);
    cr_assert_neq(s->ab->why[0], '\0');
}

/* Dials as an owner would: again, when it did not come up. */
static bool dial_comes_up(struct suite *s) {
    size_t accepted = s->b.link_count;
    s->ab = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, s->ab->closed || (s->ab->up && s->b.link_count == accepted + 1));
    s->ba = &s->b.links[accepted];
    if (s->ab->closed)
        suite_settle(s);
    return !s->ab->closed;
}

/* A new connection between the same two, and a read over it. */
static void read_again(struct suite *s, uint32_t rails) {
    WAIT_FOR(s, dial_comes_up(s));
    WAIT_FOR(s, rails_up(s->ab) == rails);
    suite_take_key(s->ba);
    suite_fill(s, 8 * MIB);
    cr_assert_eq(suite_read(s, 0, 0, 8 * MIB), 0);
    expect_whole(s, 8 * MIB);
}

/* ---- devices ---- */

RDMA_CASE(device_removed_during_a_read_leaves_it_to_the_other_rail) {
    start_huge_read(s);
    command(s, "rdma link del rxe1");
    expect_whole(s, 64 * MIB);
    cr_assert_eq(rails_up(s->ab), 1);
    command(s, "rdma link add rxe1 type rxe netdev eth1");
    read_again(s, 2);
}

RDMA_CASE(device_that_carries_the_messages_removed_during_a_read) {
    start_huge_read(s);
    command(s, "rdma link del rxe0");
    expect_lost(s);
    read_again(s, 1); /* dialled at the address that is gone */
    command(s, "rdma link add rxe0 type rxe netdev eth0");
    WAIT_FOR(s, rails_up(s->ab) == 2);
    cr_assert_not(s->ab->closed);
}

RDMA_CASE(all_devices_removed_during_a_read) {
    start_huge_read(s);
    command(s, "rdma link del rxe0; rdma link del rxe1");
    expect_lost(s);
    command(s, "rdma link add rxe0 type rxe netdev eth0; rdma link add rxe1 type rxe netdev eth1");
    read_again(s, 2);
}

/* The carrier alone: rdma_rxe (6.1) does not get over its interface being taken down. */
RDMA_CASE(link_of_one_rail_down_for_three_seconds) {
    start_huge_read(s);
    command(s, "ip link set eth1 carrier off; sleep 3; ip link set eth1 carrier on");
    expect_whole(s, 64 * MIB);
    WAIT_FOR(s, rails_up(s->ab) == 2);
    cr_assert_not(s->ab->closed);
}

/* ---- QPs ---- */

static void break_qp(const struct rdma_link *link) {
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
    cr_assert_eq(ibv_modify_qp(link->qp, &attributes, IBV_QP_STATE), 0);
}

static void expect_mended(struct suite *s) {
    struct transport_info info;
    expect_whole(s, 64 * MIB);
    WAIT_FOR(s, rails_up(s->ab) == 2 && rails_up(s->ba) == 2);
    cr_assert_not(s->ab->closed, "%s", s->ab->why);
    s->a.t->ops->query(s->ab->conn, &info);
    cr_assert_eq(info.rail_count, 2);
    cr_assert_geq(info.rails[1].errors, 1); /* the new QP, too, when it is not proven in time */
    cr_assert_neq(info.rails[1].last_failure[0], '\0');
    uint64_t before = info.rails[1].bytes_in;
    cr_assert_eq(suite_read(s, 0, 0, 64 * MIB), 0);
    expect_whole(s, 64 * MIB);
    s->a.t->ops->query(s->ab->conn, &info);
    cr_assert_gt(info.rails[1].bytes_in, before, "the mended rail carries nothing");
    cr_assert_eq(info.rails[0].bytes_in + info.rails[1].bytes_in, info.read_bytes_in);
}

RDMA_CASE(qp_of_the_reader_in_error_is_replaced) {
    start_huge_read(s);
    break_qp(conn_of(s->ab)->bulk[1]);
    expect_mended(s);
}

RDMA_CASE(qp_of_the_home_in_error_is_replaced) {
    start_huge_read(s);
    break_qp(conn_of(s->ba)->bulk[1]);
    expect_mended(s);
}

RDMA_CASE(qp_of_the_readers_messages_in_error_ends_the_connection) {
    start_huge_read(s);
    break_qp(conn_of(s->ab)->control);
    expect_lost(s);
    read_again(s, 2);
}

RDMA_CASE(qp_of_the_homes_messages_in_error_ends_the_connection) {
    start_huge_read(s);
    break_qp(conn_of(s->ba)->control);
    expect_lost(s);
    read_again(s, 2);
}

/* ---- who may read what, and until when ---- */

struct dialler { /* a stranger with a QP and memory of his own */
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    uint8_t memory[4096];
};

static void await_cm(struct suite *s, struct dialler *him, enum rdma_cm_event_type expected) {
    struct rdma_cm_event *event = NULL;
    WAIT_FOR(s, rdma_get_cm_event(him->channel, &event) == 0);
    cr_assert_eq(event->event, expected, "%s", rdma_event_str(event->event));
    rdma_ack_cm_event(event);
}

static void stranger_connect(struct suite *s, struct dialler *him, enum handshake_kind kind) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    uint8_t data[RWIRE_PRIVATE_BYTES];
    struct rwire_private private = {(uint8_t)kind, 0, 4, 1024};
    struct rdma_conn_param param = {.private_data = data,
                                    .private_data_len = sizeof data,
                                    .responder_resources = 4,
                                    .initiator_depth = 4,
                                    .retry_count = 2};
    inet_pton(AF_INET, "10.77.0.1", &to.sin_addr);
    to.sin_port = htons((uint16_t)strtoul(strrchr(s->b.address, ':') + 1, NULL, 10));
    rwire_private_encode(&private, data);
    him->channel = rdma_create_event_channel();
    cr_assert_eq(fcntl(him->channel->fd, F_SETFL, O_NONBLOCK), 0);
    cr_assert_eq(rdma_create_id(him->channel, &him->id, NULL, RDMA_PS_TCP), 0);
    cr_assert_eq(rdma_resolve_addr(him->id, NULL, (struct sockaddr *)&to, 2000), 0);
    await_cm(s, him, RDMA_CM_EVENT_ADDR_RESOLVED);
    cr_assert_eq(rdma_resolve_route(him->id, 2000), 0);
    await_cm(s, him, RDMA_CM_EVENT_ROUTE_RESOLVED);
    him->cq = ibv_create_cq(him->id->verbs, 8, NULL, NULL, 0);
    struct ibv_qp_init_attr want = {
        .send_cq = him->cq, .recv_cq = him->cq, .cap = {4, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    cr_assert_eq(rdma_create_qp(him->id, NULL, &want), 0);
    him->mr = ibv_reg_mr(him->id->pd, him->memory, sizeof him->memory, IBV_ACCESS_LOCAL_WRITE);
    cr_assert_not_null(him->mr);
    cr_assert_eq(rdma_connect(him->id, &param), 0);
    await_cm(s, him, RDMA_CM_EVENT_ESTABLISHED);
}

static enum ibv_wc_status stranger_read(struct suite *s, struct dialler *him, uint64_t address,
                                        uint32_t rkey) {
    struct ibv_sge place = {(uintptr_t)him->memory, sizeof him->memory, him->mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &place,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_READ,
                             .send_flags = IBV_SEND_SIGNALED},
                       *bad;
    struct ibv_wc done = {.status = IBV_WC_SUCCESS};
    wr.wr.rdma.remote_addr = address;
    wr.wr.rdma.rkey = rkey;
    cr_assert_eq(ibv_post_send(him->id->qp, &wr, &bad), 0);
    WAIT_FOR(s, ibv_poll_cq(him->cq, 1, &done) == 1);
    return done.status;
}

static void stranger_leave(struct dialler *him) {
    rdma_destroy_qp(him->id);
    ibv_dereg_mr(him->mr);
    ibv_destroy_cq(him->cq);
    rdma_destroy_id(him->id);
    rdma_destroy_event_channel(him->channel);
}

static void expect_stranger_reads_nothing(struct suite *s, enum handshake_kind kind) {
    struct dialler *him = calloc(1, sizeof *him);
    cr_assert_not_null(him);
    suite_connect(s);
    suite_fill(s, MIB);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    expect_whole(s, MIB); /* so this key opens this memory, to those who may */
    const struct rdma_piece piece = TAILQ_FIRST(&conn_of(s->ab)->openings)->pieces[0];
    stranger_connect(s, him, kind);
    cr_assert_neq(stranger_read(s, him, piece.address, piece.rkeys[0]), IBV_WC_SUCCESS);
    for (size_t i = 0; i < sizeof him->memory; i++)
        cr_assert_eq(him->memory[i], 0, "byte %zu was read", i);
    stranger_leave(him);
    free(him);
    cr_assert_eq(suite_read(s, 0, 0, MIB), 0);
    expect_whole(s, MIB);
}

RDMA_CASE(stranger_with_a_guessed_key_reads_nothing) {
    expect_stranger_reads_nothing(s, HANDSHAKE_BULK);
}

RDMA_CASE(stranger_on_a_qp_for_messages_reads_nothing) {
    expect_stranger_reads_nothing(s, HANDSHAKE_CONTROL);
}

/* The node learns nothing any more; what it has asked of its devices goes on. */
static void freeze(struct node *node, bool on) {
    struct rdma *rdma = container_of(endpoint_of(node->t), struct rdma, base);
    uv_poll_t *polls[DEVICES_MAX + 1] = {&rdma->cm};
    size_t count = 1;
    for (size_t i = 0; i < DEVICES_MAX; i++)
        if (rdma->devices[i] != NULL)
            polls[count++] = &rdma->devices[i]->completions;
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(on ? uv_poll_stop(polls[i])
                        : uv_poll_start(polls[i], UV_READABLE, polls[i]->poll_cb),
                     0);
}

/* Once the home has been told that a connection is closed, it may write into what was being read:
 * none of that may reach the reader, and what he was told is whole must be as it was before. */
static void expect_fenced(struct suite *s, void (*end)(struct suite *s)) {
    enum { READS = 64 };
    uint8_t reused[64];
    memset(reused, 0xee, sizeof reused);
    connect_on_two_rails(s);
    suite_fill(s, READS * (uint64_t)MIB);
    uint8_t *before = malloc(READS * (size_t)MIB);
    cr_assert_not_null(before);
    memcpy(before, s->b.memory, READS * (size_t)MIB);
    for (size_t i = 0; i < READS; i++)
        cr_assert_eq(suite_read(s, i, i * MIB, MIB), 0);
    WAIT_FOR(s, s->ab->reads_done > 4);
    freeze(&s->a, true); /* the reader does not know and reads on */
    end(s);
    WAIT_FOR(s, s->ba->closed);
    memset(s->b.memory, reused[0], READS * (size_t)MIB);
    suite_settle(s);
    freeze(&s->a, false);
    WAIT_FOR(s, s->ab->closed);
    cr_assert_gt(s->ab->reads_failed, 0, "the end came too late to test anything");
    for (size_t i = 0; i < READS; i++)
        if (s->reads[i].status == 0)
            cr_assert(memcmp(s->a.memory + i * MIB, before + i * MIB, MIB) == 0, "read %zu", i);
    cr_assert_null(memmem(s->a.memory, READS * (size_t)MIB, reused, sizeof reused));
    free(before);
}

static void home_closes(struct suite *s) {
    s->b.t->ops->close(s->ba->conn);
}

static void home_unregisters(struct suite *s) {
    s->b.t->ops->remove_region(s->b.t, s->b.region);
}

RDMA_CASE(nothing_is_read_after_the_home_has_closed) {
    expect_fenced(s, home_closes);
}

RDMA_CASE(nothing_is_read_after_memory_has_been_unregistered) {
    expect_fenced(s, home_unregisters);
}
