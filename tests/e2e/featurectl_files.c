/* SPDX-License-Identifier: Apache-2.0
 *
 * What featurectl writes, from the outside: data and words apart, nothing half, nothing left
 * behind; every sample with its line; every name said; every format back as it came.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/world.h"

#define EXIT_LOCAL   1
#define EXIT_INVALID 11
#define PATIENCE_MS  30000u

#define KEEP "[store run]\npolicy = retain\nmax_resident_bytes = 64MiB\n"

/* ---- files ---- */

struct paths {
    char files[128], manifest[128], out[128];
};

static struct paths make_paths(const struct world *world) {
    struct paths paths;
    const char *directory = world->cluster.directory;
    snprintf(paths.files, sizeof paths.files, "%s/files", directory);
    snprintf(paths.manifest, sizeof paths.manifest, "%s/refs.jsonl", directory);
    snprintf(paths.out, sizeof paths.out, "%s/out.safetensors", directory);
    CHECK(mkdir(paths.files, 0700) == 0, "%s", strerror(errno));
    return paths;
}

static void write_bytes(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "we");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    CHECK(fwrite(bytes, 1, count, file) == count, "%s", strerror(errno));
    fclose(file);
}

/* A file of this header, padded to a multiple of 8, with data_bytes bytes of data. */
static size_t make_safetensors(char out[4096], const char *header, size_t data_bytes) {
    size_t header_bytes = (strlen(header) + 7) / 8 * 8;
    memset(out, ' ', 8 + header_bytes);
    for (int i = 0; i < 8; i++)
        out[i] = (char)(header_bytes >> (8 * i));
    memcpy(out + 8, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++)
        out[8 + header_bytes + i] = (char)(i * 7 + 1);
    return 8 + header_bytes + data_bytes;
}

#define ONE_TENSOR "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"

static void write_one(const char *directory, const char *name) {
    char path[512], content[4096];
    snprintf(path, sizeof path, "%s/%s.safetensors", directory, name);
    write_bytes(path, content, make_safetensors(content, ONE_TENSOR, 4));
}

static void write_many(const char *directory, int count) {
    char name[32];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "s%03d", i);
        write_one(directory, name);
    }
}

static size_t count_whole_lines(const char *path) {
    size_t lines = 0;
    FILE *file = fopen(path, "re");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    for (ssize_t bytes; (bytes = getline(&line, &room, file)) > 0;) {
        json_t *object = json_loadb(line, (size_t)bytes, 0, NULL);
        CHECK(object != NULL && line[bytes - 1] == '\n', "torn: %s", line);
        json_decref(object);
        lines++;
    }
    free(line);
    fclose(file);
    return lines;
}

/* Of names in the directory that contain `part`. */
static int count_names(const char *directory, const char *part) {
    int count = 0;
    DIR *entries = opendir(directory);
    CHECK(entries != NULL, "%s: %s", directory, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += strstr(entry->d_name, part) != NULL;
    closedir(entries);
    return count;
}

static void expect_exit(struct process_output *result, int expected) {
    CHECK(result->status == expected, "exit %d, not %d: %s%s", result->status, expected,
          result->out, result->err);
    process_output_deinit(result);
}

static void put_one(struct world *world, const struct paths *paths, const char *id) {
    struct process_output result;
    char path[512];
    write_one(paths->files, id);
    snprintf(path, sizeof path, "%s/%s.safetensors", paths->files, id);
    CTL(&result, &world->cluster, 0, "put", path, "--store", "run");
    expect_exit(&result, 0);
}

static void drop_all(struct world *world) {
    struct process_output result;
    CTL(&result, &world->cluster, 0, "gc", "--store", "run", "--max-hold", "1ms");
    expect_exit(&result, 0);
    world_settle(world);
    cluster_await_empty(&world->cluster, 0);
}

/* ---- output ---- */

static void only_data(struct world *world) {
    static const char *const outputs[] = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};
    struct paths paths = make_paths(world);
    char expected[4096];
    size_t expected_bytes = make_safetensors(expected, ONE_TENSOR, 4);
    put_one(world, &paths, "one");
    for (size_t i = 0; i < 4; i++) {
        struct process_output result;
        CTL(&result, &world->cluster, 0, "get", "run/one", "-o", outputs[i]);
        CHECK(result.status == 0, "%s: %s", outputs[i], result.err);
        CHECK(result.out_bytes == expected_bytes &&
                  memcmp(result.out, expected, expected_bytes) == 0,
              "%s: %zu bytes, not %zu", outputs[i], result.out_bytes, expected_bytes);
        CHECK(strstr(result.err, "generation") != NULL, "the table is not on stderr: %s",
              result.err);
        process_output_deinit(&result);
    }
    struct stat about;
    CHECK(lstat("/dev/stdout", &about) == 0 && S_ISLNK(about.st_mode), "/dev/stdout is gone");
    drop_all(world);
}
Test(output, to_a_pipe_is_data_alone, .timeout = 120) {
    world_run(1, KEEP, only_data);
}

