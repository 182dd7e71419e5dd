/* SPDX-License-Identifier: Apache-2.0
 *
 * What a forked child must not inherit. A child is not its parent: it holds no session, so it may
 * keep neither the session's socket open nor write into arenas that its parent has room in. The
 * library tells this file of every descriptor and every writable mapping it has; a fork() closes
 * the former in the child and makes the latter read-only there. The parent notices nothing.
 *
 * A descriptor is known from the moment it exists: whoever makes one holds the lock meanwhile, and
 * fork() waits for the lock. vfork(), posix_spawn() and exec need nothing of this: every descriptor
 * is close-on-exec.
 */
#ifndef FEATURED_LIBCLIENT_FORK_H
#define FEATURED_LIBCLIENT_FORK_H

#include <stddef.h>

/* Lives in its owner; all zero = not known here. */
struct fc_inherited {
    struct fc_inherited *next, **at;
    int fd;       /* closed in the child; -1 = none, and in the child */
    void *base;   /* read-only in the child; NULL = none */
    size_t bytes; /* from base on */
};

/* Once, before the first descriptor; again is fine. 0 or an errno. */
int fc_fork_init(void);
/* Nobody forks between the two. Short: never held while something is waited for. */
void fc_fork_lock(void);
void fc_fork_unlock(void);

/* With the lock held: from now on *entry is known, with what is set in it. */
void fc_fork_enter(struct fc_inherited *entry);
/* With the lock held. Does nothing for one that is not known. */
void fc_fork_leave(struct fc_inherited *entry);
/* Without the lock: `from` becomes `to` (which is not known), and holds nothing any more. */
void fc_fork_move(struct fc_inherited *from, struct fc_inherited *to);
/* Without the lock: closes the descriptor, if there is one, and forgets the entry. */
void fc_fork_close(struct fc_inherited *entry);

#endif
