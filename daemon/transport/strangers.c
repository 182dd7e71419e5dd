/* SPDX-License-Identifier: Apache-2.0
 *
 * When there are too many, the oldest goes, not the newest. A handshake takes milliseconds, so
 * whoever has been at it for longest is the least likely to be an honest broker. An attacker who
 * opens connections and stays silent thus pushes out his own, and a broker that dials in the middle
 * of that gets through.
 */
#include "transport/strangers.h"

#include <inttypes.h>
#include <stddef.h>

#include "ops/log.h"

/* Somebody who knocks in a loop would fill the journal: one line a second, with a count. */
enum { LOG_EVERY_MS = 1000 };

void strangers_init(struct strangers *strangers, uint32_t max) {
    *strangers = (struct strangers){.max = max};
    TAILQ_INIT(&strangers->all);
}

struct stranger *strangers_add(struct strangers *strangers, struct stranger *stranger) {
    TAILQ_INSERT_TAIL(&strangers->all, stranger, link);
    stranger->is_one = true;
    strangers->count++;
    return strangers->count > strangers->max ? TAILQ_FIRST(&strangers->all) : NULL;
}

void strangers_remove(struct strangers *strangers, struct stranger *stranger) {
    if (!stranger->is_one)
        return;
    TAILQ_REMOVE(&strangers->all, stranger, link);
    stranger->is_one = false;
    strangers->count--;
}

struct stranger *strangers_oldest(const struct strangers *strangers) {
    return TAILQ_FIRST(&strangers->all);
}

bool strangers_may_log(struct strangers *strangers, uint64_t now_ms) {
    if (strangers->logged_ms == 0 || now_ms - strangers->logged_ms >= LOG_EVERY_MS)
        return true;
    strangers->unlogged++;
    return false;
}

void strangers_log(struct strangers *strangers, uint64_t now_ms, const char *listener,
                   const char *address, const char *why) {
    log_warning("%s: dropped %s before it proved itself: %s (%" PRIu32 " more unreported)",
                listener, address, why, strangers->unlogged);
    strangers->logged_ms = now_ms;
    strangers->unlogged = 0;
}
