/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control stream. A frame is sealed and queued in one step, so numbers and bytes keep
 * one order. Beside the owner's messages: who may read which region of ours (`serves`). A region's
 * segments are told as they are registered; a region that goes is told, or ends the connections
 * that say they are reading it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/little_endian.h"
#include "transport/rdma/rdma_internal.h"

enum {
    SERVES_MAX = 4096,
    OWN_FRAMES_BYTES = 1 << 20, /* ours may go beyond the owner's limit by so much */
    HANDLE_BYTES = 4,
    OPENED_BYTES = 16,
};

static void control_fail_frame(struct rdma_conn *conn, const char *what) {
    rconn_fail(conn, -EPROTO, "peer sent a bad frame: %s", what);
}

/* ---- out ---- */

static int control_check_room(const struct rdma_conn *conn, enum rwire_type type, size_t bytes) {
    uint64_t queued = byte_queue_bytes(&conn->control->stream.unsent);
    uint64_t limit = conn->rdma->options.send_queue_bytes;
    if (type != RWIRE_MESSAGE)
        limit += OWN_FRAMES_BYTES;
    /* A frame always fits into an empty queue, however low the limit. */
    return queued == 0 || queued + bytes <= limit ? 0 : -ENOBUFS;
}

static int control_queue(struct rdma_conn *conn, enum rwire_type type, const struct iovec *parts,
                         int part_count) {
    struct iovec frame[TRANSPORT_PARTS_MAX + 1];
    uint8_t header[SEALED_HEADER_BYTES];
    sealed_frame_seal(&conn->control->out, type, parts, part_count, header);
    frame[0] = (struct iovec){header, sizeof header};
    if (part_count > 0)
        memcpy(frame + 1, parts, (size_t)part_count * sizeof *parts);
    return rstream_write(conn->control, frame, part_count + 1);
}

int rcontrol_send(struct rdma_conn *conn, enum rwire_type type, const struct iovec *parts,
                  int part_count) {
    size_t bytes;
    if (conn->closing || conn->control == NULL)
        return -ENOTCONN;
    int r = sealed_body_bytes(parts, part_count, &bytes);
    if (r == 0)
        r = control_check_room(conn, type, SEALED_HEADER_BYTES + bytes);
    if (r < 0 && type != RWIRE_MESSAGE)
        rconn_fail(conn, r, "the peer does not take what we have to say of reads");
    if (r < 0)
        return r;
    if (control_queue(conn, type, parts, part_count) < 0) { /* a number has been used up */
        rconn_fail(conn, -ENOMEM, "out of memory while queueing a message of %zu bytes", bytes);
        return -ENOTCONN;
    }
    if (type == RWIRE_MESSAGE)
        conn->counters.message_bytes_out += bytes;
    rstream_flush(conn->control);
    return conn->closing ? -ENOTCONN : 0;
}

static void control_send_body(struct rdma_conn *conn, enum rwire_type type, const void *body,
                              size_t bytes) {
    struct iovec part = {(void *)body, bytes};
    rcontrol_send(conn, type, &part, 1);
}

/* ---- regions of ours ---- */

static void control_send_opened(struct rdma_conn *conn, uint32_t handle, int status,
                                uint64_t bytes) {
    uint8_t body[OPENED_BYTES];
    put32(body, handle);
    put32(body + 4, (uint32_t)-status);
    put64(body + 8, bytes);
    control_send_body(conn, RWIRE_OPENED, body, sizeof body);
}

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

