/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines on their way to stderr: a ring in memory, and a thread that writes. Whoever logs never
 * waits for a terminal that stands still or for a disk that is full.
 *
 * The ring holds records: a head, then the bytes of a line. One line is one write(2), so that lines
 * of several processes do not mix.
 *
 * After a line has been dropped, all are until the ring is empty: then comes the line that says how
 * many, in its place in the order. When it cannot be written either, its number is counted again
 * with what comes next.
 */
#include "ops/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES     (256u << 10)
#define LINE_BYTES_MAX 4096u
#define STACK_BYTES    (1u << 20) /* of address space; less is refused where TLS is large */

struct record {
    size_t bytes;
    uint64_t tells; /* the number of dropped lines that this line tells of */
};

static struct {
    const struct log_writer_ops *ops;
    pthread_mutex_t mutex;
    pthread_cond_t filled, emptied;
    pthread_t thread;
    bool started, writing, works; /* works: the last write did */
    bool torn;                    /* the last line got out in part; the thread's own */
    uint64_t wake_ns;
    uint64_t dropped, untold;
    size_t begin, used;
    char ring[RING_BYTES];
} writer = {.mutex = PTHREAD_MUTEX_INITIALIZER, .works = true, .wake_ns = UINT64_MAX};

static struct timespec writer_timespec(uint64_t ns) {
    return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

static uint64_t writer_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the ring; the mutex is held ---- */

/* In two parts where the ring ends in between; the second one may have no bytes. */
static void log_writer_ring_copy_in(const void *data, size_t bytes) {
    size_t at = (writer.begin + writer.used) % RING_BYTES, first = RING_BYTES - at;
    first = bytes < first ? bytes : first;
    memcpy(writer.ring + at, data, first);
    memcpy(writer.ring, (const char *)data + first, bytes - first);
    writer.used += bytes;
}

static void log_writer_ring_copy_out(void *data, size_t bytes) {
    size_t first = RING_BYTES - writer.begin;
    first = bytes < first ? bytes : first;
    memcpy(data, writer.ring + writer.begin, first);
    memcpy((char *)data + first, writer.ring, bytes - first);
    writer.begin = (writer.begin + bytes) % RING_BYTES;
    writer.used -= bytes;
}

/* False: no room, and the caller counts the line as dropped. */
static bool log_writer_ring_put(const char *line, size_t bytes, uint64_t tells) {
    struct record record = {bytes, tells};
    if (bytes > LINE_BYTES_MAX || RING_BYTES - writer.used < sizeof record + bytes)
        return false;
    log_writer_ring_copy_in(&record, sizeof record);
    log_writer_ring_copy_in(line, bytes);
    return true;
}

static void log_writer_ring_put_dropped(void) {
    char line[512];
    size_t bytes = writer.ops->compose_dropped(writer.untold, line, sizeof line);
    if (log_writer_ring_put(line, bytes, writer.untold))
        writer.untold = 0;
}

/* ---- writing ---- */

/* 0 or -errno. Waits for as long as stderr wants it to: this is the writer's thread. A line that
 * got out in part is remembered as torn, and ended before the next one. */
static int writer_write_all(const char *data, size_t bytes) {
    struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
    size_t done = 0;
    while (done < bytes) {
        ssize_t written = write(STDERR_FILENO, data + done, bytes - done);
        if (written > 0)
            done += (size_t)written;
        else if (written < 0 && errno == EAGAIN) /* somebody else set O_NONBLOCK on it */
            poll(&writable, 1, -1);
        else if (written == 0 || errno != EINTR) {
            int error = written == 0 ? EIO : errno;
            writer.torn |= done > 0;
            return -error;
        }
    }
    return 0;
}

static bool writer_write_line(const char *line, size_t bytes) {
    if (writer.torn && writer_write_all("\n", 1) < 0)
        return false;
    writer.torn = false;
    return writer_write_all(line, bytes) == 0;
}

/* tells: a line that told of n dropped ones has been dropped itself, so the n are untold again; it
 * is no line of its own to be counted. */
static void writer_count_unwritten(uint64_t tells) {
    writer.untold += tells ? tells : 1;
    writer.dropped += tells ? 0 : 1;
}

/* The mutex is let go while writing: log_writer_put() must not wait for stderr. */
static void writer_write_first(void) {
    char line[LINE_BYTES_MAX];
    struct record record;
    log_writer_ring_copy_out(&record, sizeof record);
    log_writer_ring_copy_out(line, record.bytes);
    writer.writing = true;
    pthread_mutex_unlock(&writer.mutex);
    bool written = writer_write_line(line, record.bytes);
    pthread_mutex_lock(&writer.mutex);
    writer.writing = false;
    writer.works = written;
    if (!written)
        writer_count_unwritten(record.tells);
    if (writer.used == 0 && writer.untold && writer.works)
        log_writer_ring_put_dropped();
    if (writer.used == 0)
        pthread_cond_broadcast(&writer.emptied);
}

/* Sleeps until there is a line, or until the limits have something to tell. */
static void writer_wait(void) {
    struct timespec until = writer_timespec(writer.wake_ns);
    if (writer.wake_ns == UINT64_MAX) {
        pthread_cond_wait(&writer.filled, &writer.mutex);
        return;
    }
    pthread_cond_timedwait(&writer.filled, &writer.mutex, &until);
    if (writer_now_ns() < writer.wake_ns)
        return;
    writer.wake_ns = UINT64_MAX;
    pthread_mutex_unlock(&writer.mutex);
    writer.ops->wake();
    pthread_mutex_lock(&writer.mutex);
}

static void *writer_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&writer.mutex);
    for (;;)
        if (writer.used > 0)
            writer_write_first();
        else
            writer_wait();
    return NULL;
}

