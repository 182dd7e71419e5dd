/* SPDX-License-Identifier: Apache-2.0
 *
 * How each limit of the table in docs/OPERATIONS.md is reached: by a process of another user
 * (limit_attack.c), or by one that speaks as another node (limit_peer.c).
 */
#ifndef FEATURED_TESTS_LIMIT_ATTACK_H
#define FEATURED_TESTS_LIMIT_ATTACK_H

#include "support/cluster.h"
#include "support/wire.h"

/* What came of it. */
struct attack {
    const struct cluster *cluster;
    char status[16]; /* of the refusal; "closed", "waits" */
    char sentence[512];
};

struct limit_case {
    const char *limit; /* as in the table */
    const char *ini;
    void (*reach)(struct attack *attack);
    uint32_t nodes;      /* 0 = 1 */
    uint32_t open_files; /* the broker's limit; 0 = what it has */
    bool as_root;        /* it takes an admin */
    bool in_log;         /* the sentence is in the broker's log */
    bool others_cannot;  /* put, by the nature of this limit: the other user only reads */
    bool unconnected;    /* it has a peer that cannot be reached */
};
extern const struct limit_case limit_cases[];
extern const size_t limit_case_count;

/* Says of a limit that it was reached without an answer. */
void attack_note(struct attack *attack, const char *status);

/* limit_peer.c */
void peer_opens_connections(struct attack *attack);
void peer_takes_leases(struct attack *attack);
void peer_waits(struct attack *attack);
void peer_does_not_read(struct attack *attack);
void strangers_knock(struct attack *attack);

#endif
