/* SPDX-License-Identifier: Apache-2.0
 *
 * The bar lives on one line: redrawn after a carriage return, wiped with ECMA-48's "erase in line".
 *
 * Only a terminal gets one: in a file or a pipe nothing is drawn, so that callers need not ask.
 * It is drawn ten times a second at most. The clock is CLOCK_MONOTONIC, which does not jump when
 * the time is set.
 */
#include "featurectl/progress.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "featurectl/units.h"

/* The bar has 30 cells, so that a line with sizes and rate fits 80 columns. */
#define BAR_CELLS  30u
#define REDRAW_NS  100000000u
#define ERASE_LINE "\r\033[K"

uint64_t progress_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Into a buffer, so that a test can read it. A total of 0 is shown as 0 %; more than the total
 * as 100 %.
 */
void progress_render(const struct progress *p, uint64_t now_ns, char *out, size_t room) {
    double share = p->total ? (double)p->done / (double)p->total : 0;
    share = share > 1 ? 1 : share;
    char bar[BAR_CELLS + 1], done[UNITS_ROOM], total[UNITS_ROOM], rate[UNITS_ROOM];
    memset(bar, '.', BAR_CELLS);
    memset(bar, '#', (size_t)(share * BAR_CELLS));
    bar[BAR_CELLS] = '\0';
    int used = snprintf(out, room, "%s [%s] %3.0f %%  ", p->label, bar, share * 100);
    if (used < 0 || (size_t)used >= room)
        return;
    if (p->unit == PROGRESS_BYTES)
        snprintf(out + used, room - (size_t)used, "%s of %s  %s", units_bytes(p->done, done),
                 units_bytes(p->total, total), units_rate(p->done, now_ns - p->begun_ns, rate));
    else
        snprintf(out + used, room - (size_t)used, "%" PRIu64 " of %" PRIu64 " %s", p->done,
                 p->total, p->unit == PROGRESS_RELEASES ? "releases" : "samples");
}

/* Nothing is drawn yet: what is over within a tenth of a second never shows a bar. */
void progress_begin(struct progress *progress, FILE *out, const char *label,
                    enum progress_unit unit, uint64_t total) {
    *progress = (struct progress){.out = isatty(fileno(out)) ? out : NULL,
                                  .label = label,
                                  .unit = unit,
                                  .total = total,
                                  .begun_ns = progress_now_ns()};
}

/* The total may change on the way, for example when the library learns how large a sample is. */
void progress_set(struct progress *progress, uint64_t done, uint64_t total) {
    progress->done = done;
    progress->total = total;
    uint64_t now_ns = progress_now_ns();
    if (!progress->out || now_ns - progress->drawn_ns < REDRAW_NS)
        return;
    char line[256];
    progress_render(progress, now_ns, line, sizeof line);
    fprintf(progress->out, ERASE_LINE "%s", line);
    fflush(progress->out);
    progress->drawn_ns = now_ns;
}

/* Wipes the bar; the cursor stands at the beginning of an empty line. */
void progress_end(struct progress *progress) {
    if (progress->out && progress->drawn_ns)
        fputs(ERASE_LINE, progress->out);
}
