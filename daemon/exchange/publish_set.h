/* SPDX-License-Identifier: Apache-2.0
 *
 * The puts on their way from a sealed generation to their answer, found by generation, by operation
 * and by sample without walking them all: there may be hundreds of thousands. For publish.c and
 * publish_known.c alone.
 */
#ifndef FEATURED_BROKER_PUBLISH_SET_H
#define FEATURED_BROKER_PUBLISH_SET_H

#include "exchange/exchange.h"
#include "time/deadlines.h"

/* One home that has to retire what we replaced. */
struct older_home {
    TAILQ_ENTRY(older_home) link;
    struct publishing *publishing;
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t incarnation, generation; /* 0 = whatever the index does not name */
    bool confirmed, asked;
    bool ending;   /* word of its end is being kept, or the members are being read after that */
    uint64_t dead; /* for which incarnation */
    bool kept;     /* word of it is kept, and the members read since */
    uint64_t retry_ns;
};

/* Are all nodes among the older homes? */
enum everyone {
    EVERYONE_NOT_NEEDED = 0,
    EVERYONE_DUE,   /* the directory is to be asked who they are */
    EVERYONE_ASKED, /* it has been: we may not have heard of them all */
    EVERYONE_LISTED,
};

struct publishing {
    LIST_ENTRY(publishing) link, by_generation, by_op, by_sample;
    struct deadline due; /* once published: when it is to go on by itself */
    struct broker *broker;
    struct space *space;
    struct item *item;             /* NULL once nobody waits for the answer */
    uint64_t generation, begun_ns; /* begun_ns: of a put, its commit */
    struct store_op op;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    bool published;               /* or refused, with everyone to be asked all the same */
    enum directory_result result; /* of the directory, once published */
    bool clears;                  /* no put: what is left of one that is gone is to go */
    bool by_id;                   /* ... with all that is held of the sample */
    enum store_reason reason;     /* why others retire */
    bool record_due;              /* retired meanwhile: its record goes when nothing older lives */
    enum everyone everyone;
    uint64_t everyone_retry_ns;
    struct account *charged; /* who caused it; NULL = ourselves */
    TAILQ_HEAD(, older_home) older;
};
LIST_HEAD(publishing_list, publishing);

/* NULL: out of memory. */
struct publish_set *publish_set_new(void);
void publish_set_free(struct publish_set *set); /* it is empty */
struct publishing *publish_set_first(struct publish_set *set);
/* Its generation, op, space and sample_id do not change until it is removed. */
void publish_set_add(struct publish_set *set, struct publishing *publishing);
void publish_set_remove(struct publishing *publishing);

/* The youngest such, or the next one older than `after`; NULL = none. */
struct publishing *publish_set_by_generation(struct publish_set *set, const struct space *space,
                                             uint64_t generation, struct publishing *after);
struct publishing *publish_set_by_sample(struct publish_set *set, const struct space *space,
                                         const char *sample_id, struct publishing *after);
struct publishing *publish_set_by_op(struct publish_set *set, const struct space *space,
                                     struct store_op op);

#endif
