/* SPDX-License-Identifier: Apache-2.0
 *
 * A line is formatted, judged by the limits, escaped (a client may choose names) and handed to the
 * writer, which has a thread of its own. State: the level, and what the limits count.
 *
 * A kind of line is its format: the same statement in the code is the same kind, whatever it says.
 * Of one kind at most LINES_OF_A_KIND are shown in 10 s, of one kind from one source (a user, a
 * peer) at most LINES_OF_A_SOURCE. What was left out is told afterwards with its number. So a
 * client in a loop can fill neither the disk nor the log of everybody else.
 *
 * Any thread may log; the mutex guards the limits.
 */
#include "ops/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ops/log_limit.h"
#include "ops/log_writer.h"
#include "proto/text.h"

#define LINE_BYTES_MAX    2048
#define LINES_OF_A_KIND   300u /* in 10 s: 256 stores have a line each when the broker starts */
#define LINES_OF_A_SOURCE 10u

static const char *const level_words[] = {"error", "warning", "info", "debug"};
static const char journal_digits[] = "3467"; /* sd-daemon(3): err, warning, info, debug */
static _Atomic int max_level = LOG_LEVEL_INFO;
static struct log_limits limits;
static pthread_mutex_t limits_mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t log_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Relaxed: a line more or less around the moment of the change does not matter. */
void log_set_level(enum log_level level) {
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

bool log_parse_level(const char *word, enum log_level *out) {
    for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(word, level_words[i]) != 0)
            continue;
        *out = (enum log_level)i;
        return true;
    }
    return false;
}

/* Does our stderr go to systemd's journal, which has times and levels of its own? systemd.exec(5):
 * $JOURNAL_STREAM is inherited by everything that a service starts; it means us only if it names
 * the very file that is our stderr. */
static bool log_stderr_is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char ours[64];
    if (!stream || fstat(STDERR_FILENO, &status) < 0)
        return false;
    snprintf(ours, sizeof ours, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    return strcmp(stream, ours) == 0;
}

/* To the journal "<6>", to anybody else time and level. */
static size_t log_write_prefix(char *line, size_t bytes, enum log_level level) {
    if (log_stderr_is_journal())
        return (size_t)snprintf(line, bytes, "<%c>", journal_digits[level]);
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, bytes, "%Y-%m-%dT%H:%M:%S", &utc);
    return used + (size_t)snprintf(line + used, bytes - used, ".%03ldZ %-7s ",
                                   now.tv_nsec / 1000000, level_words[level]);
}

#define LOG_CUT "..." /* stands where a line has been cut */

/* What does not fit is left out, at the end of a character, and a mark says so. */
static size_t log_append(const char *text, size_t text_bytes, char *out, size_t room) {
    size_t whole = text_escape(out, room, text, text_bytes);
    if (whole < room)
        return whole;
    text_escape(out, room - strlen(LOG_CUT), text, text_bytes);
    strcat(out, LOG_CUT);
    return strlen(out);
}

/* "prefix text\n" into line; its bytes. */
static size_t log_compose(enum log_level level, const char *text, size_t text_bytes, char *line,
                          size_t room) {
    size_t used = log_write_prefix(line, room, level);
    used += log_append(text, text_bytes, line + used, room - used - 1);
    line[used++] = '\n';
    return used;
}

/* Called by the writer when it has room again. */
static size_t log_compose_dropped(uint64_t count, char *line, size_t room) {
    char text[160];
    int bytes = snprintf(text, sizeof text,
                         "log: %" PRIu64 " lines were dropped: they could not be written to stderr "
                         "(nobody read it in time, or its disk was full)",
                         count);
    return log_compose(LOG_LEVEL_WARNING, text, (size_t)bytes, line, room);
}

/* Says what has been left out, for every kind whose time is over; limits_mutex is held. */
static void log_tell_left_out(uint64_t now_ns) {
    char text[LOG_LIMIT_TEXT_MAX + 80], line[LINE_BYTES_MAX];
    struct log_limit_place *place;
    while ((place = log_limit_due(&limits, now_ns))) {
        int bytes = snprintf(text, sizeof text, "... and %" PRIu32 " more of this kind in %u s: %s",
                             place->hidden, (unsigned)(LOG_LIMIT_SPAN_NS / 1000000000u),
                             place->kind ? place->text : "lines of kinds too many to list");
        log_writer_put(line, log_compose((enum log_level)place->level, text, (size_t)bytes, line,
                                         sizeof line));
        log_limit_told(place);
    }
    log_writer_wake_at(log_limit_next_ns(&limits));
}

