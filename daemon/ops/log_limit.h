/* SPDX-License-Identifier: Apache-2.0
 *
 * How often one kind of line may come from one source. Pure: the time is an argument.
 *
 * A kind and its source have a place in the table for 10 s from their first line. When all places
 * are taken, further kinds share one, so that no number of sources can go round the limit.
 */
#ifndef FEATURED_OPS_LOG_LIMIT_H
#define FEATURED_OPS_LOG_LIMIT_H

#include <stdint.h>

#define LOG_LIMIT_PLACES   128u
#define LOG_LIMIT_SPAN_NS  10000000000ull
#define LOG_LIMIT_SHARED   10u /* lines of the place that is shared */
#define LOG_LIMIT_TEXT_MAX 200u

struct log_limit_place {
    const char *kind; /* NULL: free; the shared place keeps it NULL */
    uint64_t source, since_ns;
    uint32_t shown, hidden;
    int level;                     /* of the first line, */
    char text[LOG_LIMIT_TEXT_MAX]; /* and what it said */
};

struct log_limits {
    struct log_limit_place places[LOG_LIMIT_PLACES]; /* [0] is the shared one */
};

/* The place of a line that may be shown, at most `allowed` times in 10 s; NULL: it is to be left
 * out, and has been counted. Call log_limit_due() until there is nothing due before. */
struct log_limit_place *log_limit_take(struct log_limits *limits, const char *kind, uint64_t source,
                                       uint32_t allowed, uint64_t now_ns);
/* A place whose 10 s are over and that left lines out: how many is told with it. The caller frees
 * it with log_limit_told(). NULL: none. */
struct log_limit_place *log_limit_due(struct log_limits *limits, uint64_t now_ns);
void log_limit_told(struct log_limit_place *place);
/* When log_limit_due() will next have something; UINT64_MAX: never, as things are. */
uint64_t log_limit_next_ns(const struct log_limits *limits);

#endif
