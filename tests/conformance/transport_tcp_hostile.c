/* SPDX-License-Identifier: Apache-2.0
 *
 * TCP alone: what strangers and broken peers do with raw sockets ends their own connection and no
 * other. A raw peer here knows the secret and speaks the handshake, then breaks the protocol.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "conformance/transport_world.h"
#include "transport/handshake.h"
#include "transport/tcp/wire.h"

#define HOSTILE_CASE(name)                                                                         \
    static void name(struct suite *s);                                                             \
    Test(transport_tcp_hostile, name) {                                                            \
        transport_suite_run(&transport_fixture_tcp, name);                                         \
    }                                                                                              \
    static void name(struct suite *s)

struct raw_peer {
    int control, bulk;
    struct seal control_out, bulk_out;
};

static int raw_connect(struct suite *s) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(s->b.address, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static bool raw_ended(int fd) {
    uint8_t bytes[4096];
    ssize_t got;
    while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
        ;
    return got == 0 || errno == ECONNRESET;
}

/* A busy kernel takes a while to carry bytes over: the socket may be full for a moment. */
static void raw_send(struct suite *s, int fd, const void *data, size_t bytes) {
    uint64_t end_ms = suite_deadline_ms();
    const uint8_t *from = data;
    while (bytes > 0) {
        ssize_t sent = send(fd, from, bytes, MSG_NOSIGNAL);
        cr_assert(sent > 0 || errno == EAGAIN, "%s", strerror(errno));
        cr_assert_lt(suite_clock_ms(), end_ms);
        if (sent < 0)
            s->fixture->step(s->world);
        from += sent > 0 ? sent : 0;
        bytes -= sent > 0 ? (size_t)sent : 0;
    }
}

/* Runs an honest handshake over the socket; the state it ended in. */
static enum handshake_state raw_handshake(struct suite *s, int fd, struct handshake *h) {
    uint64_t end_ms = suite_deadline_ms();
    const uint8_t *out;
    uint8_t *into;
    while (h->state == HANDSHAKE_BUSY) {
        size_t bytes = handshake_output(h, &out);
        if (bytes > 0) {
            raw_send(s, fd, out, bytes);
            handshake_sent(h, bytes);
        }
        bytes = handshake_want(h, &into);
        ssize_t got = recv(fd, into, bytes, 0);
        if (got > 0)
            handshake_received(h, (size_t)got);
        else if (got == 0)
            return HANDSHAKE_FAILED;
        s->fixture->step(s->world);
        cr_assert_lt(suite_clock_ms(), end_ms);
    }
    return h->state;
}

static struct seal raw_prove(struct suite *s, int fd, enum handshake_kind kind, uint64_t *id) {
    struct handshake h;
    struct handshake_params params = {s->key_b, "raw", 3};
    struct seal auth = {.keyed = true};
    uint8_t nonce[AUTH_NONCE_BYTES], receive_key[AUTH_KEY_BYTES];
    auth_nonce(nonce);
    handshake_ask(&h, &params, kind, *id, nonce);
    cr_assert_eq(raw_handshake(s, fd, &h), HANDSHAKE_DONE, "%s", h.why);
    handshake_keys(&h, auth.key, receive_key);
    *id = h.connection_id;
    return auth;
}

static struct raw_peer raw_peer(struct suite *s) {
    struct raw_peer peer;
    uint64_t id = 0;
    peer.control = raw_connect(s);
    peer.control_out = raw_prove(s, peer.control, HANDSHAKE_CONTROL, &id);
    peer.bulk = raw_connect(s);
    peer.bulk_out = raw_prove(s, peer.bulk, HANDSHAKE_BULK, &id);
    return peer;
}

/* b's key for the raw peer's connection, behind the request; the bytes of both. */
static size_t raw_add_key(struct suite *s, uint8_t body[WIRE_READ_BYTES + 64]) {
    WAIT_FOR(s, s->b.link_count == 2);
    struct link *home = &s->b.links[1];
    int bytes = s->b.t->ops->region_key(home->conn, s->b.region, body + WIRE_READ_BYTES, 64);
    cr_assert_gt(bytes, 0);
    return WIRE_READ_BYTES + (size_t)bytes;
}