static int control_open_region(struct rdma_conn *conn, uint32_t handle, const uint8_t *key,
                               size_t key_bytes, struct rdma_serve **out) {
    struct rdma *rdma = conn->rdma;
    uint32_t region;
    uint8_t *at;
    int r = regions_resolve(&rdma->regions, conn->number, key, key_bytes, 0, 1, &region, &at);
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

static void control_on_open(struct rdma_conn *conn, const uint8_t *body, size_t bytes) {
    struct rdma_serve *serve = NULL;
    uint32_t handle = get32(body);
    if (control_find_serve(conn, handle) != NULL) {
        control_fail_frame(conn, "handle used twice");
        return;
    }
    int r = control_open_region(conn, handle, body + HANDLE_BYTES, bytes - HANDLE_BYTES, &serve);
    if (r < 0) {
        control_send_opened(conn, handle, r, 0);
        return;
    }
    const struct rdma_region *region = conn->rdma->memory[serve->region];
    control_send_opened(conn, handle, 0, region->bytes);
    for (uint32_t i = 0; i < region->segment_count && !conn->closing; i++)
        if (rmemory_whole(conn->rdma, &region->segments[i]))
            control_send_segment(conn, serve, &region->segments[i]);
}

static void control_on_begin(struct rdma_conn *conn, uint32_t handle) {
    struct rdma_serve *serve = control_find_serve(conn, handle);
    if (serve != NULL) /* it may have gone meanwhile */
        serve->reads++;
}

static void control_on_end(struct rdma_conn *conn, uint32_t handle, uint64_t bytes) {
    struct rdma_serve *serve = control_find_serve(conn, handle);
    if (serve != NULL && serve->reads > 0)
        serve->reads--;
    conn->counters.read_bytes_out += bytes;
}

void rcontrol_announce(struct rdma *rdma, uint32_t region, const struct rdma_segment *segment) {
    struct rdma_conn *conn;
    const struct rdma_serve *serve;
    LIST_FOREACH (conn, &rdma->conns, all)
        LIST_FOREACH (serve, &conn->serves, link)
            if (serve->region == region && !conn->closing)
                control_send_segment(conn, serve, segment);
}

void rcontrol_announce_all(struct rdma_conn *conn) {
    const struct rdma_serve *serve;
    LIST_FOREACH (serve, &conn->serves, link) {
        const struct rdma_region *region = conn->rdma->memory[serve->region];
        for (uint32_t i = 0; i < region->segment_count && !conn->closing; i++)
            if (rmemory_whole(conn->rdma, &region->segments[i]))
                control_send_segment(conn, serve, &region->segments[i]);
    }
}

void rcontrol_announce_failure(struct rdma *rdma, uint32_t region) {
    struct rdma_conn *conn;
    const struct rdma_serve *serve;
    LIST_FOREACH (conn, &rdma->conns, all)
        LIST_FOREACH (serve, &conn->serves, link)
            if (serve->region == region && !conn->closing)
                control_send_opened(conn, serve->handle, -ENOMEM, 0);
}

static void control_stop_serving(struct rdma_conn *conn, struct rdma_serve *serve) {
    uint8_t body[HANDLE_BYTES];
    if (serve->reads > 0) {
        rconn_fail(conn, -ECONNABORTED, "memory was unregistered under a read");
        return;
    }
    put32(body, serve->handle);
    LIST_REMOVE(serve, link);
    free(serve);
    control_send_body(conn, RWIRE_GONE, body, sizeof body);
}

void rcontrol_region_removed(struct rdma *rdma, uint32_t region) {
    struct rdma_conn *conn;
    LIST_FOREACH (conn, &rdma->conns, all) {
        struct rdma_serve *serve, *next;
        for (serve = LIST_FIRST(&conn->serves); serve != NULL && !conn->closing; serve = next) {
            next = LIST_NEXT(serve, link);
            if (serve->region == region)
                control_stop_serving(conn, serve);
        }
        if (!conn->closing && rreader_uses(conn, region))
            rconn_fail(conn, -ECONNABORTED, "memory was unregistered under a read");
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

static void control_on_message(struct rdma_conn *conn, const struct sealed_frame *frame) {
    struct rdma *rdma = conn->rdma;
    conn->counters.message_bytes_in += frame->body_bytes;
    rdma->events.message(rdma->owner, conn->user, frame->body, frame->body_bytes);
}

static void control_on_segment(struct rdma_conn *conn, const struct sealed_frame *frame) {
    struct rwire_segment segment;
    const char *bad = rwire_segment_decode(frame->body, frame->body_bytes, &segment);
    if (bad != NULL)
        control_fail_frame(conn, bad);
    else
        rreader_on_segment(conn, &segment);
}

static void control_on_frame(struct rdma_conn *conn, const struct sealed_frame *frame) {
    const uint8_t *body = frame->body;
    bool needs_up = frame->type == RWIRE_MESSAGE || frame->type >= RWIRE_OPEN;
    if (needs_up && !conn->up) /* the home's owner spoke from within `accepted` */
        rconn_on_accepted(conn);
    if (conn->closing)
        return;
    switch ((enum rwire_type)frame->type) {
    case RWIRE_MESSAGE:
        control_on_message(conn, frame);
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
        rconn_fail(conn, -ECONNREFUSED, "the other side refused this broker");
        break;
    case RWIRE_OPEN:
        control_on_open(conn, body, frame->body_bytes);
        break;
    case RWIRE_OPENED:
        rreader_on_opened(conn, get32(body), -(int)(get32(body + 4) & 4095), get64(body + 8));
        break;
    case RWIRE_SEGMENT:
        control_on_segment(conn, frame);
        break;
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
}

void rcontrol_received(struct rdma_conn *conn) {
    struct rdma_link *control = conn->control;
    struct byte_queue *received = &control->stream.received;
    struct sealed_frame frame;
    const char *why;
    while (!conn->closing && control->phase == RLINK_OPEN) {
        switch (rwire_open(&control->in, received->data + received->begin,
                           byte_queue_bytes(received), &frame, &why)) {
        case SEALED_FRAME:
            control_on_frame(conn, &frame);
            byte_queue_consume(received, frame.frame_bytes);
            break;
        case SEALED_MORE:
            return;
        case SEALED_BAD:
            control_fail_frame(conn, why);
            return;
        }
    }
}
