/* SPDX-License-Identifier: Apache-2.0
 *
 * The reads that the owner has asked for on one connection: at most reads_per_connection are active
 * (known to the medium), the others wait in order. How a medium fetches the bytes is its own.
 */
#ifndef FEATURED_TRANSPORT_READ_QUEUE_H
#define FEATURED_TRANSPORT_READ_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/connection.h"
#include "transport/transport.h"

struct queued_read { /* inside the medium's struct of a read */
    TAILQ_ENTRY(queued_read) turn;
    struct transport_read ask;
    uint32_t local_region; /* where it lands */
    uint64_t bytes_done;
};
TAILQ_HEAD(queued_reads, queued_read);

struct read_queue {
    struct queued_reads active, waiting;
    uint32_t active_count, waiting_count, active_max;
};

void read_queue_init(struct read_queue *queue, uint32_t active_max);
/* May the owner read so? 0 and the region of ours where it lands; -ENOTCONN, -EINVAL. */
int read_queue_check(const struct connection *conn, const struct transport_read *ask,
                     uint32_t *region_out);
/* Behind those that wait. ask: copied, its key pointer too. */
void read_queue_add(struct read_queue *queue, struct queued_read *read,
                    const struct transport_read *ask, uint32_t region);
/* Makes the next one active and returns it; NULL: none waits, or enough are active. */
struct queued_read *read_queue_start(struct read_queue *queue);
/* An active one gets the last turn. */
void read_queue_to_the_back(struct read_queue *queue, struct queued_read *read);
/* An active one has ended: it leaves the queue, and the caller frees it and reports it, in this
 * order. Nothing may be written to its landing range by then. */
void read_queue_leave(struct read_queue *queue, struct queued_read *read);
uint32_t read_queue_count(const struct read_queue *queue);
/* Does one of them land in this region? */
bool read_queue_uses(const struct read_queue *queue, uint32_t region);
/* Frees each one and reports it as ended with its connection. */
void read_queue_end(struct read_queue *queue, struct connection *conn,
                    void (*free_read)(struct queued_read *read));

#endif
