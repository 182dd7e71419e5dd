/* SPDX-License-Identifier: Apache-2.0 */
#include "conformance/transport_world.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { DEADLINE_MS = 30000, SETTLE_STEPS = 50 };

static const uint8_t default_key[AUTH_KEY_BYTES] = "the same secret on both sides";

uint64_t suite_clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t suite_deadline_ms(void) {
    return suite_clock_ms() + DEADLINE_MS;
}

void suite_settle(struct suite *s) {
    for (int i = 0; i < SETTLE_STEPS; i++)
        s->fixture->step(s->world);
}

/* ---- events ---- */

static struct link *add_link(struct node *node, struct transport_conn *conn) {
    cr_assert_lt(node->link_count, LINKS_MAX);
    struct link *link = &node->links[node->link_count++];
    link->node = node;
    link->conn = conn;
    return link;
}

static void take_hello(struct link *link, const void *hello, size_t bytes) {
    cr_assert_not(link->up, "a connection came up twice");
    cr_assert_leq(bytes, TRANSPORT_HELLO_BYTES_MAX);
    link->up = true;
    memcpy(link->hello, hello, bytes);
}

static void *on_accepted(void *owner, struct transport_conn *conn, const void *hello,
                         size_t hello_bytes) {
    struct node *node = owner;
    if (node->refuses)
        return NULL;
    struct link *link = add_link(node, conn);
    take_hello(link, hello, hello_bytes);
    return link;
}

static void on_up(void *owner, void *user, const void *hello, size_t hello_bytes) {
    struct link *link = user;
    cr_assert_eq(link->node, owner);
    cr_assert_not(link->closed);
    take_hello(link, hello, hello_bytes);
}

static void on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct link *link = user;
    cr_assert_eq(link->node, owner);
    cr_assert(link->up && !link->closed, "a message before up or after closed");
    link->messages++;
    link->message_bytes += bytes;
    free(link->last);
    link->last = malloc(bytes + 1);
    cr_assert_not_null(link->last);
    memcpy(link->last, data, bytes);
    link->last_bytes = bytes;
    if (link->on_message != NULL)
        link->on_message(link, data, bytes);
}

static void on_read_done(void *owner, void *user, void *read_user, int status) {
    struct link *link = user;
    struct read *read = read_user;
    struct node *node = owner;
    cr_assert_eq(read->link, link);
    cr_assert_not(link->closed, "read_done after closed");
    cr_assert_not(read->done, "a read was reported twice");
    read->done = true;
    read->status = status;
    read->finished_as = ++node->reads_finished;
    link->reads_done++;
    link->reads_failed += status != 0;
}

static void on_read_progress(void *owner, void *user, void *read_user, uint64_t bytes_done,
                             uint64_t prefix_bytes) {
    struct read *read = read_user;
    struct link *link = user;
    cr_assert_eq(link->node, owner);
    cr_assert_not(read->done, "progress of a read that is over");
    cr_assert_gt(bytes_done, read->bytes_done, "progress that is none");
    cr_assert_leq(prefix_bytes, bytes_done);
    cr_assert_geq(prefix_bytes, read->prefix_bytes, "a prefix that shrinks");
    if (read->local != NULL)
        cr_assert(memcmp(read->local + read->prefix_bytes, read->home + read->prefix_bytes,
                         prefix_bytes - read->prefix_bytes) == 0,
                  "a prefix that has not landed yet");
    read->bytes_done = bytes_done;
    read->prefix_bytes = prefix_bytes;
    if (link->on_progress != NULL)
        link->on_progress(link);
}

static void on_better(void *owner, void *user) {
    struct link *link = user;
    cr_assert_eq(link->node, owner);
    cr_assert(link->up && !link->closed);
    link->better++;
}

static void on_closed(void *owner, void *user, const char *why) {
    struct link *link = user;
    cr_assert_eq(link->node, owner);
    cr_assert_not(link->closed, "a connection was closed twice");
    link->closed = true;
    snprintf(link->why, sizeof link->why, "%s", why);
}

static void on_destroyed(void *owner) {
    ((struct node *)owner)->destroyed = true;
}

static const struct transport_events events = {
    .accepted = on_accepted,
    .up = on_up,
    .message = on_message,
    .read_done = on_read_done,
    .read_progress = on_read_progress,
    .better = on_better,
    .closed = on_closed,
};

/* ---- nodes ---- */

