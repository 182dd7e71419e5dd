/* SPDX-License-Identifier: Apache-2.0
 *
 * What attach.c asks of check.c: is a block that another process left whole? It is only read.
 */
#ifndef FEATURED_STORE_CHECK_H
#define FEATURED_STORE_CHECK_H

#include "store/store_internal.h"

/* Memory that an attach needs for as long as it lasts. */
struct scratch {
    unsigned char *chunk_used, *name_used; /* one byte for each slot ever used, 0 at first */
    struct keyed *items, *spare; /* as many as samples and leases, or names, were ever used */
    uint32_t *todo;              /* as many as samples were */
};

/* Magic, format, layout and sizes. Afterwards the tables are where `options` says. */
enum store_attached check_header(const void *block, size_t block_bytes,
                                 const struct store_options *options, char *why, size_t why_bytes);
/* Everything else; check_header() must have been content. Leaves in chunk_used and name_used which
 * of them belong to a sample. */
bool check_block(const void *block, const struct store_options *options,
                 const struct scratch *scratch, char *why, size_t why_bytes);

#endif
