/* SPDX-License-Identifier: Apache-2.0
 *
 * A bar on standard error while bytes move. Draws only on a terminal, at most ten times a second.
 */
#ifndef FEATURED_CTL_PROGRESS_H
#define FEATURED_CTL_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum progress_unit { PROGRESS_BYTES = 0, PROGRESS_RELEASES, PROGRESS_SAMPLES };

struct progress {
    FILE *out; /* NULL = draws nothing */
    const char *label;
    enum progress_unit unit;
    uint64_t total, done; /* in the unit */
    uint64_t begun_ns, drawn_ns;
};

/* Draws to `out` if it is a terminal. label: borrowed. */
void progress_begin(struct progress *progress, FILE *out, const char *label,
                    enum progress_unit unit, uint64_t total);
/* done since the beginning, not since the last call. */
void progress_set(struct progress *progress, uint64_t done, uint64_t total);
/* Wipes the bar. */
void progress_end(struct progress *progress);

/* One line without line feed: "ingest [####......]  40 %  0.4 of 1.0 GiB  2.31 GB/s". Pure. */
void progress_render(const struct progress *progress, uint64_t now_ns, char *out, size_t room);

uint64_t progress_now_ns(void);

#endif
