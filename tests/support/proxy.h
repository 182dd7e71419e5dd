/* SPDX-License-Identifier: Apache-2.0
 *
 * A network between two TCP ends that can fail: a forwarder in a process of its own, so that it
 * works while the test waits. What flows in a direction that is held stays on its way, as it would
 * under retransmission, and arrives when the hold ends; new connections are taken and lead nowhere
 * until then.
 */
#ifndef FEATURED_TESTS_PROXY_H
#define FEATURED_TESTS_PROXY_H

#include "support/process.h"

enum proxy_hold {
    PROXY_OPEN = 0,
    PROXY_HOLD_TO_SERVER = 1, /* what the side that connects sends does not arrive */
    PROXY_HOLD_TO_CLIENT = 2, /* what the side that listens answers does not arrive */
    PROXY_HOLD_BOTH = 3,
};

struct proxy {
    struct process process; /* pid 0 = none */
    char address[32];       /* host:port where it listens */
};

/* Listens on a free port of 127.0.0.1 and forwards to "host:port"; nobody need be there yet. */
void proxy_start(struct proxy *proxy, const char *server);
void proxy_stop(struct proxy *proxy);
/* In force when they return. */
void proxy_hold(struct proxy *proxy, enum proxy_hold hold);
/* Ends the connections there are, with a reset; what was held back on them is lost. */
void proxy_cut(struct proxy *proxy);

#endif
