/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes that wait: appended behind, taken from the front. Pure. The bytes from `begin` to `end` are
 * in one piece.
 */
#ifndef FEATURED_PEER_BYTE_QUEUE_H
#define FEATURED_PEER_BYTE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

struct byte_queue {
    uint8_t *data;
    size_t begin, end, capacity;
};

static inline size_t byte_queue_bytes(const struct byte_queue *queue) {
    return queue->end - queue->begin;
}

void byte_queue_deinit(struct byte_queue *queue);
/* Makes room for `bytes` behind the end. 0 or -ENOMEM. */
int byte_queue_reserve(struct byte_queue *queue, size_t bytes);
/* There is room for them. */
void byte_queue_append(struct byte_queue *queue, const void *data, size_t bytes);
void byte_queue_consume(struct byte_queue *queue, size_t bytes);

#endif
