/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets lines to stderr without ever making their callers wait: a ring of 256 KiB, and a thread that
 * writes what is in it. Whatever stderr is (a pipe that nobody reads, a terminal that is stopped, a
 * full disk, the journal), only the thread finds out. O_NONBLOCK is no way to the same: the flag
 * belongs to the open file, which other processes share.
 *
 * Known to log.c alone, whose functions are what everybody calls.
 */
#ifndef FEATURED_OPS_LOG_WRITER_H
#define FEATURED_OPS_LOG_WRITER_H

#include <stddef.h>
#include <stdint.h>

/* What log.c lends to the thread. */
struct log_writer_ops {
    /* A whole line that says so many lines were dropped; its bytes. */
    size_t (*compose_dropped)(uint64_t count, char *line, size_t room);
    /* The time given to log_writer_wake_at() has come. May call log_writer_put(). */
    void (*wake)(void);
};

/* 0 or -errno. Before it, log_writer_put() writes itself and waits. */
int log_writer_start(const struct log_writer_ops *ops);
void log_writer_stop(uint32_t patience_ms);
/* line: ends with its newline. */
void log_writer_put(const char *line, size_t bytes);
/* CLOCK_MONOTONIC. */
void log_writer_wake_at(uint64_t when_ns);
uint64_t log_writer_dropped(void);

#endif
