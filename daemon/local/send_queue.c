/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets that wait for room in a client's socket: a list, linked in one direction, with its end at
 * hand.
 *
 * Invariants: *last is the terminating NULL; queued_bytes is the sum of the packets' costs.
 */
#include "local/send_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a packet costs its client's account. The head counts, too: a million empty packets are not
 * free. */
uint64_t send_queue_cost_bytes(size_t bytes) {
    return sizeof(struct send_packet) + bytes;
}

void send_queue_init(struct send_queue *queue, uint64_t limit_bytes) {
    *queue = (struct send_queue){.last = &queue->first, .limit_bytes = limit_bytes};
}

void send_queue_deinit(struct send_queue *queue) {
    while (queue->first)
        send_queue_pop(queue);
}

/* The descriptor is duplicated: the caller's may be closed long before the packet is sent. */
int send_queue_push(struct send_queue *queue, const void *data, size_t bytes, int fd) {
    if (queue->queued_bytes + send_queue_cost_bytes(bytes) > queue->limit_bytes)
        return -ENOBUFS;
    struct send_packet *packet = malloc(sizeof *packet + bytes);
    if (!packet)
        return -ENOMEM;
    int own_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && own_fd < 0) {
        int error = errno;
        free(packet);
        return -error;
    }
    *packet = (struct send_packet){.fd = own_fd, .bytes = bytes};
    memcpy(packet->data, data, bytes);
    *queue->last = packet;
    queue->last = &packet->next;
    queue->queued_bytes += send_queue_cost_bytes(bytes);
    return 0;
}

const struct send_packet *send_queue_front(const struct send_queue *queue) {
    return queue->first;
}

/* The packet has been sent, or will never be: its descriptor is ours to close. */
void send_queue_pop(struct send_queue *queue) {
    struct send_packet *packet = queue->first;
    queue->first = packet->next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->queued_bytes -= send_queue_cost_bytes(packet->bytes);
    if (packet->fd >= 0)
        close(packet->fd);
    free(packet);
}
