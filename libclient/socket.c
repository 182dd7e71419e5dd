/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket is in blocking mode with a receive timeout of RECEIVE_SLICE_NS: a thread whose
 * deadline is further away waits in recvmsg() itself, slice by slice, which spares the common case
 * a ppoll() for each packet; one whose deadline is nearer polls first. Sending never blocks in
 * sendmsg().
 */
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"

#define RECEIVE_SLICE_NS 500000000ull
#define UNPOLLED_NS      1000000 /* between two looks where there is no poll() */

static int socket_set_blocking(int fd) {
    struct timeval slice = {.tv_usec = RECEIVE_SLICE_NS / 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof slice))
        return -1;
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* Connecting does not block: a listener whose queue is full answers EAGAIN at once, and the caller
 * backs off and tries again. Only then is the socket set to block. */
int fc_socket_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) || socket_set_blocking(fd)) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* ppoll() rather than poll(): deadlines are nanoseconds, and a wait that is rounded up to a
 * millisecond is longer than a whole request. A signal that interrupts
 * the wait does not end it: the rest of the time is waited for. */
static int socket_await(int fd, short events, uint64_t deadline_ns) {
    struct pollfd poll_fd = {.fd = fd, .events = events};
    for (;;) {
        struct timespec left = fc_timespec(fc_left_ns(deadline_ns));
        int ready = ppoll(&poll_fd, 1, deadline_ns == FC_NEVER_NS ? NULL : &left, NULL);
        if (ready > 0)
            return 0;
        if (!ready)
            return -ETIMEDOUT;
        /* RLIMIT_NOFILE has become 0, or the kernel is short of memory: look without it. */
        if (errno == EINVAL || errno == ENOMEM || errno == EAGAIN) {
            nanosleep(&(struct timespec){.tv_nsec = UNPOLLED_NS}, NULL);
            return fc_left_ns(deadline_ns) ? 0 : -ETIMEDOUT;
        }
        if (errno != EINTR)
            return -errno;
    }
}

/* deadline_ns 0: does not wait. A packet is sent whole or not at all, so what fails with EAGAIN
 * can be sent again as it is. MSG_NOSIGNAL: a broker that has gone must not kill its clients by
 * SIGPIPE. */
int fc_socket_send(int fd, const struct iovec *parts, size_t part_count, uint64_t deadline_ns) {
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = part_count};
    for (;;) {
        if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN || !deadline_ns)
            return -errno;
        int rc = socket_await(fd, POLLOUT, deadline_ns);
        if (rc)
            return rc;
    }
}

/* With a descriptor of ours (a pidfd). It is copied by the kernel; ours stays ours to close. */
int fc_socket_send_with(int fd, const void *packet, size_t bytes, int passed_fd) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec part = {.iov_base = (void *)packet, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    memcpy(CMSG_DATA(&control.header), &passed_fd, sizeof passed_fd);
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int fc_socket_await_room(int fd, uint64_t deadline_ns) {
    return socket_await(fd, POLLOUT, deadline_ns);
}

int fc_socket_await_packet(int fd, uint64_t deadline_ns) {
    return socket_await(fd, POLLIN, deadline_ns);
}

/* The errors after which this socket will never work again. All others are limits of this process
 * or of the machine, and may pass. */
bool fc_socket_is_lost(int error) {
    switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
    case ESHUTDOWN:
    case EBADF: /* somebody closed it under the library */
    case ENOTSOCK:
        return true;
    default:
        return false;
    }
}

/* There is room for one control message with one descriptor and no more, so only the first is
 * looked at. */
static int socket_take_descriptor(struct msghdr *message) {
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    if (!control || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
        return -1;
    int fd;
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
    return fd;
}

static ssize_t socket_receive(int fd, struct msghdr *message, uint64_t deadline_ns) {
    int flags = MSG_CMSG_CLOEXEC;
    if (!deadline_ns) {
        flags |= MSG_DONTWAIT;
    } else if (fc_left_ns(deadline_ns) < RECEIVE_SLICE_NS) {
        int rc = socket_await(fd, POLLIN, deadline_ns);
        if (rc)
            return rc == -ETIMEDOUT ? -EAGAIN : rc;
        flags |= MSG_DONTWAIT;
    }
    ssize_t bytes = recvmsg(fd, message, flags);
    if (bytes < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    return bytes;
}

/* A packet that did not fit (MSG_TRUNC) breaks the protocol. A descriptor that did not fit
 * (MSG_CTRUNC) need not: if none came at all, this process had no free one, and the packet itself
 * is good. If one came and more were cut off, the broker has sent more than it may. */
ssize_t fc_socket_receive(int fd, void *buffer, size_t room, uint64_t deadline_ns, int *fd_out) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = buffer, .iov_len = room};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             /* Its padding would have room for a second one. */
                             .msg_controllen = CMSG_LEN(sizeof(int))};
    *fd_out = -1;
    ssize_t bytes = socket_receive(fd, &message, deadline_ns);
    if (bytes < 0)
        return bytes;
    *fd_out = socket_take_descriptor(&message);
    if (!(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
        return bytes;
    if (*fd_out < 0 && !(message.msg_flags & MSG_TRUNC)) {
        *fd_out = FC_SOCKET_FD_LOST;
        return bytes;
    }
    if (*fd_out >= 0)
        close(*fd_out);
    *fd_out = -1;
    return message.msg_flags & MSG_CTRUNC ? -EPROTO : -EMSGSIZE;
}

/* Whether the other end has gone, without receiving anything: another thread may have the receive
 * role. */
bool fc_socket_ended(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLRDHUP};
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}
