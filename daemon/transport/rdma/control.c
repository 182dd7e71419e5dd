/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control stream. A frame is sealed and queued in one step, so numbers and bytes keep
 * one order. Beside the owner's messages: who may read which region of ours (`serves`). A region's
 * segments are told as they are registered; a region that goes is told, or ends the connections
 * that say they are reading it.
 */
#include "transport/rdma/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/little_endian.h"
#include "transport/control.h"
#include "transport/rdma/conn.h"
#include "transport/rdma/conn_rails.h"
#include "transport/rdma/link.h"
#include "transport/rdma/memory.h"
#include "transport/rdma/reader.h"
#include "transport/rdma/stream.h"

enum {
    /* Regions that one connection may have open. A node has a region per store. */
    SERVES_MAX = 4096,
    HANDLE_BYTES = 4,
    OPENED_BYTES = 16,
    ERRNO_BITS = 4095, /* Linux has none beyond; a peer may write anything there */
};

/* ---- out ---- */

/* A frame of our own that finds no room ends the connection: it says who reads what, and a home
 * that missed one would count reads that are over, or not count some that go on. -ENOMEM ends it
 * because a number of the stream has been used by then. */
int rcontrol_send(struct rdma_conn *conn, enum rwire_type type, const struct iovec *parts,
                  int part_count) {
    struct rdma_link *control = conn->control;
    struct control_frame frame;
    if (conn->base.closing || control == NULL)
        return -ENOTCONN;
    int r = control_seal(&conn->base, &control->out, byte_queue_bytes(&control->stream.unsent),
                         type, parts, part_count, &frame);
    if (r < 0 && type != RWIRE_MESSAGE)
        connection_fail(&conn->base, r, "the peer does not take what we have to say of reads");
    if (r < 0)
        return r;
    if (rstream_write(control, frame.parts, frame.part_count) < 0) {
        connection_fail(&conn->base, -ENOMEM, "out of memory while queueing a message of %zu bytes",
                        frame.bytes);
        return -ENOTCONN;
    }
    rlink_flush(control);
    return conn->base.closing ? -ENOTCONN : 0;
}

static void control_send_body(struct rdma_conn *conn, enum rwire_type type, const void *body,
                              size_t bytes) {
    struct iovec part = {(void *)body, bytes};
    rcontrol_send(conn, type, &part, 1);
}

/* ---- regions of ours ---- */

/* Also sent later for a region that cannot be registered after all: the reader takes it as the end
 * of that handle. */
static void control_send_opened(struct rdma_conn *conn, uint32_t handle, int status,
                                uint64_t bytes) {
    uint8_t body[OPENED_BYTES];
    put32(body, handle);
    put32(body + 4, (uint32_t)-status);
    put64(body + 8, bytes);
    control_send_body(conn, RWIRE_OPENED, body, sizeof body);
}

/* The offset says where the segment lies in the region, the address where it lies in our memory:
 * READs name addresses. Telling a peer addresses of ours is safe as far as it goes; without an rkey
 * and a proven QP they open nothing. */
static void control_send_segment(struct rdma_conn *conn, const struct rdma_serve *serve,
                                 const struct rdma_segment *segment) {
    struct rdma *rdma = conn->rdma;
    uint8_t body[RWIRE_SEGMENT_BYTES + 4 * RWIRE_RAILS_MAX];
    struct rwire_segment out = {
        .handle = serve->handle,
        .rail_count = RAILS_MAX,
        .offset = (uint64_t)(segment->base - rdma->memory[serve->region]->segments[0].base),
        .address = (uintptr_t)segment->base,
        .bytes = segment->bytes,
    };
    for (uint32_t i = 0; i < RAILS_MAX; i++) {
        const struct rdma_device *device = rdma->rails[i].device;
        if (device != NULL && segment->mr[device->index] != NULL)
            out.rkeys[i] = segment->mr[device->index]->rkey;
    }
    control_send_body(conn, RWIRE_SEGMENT, body, rwire_segment_encode(&out, body));
}

/* A list is enough: there is a handle per store that the peer reads from. */
static struct rdma_serve *control_find_serve(struct rdma_conn *conn, uint32_t handle) {
    struct rdma_serve *serve;
    LIST_FOREACH (serve, &conn->serves, link)
        if (serve->handle == handle)
            return serve;
    return NULL;
}

