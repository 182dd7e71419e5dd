/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock is an flock(2) of the directory itself, so that it leaves no file behind and ends with
 * the process. It is held while files are written; reading the directory takes none.
 *
 * Names of files are made of ids and of nothing else: an export that goes on finds its files, and
 * the manifest need not be asked where a sample lies. Two ids have never the same name, for '%' and
 * '~' themselves are written as %XX.
 */
#include "featurectl/export_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "featurectl/memory.h"
#include "featurectl/output_file.h"
#include "featurectl/words.h"

#define FORMAT         "featured-export"
#define FORMAT_VERSION 1
#define SUFFIX         ".safetensors"
/* Of 255 that a name may have: room for the suffix, the hash, and a temporary's additions. */
#define NAME_BYTES_MAX 180u

/* With one slash between, also for a directory that was given with one at its end. */
char *export_path(const char *directory, const char *name) {
    size_t length = strlen(directory);
    bool slash = length && directory[length - 1] == '/';
    return memory_print("%s%s%s", directory, slash ? "" : "/", name);
}

/* ---- names ---- */

/* Letters, digits and "._-" mean nothing to any shell or file system; a dot in front would hide the
 * file.
 */
static bool export_is_plain(char c, bool first) {
    bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return alphanumeric || c == '_' || c == '-' || (c == '.' && !first);
}

/* Of a long id as much is kept as tells a person which one it is; the hash makes it the only
 * one.
 */