/* ---- what log.c calls ---- */

/* Before the thread runs (errors in the arguments) a line is written at once. */
void log_writer_put(const char *line, size_t bytes) {
    pthread_mutex_lock(&writer.mutex);
    if (!writer.started) {
        writer.dropped += !writer_write_line(line, bytes);
    } else {
        if (writer.untold && writer.used == 0)
            log_writer_ring_put_dropped();
        if (writer.untold || !log_writer_ring_put(line, bytes, 0))
            writer_count_unwritten(0);
        pthread_cond_signal(&writer.filled);
    }
    pthread_mutex_unlock(&writer.mutex);
}

void log_writer_wake_at(uint64_t when_ns) {
    pthread_mutex_lock(&writer.mutex);
    writer.wake_ns = when_ns;
    if (writer.started)
        pthread_cond_signal(&writer.filled);
    pthread_mutex_unlock(&writer.mutex);
}

uint64_t log_writer_dropped(void) {
    pthread_mutex_lock(&writer.mutex);
    uint64_t dropped = writer.dropped;
    pthread_mutex_unlock(&writer.mutex);
    return dropped;
}

/* Signals are for the loop's thread: a handler here would interrupt a line. */
static int writer_start_thread(void) {
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&writer.thread, &attributes, writer_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

/* CLOCK_MONOTONIC: a clock that somebody sets must not hold lines back. */
int log_writer_start(const struct log_writer_ops *ops) {
    pthread_condattr_t monotonic;
    writer.ops = ops;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&writer.filled, &monotonic);
    pthread_cond_init(&writer.emptied, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int result = writer_start_thread();
    writer.started = result == 0;
    return result;
}

/* The thread is not joined: it may stand in a write() for ever. The process ends, and it with it.
 */
void log_writer_stop(uint32_t patience_ms) {
    struct timespec until = writer_timespec(writer_now_ns() + patience_ms * 1000000ull);
    int error = 0;
    pthread_mutex_lock(&writer.mutex);
    while (writer.started && (writer.used > 0 || writer.writing) && error == 0)
        error = pthread_cond_timedwait(&writer.emptied, &writer.mutex, &until);
    pthread_mutex_unlock(&writer.mutex);
}