static uint32_t control_count_serves(const struct rdma_conn *conn) {
    const struct rdma_serve *serve;
    uint32_t count = 0;
    LIST_FOREACH (serve, &conn->serves, link)
        count++;
    return count;
}

/* The key is proof that the owner of this transport told this very connection of the region
 * (regions.h). It is resolved for one byte, since the range of each read is checked by the device.
 */
static int control_open_region(struct rdma_conn *conn, uint32_t handle, const uint8_t *key,
                               size_t key_bytes, struct rdma_serve **out) {
    struct rdma *rdma = conn->rdma;
    uint32_t region;
    uint8_t *at;
    int r =
        regions_resolve(&rdma->base.regions, conn->base.number, key, key_bytes, 0, 1, &region, &at);
    if (r < 0)
        return r;
    if (rdma->memory[region]->failed || control_count_serves(conn) >= SERVES_MAX)
        return -ENOMEM;
    struct rdma_serve *serve = calloc(1, sizeof *serve);
    if (serve == NULL)
        return -ENOMEM;
    serve->handle = handle;
    serve->region = region;
    serve->reads = 1; /* the one that it is opened for */
    LIST_INSERT_HEAD(&conn->serves, serve, link);
    *out = serve;
    return 0;
}

/* The segments that are registered everywhere by now follow at once; control_send_segment() for the
 * others comes from memory.c, as they are done. */
static const char *control_on_open(struct rdma_conn *conn, const uint8_t *body, size_t bytes) {
    struct rdma_serve *serve = NULL;
    uint32_t handle = get32(body);
    if (control_find_serve(conn, handle) != NULL)
        return "handle used twice";
    int r = control_open_region(conn, handle, body + HANDLE_BYTES, bytes - HANDLE_BYTES, &serve);
    if (r < 0) {
        control_send_opened(conn, handle, r, 0);
        return NULL;
    }
    const struct rdma_region *region = conn->rdma->memory[serve->region];
    control_send_opened(conn, handle, 0, region->bytes);
    for (uint32_t i = 0; i < region->segment_count && !conn->base.closing; i++)
        if (rmemory_whole(conn->rdma, &region->segments[i]))
            control_send_segment(conn, serve, &region->segments[i]);
    return NULL;
}

/* Reads are counted so that a region is not unregistered under one of an honest peer. A dishonest
 * peer that never says BEGIN harms its own reads alone: its READs fail when the memory is
 * deregistered. */
static void control_on_begin(struct rdma_conn *conn, uint32_t handle) {
    struct rdma_serve *serve = control_find_serve(conn, handle);
    if (serve != NULL) /* it may have gone meanwhile */
        serve->reads++;
}

/* The bytes are the peer's word, for figures only: the home's CPU does not see what is read. */
static void control_on_end(struct rdma_conn *conn, uint32_t handle, uint64_t bytes) {
    struct rdma_serve *serve = control_find_serve(conn, handle);
    if (serve != NULL && serve->reads > 0)
        serve->reads--;
    conn->base.counters.read_bytes_out += bytes;
}

/* To every connection that has the region open; a reader may already be waiting for just this
 * segment. */
void rcontrol_announce(struct rdma *rdma, uint32_t region, const struct rdma_segment *segment) {
    struct rdma_conn *conn;
    const struct rdma_serve *serve;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn))
        LIST_FOREACH (serve, &conn->serves, link)
            if (serve->region == region && !conn->base.closing)
                control_send_segment(conn, serve, segment);
}

/* After a QP has joined a connection that is up: the rail's rkeys, with all others, once more. */
void rcontrol_announce_all(struct rdma_conn *conn) {
    const struct rdma_serve *serve;
    LIST_FOREACH (serve, &conn->serves, link) {
        const struct rdma_region *region = conn->rdma->memory[serve->region];
        for (uint32_t i = 0; i < region->segment_count && !conn->base.closing; i++)
            if (rmemory_whole(conn->rdma, &region->segments[i]))
                control_send_segment(conn, serve, &region->segments[i]);
    }
}

