/* SPDX-License-Identifier: Apache-2.0
 *
 * What has been consumed is left in front until the room is needed; then the rest moves up, and
 * only if that is not enough the memory grows, at least to twice its size.
 */
#include "transport/byte_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void byte_queue_deinit(struct byte_queue *queue) {
    free(queue->data);
    *queue = (struct byte_queue){0};
}

/* Moving up costs a copy of what is held, which is at most one incomplete frame for what comes in.
 * Doubling makes the copies of a growing queue cost a constant per byte. */
int byte_queue_reserve(struct byte_queue *queue, size_t bytes) {
    size_t held = byte_queue_bytes(queue);
    if (bytes <= queue->capacity - queue->end)
        return 0;
    if (queue->begin > 0 && held > 0)
        memmove(queue->data, queue->data + queue->begin, held);
    queue->begin = 0;
    queue->end = held;
    if (bytes <= queue->capacity - held)
        return 0;
    size_t capacity = queue->capacity * 2 > held + bytes ? queue->capacity * 2 : held + bytes;
    uint8_t *data = realloc(queue->data, capacity);
    if (data == NULL)
        return -ENOMEM;
    queue->data = data;
    queue->capacity = capacity;
    return 0;
}

void byte_queue_append(struct byte_queue *queue, const void *data, size_t bytes) {
    if (bytes > 0)
        memcpy(queue->data + queue->end, data, bytes);
    queue->end += bytes;
}

/* An empty queue begins at the front again, so most queues never move anything. */
void byte_queue_consume(struct byte_queue *queue, size_t bytes) {
    queue->begin += bytes;
    if (queue->begin == queue->end)
        queue->begin = queue->end = 0;
}
