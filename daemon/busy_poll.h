/* SPDX-License-Identifier: Apache-2.0
 *
 * Decides whether the loop looks for the next request for a moment instead of going to sleep:
 * waking a sleeping core costs several times what a request does. Adaptive: it goes on only as long
 * as it pays, so that clients that ask once in a while cost nothing. Pure; time is an argument.
 */
#ifndef FEATURED_BUSY_POLL_H
#define FEATURED_BUSY_POLL_H

#include <stdbool.h>
#include <stdint.h>

struct busy_poll {
    uint64_t span_ns; /* how long to look after a request; 0 = never */
    uint64_t until_ns;
    uint64_t seen;   /* requests so far */
    uint32_t credit; /* of looks that paid */
    uint32_t skipped;
    bool looking;
};

/* After each turn of the loop: `requests` have come so far in all. True: do not sleep now. */
bool busy_poll_turn(struct busy_poll *poll, uint64_t requests, uint64_t now_ns);

#endif
