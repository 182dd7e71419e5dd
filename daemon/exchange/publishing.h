/* SPDX-License-Identifier: Apache-2.0
 *
 * One put, repair or end that is under way. Two files share this struct: publish.c carries it out,
 * and publish_recall.c writes its progress into the node's memory. If the broker is killed before
 * the end, the next broker reads there how far the put had come, and goes on.
 */
#ifndef FEATURED_EXCHANGE_PUBLISHING_H
#define FEATURED_EXCHANGE_PUBLISHING_H

#include "exchange/exchange_internal.h"

_Static_assert(CLUSTER_NAME_BYTES == LAYOUT_NAME_BYTES_MAX + 1, "names of nodes");

struct publishing {
    struct supersede supersede;
    struct deadline due; /* when the machine goes on by itself */
    struct broker *broker;
    struct space *space;
    struct publish_waiter *waiter; /* NULL: nobody waits, or not any more */
    struct account *charged;       /* who caused it; NULL = ourselves */
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    uint64_t bytes;               /* of a put: its extent */
    enum directory_result result; /* of a put, once it is in the index or refused */
    enum store_reason reason;     /* why others retire */
    uint32_t kept;                /* of a put: its record in the node's memory, + 1; 0 = none */
    bool again;                   /* its publish was under way before a restart, */
    int64_t moment;               /* and had been asked for at this one */
};

/* ---- publish.c ---- */

/* NULL: out of memory. */
struct publishing *publish_new(struct broker *broker, struct space *space, const char *sample_id,
                               uint64_t generation);
/* Released when the publishing ends, however many wait for it meanwhile. */
void publish_charge(struct publishing *publishing, struct account *account);
/* The index has it. older: our own record among others, which it has replaced, or NULL. */
void publish_make_resident(struct publishing *publishing, const struct directory_record *older,
                           struct supersede_published *published);
/* Both may free it. */
void publish_carry_out(struct publishing *publishing);
void publish_go_on(struct publishing *publishing);

/* ---- publish_recall.c ---- */

/* The index has it, and this is what it has replaced. */
void publish_note_published(struct publishing *publishing,
                            const struct supersede_published *published);

#endif
