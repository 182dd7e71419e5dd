/* SPDX-License-Identifier: Apache-2.0
 *
 * One packet over a client's SOCK_SEQPACKET socket, with the descriptor beside it. Knows no session
 * and no message; never blocks. A shortage of kernel memory is -EAGAIN: it is ours, not the
 * client's, and tried again when the socket is next ready.
 */
#ifndef FEATURED_LOCAL_PACKET_H
#define FEATURED_LOCAL_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* passed_fd: goes along, the caller's; -1 = none. 0; -EAGAIN; -EPIPE when nobody is there to take
 * it; else -errno. */
int packet_send(int fd, const void *data, size_t bytes, int passed_fd);

/* Bytes read into buffer, 0 at the end of the connection, or -errno: -EAGAIN when there is none,
 * -EMSGSIZE when it is larger than room, -EPROTO when a descriptor or other control data came that
 * is not wanted. *fd_out: the descriptor that came, close-on-exec and the caller's, or -1: also
 * when one was wanted and there was none left for it. Unwanted ones the kernel closes. */
ssize_t packet_receive(int fd, void *buffer, size_t room, bool wants_descriptor, int *fd_out);

#endif
