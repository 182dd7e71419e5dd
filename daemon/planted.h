/* SPDX-License-Identifier: Apache-2.0
 *
 * Planted bugs: proof that the cluster simulator can fail. Built with -DBROKER_BUGS the mistake
 * numbered `broker_bug` is made at run time (scripts/cluster-bugs hunts each); without it every
 * BROKER_PLANTED() is a constant 0 and leaves no code behind.
 */
#ifndef FEATURED_PLANTED_H
#define FEATURED_PLANTED_H

enum {
    PLANTED_LANDING_REUSED = 1, /* a landing extent is free again while its read still runs */
    PLANTED_SHORT_READ,         /* a read that ended with its link is taken for whole */
    PLANTED_STALE_READ,         /* bytes are read over a newer link than the lease came by */
    PLANTED_CACHED_GRANT,       /* a cached copy is granted without asking the home */
    PLANTED_FOUND_TWICE,        /* a get by id goes on looking after a grant */
    PLANTED_UNHEARD_IS_NO,      /* a node that cannot be asked counts as one without the id */
    PLANTED_DEATH_CONSUMES,     /* a lease on a copy that ends as returned is told as consumed */
    PLANTED_RELEASE_FORGOTTEN,  /* a consumed release is dropped when its link is lost */
    PLANTED_OTHER_LINK,         /* a release ends only leases of its own connection */
    PLANTED_ASKER_KEEPS,        /* leases of a node whose connection died are kept */
    PLANTED_ABORT_EARLY,        /* an abort is answered before its home confirmed it */
    PLANTED_ACK_FORGOTTEN,      /* an ack that finds its home unreachable is answered and dropped */
    PLANTED_ID_ACK_KEPT,        /* an ack by id is delivered whenever its peer comes back */
    PLANTED_REPLAY_TWICE,       /* an operation said again is carried out again */
    PLANTED_REPEAT_UNADOPTED,   /* ... while the first is being published */
    PLANTED_ANY_INCARNATION,    /* a ref of an earlier incarnation is not noticed */
    PLANTED_REFUSED_PUBLISHED,  /* a put that the directory refused becomes resident */
    PLANTED_NOT_SUPERSEDED,     /* the home of what a put replaced is not told */
    PLANTED_UNREACHED_IS_DEAD,  /* ... and an older home that cannot be reached counts as dead */
    PLANTED_NOT_RECONCILED,     /* what was superseded while this node was fenced is kept */
    PLANTED_RECORD_KEPT,        /* the index is not told of a sample that was retired */
    PLANTED_MEMBERS_HEARD_OF,   /* everyone is those heard of, not those that are members */
    PLANTED_DEATH_UNCHECKED,    /* after a death nobody checks what it holds */
    PLANTED_LANDED_EARLY,       /* a client is told of bytes that have not landed yet */
    PLANTED_LOOKED_ONCE,        /* what the index named and is gone is not looked for again */
};

#ifdef BROKER_BUGS
extern unsigned broker_bug;
#define BROKER_PLANTED(bug) (broker_bug == (bug))
#else
#define BROKER_PLANTED(bug) 0
#endif

#endif
