/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers the HTTP server's questions about the broker without the two threads ever looking at the
 * same thing at once. The server's thread asks and sleeps; the loop's thread, woken by uv_async,
 * copies the numbers into the snapshot, some stores in each turn of the loop; the server's thread
 * wakes up and makes the text, which is the larger part of the work.
 *
 *   IDLE --server: asks--> ASKED --loop: all is copied--> ANSWERED --server: has taken it--> IDLE
 *     \________________________ metrics_feed_stop() ________________________/--> STOPPED
 *
 * Whoever has the turn owns the snapshot: the loop while ASKED, the server otherwise. So the lock
 * is held only to change the state, and the loop never waits for anybody. A loop that hangs does
 * not answer within PATIENCE_NS: the server then says so with 503, which is what /healthz is for.
 * The state stays ASKED, and the next question waits for the same answer.
 */
#include "metrics_feed.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ops/http.h"
#include "ops/log.h"
#include "proto/container.h"
#include "transport/address.h"

#define PATIENCE_NS 2000000000ull
#define NS_PER_S    1000000000ull
#define BACKLOG     16

static const char text_plain[] = "text/plain; charset=utf-8";

enum feed_state { FEED_IDLE = 0, FEED_ASKED, FEED_ANSWERED, FEED_STOPPED };

struct metrics_feed {
    const struct broker *broker;
    char node[CONFIG_NAME_MAX];
    struct http *http;
    uv_async_t wake;
    pthread_mutex_t lock;
    pthread_cond_t answered;
    enum feed_state state;
    /* The snapshot. */
    bool whole; /* the metrics too are wanted, not only whether the node is ready */
    struct metrics metrics;
    struct metrics_progress progress;
    char not_ready_why[BROKER_WHY_BYTES]; /* "" = it is ready */
};

/* ---- the loop's side ---- */

/* The state, as of this moment: the other thread may change it right after. That is harmless to
 * both who ask: only the loop's own thread answers and stops. */
static bool feed_is(struct metrics_feed *feed, enum feed_state state) {
    pthread_mutex_lock(&feed->lock);
    bool is = feed->state == state;
    pthread_mutex_unlock(&feed->lock);
    return is;
}

/* A stop may have come between the copying and this: it stays stopped. */
static void feed_set_answered(struct metrics_feed *feed) {
    pthread_mutex_lock(&feed->lock);
    if (feed->state == FEED_ASKED)
        feed->state = FEED_ANSWERED;
    pthread_cond_signal(&feed->answered);
    pthread_mutex_unlock(&feed->lock);
}

/* One part of a snapshot; the next one in the next turn, which looks at all sockets first. */
static void feed_on_wake(uv_async_t *wake) {
    struct metrics_feed *feed = container_of(wake, struct metrics_feed, wake);
    char room[BROKER_WHY_BYTES];
    if (!feed_is(feed, FEED_ASKED))
        return;
    if (feed->whole && !broker_measure(feed->broker, &feed->metrics, &feed->progress)) {
        uv_async_send(wake);
        return;
    }
    const char *why = broker_is_ready(feed->broker, room);
    snprintf(feed->not_ready_why, sizeof feed->not_ready_why, "%s", why ? why : "");
    feed_set_answered(feed);
}

/* ---- the server's side ---- */

