/* SPDX-License-Identifier: Apache-2.0
 *
 * How often one kind of line may come from one source: a table of LOG_LIMIT_PLACES places, each for
 * a kind and its source, for 10 s from their first line. log_limit.h has the contract.
 *
 * A place with nothing left to tell is free when its time is over. Place 0 is shared by all kinds
 * that find no free one; it keeps kind NULL. The table is walked from end to end for each line: it
 * is small, and a line costs a system call anyway.
 */
#include "ops/log_limit.h"

#include <stdbool.h>
#include <stddef.h>

static bool limit_is_over(const struct log_limit_place *place, uint64_t now_ns) {
    return now_ns - place->since_ns >= LOG_LIMIT_SPAN_NS;
}

/* One that left lines out is not free: their number has to be told first. */
static bool limit_is_free(const struct log_limit_place *place, uint64_t now_ns) {
    return !place->kind || (!place->hidden && limit_is_over(place, now_ns));
}

/* Kinds are compared by address: the format is a literal, and the same one each time. */
static struct log_limit_place *limit_find(struct log_limits *limits, const char *kind,
                                          uint64_t source, uint64_t now_ns) {
    struct log_limit_place *found = NULL;
    for (uint32_t i = 1; i < LOG_LIMIT_PLACES; i++) {
        struct log_limit_place *place = &limits->places[i];
        if (place->kind == kind && place->source == source)
            return place;
        if (!found && limit_is_free(place, now_ns))
            found = place;
    }
    if (found)
        *found = (struct log_limit_place){.kind = kind, .source = source, .since_ns = now_ns};
    return found;
}

/* A new span begins with the first line after the old one is over, not on the clock. */
struct log_limit_place *log_limit_take(struct log_limits *limits, const char *kind, uint64_t source,
                                       uint32_t allowed, uint64_t now_ns) {
    struct log_limit_place *place = limit_find(limits, kind, source, now_ns);
    if (!place) {
        place = &limits->places[0];
        allowed = LOG_LIMIT_SHARED;
    }
    if (limit_is_over(place, now_ns)) {
        place->since_ns = now_ns;
        place->shown = 0;
    }
    if (place->shown < allowed) {
        place->shown++;
        return place;
    }
    place->hidden++;
    return NULL;
}

struct log_limit_place *log_limit_due(struct log_limits *limits, uint64_t now_ns) {
    for (uint32_t i = 0; i < LOG_LIMIT_PLACES; i++)
        if (limits->places[i].hidden && limit_is_over(&limits->places[i], now_ns))
            return &limits->places[i];
    return NULL;
}

void log_limit_told(struct log_limit_place *place) {
    *place = (struct log_limit_place){0};
}

/* Only places that have something to tell count. */
uint64_t log_limit_next_ns(const struct log_limits *limits) {
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < LOG_LIMIT_PLACES; i++) {
        const struct log_limit_place *place = &limits->places[i];
        uint64_t end_ns = place->since_ns + LOG_LIMIT_SPAN_NS;
        if (place->hidden && end_ns < next_ns)
            next_ns = end_ns;
    }
    return next_ns;
}
