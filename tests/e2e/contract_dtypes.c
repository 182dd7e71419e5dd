/* SPDX-License-Identifier: Apache-2.0
 *
 * Every dtype, each as a matrix, as a scalar and without elements: what is got has the bytes, the
 * dtype and the shape of what was put, on the same node and on another.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

/* 8 elements fill whole bytes, whatever an element's bits are. */
#define MATRIX_ELEMENTS 8u
#define ROOM_BYTES      (MATRIX_ELEMENTS * 16u)

struct kind {
    struct feature_tensor tensors[3]; /* the scalar last: F4 and F6 have none */
    uint8_t matrix[ROOM_BYTES], scalar[16];
    struct iovec data[3];
    uint32_t tensor_count;
    char sample_id[32];
};

static void make_kind(struct kind *kind, enum feature_dtype dtype) {
    uint32_t bits = feature_dtype_bits(dtype), element_bytes = feature_dtype_bytes(dtype);
    memset(kind, 0, sizeof *kind);
    snprintf(kind->sample_id, sizeof kind->sample_id, "of-%s", feature_dtype_name(dtype));
    for (size_t i = 0; i < ROOM_BYTES; i++)
        kind->matrix[i] = (uint8_t)(i * 31 + dtype);
    memset(kind->scalar, 0x40 + dtype, sizeof kind->scalar);
    kind->tensors[0] = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                               .name = "matrix",
                                               .dtype = dtype,
                                               .rank = 2,
                                               .shape = {2, MATRIX_ELEMENTS / 2}};
    kind->data[0] = (struct iovec){.iov_base = kind->matrix, .iov_len = MATRIX_ELEMENTS * bits / 8};
    kind->tensors[1] = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                               .name = "empty",
                                               .dtype = dtype,
                                               .rank = 3,
                                               .shape = {3, 0, 7}};
    kind->tensors[2] = (struct feature_tensor){
        .size = sizeof(struct feature_tensor), .name = "scalar", .dtype = dtype};
    kind->data[2] = (struct iovec){.iov_base = kind->scalar, .iov_len = element_bytes};
    kind->tensor_count = element_bytes ? 3 : 2;
}

static void check_view(const struct kind *kind, const struct feature_view *view) {
    const struct feature_ref *ref = feature_view_ref(view);
    cr_assert_eq(feature_ref_tensor_count(ref), kind->tensor_count, "%s", kind->sample_id);
    for (uint32_t i = 0; i < kind->tensor_count; i++) {
        const struct feature_tensor *put = &kind->tensors[i], *got = feature_ref_tensor(ref, i);
        cr_assert_str_eq(got->name, put->name);
        cr_assert_eq(got->dtype, put->dtype, "%s", kind->sample_id);
        cr_assert_eq(got->rank, put->rank, "%s", kind->sample_id);
        cr_assert_arr_eq(got->shape, put->shape, sizeof put->shape);
        cr_assert_eq(got->bytes, kind->data[i].iov_len, "%s %s", kind->sample_id, put->name);
        cr_assert(!got->bytes ||
                      !memcmp(feature_view_data(view, i), kind->data[i].iov_base, got->bytes),
                  "%s %s: other bytes", kind->sample_id, put->name);
    }
}

CONTRACT(c1_every_dtype, "[store run]\n") {
    enum feature_dtype last = FEATURE_DTYPE_C128;
    cr_assert_null(feature_dtype_name(last + 1), "this test does not know the last dtype");
    for (enum feature_dtype dtype = FEATURE_DTYPE_BOOL; dtype <= last; dtype++) {
        struct kind kind;
        struct feature_ref *ref = NULL;
        struct feature_view *view = NULL;
        make_kind(&kind, dtype);
        const struct feature_sample sample = {.size = sizeof sample,
                                              .sample_id = kind.sample_id,
                                              .tensors = kind.tensors,
                                              .tensor_count = kind.tensor_count};
        CHECK_OK(feature_put(world->producer, &sample, kind.data, 10000, &ref));
        CHECK_OK(feature_get(world->consumer, by_id(kind.sample_id), NULL, &view));
        check_view(&kind, view);
        CHECK_OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        CHECK_OK(feature_get(world->consumer, by_ref(ref), NULL, &view));
        check_view(&kind, view);
        CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
        feature_ref_free(ref);
    }
    world_settle(world);
}

/* Half a byte at the end would have a value that nobody has put. */
CONTRACT(c1_elements_that_do_not_fill_a_byte, "[store run]\n") {
    static const struct {
        enum feature_dtype dtype;
        uint64_t elements;
    } odd[] = {{FEATURE_DTYPE_F4, 3}, {FEATURE_DTYPE_F6_E2M3, 2}, {FEATURE_DTYPE_F6_E3M2, 5}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        uint8_t bytes[8] = {0};
        const struct feature_tensor tensor = {.size = sizeof tensor,
                                              .name = "t",
                                              .dtype = odd[i].dtype,
                                              .rank = 1,
                                              .shape = {odd[i].elements}};
        const struct feature_sample sample = {
            .size = sizeof sample, .sample_id = "odd", .tensors = &tensor, .tensor_count = 1};
        const struct iovec data = {.iov_base = bytes, .iov_len = 2};
        CHECK_STATUS(FEATURE_E_INVALID, feature_put(world->producer, &sample, &data, 1000, NULL));
        CHECK_SAYS("do not fill its last byte");
    }
}
