/* SPDX-License-Identifier: Apache-2.0
 *
 * What every transport promises (transport.h), over each implementation; of reads that come to
 * their end, in transport_suite_reads.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "conformance/transport_world.h"

static const uint8_t other_key[AUTH_KEY_BYTES] = "another secret";

/* ---- connecting ---- */

TRANSPORT_CASE(connect_exchanges_hellos) {
    suite_connect(s);
    cr_assert_str_eq(s->ab->hello, "node b");
    cr_assert_str_eq(s->ba->hello, "node a");
}

TRANSPORT_CASE(connect_without_secrets_on_both_sides) {
    s->key_a = s->key_b = NULL;
    suite_connect(s);
    cr_assert_eq(suite_send(s->ab, "hi", 2), 0);
    WAIT_FOR(s, s->ba->messages == 1);
}

static void expect_refused(struct suite *s, const char *why) {
    suite_start(s);
    struct link *link = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, link->closed);
    cr_assert_not(link->up);
    cr_assert(strstr(link->why, why) != NULL, "why: %s", link->why);
    suite_settle(s);
    cr_assert_eq(s->b.link_count, 0, "a refused peer reached the owner");
}

TRANSPORT_CASE(wrong_secret_of_the_dialler_is_refused) {
    s->key_a = other_key;
    expect_refused(s, "wrong cluster secret");
}

TRANSPORT_CASE(wrong_secret_of_the_listener_is_refused) {
    s->key_b = other_key;
    expect_refused(s, "wrong cluster secret");
}

TRANSPORT_CASE(missing_secret_of_the_dialler_is_refused) {
    s->key_a = NULL;
    expect_refused(s, "requires a cluster secret");
}

TRANSPORT_CASE(missing_secret_of_the_listener_is_refused) {
    s->key_b = NULL;
    expect_refused(s, "not on the other side");
}

TRANSPORT_CASE(nobody_listening_gives_closed) {
    suite_start(s);
    struct link *link = suite_dial(&s->a, s->fixture->nobody_address);
    WAIT_FOR(s, link->closed);
    cr_assert_not(link->up);
    cr_assert(strstr(link->why, "connection refused") != NULL, "why: %s", link->why);
    cr_assert(strstr(link->why, s->fixture->nobody_address) != NULL, "why: %s", link->why);
}

TRANSPORT_CASE(bad_addresses_are_refused_at_once) {
    struct transport_conn *conn = NULL;
    suite_start(s);
    cr_assert_eq(s->a.t->ops->connect(s->a.t, "nowhere", "", NULL, &conn), -EINVAL);
    cr_assert_null(conn);
    char bound[64];
    cr_assert_eq(s->a.t->ops->listen(s->a.t, "nowhere", bound), -EINVAL);
}

TRANSPORT_CASE(owner_may_refuse_a_peer) {
    suite_start(s);
    s->b.refuses = true;
    struct link *link = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, link->closed);
    cr_assert_not(link->up);
    cr_assert(strstr(link->why, "refused this broker") != NULL, "why: %s", link->why);
}

TRANSPORT_CASE(connections_beyond_the_limit_are_refused_and_others_live) {
    struct link *links[3];
    s->options.connections_max = 2;
    suite_start(s);
    for (int i = 0; i < 2; i++) {
        links[i] = suite_dial(&s->a, s->b.address);
        WAIT_FOR(s, links[i]->up);
    }
    links[2] = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, links[2]->closed);
    cr_assert(strstr(links[2]->why, "limit of connections") != NULL, "why: %s", links[2]->why);
    cr_assert_eq(suite_send(links[0], "still here", 10), 0);
    WAIT_FOR(s, s->b.links[0].messages == 1);
    /* A place that has become free can be taken again. */
    s->a.t->ops->close(links[1]->conn);
    WAIT_FOR(s, s->b.links[1].closed);
    WAIT_FOR(s, suite_dial(&s->a, s->b.address)->node != NULL);
    WAIT_FOR(s, s->a.links[3].up);
}

TRANSPORT_CASE(close_while_connecting) {
    suite_start(s);
    struct link *link = suite_dial(&s->a, s->b.address);
    s->a.t->ops->close(link->conn);
    cr_assert_not(link->closed, "closed from inside close");
    WAIT_FOR(s, link->closed);
    cr_assert_str_eq(link->why, "");
    suite_settle(s);
    cr_assert(s->b.link_count == 0 || s->b.links[0].closed);
}

