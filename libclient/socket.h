/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls on the broker's SOCK_SEQPACKET socket: one packet is one frame. Knows no message.
 */
#ifndef FEATURED_LIBCLIENT_SOCKET_H
#define FEATURED_LIBCLIENT_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FC_SOCKET_FD_LOST (-2)

/* A connected, close-on-exec socket, or -errno. Does not wait. */
int fc_socket_connect(const char *path);
/* Sends one packet; waits for room until deadline_ns (0 = do not wait: -EAGAIN). 0, -ETIMEDOUT or
 * -errno. */
int fc_socket_send(int fd, const struct iovec *parts, size_t part_count, uint64_t deadline_ns);
/* Sends one packet and, beside it, a descriptor, which the caller keeps; does not wait. 0 or
 * -errno. */
int fc_socket_send_with(int fd, const void *packet, size_t bytes, int passed_fd);
/* Waits for room to send. 0, -ETIMEDOUT or -errno. */
int fc_socket_await_room(int fd, uint64_t deadline_ns);
/* Waits for a packet to read. 0, -ETIMEDOUT or -errno. */
int fc_socket_await_packet(int fd, uint64_t deadline_ns);
/* True if this errno of any call here means that the connection is gone; else it is of this
 * process, and the connection as good as before. */
bool fc_socket_is_lost(int error);
/* Waits for a packet, at most until deadline_ns (0 = do not wait) and perhaps a little less. Its
 * size, 0 at the end of the connection, or -errno: -EAGAIN when none came, -EMSGSIZE when it is
 * larger than room, -EPROTO when more than one descriptor came. *fd_out: the descriptor that came
 * with it, close-on-exec and the caller's, -1 when none did, or FC_SOCKET_FD_LOST when this process
 * could not take it: the packet is whole all the same. */
ssize_t fc_socket_receive(int fd, void *buffer, size_t room, uint64_t deadline_ns, int *fd_out);
/* True once the other end has closed. Does not wait. */
bool fc_socket_ended(int fd);

#endif