/* False: the loop has not answered in time, or the broker is going. */
static bool feed_ask(struct metrics_feed *feed, bool whole) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t end_ns = (uint64_t)end.tv_sec * NS_PER_S + (uint64_t)end.tv_nsec + PATIENCE_NS;
    end = (struct timespec){.tv_sec = (time_t)(end_ns / NS_PER_S),
                            .tv_nsec = (long)(end_ns % NS_PER_S)};
    bool answered = false;
    pthread_mutex_lock(&feed->lock);
    /* A question that was given up may still be under way, and perhaps for less than is wanted now:
     * its answer is waited for and thrown away. */
    int result = 0;
    while (feed->state == FEED_ASKED && result == 0)
        result = pthread_cond_timedwait(&feed->answered, &feed->lock, &end);
    if (feed->state == FEED_IDLE || feed->state == FEED_ANSWERED) {
        feed->state = FEED_ASKED;
        feed->whole = whole;
        feed->progress = (struct metrics_progress){0};
        uv_async_send(&feed->wake);
        while (feed->state == FEED_ASKED && result == 0)
            result = pthread_cond_timedwait(&feed->answered, &feed->lock, &end);
        answered = feed->state == FEED_ANSWERED;
        if (answered)
            feed->state = FEED_IDLE;
    }
    pthread_mutex_unlock(&feed->lock);
    return answered;
}

/* A sentence for a person who looks at a probe that failed; the node's name tells which one. */
static void feed_say(struct http_answer *out, unsigned status, const char *node,
                     const char *sentence) {
    *out = (struct http_answer){.status = status, .type = text_plain};
    int bytes = asprintf(&out->text, "node %s: %s\n", node, sentence);
    out->text_bytes = bytes < 0 ? 0 : (size_t)bytes;
    if (bytes < 0)
        out->text = NULL;
}

static void feed_say_hangs(const struct metrics_feed *feed, struct http_answer *out) {
    feed_say(out, 503, feed->node,
             "the broker's loop has not answered within 2 s: it hangs, is overloaded or stops");
}

/* Under the names that every exporter has for them. Read in this thread: the kernel's numbers are
 * nothing of the broker's. */
struct feed_process {
    uint64_t cpu_ns, resident_bytes;
};
static const struct metric feed_process_rows[] = {
    {"process_cpu_seconds", "User and system time.", METRIC_COUNTER, METRIC_NS,
     .offset = offsetof(struct feed_process, cpu_ns), .bytes = sizeof(uint64_t)},
    {"process_resident_memory_bytes", "Resident memory, arenas that were touched included.",
     METRIC_GAUGE, METRIC_BYTES, .offset = offsetof(struct feed_process, resident_bytes),
     .bytes = sizeof(uint64_t)},
};

