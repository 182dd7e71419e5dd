/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes, durations and rates, for people to read and to type. Pure.
 */
#ifndef FEATURED_CTL_UNITS_H
#define FEATURED_CTL_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNITS_ROOM 32

/* Each writes into `out` and returns it. */
char *units_bytes(uint64_t bytes, char out[UNITS_ROOM]); /* "17 B", "3.2 GiB" */
char *units_duration(uint64_t ms,
                     char out[UNITS_ROOM]); /* "350 ms", "12 s", "3 min 20 s", "2 d 4 h" */
char *units_rate(uint64_t bytes, uint64_t ns,
                 char out[UNITS_ROOM]); /* "2.31 GB/s", decimal like a link's */

/* True and *out set when the whole text is one. */
bool units_parse_count(const char *text, uint64_t *out);
/* 4096, 64KiB, 512MiB, 4GiB, 1TiB; K, M, G, T mean the same. */
bool units_parse_bytes(const char *text, uint64_t *out);
/* 500ms, 30s, 10min, 2h, 1d; a bare number only when it is 0. */
bool units_parse_duration_ms(const char *text, uint64_t *out);

#endif
