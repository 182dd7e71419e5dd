/* SPDX-License-Identifier: Apache-2.0
 *
 * Deadlines inside the library are absolute nanoseconds of CLOCK_MONOTONIC; FC_NEVER_NS = none.
 */
#ifndef FEATURED_LIBCLIENT_CLOCK_H
#define FEATURED_LIBCLIENT_CLOCK_H

#include <stdint.h>
#include <time.h>

#define FC_NEVER_NS  UINT64_MAX
#define FC_NS_PER_MS 1000000ull

static inline uint64_t fc_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* The broker's clock, which goes on while the machine sleeps: what ends there by time. */
static inline uint64_t fc_boot_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* now + span, saturating at FC_NEVER_NS. */
static inline uint64_t fc_after_ns(uint64_t now_ns, uint64_t span_ns) {
    return now_ns > FC_NEVER_NS - span_ns ? FC_NEVER_NS : now_ns + span_ns;
}

static inline uint64_t fc_soonest_ns(uint64_t a_ns, uint64_t b_ns) {
    return a_ns < b_ns ? a_ns : b_ns;
}

static inline uint64_t fc_left_ns(uint64_t deadline_ns) {
    uint64_t now_ns = fc_now_ns();
    return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

static inline struct timespec fc_timespec(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000ull),
                             .tv_nsec = (long)(ns % 1000000000ull)};
}

#endif
