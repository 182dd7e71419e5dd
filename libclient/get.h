/* SPDX-License-Identifier: Apache-2.0
 *
 * One Get request for a few keys, from the message to the views. get.c waits for it
 * (feature_get() and its kin), get_start.c has a queue do the waiting.
 */
#ifndef FEATURED_LIBCLIENT_GET_H
#define FEATURED_LIBCLIENT_GET_H

#include "error.h"
#include "request.h"
#include "verify.h"

/* A request's worth of keys. The arrays have `count` elements; whoever fills them in frees them. */
struct fc_get {
    struct fc_request request; /* to be made by fc_request(), or by steps */
    const struct feature_get_options *options;
    struct feature_get_item **items; /* keys in, statuses and views out */
    size_t count;
    struct fc_verifier **early; /* NULL: nothing of it was seen to land */
    Fb__Get message;
    Fb__GetItem *messages, **pointers;
};

/* With deadline_ms set; the rest is the caller's. FEATURE_OK, or a sentence. */
int fc_get_read_options(const struct feature_get_options *theirs, struct feature_get_options *out);
/* FEATURE_OK if this key may be asked for in this store. */
int fc_get_check_item(const struct feature_store *store, const struct feature_get_item *item);
/* How many items from items[0] on fit one request, at least 1. */
size_t fc_get_fit(struct feature_get_item *const *items, size_t count, struct fc_limits limits);
/* Makes the request from options, items, count and the arrays, which are set. The deadline begins
 * now, or, with fc_get_bound_ns(), when the owner says. */
void fc_get_make(struct fc_get *get, struct feature_store *store);
uint64_t fc_get_bound_ns(const struct feature_get_options *options);
/* The request has ended with rc: status and view of each item, checked where the policy says so;
 * failures but CORRUPT are noted. One that is CORRUPT has been given back and may be asked for once
 * more. Does not wait. */
void fc_get_take(const struct fc_get *get, int rc, struct fc_first_error *failure);
/* The request has ended well and nobody wants its views: gives back what it was granted. */
void fc_get_give_back(const struct fc_get *get);
/* Frees what the request has brought; not the arrays. */
void fc_get_deinit(struct fc_get *get);

#endif
