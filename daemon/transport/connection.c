/* SPDX-License-Identifier: Apache-2.0
 *
 * The endpoint lives as long as somebody holds it: its owner (until destroy), each connection, each
 * link and each libuv handle. A count is enough, because holds are taken on one thread and nothing
 * new is begun while `destroying` is set.
 *
 * A connection counts against connections_max from the proof of its control link on, before its
 * owner hears of it: a peer that proves itself and then never brings a bulk link must not be able
 * to hold more than its share.
 */
#include "transport/connection.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/container.h"
#include "transport/proving.h"

/* ---- the endpoint ---- */

/* The owner's options point into memory of its own, which may be gone after the constructor. A data
 * address without a timeout of its own gets that of the handshake. */
static void connection_copy_options(struct endpoint *endpoint,
                                    const struct transport_options *options) {
    endpoint->options = *options;
    if (options->cluster_key != NULL) {
        memcpy(endpoint->cluster_key, options->cluster_key, sizeof endpoint->cluster_key);
        endpoint->options.cluster_key = endpoint->cluster_key;
    }
    if (options->hello_bytes > 0)
        memcpy(endpoint->hello, options->hello, options->hello_bytes);
    endpoint->options.hello = endpoint->hello;
    if (options->data_timeout_ms == 0)
        endpoint->options.data_timeout_ms = options->handshake_timeout_ms;
}

int endpoint_init(struct endpoint *endpoint, const struct endpoint_medium *medium,
                  const struct transport_setup *setup) {
    const struct transport_options *options = setup->options;
    if (options->hello_bytes > TRANSPORT_HELLO_BYTES_MAX || options->chunk_bytes == 0 ||
        options->reads_per_connection == 0)
        return -EINVAL;
    endpoint->base.ops = &medium->ops;
    endpoint->medium = medium;
    endpoint->loop = setup->loop;
    endpoint->events = *setup->events;
    endpoint->owner = setup->owner;
    endpoint->holds = 1;
    connection_copy_options(endpoint, options);
    strangers_init(&endpoint->strangers, medium->strangers_max);
    LIST_INIT(&endpoint->connections);
    return 0;
}

void endpoint_hold(struct endpoint *endpoint) {
    endpoint->holds++;
}

/* Only endpoint_destroy() leads to the last release: until then the endpoint holds itself. */
void endpoint_release(struct endpoint *endpoint) {
    if (--endpoint->holds == 0)
        endpoint->medium->free(endpoint);
}

/* The reason is empty: it is our own close, and nobody needs to be told why. */
void endpoint_destroy(struct endpoint *endpoint, void (*on_destroyed)(void *owner)) {
    struct connection *conn;
    endpoint->destroying = true;
    endpoint->on_destroyed = on_destroyed;
    LIST_FOREACH (conn, &endpoint->connections, all)
        connection_fail(conn, -ECANCELED, "%s", "");
}

/* The owner is told last, when nothing of the transport is left: it may free the loop next. */
void endpoint_end(struct endpoint *endpoint, void *memory, size_t memory_bytes) {
    void (*on_destroyed)(void *) = endpoint->on_destroyed;
    void *owner = endpoint->owner;
    regions_deinit(&endpoint->regions);
    explicit_bzero(memory, memory_bytes); /* the cluster key is in it */
    free(memory);
    if (on_destroyed != NULL)
        on_destroyed(owner);
}

struct endpoint *endpoint_of(struct transport *t) {
    return container_of(t, struct endpoint, base);
}

/* The secret makes the keys of the region; see regions.h. */
int endpoint_add_region(struct endpoint *endpoint, void *base, uint64_t bytes,
                        uint32_t *region_out) {
    return regions_add(&endpoint->regions, base, bytes, proving_random(), region_out);
}

int endpoint_region_key(struct transport_conn *handle, uint32_t region, void *out,
                        size_t out_bytes) {
    const struct connection *conn = connection_of(handle);
    return regions_key(&conn->endpoint->regions, conn->number, region, out, out_bytes);
}

void endpoint_close(struct transport_conn *handle) {
    connection_fail(connection_of(handle), -ECANCELED, "%s", "");
}

/* ---- a connection ---- */

