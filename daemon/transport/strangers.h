/* SPDX-License-Identifier: Apache-2.0
 *
 * Who has dialled us and has not proved himself yet. Anybody who reaches our port can become one
 * of them, so there are at most so many, and what they cost the log is limited.
 */
#ifndef FEATURED_TRANSPORT_STRANGERS_H
#define FEATURED_TRANSPORT_STRANGERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct stranger { /* inside a link of the transport */
    TAILQ_ENTRY(stranger) link;
    bool is_one;
};

struct strangers {
    TAILQ_HEAD(, stranger) all; /* the oldest first */
    uint32_t count, max;
    uint64_t logged_ms; /* 0: never */
    uint32_t unlogged;
};

void strangers_init(struct strangers *strangers, uint32_t max);
/* Returns the oldest one when there are more than `max` now: the caller is to drop that one. */
struct stranger *strangers_add(struct strangers *strangers, struct stranger *stranger);
/* He has proved himself, or has gone. Nothing happens if he is not one of them. */
void strangers_remove(struct strangers *strangers, struct stranger *stranger);
struct stranger *strangers_oldest(const struct strangers *strangers); /* NULL: there is none */

/* Whether one more may be logged now; false counts him as unreported. To be asked before his
 * address is looked up, and followed by strangers_log when true. */
bool strangers_may_log(struct strangers *strangers, uint64_t now_ms);
void strangers_log(struct strangers *strangers, uint64_t now_ms, const char *listener,
                   const char *address, const char *why);

/* Why the oldest one is dropped, in words for his log line. */
#define STRANGERS_TOO_MANY "too many unfinished handshakes, dropping the oldest"

#endif