static void node_start(struct suite *s, struct node *node, const uint8_t *key, const char *hello) {
    struct transport_options options = s->options;
    options.cluster_key = key;
    options.hello = hello;
    options.hello_bytes = strlen(hello);
    node->suite = s;
    cr_assert_eq(s->fixture->transport_new(s->world, &options, &events, node, &node->t), 0);
    node->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(node->memory, MAP_FAILED);
    cr_assert_eq(node->t->ops->add_region(node->t, node->memory, MEMORY_BYTES, &node->region), 0);
}

void suite_destroy(struct node *node) {
    if (node->t == NULL)
        return;
    node->t->ops->destroy(node->t, on_destroyed);
    node->t = NULL;
    cr_assert_not(node->destroyed, "on_destroyed from inside destroy");
}

static void node_end(struct node *node) {
    if (node->memory == NULL)
        return;
    suite_destroy(node);
    WAIT_FOR(node->suite, node->destroyed);
    for (size_t i = 0; i < node->link_count; i++) {
        cr_assert(node->links[i].closed, "a connection ended without closed");
        free(node->links[i].last);
    }
    munmap(node->memory, MEMORY_BYTES);
}

void suite_start(struct suite *s) {
    node_start(s, &s->a, s->key_a, "node a");
    node_start(s, &s->b, s->key_b, "node b");
    cr_assert_eq(s->b.t->ops->listen(s->b.t, s->fixture->listen_address, s->b.address), 0);
}

struct link *suite_dial(struct node *from, const char *address) {
    return suite_dial_apart(from, address, "");
}

struct link *suite_dial_apart(struct node *from, const char *address, const char *data_address) {
    struct link *link = add_link(from, NULL);
    cr_assert_eq(from->t->ops->connect(from->t, address, data_address, link, &link->conn), 0);
    cr_assert(!link->up && !link->closed, "an event from inside connect");
    return link;
}

void suite_connect(struct suite *s) {
    suite_start(s);
    s->ab = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, s->ab->closed || (s->ab->up && s->b.link_count == 1));
    cr_assert_not(s->ab->closed, "%s", s->ab->why);
    s->ba = &s->b.links[0];
    suite_take_key(s->ab);
    suite_take_key(s->ba);
}

/* ---- what a test does ---- */

void suite_take_key(struct link *home) {
    struct node *node = home->node;
    int key_bytes = node->t->ops->region_key(home->conn, node->region, node->key, sizeof node->key);
    cr_assert_gt(key_bytes, 0);
    node->key_bytes = (size_t)key_bytes;
}

int suite_read(struct suite *s, size_t slot, uint64_t offset, uint64_t bytes) {
    struct read *read = &s->reads[slot];
    *read =
        (struct read){.link = s->ab, .local = s->a.memory + offset, .home = s->b.memory + offset};
    struct transport_read ask = {
        .key = s->b.key,
        .key_bytes = s->b.key_bytes,
        .remote_offset = offset,
        .bytes = bytes,
        .local = s->a.memory + offset,
        .read_user = read,
    };
    int r = s->a.t->ops->read(s->ab->conn, &ask);
    cr_assert_not(read->done, "read_done from inside read");
    return r;
}

int suite_send(struct link *link, const void *data, size_t bytes) {
    struct iovec part = {(void *)data, bytes};
    return link->node->t->ops->send(link->conn, &part, 1);
}

void suite_fill(struct suite *s, uint64_t bytes) {
    uint32_t state = 12345;
    for (uint64_t i = 0; i < bytes; i += sizeof state) {
        state = state * 1664525u + 1013904223u;
        memcpy(s->b.memory + i, &state, sizeof state);
    }
    memset(s->a.memory, POISON, bytes);
}

static size_t open_fds(void) {
    size_t count = 0;
    DIR *directory = opendir("/proc/self/fd");
    cr_assert_not_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

void suite_end(struct suite *s) {
    node_end(&s->a);
    node_end(&s->b);
}

void transport_suite_run(const struct transport_fixture *fixture,
                         void (*body)(struct suite *suite)) {
    struct suite *s = calloc(1, sizeof *s);
    cr_assert_not_null(s);
    cr_assert_eq(auth_init(), 0);
    s->fixture = fixture;
    s->world = fixture->world_new();
    size_t fds_before = open_fds();
    s->key_a = s->key_b = default_key;
    s->options = (struct transport_options){
        .chunk_bytes = 256 * 1024,
        .reads_per_connection = 8,
        .handshake_timeout_ms = 5000,
        .send_queue_bytes = 4 * MIB,
        .connections_max = 8,
    };
    body(s);
    suite_end(s);
    cr_assert_eq(open_fds(), fds_before, "file descriptors leaked");
    fixture->world_free(s->world);
    free(s);
}