TRANSPORT_CASE(both_sides_may_dial_each_other) {
    suite_connect(s);
    cr_assert_eq(s->a.t->ops->listen(s->a.t, s->fixture->listen_address, s->a.address), 0);
    struct link *back = suite_dial(&s->b, s->a.address);
    WAIT_FOR(s, back->up && s->a.link_count == 2);
    cr_assert_str_eq(back->hello, "node a");
    cr_assert_eq(suite_send(back, "x", 1), 0);
    WAIT_FOR(s, s->a.links[1].messages == 1);
    cr_assert_eq(s->ab->messages, 0);
}

/* ---- messages ---- */

TRANSPORT_CASE(messages_of_every_size) {
    static const size_t sizes[] = {0, 1, 4096, TRANSPORT_MESSAGE_BYTES_MAX};
    uint8_t *data = malloc(TRANSPORT_MESSAGE_BYTES_MAX + 1);
    cr_assert_not_null(data);
    for (size_t i = 0; i <= TRANSPORT_MESSAGE_BYTES_MAX; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
    suite_connect(s);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_assert_eq(suite_send(s->ab, data, sizes[i]), 0);
        WAIT_FOR(s, s->ba->messages == i + 1);
        cr_assert_eq(s->ba->last_bytes, sizes[i]);
        cr_assert_arr_eq(s->ba->last, data, sizes[i]);
        cr_assert_eq(suite_send(s->ba, data, sizes[i]), 0);
        WAIT_FOR(s, s->ab->messages == i + 1);
        cr_assert_eq(s->ab->last_bytes, sizes[i]);
    }
    cr_assert_eq(suite_send(s->ab, data, TRANSPORT_MESSAGE_BYTES_MAX + 1), -EMSGSIZE);
    free(data);
}

TRANSPORT_CASE(message_parts_are_joined) {
    struct iovec parts[TRANSPORT_PARTS_MAX + 1];
    for (size_t i = 0; i < TRANSPORT_PARTS_MAX + 1; i++)
        parts[i] = (struct iovec){(void *)&"abcdefghijklmnopqrstuvwxyz"[i], 1 + i % 2};
    suite_connect(s);
    cr_assert_eq(s->a.t->ops->send(s->ab->conn, parts, 4), 0);
    WAIT_FOR(s, s->ba->messages == 1);
    cr_assert_eq(s->ba->last_bytes, 6);
    cr_assert_arr_eq(s->ba->last, "abccde", 6);
    cr_assert_eq(s->a.t->ops->send(s->ab->conn, parts, TRANSPORT_PARTS_MAX), 0);
    cr_assert_eq(s->a.t->ops->send(s->ab->conn, parts, TRANSPORT_PARTS_MAX + 1), -EMSGSIZE);
    WAIT_FOR(s, s->ba->messages == 2);
}

static void expect_numbers(struct link *link, const uint8_t *data, size_t bytes) {
    uint64_t number;
    cr_assert_geq(bytes, sizeof number);
    memcpy(&number, data, sizeof number);
    cr_assert_eq(number, link->messages - 1, "messages out of order");
}

TRANSPORT_CASE(back_pressure_then_everything_in_order) {
    enum { BYTES = 60000, AFTER = 200 };
    static uint8_t data[BYTES];
    uint64_t sent = 0;
    int r;
    suite_connect(s);
    s->ba->on_message = expect_numbers;
    for (;; sent++) {
        memcpy(data, &sent, sizeof sent);
        r = suite_send(s->ab, data, 8 + sent * 977 % (BYTES - 8));
        if (r < 0)
            break;
        cr_assert_lt(sent, 100000, "no limit to what may be queued");
    }
    cr_assert_eq(r, -ENOBUFS);
    struct transport_info info;
    s->a.t->ops->query(s->ab->conn, &info);
    cr_assert_gt(info.send_queued_bytes, 0);
    cr_assert_leq(info.send_queued_bytes, s->options.send_queue_bytes);
    WAIT_FOR(s, s->ba->messages == sent);
    for (int i = 0; i < AFTER; i++, sent++) {
        memcpy(data, &sent, sizeof sent);
        cr_assert_eq(suite_send(s->ab, data, 8), 0);
    }
    WAIT_FOR(s, s->ba->messages == sent);
    s->a.t->ops->query(s->ab->conn, &info);
    cr_assert_eq(info.send_queued_bytes, 0);
}

static void answer_twice(struct link *link, const uint8_t *data, size_t bytes) {
    cr_assert_eq(suite_send(link, data, bytes), 0);
    cr_assert_eq(suite_send(link, data, bytes), 0);
}

TRANSPORT_CASE(messages_may_be_sent_from_inside_a_callback) {
    suite_connect(s);
    s->ba->on_message = answer_twice;
    for (int i = 0; i < 100; i++)
        cr_assert_eq(suite_send(s->ab, "ping", 4), 0);
    WAIT_FOR(s, s->ab->messages == 200);
}

