/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads by the other side. Each is in `serves`, taken in turn: its next chunk leaves, then it goes
 * to the back, so a small read never waits for a huge one. `sending` is the read whose chunk is
 * going out; header and data leave in one sendmsg, the data straight from the region. Per turn of
 * the loop a connection sends at most one chunk's worth of bytes, so that the messages of all
 * connections are looked at in between.
 *
 * A chunk that has begun goes out whole, whatever happens to the lease of the sample: the memory
 * stays as it is until the layer above has seen the read's end, and a region that is removed ends
 * the connections that read it (tcp_server_uses).
 */
#include "transport/tcp/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/control.h"
#include "transport/tcp/link.h"

/* A refusal that finds no room would leave the reader waiting for ever, so the connection ends. */
static void server_refuse(struct tcp_conn *conn, uint64_t id, int status) {
    uint8_t body[WIRE_READ_FAILED_BYTES];
    wire_read_failed_encode(id, status, body);
    struct iovec part = {body, sizeof body};
    if (tcp_control_send(conn, WIRE_READ_FAILED, &part, 1) == -ENOBUFS)
        connection_fail(&conn->base, -ENOBUFS, "peer asks for reads and does not take the answers");
}

const char *tcp_server_add(struct tcp_conn *conn, const struct wire_read *read) {
    uint32_t region;
    uint8_t *at;
    if (conn->serve_count >= WIRE_READS_MAX)
        return "more reads under way than allowed";
    int r = regions_resolve(&conn->tcp->base.regions, conn->base.number, read->key, read->key_bytes,
                            read->offset, read->bytes, &region, &at);
    struct tcp_serve *serve = r == 0 ? malloc(sizeof *serve) : NULL;
    if (serve == NULL) {
        server_refuse(conn, read->id, r < 0 ? r : -ENOMEM);
        return NULL;
    }
    *serve =
        (struct tcp_serve){.id = read->id, .bytes_left = read->bytes, .region = region, .next = at};
    TAILQ_INSERT_TAIL(&conn->serves, serve, turn);
    conn->serve_count++;
    return NULL;
}

/* The header is sealed when its chunk begins, not when the read is asked for: tags number the
 * chunks on the socket in the order in which they leave. */
static void server_start_chunk(struct tcp_conn *conn) {
    struct tcp_serve *serve = TAILQ_FIRST(&conn->serves);
    uint32_t chunk_bytes = conn->tcp->base.options.chunk_bytes;
    struct wire_chunk chunk = {
        .id = serve->id,
        .offset = serve->offset,
        .bytes = serve->bytes_left < chunk_bytes ? (uint32_t)serve->bytes_left : chunk_bytes,
    };
    wire_chunk_seal(&conn->bulk->out, &chunk, conn->chunk_out);
    conn->sending = serve;
    conn->sending_left = chunk.bytes;
    conn->chunk_out_sent = 0;
}

/* The read goes to the back of the line, unless that was its last chunk. */
static void server_end_chunk(struct tcp_conn *conn) {
    struct tcp_serve *serve = conn->sending;
    conn->sending = NULL;
    TAILQ_REMOVE(&conn->serves, serve, turn);
    if (serve->bytes_left > 0) {
        TAILQ_INSERT_TAIL(&conn->serves, serve, turn);
        return;
    }
    conn->serve_count--;
    free(serve);
}

/* What has gone out may end in the header, in the data, or with the chunk. */
static void server_sent(struct tcp_conn *conn, size_t bytes) {
    struct tcp_serve *serve = conn->sending;
    size_t header = WIRE_CHUNK_HEADER_BYTES - conn->chunk_out_sent;
    header = bytes < header ? bytes : header;
    size_t data = bytes - header;
    conn->chunk_out_sent += header;
    conn->sending_left -= (uint32_t)data; /* at most what was given to sendmsg() */
    conn->base.counters.read_bytes_out += data;
    serve->next += data;
    serve->offset += data;
    serve->bytes_left -= data;
    if (conn->sending_left == 0)
        server_end_chunk(conn);
}

/* One sendmsg of the chunk's rest. Bytes sent; 0 when the socket is full or the connection has
 * ended. MSG_NOSIGNAL: a peer that has gone is an error of this connection, not a SIGPIPE for the
 * daemon. */
static size_t server_send_some(struct tcp_conn *conn, bool *full_out) {
    if (conn->sending == NULL)
        server_start_chunk(conn);
    struct iovec parts[] = {
        {conn->chunk_out + conn->chunk_out_sent, WIRE_CHUNK_HEADER_BYTES - conn->chunk_out_sent},
        {(void *)conn->sending->next, conn->sending_left},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t count = sendmsg(conn->bulk->fd, &message, MSG_NOSIGNAL);
    *full_out = count < (ssize_t)(parts[0].iov_len + parts[1].iov_len);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        tcp_control_fail_errno(conn, "send", errno);
    if (count <= 0)
        return 0;
    server_sent(conn, (size_t)count);
    return (size_t)count;
}

void tcp_server_send(struct tcp_conn *conn) {
    size_t budget = conn->tcp->base.options.chunk_bytes;
    bool full = false;
    while (budget > 0 && conn->serve_count > 0 && !full && !conn->base.closing) {
        size_t count = server_send_some(conn, &full);
        budget -= count < budget ? count : budget;
    }
    if (!conn->base.closing)
        tcp_link_watch(conn->bulk, UV_WRITABLE, conn->serve_count > 0);
}

bool tcp_server_uses(const struct tcp_conn *conn, uint32_t region) {
    const struct tcp_serve *serve;
    TAILQ_FOREACH (serve, &conn->serves, turn)
        if (serve->region == region)
            return true;
    return false;
}

void tcp_server_end(struct tcp_conn *conn) {
    struct tcp_serve *serve;
    conn->sending = NULL;
    while ((serve = TAILQ_FIRST(&conn->serves)) != NULL) {
        TAILQ_REMOVE(&conn->serves, serve, turn);
        conn->serve_count--;
        free(serve);
    }
}
