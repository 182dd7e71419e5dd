/* SPDX-License-Identifier: Apache-2.0
 *
 * Compares the bytes of an extent with the checksums of its tensors, in one go or piece by piece
 * while the bytes arrive.
 *
 * Invariant: tensors before `tensor` match, and the first tensor_bytes of that one are in
 * `stream`, which has been begun if there are any. A tensor that is seen whole at once never
 * enters `stream`: the sum of a block is made faster than that of a stream.
 */
#include "verify.h"

#include <stdlib.h>

/* Bytes that were looked at before there was a lease count only if they are the very bytes that
 * the lease is for: those of the same transfer, on the same connection, at the same place. */
bool fc_origin_is(const struct fc_origin *one, const struct fc_origin *other) {
    return one->epoch == other->epoch && one->transfer == other->transfer &&
           one->extent_offset == other->extent_offset;
}

void fc_verifier_init(struct fc_verifier *verifier, const struct feature_ref *ref,
                      const struct fc_origin *origin) {
    verifier->ref = ref;
    verifier->origin = *origin;
    verifier->tensor = 0;
    verifier->tensor_bytes = 0;
    verifier->mismatch = false;
}

/* Aligned by hand: the state of XXH3 wants 64 bytes, malloc() gives 16. */
struct fc_verifier *fc_verifier_new(const struct feature_ref *ref) {
    struct fc_verifier *verifier = aligned_alloc(_Alignof(struct fc_verifier), sizeof *verifier);
    if (verifier)
        fc_verifier_init(verifier, ref, &(struct fc_origin){0});
    return verifier;
}

/* From the beginning of the tensor `bytes` are there; those behind the ones that were looked at
 * before are added. */
static void verify_feed(struct fc_verifier *verifier, const uint8_t *data, uint64_t bytes) {
    if (!verifier->tensor_bytes)
        fc_checksum_begin(&verifier->stream);
    fc_checksum_add(&verifier->stream, data + verifier->tensor_bytes,
                    bytes - verifier->tensor_bytes);
    verifier->tensor_bytes = bytes;
}

/* `bytes` of the extent are there, counted from its beginning, padding included. Called again and
 * again with more; each byte is looked at once. True while nothing has been found wrong. After a
 * mismatch it says false for ever, as the tensor that did not match is named in the sentence. */
bool fc_verifier_advance(struct fc_verifier *verifier, const uint8_t *extent, uint64_t bytes) {
    const struct layout *layout = &verifier->ref->layout;
    while (!verifier->mismatch && verifier->tensor < layout->tensor_count) {
        const struct feature_tensor *tensor = &verifier->ref->tensors[verifier->tensor];
        uint64_t offset = layout->offset_bytes[verifier->tensor];
        uint64_t there = bytes > offset ? bytes - offset : 0;
        bool whole = there >= tensor->bytes;
        uint64_t sum = 0;
        if (whole && !verifier->tensor_bytes)
            sum = fc_checksum(extent + offset, tensor->bytes);
        else if (there > verifier->tensor_bytes)
            verify_feed(verifier, extent + offset, whole ? tensor->bytes : there);
        if (!whole)
            return true;
        if (verifier->tensor_bytes)
            sum = fc_checksum_end(&verifier->stream);
        verifier->mismatch = sum != tensor->checksum;
        verifier->tensor += !verifier->mismatch;
        verifier->tensor_bytes = 0;
    }
    return !verifier->mismatch;
}
