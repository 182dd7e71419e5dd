/* SPDX-License-Identifier: Apache-2.0
 *
 * Our reads. A read is `waiting` until fewer than reads_per_connection are active, then `active`:
 * in turn, each gives its next chunk to the next rail with room, so a small read never waits for a
 * huge one and a slow rail takes less. A chunk stays inside one piece of their region and one
 * segment of ours. Chunks go out in batches with one signalled completion each, which speaks for
 * all before it on that QP (completions are in order).
 *
 * Chunks of a rail that fails come back as `again` and are read on the others: its QP has been
 * destroyed by then, so nothing of it lands any more. A read leaves `active` before read_done is
 * raised.
 *
 * The key of a region is exchanged once for handle, range and rkeys (OPEN); a read whose piece is
 * not registered yet, here or there, waits for it.
 */
#include "transport/rdma/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/little_endian.h"
#include "transport/rdma/control.h"
#include "transport/rdma/link.h"
#include "transport/rdma/memory.h"
#include "transport/rdma/turn.h"

/* A rail has at most WINDOW_CHUNKS full chunks under way, in batches of half of that, so that one
 * batch runs while the next is posted. More would not be faster (4 MiB is the delay of a whole
 * millisecond at 32 Gbit/s) but late: a small read waits behind all of it, and where the network is
 * slow, its answer comes after the QP's ACK timeout, which repeats everything. */
enum { BATCH_MAX = 4, WINDOW_CHUNKS = 4 };

struct batch {
    struct ibv_send_wr wr[BATCH_MAX];
    struct ibv_sge place[BATCH_MAX];
    uint32_t count;
    uint64_t bytes;
};

static struct rdma_read *reader_of(struct queued_read *base) {
    return container_of(base, struct rdma_read, base);
}

/* ---- openings ---- */

static struct rdma_opening *reader_find_handle(struct rdma_conn *conn, uint32_t handle) {
    struct rdma_opening *opening;
    TAILQ_FOREACH (opening, &conn->openings, link)
        if (opening->handle == handle)
            return opening;
    return NULL;
}

/* One that is gone is no match: a region that was removed and made again has another key, and the
 * old handle stays only for the reads that still hold it. */
static struct rdma_opening *reader_find_key(struct rdma_conn *conn, const void *key, size_t bytes) {
    struct rdma_opening *opening;
    TAILQ_FOREACH (opening, &conn->openings, link)
        if (!opening->gone && opening->key_bytes == bytes && memcmp(opening->key, key, bytes) == 0)
            return opening;
    return NULL;
}

/* The exchange costs a round trip, so it is made once per region and connection, and all reads of
 * the region share its outcome. */
static struct rdma_opening *reader_open_key(struct rdma_conn *conn, const void *key,
                                            size_t key_bytes) {
    struct rdma_opening *opening = calloc(1, sizeof *opening + key_bytes);
    uint8_t handle[4];
    if (opening == NULL)
        return NULL;
    opening->handle = conn->next_handle++;
    opening->key_bytes = key_bytes;
    memcpy(opening->key, key, key_bytes);
    TAILQ_INSERT_TAIL(&conn->openings, opening, link);
    put32(handle, opening->handle);
    struct iovec parts[] = {{handle, sizeof handle}, {opening->key, key_bytes}};
    rcontrol_send(conn, RWIRE_OPEN, parts, 2);
    return opening;
}

static void reader_free_opening(struct rdma_conn *conn, struct rdma_opening *opening) {
    TAILQ_REMOVE(&conn->openings, opening, link);
    free(opening->pieces);
    free(opening);
}

/* The last read leaves, and an opening that is of no use for new reads goes with it. */
static void reader_leave_opening(struct rdma_conn *conn, struct rdma_opening *opening) {
    if (--opening->reads == 0 && opening->gone)
        reader_free_opening(conn, opening);
}

/* For new reads it does not exist any more. Reads that have posted something are left to finish:
 * the home ends the connection if it cannot have that. */
static void reader_end_opening(struct rdma_conn *conn, struct rdma_opening *opening, int status) {
    opening->answered = true;
    opening->gone = true;
    opening->status = status;
    if (opening->reads == 0)
        reader_free_opening(conn, opening);
}

