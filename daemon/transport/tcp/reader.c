/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reads. A read is `waiting` (no slot free yet), or in reads[slot] with its request sent;
 * chunks of the reads under way come interleaved on the bulk socket, those of one read in order.
 * Bytes are received into their final place: a chunk's data and the header behind it in one
 * recvmsg. `landing` is the read whose chunk is coming in. A read leaves its slot before read_done
 * is raised, so nothing is written after that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/tcp_internal.h"

/* At least this much is taken per turn of the loop, were chunks ever so small. */
enum { BYTES_PER_TURN_MIN = 1024 * 1024 };

static void reader_request(struct tcp_conn *conn, struct tcp_read *read, uint32_t slot) {
    struct wire_read body = {.offset = read->ask.remote_offset, .bytes = read->ask.bytes};
    uint8_t encoded[WIRE_READ_BYTES];
    read->id = conn->next_round++ * conn->tcp->options.reads_per_connection + slot;
    body.id = read->id;
    wire_read_encode(&body, encoded);
    conn->reads[slot] = read;
    conn->reads_active++;
    struct iovec parts[] = {{encoded, sizeof encoded}, {read->key, read->ask.key_bytes}};
    int r = tcp_control_send(conn, WIRE_READ, parts, 2);
    if (r < 0)
        tcp_conn_fail(conn, r, "cannot queue a read request: %zu bytes are waiting to be sent",
                      conn->unsent.end - conn->unsent.begin);
}

static void reader_request_waiting(struct tcp_conn *conn) {
    uint32_t slots = conn->tcp->options.reads_per_connection;
    for (uint32_t slot = 0; slot < slots && conn->reads_waiting > 0 && !conn->closing; slot++) {
        if (conn->reads[slot] != NULL)
            continue;
        struct tcp_read *read = TAILQ_FIRST(&conn->waiting);
        TAILQ_REMOVE(&conn->waiting, read, waiting);
        conn->reads_waiting--;
        reader_request(conn, read, slot);
    }
}

int tcp_reader_add(struct tcp_conn *conn, const struct transport_read *ask) {
    uint32_t region;
    if (!tcp_conn_usable(conn))
        return -ENOTCONN;
    if (ask->key_bytes == 0 || ask->key_bytes > TRANSPORT_KEY_BYTES_MAX)
        return -EINVAL;
    int r = regions_find(&conn->tcp->regions, ask->local, ask->bytes, &region);
    if (r < 0)
        return r;
    struct tcp_read *read = calloc(1, sizeof *read + ask->key_bytes);
    if (read == NULL)
        return -ENOMEM;
    read->ask = *ask;
    read->local_region = region;
    memcpy(read->key, ask->key, ask->key_bytes);
    read->ask.key = read->key;
    TAILQ_INSERT_TAIL(&conn->waiting, read, waiting);
    conn->reads_waiting++;
    if (conn->reads_active < conn->tcp->options.reads_per_connection)
        reader_request_waiting(conn);
    return 0;
}

static struct tcp_read **reader_find(struct tcp_conn *conn, uint64_t id) {
    struct tcp_read **slot = &conn->reads[id % conn->tcp->options.reads_per_connection];
    return *slot != NULL && (*slot)->id == id ? slot : NULL;
}

static void reader_finish(struct tcp_conn *conn, struct tcp_read **slot, int status) {
    struct tcp *tcp = conn->tcp;
    struct tcp_read *read = *slot;
    void *read_user = read->ask.read_user;
    *slot = NULL;
    conn->reads_active--;
    free(read);
    tcp->events.read_done(tcp->owner, conn->user, read_user, status);
    if (!conn->closing)
        reader_request_waiting(conn);
}

void tcp_reader_refused(struct tcp_conn *conn, uint64_t id, int status) {
    struct tcp_read **slot = reader_find(conn, id);
    if (slot == NULL || (*slot)->bytes_done > 0 || conn->landing == *slot)
        tcp_conn_fail_frame(conn, "refusal of a read that is not waiting for its first byte");
    else
        reader_finish(conn, slot, status);
}

/* ---- landing ---- */

