/* SPDX-License-Identifier: Apache-2.0
 *
 * What may happen to devices, links and QPs while brokers read each other. One machine plays both
 * sides; what needs two is in tests/vm/nodes. The commands of a test leave the machine as they
 * found it: two devices, both links up.
 */
#include "fixture_rdma.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "../conformance/transport_world.h"
#include "rdma_internal.h"

extern char **environ;

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
    return (struct rdma_conn *)link->conn;
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
    command(s, "rdma link add rxe0 type rxe netdev eth0");
    read_again(s, 2);
}

RDMA_CASE(all_devices_removed_during_a_read) {
    start_huge_read(s);
    command(s, "rdma link del rxe0; rdma link del rxe1");
    expect_lost(s);
    command(s, "rdma link add rxe0 type rxe netdev eth0; rdma link add rxe1 type rxe netdev eth1");
    read_again(s, 2);
}
