/* SPDX-License-Identifier: Apache-2.0
 *
 * What the reference implementation of safetensors (0.8.0) reads and writes, and where we take
 * less.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.pb-c.h"
#include "featurectl/safetensors.h"
#include "proto/layout.h"

static const struct {
    const char *name;
    enum feature_dtype dtype;
    uint32_t bits;
} kinds[] = {
    {"BOOL", FEATURE_DTYPE_BOOL, 8},
    {"F4", FEATURE_DTYPE_F4, 4},
    {"F6_E2M3", FEATURE_DTYPE_F6_E2M3, 6},
    {"F6_E3M2", FEATURE_DTYPE_F6_E3M2, 6},
    {"U8", FEATURE_DTYPE_U8, 8},
    {"I8", FEATURE_DTYPE_I8, 8},
    {"F8_E5M2", FEATURE_DTYPE_F8_E5M2, 8},
    {"F8_E4M3", FEATURE_DTYPE_F8_E4M3, 8},
    {"F8_E8M0", FEATURE_DTYPE_F8_E8M0, 8},
    {"F8_E4M3FNUZ", FEATURE_DTYPE_F8_E4M3FNUZ, 8},
    {"F8_E5M2FNUZ", FEATURE_DTYPE_F8_E5M2FNUZ, 8},
    {"I16", FEATURE_DTYPE_I16, 16},
    {"U16", FEATURE_DTYPE_U16, 16},
    {"F16", FEATURE_DTYPE_F16, 16},
    {"BF16", FEATURE_DTYPE_BF16, 16},
    {"I32", FEATURE_DTYPE_I32, 32},
    {"U32", FEATURE_DTYPE_U32, 32},
    {"F32", FEATURE_DTYPE_F32, 32},
    {"C64", FEATURE_DTYPE_C64, 64},
    {"F64", FEATURE_DTYPE_F64, 64},
    {"I64", FEATURE_DTYPE_I64, 64},
    {"U64", FEATURE_DTYPE_U64, 64},
};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

static char why[512];

static int parse(const char *header, uint64_t data_bytes, struct safetensors *out) {
    return safetensors_parse(header, strlen(header), data_bytes, out, why, sizeof why);
}

Test(format, every_dtype_of_the_reference_is_taken_and_given_back) {
    for (size_t i = 0; i < KIND_COUNT; i++) {
        char header[160];
        struct safetensors file;
        uint64_t bytes = 32 * kinds[i].bits / 8;
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[4,8],\"data_offsets\":[0,%u]}}",
                 kinds[i].name, (unsigned)bytes);
        cr_assert_eq(parse(header, bytes, &file), 0, "%s: %s", kinds[i].name, why);
        cr_expect_eq(file.tensors[0].dtype, kinds[i].dtype, "%s", kinds[i].name);
        cr_expect_eq(feature_dtype_bits(kinds[i].dtype), kinds[i].bits, "%s", kinds[i].name);
        cr_expect_eq(feature_dtype_bytes(kinds[i].dtype), kinds[i].bits % 8 ? 0 : kinds[i].bits / 8,
                     "%s", kinds[i].name);
        const void *data = "";
        struct safetensors_content content = {
            .tensors = file.tensors, .data = &data, .tensor_count = 1};
        size_t written_bytes;
        char *written = safetensors_header(&content, &written_bytes);
        cr_expect_eq(strncmp(written + 8, header, strlen(header)), 0, "%s became %.*s", header,
                     (int)(written_bytes - 8), written + 8);
        free(written);
        safetensors_close(&file);
    }
}

Test(format, numbers_of_dtypes_stay) {
    cr_expect_eq(FEATURE_DTYPE_BOOL, 1);
    cr_expect_eq(FEATURE_DTYPE_F64, 15);
    cr_expect_eq(FEATURE_DTYPE_F8_E8M0, 16);
    cr_expect_eq(FEATURE_DTYPE_C64, 22);
    cr_expect_eq(FEATURE_DTYPE_C32, 23);
    cr_expect_eq(FEATURE_DTYPE_C128, 24);
}

/* The library has two dtypes more than the format. */
Test(format, a_dtype_that_the_format_lacks_is_refused_both_ways) {
    static const enum feature_dtype lacking[] = {FEATURE_DTYPE_C32, FEATURE_DTYPE_C128};
    for (size_t i = 0; i < 2; i++) {
        struct safetensors file;
        char header[128];
        const char *name = feature_dtype_name(lacking[i]);
        uint64_t bytes = feature_dtype_bytes(lacking[i]);
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[0,%u]}}", name,
                 (unsigned)bytes);
        cr_expect_neq(parse(header, bytes, &file), 0, "%s", header);
        cr_expect_not_null(strstr(why, name), "%s", why);
        const struct feature_tensor tensor = {
            .size = sizeof tensor, .name = "t", .dtype = lacking[i], .bytes = bytes};
        const void *data = "0123456789abcdef";
        struct safetensors_content content = {.tensors = &tensor, .data = &data, .tensor_count = 1};
        struct output_file nowhere = {.fd = -1};
        cr_expect_eq(safetensors_write(&nowhere, &content, NULL, NULL, why, sizeof why), -EINVAL);
        cr_expect_not_null(strstr(why, name), "%s", why);
    }
}

