/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature_reservation inside: room in the arena, of the session that it was granted in.
 */
#ifndef FEATURED_LIBCLIENT_RESERVATION_H
#define FEATURED_LIBCLIENT_RESERVATION_H

#include "ref.h"
#include "store_handle.h"

struct feature_reservation {
    struct feature_store *store; /* a reference */
    struct fc_mapping *mapping;  /* a reference */
    struct feature_ref *ref;     /* ours alone until the commit hands it out */
    uint64_t token;
    uint64_t session;        /* that it was granted in */
    void *cuda_stream;       /* that the sample named: waited for before the commit */
    uint8_t *extent;         /* in the mapping */
    uint64_t write_until_ns; /* of fc_boot_ns(): the reservation may have ended afterwards */
};

/* feature_reserve() for a sample whose ref is made; takes ref on success only. Waits for room until
 * deadline_ns if so told. */
int fc_reserve(struct feature_store *store, struct feature_ref *ref, bool waits,
               uint64_t deadline_ns, struct feature_reservation **out);
/* feature_commit() with the ref's checksums as they are. */
int fc_commit(struct feature_reservation *reservation, uint64_t deadline_ns,
              struct feature_ref **ref_out);
/* FEATURE_OK, or FEATURE_E_DENIED with a sentence for a store opened read-only. */
int fc_check_writable(const struct feature_store *store);

#endif
