/* SPDX-License-Identifier: Apache-2.0
 *
 * One line is one write(2), so that lines of several threads or processes do not mix. Control
 * characters (a client may choose names) become '?', so that nobody can forge a line. The level is
 * the only state.
 */
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 2048

static const char *const level_words[] = {"error", "warning", "info", "debug"};
static const char journal_digits[] = "3467"; /* sd-daemon(3): err, warning, info, debug */
static _Atomic int max_level = LOG_LEVEL_INFO;

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

/* systemd.exec(5): $JOURNAL_STREAM is inherited by everything a service starts; it means us only if
 * it names the very file that is our stderr. */
static bool stderr_is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char ours[64];
    if (!stream || fstat(STDERR_FILENO, &status) < 0)
        return false;
    snprintf(ours, sizeof ours, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    return strcmp(stream, ours) == 0;
}

static size_t write_prefix(char *line, size_t bytes, enum log_level level) {
    if (stderr_is_journal())
        return (size_t)snprintf(line, bytes, "<%c>", journal_digits[level]);
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, bytes, "%Y-%m-%dT%H:%M:%S", &utc);
    return used + (size_t)snprintf(line + used, bytes - used, ".%03ldZ %-7s ",
                                   now.tv_nsec / 1000000, level_words[level]);
}

void log_write(enum log_level level, const char *format, ...) {
    char line[LINE_BYTES_MAX];
    va_list args;
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
        return;
    size_t used = write_prefix(line, sizeof line, level), room = sizeof line - used - 1;
    va_start(args, format);
    int wanted = vsnprintf(line + used, room, format, args);
    va_end(args);
    if (wanted < 0)
        return;
    size_t end = used + ((size_t)wanted < room ? (size_t)wanted : room - 1);
    for (size_t i = used; i < end; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    if ((size_t)wanted >= room)
        memset(line + end - 3, '.', 3);
    line[end] = '\n';
    ssize_t written = write(STDERR_FILENO, line, end + 1);
    (void)written; /* nowhere left to say it */
}

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