/* Interrupted while it waits for its sample: the temporary file is there by then. */
static void interrupt(struct world *world, const struct paths *paths, int number) {
    char program[4096], log[160];
    struct process process;
    int status = 0;
    snprintf(log, sizeof log, "%s/get.log", world->cluster.directory);
    cluster_program("featurectl", program);
    process_spawn(&process,
                  (const char *[]){program, "--socket", world->cluster.nodes[0].socket_path, "get",
                                   "run/later", "--wait", "1h", "-o", paths->out, NULL},
                  log);
    WAIT_UNTIL(count_names(world->cluster.directory, ".part") == 1, PATIENCE_MS);
    process_signal(&process, number);
    CHECK(process_wait(&process, PATIENCE_MS, &status), "signal %d does not end it", number);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == number, "signal %d: wait status 0x%x", number,
          status);
    CHECK(count_names(world->cluster.directory, ".part") == 0, "signal %d leaves a file", number);
    CHECK(access(paths->out, F_OK) != 0, "there is a file");
}

static void interrupted(struct world *world) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT};
    struct paths paths = make_paths(world);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        interrupt(world, &paths, numbers[i]);
    cluster_await_idle(&world->cluster, 0);
}
Test(output, that_is_interrupted_leaves_nothing, .timeout = 120) {
    world_run(1, KEEP, interrupted);
}

static void failed_get(struct world *world) {
    struct paths paths = make_paths(world);
    struct process_output result;
    write_bytes(paths.out, "old", 3);
    CTL(&result, &world->cluster, 0, "get", "run/never", "-o", paths.out);
    CHECK(result.status != 0, "got what never was");
    process_output_deinit(&result);
    char got[8] = "";
    int fd = open(paths.out, O_RDONLY | O_CLOEXEC);
    CHECK(read(fd, got, sizeof got) == 3 && strcmp(got, "old") == 0, "it holds %s", got);
    close(fd);
    CHECK(count_names(world->cluster.directory, ".part") == 0, "a temporary file is left");
}
Test(output, of_a_get_that_fails_leaves_what_was_there, .timeout = 120) {
    world_run(1, KEEP, failed_get);
}

/* ---- manifest ---- */

static void kept(struct world *world) {
    struct paths paths = make_paths(world);
    struct process_output result;
    char empty[160];
    write_many(paths.files, 3);
    CTL(&result, &world->cluster, 0, "ingest", paths.files, "-s", "run", "-m", paths.manifest);
    expect_exit(&result, 0);
    CTL(&result, &world->cluster, 0, "ingest", "/no/such/directory", "-s", "run", "-m",
        paths.manifest);
    expect_exit(&result, EXIT_LOCAL);
    snprintf(empty, sizeof empty, "%s/empty", world->cluster.directory);
    CHECK(mkdir(empty, 0700) == 0, "%s", strerror(errno));
    CTL(&result, &world->cluster, 0, "ingest", empty, "-s", "run", "-m", paths.manifest);
    expect_exit(&result, EXIT_INVALID);
    CTL(&result, &world->cluster, 0, "ingest", paths.files, "-s", "other", "-m", paths.manifest);
    CHECK(result.status != 0, "there is no such store");
    process_output_deinit(&result);
    CHECK(count_whole_lines(paths.manifest) == 3, "%zu lines", count_whole_lines(paths.manifest));
    /* Once more: the new lines count, the old ones stay. */
    CTL(&result, &world->cluster, 0, "ingest", paths.files, "-s", "run", "-m", paths.manifest);
    expect_exit(&result, 0);
    CHECK(count_whole_lines(paths.manifest) == 6, "%zu lines", count_whole_lines(paths.manifest));
    CTL(&result, &world->cluster, 0, "get", "--manifest", paths.manifest, "--id", "s001", "-o",
        paths.out);
    expect_exit(&result, 0);
    CTL(&result, &world->cluster, 0, "--json", "abort", "--manifest", paths.manifest);
    json_t *rows = ctl_rows(&result);
    CHECK(ctl_number(json_array_get(rows, 0), "aborted") == 3, "not the last line of each");
    json_decref(rows);
    world_settle(world);
}
Test(manifest, of_an_earlier_run_is_kept, .timeout = 120) {
    world_run(1, KEEP, kept);
}

