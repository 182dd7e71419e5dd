/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksums of a sample, taken at once and in pieces of any size.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/checks.h"
#include "verify.h"

#define TENSORS     6u
#define ROUNDS      400u
#define BYTES_MAX   300000u
#define NO_TRANSFER ((struct fc_origin){0})

struct extent {
    struct feature_tensor tensors[TENSORS];
    struct feature_ref *ref;
    uint8_t *bytes;
};

/* Tensors of all kinds of sizes, 0 too, with the checksums of random bytes. */
static void extent_init(struct extent *e, uint64_t *random) {
    static const char *const names[TENSORS] = {"a", "b", "c", "d", "e", "f"};
    uint32_t count = 1 + (uint32_t)(check_random(random) % TENSORS);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t limit = (uint64_t[]){1, 300, 5000, BYTES_MAX}[check_random(random) % 4];
        e->tensors[i] = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                                .name = names[i],
                                                .dtype = FEATURE_DTYPE_U8,
                                                .rank = 1,
                                                .shape = {check_random(random) % limit}};
    }
    struct feature_sample sample = {
        .size = sizeof sample, .sample_id = "s", .tensors = e->tensors, .tensor_count = count};
    CHECK_OK(fc_ref_from_sample("run", &sample, &e->ref));
    const struct layout *layout = &e->ref->layout;
    e->bytes = malloc(layout->extent_bytes);
    cr_assert_not_null(e->bytes);
    for (uint64_t at = 0; at < layout->extent_bytes; at++)
        e->bytes[at] = (uint8_t)check_random(random);
    for (uint32_t i = 0; i < count; i++)
        e->ref->tensors[i].checksum =
            fc_checksum(e->bytes + layout->offset_bytes[i], e->ref->tensors[i].bytes);
    e->ref->has_checksums = true;
}

static void extent_deinit(struct extent *e) {
    feature_ref_free(e->ref);
    free(e->bytes);
}

static bool verify(const struct extent *e, uint64_t *random, bool in_pieces, uint32_t *tensor_out) {
    struct fc_verifier verifier;
    uint64_t end = e->ref->layout.extent_bytes, there = 0;
    fc_verifier_init(&verifier, e->ref, &NO_TRANSFER);
    while (in_pieces && there < end) {
        uint64_t piece = check_random(random) % (check_random(random) % 3 ? 70000 : 300);
        there = piece < end - there ? there + piece : end;
        fc_verifier_advance(&verifier, e->bytes, there);
        if (check_random(random) % 4 == 0) /* told again, or of less */
            fc_verifier_advance(&verifier, e->bytes, check_random(random) % (there + 1));
    }
    bool good = fc_verifier_advance(&verifier, e->bytes, end);
    *tensor_out = verifier.tensor;
    return good;
}

/* Which tensor has a byte there; TENSORS: padding. */
static uint32_t tensor_at(const struct extent *e, uint64_t at) {
    const struct layout *layout = &e->ref->layout;
    for (uint32_t i = 0; i < layout->tensor_count; i++)
        if (at >= layout->offset_bytes[i] &&
            at < layout->offset_bytes[i] + e->ref->tensors[i].bytes)
            return i;
    return TENSORS;
}

Test(client_verify, pieces_say_what_the_whole_says) {
    uint64_t random = check_seed("client_verify");
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct extent e;
        uint32_t tensor;
        extent_init(&e, &random);
        cr_assert(verify(&e, &random, false, &tensor));
        cr_assert(verify(&e, &random, true, &tensor));
        cr_assert_eq(tensor, e.ref->layout.tensor_count);
        uint64_t at = check_random(&random) % e.ref->layout.extent_bytes;
        e.bytes[at] ^= (uint8_t)(1u << check_random(&random) % 8);
        uint32_t wrong = tensor_at(&e, at);
        for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
            cr_assert_eq(verify(&e, &random, in_pieces, &tensor), wrong == TENSORS,
                         "byte %llu of tensor %u", (unsigned long long)at, wrong);
            if (wrong != TENSORS)
                cr_assert_eq(tensor, wrong);
        }
        extent_deinit(&e);
    }
}