Test(format, elements_of_less_than_a_byte_fill_whole_bytes) {
    struct safetensors file;
    static const char *const bad[] = {
        "{\"t\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}",
        "{\"t\":{\"dtype\":\"F4\",\"shape\":[],\"data_offsets\":[0,2]}}",
        "{\"t\":{\"dtype\":\"F6_E3M2\",\"shape\":[2],\"data_offsets\":[0,2]}}",
    };
    for (size_t i = 0; i < 3; i++) {
        cr_expect_neq(parse(bad[i], 2, &file), 0, "%s", bad[i]);
        cr_expect_not_null(strstr(why, "do not fill its last byte"), "%s", why);
    }
    cr_expect_eq(
        parse("{\"t\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, &file), 0,
        "%s", why);
    safetensors_close(&file);
}

#define X "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}"

Test(format, metadata_that_is_null_is_none) {
    struct safetensors file;
    cr_assert_eq(parse("{\"__metadata__\":null," X "}", 1, &file), 0, "%s", why);
    cr_expect_null(file.metadata);
    safetensors_close(&file);
}

/* Through the reader and the writer, as put and get do it. */
static void expect_metadata(const char *metadata) {
    char header[512];
    struct safetensors file, again;
    const void *data = "";
    size_t bytes;
    snprintf(header, sizeof header, "{\"__metadata__\":%s," X "}", metadata);
    cr_assert_eq(parse(header, 1, &file), 0, "%s: %s", metadata, why);
    cr_assert_not_null(file.metadata);
    cr_expect_str_eq(file.metadata, metadata);
    struct safetensors_content content = {.tensors = file.tensors,
                                          .data = &data,
                                          .tensor_count = 1,
                                          .metadata = file.metadata,
                                          .metadata_bytes = strlen(file.metadata)};
    char *written = safetensors_header(&content, &bytes);
    cr_assert_eq(safetensors_parse(written + 8, bytes - 8, 1, &again, why, sizeof why), 0, "%s",
                 why);
    cr_expect_str_eq(again.metadata, metadata);
    safetensors_close(&again);
    safetensors_close(&file);
    free(written);
}

Test(format, metadata_goes_through_whole) {
    expect_metadata("{\"text\":\"a\\u0000b\"}");
    expect_metadata("{\"a\\u0000b\":\"1\",\"a\\\\u0000\":\"\\u0000\xef\xb7\x90\"}");
    expect_metadata("{}");
    expect_metadata("{\"z\":\"\",\"a\":\"\\n \\\" \\\\ \xf0\x9f\x98\x80\",\"\":\"empty key\"}");
}

Test(format, fields_that_nobody_knows_are_passed_over) {
    struct safetensors file;
    cr_assert_eq(parse("{\"x\":{\"dtype\":\"U8\",\"note\":{\"a\":[1,null]},\"shape\":[1],"
                       "\"data_offsets\":[0,1]}}",
                       1, &file),
                 0, "%s", why);
    cr_expect_eq(file.tensors[0].bytes, 1);
    safetensors_close(&file);
}

Test(format, a_header_may_be_padded_to_100_mb) {
    size_t bytes = SAFETENSORS_HEADER_BYTES_MAX;
    char *header = malloc(bytes);
    struct safetensors file;
    memset(header, ' ', bytes);
    memcpy(header, "{" X "}", strlen("{" X "}"));
    cr_assert_eq(bytes, 100000000);
    cr_expect_eq(safetensors_parse(header, bytes, 1, &file, why, sizeof why), 0, "%s", why);
    safetensors_close(&file);
    free(header);
}

Test(format, tensors_without_elements_and_scalars_are_taken) {
    struct safetensors file;
    cr_assert_eq(parse("{\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]},"
                       "\"b\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,0],"
                       "\"data_offsets\":[8,8]},"
                       "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}",
                       9, &file),
                 0, "%s", why);
    cr_expect_str_eq(file.tensors[0].name, "a");
    cr_expect_str_eq(file.tensors[1].name, "b");
    cr_expect_str_eq(file.tensors[2].name, "c");
    safetensors_close(&file);
}

Test(format, where_we_take_less_the_sentence_says_so) {
    static const struct {
        const char *header, *sentence;
    } cases[] = {
        {"{" X "," X "}", "same key twice, which is refused here"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}," X "}", "same key twice"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "is empty"},
        {"{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         "control character"},
        {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "NUL"},
        {"{\"__metadata__\":{}}", "no tensor"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
         "9 dimensions, at most 8"},
    };
    struct safetensors file;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_neq(parse(cases[i].header, 1, &file), 0, "%s", cases[i].header);
        cr_expect_not_null(strstr(why, cases[i].sentence), "%s\n gave: %s", cases[i].header, why);
    }
}

/* ---- reserved names, in the broker's own check ---- */

Test(format, the_name_of_the_metadata_is_no_name_for_a_tensor) {
    uint64_t one = 1;
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors = &tensor;
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    struct layout layout;
    tensor.name = (char *)"__metadata__";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = &one;
    tensor.bytes = 1;
    spec.n_tensors = 1;
    spec.tensors = &tensors;
    const char *wrong = layout_compute(&spec, &layout);
    cr_assert_not_null(wrong);
    cr_expect_not_null(strstr(wrong, "__metadata__"), "%s", wrong);
    tensor.name = (char *)"__metadata";
    cr_expect_null(layout_compute(&spec, &layout));
    cr_expect_not_null(strstr(layout_check_tensor_name("__metadata__"), "reserved"));
}