/* As many samples as lines, and each line can be used. */
static void check_lines_are_samples(struct world *world, const struct paths *paths, size_t most) {
    size_t lines = count_whole_lines(paths->manifest);
    uint64_t resident = cluster_numbers(&world->cluster, 0, "run").resident;
    CHECK(lines == resident, "%zu lines, %llu samples", lines, (unsigned long long)resident);
    CHECK(lines > 0 && lines < most, "%zu lines", lines);
    struct process_output result;
    CTL(&result, &world->cluster, 0, "get", "--manifest", paths->manifest, "--id", "s000", "-o",
        paths->out);
    expect_exit(&result, 0);
}

/* A limit on the size of files stands for a disk that is full: writes are cut short, then fail. */
static void no_room(struct world *world) {
    struct paths paths = make_paths(world);
    struct process_output result;
    char program[4096], command[8192];
    write_many(paths.files, 40);
    cluster_program("featurectl", program);
    snprintf(command, sizeof command,
             "ulimit -f 4; exec %s --json --socket %s ingest %s -s run -m %s", program,
             world->cluster.nodes[0].socket_path, paths.files, paths.manifest);
    process_run(&result, (const char *[]){"/bin/sh", "-c", command, NULL}, 60000);
    CHECK(result.status == EXIT_LOCAL, "exit %d: %s", result.status, result.err);
    CHECK(strstr(result.err, paths.manifest) != NULL, "%s", result.err);
    json_t *row = json_loads(result.out, 0, NULL);
    size_t failed = json_array_size(json_object_get(row, "failed_files"));
    CHECK(failed + (size_t)ctl_number(row, "samples") == 40, "%zu failed of %s", failed,
          result.out);
    json_decref(row);
    process_output_deinit(&result);
    check_lines_are_samples(world, &paths, 40);
    drop_all(world);
}
Test(manifest, without_room_stops_the_ingest_and_loses_no_sample, .timeout = 120) {
    world_run(1, KEEP, no_room);
}

/* Wherever the signal meets it, no sample is left without its line. */
static void ended(struct world *world) {
    struct paths paths = make_paths(world);
    char program[4096], log[160];
    struct process process;
    int status = 0;
    struct stat about;
    write_many(paths.files, 400);
    snprintf(log, sizeof log, "%s/ingest.log", world->cluster.directory);
    cluster_program("featurectl", program);
    process_spawn(&process,
                  (const char *[]){program, "--socket", world->cluster.nodes[0].socket_path,
                                   "ingest", paths.files, "-s", "run", "-m", paths.manifest, NULL},
                  log);
    WAIT_UNTIL(stat(paths.manifest, &about) == 0 && about.st_size > 0, PATIENCE_MS);
    process_signal(&process, SIGTERM);
    CHECK(process_wait(&process, PATIENCE_MS, &status), "SIGTERM does not end it");
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "wait status 0x%x", status);
    cluster_await_idle(&world->cluster, 0);
    check_lines_are_samples(world, &paths, 401);
    drop_all(world);
}
Test(manifest, of_an_ingest_that_is_ended_has_every_sample, .timeout = 120) {
    world_run(1, KEEP, ended);
}

