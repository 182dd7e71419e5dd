/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP server beside a loop that does not turn: whoever asks is told so, and nobody waits for
 * ever, the broker that stops included.
 */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics_feed.h"
#include "support/checks.h"

static uv_loop_t loop;
static struct metrics_feed *feed;
static uint16_t port;

static struct sockaddr_in loopback(uint16_t at) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(at), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static uint16_t free_port(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* A broker would be asked by the loop alone, which never runs here. */
static void set_up(void) {
    struct config config;
    char why[512] = "";
    config_defaults(&config);
    snprintf(config.node, sizeof config.node, "a");
    port = free_port();
    snprintf(config.http, sizeof config.http, "127.0.0.1:%u", port);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(metrics_feed_new(&loop, &config, NULL, &feed, why, sizeof why), 0, "%s", why);
    config_deinit(&config);
}

static void tear_down(void) {
    metrics_feed_stop(feed);
    uv_run(&loop, UV_RUN_DEFAULT);
    metrics_feed_free(feed);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

TestSuite(metrics_feed, .init = set_up, .fini = tear_down);

/* What comes until the other side closes; "" when nobody listens any more. */
static void ask(const char *path, char *out, size_t out_bytes) {
    struct sockaddr_in address = loopback(port);
    char request[256];
    size_t at = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path);
    bool listens = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                   send(fd, request, (size_t)bytes, MSG_NOSIGNAL) == bytes;
    for (ssize_t got;
         listens && at + 1 < out_bytes && (got = recv(fd, out + at, out_bytes - at - 1, 0)) > 0;)
        at += (size_t)got;
    out[at] = '\0';
    close(fd);
}

Test(metrics_feed, a_loop_that_hangs_is_told_of) {
    static const char *const paths[] = {"/healthz", "/readyz", "/metrics"};
    for (size_t i = 0; i < 3; i++) {
        char answer[4096];
        ask(paths[i], answer, sizeof answer);
        cr_expect(strncmp(answer, "HTTP/1.1 503", 12) == 0, "%s: %s", paths[i], answer);
        cr_expect(strstr(answer, "node a: the broker's loop has not answered within 2 s"), "%s",
                  answer);
    }
}

static void *ask_in_a_thread(void *out) {
    ask("/healthz", out, 4096);
    return NULL;
}

/* Whether the question comes before the stop or after, or in the middle, the stop ends and so does
 * whoever asks. */
Test(metrics_feed, a_stop_does_not_wait_for_the_loop) {
    char answer[4096] = "";
    pthread_t asker;
    cr_assert_eq(pthread_create(&asker, NULL, ask_in_a_thread, answer), 0);
    char first[4096];
    ask("/nowhere", first, sizeof first); /* the server has begun to answer */
    metrics_feed_stop(feed);
    pthread_join(asker, NULL);
    cr_expect(!*answer || strncmp(answer, "HTTP/1.1 503", 12) == 0, "%s", answer);
}
