/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets a client has not taken yet, in order, each with at most one descriptor. Owns copies of
 * both. Bounded: a client that stops reading costs at most this much.
 */
#ifndef FEATURED_LOCAL_SEND_QUEUE_H
#define FEATURED_LOCAL_SEND_QUEUE_H

#include <stddef.h>
#include <stdint.h>

struct send_packet {
    struct send_packet *next;
    int fd; /* -1 = none */
    size_t bytes;
    uint8_t data[];
};

struct send_queue {
    struct send_packet *first, **last;
    uint64_t queued_bytes, limit_bytes; /* bookkeeping of each packet included */
};

/* What a packet counts for in queued_bytes. */
uint64_t send_queue_cost_bytes(size_t bytes);
void send_queue_init(struct send_queue *queue, uint64_t limit_bytes);
void send_queue_deinit(struct send_queue *queue);

/* Copies data and duplicates fd (-1 = none). 0; -ENOBUFS beyond the limit; -ENOMEM, -EMFILE, ... */
int send_queue_push(struct send_queue *queue, const void *data, size_t bytes, int fd);
/* The oldest packet, NULL when empty. */
const struct send_packet *send_queue_front(const struct send_queue *queue);
void send_queue_pop(struct send_queue *queue);

#endif