static void raw_frame(struct suite *s, struct raw_peer *peer, enum wire_type type, const void *body,
                      size_t bytes) {
    uint8_t header[SEALED_HEADER_BYTES];
    struct iovec part = {(void *)body, bytes};
    sealed_frame_seal(&peer->control_out, type, &part, 1, header);
    raw_send(s, peer->control, header, sizeof header);
    raw_send(s, peer->control, body, bytes);
}

/* The raw peer's connection ends with that reason, the honest one goes on. */
static void expect_only_it_ends(struct suite *s, struct raw_peer *peer, const char *why) {
    struct link *link = &s->b.links[s->b.link_count - 1];
    WAIT_FOR(s, link->closed);
    cr_assert(strstr(link->why, why) != NULL, "why: %s", link->why);
    WAIT_FOR(s, raw_ended(peer->control) && raw_ended(peer->bulk));
    close(peer->control);
    close(peer->bulk);
    uint64_t before = s->ba->messages;
    cr_assert_eq(suite_send(s->ab, "still here", 10), 0);
    WAIT_FOR(s, s->ba->messages == before + 1);
}

HOSTILE_CASE(honest_raw_peer_is_served) {
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    raw_frame(s, &peer, WIRE_MESSAGE, "hi", 2);
    WAIT_FOR(s, s->b.link_count == 2 && s->b.links[1].messages == 1);
    cr_assert_str_eq(s->b.links[1].hello, "raw");
    shutdown(peer.bulk, SHUT_RDWR); /* either socket's end is the connection's */
    expect_only_it_ends(s, &peer, "closed the connection");
}

HOSTILE_CASE(wrong_tag_ends_the_connection) {
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    peer.control_out.key[0] ^= 1;
    raw_frame(s, &peer, WIRE_MESSAGE, "hi", 2);
    expect_only_it_ends(s, &peer, "bad frame: wrong tag");
    cr_assert_eq(s->b.links[1].messages, 0);
}

HOSTILE_CASE(oversized_frame_ends_the_connection) {
    uint8_t header[SEALED_HEADER_BYTES] = {0xff, 0xff, 0xff, 0xff, WIRE_MESSAGE};
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    raw_send(s, peer.control, header, sizeof header);
    expect_only_it_ends(s, &peer, "larger than the limit");
}

HOSTILE_CASE(unknown_frame_type_ends_the_connection) {
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    raw_frame(s, &peer, (enum wire_type)9, "", 0);
    expect_only_it_ends(s, &peer, "unknown type");
}

HOSTILE_CASE(chunk_nobody_asked_for_ends_the_connection) {
    uint8_t header[WIRE_CHUNK_HEADER_BYTES];
    struct wire_chunk chunk = {.id = 3, .offset = 0, .bytes = 4096};
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    wire_chunk_seal(&peer.bulk_out, &chunk, header);
    raw_send(s, peer.bulk, header, sizeof header);
    expect_only_it_ends(s, &peer, "not asked for");
}

HOSTILE_CASE(refusal_of_no_read_ends_the_connection) {
    uint8_t body[WIRE_READ_FAILED_BYTES];
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    wire_read_failed_encode(5, -EINVAL, body);
    raw_frame(s, &peer, WIRE_READ_FAILED, body, sizeof body);
    expect_only_it_ends(s, &peer, "refusal of a read");
}

HOSTILE_CASE(too_many_reads_end_the_connection) {
    uint8_t body[WIRE_READ_BYTES + 64];
    struct wire_read read = {.bytes = MEMORY_BYTES};
    suite_connect(s);
    struct raw_peer peer = raw_peer(s);
    size_t bytes = raw_add_key(s, body);
    for (read.id = 0; read.id <= WIRE_READS_MAX; read.id++) {
        wire_read_encode(&read, body);
        raw_frame(s, &peer, WIRE_READ, body, bytes);
        if (read.id % 64 == 0)
            s->fixture->step(s->world);
    }
    expect_only_it_ends(s, &peer, "more reads under way");
}