static void damaged(struct world *world) {
    struct paths paths = make_paths(world);
    struct process_output result;
    write_many(paths.files, 2);
    CTL(&result, &world->cluster, 0, "ingest", paths.files, "-s", "run", "-m", paths.manifest);
    expect_exit(&result, 0);
    FILE *file = fopen(paths.manifest, "ae");
    fputs("\nrubbish\n{\"store\":\"ru", file);
    fclose(file);
    CTL(&result, &world->cluster, 0, "get", "-m", paths.manifest, "--id", "s001", "-o", paths.out);
    CHECK(result.status == 0, "%s", result.err);
    CHECK(strstr(result.err, "refs.jsonl:4") != NULL, "%s", result.err);
    CHECK(strstr(result.err, "refs.jsonl:5") != NULL, "%s", result.err);
    process_output_deinit(&result);
    CTL(&result, &world->cluster, 0, "abort", "-m", paths.manifest);
    CHECK(result.status == EXIT_INVALID, "exit %d: %s", result.status, result.err);
    process_output_deinit(&result);
    world_settle(world); /* and the good lines were dealt with: nothing is left */
    CTL(&result, &world->cluster, 0, "get", "-m", paths.files, "--id", "s001", "-o", paths.out);
    CHECK(strstr(result.err, "Is a directory") != NULL, "%s", result.err);
    expect_exit(&result, EXIT_LOCAL);
}
Test(manifest, that_is_damaged_gives_its_good_lines, .timeout = 120) {
    world_run(1, KEEP, damaged);
}

/* ---- text ---- */

static void names(struct world *world) {
    struct paths paths = make_paths(world);
    struct process_output result;
    char path[512];
    write_one(paths.files, "e\033[31mred");
    write_one(paths.files, "good");
    snprintf(path, sizeof path, "%s/caf\xe9.safetensors", paths.files);
    write_bytes(path, "not safetensors", 15);
    CTL(&result, &world->cluster, 0, "--json", "ingest", paths.files, "-s", "run", "-m",
        paths.manifest);
    json_t *row = json_loads(result.out, 0, NULL);
    const json_t *failed = json_object_get(row, "failed_files");
    CHECK(json_array_size(failed) == 2, "%s", result.out);
    const char *bytes = json_string_value(json_array_get(failed, 0));
    const char *escape = json_string_value(json_array_get(failed, 1));
    CHECK(strncmp(bytes, "\\bytes:", 7) == 0 && strstr(bytes, "caf\\xe9.safetensors") != NULL, "%s",
          bytes);
    CHECK(strstr(escape, "e\033[31mred.safetensors") != NULL, "%s", escape);
    json_decref(row);
    size_t errors = 0;
    for (char *line = strtok(result.err, "\n"); line != NULL; line = strtok(NULL, "\n"), errors++) {
        json_t *error = json_loads(line, 0, NULL);
        CHECK(error != NULL && *ctl_text(error, "error") && *ctl_text(error, "object"), "%s", line);
        json_decref(error);
    }
    CHECK(errors == 2, "%zu errors", errors);
    process_output_deinit(&result);
    CTL(&result, &world->cluster, 0, "ingest", paths.files, "-s", "run", "-m", paths.manifest);
    CHECK(strchr(result.out, '\033') == NULL && strchr(result.err, '\033') == NULL, "an escape");
    CHECK(strstr(result.out, "caf\\xe9.safetensors") != NULL, "%s", result.out);
    CHECK(strstr(result.out, "e\\x1b[31mred.safetensors") != NULL, "%s", result.out);
    process_output_deinit(&result);
    drop_all(world);
}
Test(text, names_of_any_bytes_are_shown_escaped_and_told_whole, .timeout = 120) {
    world_run(1, KEEP, names);
}

static void command_lines(struct world *world) {
    struct process_output result;
    CTL(&result, &world->cluster, 0, "get", "run/\xe2\x80\xaex\033[2J\xff", "-o", "/dev/null");
    CHECK(strstr(result.err, "run/\\xe2\\x80\\xaex\\x1b[2J\\xff") != NULL, "%s", result.err);
    process_output_deinit(&result);
    CTL(&result, &world->cluster, 0, "fro\033b");
    CHECK(strstr(result.err, "fro\\x1bb") != NULL, "%s", result.err);
    process_output_deinit(&result);
    CTL(&result, &world->cluster, 0, "--json", "fro\xff");
    json_t *error = json_loads(result.err, 0, NULL);
    CHECK(error != NULL && strcmp(ctl_text(error, "status"), "USAGE") == 0, "%s", result.err);
    json_decref(error);
    process_output_deinit(&result);
}
Test(text, of_the_command_line_is_shown_escaped, .timeout = 120) {
    world_run(1, KEEP, command_lines);
}

