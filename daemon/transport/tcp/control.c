/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on the control socket (transport/control.h says what they have in common with RDMA's).
 * Out: written at once while nothing is waiting; what the socket does not take is copied to
 * `unsent` and leaves when there is room, in order. In: `received` holds the bytes of at most one
 * incomplete frame and what came behind it; frames are delivered in place.
 */
#include "transport/tcp/control.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "transport/control.h"
#include "transport/tcp/link.h"
#include "transport/tcp/reader.h"
#include "transport/tcp/server.h"

enum {
    /* Of the receive buffer at first; it grows to the size of a larger frame. Most messages are
     * below 4 KiB, so one recv() takes what a busy peer has sent since the last turn. */
    RECEIVE_BYTES = 128 * 1024,
    /* Receives per turn of the loop: a peer that floods us does not keep the others waiting. */
    RECEIVES_PER_TURN = 8,
};

/* ---- errors of the sockets ---- */

/* "connect to 10.0.0.1:7000: connection refused" */
void tcp_control_fail_errno(struct tcp_conn *conn, const char *doing, int error) {
    char text[96];
    snprintf(text, sizeof text, "%s", strerror(error));
    text[0] = (char)tolower((unsigned char)text[0]);
    if (conn->open)
        connection_fail(&conn->base, -error, "%s: %s", doing, text);
    else
        connection_fail(&conn->base, -error, "%s %s: %s", doing, conn->place.text, text);
}

bool tcp_control_came(struct tcp_conn *conn, ssize_t got) {
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        tcp_control_fail_errno(conn, "receive", errno);
    if (got == 0)
        connection_fail(&conn->base, -ECONNRESET, "the other side closed the connection");
    return got > 0;
}

/* ---- out ---- */

/* Keeps what is behind the first `skip` bytes of the frame. */
static int control_keep_unsent(struct tcp_conn *conn, const struct control_frame *frame,
                               size_t skip) {
    if (byte_queue_reserve(&conn->unsent, frame->bytes - skip) < 0)
        return -ENOMEM;
    for (int i = 0; i < frame->part_count; i++) {
        const struct iovec *part = &frame->parts[i];
        size_t skipped = skip < part->iov_len ? skip : part->iov_len;
        skip -= skipped;
        byte_queue_append(&conn->unsent, (const uint8_t *)part->iov_base + skipped,
                          part->iov_len - skipped);
    }
    return 0;
}

/* The frame goes out, or to `unsent`. */
static int control_write(struct tcp_conn *conn, struct control_frame *frame) {
    struct tcp_link *link = conn->control;
    ssize_t sent = 0;
    if (byte_queue_bytes(&conn->unsent) == 0) {
        struct msghdr message = {.msg_iov = frame->parts, .msg_iovlen = (size_t)frame->part_count};
        sent = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        tcp_control_fail_errno(conn, "send", errno);
        return -ENOTCONN;
    }
    sent = sent < 0 ? 0 : sent;
    if ((size_t)sent == frame->bytes)
        return 0;
    if (control_keep_unsent(conn, frame, (size_t)sent) < 0) {
        connection_fail(&conn->base, -ENOMEM, "out of memory while queueing a message of %zu bytes",
                        frame->bytes);
        return -ENOTCONN;
    }
    /* From within `accepted` the socket is not watched yet; conn_become_open() does it then. */
    tcp_link_watch(link, UV_WRITABLE, conn->open);
    return 0;
}

int tcp_control_send(struct tcp_conn *conn, enum wire_type type, const struct iovec *parts,
                     int part_count) {
    struct control_frame frame;
    int r = control_seal(&conn->base, &conn->control->out, byte_queue_bytes(&conn->unsent), type,
                         parts, part_count, &frame);
    return r == 0 ? control_write(conn, &frame) : r;
}

/* One send() per event: what is left keeps the socket watched. */
static void control_send_unsent(struct tcp_conn *conn) {
    struct byte_queue *unsent = &conn->unsent;
    if (byte_queue_bytes(unsent) > 0) {
        ssize_t sent = send(conn->control->fd, unsent->data + unsent->begin,
                            byte_queue_bytes(unsent), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            tcp_control_fail_errno(conn, "send", errno);
            return;
        }
        if (sent > 0)
            byte_queue_consume(unsent, (size_t)sent);
    }
    tcp_link_watch(conn->control, UV_WRITABLE, byte_queue_bytes(unsent) > 0);
}

/* ---- in ---- */

/* Types that do not exist have been refused with their size (wire_check_size). */
static const char *control_on_frame(struct connection *base, const struct sealed_frame *frame) {
    struct tcp_conn *conn = container_of(base, struct tcp_conn, base);
    struct wire_read read;
    uint64_t id;
    int status;
    const char *bad = NULL;
    switch ((enum wire_type)frame->type) {
    case WIRE_MESSAGE:
        control_raise_message(base, frame);
        break;
    case WIRE_READ:
        bad = wire_read_decode(frame->body, frame->body_bytes, &read);
        if (bad == NULL)
            bad = tcp_server_add(conn, &read);
        break;
    case WIRE_READ_FAILED:
        bad = wire_read_failed_decode(frame->body, frame->body_bytes, &id, &status);
        if (bad == NULL)
            bad = tcp_reader_refused(conn, id, status);
        break;
    }
    return bad;
}

/* The buffer is made when the first byte comes, so connections that never speak cost none.
 * control_deliver() leaves room for at least the rest of a frame, so recv() is never asked for 0
 * bytes, which would look like the end of the connection. */
static void control_receive(struct tcp_conn *conn) {
    struct byte_queue *received = &conn->received;
    if (received->capacity == 0 && byte_queue_reserve(received, RECEIVE_BYTES) < 0) {
        connection_fail(&conn->base, -ENOMEM, "out of memory for the receive buffer");
        return;
    }
    for (int turn = 0; turn < RECEIVES_PER_TURN && !conn->base.closing; turn++) {
        size_t room = received->capacity - received->end;
        ssize_t got = recv(conn->control->fd, received->data + received->end, room, 0);
        if (!tcp_control_came(conn, got))
            return;
        received->end += (size_t)got;
        control_deliver(&conn->base, &conn->control->in, received, wire_check_size,
                        control_on_frame);
        if ((size_t)got < room) /* the socket is empty */
            return;
    }
}

void tcp_control_ready(struct tcp_conn *conn, int events) {
    if (events & UV_READABLE)
        control_receive(conn);
    if (events & UV_WRITABLE && !conn->base.closing)
        control_send_unsent(conn);
}
