/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "featurectl/safetensors.h"

static char directory[64], path[96];

static void make_directory(void) {
    strcpy(directory, "/tmp/featured-ctl-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/a.safetensors", directory);
}

/* Fails when a test has left more behind than its file. */
static void remove_directory(void) {
    unlink(path);
    cr_expect_eq(rmdir(directory), 0, "%s: %s", directory, strerror(errno));
}

static void write_file(const void *bytes, size_t count) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

/* A file with this header, its length in front and data_bytes zeros behind. */
static void write_with_header(uint64_t length, const char *header, size_t data_bytes) {
    size_t header_bytes = strlen(header);
    char *bytes = calloc(1, 8 + header_bytes + data_bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(length >> (8 * i));
    memcpy(bytes + 8, header, header_bytes);
    write_file(bytes, 8 + header_bytes + data_bytes);
    free(bytes);
}

static int parse(const char *header, uint64_t data_bytes, struct safetensors *out, char why[256]) {
    return safetensors_parse(header, strlen(header), data_bytes, out, why, 256);
}

Test(ctl_safetensors, tensors_come_in_the_order_of_their_bytes) {
    struct safetensors file;
    char why[256] = "";
    int error = parse("{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},"
                      "\"e\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[8,8]},"
                      "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}   ",
                      11, &file, why);
    cr_assert_eq(error, 0, "%s", why);
    cr_assert_eq(file.tensor_count, 3);
    cr_expect_str_eq(file.tensors[0].name, "a");
    cr_expect_str_eq(file.tensors[1].name, "e");
    cr_expect_str_eq(file.tensors[2].name, "b");
    cr_expect_eq(file.tensors[0].dtype, FEATURE_DTYPE_BF16);
    cr_expect_eq(file.tensors[0].rank, 2);
    cr_expect_eq(file.tensors[0].bytes, 8);
    cr_expect_eq(file.tensors[1].bytes, 0);
    cr_expect_eq(file.tensor_begin_bytes[2], 8);
    cr_expect_null(file.metadata);
    safetensors_close(&file);
}

Test(ctl_safetensors, metadata_is_kept_as_compact_json) {
    struct safetensors file;
    char why[256] = "";
    cr_assert_eq(parse("{\"__metadata__\": {\"z\": \"1\", \"a\": \"\\u00e4\"},"
                       "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}",
                       8, &file, why),
                 0, "%s", why);
    cr_expect_str_eq(file.metadata, "{\"z\":\"1\",\"a\":\"\xc3\xa4\"}");
    cr_expect_eq(file.tensors[0].rank, 0);
    safetensors_close(&file);
}

#define U8(name, begin, end, shape)                                                                \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

Test(ctl_safetensors, hostile_headers_are_refused_with_the_reason) {
    static const struct {
        const char *header;
        uint64_t data_bytes;
        const char *reason;
    } cases[] = {
        {"", 0, "is not JSON"},
        {"{", 0, "is not JSON"},
        {"[]", 0, "not a JSON object"},
        {"{}", 0, "no tensor"},
        {"{} x", 0, "is not JSON"},
        {"{\"a\":1}", 0, "not an object of dtype"},
        {"{\"\":{}}", 0, "is empty"},
        {"{" U8("a", 0, 4, "[4]") "," U8("a", 4, 8, "[4]") "}", 8, "duplicate object key"},
        {"{" U8("a", 0, 4, "[4]") "}", 3, "leave the 3 data bytes"},
        {"{" U8("a", 4, 0, "[4]") "}", 8, "leave the 8 data bytes"},
        {"{" U8("a", 0, 9223372036854775807, "[4]") "}", 8, "leave the 8 data bytes"},
        {"{" U8("a", 0, 18446744073709551615, "[4]") "}", 8, "2^63"},
        {"{" U8("a", -4, 4, "[8]") "}", 8, "not two non-negative integers"},
        {"{" U8("a", 0.0, 4, "[4]") "}", 4, "not two non-negative integers"},
        {"{" U8("a", 0, 4, "[5]") "}", 4, "make 5 bytes, data_offsets hold 4"},
        {"{" U8("a", 0, 4, "[-4]") "}", 4, "dimension 0"},
        {"{" U8("a", 0, 4, "4") "}", 4, "no shape array"},
        {"{" U8("a", 0, 4, "[1,1,1,1,1,1,1,1,4]") "}", 4, "9 dimensions"},
        {"{" U8("a", 0, 0, "[4294967296,4294967296]") "}", 0, "overflows"},
        {"{" U8("a", 1, 4, "[3]") "}", 4, "leaves a hole"},
        {"{" U8("a", 0, 4, "[4]") "," U8("b", 5, 8, "[3]") "}", 8, "leaves a hole"},
        {"{" U8("a", 0, 4, "[4]") "," U8("b", 3, 8, "[5]") "}", 8, "overlaps"},
        {"{" U8("a", 0, 4, "[4]") "}", 8, "4 bytes behind the last tensor"},
        {"{\"a\":{\"dtype\":\"F5\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "dtype F5"},
        {"{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "dtype (none)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", 4, "not two"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"offsets\":[0,4]}}", 4, "data_offsets"},
        {"{\"__metadata__\":[]," U8("a", 0, 4, "[4]") "}", 4, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}," U8("a", 0, 4, "[4]") "}", 4,
         "the value of k is not a string"},
        {"{\"a\\u0000b\":{}}", 0, "NUL character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct safetensors file;
        char why[256] = "";
        cr_expect_eq(parse(cases[i].header, cases[i].data_bytes, &file, why), -EINVAL, "%s",
                     cases[i].header);
        cr_expect_not_null(strstr(why, cases[i].reason), "%s\n gave: %s", cases[i].header, why);
    }
}

Test(ctl_safetensors, a_sample_holds_at_most_64_tensors) {
    char header[8192] = "{", why[256] = "", entry[128];
    for (int i = 0; i < 65; i++) {
        snprintf(entry, sizeof entry,
                 "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                 i ? "," : "", i, i, i + 1);
        strcat(header, entry);
    }
    strcat(header, "}");
    struct safetensors file;
    cr_expect_eq(parse(header, 65, &file, why), -EINVAL);
    cr_expect_not_null(strstr(why, "more than 64 tensors"), "%s", why);
}

Test(ctl_safetensors, lengths_that_lie_are_refused, .init = make_directory,
     .fini = remove_directory) {
    static const struct {
        uint64_t length;
        const char *header;
        const char *reason;
    } cases[] = {
        {UINT64_MAX, "{}", "at most 100000000 are allowed"},
        {SAFETENSORS_HEADER_BYTES_MAX + 1u, "{}", "at most 100000000 are allowed"},
        {1000, "{}", "would have 1000 bytes, the file has 10"},
        {0, "{}", "would have 0 bytes"},
        {0x7d7b, "", "would have"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct safetensors file;
        char why[256] = "";
        write_with_header(cases[i].length, cases[i].header, 0);
        cr_expect_eq(safetensors_open(path, &file, why, sizeof why), -EINVAL, "case %zu", i);
        cr_expect_not_null(strstr(why, cases[i].reason), "case %zu: %s", i, why);
    }
    struct safetensors file;
    char why[256] = "";
    write_file("short", 5);
    cr_expect_eq(safetensors_open(path, &file, why, sizeof why), -EINVAL);
}

Test(ctl_safetensors, only_regular_files_are_opened, .init = make_directory,
     .fini = remove_directory) {
    struct safetensors file;
    char why[256] = "";
    cr_expect_eq(safetensors_open(path, &file, why, sizeof why), -ENOENT);
    cr_expect_eq(safetensors_open(directory, &file, why, sizeof why), -EINVAL);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(safetensors_open(path, &file, why, sizeof why), -EINVAL, "a FIFO must not hang");
}

Test(ctl_safetensors, a_file_cut_while_it_is_read_is_an_error, .init = make_directory,
     .fini = remove_directory) {
    struct safetensors file;
    char why[256] = "", to[100];
    const char *header = "{" U8("a", 0, 100, "[100]") "}";
    write_with_header(strlen(header), header, 100);
    cr_assert_eq(safetensors_open(path, &file, why, sizeof why), 0, "%s", why);
    cr_assert_eq(truncate(path, (off_t)(8 + strlen(header) + 99)), 0);
    cr_expect_eq(safetensors_read(&file, 0, to, NULL, NULL, why, sizeof why), -ENODATA);
    cr_expect_not_null(strstr(why, "ends before"), "%s", why);
    safetensors_close(&file);
}

Test(ctl_safetensors, a_file_written_while_it_is_read_is_an_error, .init = make_directory,
     .fini = remove_directory) {
    struct safetensors file;
    char why[256] = "";
    const char *header = "{" U8("a", 0, 100, "[100]") "}";
    write_with_header(strlen(header), header, 100);
    /* Old enough that a write within the clock's grain is seen. */
    cr_assert_eq(utimensat(AT_FDCWD, path, (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0),
                 0);
    cr_assert_eq(safetensors_open(path, &file, why, sizeof why), 0, "%s", why);
    cr_expect(safetensors_is_unchanged(&file, why, sizeof why), "%s", why);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "x", 1, (off_t)(8 + strlen(header))), 1);
    close(fd);
    cr_expect_not(safetensors_is_unchanged(&file, why, sizeof why));
    cr_expect_not_null(strstr(why, "written to while"), "%s", why);
    safetensors_close(&file);
}

static const float values[] = {1.5f, -2.0f, 3.25f};
static const uint8_t mask[] = {1, 0, 1, 1, 0};
static const struct feature_tensor written[] = {
    {.size = sizeof(struct feature_tensor),
     .name = "mask",
     .dtype = FEATURE_DTYPE_BOOL,
     .rank = 1,
     .shape = {5},
     .bytes = 5},
    {.size = sizeof(struct feature_tensor),
     .name = "empty",
     .dtype = FEATURE_DTYPE_F16,
     .rank = 2,
     .shape = {0, 768},
     .bytes = 0},
    {.size = sizeof(struct feature_tensor),
     .name = "values \"q\" \xc3\xa4",
     .dtype = FEATURE_DTYPE_F32,
     .rank = 2,
     .shape = {3, 1},
     .bytes = 12},
};

static struct safetensors_content content(const char *metadata, size_t metadata_bytes) {
    static const void *const data[] = {mask, NULL, values};
    return (struct safetensors_content){.tensors = written,
                                        .data = data,
                                        .tensor_count = 3,
                                        .metadata = metadata,
                                        .metadata_bytes = metadata_bytes};
}

static void count_moved(void *context, uint64_t bytes) {
    *(uint64_t *)context += bytes;
}

static int write_to(const char *to, const struct safetensors_content *from, uint64_t *moved_bytes,
                    char *why, size_t why_bytes) {
    struct output_file file;
    int error = output_file_open(to, &file, why, why_bytes);
    if (!error)
        error = safetensors_write(&file, from, count_moved, moved_bytes, why, why_bytes);
    if (!error)
        error = output_file_commit(&file, why, why_bytes);
    output_file_abandon(&file);
    return error;
}

Test(ctl_safetensors, what_is_written_is_read_back, .init = make_directory,
     .fini = remove_directory) {
    const char *metadata = "{\"num_tokens\":\"445\"}";
    struct safetensors_content out = content(metadata, strlen(metadata));
    struct safetensors file;
    char why[256] = "";
    uint64_t moved_bytes = 0;
    cr_assert_eq(write_to(path, &out, &moved_bytes, why, sizeof why), 0, "%s", why);
    cr_expect_eq(moved_bytes, 17);
    cr_assert_eq(safetensors_open(path, &file, why, sizeof why), 0, "%s", why);
    cr_expect_str_eq(file.metadata, metadata);
    cr_assert_eq(file.tensor_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        char to[16] = "";
        cr_expect_str_eq(file.tensors[i].name, written[i].name);
        cr_expect_eq(file.tensors[i].dtype, written[i].dtype);
        cr_expect_arr_eq(file.tensors[i].shape, written[i].shape, sizeof written[i].shape);
        cr_expect_eq(safetensors_read(&file, i, to, NULL, NULL, why, sizeof why), 0, "%s", why);
        cr_expect(written[i].bytes == 0 || memcmp(to, out.data[i], written[i].bytes) == 0);
    }
    safetensors_close(&file);
}

Test(ctl_safetensors, tensors_begin_at_a_multiple_of_8) {
    struct safetensors_content out = content(NULL, 0);
    size_t header_bytes;
    char *header = safetensors_header(&out, &header_bytes);
    cr_expect_eq(header_bytes % 8, 0);
    uint64_t said_bytes;
    memcpy(&said_bytes, header, sizeof said_bytes);
    cr_expect_eq(le64toh(said_bytes), header_bytes - 8);
    cr_expect_eq(header[8], '{');
    free(header);
}

Test(ctl_safetensors, opaque_metadata_is_kept_in_base64) {
    struct safetensors_content out = content("\0\xff{", 3);
    struct safetensors file;
    char why[256] = "";
    size_t header_bytes;
    char *header = safetensors_header(&out, &header_bytes);
    cr_assert_eq(safetensors_parse(header + 8, header_bytes - 8, 17, &file, why, sizeof why), 0,
                 "%s", why);
    cr_expect_str_eq(file.metadata, "{\"featured.metadata\":\"AP97\"}");
    safetensors_close(&file);
    free(header);
}

Test(ctl_safetensors, a_failed_write_leaves_nothing_and_a_good_one_replaces, .init = make_directory,
     .fini = remove_directory) {
    struct safetensors_content out = content(NULL, 0);
    char why[256] = "", nowhere[128];
    struct stat about;
    uint64_t moved_bytes = 0;
    snprintf(nowhere, sizeof nowhere, "%s/none/a.safetensors", directory);
    cr_expect_eq(write_to(nowhere, &out, &moved_bytes, why, sizeof why), -ENOENT);
    cr_expect_not_null(strstr(why, "cannot be written"));
    write_file("old", 3);
    cr_assert_eq(write_to(path, &out, &moved_bytes, why, sizeof why), 0, "%s", why);
    cr_assert_eq(stat(path, &about), 0);
    cr_expect_gt(about.st_size, 17);
    mode_t mask_now = umask(0);
    umask(mask_now);
    cr_expect_eq(about.st_mode & 0777, 0666 & ~mask_now);
}

Test(ctl_safetensors, a_device_is_written_into_and_not_replaced) {
    struct safetensors_content out = content(NULL, 0);
    char why[256] = "";
    struct stat about;
    uint64_t moved_bytes = 0;
    cr_expect_eq(write_to("/dev/null", &out, &moved_bytes, why, sizeof why), 0, "%s", why);
    cr_expect_eq(moved_bytes, 17);
    cr_assert_eq(stat("/dev/null", &about), 0);
    cr_expect(S_ISCHR(about.st_mode));
}
