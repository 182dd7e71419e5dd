/* SPDX-License-Identifier: Apache-2.0
 *
 * Binary units for memory, decimal for rates (as links and disks are sold). No state.
 *
 * For people sizes are rounded to one decimal and durations to their two largest units: "3.2
 * GiB", "2 h 5 min". What people type is exact: whole numbers with a unit, without fractions,
 * and refused when it does not fit 64 bits.
 */
#include "featurectl/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The largest first, for printing. The short names behind them are only read, never printed. */
struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit byte_units[] = {
    {"TiB", 1ull << 40},
    {"GiB", 1ull << 30},
    {"MiB", 1ull << 20},
    {"KiB", 1ull << 10},
    {"T", 1ull << 40},
    {"G", 1ull << 30},
    {"M", 1ull << 20},
    {"K", 1ull << 10},
    {"B", 1},
    {"", 1},
    {NULL, 0},
};
static const struct unit time_units[] = {
    {"ms", 1},
    {"s", 1000},
    {"min", 60ull * 1000},
    {"h", 3600ull * 1000},
    {"d", 24ull * 3600 * 1000},
    {NULL, 0},
};

/* `out` is returned, so that the call can stand among the arguments of printf. */
char *units_bytes(uint64_t bytes, char out[UNITS_ROOM]) {
    for (const struct unit *u = byte_units; u->factor > 1; u++)
        if (bytes >= u->factor) {
            snprintf(out, UNITS_ROOM, "%.1f %s", (double)bytes / (double)u->factor, u->name);
            return out;
        }
    snprintf(out, UNITS_ROOM, "%" PRIu64 " B", bytes);
    return out;
}

/* Below a second in milliseconds; above, the smaller units are cut off, not rounded. */
char *units_duration(uint64_t ms, char out[UNITS_ROOM]) {
    uint64_t seconds = ms / 1000, minutes = seconds / 60, hours = minutes / 60;
    if (ms < 1000)
        snprintf(out, UNITS_ROOM, "%" PRIu64 " ms", ms);
    else if (minutes == 0)
        snprintf(out, UNITS_ROOM, "%" PRIu64 " s", seconds);
    else if (hours == 0)
        snprintf(out, UNITS_ROOM, "%" PRIu64 " min %" PRIu64 " s", minutes, seconds % 60);
    else if (hours < 24)
        snprintf(out, UNITS_ROOM, "%" PRIu64 " h %" PRIu64 " min", hours, minutes % 60);
    else
        snprintf(out, UNITS_ROOM, "%" PRIu64 " d %" PRIu64 " h", hours / 24, hours % 24);
    return out;
}

/* Decimal units, as links and disks are sold: 25 GB/s is a 200 Gbit/s port. */
char *units_rate(uint64_t bytes, uint64_t ns, char out[UNITS_ROOM]) {
    double per_second = ns ? (double)bytes * 1e9 / (double)ns : 0;
    if (per_second >= 1e9)
        snprintf(out, UNITS_ROOM, "%.2f GB/s", per_second / 1e9);
    else
        snprintf(out, UNITS_ROOM, "%.1f MB/s", per_second / 1e6);
    return out;
}

/* Leading decimal digits; NULL when there are none or they overflow, else what follows them. */
static const char *units_parse_digits(const char *text, uint64_t *out) {
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return NULL;
    *out = value;
    return at == text ? NULL : at;
}

/* The whole text has to be digits: "12 " and "12x" are refused. */
bool units_parse_count(const char *text, uint64_t *out) {
    uint64_t value;
    const char *rest = units_parse_digits(text, &value);
    if (!rest || *rest)
        return false;
    *out = value;
    return true;
}

/* Case does not matter, and blanks may stand before the unit: "64kib", "64 KiB". False when the
 * product overflows.
 */
static bool units_parse_with_unit(const char *text, const struct unit *units, uint64_t *out) {
    uint64_t value;
    const char *rest = units_parse_digits(text, &value);
    if (!rest)
        return false;
    rest += strspn(rest, " ");
    for (const struct unit *u = units; u->name; u++)
        if (strcasecmp(rest, u->name) == 0 && !__builtin_mul_overflow(value, u->factor, &value)) {
            *out = value;
            return true;
        }
    return false;
}

/* "4096", "64KiB", "512MiB" or "4GiB"; a bare number is bytes. */
bool units_parse_bytes(const char *text, uint64_t *out) {
    return units_parse_with_unit(text, byte_units, out);
}

/* A time needs a unit, because "30" could be meant as seconds or milliseconds. 0 alone needs
 * none.
 */
bool units_parse_duration_ms(const char *text, uint64_t *out) {
    uint64_t value;
    if (units_parse_count(text, &value) && value == 0) {
        *out = 0;
        return true;
    }
    return units_parse_with_unit(text, time_units, out);
}
