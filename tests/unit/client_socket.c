/* SPDX-License-Identifier: Apache-2.0
 *
 * What comes over the socket besides the packet itself.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "socket.h"
#include "support/checks.h"

enum { FDS_MAX = 4 };

static void send_with(int to, const int *fds, size_t count) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = "packet", .iov_len = 6};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    cr_assert_eq(sendmsg(to, &message, MSG_NOSIGNAL), 6);
}

/* What receiving a packet with so many descriptors gives; none of them may stay open. */
static ssize_t receive_with(size_t count) {
    int ends[2], fds[FDS_MAX], fd;
    char buffer[16];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    for (size_t i = 0; i < FDS_MAX; i++)
        fds[i] = ends[0];
    uint32_t open_before = check_fd_count(0);
    send_with(ends[0], fds, count);
    ssize_t bytes = fc_socket_receive(ends[1], buffer, sizeof buffer,
                                      fc_after_ns(fc_now_ns(), FC_NS_PER_MS * 10000), &fd);
    cr_assert_eq(fd >= 0, count == 1);
    if (fd >= 0)
        close(fd);
    cr_assert_eq(check_fd_count(0), open_before, "%zu descriptors came, some stayed open", count);
    close(ends[0]);
    close(ends[1]);
    return bytes;
}

Test(client_socket, one_descriptor_comes_with_its_packet) {
    cr_expect_eq(receive_with(0), 6);
    cr_expect_eq(receive_with(1), 6);
}

Test(client_socket, more_than_one_descriptor_is_refused_and_none_stays) {
    for (size_t count = 2; count <= FDS_MAX; count++)
        cr_expect_eq(receive_with(count), -EPROTO, "%zu descriptors", count);
}
