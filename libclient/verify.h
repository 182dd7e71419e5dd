/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks the tensors of one sample against the checksums of its ref: at once, or piece by piece
 * while they land. Knows nothing of leases: whoever feeds it says which bytes those were, and
 * whether they are the ones that count.
 */
#ifndef FEATURED_LIBCLIENT_VERIFY_H
#define FEATURED_LIBCLIENT_VERIFY_H

#include "checksum.h"
#include "ref.h"

/* Where bytes lie and what brought them there. Bytes of equal origins are the same bytes. */
struct fc_origin {
    uint64_t epoch;         /* of the connection that told */
    uint64_t transfer;      /* the broker's number; 0 = none */
    uint64_t extent_offset; /* in the arena */
};
bool fc_origin_is(const struct fc_origin *one, const struct fc_origin *other);

struct fc_verifier {
    const struct feature_ref *ref; /* borrowed; with spec and checksums */
    struct fc_origin origin;       /* of what has been checked so far */
    uint32_t tensor;               /* those before it match */
    uint64_t tensor_bytes;         /* of it are in `stream` */
    bool mismatch;                 /* `tensor` does not match; nothing more is looked at */
    struct fc_checksum_stream stream;
};

/* Nothing is checked yet. */
void fc_verifier_init(struct fc_verifier *verifier, const struct feature_ref *ref,
                      const struct fc_origin *origin);
/* The same in memory of its own, to be freed with free(); NULL when out of memory. */
struct fc_verifier *fc_verifier_new(const struct feature_ref *ref);
/* The first `bytes` of the extent are there: looks at what it has not seen. False once a tensor
 * does not match. With the whole extent, true: all match. */
bool fc_verifier_advance(struct fc_verifier *verifier, const uint8_t *extent, uint64_t bytes);

#endif