static void close_myself(struct link *link, const uint8_t *data, size_t bytes) {
    (void)data, (void)bytes;
    link->node->t->ops->close(link->conn);
    cr_assert_eq(suite_send(link, "x", 1), -ENOTCONN);
    cr_assert_not(link->closed, "closed from inside close");
}

TRANSPORT_CASE(no_message_after_close_from_inside_a_callback) {
    suite_connect(s);
    s->ba->on_message = close_myself;
    for (int i = 0; i < 50; i++)
        suite_send(s->ab, "ping", 4);
    WAIT_FOR(s, s->ab->closed && s->ba->closed);
    cr_assert_eq(s->ba->messages, 1);
    cr_assert_str_eq(s->ba->why, "");
    cr_assert_neq(s->ab->why[0], '\0');
}

/* ---- ends ---- */

static void start_huge_read(struct suite *s) {
    suite_connect(s);
    suite_fill(s, 64 * MIB);
    cr_assert_eq(suite_read(s, 0, 0, 64 * MIB), 0);
    WAIT_FOR(s, s->reads[0].bytes_done > 0);
}

/* The read has failed, and nothing lands any more. */
static void expect_broken_off(struct suite *s) {
    WAIT_FOR(s, s->ab->closed);
    cr_assert(s->reads[0].done);
    cr_assert_lt(s->reads[0].status, 0);
    memset(s->a.memory, POISON, 64 * MIB);
    suite_settle(s);
    for (uint64_t i = 0; i < 64 * MIB; i += 8) {
        uint64_t word;
        memcpy(&word, s->a.memory + i, sizeof word);
        cr_assert_eq(word, UINT64_C(0xa5a5a5a5a5a5a5a5), "a byte landed after the end");
    }
}

TRANSPORT_CASE(reader_closes_during_a_read) {
    start_huge_read(s);
    s->a.t->ops->close(s->ab->conn);
    cr_assert(!s->reads[0].done && !s->ab->closed, "an event from inside close");
    expect_broken_off(s);
    cr_assert_str_eq(s->ab->why, "");
    WAIT_FOR(s, s->ba->closed);
}

TRANSPORT_CASE(home_closes_during_a_read) {
    start_huge_read(s);
    s->b.t->ops->close(s->ba->conn);
    expect_broken_off(s);
    cr_assert_neq(s->ab->why[0], '\0');
    cr_assert_str_eq(s->ba->why, "");
}

TRANSPORT_CASE(home_vanishes_during_reads) {
    start_huge_read(s);
    for (size_t i = 1; i < READS_MAX; i++) /* some under way, some waiting */
        cr_assert_eq(suite_read(s, i, i * 4096, 4096), 0);
    suite_destroy(&s->b);
    expect_broken_off(s);
    cr_assert_eq(s->ab->reads_done, READS_MAX);
}

TRANSPORT_CASE(removed_region_ends_connections_that_read_it) {
    start_huge_read(s);
    s->b.t->ops->remove_region(s->b.t, s->b.region);
    expect_broken_off(s);
    WAIT_FOR(s, s->ba->closed);
    cr_assert(strstr(s->ba->why, "unregistered") != NULL, "why: %s", s->ba->why);
}

TRANSPORT_CASE(removed_landing_region_ends_connections_that_write_it) {
    start_huge_read(s);
    s->a.t->ops->remove_region(s->a.t, s->a.region);
    expect_broken_off(s);
}

TRANSPORT_CASE(removed_region_leaves_other_connections_alone) {
    suite_connect(s);
    s->b.t->ops->remove_region(s->b.t, s->b.region);
    s->a.t->ops->remove_region(s->a.t, s->a.region);
    cr_assert_eq(suite_send(s->ab, "x", 1), 0);
    WAIT_FOR(s, s->ba->messages == 1);
}

static void close_on_progress(struct link *link) {
    link->node->t->ops->close(link->conn);
}

TRANSPORT_CASE(close_from_inside_progress_stops_the_read) {
    start_huge_read(s);
    s->ab->on_progress = close_on_progress;
    expect_broken_off(s);
}

TRANSPORT_CASE(nothing_works_after_the_end) {
    suite_connect(s);
    s->a.t->ops->close(s->ab->conn);
    cr_assert_eq(suite_send(s->ab, "x", 1), -ENOTCONN);
    cr_assert_eq(suite_read(s, 0, 0, 1), -ENOTCONN);
    s->a.t->ops->close(s->ab->conn); /* once more is harmless */
    WAIT_FOR(s, s->ab->closed && s->ba->closed);
}

