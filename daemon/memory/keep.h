/* SPDX-License-Identifier: Apache-2.0
 *
 * A keeper holds descriptors for a broker while the broker is away, so that memory outlives the
 * process that made it. The broker hands a descriptor over under a name, and whoever starts the
 * broker again hands all of them in. There are two real keepers, which speak the same protocol:
 * systemd and `featured --supervise` (daemon/keep_sd.h). Tests bring one of their own
 * (tests/support/keep_fake.h).
 *
 * Example: the broker makes a store, puts its arena as "a.3" and its index as "i.3", and only then
 * tells the client. After a crash the next broker takes "a.3" and "i.3" and attaches them.
 *
 * Every function may be called with keep == NULL, which means that nobody keeps anything: nothing
 * can be taken, and a put is a success that has no effect.
 */
#ifndef FEATURED_MEMORY_KEEP_H
#define FEATURED_MEMORY_KEEP_H

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Letters, digits, '.' and '-'. Short on purpose: systemd hands all names over in one variable of
 * the environment, and exec fails when that is longer than 128 KiB. */
#define KEEP_NAME_BYTES_MAX 31

/* Makes a name of what it is, as one letter, and of its number: 'p' and 17 make "p.17". */
static inline void keep_name(char out[KEEP_NAME_BYTES_MAX + 1], char kind, uint32_t number) {
    snprintf(out, KEEP_NAME_BYTES_MAX + 1, "%c.%" PRIu32, kind, number);
}

struct keep;

struct keep_ops {
    int (*take)(struct keep *keep, const char *name);
    int (*put)(struct keep *keep, const char *name, int fd);
    void (*drop)(struct keep *keep, const char *name);
    const char *(*next)(struct keep *keep, size_t *cursor);
    bool (*flush)(struct keep *keep);
};

/* The first member of each keeper. */
struct keep {
    const struct keep_ops *ops;
};

/* The descriptor that was handed in at start under that name. It is the caller's now; the keeper
 * goes on holding its own. -ENOENT: there was none, or it has been taken. */
static inline int keep_take(struct keep *keep, const char *name) {
    return keep ? keep->ops->take(keep, name) : -ENOENT;
}

/* Hands fd over; the caller's descriptor stays the caller's. 0: the keeper has it, even if this
 * process dies at the next instruction. Never blocks.
 * -EAGAIN: the keeper is behind with its work; try again in a later turn of the loop.
 * -ENOSPC: it holds as many as it may; nothing was sent.
 * -EEXIST: it holds that name already. -EINVAL: not a name. Others: the keeper cannot be reached.
 */
static inline int keep_put(struct keep *keep, const char *name, int fd) {
    return keep ? keep->ops->put(keep, name, fd) : 0;
}

/* The keeper closes what it holds under that name. A name that it does not hold is a success. What
 * cannot be said now is said later, by flush() or before the next put. */
static inline void keep_drop(struct keep *keep, const char *name) {
    if (keep)
        keep->ops->drop(keep, name);
}

/* Walks the names that were handed in and that nobody has taken; *cursor 0 to begin, NULL at the
 * end. The name is valid until it is taken or dropped; both are allowed during the walk. */
static inline const char *keep_next(struct keep *keep, size_t *cursor) {
    return keep ? keep->ops->next(keep, cursor) : NULL;
}

/* Says what could not be said before. True: there is still something left; call again soon. */
static inline bool keep_flush(struct keep *keep) {
    return keep && keep->ops->flush(keep);
}

#endif