/* ---- format ---- */

static void round_trips(struct world *world) {
    static const struct {
        const char *header;
        size_t data_bytes;
    } cases[] = {
        {"{\"t\":{\"dtype\":\"F4\",\"shape\":[4,8],\"data_offsets\":[0,16]}}", 16},
        {"{\"t\":{\"dtype\":\"F6_E2M3\",\"shape\":[4,8],\"data_offsets\":[0,24]}}", 24},
        {"{\"t\":{\"dtype\":\"F6_E3M2\",\"shape\":[4,8],\"data_offsets\":[0,24]}}", 24},
        {"{\"t\":{\"dtype\":\"F8_E4M3FNUZ\",\"shape\":[4,8],\"data_offsets\":[0,32]}}", 32},
        {"{\"t\":{\"dtype\":\"F8_E5M2FNUZ\",\"shape\":[4,8],\"data_offsets\":[0,32]}}", 32},
        {"{\"t\":{\"dtype\":\"C64\",\"shape\":[4,8],\"data_offsets\":[0,256]}}", 256},
        {"{\"t\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,32],\"data_offsets\":[0,64]},"
         "\"t_scale\":{\"dtype\":\"F8_E8M0\",\"shape\":[2,1],\"data_offsets\":[64,66]}}",
         66},
        {"{\"__metadata__\":{\"text\":\"a\\u0000b\",\"empty\":\"\"},"
         "\"t\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
         "\"none\":{\"dtype\":\"U64\",\"shape\":[0,3],\"data_offsets\":[8,8]}}",
         8},
    };
    struct paths paths = make_paths(world);
    char content[4096], got[4096], path[512];
    snprintf(path, sizeof path, "%s/t.safetensors", paths.files);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct process_output result;
        size_t bytes = make_safetensors(content, cases[i].header, cases[i].data_bytes);
        write_bytes(path, content, bytes);
        CTL(&result, &world->cluster, 0, "put", path, "--store", "run");
        CHECK(result.status == 0, "%s: %s", cases[i].header, result.err);
        process_output_deinit(&result);
        CTL(&result, &world->cluster, 0, "get", "run/t", "-o", paths.out);
        CHECK(result.status == 0, "%s: %s", cases[i].header, result.err);
        process_output_deinit(&result);
        int fd = open(paths.out, O_RDONLY | O_CLOEXEC);
        CHECK(read(fd, got, sizeof got) == (ssize_t)bytes && memcmp(got, content, bytes) == 0,
              "%s came back otherwise: %.*s", cases[i].header, 400, got + 8);
        close(fd);
    }
    drop_all(world);
}
Test(format, files_come_back_bit_by_bit, .timeout = 120) {
    world_run(1, KEEP, round_trips);
}

static void reserved(struct world *world) {
    struct feature_tensor tensor = {.size = sizeof(struct feature_tensor),
                                    .name = "__metadata__",
                                    .dtype = FEATURE_DTYPE_U8,
                                    .rank = 1,
                                    .shape = {1}};
    const struct feature_sample sample = {
        .size = sizeof sample, .sample_id = "s", .tensors = &tensor, .tensor_count = 1};
    const struct iovec data = {.iov_base = "x", .iov_len = 1};
    CHECK_STATUS(FEATURE_E_INVALID, feature_put(world->producer, &sample, &data, 0, NULL));
    CHECK_SAYS("reserved");
    tensor.name = "";
    CHECK_STATUS(FEATURE_E_INVALID, feature_put(world->producer, &sample, &data, 0, NULL));
    CHECK_SAYS("empty");
}
Test(format, names_that_no_file_could_hold_are_refused, .timeout = 120) {
    world_run(1, KEEP, reserved);
}
