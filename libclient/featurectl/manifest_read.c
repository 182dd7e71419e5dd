/* SPDX-License-Identifier: Apache-2.0
 *
 * Each line stands alone: one that is wrong costs its own sample and no other.
 *
 * A manifest is a file of one JSON object a line: {"store":..., "sample_id":..., "uri":...,
 * "ref":..., "bytes":...}. Only sample_id and ref are needed. Others may write to it while it is
 * read; whoever adds a line holds a lock (manifest_lock()), so that a line is whole when the
 * lock is free.
 */
#include "featurectl/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "featurectl/exit_code.h"

#define SAID_MAX 10u /* of wrong lines one by one; a file of another kind has nothing else */
#define BOM      "\xef\xbb\xbf"

struct reading {
    struct targets *targets;
    const char *sample_id;
    manifest_say_fn say;
    void *context;
    size_t line, used, wrong, torn;
};

/* NULL, or why the line cannot be used. *ref_out: NULL when it is another sample's. */
static const char *manifest_read_parse_line(const char *line, size_t bytes, const char *sample_id,
                                            struct feature_ref **ref_out) {
    json_t *object = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, NULL);
    const char *id = json_string_value(json_object_get(object, "sample_id"));
    const char *base64 = json_string_value(json_object_get(object, "ref"));
    const char *why = NULL;
    *ref_out = NULL;
    if (!object)
        why = "is not JSON";
    else if (!id || !base64)
        why = "is not a manifest's: wanted an object with sample_id and ref";
    else if ((!sample_id || strcmp(id, sample_id) == 0) && !(*ref_out = refs_from_base64(base64)))
        why = "has a ref that does not decode";
    else if (*ref_out && strcmp(feature_ref_sample_id(*ref_out), id) != 0)
        why = "has the ref of another sample than its sample_id says";
    if (why) {
        feature_ref_free(*ref_out);
        *ref_out = NULL;
    }
    json_decref(object);
    return why;
}

/* The end of a file without a newline may be a line that somebody is about to finish. */
static void manifest_read_count_wrong(struct reading *reading, bool is_end, const char *why) {
    if (is_end) {
        reading->torn++;
        reading->say(reading->context, reading->line,
                     "is skipped: the file ends within it (it is still being written, or its "
                     "writer was stopped)");
        return;
    }
    char sentence[256];
    snprintf(sentence, sizeof sentence, "is skipped: it %s", why);
    if (++reading->wrong <= SAID_MAX)
        reading->say(reading->context, reading->line, sentence);
}

/* Blank lines are no lines: editors and scripts leave them. */
static bool manifest_read_is_blank(const char *line, size_t bytes) {
    return strspn(line, " \t\r\n\v\f") == bytes;
}

/* Some editors put a byte-order mark at the beginning of a file, which is no part of the first
 * line. A line of another sample than the wanted one counts as used, though nothing is taken
 * from it.
 */
static void manifest_read_take_line(struct reading *reading, const char *line, size_t bytes) {
    struct feature_ref *ref;
    bool is_end = line[bytes - 1] != '\n';
    if (++reading->line == 1 && strncmp(line, BOM, strlen(BOM)) == 0) {
        line += strlen(BOM);
        bytes -= strlen(BOM);
    }
    if (manifest_read_is_blank(line, bytes))
        return;
    const char *why = manifest_read_parse_line(line, bytes, reading->sample_id, &ref);
    if (why) {
        manifest_read_count_wrong(reading, is_end, why);
        return;
    }
    reading->used++;
    if (ref)
        refs_add_ref(reading->targets, feature_ref_sample_id(ref), ref);
}

/* The file ended within this line, which begins at `offset`: as it is once nobody is writing it. */
static ssize_t read_end_again(FILE *file, off_t offset, char **line, size_t *room, ssize_t bytes) {
    if (fseeko(file, offset, SEEK_SET) != 0)
        return bytes; /* a pipe: it has ended, and with it the line */
    manifest_lock(fileno(file), LOCK_SH);
    bytes = getline(line, room, file);
    flock(fileno(file), LOCK_UN);
    return bytes;
}

/* 0 or -errno. */
static int read_lines(FILE *file, struct reading *reading) {
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    off_t offset = 0;
    errno = 0;
    while ((bytes = getline(&line, &room, file)) > 0) {
        if (line[bytes - 1] != '\n')
            bytes = read_end_again(file, offset, &line, &room, bytes);
        if (bytes <= 0)
            break;
        manifest_read_take_line(reading, line, (size_t)bytes);
        offset += bytes;
    }
    int error = ferror(file) || !feof(file) ? (errno ? -errno : -EIO) : 0;
    free(line);
    return error;
}

/* Wrong lines are told one by one up to SAID_MAX, and then counted. */
static void manifest_read_say_rest(const struct reading *reading) {
    char sentence[64];
    if (reading->wrong <= SAID_MAX)
        return;
    snprintf(sentence, sizeof sentence, "%zu more lines are skipped", reading->wrong - SAID_MAX);
    reading->say(reading->context, 0, sentence);
}

/* A file of another kind is told apart from a manifest without the wanted sample. */
static int manifest_read_judge(const struct reading *reading, size_t before, char *why,
                               size_t why_bytes) {
    const char *id = reading->sample_id;
    if (reading->targets->count > before)
        return FEATURE_OK;
    if (reading->wrong && !reading->used) {
        snprintf(why, why_bytes, "none of its lines is a manifest's");
        return FEATURE_E_INVALID;
    }
    snprintf(why, why_bytes, "no line%s%s", id ? " with sample_id " : "", id ? id : "");
    if (reading->wrong + reading->torn) {
        size_t used = strlen(why);
        snprintf(why + used, why_bytes - used, "; %zu could not be used",
                 reading->wrong + reading->torn);
    }
    return FEATURE_E_NOT_FOUND;
}

/* "-" is standard input. Wrong lines do not fail the call: they are in targets->damage, and
 * decide the exit code at the end.
 */
int manifest_read(struct targets *targets, const char *path, const char *sample_id,
                  manifest_say_fn say, void *context, char *why, size_t why_bytes) {
    struct reading reading = {
        .targets = targets, .sample_id = sample_id, .say = say, .context = context};
    size_t before = targets->count;
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    int error = file ? read_lines(file, &reading) : -errno;
    if (file && file != stdin)
        fclose(file);
    if (error) {
        snprintf(why, why_bytes, "cannot be %s: %s", file ? "read" : "opened", strerror(-error));
        return CTL_E_LOCAL;
    }
    manifest_read_say_rest(&reading);
    if (reading.wrong)
        targets->damage = FEATURE_E_INVALID;
    refs_keep_last(targets, before, sample_id != NULL);
    return manifest_read_judge(&reading, before, why, why_bytes);
}