struct connection *connection_of(struct transport_conn *handle) {
    return container_of(handle, struct connection, handle);
}

/* The number is of this run of the endpoint: 64 bits do not come round. */
void connection_init(struct connection *conn, struct endpoint *endpoint, bool accepted_here) {
    conn->handle.transport = &endpoint->base;
    conn->endpoint = endpoint;
    conn->number = endpoint->next_number++;
    conn->accepted_here = accepted_here;
    conn->counters.transport = endpoint->base.ops->name;
    LIST_INSERT_HEAD(&endpoint->connections, conn, all);
    endpoint->accepted_count += accepted_here;
    endpoint_hold(endpoint);
}

void connection_belongs_to(struct connection *conn, void *user) {
    conn->user = user;
    conn->announced = true;
}

void connection_deinit(struct connection *conn) {
    LIST_REMOVE(conn, all);
    conn->endpoint->accepted_count -= conn->accepted_here;
}

bool connection_is_usable(const struct connection *conn) {
    return conn->up && !conn->closing;
}

bool endpoint_has_room(const struct endpoint *endpoint) {
    return endpoint->accepted_count < endpoint->options.connections_max;
}

/* Random, so that nobody can name a connection that is not his; the handshake on the bulk link
 * proves it besides. */
void connection_give_id(struct connection *conn) {
    conn->id = proving_random();
}

/* By a number that the asker was given in its control handshake. One that is closing is not found:
 * a bulk link that joined it would never be ended. */
struct connection *endpoint_find(const struct endpoint *endpoint, uint64_t id) {
    struct connection *conn;
    LIST_FOREACH (conn, &endpoint->connections, all)
        if (conn->accepted_here && conn->id == id && !conn->closing)
            return conn;
    return NULL;
}

/* ---- events for the owner ---- */

/* `up` is set first, since the owner may send from within `accepted`. */
bool connection_offer(struct connection *conn) {
    struct endpoint *endpoint = conn->endpoint;
    conn->up = true;
    conn->user = endpoint->events.accepted(endpoint->owner, &conn->handle, conn->hello.data,
                                           conn->hello.bytes);
    conn->announced = conn->user != NULL;
    return conn->announced;
}

void connection_raise_up(struct connection *conn) {
    struct endpoint *endpoint = conn->endpoint;
    conn->up = true;
    endpoint->events.up(endpoint->owner, conn->user, conn->hello.data, conn->hello.bytes);
}

void connection_raise_read_done(struct connection *conn, void *read_user, int status) {
    struct endpoint *endpoint = conn->endpoint;
    if (conn->announced) /* else the owner read from within `accepted` and then refused */
        endpoint->events.read_done(endpoint->owner, conn->user, read_user, status);
}

void connection_raise_progress(struct connection *conn, void *read_user, uint64_t bytes_done,
                               uint64_t prefix_bytes) {
    struct endpoint *endpoint = conn->endpoint;
    endpoint->events.read_progress(endpoint->owner, conn->user, read_user, bytes_done,
                                   prefix_bytes);
}

/* A connection that its owner refused, or never heard of, ends in silence; who it was is in the log
 * of strangers or of the handshake. */
void connection_raise_closed(struct connection *conn) {
    struct endpoint *endpoint = conn->endpoint;
    if (conn->announced)
        endpoint->events.closed(endpoint->owner, conn->user, conn->why);
}

/* ---- the end ---- */

/* What ends a connection often ends it twice (a failed send, then the socket's own error). The
 * first cause is the one that explains. */
void connection_fail(struct connection *conn, int status, const char *format, ...) {
    va_list arguments;
    if (conn->closing)
        return;
    conn->closing = true;
    conn->end_status = status;
    va_start(arguments, format);
    vsnprintf(conn->why, sizeof conn->why, format, arguments);
    va_end(arguments);
    conn->endpoint->medium->stop(conn);
}

void connection_fail_frame(struct connection *conn, const char *what) {
    connection_fail(conn, -EPROTO, "peer sent a bad frame: %s", what);
}

void connection_fail_region(struct connection *conn) {
    connection_fail(conn, -ECONNABORTED, "memory was unregistered under a read");
}