/* An answer to a handle that is gone already is no error: GONE and OPENED may cross. */
void rreader_on_opened(struct rdma_conn *conn, uint32_t handle, int status, uint64_t bytes) {
    struct rdma_opening *opening = reader_find_handle(conn, handle);
    if (opening == NULL)
        return;
    if (status < 0) {
        reader_end_opening(conn, opening, status);
    } else {
        opening->answered = true;
        opening->bytes = bytes;
    }
    rreader_run(conn);
}

void rreader_on_gone(struct rdma_conn *conn, uint32_t handle) {
    struct rdma_opening *opening = reader_find_handle(conn, handle);
    if (opening != NULL)
        reader_end_opening(conn, opening, -EINVAL);
    rreader_run(conn);
}

/* A segment that is told again (a rail more, a device exchanged) replaces what was known of it. */
static struct rdma_piece *reader_place_of_piece(struct rdma_opening *opening, uint64_t offset) {
    for (uint32_t i = 0; i < opening->piece_count; i++)
        if (opening->pieces[i].offset == offset)
            return &opening->pieces[i];
    struct rdma_piece *pieces =
        reallocarray(opening->pieces, opening->piece_count + 1, sizeof *pieces);
    if (pieces == NULL)
        return NULL;
    opening->pieces = pieces;
    return &pieces[opening->piece_count++];
}

/* Nothing of it is believed that could lead us to write outside a landing range: the range of a
 * READ on our side comes from the read alone. A home that lies about its own addresses gives us
 * bytes that fail their checksum, or an access error on its own device. */
void rreader_on_segment(struct rdma_conn *conn, const struct rwire_segment *segment) {
    struct rdma_opening *opening = reader_find_handle(conn, segment->handle);
    if (opening == NULL || opening->gone)
        return;
    if (!opening->answered || segment->offset > opening->bytes ||
        segment->bytes > opening->bytes - segment->offset) {
        connection_fail(&conn->base, -EPROTO, "peer sent a bad frame: segment outside its region");
        return;
    }
    struct rdma_piece *piece = reader_place_of_piece(opening, segment->offset);
    if (piece == NULL) {
        connection_fail(&conn->base, -ENOMEM, "out of memory for the list of a region's segments");
        return;
    }
    *piece = (struct rdma_piece){segment->offset, segment->address, segment->bytes, {0}};
    memcpy(piece->rkeys, segment->rkeys, sizeof piece->rkeys);
    rreader_run(conn);
}

/* The device behind that rail of theirs may have been exchanged, and the same number may be another
 * registration's there. Until the keys are told again the rail carries nothing. */
void rreader_forget_keys(struct rdma_conn *conn, uint32_t their_rail) {
    struct rdma_opening *opening;
    TAILQ_FOREACH (opening, &conn->openings, link)
        for (uint32_t i = 0; i < opening->piece_count; i++)
            opening->pieces[i].rkeys[their_rail] = 0;
}

static const struct rdma_piece *reader_piece_at(const struct rdma_opening *opening,
                                                uint64_t offset) {
    for (uint32_t i = 0; i < opening->piece_count; i++)
        if (offset >= opening->pieces[i].offset &&
            offset - opening->pieces[i].offset < opening->pieces[i].bytes)
            return &opening->pieces[i];
    return NULL;
}

/* ---- chunks ---- */

static uint64_t reader_least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* Fills in the READ of a chunk; false: not on this rail, or not yet. The chunk gets shorter if it
 * would go over the end of a piece of theirs or of a segment of ours: one READ has one rkey and one
 * lkey. The rkey is that of the rail that this QP ends at over there; the lkey that of the device
 * that it begins at here. */
static bool reader_aim(const struct rdma_link *link, struct rdma_chunk *chunk,
                       struct ibv_send_wr *wr, struct ibv_sge *place) {
    const struct rdma_read *read = chunk->read;
    const struct rdma_piece *piece =
        reader_piece_at(read->opening, read->base.ask.remote_offset + chunk->offset);
    uint8_t *local = (uint8_t *)read->base.ask.local + chunk->offset;
    const struct rdma_segment *segment =
        rmemory_at(link->rdma, read->base.local_region, local, link->device);
    if (piece == NULL || segment == NULL || piece->rkeys[link->their_rail] == 0)
        return false;
    uint64_t at = read->base.ask.remote_offset + chunk->offset - piece->offset;
    uint64_t room =
        reader_least(piece->bytes - at, segment->bytes - (uint64_t)(local - segment->base));
    chunk->bytes = (uint32_t)reader_least(chunk->bytes, room);
    *place =
        (struct ibv_sge){(uintptr_t)local, chunk->bytes, segment->mr[link->device->index]->lkey};
    *wr = (struct ibv_send_wr){.sg_list = place, .num_sge = 1, .opcode = IBV_WR_RDMA_READ};
    wr->wr.rdma.remote_addr = piece->address + at;
    wr->wr.rdma.rkey = piece->rkeys[link->their_rail];
    return true;
}

