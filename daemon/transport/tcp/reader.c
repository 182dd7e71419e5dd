/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reads. A read is `waiting` (read_queue.h), or in slots[slot] with its request sent; chunks of
 * the reads under way come interleaved on the bulk socket, those of one read in order. Bytes are
 * received into their final place: a chunk's data and the header behind it in one recvmsg.
 * `landing` is the read whose chunk is coming in. A read leaves its slot before read_done is
 * raised, so nothing is written after that.
 *
 * The home cuts a read into chunks of its own choice, so that it can serve several readers in turn.
 * Nothing of what it says is believed: a chunk must be of a read in a slot, at the offset where
 * that read stands, and no longer than its rest. So a hostile home can write nowhere but into the
 * landing range of a read that was asked of it, and the checksum of the sample tells about that.
 */
#include "transport/tcp/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/control.h"

/* At least this much is taken per turn of the loop, were chunks ever so small. */
enum { BYTES_PER_TURN_MIN = 1024 * 1024 };

static struct tcp_read *reader_of(struct queued_read *base) {
    return container_of(base, struct tcp_read, base);
}

int tcp_reader_init(struct tcp_conn *conn) {
    uint32_t count = conn->tcp->base.options.reads_per_connection;
    read_queue_init(&conn->reads, count);
    conn->slots = calloc(count, sizeof(*conn->slots));
    return conn->slots != NULL ? 0 : -ENOMEM;
}

void tcp_reader_deinit(struct tcp_conn *conn) {
    free(conn->slots);
}

/* ---- asking ---- */

/* A read has just become active, so fewer than reads_per_connection slots are taken. */
static uint32_t reader_find_free_slot(const struct tcp_conn *conn) {
    uint32_t slot = 0;
    while (conn->slots[slot] != NULL)
        slot++;
    return slot;
}

static void reader_request(struct tcp_conn *conn, struct tcp_read *read) {
    const struct transport_read *ask = &read->base.ask;
    struct wire_read body = {.offset = ask->remote_offset, .bytes = ask->bytes};
    uint8_t encoded[WIRE_READ_BYTES];
    uint32_t slot = reader_find_free_slot(conn);
    read->id = conn->next_round++ * conn->tcp->base.options.reads_per_connection + slot;
    body.id = read->id;
    wire_read_encode(&body, encoded);
    conn->slots[slot] = read;
    struct iovec parts[] = {{encoded, sizeof encoded}, {read->key, ask->key_bytes}};
    int r = tcp_control_send(conn, WIRE_READ, parts, 2);
    if (r < 0)
        connection_fail(&conn->base, r,
                        "cannot queue a read request: %zu bytes are waiting to be sent",
                        byte_queue_bytes(&conn->unsent));
}

static void reader_request_waiting(struct tcp_conn *conn) {
    struct queued_read *read;
    while (!conn->base.closing && (read = read_queue_start(&conn->reads)) != NULL)
        reader_request(conn, reader_of(read));
}

int tcp_reader_add(struct tcp_conn *conn, const struct transport_read *ask) {
    uint32_t region;
    int r = read_queue_check(&conn->base, ask, &region);
    if (r < 0)
        return r;
    struct tcp_read *read = calloc(1, sizeof *read + ask->key_bytes);
    if (read == NULL)
        return -ENOMEM;
    memcpy(read->key, ask->key, ask->key_bytes); /* the owner's is his own again */
    read_queue_add(&conn->reads, &read->base, ask, region);
    reader_request_waiting(conn);
    return 0;
}

/* The id names the slot, so finding a read costs nothing, and its round keeps a late chunk of an
 * older read in the same slot from being taken for this one's. */
static struct tcp_read **reader_find(struct tcp_conn *conn, uint64_t id) {
    struct tcp_read **slot = &conn->slots[id % conn->tcp->base.options.reads_per_connection];
    return *slot != NULL && (*slot)->id == id ? slot : NULL;
}

static void reader_finish(struct tcp_conn *conn, struct tcp_read **slot, int status) {
    struct tcp_read *read = *slot;
    void *read_user = read->base.ask.read_user;
    *slot = NULL;
    read_queue_leave(&conn->reads, &read->base);
    free(read);
    connection_raise_read_done(&conn->base, read_user, status);
    reader_request_waiting(conn);
}

/* A read that has begun to land cannot be refused any more: its first bytes may already have been
 * handed on by the owner (read_progress). */
