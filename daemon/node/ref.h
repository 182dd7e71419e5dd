/* SPDX-License-Identifier: Apache-2.0
 *
 * A ref as the daemon keeps it: which sample, and where it is at home. The store is the one that
 * the request is about. On the wire a ref is part of Fb__RetireItem and Fb__GetItem; a new field of
 * the ref is added here, in ref.c, and where it is used.
 */
#ifndef FEATURED_NODE_REF_H
#define FEATURED_NODE_REF_H

#include <stdbool.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "directory/directory.h"
#include "proto/layout.h"

struct ref {
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    uint64_t generation;                  /* 0: whichever stands under that id */
    char home[LAYOUT_NAME_BYTES_MAX + 1]; /* "": this node, or any */
    uint64_t incarnation;                 /* of the home; 0: not known */
};

/* Takes over what a message says. NULL, or what is wrong with it: then *ref is as it was. */
const char *ref_set(struct ref *ref, const char *sample_id, uint64_t generation, const char *home,
                    uint64_t incarnation);
const char *ref_from_item(struct ref *ref, const Fb__RetireItem *item);
/* *item points into *ref. */
void ref_to_item(const struct ref *ref, Fb__RetireItem *item);
/* The sample's home, generation and incarnation are what the record in the index says. */
void ref_locate(struct ref *ref, const struct directory_record *record);
/* The record of what the ref names; it points into *ref, and to `store`. */
struct directory_record ref_record(const struct ref *ref, const char *store);
/* Its home is the node of that name, or it names none. */
bool ref_is_at(const struct ref *ref, const char *node);

#endif