/* Of what a failed rail left. This rail may have to cut the chunk where the lost one did not: the
 * rest stays in front, so that the read fills up from its beginning and its prefix grows
 * (read_progress). */
static struct rdma_chunk *reader_take_again(struct rdma_link *link, struct ibv_send_wr *wr,
                                            struct ibv_sge *place) {
    struct rdma_conn *conn = link->conn;
    struct rdma_chunk *chunk = TAILQ_FIRST(&conn->again);
    uint32_t bytes = chunk->bytes;
    if (!reader_aim(link, chunk, wr, place))
        return NULL;
    if (chunk->bytes < bytes) {
        struct rdma_chunk *rest = malloc(sizeof *rest);
        if (rest == NULL) {
            chunk->bytes = bytes;
            return NULL;
        }
        *rest = (struct rdma_chunk){.read = chunk->read,
                                    .offset = chunk->offset + chunk->bytes,
                                    .bytes = bytes - chunk->bytes};
        TAILQ_INSERT_AFTER(&conn->again, chunk, rest, link);
    }
    TAILQ_REMOVE(&conn->again, chunk, link);
    return chunk;
}

/* The range is checked against the region's size as the home told it, without sums that could wrap.
 * A read that is out of range has nothing to post, ever, and reader_find_refused() finds it. */
static bool reader_has_more(const struct rdma_read *read) {
    return read->opening->answered && !read->opening->gone &&
           read->bytes_posted < read->base.ask.bytes &&
           read->base.ask.remote_offset < read->opening->bytes &&
           read->base.ask.bytes <= read->opening->bytes - read->base.ask.remote_offset;
}

/* Said once, before the first READ is posted: the control stream and the READs are on different
 * QPs, so the home may still see them the other way round. That is why it must not trust this for
 * safety, and does not: see control_on_begin(). */
static void reader_begin(struct rdma_conn *conn, struct rdma_read *read) {
    uint8_t handle[4];
    if (read->begun)
        return;
    read->begun = true;
    put32(handle, read->opening->handle);
    struct iovec part = {handle, sizeof handle};
    rcontrol_send(conn, RWIRE_BEGIN, &part, 1);
}

/* The next chunk of the first read in turn that has one for this rail; the read goes to the back. A
 * read whose next piece is not registered yet is passed over, and keeps its turn. */
static struct rdma_chunk *reader_take_new(struct rdma_link *link, struct ibv_send_wr *wr,
                                          struct ibv_sge *place) {
    struct rdma_conn *conn = link->conn;
    struct queued_read *queued;
    struct rdma_chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return NULL;
    TAILQ_FOREACH (queued, &conn->reads.active, turn) {
        struct rdma_read *read = reader_of(queued);
        if (!reader_has_more(read))
            continue;
        uint64_t left = read->base.ask.bytes - read->bytes_posted;
        *chunk = (struct rdma_chunk){
            .read = read,
            .offset = read->bytes_posted,
            .bytes = (uint32_t)reader_least(left, conn->rdma->base.options.chunk_bytes),
        };
        if (!reader_aim(link, chunk, wr, place))
            continue;
        reader_begin(conn, read);
        read->bytes_posted += chunk->bytes;
        read_queue_to_the_back(&conn->reads, queued);
        return chunk;
    }
    free(chunk);
    return NULL;
}

/* Adds one chunk to the rail's batch; false: no room, or nothing for it. The chunk is in `posted`
 * from here on, before it is posted: if posting fails, the link ends, and all of `posted` is read
 * again elsewhere. Posting on an empty rail starts the clock of link_is_stalled(). */