const char *tcp_reader_refused(struct tcp_conn *conn, uint64_t id, int status) {
    struct tcp_read **slot = reader_find(conn, id);
    if (slot == NULL || (*slot)->base.bytes_done > 0 || conn->landing == *slot)
        return "refusal of a read that is not waiting for its first byte";
    reader_finish(conn, slot, status);
    return NULL;
}

/* ---- landing ---- */

/* The header of a chunk is complete. */
static void reader_start_chunk(struct tcp_conn *conn) {
    struct wire_chunk chunk;
    const char *bad = wire_chunk_open(&conn->bulk->in, conn->chunk_in, &chunk);
    if (bad != NULL) {
        connection_fail_frame(&conn->base, bad);
        return;
    }
    struct tcp_read **slot = reader_find(conn, chunk.id);
    const struct queued_read *read = slot != NULL ? &(*slot)->base : NULL;
    if (read == NULL)
        connection_fail_frame(&conn->base, "chunk of a read that was not asked for");
    else if (chunk.offset != read->bytes_done || chunk.bytes > read->ask.bytes - read->bytes_done)
        connection_fail_frame(&conn->base, "chunk out of the order or range of its read");
    else {
        conn->landing = *slot;
        conn->landing_left = chunk.bytes;
        conn->chunk_in_bytes = 0;
    }
}

/* The chunks of one read come in order, so the prefix that has landed is all that has landed. */
static void reader_end_chunk(struct tcp_conn *conn) {
    struct tcp_read *read = conn->landing;
    uint64_t bytes_done = read->base.bytes_done;
    conn->landing = NULL;
    if (bytes_done == read->base.ask.bytes)
        reader_finish(conn, reader_find(conn, read->id), 0);
    else
        connection_raise_progress(&conn->base, read->base.ask.read_user, bytes_done, bytes_done);
}

/* Accounts for bytes that have just landed: first the chunk's, then those of the header behind it.
 */
static void reader_landed(struct tcp_conn *conn, size_t bytes) {
    if (conn->landing != NULL) {
        uint32_t part = bytes < conn->landing_left ? (uint32_t)bytes : conn->landing_left;
        conn->landing->base.bytes_done += part;
        conn->landing_left -= part;
        conn->base.counters.read_bytes_in += part;
        bytes -= part;
        if (conn->landing_left == 0)
            reader_end_chunk(conn);
    }
    conn->chunk_in_bytes += bytes;
    if (!conn->base.closing && conn->chunk_in_bytes == WIRE_CHUNK_HEADER_BYTES)
        reader_start_chunk(conn);
}

/* Where the next bytes go; returns how many there may be. The header behind a chunk is asked for
 * together with the chunk's end: that saves a recvmsg() per chunk, and more is not taken, because
 * only the header says where the bytes behind it belong. */
static size_t reader_next_places(struct tcp_conn *conn, struct iovec places[2], size_t *count_out) {
    size_t count = 0;
    const struct tcp_read *read = conn->landing;
    if (read != NULL)
        places[count++] = (struct iovec){(uint8_t *)read->base.ask.local + read->base.bytes_done,
                                         conn->landing_left};
    places[count++] = (struct iovec){conn->chunk_in + conn->chunk_in_bytes,
                                     WIRE_CHUNK_HEADER_BYTES - conn->chunk_in_bytes};
    *count_out = count;
    return places[0].iov_len + (count == 2 ? places[1].iov_len : 0);
}

void tcp_reader_ready(struct tcp_conn *conn) {
    size_t budget = conn->tcp->base.options.chunk_bytes;
    budget = budget < BYTES_PER_TURN_MIN ? BYTES_PER_TURN_MIN : budget;
    while (budget > 0 && !conn->base.closing) {
        struct iovec places[2];
        struct msghdr message = {.msg_iov = places};
        size_t room = reader_next_places(conn, places, &message.msg_iovlen);
        ssize_t got = recvmsg(conn->bulk->fd, &message, 0);
        if (!tcp_control_came(conn, got))
            return;
        reader_landed(conn, (size_t)got);
        if ((size_t)got < room) /* the socket is empty */
            return;
        budget -= (size_t)got < budget ? (size_t)got : budget;
    }
}

/* ---- the end ---- */

static void reader_free(struct queued_read *read) {
    free(reader_of(read));
}

void tcp_reader_end(struct tcp_conn *conn) {
    conn->landing = NULL;
    memset(conn->slots, 0, conn->tcp->base.options.reads_per_connection * sizeof(*conn->slots));
    read_queue_end(&conn->reads, &conn->base, reader_free);
}
