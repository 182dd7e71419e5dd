/* SPDX-License-Identifier: Apache-2.0
 *
 * Every sample of a store on one node, page by page, through this broker.
 */
#ifndef FEATURED_CTL_PAGES_H
#define FEATURED_CTL_PAGES_H

#include "featurectl/context.h"

struct pages_query {
    const Fb__StoreInfo *store;
    uint32_t handle;    /* context_scope() */
    const char *node;   /* whose */
    const char *prefix; /* of ids; "" = all */
    bool all_states;    /* also those being written, retired or gone */
    bool holders;       /* name who holds each */
};

/* Called for each sample; what it is given is valid until it returns. */
typedef void (*pages_visit_fn)(void *user, const struct pages_query *query,
                               const Fb__SampleInfo *sample);

/* What changes meanwhile is seen or not. Returns a status, already reported. */
int pages_list(struct context *context, const struct pages_query *query, pages_visit_fn visit,
               void *user);

#endif