static bool reader_add_chunk(struct rdma_link *link, struct batch *batch) {
    uint32_t i = batch->count;
    uint64_t window_bytes = (uint64_t)WINDOW_CHUNKS * link->rdma->base.options.chunk_bytes;
    if (i == BATCH_MAX || link->posted_count == link->posted_max ||
        batch->bytes >= window_bytes / 2 || link->posted_bytes >= window_bytes)
        return false;
    struct rdma_chunk *chunk = NULL;
    if (!TAILQ_EMPTY(&link->conn->again))
        chunk = reader_take_again(link, &batch->wr[i], &batch->place[i]);
    if (chunk == NULL)
        chunk = reader_take_new(link, &batch->wr[i], &batch->place[i]);
    if (chunk == NULL)
        return false;
    if (link->posted_count == 0)
        link->progress_ms = uv_now(link->rdma->base.loop);
    chunk->number = link->next_number++;
    batch->wr[i].wr_id = chunk->number;
    if (i > 0)
        batch->wr[i - 1].next = &batch->wr[i];
    TAILQ_INSERT_TAIL(&link->posted, chunk, link);
    link->posted_count++;
    link->posted_bytes += chunk->bytes;
    batch->count++;
    batch->bytes += chunk->bytes;
    return true;
}

/* Only the last READ of the batch asks for a completion. READs of one QP complete in order, so it
 * speaks for all of them, and the device raises a quarter of the events. */
static void reader_post_batch(struct rdma_link *link, struct batch *batch) {
    struct ibv_send_wr *bad;
    if (batch->count == 0)
        return;
    batch->wr[batch->count - 1].send_flags = IBV_SEND_SIGNALED;
    int error = ibv_post_send(link->qp, batch->wr, &bad);
    if (error != 0)
        rlink_fail(link, -error, "cannot post a READ: %s", strerror(error));
}

/* One batch per rail; false: nobody had room or need. Chunks are dealt out one to each rail in
 * turn, not batch by batch: two rails share even a read of two chunks. A slow rail has its window
 * full more often and is passed over, so it takes less. */
static bool reader_post_round(struct rdma_conn *conn) {
    struct batch batches[RAILS_MAX];
    bool dealt, any = false;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        batches[i].bytes = batches[i].count = 0;
    do {
        dealt = false;
        for (uint32_t i = 0; i < RAILS_MAX; i++) {
            struct rdma_link *link = conn->bulk[i];
            if (link != NULL && link->phase == RLINK_OPEN && !conn->base.closing)
                dealt |= reader_add_chunk(link, &batches[i]);
        }
        any |= dealt;
    } while (dealt);
    for (uint32_t i = 0; i < RAILS_MAX && !conn->base.closing; i++)
        if (conn->bulk[i] != NULL)
            reader_post_batch(conn->bulk[i], &batches[i]);
    return any;
}

/* Rounds go on until no rail has room: the window of a rail takes two batches. */
void rreader_post(struct rdma_conn *conn) {
    while (read_queue_start(&conn->reads) != NULL)
        ; /* it is active now; the rounds below give it its chunks */
    while (!conn->base.closing && conn->reads.active_count > 0 && reader_post_round(conn))
        rdma_watch_time(conn->rdma);
}

/* ---- the owner's side ---- */

/* A read that will be refused is not refused from in here, because read_done must not be raised
 * inside an operation: rdma_soon() comes back to it. */
int rreader_add(struct rdma_conn *conn, const struct transport_read *ask) {
    uint32_t region;
    int r = read_queue_check(&conn->base, ask, &region);
    if (r < 0)
        return r;
    if (conn->rdma->memory[region]->failed)
        return -ENOMEM;
    struct rdma_opening *opening = reader_find_key(conn, ask->key, ask->key_bytes);
    struct rdma_read *read = calloc(1, sizeof *read);
    if (read != NULL)
        read->begun = opening == NULL; /* OPEN says so */
    if (read != NULL && opening == NULL)
        opening = reader_open_key(conn, ask->key, ask->key_bytes);
    if (read == NULL || opening == NULL) {
        free(read);
        return -ENOMEM;
    }
    read->opening = opening;
    opening->reads++;
    read_queue_add(&conn->reads, &read->base, ask, region);
    rreader_post(conn);
    if (opening->answered && !reader_has_more(read) && read->bytes_posted == 0)
        rdma_soon(conn->rdma); /* it will be refused */
    return 0;
}

/* END before read_done: what the owner does next (release the lease, say) must not overtake the
 * word that the read is over. Both go over the control stream, in this order. */
static void reader_finish(struct rdma_conn *conn, struct rdma_read *read, int status) {
    void *read_user = read->base.ask.read_user;
    read_queue_leave(&conn->reads, &read->base);
    if (read->begun) {
        uint8_t body[16] = {0};
        put32(body, read->opening->handle);
        put64(body + 8, read->base.bytes_done);
        struct iovec part = {body, sizeof body};
        rcontrol_send(conn, RWIRE_END, &part, 1);
    }
    reader_leave_opening(conn, read->opening);
    free(read);
    connection_raise_read_done(&conn->base, read_user, status);
}