TRANSPORT_CASE(nothing_works_before_up) {
    suite_start(s);
    s->ab = suite_dial(&s->a, s->b.address);
    cr_assert_eq(suite_send(s->ab, "x", 1), -ENOTCONN);
    cr_assert_eq(suite_read(s, 0, 0, 1), -ENOTCONN);
    WAIT_FOR(s, s->ab->up);
}

TRANSPORT_CASE(destroy_with_everything_in_flight) {
    static uint8_t message[MIB];
    start_huge_read(s);
    for (size_t i = 1; i < READS_MAX; i++)
        cr_assert_eq(suite_read(s, i, i * 4096, 4096), 0);
    for (int i = 0; i < 20; i++)
        suite_send(s->ab, message, sizeof message);
    suite_dial(&s->a, s->b.address);
    suite_dial(&s->a, s->fixture->nobody_address);
    suite_destroy(&s->a);
    suite_destroy(&s->b);
    WAIT_FOR(s, s->a.destroyed && s->b.destroyed);
    cr_assert_eq(s->ab->reads_done, READS_MAX);
    for (size_t i = 0; i < s->a.link_count; i++)
        cr_assert(s->a.links[i].closed);
}

TRANSPORT_CASE(destroy_of_an_unused_transport) {
    suite_start(s);
    suite_destroy(&s->a);
    WAIT_FOR(s, s->a.destroyed);
}

/* ---- query ---- */

TRANSPORT_CASE(query_counts_what_moved) {
    struct transport_info a, b;
    suite_connect(s);
    suite_fill(s, MIB);
    cr_assert_eq(suite_send(s->ab, "12345", 5), 0);
    cr_assert_eq(suite_read(s, 0, 0, 300000), 0);
    WAIT_FOR(s, s->ba->messages == 1 && s->reads[0].done);
    s->a.t->ops->query(s->ab->conn, &a);
    s->b.t->ops->query(s->ba->conn, &b);
    cr_assert_str_eq(a.transport, s->a.t->ops->name);
    cr_assert_eq(a.message_bytes_out, 5);
    cr_assert_eq(b.message_bytes_in, 5);
    cr_assert_eq(a.read_bytes_in, 300000);
    WAIT_FOR(s, (s->b.t->ops->query(s->ba->conn, &b), b.read_bytes_out == 300000)); /* told later */
    cr_assert_eq(a.reads_in_flight, 0);
    cr_assert_str_eq(a.remote, s->b.address);
    cr_assert_str_eq(b.local, s->b.address);
    cr_assert_str_eq(a.local, b.remote);
}

/* ---- many random things at once ---- */

static unsigned random_below(uint64_t *state, unsigned limit) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33) % limit;
}

TRANSPORT_CASE(random_traffic_arrives_whole) {
    enum { ROUNDS = 600, SLOTS = 32, SLOT_BYTES = 2 * MIB };
    const char *text = getenv("TRANSPORT_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : suite_clock_ms(), state = seed;
    uint64_t sizes[SLOTS] = {0}, sent = 0;
    fprintf(stderr, "TRANSPORT_SEED=%llu\n", (unsigned long long)seed);
    suite_connect(s);
    suite_fill(s, SLOTS * (uint64_t)SLOT_BYTES);
    s->ba->on_message = expect_numbers;
    for (int round = 0; round < ROUNDS; round++) {
        unsigned slot = random_below(&state, SLOTS);
        if (sizes[slot] == 0 || s->reads[slot].done) {
            cr_assert_eq(s->reads[slot].status, 0);
            uint64_t offset = slot * (uint64_t)SLOT_BYTES;
            cr_assert(memcmp(s->a.memory + offset, s->b.memory + offset, sizes[slot]) == 0);
            memset(s->a.memory + offset, POISON, sizes[slot]);
            sizes[slot] = 1 + random_below(&state, random_below(&state, 2) ? 5000 : SLOT_BYTES);
            cr_assert_eq(suite_read(s, slot, offset, sizes[slot]), 0);
        }
        uint8_t message[3000];
        memcpy(message, &sent, sizeof sent);
        if (suite_send(s->ab, message, 8 + random_below(&state, sizeof message - 8)) == 0)
            sent++;
        for (unsigned i = random_below(&state, 4); i > 0; i--)
            s->fixture->step(s->world);
    }
    struct transport_info info;
    do {
        s->fixture->step(s->world);
        s->a.t->ops->query(s->ab->conn, &info);
    } while (info.reads_in_flight > 0);
    WAIT_FOR(s, s->ba->messages == sent);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        uint64_t offset = slot * (uint64_t)SLOT_BYTES;
        cr_assert(memcmp(s->a.memory + offset, s->b.memory + offset, sizes[slot]) == 0);
        cr_assert_eq(s->a.memory[offset + sizes[slot]], POISON);
    }
}
