/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature_view inside: a lease and the bytes it covers.
 */
#ifndef FEATURED_LIBCLIENT_VIEW_H
#define FEATURED_LIBCLIENT_VIEW_H

#include "ref.h"
#include "request.h"
#include "verify.h"

struct feature_view {
    struct feature_store *store; /* a reference */
    struct fc_mapping *mapping;  /* a reference */
    struct feature_ref *ref;     /* with its spec */
    const uint8_t *extent;       /* in the mapping */
    uint64_t lease_hi, lease_lo;
    uint64_t session, incarnation; /* that granted the lease */
};

/* The view of a granted lease, checked against the mapping. known: the ref that was asked for, or
 * NULL. On failure the lease is still the caller's to release. */
int fc_view_new(const struct fc_request *request, const Fb__GetResult *result,
                const struct feature_ref *known, const char *sample_id, struct feature_view **out);
/* FEATURE_OK, or FEATURE_E_CORRUPT with a sentence naming the tensor. begun: has checked a part of
 * these very bytes already; NULL = nothing has. */
int fc_view_verify(const struct feature_view *view, struct fc_verifier *begun);
/* FEATURE_OK, or FEATURE_E_INVALID: `how` is none. function: "feature_release", for the sentence.
 */
int fc_view_check_how(enum feature_release_how how, const char *function);
/* Says how the read ended and frees the view. */
void fc_view_end(struct feature_view *view, enum feature_release_how how);
/* The same for a read that does not count: its bytes do not match, or nobody wants it. Does not
 * wait.
 */
void fc_view_leave(struct feature_view *view, bool corrupt);

#endif