/* A read that can never start: its key or range is wrong, or its region has gone. Only reads that
 * have posted nothing are looked at, for nothing of them can still land. */
static struct rdma_read *reader_find_refused(struct rdma_conn *conn) {
    struct queued_read *queued;
    TAILQ_FOREACH (queued, &conn->reads.active, turn) {
        struct rdma_read *read = reader_of(queued);
        if (read->opening->answered && read->bytes_posted == 0 && !reader_has_more(read))
            return read;
    }
    return NULL;
}

/* Each read that ends makes room for one that waited, and the owner may do anything in read_done:
 * so the search begins anew each time. */
void rreader_run(struct rdma_conn *conn) {
    struct rdma_read *read;
    if (conn->base.closing)
        return;
    rreader_post(conn);
    while (!conn->base.closing && (read = reader_find_refused(conn)) != NULL) {
        reader_finish(conn, read, read->opening->status < 0 ? read->opening->status : -EINVAL);
        if (!conn->base.closing)
            rreader_post(conn);
    }
}

/* Where the first of these chunks begins, if it is a chunk of the read before `end`; else `end`. */
static uint64_t reader_before_chunks(const struct rdma_chunks *chunks, const struct rdma_read *read,
                                     uint64_t end) {
    const struct rdma_chunk *chunk;
    TAILQ_FOREACH (chunk, chunks, link)
        if (chunk->read == read && chunk->offset < end)
            end = chunk->offset;
    return end;
}

/* What has been posted, up to the first chunk that is still under way or to be read again. */
static uint64_t reader_prefix_bytes(const struct rdma_conn *conn, const struct rdma_read *read) {
    uint64_t end = reader_before_chunks(&conn->again, read, read->bytes_posted);
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (conn->bulk[i] != NULL)
            end = reader_before_chunks(&conn->bulk[i]->posted, read, end);
    return end;
}

/* The device has written the bytes before it raises the completion, and ibv_poll_cq() has seen
 * that, so the owner may look at them. */
static void reader_chunk_landed(struct rdma_conn *conn, struct rdma_chunk *chunk) {
    struct rdma_read *read = chunk->read;
    read->base.bytes_done += chunk->bytes;
    conn->base.counters.read_bytes_in += chunk->bytes;
    free(chunk);
    if (read->base.bytes_done == read->base.ask.bytes)
        reader_finish(conn, read, 0);
    else
        connection_raise_progress(&conn->base, read->base.ask.read_user, read->base.bytes_done,
                                  reader_prefix_bytes(conn, read));
}

/* Reporting may end the connection, which moves `posted` to `again`: the list is looked at anew
 * each time. */
void rreader_on_landed(struct rdma_link *link, uint64_t number) {
    struct transport_rail_info *info = &link->conn->rail_info[link->rail];
    struct rdma_chunk *chunk;
    link->progress_ms = uv_now(link->rdma->base.loop);
    while ((chunk = TAILQ_FIRST(&link->posted)) != NULL && chunk->number <= number) {
        TAILQ_REMOVE(&link->posted, chunk, link);
        link->posted_count--;
        link->posted_bytes -= chunk->bytes;
        info->reads++;
        info->bytes_in += chunk->bytes;
        reader_chunk_landed(link->conn, chunk);
    }
}

/* They are put behind the chunks that other rails have left. The link is closed by now, so none of
 * them can land twice. */
void rreader_rail_lost(struct rdma_link *link) {
    TAILQ_CONCAT(&link->conn->again, &link->posted, link);
    link->posted_count = 0;
    link->posted_bytes = 0;
}

/* ---- the end ---- */

static void reader_free(struct queued_read *read) {
    free(reader_of(read));
}

/* The QPs have been destroyed before (rconn_stop), so no landing range is written to after this. */
void rreader_end(struct rdma_conn *conn) {
    struct rdma_chunk *chunk;
    while ((chunk = TAILQ_FIRST(&conn->again)) != NULL) {
        TAILQ_REMOVE(&conn->again, chunk, link);
        free(chunk);
    }
    read_queue_end(&conn->reads, &conn->base, reader_free);
    while (!TAILQ_EMPTY(&conn->openings))
        reader_free_opening(conn, TAILQ_FIRST(&conn->openings));
}
