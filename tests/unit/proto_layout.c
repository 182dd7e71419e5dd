/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "proto/layout.h"

enum { TENSORS = 65 };

struct spec {
    Fb__SampleSpec message;
    Fb__TensorSpec tensors[TENSORS], *pointers[TENSORS];
    uint64_t shapes[TENSORS][LAYOUT_RANK_MAX + 1];
    char names[TENSORS][24];
};

/* U8 vectors of these sizes. */
static void spec_init(struct spec *spec, const uint64_t *bytes, size_t count) {
    fb__sample_spec__init(&spec->message);
    spec->message.tensors = spec->pointers;
    spec->message.n_tensors = count;
    for (size_t i = 0; i < count; i++) {
        Fb__TensorSpec *tensor = spec->pointers[i] = &spec->tensors[i];
        fb__tensor_spec__init(tensor);
        snprintf(spec->names[i], sizeof spec->names[i], "t%zu", i);
        tensor->name = spec->names[i];
        tensor->dtype = FB__DTYPE__U8;
        tensor->shape = spec->shapes[i];
        tensor->n_shape = 1;
        tensor->shape[0] = tensor->bytes = bytes[i];
    }
}

Test(proto_layout, small_tensors_are_aligned_to_64) {
    struct spec spec;
    struct layout layout;
    spec_init(&spec, (const uint64_t[]){1, 64, 65, 0, 4095}, 5);
    cr_assert_null(layout_compute(&spec.message, &layout));
    cr_assert_arr_eq(layout.offset_bytes, ((const uint64_t[]){0, 64, 128, 256, 256}),
                     5 * sizeof(uint64_t));
    cr_assert_eq(layout.extent_bytes, 256 + 4096);
    cr_assert_eq(layout.sum_bytes, 1 + 64 + 65 + 4095);
    cr_assert_eq(layout.align_bytes, 64);
    cr_assert_eq(layout.tensor_count, 5);
}

Test(proto_layout, large_tensors_are_aligned_to_4096) {
    struct spec spec;
    struct layout layout;
    spec_init(&spec, (const uint64_t[]){10, 4096, 10, 5000}, 4);
    cr_assert_null(layout_compute(&spec.message, &layout));
    cr_assert_arr_eq(layout.offset_bytes, ((const uint64_t[]){0, 4096, 8192, 12288}),
                     4 * sizeof(uint64_t));
    cr_assert_eq(layout.extent_bytes, 12288 + 8192);
    cr_assert_eq(layout.align_bytes, 4096);
}

Test(proto_layout, an_extent_is_never_empty) {
    struct spec spec;
    struct layout layout;
    spec_init(&spec, (const uint64_t[]){0}, 1);
    cr_assert_null(layout_compute(&spec.message, &layout));
    cr_assert_eq(layout.extent_bytes, 64);
    cr_assert_eq(layout.sum_bytes, 0);
}

Test(proto_layout, a_scalar_has_one_element) {
    struct spec spec;
    struct layout layout;
    spec_init(&spec, (const uint64_t[]){8}, 1);
    spec.tensors[0].dtype = FB__DTYPE__F64;
    spec.tensors[0].n_shape = 0;
    cr_assert_null(layout_compute(&spec.message, &layout));
    cr_assert_eq(layout.sum_bytes, 8);
}

Test(proto_layout, bounds_are_checked) {
    struct spec spec;
    struct layout layout;
    uint64_t sizes[TENSORS];
    for (int i = 0; i < TENSORS; i++)
        sizes[i] = 1;
    spec_init(&spec, sizes, 64);
    cr_assert_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 65);
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 0);
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, (const uint64_t[]){(1ull << 48) + 1}, 1);
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 1);
    for (int i = 0; i <= (int)LAYOUT_RANK_MAX; i++)
        spec.shapes[0][i] = 1;
    spec.tensors[0].n_shape = LAYOUT_RANK_MAX;
    cr_assert_null(layout_compute(&spec.message, &layout));
    spec.tensors[0].n_shape = LAYOUT_RANK_MAX + 1;
    cr_assert_not_null(layout_compute(&spec.message, &layout));
}

Test(proto_layout, wrong_tensors_are_refused) {
    struct spec spec;
    struct layout layout;
    const uint64_t sizes[] = {4, 4};
    spec_init(&spec, sizes, 2);
    spec.tensors[1].name = spec.names[0];
    cr_assert_str_eq(layout_compute(&spec.message, &layout), "two tensors have the same name");
    spec_init(&spec, sizes, 2);
    spec.tensors[1].bytes = 5;
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 2);
    spec.tensors[1].dtype = FB__DTYPE__UNSPECIFIED;
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 2);
    spec.tensors[1].name = (char *)"";
    cr_assert_not_null(layout_compute(&spec.message, &layout));
    spec_init(&spec, sizes, 2);
    spec.tensors[1].n_shape = 3;
    spec.shapes[1][0] = spec.shapes[1][1] = spec.shapes[1][2] = 1ull << 32;
    spec.tensors[1].bytes = 0;
    cr_assert_str_eq(layout_compute(&spec.message, &layout), "a tensor's shape overflows 64 bits");
}

Test(proto_layout, element_sizes_follow_safetensors) {
    static const uint32_t bits[] = {0,  8,  8,  8, 8, 8, 16, 16, 16, 16, 32, 32,  32,
                                    64, 64, 64, 8, 8, 8, 4,  6,  6,  64, 32, 128, 0};
    for (unsigned dtype = 0; dtype < sizeof bits / sizeof *bits; dtype++)
        cr_assert_eq(layout_dtype_bits((Fb__Dtype)dtype), bits[dtype], "dtype %u", dtype);
}

Test(proto_layout, sample_ids_are_printable_utf8) {
    static const char *const good[] = {"a",
                                       " ",
                                       "a/b:c",
                                       "\xc3\xa4",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {
        "",
        "a\nb",
        "\x7f",
        "\x80",
        "\xc3",
        "\xc0\xaf",
        "\xc1",
        "\xe0\x80\xaf",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80",
        "\xf0\x80\x80\xaf",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert_null(layout_check_sample_id(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not_null(layout_check_sample_id(bad[i]), "bad id %zu", i);
    char id[130] = {0};
    memset(id, 'a', 128);
    cr_assert_null(layout_check_sample_id(id));
    id[128] = 'a';
    cr_assert_not_null(layout_check_sample_id(id));
}

Test(proto_layout, names_are_plain_words) {
    static const char *const good[] = {"a", "run0", "A.b_c-d", "0", "_x"};
    static const char *const bad[] = {"", ".a", "..", "-a", "a/b", "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert_null(layout_check_name(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not_null(layout_check_name(bad[i]), "%s", bad[i]);
    char name[66] = {0};
    memset(name, 'a', 64);
    cr_assert_null(layout_check_name(name));
    name[64] = 'a';
    cr_assert_not_null(layout_check_name(name));
}
