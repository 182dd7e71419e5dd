/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines for the journal: "<level> who: what, numbers with units". The first detector logs, callers
 * stay silent. Levels follow sd-daemon ("<3>" prefixes) when stderr is the journal, words
 * otherwise.
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

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* "3.2 GiB", "64 KiB", "17 B" into a buffer of at least 16 bytes; returns it. */
char *log_bytes(uint64_t bytes, char out[16]);
/* "1h", "10min", "90s" or "1500ms", as in a configuration, into at least 32 bytes; returns it. */
char *log_duration(uint64_t ms, char out[32]);

#endif
