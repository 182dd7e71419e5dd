/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature_store: an open store, opened again by itself in every new session. Lives until
 * the application closed it and its last view and reservation are gone, so that they can still be
 * released.
 */
#ifndef FEATURED_LIBCLIENT_STORE_HANDLE_H
#define FEATURED_LIBCLIENT_STORE_HANDLE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "connection.h"
#include "feature.h"
#include "mapping.h"
#include "proto/auth.h"

struct fc_release; /* see release.h */

struct feature_store {
    atomic_uint refs; /* the application's, and one for each view and reservation */
    struct feature *feature;
    char name[65];
    bool write;
    bool cuda_unpinned; /* its arena is not to be registered with CUDA */
    uint8_t *key;       /* derived from the secret, in locked memory; NULL = none */

    /* under the feature's lock */
    struct feature_store *next; /* of feature->stores */
    bool open;                  /* not yet closed by the application */
    bool asked;                 /* `opening` is in flight: */
    struct fc_call opening;     /* StoreOpen, or StoreProve when `proving` */
    bool proving;
    uint8_t client_nonce[AUTH_NONCE_BYTES];
    uint8_t expected[AUTH_PROOF_BYTES]; /* when proving: the broker's */
    uint64_t session;                   /* in which `handle` names it; 0 = none */
    uint32_t handle;
    struct fc_mapping *mapping;
    Fb__ChecksumPolicy checksum;
    uint64_t max_reserve_ms;     /* 0 = reservations do not end by themselves */
    struct fc_release *releases; /* not known to have arrived; oldest first */
    size_t release_count, release_room;
};

/* With the lock held. FEATURE_OK: the link works and the store is open in its session. FC_PENDING:
 * something has to come first. Else a failure with a sentence. Does not wait. */
int fc_store_step(struct feature_store *store);
/* The others as those of connection.h. */
void fc_store_wait(struct feature_store *store, uint64_t deadline_ns);
uint64_t fc_store_next_ns(const struct feature_store *store);
int fc_store_give_up(const struct feature_store *store);
int fc_store_ready(struct feature_store *store, uint64_t deadline_ns);
/* FEATURE_OK, or FEATURE_E_INVALID with a sentence: see fc_connection_check(). */
int fc_store_check(const struct feature_store *store);
void fc_store_ref(struct feature_store *store);
void fc_store_unref(struct feature_store *store);
/* Closes what the application left open. */
void fc_store_close_all(struct feature *feature);
/* FEATURE_OK, or FEATURE_E_INVALID with a sentence. */
int fc_store_check_name(const char *name);
int fc_store_check_secret(const void *secret, size_t secret_bytes);
/* True if tensors put into this store get checksums. */
bool fc_store_checksums(struct feature_store *store);
/* For how long a reservation made now may be written to, nanoseconds; FC_NEVER_NS = for ever. */
uint64_t fc_store_reserve_ns(struct feature_store *store);

#endif
