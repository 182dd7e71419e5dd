/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines for the journal: "<level> who: what, numbers with units". The first detector logs, callers
 * stay silent. Levels follow sd-daemon ("<3>" prefixes) when stderr is the journal, words
 * otherwise.
 *
 * No caller ever waits for whoever reads stderr, once log_start() has been called: a thread writes,
 * and what it cannot get rid of is dropped, counted, and told of when writing works again.
 * Everything that is not printable UTF-8 is escaped, so that no name can forge a line.
 *
 * How often one kind of line comes is limited, because others decide how often its cause occurs. A
 * kind is a format string; within 10 s it gives 300 lines, and those of log_limited() 10 for each
 * source. One line then says how many more there were. Debug lines are not limited.
 */
#ifndef FEATURED_OPS_LOG_H
#define FEATURED_OPS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR = 0, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
bool log_parse_level(const char *word, enum log_level *out);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line that whoever `source` names can cause at will: a uid, log_source() of a node's name. */
void log_limited(enum log_level level, uint64_t source, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t log_source(const char *name);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* From here on a thread writes. 0 or -errno (there is no thread: lines are written by their
 * callers, who wait for it). */
int log_start(void);
/* Gives the thread up to patience_ms to write what is queued. The process may end afterwards,
 * whatever stderr does; lines that come still are written or dropped as before. */
void log_stop(uint32_t patience_ms);
/* Lines that could not be written since the start: nobody read them in time, the disk was full. */
uint64_t log_dropped(void);

/* "3.2 GiB", "64 KiB", "17 B" into a buffer of at least 16 bytes; returns it. */
char *log_bytes(uint64_t bytes, char out[16]);
/* "1h", "10min", "90s" or "1500ms", as in a configuration, into at least 32 bytes; returns it. */
char *log_duration(uint64_t ms, char out[32]);

#endif