/* What cannot be read is told as 0: a number of the kernel is no reason to tell nothing. */
static void feed_add_process(struct metrics *metrics) {
    struct feed_process process = {0};
    struct rusage usage;
    FILE *statm = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;
    if (statm) {
        if (fscanf(statm, "%*s %llu", &pages) == 1)
            process.resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
        fclose(statm);
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        process.cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
                         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
    metrics_add(metrics, METRICS_PROCESS, feed_process_rows,
                sizeof feed_process_rows / sizeof *feed_process_rows, "", &process);
}

/* The server's thread owns the snapshot from the answer on until it asks again. */
static void feed_on_metrics(void *context, bool open_metrics, struct http_answer *out) {
    struct metrics_feed *feed = context;
    struct metrics_text text = {0};
    if (!feed_ask(feed, true)) {
        feed_say_hangs(feed, out);
        return;
    }
    feed_add_process(&feed->metrics);
    metrics_write(&feed->metrics, open_metrics, &text);
    if (feed->metrics.no_memory || text.no_memory) { /* half a snapshot would look like losses */
        free(text.data);
        feed_say(out, 503, feed->node, "out of memory for the metrics");
        return;
    }
    *out = (struct http_answer){.status = 200, .text = text.data, .text_bytes = text.bytes};
    out->type = open_metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                             : "text/plain; version=0.0.4; charset=utf-8";
}

/* Ready or not is no matter here: a node that is fenced should not be killed by a liveness probe.
 */
static void feed_on_healthy(void *context, struct http_answer *out) {
    struct metrics_feed *feed = context;
    if (feed_ask(feed, false))
        feed_say(out, 200, feed->node, "the loop turns");
    else
        feed_say_hangs(feed, out);
}

/* The sentence is the one of featurectl status. */
static void feed_on_ready(void *context, struct http_answer *out) {
    struct metrics_feed *feed = context;
    if (!feed_ask(feed, false))
        feed_say_hangs(feed, out);
    else if (*feed->not_ready_why)
        feed_say(out, 503, feed->node, feed->not_ready_why);
    else
        feed_say(out, 200, feed->node, "takes puts and serves gets");
}

/* ---- making and unmaking ---- */

/* A listening socket for the first address of that name, or -errno. */
static int feed_listen(const char *text) {
    struct address parsed;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    const int yes = 1;
    if (address_parse(text, &parsed) < 0 ||
        getaddrinfo(*parsed.host ? parsed.host : NULL, parsed.port, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = fd < 0 ? -errno : fd;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
            result = -errno;
        if (result < 0)
            close(fd);
    }
    freeaddrinfo(found);
    return result;
}

/* Once there is a socket. That a token is there where one is needed is the business of config.c. */
static int feed_serve(struct metrics_feed *feed, const struct config *config, int fd, char *why,
                      size_t why_bytes) {
    uint8_t token[4096];
    struct http_options options = {.listen_fd = fd,
                                   .metrics = feed_on_metrics,
                                   .healthy = feed_on_healthy,
                                   .ready = feed_on_ready,
                                   .context = feed};
    if (*config->http_token_file) {
        int bytes =
            config_read_secret(config->http_token_file, token, sizeof token, why, why_bytes);
        if (bytes < 0)
            return bytes;
        options.token = token;
        options.token_bytes = (size_t)bytes;
    }
    int result = http_new(&options, &feed->http);
    sodium_memzero(token, sizeof token);
    if (result < 0)
        snprintf(why, why_bytes, "[ops] http = %s: the server cannot be started: %s", config->http,
                 strerror(-result));
    return result;
}

/* The monotonic clock: a wait must not end early, or never, when somebody sets the time of day. */
static void feed_init(struct metrics_feed *feed, uv_loop_t *loop) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&feed->lock, NULL);
    uv_async_init(loop, &feed->wake, feed_on_wake);
}

/* The address that is logged is the one that was bound: with port 0 it is told nowhere else. */
int metrics_feed_new(uv_loop_t *loop, const struct config *config, const struct broker *broker,
                     struct metrics_feed **out, char *why, size_t why_bytes) {
    char bound[ADDRESS_BYTES];
    *out = NULL;
    if (!*config->http)
        return 0;
    struct metrics_feed *feed = calloc(1, sizeof *feed);
    int fd = feed ? feed_listen(config->http) : -ENOMEM;
    if (fd < 0) {
        snprintf(why, why_bytes, "cannot listen at [ops] http = %s: %s", config->http,
                 strerror(-fd));
        free(feed);
        return fd;
    }
    feed->broker = broker;
    strcpy(feed->node, config->node);
    feed_init(feed, loop);
    int result = feed_serve(feed, config, fd, why, why_bytes);
    *out = feed; /* a failure is taken down in the same way */
    if (result < 0) {
        close(fd);
        return result;
    }
    address_of_socket(fd, bound, NULL);
    log_info("node %s: metrics at http://%s/metrics", config->node, bound);
    return 0;
}

/* A question that waits is answered with "it stops" at once, so that the thread can end. */
void metrics_feed_stop(struct metrics_feed *feed) {
    if (!feed || feed_is(feed, FEED_STOPPED))
        return;
    pthread_mutex_lock(&feed->lock);
    feed->state = FEED_STOPPED;
    pthread_cond_broadcast(&feed->answered);
    pthread_mutex_unlock(&feed->lock);
    http_free(feed->http);
    feed->http = NULL;
    uv_close((uv_handle_t *)&feed->wake, NULL);
}

/* After the loop has closed the handle that metrics_feed_stop() gave back. */
void metrics_feed_free(struct metrics_feed *feed) {
    if (!feed)
        return;
    metrics_deinit(&feed->metrics);
    pthread_cond_destroy(&feed->answered);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
}
