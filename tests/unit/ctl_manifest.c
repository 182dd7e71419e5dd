/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests: what is written whole, what a reader makes of files that are not.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.pb-c.h"
#include "featurectl/exit_code.h"
#include "featurectl/manifest.h"

static char path[64];
static char why[512];
static struct {
    size_t count, line;
    char why[256];
} said; /* of the last line that could not be used */

static void make_file(void) {
    strcpy(path, "/tmp/featured-ctl-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    memset(&said, 0, sizeof said);
}

static void remove_file(void) {
    unlink(path);
}

#define MANIFEST(NAME) Test(manifest, NAME, .init = make_file, .fini = remove_file)

static struct feature_ref *make_ref(const char *sample_id, unsigned generation) {
    char uri[512];
    struct feature_ref *ref = NULL;
    snprintf(uri, sizeof uri, "feature://run0/%s?generation=%u&home=a&incarnation=9", sample_id,
             generation);
    cr_assert_eq(feature_ref_from_uri(uri, &ref), FEATURE_OK, "%s", feature_last_error());
    return ref;
}

/* Without its newline; freed with free(). */
static char *make_line(const char *sample_id, unsigned generation) {
    struct feature_ref *ref = make_ref(sample_id, generation);
    json_t *object = refs_to_json(ref);
    char *line = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    feature_ref_free(ref);
    return line;
}

static void append_text(const char *text) {
    FILE *file = fopen(path, "a");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void append_line(const char *sample_id, unsigned generation, const char *end) {
    char *line = make_line(sample_id, generation);
    append_text(line);
    append_text(end);
    free(line);
}

static void say(void *context, size_t line, const char *sentence) {
    (void)context;
    said.count++;
    said.line = line;
    snprintf(said.why, sizeof said.why, "%s", sentence);
}

static int read_all(struct targets *targets, const char *sample_id) {
    *targets = (struct targets){0};
    return manifest_read(targets, path, sample_id, say, NULL, why, sizeof why);
}

static void expect_samples(const char *first, const char *second) {
    struct targets targets;
    cr_assert_eq(read_all(&targets, NULL), FEATURE_OK, "%s", why);
    cr_assert_eq(targets.count, second ? 2 : 1, "%zu lines", targets.count);
    cr_expect_str_eq(targets.list[0].sample_id, first);
    if (second)
        cr_expect_str_eq(targets.list[1].sample_id, second);
    refs_free(&targets);
}

/* ---- reading ---- */

MANIFEST(blank_lines_are_nothing) {
    append_text("\n  \n");
    append_line("one", 1, "\n\n\t\r\n");
    append_line("two", 2, "\n\n");
    expect_samples("one", "two");
    cr_expect_eq(said.count, 0, "%s", said.why);
}

MANIFEST(other_systems_line_ends_and_marks_are_read) {
    append_text("\xef\xbb\xbf");
    append_line("one", 1, "\r\n");
    append_line("two", 2, "");
    expect_samples("one", "two");
    cr_expect_eq(said.count, 0, "%s", said.why);
}

MANIFEST(a_line_may_be_long) {
    char *line = make_line("one", 1), *note = calloc(1, 1u << 20);
    memset(note, 'n', (1u << 20) - 1);
    append_text("{\"note\":\"");
    append_text(note);
    append_text("\",");
    append_text(line + 1);
    append_text("\n");
    expect_samples("one", NULL);
    free(note);
    free(line);
}

MANIFEST(a_torn_end_costs_its_own_sample_alone) {
    append_line("one", 1, "\n");
    append_text("{\"store\":\"run0\",\"sam");
    expect_samples("one", NULL);
    cr_expect_eq(said.count, 1);
    cr_expect_eq(said.line, 2);
    cr_expect_not_null(strstr(said.why, "ends within"), "%s", said.why);
    struct targets targets;
    cr_expect_eq(read_all(&targets, NULL), FEATURE_OK);
    cr_expect_eq(targets.damage, FEATURE_OK);
    refs_free(&targets);
    cr_expect_eq(read_all(&targets, "two"), FEATURE_E_NOT_FOUND);
    cr_expect_not_null(strstr(why, "two; 1 could not be used"), "%s", why);
    refs_free(&targets);
}

MANIFEST(a_wrong_line_is_named_and_the_others_are_used) {
    static const char *const wrong[] = {"not JSON", "{}", "{\"sample_id\":\"x\",\"ref\":\"AAAA\"}",
                                        "{\"sample_id\":\"one\"", "[1]"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cr_assert_eq(truncate(path, 0), 0);
        said.count = 0;
        append_line("one", 1, "\n");
        append_text(wrong[i]);
        append_text("\n");
        append_line("two", 2, "\n");
        expect_samples("one", "two");
        cr_expect_eq(said.count, 1, "%s", wrong[i]);
        cr_expect_eq(said.line, 2, "%s", wrong[i]);
    }
    struct targets targets;
    cr_expect_eq(read_all(&targets, NULL), FEATURE_OK);
    cr_expect_eq(targets.damage, FEATURE_E_INVALID);
    refs_free(&targets);
    cr_expect_eq(read_all(&targets, "two"), FEATURE_OK, "%s", why);
    cr_expect_eq(targets.count, 1);
    refs_free(&targets);
}

MANIFEST(the_ref_of_another_sample_is_not_believed) {
    char *line = make_line("one", 1), *id = strstr(line, "\"sample_id\":\"one\"");
    memcpy(id, "\"sample_id\":\"two\"", strlen("\"sample_id\":\"two\""));
    append_text(line);
    append_text("\n");
    struct targets targets;
    cr_expect_eq(read_all(&targets, "two"), FEATURE_E_INVALID, "%s", why);
    cr_expect_not_null(strstr(said.why, "another sample"), "%s", said.why);
    refs_free(&targets);
    free(line);
}

MANIFEST(a_file_of_another_kind_is_said_once_and_counted) {
    struct targets targets;
    for (int i = 0; i < 1000; i++)
        append_text("nothing of ours\n");
    cr_expect_eq(read_all(&targets, NULL), FEATURE_E_INVALID);
    cr_expect_not_null(strstr(why, "none of its lines"), "%s", why);
    cr_expect_eq(said.count, 11);
    cr_expect_eq(said.line, 0);
    cr_expect_not_null(strstr(said.why, "990 more"), "%s", said.why);
    refs_free(&targets);
}

MANIFEST(of_one_sample_the_last_line_counts) {
    struct targets targets;
    append_line("one", 1, "\n");
    append_line("two", 2, "\n");
    append_line("one", 3, "\n");
    cr_assert_eq(read_all(&targets, NULL), FEATURE_OK, "%s", why);
    cr_assert_eq(targets.count, 2);
    cr_expect_eq(feature_ref_generation(targets.list[0].ref), 2);
    cr_expect_eq(feature_ref_generation(targets.list[1].ref), 3);
    refs_free(&targets);
    cr_assert_eq(read_all(&targets, "one"), FEATURE_OK, "%s", why);
    cr_assert_eq(targets.count, 1);
    cr_expect_eq(feature_ref_generation(targets.list[0].ref), 3);
    refs_free(&targets);
    cr_expect_eq(read_all(&targets, "three"), FEATURE_E_NOT_FOUND);
    cr_expect_str_eq(why, "no line with sample_id three");
    refs_free(&targets);
}

Test(manifest, what_cannot_be_read_is_said_as_such) {
    struct targets targets = {0};
    cr_expect_eq(manifest_read(&targets, "/tmp", NULL, say, NULL, why, sizeof why), CTL_E_LOCAL);
    cr_expect_str_eq(why, "cannot be read: Is a directory");
    cr_expect_eq(manifest_read(&targets, "/nonexistent/refs", NULL, say, NULL, why, sizeof why),
                 CTL_E_LOCAL);
    cr_expect_str_eq(why, "cannot be opened: No such file or directory");
    /* Address 0 of this process is not mapped: read(2) fails with EIO. */
    cr_expect_eq(manifest_read(&targets, "/proc/self/mem", NULL, say, NULL, why, sizeof why),
                 CTL_E_LOCAL);
    cr_expect_str_eq(why, "cannot be read: Input/output error");
    refs_free(&targets);
}

/* ---- writing ---- */

static void add(const struct manifest *manifest, const char *sample_id, int expected) {
    struct feature_ref *ref = make_ref(sample_id, 1);
    int error = manifest_add(manifest, ref, NULL, why, sizeof why);
    cr_expect_eq(error, expected, "%s: %s", sample_id, why);
    feature_ref_free(ref);
}

MANIFEST(lines_are_added_behind_those_that_are_there) {
    struct manifest manifest;
    append_line("one", 1, "\n");
    cr_assert_eq(manifest_open(path, &manifest, why, sizeof why), 0, "%s", why);
    add(&manifest, "two", 0);
    cr_assert_eq(manifest_close(&manifest, why, sizeof why), 0, "%s", why);
    expect_samples("one", "two");
}

MANIFEST(a_file_of_another_kind_is_not_added_to) {
    struct manifest manifest;
    struct stat before, about;
    append_text("@\1\1\1\1\1\1\1{\"x\":{\"dtype\":\"U8\"");
    cr_assert_eq(stat(path, &before), 0);
    cr_expect_eq(manifest_open(path, &manifest, why, sizeof why), -EINVAL);
    cr_expect_not_null(strstr(why, "no manifest"), "%s", why);
    cr_assert_eq(stat(path, &about), 0);
    cr_expect_eq(about.st_size, before.st_size);
}

MANIFEST(a_line_does_not_grow_together_with_a_torn_one) {
    struct manifest manifest;
    append_line("one", 1, "\n");
    append_text("{\"store\":\"ru");
    cr_assert_eq(manifest_open(path, &manifest, why, sizeof why), 0, "%s", why);
    add(&manifest, "two", 0);
    cr_assert_eq(manifest_close(&manifest, why, sizeof why), 0, "%s", why);
    expect_samples("one", "two");
    cr_expect_eq(said.count, 1);
    cr_expect_eq(said.line, 2);
}

MANIFEST(a_line_that_does_not_fit_leaves_no_part_of_it) {
    struct manifest manifest;
    struct stat before, after;
    append_line("one", 1, "\n");
    cr_assert_eq(stat(path, &before), 0);
    struct rlimit limit = {.rlim_cur = (rlim_t)before.st_size + 20, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(manifest_open(path, &manifest, why, sizeof why), 0, "%s", why);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    add(&manifest, "two", -ENOSPC);
    cr_assert_eq(stat(path, &after), 0);
    cr_expect_eq(before.st_size, after.st_size);
    cr_assert_eq(manifest_close(&manifest, why, sizeof why), 0, "%s", why);
    expect_samples("one", NULL);
    cr_expect_eq(said.count, 0);
}

MANIFEST(room_that_was_expected_does_not_stay_taken) {
    static const struct feature_tensor tensor = {
        .size = sizeof(struct feature_tensor), .name = "t", .dtype = FEATURE_DTYPE_U8, .rank = 1};
    const struct feature_sample sample = {
        .size = sizeof sample, .sample_id = "two", .tensors = &tensor, .tensor_count = 1};
    struct manifest manifest;
    struct stat before, after;
    append_line("one", 1, "\n");
    cr_assert_eq(stat(path, &before), 0);
    cr_assert_eq(manifest_open(path, &manifest, why, sizeof why), 0, "%s", why);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(manifest_expect(&manifest, "run0", &sample, 0, why, sizeof why), 0, "%s", why);
    cr_assert_eq(manifest_close(&manifest, why, sizeof why), 0, "%s", why);
    cr_assert_eq(stat(path, &after), 0);
    cr_expect_eq(before.st_size, after.st_size);
    expect_samples("one", NULL);
}

/* ---- both at once ---- */

#define LINES 400

static atomic_bool all_written;

/* Lines of more than a page, which buffered output would cut. */
static void *write_many(void *user) {
    const struct feature_ref *ref = user;
    struct manifest manifest;
    char sentence[256];
    int error = manifest_open(path, &manifest, sentence, sizeof sentence);
    for (int i = 0; !error && i < LINES; i++)
        error = manifest_add(&manifest, ref, NULL, sentence, sizeof sentence);
    if (!error)
        error = manifest_close(&manifest, sentence, sizeof sentence);
    atomic_store(&all_written, true);
    return error ? user : NULL;
}

#define MAGIC_BYTES 4u /* before the message, as PROTOCOL.md has it */

/* A ref with 6 KiB of metadata. */
static struct feature_ref *make_large_ref(void) {
    static uint8_t metadata[6144], spec[7000], encoded[8192];
    uint64_t one = 1;
    size_t bytes = 0;
    struct feature_ref *small = make_ref("large", 1), *ref = NULL;
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors = &tensor;
    Fb__SampleSpec sample = FB__SAMPLE_SPEC__INIT;
    tensor.name = (char *)"t";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = &one;
    tensor.bytes = 1;
    sample.n_tensors = 1;
    sample.tensors = &tensors;
    sample.metadata = (ProtobufCBinaryData){.data = metadata, .len = sizeof metadata};
    memset(metadata, 'm', sizeof metadata);
    cr_assert_eq(feature_ref_encode(small, encoded, sizeof encoded, &bytes), FEATURE_OK);
    Fb__Ref *message = fb__ref__unpack(NULL, bytes - MAGIC_BYTES, encoded + MAGIC_BYTES);
    cr_assert_not_null(message);
    message->spec.data = spec;
    message->spec.len = fb__sample_spec__pack(&sample, spec);
    bytes = MAGIC_BYTES + fb__ref__pack(message, encoded + MAGIC_BYTES);
    message->spec = (ProtobufCBinaryData){0};
    fb__ref__free_unpacked(message, NULL);
    cr_assert_eq(feature_ref_decode(encoded, bytes, &ref), FEATURE_OK, "%s", feature_last_error());
    feature_ref_free(small);
    return ref;
}

MANIFEST(a_reader_beside_a_writer_meets_whole_lines) {
    struct feature_ref *ref = make_large_ref();
    pthread_t writer;
    void *failed;
    cr_assert_eq(pthread_create(&writer, NULL, write_many, ref), 0);
    for (bool last = false; !last;) {
        last = atomic_load(&all_written);
        struct targets targets;
        int status = read_all(&targets, "large");
        cr_expect(status == FEATURE_OK || status == FEATURE_E_NOT_FOUND, "%s", why);
        refs_free(&targets);
    }
    cr_assert_eq(pthread_join(writer, &failed), 0);
    cr_expect_null(failed);
    cr_expect_eq(said.count, 0, "line %zu %s", said.line, said.why);
    expect_samples("large", NULL);
    feature_ref_free(ref);
}