char *export_file_name(const char *sample_id) {
    size_t bytes = strlen(sample_id), used = 0;
    char *name = memory_grow(NULL, 3 * bytes + 64, 1);
    for (size_t i = 0; i < bytes; i++)
        if (export_is_plain(sample_id[i], i == 0))
            name[used++] = sample_id[i];
        else
            used += (size_t)sprintf(name + used, "%%%02X", (unsigned char)sample_id[i]);
    if (used > NAME_BYTES_MAX) {
        XXH128_hash_t hash = XXH3_128bits(sample_id, bytes);
        used = NAME_BYTES_MAX;
        used += (size_t)sprintf(name + used, "~%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
    }
    strcpy(name + used, SUFFIX);
    return name;
}

/* ---- the directory ---- */

/* Temporary files of output_file.c: .NAME.HEX.part. */
static void export_remove_leftovers(const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, NULL);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        size_t length = strlen(name), suffix = strlen(".part");
        char *path = export_path(directory, name);
        if (name[0] == '.' && strstr(name, SUFFIX ".") && length > suffix &&
            strcmp(name + length - suffix, ".part") == 0)
            unlink(path);
        free(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* Leftovers are removed under the lock: without it they might be the files that another export
 * is writing.
 */
int export_begin(const char *directory, int *lock_out, char *why, size_t why_bytes) {
    if (mkdir(directory, 0777) != 0 && errno != EEXIST) {
        int error = errno;
        snprintf(why, why_bytes, "cannot be made: %s", strerror(error));
        return -error;
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        snprintf(why, why_bytes, "cannot be opened: %s", strerror(error));
        return -error;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        snprintf(why, why_bytes, "another featurectl export is writing there");
        return -EWOULDBLOCK;
    }
    export_remove_leftovers(directory);
    *lock_out = fd;
    return 0;
}

/* ---- settings ---- */

/* The number of a word of an enumeration of the protocol; -1 when it has no such word. */
static int export_enum_of(const ProtobufCEnumDescriptor *descriptor, const char *word) {
    char name[WORDS_ROOM];
    for (unsigned i = 0; word && i < descriptor->n_values; i++)
        if (strcmp(words_enum(descriptor, descriptor->values[i].value, name), word) == 0)
            return descriptor->values[i].value;
    return -1;
}

/* The same words and units as `stores --json` has. Whether the store has a secret is said, the
 * secret is not known here.
 */
static json_t *export_settings_json(const Fb__StoreInfo *store) {
    char policy[WORDS_ROOM], checksum[WORDS_ROOM];
    const Fb__StoreSettings none = FB__STORE_SETTINGS__INIT;
    const Fb__StoreSettings *s = store->settings ? store->settings : &none;
    words_enum(&fb__policy__descriptor, (int)s->policy, policy);
    words_enum(&fb__checksum_policy__descriptor, (int)s->checksum, checksum);
    return json_pack("{s:s, s:i, s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:b}", "format", FORMAT,
                     "version", FORMAT_VERSION, "store", store->store, "policy", policy, "readers",
                     (json_int_t)s->readers, "checksum", checksum, "max_resident_bytes",
                     (json_int_t)s->max_resident_bytes, "landing_bytes",
                     (json_int_t)s->landing_bytes, "max_hold_ms", (json_int_t)s->max_hold_ms,
                     "max_samples", (json_int_t)s->max_samples, "secret", (int)store->secret);
}

/* What there is has to be of the same store: two stores in one directory could not be told apart.
 */
int export_settings_write(const char *directory, const Fb__StoreInfo *store, char *why,
                          size_t why_bytes) {
    struct export_settings before;
    struct output_file file;
    int error = export_settings_read(directory, &before, why, why_bytes);
    if (!error && strcmp(before.store, store->store) != 0) {
        snprintf(why, why_bytes, "holds an export of store %s; name another directory",
                 before.store);
        return -EEXIST;
    }
    if (error && error != -ENOENT)
        return error;
    char *path = export_path(directory, EXPORT_SETTINGS);
    json_t *settings = export_settings_json(store);
    char *text = json_dumps(settings, JSON_INDENT(2));
    error = output_file_open(path, &file, why, why_bytes);
    if (!error) {
        error = output_file_write(&file, text, strlen(text), NULL, NULL, why, why_bytes);
        error = error ? error : output_file_commit(&file, why, why_bytes);
        output_file_abandon(&file);
    }
    free(text);
    json_decref(settings);
    free(path);
    return error;
}

/* 0, the broker's default, for what is missing or negative. */
static uint64_t export_number(const json_t *settings, const char *key) {
    json_int_t value = json_integer_value(json_object_get(settings, key));
    return value > 0 ? (uint64_t)value : 0;
}

/* A file that is there and cannot be used is an error: taking the directory for an ordinary one
 * would put its samples under the names of their files.
 */
int export_settings_read(const char *directory, struct export_settings *out, char *why,
                         size_t why_bytes) {
    char *path = export_path(directory, EXPORT_SETTINGS);
    json_error_t at;
    if (access(path, F_OK) != 0) {
        free(path);
        return -ENOENT;
    }
    json_t *settings = json_load_file(path, 0, &at);
    free(path);
    const char *format = json_string_value(json_object_get(settings, "format"));
    const char *store = json_string_value(json_object_get(settings, "store"));
    int policy = export_enum_of(&fb__policy__descriptor,
                                json_string_value(json_object_get(settings, "policy")));
    int checksum = export_enum_of(&fb__checksum_policy__descriptor,
                                  json_string_value(json_object_get(settings, "checksum")));
    int error = 0;
    if (!format || strcmp(format, FORMAT) != 0 || !store || policy < 0 || checksum < 0 ||
        strlen(store) >= sizeof out->store) {
        snprintf(why, why_bytes, "its " EXPORT_SETTINGS " is not one of featurectl export");
        error = -EINVAL;
    } else if (export_number(settings, "version") > FORMAT_VERSION) {
        snprintf(why, why_bytes, "was exported by a newer featurectl (version %" PRIu64 ")",
                 export_number(settings, "version"));
        error = -EINVAL;
    } else {
        *out = (struct export_settings){
            .options = {.size = sizeof out->options,
                        .policy = (enum feature_policy)policy,
                        .readers = (uint32_t)export_number(settings, "readers"),
                        .max_resident_bytes = export_number(settings, "max_resident_bytes"),
                        .landing_bytes = export_number(settings, "landing_bytes"),
                        .max_hold_ms = export_number(settings, "max_hold_ms"),
                        .checksum = (enum feature_checksum)checksum,
                        .max_samples = (uint32_t)export_number(settings, "max_samples")}};
        strcpy(out->store, store);
    }
    json_decref(settings);
    return error;
}
