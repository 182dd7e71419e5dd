/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control stream of a connection, whatever carries the stream: the owner's messages
 * and the transport's own frames (requests and refusals of reads, lists of rails ...), sealed one
 * after the other in one order. The transport brings the bytes in and out.
 */
#ifndef FEATURED_TRANSPORT_CONTROL_H
#define FEATURED_TRANSPORT_CONTROL_H

#include "transport/byte_queue.h"
#include "transport/connection.h"
#include "transport/sealed_frame.h"

/* The type of the owner's messages, in each medium; other types are the medium's. */
enum { CONTROL_MESSAGE = 1 };

struct control_frame { /* a sealed frame on its way out */
    uint8_t header[SEALED_HEADER_BYTES];
    struct iovec parts[TRANSPORT_PARTS_MAX + 1]; /* the header, then the body; not copied */
    int part_count;
    size_t bytes;
};

/* Seals a frame. queued_bytes: those that the stream still holds. 0, -EMSGSIZE, or -ENOBUFS when
 * the peer does not take what has been said so far. After 0 a number of the stream has been used:
 * if the frame cannot leave, the connection must end, for each later frame would fail its tag. */
int control_seal(struct connection *conn, struct seal *seal, size_t queued_bytes, uint32_t type,
                 const struct iovec *parts, int part_count, struct control_frame *out);

/* What a medium does with a frame of its own, or of type CONTROL_MESSAGE. NULL, or what is wrong
 * with it. */
typedef const char *(*control_frame_fn)(struct connection *conn, const struct sealed_frame *frame);
/* Delivers each whole frame that is in `received`, until the connection ends, and makes room for
 * the rest of one that is not whole. check: as of sealed_frame_open(). */
void control_deliver(struct connection *conn, struct seal *seal, struct byte_queue *received,
                     const char *(*check)(uint32_t type, uint32_t body_bytes),
                     control_frame_fn on_frame);
/* Hands the owner a message. */
void control_raise_message(struct connection *conn, const struct sealed_frame *frame);

#endif
