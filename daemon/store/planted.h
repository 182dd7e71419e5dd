/* SPDX-License-Identifier: Apache-2.0
 *
 * Planted bugs: proof that the model test can fail. Built with -DSTORE_BUG=n exactly one mistake is
 * compiled in (scripts/model-bugs builds and hunts each); without it every STORE_PLANTED() is a
 * constant 0 and leaves no code behind.
 */
#ifndef FEATURED_STORE_PLANTED_H
#define FEATURED_STORE_PLANTED_H

#ifndef STORE_BUG
#define STORE_BUG 0
#endif

enum {
    PLANTED_REUSE_LEASED = 1,  /* memory freed at retire although a reader still holds it */
    PLANTED_DEATH_CONSUMES,    /* a dead holder's leases end as consumed */
    PLANTED_NO_SUPERSEDE,      /* publish leaves the older generation readable by its number */
    PLANTED_LIFO,              /* the youngest waiting put is served first */
    PLANTED_LATE_TWICE,        /* a late `consumed` counts each time it is said */
    PLANTED_EVICT,             /* a full store drops its oldest resident to make room */
    PLANTED_ACCOUNT_LEAK,      /* cancel forgets to give bytes back to the node account */
    PLANTED_REVIVED_TOMBSTONE, /* a get by generation succeeds on a RETIRED one */
    PLANTED_LOST_WAKEUP,       /* publish wakes only the first of the getters that wait */
    PLANTED_HOLE_MISSED,       /* the allocator never searches the request's own size class */
};

#define STORE_PLANTED(bug) (STORE_BUG == (bug))

#endif