static void reader_start_chunk(struct tcp_conn *conn) {
    struct wire_chunk chunk;
    const char *bad = wire_chunk_open(&conn->bulk->in, conn->chunk_in, &chunk);
    if (bad != NULL) {
        tcp_conn_fail_frame(conn, bad);
        return;
    }
    struct tcp_read **slot = reader_find(conn, chunk.id);
    if (slot == NULL)
        tcp_conn_fail_frame(conn, "chunk of a read that was not asked for");
    else if (chunk.offset != (*slot)->bytes_done ||
             chunk.bytes > (*slot)->ask.bytes - (*slot)->bytes_done)
        tcp_conn_fail_frame(conn, "chunk out of the order or range of its read");
    else {
        conn->landing = *slot;
        conn->landing_left = chunk.bytes;
        conn->chunk_in_bytes = 0;
    }
}

static void reader_end_chunk(struct tcp_conn *conn) {
    struct tcp *tcp = conn->tcp;
    struct tcp_read *read = conn->landing;
    conn->landing = NULL;
    if (read->bytes_done == read->ask.bytes)
        reader_finish(conn, reader_find(conn, read->id), 0);
    else
        tcp->events.read_progress(tcp->owner, conn->user, read->ask.read_user, read->bytes_done,
                                  read->bytes_done);
}

/* Accounts for bytes that have just landed: first the chunk's, then those of the header behind it.
 */
static void reader_landed(struct tcp_conn *conn, size_t bytes) {
    if (conn->landing != NULL) {
        uint32_t part = bytes < conn->landing_left ? (uint32_t)bytes : conn->landing_left;
        conn->landing->bytes_done += part;
        conn->landing_left -= part;
        conn->counters.read_bytes_in += part;
        bytes -= part;
        if (conn->landing_left == 0)
            reader_end_chunk(conn);
    }
    conn->chunk_in_bytes += bytes;
    if (!conn->closing && conn->chunk_in_bytes == WIRE_CHUNK_HEADER_BYTES)
        reader_start_chunk(conn);
}

/* Where the next bytes go; returns how many there may be. */
static size_t reader_next_places(struct tcp_conn *conn, struct iovec places[2], size_t *count_out) {
    size_t count = 0;
    struct tcp_read *read = conn->landing;
    if (read != NULL)
        places[count++] =
            (struct iovec){(uint8_t *)read->ask.local + read->bytes_done, conn->landing_left};
    places[count++] = (struct iovec){conn->chunk_in + conn->chunk_in_bytes,
                                     WIRE_CHUNK_HEADER_BYTES - conn->chunk_in_bytes};
    *count_out = count;
    return places[0].iov_len + (count == 2 ? places[1].iov_len : 0);
}

void tcp_reader_ready(struct tcp_conn *conn) {
    size_t budget = conn->tcp->options.chunk_bytes;
    budget = budget < BYTES_PER_TURN_MIN ? BYTES_PER_TURN_MIN : budget;
    while (budget > 0 && !conn->closing) {
        struct iovec places[2];
        struct msghdr message = {.msg_iov = places};
        size_t room = reader_next_places(conn, places, &message.msg_iovlen);
        ssize_t got = recvmsg(conn->bulk->fd, &message, 0);
        if (!tcp_conn_received(conn, got))
            return;
        reader_landed(conn, (size_t)got);
        if ((size_t)got < room) /* the socket is empty */
            return;
        budget -= (size_t)got < budget ? (size_t)got : budget;
    }
}

/* ---- the end ---- */

bool tcp_reader_uses(const struct tcp_conn *conn, uint32_t region) {
    const struct tcp_read *read;
    for (uint32_t slot = 0; slot < conn->tcp->options.reads_per_connection; slot++)
        if (conn->reads[slot] != NULL && conn->reads[slot]->local_region == region)
            return true;
    TAILQ_FOREACH (read, &conn->waiting, waiting)
        if (read->local_region == region)
            return true;
    return false;
}

static void reader_report_end(struct tcp_conn *conn, struct tcp_read *read) {
    struct tcp *tcp = conn->tcp;
    void *read_user = read->ask.read_user;
    free(read);
    if (conn->announced)
        tcp->events.read_done(tcp->owner, conn->user, read_user, conn->end_status);
}

void tcp_reader_end(struct tcp_conn *conn) {
    struct tcp_read *read;
    conn->landing = NULL;
    for (uint32_t slot = 0; slot < conn->tcp->options.reads_per_connection; slot++)
        if (conn->reads[slot] != NULL) {
            read = conn->reads[slot];
            conn->reads[slot] = NULL;
            conn->reads_active--;
            reader_report_end(conn, read);
        }
    while ((read = TAILQ_FIRST(&conn->waiting)) != NULL) {
        TAILQ_REMOVE(&conn->waiting, read, waiting);
        conn->reads_waiting--;
        reader_report_end(conn, read);
    }
}
