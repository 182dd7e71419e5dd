/* SPDX-License-Identifier: Apache-2.0
 *
 * One packet to or from a SOCK_SEQPACKET socket, with one descriptor at most. Never blocks, never
 * raises SIGPIPE.
 */
#include "local/packet.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor. */
union packet_control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

/* The kernel may be short of memory for a moment: that is "not now" (-EAGAIN), and the packet is
 * queued. A connection that was reset has no other end, as one that was closed (-EPIPE). */
static int packet_error(int error) {
    switch (error) {
    case ENOMEM:
    case ENOBUFS:
        return -EAGAIN;
    case ECONNRESET:
        return -EPIPE;
    default:
        return -error;
    }
}

/* passed_fd stays the caller's: the kernel holds a reference of its own while the packet is under
 * way. */
int packet_send(int fd, const void *data, size_t bytes, int passed_fd) {
    struct iovec part = {.iov_base = (void *)data, .iov_len = bytes};
    union packet_control control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (passed_fd >= 0) {
        memset(&control, 0, sizeof control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof passed_fd);
        memcpy(CMSG_DATA(&control.header), &passed_fd, sizeof passed_fd);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
    }
    while (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return packet_error(errno);
    return 0;
}

/* Control data are asked for only where a descriptor is wanted. Without room for them the kernel
 * closes what was sent along and says MSG_CTRUNC, so that a client cannot fill our table of
 * descriptors. */
ssize_t packet_receive(int fd, void *buffer, size_t room, bool wants_descriptor, int *fd_out) {
    struct iovec part = {.iov_base = buffer, .iov_len = room};
    union packet_control control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t bytes;
    *fd_out = -1;
    if (wants_descriptor) {
        message.msg_control = control.room;
        message.msg_controllen = CMSG_LEN(sizeof(int));
    }
    /* ECONNRESET: the client left without reading everything. What it sent before is still there.
     */
    do
        bytes = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (bytes < 0 && (errno == EINTR || errno == ECONNRESET));
    if (bytes < 0)
        return packet_error(errno);
    const struct cmsghdr *came = CMSG_FIRSTHDR(&message);
    if (came && came->cmsg_level == SOL_SOCKET && came->cmsg_type == SCM_RIGHTS)
        memcpy(fd_out, CMSG_DATA(came), sizeof *fd_out);
    /* Wanted and truncated without a descriptor: the process is out of descriptors, and the kernel
     * left it out. That is not the client's fault. */
    if (message.msg_flags & MSG_CTRUNC && (!wants_descriptor || *fd_out >= 0))
        bytes = -EPROTO;
    else if (message.msg_flags & MSG_TRUNC)
        bytes = -EMSGSIZE;
    if (bytes <= 0 && *fd_out >= 0) {
        close(*fd_out);
        *fd_out = -1;
    }
    return bytes;
}
