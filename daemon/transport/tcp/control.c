/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control socket. Out: written at once while nothing is waiting; what the socket does
 * not take is copied to `unsent` and leaves when there is room, in order. In: `received` holds the
 * bytes of at most one incomplete frame and what came behind it; frames are delivered in place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/tcp_internal.h"

enum {
    RECEIVE_BYTES = 128 * 1024, /* grows to the size of a larger frame */
    /* Receives per turn of the loop: a peer that floods us does not keep the others waiting. */
    RECEIVES_PER_TURN = 8,
    /* Requests and refusals of reads are few; they may go beyond the owner's limit by this much. */
    OWN_FRAMES_BYTES = WIRE_READS_MAX * (SEALED_HEADER_BYTES + WIRE_READ_BYTES + 64),
};

/* ---- out ---- */

/* Keeps what is behind the first `skip` bytes of the parts. */
static int control_keep_unsent(struct tcp_conn *conn, const struct iovec *parts, int count,
                               size_t skip) {
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].iov_len;
    if (byte_queue_reserve(&conn->unsent, total - skip) < 0)
        return -ENOMEM;
    for (int i = 0; i < count; i++) {
        size_t skipped = skip < parts[i].iov_len ? skip : parts[i].iov_len;
        size_t kept = parts[i].iov_len - skipped;
        skip -= skipped;
        byte_queue_append(&conn->unsent, (const uint8_t *)parts[i].iov_base + skipped, kept);
    }
    return 0;
}

static int control_check_room(const struct tcp_conn *conn, enum wire_type type,
                              size_t frame_bytes) {
    uint64_t queued = byte_queue_bytes(&conn->unsent), limit = conn->tcp->options.send_queue_bytes;
    if (type != WIRE_MESSAGE)
        limit += OWN_FRAMES_BYTES;
    /* A frame always fits into an empty queue, however low the limit. */
    return queued == 0 || queued + frame_bytes <= limit ? 0 : -ENOBUFS;
}

/* The sealed frame goes out, or to `unsent`. Failing now ends the connection: a number has been
 * used up. */
static int control_write_frame(struct tcp_conn *conn, const struct iovec *frame, int count,
                               size_t bytes) {
    struct tcp_link *link = conn->control;
    ssize_t sent = 0;
    if (byte_queue_bytes(&conn->unsent) == 0) {
        struct msghdr message = {.msg_iov = (struct iovec *)frame, .msg_iovlen = (size_t)count};
        sent = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        tcp_conn_fail_errno(conn, "send", errno);
        return -ENOTCONN;
    }
    sent = sent < 0 ? 0 : sent;
    if ((size_t)sent == bytes)
        return 0;
    if (control_keep_unsent(conn, frame, count, (size_t)sent) < 0) {
        tcp_conn_fail(conn, -ENOMEM, "out of memory while queueing a message of %zu bytes", bytes);
        return -ENOTCONN;
    }
    tcp_link_watch(link, UV_WRITABLE, conn->up);
    return 0;
}

int tcp_control_send(struct tcp_conn *conn, enum wire_type type, const struct iovec *parts,
                     int part_count) {
    struct iovec frame[TRANSPORT_PARTS_MAX + 1];
    uint8_t header[SEALED_HEADER_BYTES];
    size_t bytes;
    int r = sealed_body_bytes(parts, part_count, &bytes);
    if (r == 0)
        r = control_check_room(conn, type, sizeof header + bytes);
    if (r < 0)
        return r;
    sealed_frame_seal(&conn->control->out, type, parts, part_count, header);
    frame[0] = (struct iovec){header, sizeof header};
    if (part_count > 0)
        memcpy(frame + 1, parts, (size_t)part_count * sizeof *parts);
    r = control_write_frame(conn, frame, part_count + 1, sizeof header + bytes);
    if (r == 0 && type == WIRE_MESSAGE)
        conn->counters.message_bytes_out += bytes;
    return r;
}

static void control_send_unsent(struct tcp_conn *conn) {
    struct byte_queue *unsent = &conn->unsent;
    if (byte_queue_bytes(unsent) > 0) {
        ssize_t sent = send(conn->control->fd, unsent->data + unsent->begin,
                            byte_queue_bytes(unsent), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            tcp_conn_fail_errno(conn, "send", errno);
            return;
        }
        if (sent > 0)
            byte_queue_consume(unsent, (size_t)sent);
    }
    tcp_link_watch(conn->control, UV_WRITABLE, byte_queue_bytes(unsent) > 0);
}

/* ---- in ---- */

static void control_on_frame(struct tcp_conn *conn, const struct sealed_frame *frame) {
    struct tcp *tcp = conn->tcp;
    struct wire_read read;
    uint64_t id;
    int status;
    const char *bad = NULL;
    switch ((enum wire_type)frame->type) {
    case WIRE_MESSAGE:
        conn->counters.message_bytes_in += frame->body_bytes;
        tcp->events.message(tcp->owner, conn->user, frame->body, frame->body_bytes);
        break;
    case WIRE_READ:
        bad = wire_read_decode(frame->body, frame->body_bytes, &read);
        if (bad == NULL)
            tcp_server_add(conn, &read);
        break;
    case WIRE_READ_FAILED:
        bad = wire_read_failed_decode(frame->body, frame->body_bytes, &id, &status);
        if (bad == NULL)
            tcp_reader_refused(conn, id, status);
        break;
    }
    if (bad != NULL)
        tcp_conn_fail_frame(conn, bad);
}

/* Delivers every whole frame; makes room for the rest of the one that is not. */
static void control_deliver_frames(struct tcp_conn *conn) {
    struct byte_queue *received = &conn->received;
    struct sealed_frame frame;
    const char *why;
    while (!conn->closing) {
        switch (wire_frame_open(&conn->control->in, received->data + received->begin,
                                byte_queue_bytes(received), &frame, &why)) {
        case SEALED_FRAME:
            control_on_frame(conn, &frame);
            byte_queue_consume(received, frame.frame_bytes);
            break;
        case SEALED_MORE:
            if (byte_queue_reserve(received, frame.frame_bytes - byte_queue_bytes(received)) < 0)
                tcp_conn_fail(conn, -ENOMEM, "out of memory for a message of %zu bytes",
                              frame.frame_bytes);
            return;
        case SEALED_BAD:
            tcp_conn_fail_frame(conn, why);
            return;
        }
    }
}

static void control_receive(struct tcp_conn *conn) {
    struct byte_queue *received = &conn->received;
    if (received->capacity == 0 && byte_queue_reserve(received, RECEIVE_BYTES) < 0) {
        tcp_conn_fail(conn, -ENOMEM, "out of memory for the receive buffer");
        return;
    }
    for (int turn = 0; turn < RECEIVES_PER_TURN && !conn->closing; turn++) {
        size_t room = received->capacity - received->end;
        ssize_t got = recv(conn->control->fd, received->data + received->end, room, 0);
        if (!tcp_conn_received(conn, got))
            return;
        received->end += (size_t)got;
        control_deliver_frames(conn);
        if ((size_t)got < room) /* the socket is empty */
            return;
    }
}

void tcp_control_ready(struct tcp_conn *conn, int events) {
    if (events & UV_READABLE)
        control_receive(conn);
    if (events & UV_WRITABLE && !conn->closing)
        control_send_unsent(conn);
    if (!conn->closing && conn->serve_count > 0)
        tcp_server_send(conn);
}
