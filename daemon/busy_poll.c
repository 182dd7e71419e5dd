/* SPDX-License-Identifier: Apache-2.0
 *
 * Is it worth while to look for the next request without sleeping? Putting the loop's thread to
 * sleep and waking it costs a good part of the time that a small get takes; a client that sends
 * request after request gains that each time. A loop that only looks costs a core, and does not pay
 * when requests come rarely.
 *
 * So it keeps an account: a look that finds a request earns PAID credit, one that does not costs 1.
 * Without credit only every PROBE_INTERVALth request is followed by a look, to find out whether it
 * would pay again.
 */
#include "busy_poll.h"

#define CREDIT_MAX     8u
#define PAID           2u
#define PROBE_INTERVAL 32u

/* Called once per request, so that a broker without requests never looks. */
static bool busy_poll_worth_a_look(struct busy_poll *poll) {
    if (poll->credit)
        return true;
    if (++poll->skipped < PROBE_INTERVAL)
        return false;
    poll->skipped = 0;
    return true;
}

/* requests: how many there have been since the start; a change means that one has come in this
 * turn. */
bool busy_poll_turn(struct busy_poll *poll, uint64_t requests, uint64_t now_ns) {
    if (requests != poll->seen) {
        poll->seen = requests;
        if (poll->looking)
            poll->credit = poll->credit + PAID < CREDIT_MAX ? poll->credit + PAID : CREDIT_MAX;
        poll->until_ns = now_ns + poll->span_ns;
        poll->looking = poll->span_ns && busy_poll_worth_a_look(poll);
    } else if (poll->looking && now_ns >= poll->until_ns) {
        poll->looking = false;
        poll->credit -= poll->credit > 0;
    }
    return poll->looking;
}
