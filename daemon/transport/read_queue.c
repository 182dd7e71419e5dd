/* SPDX-License-Identifier: Apache-2.0
 *
 * waiting --start--> active --leave--> (reported)
 *
 * The limit of active reads is there for the home: it holds a record of each read that has been
 * asked of it, so a peer gets at most so many. Those that wait cost only us.
 */
#include "transport/read_queue.h"

#include <errno.h>

void read_queue_init(struct read_queue *queue, uint32_t active_max) {
    *queue = (struct read_queue){.active_max = active_max};
    TAILQ_INIT(&queue->active);
    TAILQ_INIT(&queue->waiting);
}

int read_queue_check(const struct connection *conn, const struct transport_read *ask,
                     uint32_t *region_out) {
    if (!connection_is_usable(conn))
        return -ENOTCONN;
    if (ask->key_bytes == 0 || ask->key_bytes > TRANSPORT_KEY_BYTES_MAX)
        return -EINVAL;
    /* The landing range must be registered, so that its removal finds the reads that use it. */
    return regions_find(&conn->endpoint->regions, ask->local, ask->bytes, region_out);
}

void read_queue_add(struct read_queue *queue, struct queued_read *read,
                    const struct transport_read *ask, uint32_t region) {
    read->ask = *ask;
    read->local_region = region;
    TAILQ_INSERT_TAIL(&queue->waiting, read, turn);
    queue->waiting_count++;
}

/* Strictly in order: a small read that came later does not overtake here. It gets its turn against
 * large ones as soon as both are active, chunk by chunk. */
struct queued_read *read_queue_start(struct read_queue *queue) {
    struct queued_read *read = TAILQ_FIRST(&queue->waiting);
    if (read == NULL || queue->active_count >= queue->active_max)
        return NULL;
    TAILQ_REMOVE(&queue->waiting, read, turn);
    TAILQ_INSERT_TAIL(&queue->active, read, turn);
    queue->waiting_count--;
    queue->active_count++;
    return read;
}

void read_queue_to_the_back(struct read_queue *queue, struct queued_read *read) {
    TAILQ_REMOVE(&queue->active, read, turn);
    TAILQ_INSERT_TAIL(&queue->active, read, turn);
}

void read_queue_leave(struct read_queue *queue, struct queued_read *read) {
    TAILQ_REMOVE(&queue->active, read, turn);
    queue->active_count--;
}

uint32_t read_queue_count(const struct read_queue *queue) {
    return queue->active_count + queue->waiting_count;
}

static bool read_queue_list_uses(const struct queued_reads *reads, uint32_t region) {
    const struct queued_read *read;
    TAILQ_FOREACH (read, reads, turn)
        if (read->local_region == region)
            return true;
    return false;
}

/* Those that wait count, too: their landing range would be gone when their turn comes. */
bool read_queue_uses(const struct read_queue *queue, uint32_t region) {
    return read_queue_list_uses(&queue->active, region) ||
           read_queue_list_uses(&queue->waiting, region);
}

/* Each read is taken out and freed before the owner hears of it: in read_done the owner may reuse
 * the landing range, or ask the transport how many reads there are. */
static void read_queue_end_list(struct queued_reads *reads, uint32_t *count,
                                struct connection *conn,
                                void (*free_read)(struct queued_read *read)) {
    struct queued_read *read;
    while ((read = TAILQ_FIRST(reads)) != NULL) {
        void *read_user = read->ask.read_user;
        TAILQ_REMOVE(reads, read, turn);
        (*count)--;
        free_read(read);
        connection_raise_read_done(conn, read_user, conn->end_status);
    }
}

void read_queue_end(struct read_queue *queue, struct connection *conn,
                    void (*free_read)(struct queued_read *read)) {
    read_queue_end_list(&queue->active, &queue->active_count, conn, free_read);
    read_queue_end_list(&queue->waiting, &queue->waiting_count, conn, free_read);
}
