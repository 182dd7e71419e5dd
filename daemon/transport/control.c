/* SPDX-License-Identifier: Apache-2.0
 *
 * Out: a peer that does not read makes its stream grow, so there is a limit. The owner's messages
 * are refused at send_queue_bytes (-ENOBUFS: the owner can wait, or end the connection). Frames of
 * the transport itself cannot be refused without losing a read, so they may go OWN_FRAMES_BYTES
 * beyond; the medium ends the connection when not even that is enough.
 *
 * In: frames are delivered in place. `on_frame` may end the connection, which ends the delivery.
 */
#include "transport/control.h"

#include <errno.h>
#include <string.h>

/* 1 MiB is room for some 20,000 requests or refusals of reads (about 50 bytes each); a connection
 * has at most 1024 reads under way. */
enum { OWN_FRAMES_BYTES = 1 << 20 };

static int control_check_room(const struct connection *conn, size_t queued_bytes, uint32_t type,
                              size_t frame_bytes) {
    uint64_t limit_bytes = conn->endpoint->options.send_queue_bytes;
    if (type != CONTROL_MESSAGE)
        limit_bytes += OWN_FRAMES_BYTES;
    /* A frame always fits into an empty queue, however low the limit; otherwise a limit below the
     * size of one message would stop the node from saying anything. */
    return queued_bytes == 0 || queued_bytes + frame_bytes <= limit_bytes ? 0 : -ENOBUFS;
}

int control_seal(struct connection *conn, struct seal *seal, size_t queued_bytes, uint32_t type,
                 const struct iovec *parts, int part_count, struct control_frame *out) {
    size_t body_bytes;
    int r = sealed_body_bytes(parts, part_count, &body_bytes);
    if (r == 0)
        r = control_check_room(conn, queued_bytes, type, SEALED_HEADER_BYTES + body_bytes);
    if (r < 0)
        return r;
    sealed_frame_seal(seal, type, parts, part_count, out->header);
    out->parts[0] = (struct iovec){out->header, sizeof out->header};
    if (part_count > 0)
        memcpy(out->parts + 1, parts, (size_t)part_count * sizeof *parts);
    out->part_count = part_count + 1;
    out->bytes = SEALED_HEADER_BYTES + body_bytes;
    if (type == CONTROL_MESSAGE)
        conn->counters.message_bytes_out += body_bytes;
    return 0;
}

void control_raise_message(struct connection *conn, const struct sealed_frame *frame) {
    struct endpoint *endpoint = conn->endpoint;
    conn->counters.message_bytes_in += frame->body_bytes;
    endpoint->events.message(endpoint->owner, conn->user, frame->body, frame->body_bytes);
}

void control_deliver(struct connection *conn, struct seal *seal, struct byte_queue *received,
                     const char *(*check)(uint32_t type, uint32_t body_bytes),
                     control_frame_fn on_frame) {
    struct sealed_frame frame;
    const char *bad;
    while (!conn->closing) {
        switch (sealed_frame_open(seal, received->data + received->begin,
                                  byte_queue_bytes(received), check, &frame, &bad)) {
        case SEALED_FRAME:
            bad = on_frame(conn, &frame);
            byte_queue_consume(received, frame.frame_bytes);
            break;
        case SEALED_MORE:
            /* The size has been checked, so a peer cannot make this more than one message. */
            if (byte_queue_reserve(received, frame.frame_bytes - byte_queue_bytes(received)) < 0)
                connection_fail(conn, -ENOMEM, "out of memory for a message of %zu bytes",
                                frame.frame_bytes);
            return;
        case SEALED_BAD:
            break;
        }
        if (bad != NULL)
            connection_fail_frame(conn, bad);
    }
}