/* A peer that asks for everything and takes nothing holds up nobody else. */
HOSTILE_CASE(reader_that_does_not_take_its_bytes_holds_up_nobody) {
    uint8_t body[WIRE_READ_BYTES + 64];
    struct wire_read read = {.bytes = MEMORY_BYTES};
    suite_connect(s);
    suite_fill(s, 8 * MIB);
    struct raw_peer peer = raw_peer(s);
    size_t bytes = raw_add_key(s, body);
    wire_read_encode(&read, body);
    raw_frame(s, &peer, WIRE_READ, body, bytes);
    suite_settle(s);
    cr_assert_eq(suite_read(s, 0, 0, 8 * MIB), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0);
    close(peer.control);
    close(peer.bulk);
    WAIT_FOR(s, s->b.links[1].closed);
}

HOSTILE_CASE(rubbish_instead_of_a_handshake_is_dropped) {
    suite_connect(s);
    int fd = raw_connect(s);
    raw_send(s, fd, "GET / HTTP/1.1\r\n\r\n", 18);
    WAIT_FOR(s, raw_ended(fd));
    close(fd);
    cr_assert_eq(s->b.link_count, 1);
}

HOSTILE_CASE(silence_is_timed_out) {
    s->options.handshake_timeout_ms = 50;
    suite_start(s);
    int silent = raw_connect(s), slow = raw_connect(s);
    raw_send(s, slow, "FBPH", 4);
    WAIT_FOR(s, raw_ended(silent) && raw_ended(slow));
    close(silent);
    close(slow);
}

/* Who proved itself on the control socket and never brings the bulk socket. */
HOSTILE_CASE(control_without_bulk_is_timed_out) {
    uint64_t id = 0;
    s->options.handshake_timeout_ms = 200;
    suite_start(s);
    int fd = raw_connect(s);
    raw_prove(s, fd, HANDSHAKE_CONTROL, &id);
    WAIT_FOR(s, raw_ended(fd));
    close(fd);
    cr_assert_eq(s->b.link_count, 0);
}

HOSTILE_CASE(bulk_for_an_unknown_connection_is_refused) {
    struct handshake h;
    uint8_t nonce[AUTH_NONCE_BYTES] = {1};
    suite_connect(s);
    struct handshake_params params = {s->key_b, "raw", 3};
    int fd = raw_connect(s);
    handshake_ask(&h, &params, HANDSHAKE_BULK, 12345, nonce);
    cr_assert_eq(raw_handshake(s, fd, &h), HANDSHAKE_FAILED);
    cr_assert(strstr(h.why, "no longer knows") != NULL, "%s", h.why);
    WAIT_FOR(s, raw_ended(fd));
    close(fd);
}

HOSTILE_CASE(many_silent_strangers_do_not_keep_an_honest_peer_out) {
    enum { STRANGERS = 300 };
    int fds[STRANGERS];
    suite_start(s);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = raw_connect(s);
        s->fixture->step(s->world);
    }
    s->ab = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, s->ab->up);
    WAIT_FOR(s, raw_ended(fds[0])); /* the oldest made room */
    for (int i = 0; i < STRANGERS; i++)
        close(fds[i]);
    suite_settle(s);
}

/* Out of descriptors: accepting pauses, what exists goes on, and it recovers. */
HOSTILE_CASE(running_out_of_descriptors_pauses_accepting) {
    struct rlimit limit, low;
    suite_connect(s);
    int fd = raw_connect(s);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = (rlim_t)fd + 1; /* every number below is taken, or gets taken here */
    int fillers[64], count = 0;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (count < 64 && (fillers[count] = dup(fd)) >= 0)
        count++;
    suite_settle(s);
    cr_assert_eq(suite_send(s->ab, "still here", 10), 0);
    WAIT_FOR(s, s->ba->messages == 1);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (count > 0)
        close(fillers[--count]);
    struct link *late = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, late->up);
    close(fd);
    suite_settle(s);
}
