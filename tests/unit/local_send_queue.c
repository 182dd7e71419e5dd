/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local/send_queue.h"

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

Test(local_send_queue, packets_leave_in_order) {
    struct send_queue queue;
    send_queue_init(&queue, 1000);
    cr_assert_null(send_queue_front(&queue));
    cr_assert_eq(send_queue_push(&queue, "one", 3, -1), 0);
    cr_assert_eq(send_queue_push(&queue, "three", 5, -1), 0);
    cr_expect_arr_eq(send_queue_front(&queue)->data, "one", 3);
    send_queue_pop(&queue);
    cr_expect_eq(send_queue_front(&queue)->bytes, 5);
    cr_expect_arr_eq(send_queue_front(&queue)->data, "three", 5);
    send_queue_pop(&queue);
    cr_expect_null(send_queue_front(&queue));
    cr_assert_eq(send_queue_push(&queue, "again", 5, -1), 0);
    cr_expect_arr_eq(send_queue_front(&queue)->data, "again", 5);
    send_queue_deinit(&queue);
}

Test(local_send_queue, the_limit_counts_bookkeeping_and_frees_up) {
    struct send_queue queue;
    send_queue_init(&queue, 2 * (sizeof(struct send_packet) + 10));
    cr_assert_eq(send_queue_push(&queue, "0123456789", 10, -1), 0);
    cr_assert_eq(send_queue_push(&queue, "0123456789", 10, -1), 0);
    cr_expect_eq(send_queue_push(&queue, "", 0, -1), -ENOBUFS);
    send_queue_pop(&queue);
    cr_expect_eq(send_queue_push(&queue, "01234567890", 11, -1), -ENOBUFS);
    cr_expect_eq(send_queue_push(&queue, "0123456789", 10, -1), 0);
    send_queue_deinit(&queue);
}

Test(local_send_queue, a_descriptor_is_duplicated_and_closed) {
    struct send_queue queue;
    send_queue_init(&queue, 1000);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(send_queue_push(&queue, "x", 1, fd), 0);
    close(fd);
    int copy = send_queue_front(&queue)->fd;
    cr_expect(is_open(copy), "the queue has its own");
    cr_expect(fcntl(copy, F_GETFD) & FD_CLOEXEC);
    send_queue_pop(&queue);
    cr_expect_not(is_open(copy));
}

Test(local_send_queue, a_bad_descriptor_queues_nothing) {
    struct send_queue queue;
    send_queue_init(&queue, 1000);
    cr_expect_eq(send_queue_push(&queue, "x", 1, 9999), -EBADF);
    cr_expect_null(send_queue_front(&queue));
    cr_expect_eq(queue.queued_bytes, 0);
}

Test(local_send_queue, deinit_closes_what_is_left) {
    struct send_queue queue;
    send_queue_init(&queue, 1000);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(send_queue_push(&queue, "x", 1, fd), 0);
    int copy = send_queue_front(&queue)->fd;
    send_queue_deinit(&queue);
    cr_expect_not(is_open(copy));
    cr_expect(is_open(fd), "the caller keeps its own");
    close(fd);
}