/* Whoever waits for a segment of it would wait for ever otherwise. */
void rcontrol_announce_failure(struct rdma *rdma, uint32_t region) {
    struct rdma_conn *conn;
    const struct rdma_serve *serve;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn))
        LIST_FOREACH (serve, &conn->serves, link)
            if (serve->region == region && !conn->base.closing)
                control_send_opened(conn, serve->handle, -ENOMEM, 0);
}

/* A region that is being read cannot be taken away in peace, so the connection ends; that also
 * destroys the QPs, after which the memory may be unmapped. One that is not being read goes with a
 * word (GONE): the peer must not begin a read by the rkeys that it knows. */
static void control_stop_serving(struct rdma_conn *conn, struct rdma_serve *serve) {
    uint8_t body[HANDLE_BYTES];
    if (serve->reads > 0) {
        connection_fail_region(&conn->base);
        return;
    }
    put32(body, serve->handle);
    LIST_REMOVE(serve, link);
    free(serve);
    control_send_body(conn, RWIRE_GONE, body, sizeof body);
}

/* Sending GONE can end the connection (no room), which empties nothing here: `serves` is freed when
 * the connection is reported. So the walk may go on to the next, and looks at `closing`. */
void rcontrol_region_removed(struct rdma *rdma, uint32_t region) {
    struct rdma_conn *conn;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn)) {
        struct rdma_serve *serve, *next;
        for (serve = LIST_FIRST(&conn->serves); serve != NULL && !conn->base.closing;
             serve = next) {
            next = LIST_NEXT(serve, link);
            if (serve->region == region)
                control_stop_serving(conn, serve);
        }
        if (read_queue_uses(&conn->reads, region))
            connection_fail_region(&conn->base);
    }
}

void rcontrol_end(struct rdma_conn *conn) {
    struct rdma_serve *serve;
    while ((serve = LIST_FIRST(&conn->serves)) != NULL) {
        LIST_REMOVE(serve, link);
        free(serve);
    }
}

/* ---- in ---- */

static const char *control_on_segment(struct rdma_conn *conn, const struct sealed_frame *frame) {
    struct rwire_segment segment;
    const char *bad = rwire_segment_decode(frame->body, frame->body_bytes, &segment);
    if (bad == NULL)
        rreader_on_segment(conn, &segment);
    return bad;
}

/* Whatever only a home that has accepted us can say also says that it has. Its owner may have
 * spoken from within `accepted`, before ACCEPTED was queued. */
static bool control_needs_up(uint32_t type) {
    return type == RWIRE_MESSAGE || type >= RWIRE_OPEN;
}

static const char *control_on_frame(struct connection *base, const struct sealed_frame *frame) {
    struct rdma_conn *conn = container_of(base, struct rdma_conn, base);
    const uint8_t *body = frame->body;
    if (conn->control == NULL || conn->control->phase != RLINK_OPEN)
        return NULL; /* the link of this frame has failed, and another one is being dialled */
    if (control_needs_up(frame->type) && !base->up)
        rconn_on_accepted(conn);
    if (base->closing)
        return NULL;
    switch ((enum rwire_type)frame->type) {
    case RWIRE_MESSAGE:
        control_raise_message(base, frame);
        break;
    case RWIRE_RAILS:
        rconn_on_rails(conn, body, frame->body_bytes);
        break;
    case RWIRE_READY:
        rconn_on_ready(conn);
        break;
    case RWIRE_ACCEPTED:
        rconn_on_accepted(conn);
        break;
    case RWIRE_REFUSED:
        connection_fail(base, -ECONNREFUSED, "the other side refused this broker");
        break;
    case RWIRE_OPEN:
        return control_on_open(conn, body, frame->body_bytes);
    case RWIRE_OPENED:
        rreader_on_opened(conn, get32(body), -(int)(get32(body + 4) & ERRNO_BITS), get64(body + 8));
        break;
    case RWIRE_SEGMENT:
        return control_on_segment(conn, frame);
    case RWIRE_GONE:
        rreader_on_gone(conn, get32(body));
        break;
    case RWIRE_BEGIN:
        control_on_begin(conn, get32(body));
        break;
    case RWIRE_END:
        control_on_end(conn, get32(body), get64(body + 8));
        break;
    }
    return NULL;
}

void rcontrol_received(struct rdma_link *link) {
    control_deliver(&link->conn->base, &link->in, &link->stream.received, rwire_check_size,
                    control_on_frame);
}