/* On the writer's thread, when the 10 s of some kind are over. */
static void log_on_wake(void) {
    pthread_mutex_lock(&limits_mutex);
    log_tell_left_out(log_now_ns());
    pthread_mutex_unlock(&limits_mutex);
}

/* May a line of this kind be shown? Keeps what the first one of a kind says, for the line about
 * those that are left out. Debug lines are not limited: who asks for them wants all. */
static bool log_is_within_limit(enum log_level level, uint64_t source, uint32_t allowed,
                                const char *format, const char *text) {
    uint64_t time_ns = log_now_ns();
    if (level == LOG_LEVEL_DEBUG)
        return true;
    log_tell_left_out(time_ns);
    struct log_limit_place *place = log_limit_take(&limits, format, source, allowed, time_ns);
    if (place && place->shown == 1) {
        place->level = (int)level;
        snprintf(place->text, sizeof place->text, "%s", text);
    }
    if (!place)
        log_writer_wake_at(log_limit_next_ns(&limits));
    return place;
}

/* The level comes first, so that debug lines which nobody wants cost one comparison. */
static void log_write_line(enum log_level level, uint64_t source, uint32_t allowed,
                           const char *format, va_list args) {
    char text[LINE_BYTES_MAX], line[LINE_BYTES_MAX];
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
        return;
    int wanted = vsnprintf(text, sizeof text, format, args);
    if (wanted < 0)
        return;
    pthread_mutex_lock(&limits_mutex);
    if (log_is_within_limit(level, source, allowed, format, text))
        log_writer_put(line, log_compose(level, text, strlen(text), line, sizeof line));
    pthread_mutex_unlock(&limits_mutex);
}

void log_write(enum log_level level, const char *format, ...) {
    va_list args;
    va_start(args, format);
    log_write_line(level, 0, LINES_OF_A_KIND, format, args);
    va_end(args);
}

void log_limited(enum log_level level, uint64_t source, const char *format, ...) {
    va_list args;
    va_start(args, format);
    log_write_line(level, source, LINES_OF_A_SOURCE, format, args);
    va_end(args);
}

/* FNV-1a (Fowler, Noll, Vo): a source is compared, never looked up, so that any hash will do. */
uint64_t log_source(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

/* Before this, lines are written by whoever logs them, and may stop the process where stderr stands
 * still. */
int log_start(void) {
    static const struct log_writer_ops ops = {.compose_dropped = log_compose_dropped,
                                              .wake = log_on_wake};
    return log_writer_start(&ops);
}

void log_stop(uint32_t patience_ms) {
    log_writer_stop(patience_ms);
}

uint64_t log_dropped(void) {
    return log_writer_dropped();
}

/* One digit after the point unless the number is whole: "3.2 GiB", "64 MiB". */
char *log_bytes(uint64_t bytes, char out[16]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    while (unit + 1 < sizeof units / sizeof *units && bytes >> (10 * (unit + 1)))
        unit++;
    uint64_t whole = bytes >> (10 * unit), rest = bytes & ((1ull << (10 * unit)) - 1);
    if (rest == 0)
        snprintf(out, 16, "%" PRIu64 " %s", whole, units[unit]);
    else
        snprintf(out, 16, "%.1f %s", (double)bytes / (double)(1ull << (10 * unit)), units[unit]);
    return out;
}

/* In the largest unit in which it is a whole number: "90s", not "1.5min". */
char *log_duration(uint64_t ms, char out[32]) {
    static const struct {
        uint64_t ms;
        const char *unit;
    } units[] = {{3600000, "h"}, {60000, "min"}, {1000, "s"}, {1, "ms"}};
    size_t unit = 0;
    while (ms % units[unit].ms || (!ms && units[unit].ms > 1))
        unit++;
    snprintf(out, 32, "%" PRIu64 "%s", ms / units[unit].ms, units[unit].unit);
    return out;
}
