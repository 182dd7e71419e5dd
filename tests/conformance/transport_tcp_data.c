/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP alone: bulk bytes that take a way of their own, and what becomes of the connection when that
 * way leads nowhere, to somebody who is silent, or to somebody else.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "conformance/transport_world.h"

#define BYTES 300000u

#define DATA_CASE(name)                                                                            \
    static void name(struct suite *s);                                                             \
    Test(transport_tcp_data, name) {                                                               \
        transport_suite_run(&transport_fixture_tcp, name);                                         \
    }                                                                                              \
    static void name(struct suite *s)

static const char *data_failure(const struct link *link, struct transport_info *info) {
    link->node->t->ops->query(link->conn, info);
    return info->data_failure;
}

/* Up, with bytes that arrive; why they did not come from the data address holds `why`. */
static void check_up(struct suite *s, const char *data_address, const char *why) {
    struct transport_info info;
    s->ab = suite_dial_apart(&s->a, s->b.address, data_address);
    WAIT_FOR(s, s->ab->closed || (s->ab->up && s->b.link_count == 1));
    cr_assert_not(s->ab->closed, "%s", s->ab->why);
    s->ba = &s->b.links[0];
    suite_take_key(s->ba);
    cr_assert(*why != '\0' ? strstr(data_failure(s->ab, &info), why) != NULL
                           : *data_failure(s->ab, &info) == '\0',
              "%s", info.data_failure);
    cr_assert_eq(suite_read(s, 0, 0, BYTES), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0);
    cr_assert_eq(memcmp(s->a.memory, s->b.memory, BYTES), 0);
}

/* A socket that listens; whoever connects waits for ever. */
static int open_silent(char address_out[64]) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    snprintf(address_out, 64, "127.0.0.1:%u", ntohs(at.sin_port));
    return fd;
}

DATA_CASE(bytes_take_the_way_of_the_data_address) {
    char data_address[64];
    suite_start(s);
    snprintf(data_address, sizeof data_address, "localhost%s", strrchr(s->b.address, ':'));
    check_up(s, data_address, "");
}

DATA_CASE(a_data_address_where_nobody_listens_is_given_up) {
    suite_start(s);
    check_up(s, s->fixture->nobody_address, "refused");
}

DATA_CASE(a_data_address_that_is_silent_is_given_up) {
    char data_address[64];
    int fd = open_silent(data_address);
    s->options.data_timeout_ms = 50;
    suite_start(s);
    check_up(s, data_address, "timed out after 50 ms");
    close(fd);
}

/* As of another broker, which knows nothing of this connection. */
DATA_CASE(a_data_address_of_somebody_else_is_given_up) {
    char others[64];
    suite_start(s);
    cr_assert_eq(s->a.t->ops->listen(s->a.t, "127.0.0.1:0", others), 0);
    check_up(s, others, "connection");
}

DATA_CASE(a_bad_data_address_is_refused_at_once) {
    struct transport_conn *conn = NULL;
    suite_start(s);
    cr_assert_eq(s->a.t->ops->connect(s->a.t, s->b.address, "nowhere", NULL, &conn), -EINVAL);
    cr_assert_null(conn);
}
