/* SPDX-License-Identifier: Apache-2.0
 *
 * open and check -> reserve -> read each tensor into its place -> commit. A failure on the way
 * cancels the reservation: the sample exists whole or not at all.
 */
#include "featurectl/put_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "featurectl/ending.h"
#include "featurectl/memory.h"
#include "featurectl/safetensors.h"

#define SUFFIX ".safetensors"

/* The name of the file without its folder and without ".safetensors". Freed by the caller. */
char *put_file_id(const char *path) {
    const char *slash = strrchr(path, '/');
    char *id = memory_copy(slash ? slash + 1 : path);
    size_t length = strlen(id), suffix = strlen(SUFFIX);
    if (length > suffix && strcmp(id + length - suffix, SUFFIX) == 0)
        id[length - suffix] = '\0';
    return id;
}

/* For the bar alone: 0 where it cannot be known, and the put itself says why. */
uint64_t put_file_bytes(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 ? (uint64_t)about.st_size : 0;
}

/* The bar is the caller's, and may count many files: what has moved is added to what it shows. */
static void put_file_count_moved(void *context, uint64_t bytes) {
    struct progress *progress = context;
    progress_set(progress, progress->done + bytes, progress->total);
}

/* 0, or -errno with a sentence. */
static int put_file_read_tensors(const struct safetensors *file,
                                 const struct feature_reservation *reservation,
                                 struct progress *progress, char *why, size_t why_bytes) {
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        void *to = feature_reservation_data(reservation, i);
        int error = safetensors_read(file, i, to, put_file_count_moved, progress, why, why_bytes);
        if (error)
            return error;
    }
    return 0;
}

/* From the commit until the caller has noted the ref, signals wait (ending_hold()). Otherwise
 * Ctrl-C could leave a sample that nobody knows of.
 */
static int put_file_commit(struct context *context, struct feature_reservation *reservation,
                           const char *path, const struct put_around *around) {
    struct feature_ref *ref;
    ending_hold();
    int status = feature_commit(reservation, &ref);
    if (status) {
        context_fail(context, status, path);
    } else {
        status = around->keep(around->user, ref);
        feature_ref_free(ref);
    }
    ending_release();
    return status;
}

/* The file is checked for changes after the last byte was read and before the sample becomes
 * visible.
 */
static int put_open_file(struct context *context, struct feature_store *store, const char *path,
                         const struct safetensors *file, const struct feature_sample *sample,
                         uint32_t deadline_ms, struct progress *progress,
                         const struct put_around *around) {
    char why[512];
    struct feature_reservation *reservation;
    int status = around->begin ? around->begin(around->user, sample) : FEATURE_OK;
    if (status)
        return status;
    status = feature_reserve(store, sample, deadline_ms, &reservation);
    if (status)
        return context_fail(context, status, path);
    if (put_file_read_tensors(file, reservation, progress, why, sizeof why) != 0 ||
        !safetensors_is_unchanged(file, why, sizeof why)) {
        feature_cancel(reservation);
        return context_refuse(context, CTL_E_LOCAL, path, "%s", why);
    }
    return put_file_commit(context, reservation, path, around);
}

/* The header is checked as a whole before anything is asked of the broker. */
int put_file(struct context *context, struct feature_store *store, const char *path, const char *id,
             uint32_t deadline_ms, struct progress *progress, const struct put_around *around) {
    char why[512];
    struct safetensors file;
    if (safetensors_open(path, &file, why, sizeof why) != 0)
        return context_refuse(context, CTL_E_LOCAL, path, "%s", why);
    char *base_name = put_file_id(path);
    struct feature_sample sample = {.size = sizeof sample,
                                    .sample_id = id ? id : base_name,
                                    .tensors = file.tensors,
                                    .tensor_count = file.tensor_count,
                                    .metadata = file.metadata,
                                    .metadata_bytes = file.metadata ? strlen(file.metadata) : 0};
    int status = put_open_file(context, store, path, &file, &sample, deadline_ms, progress, around);
    free(base_name);
    safetensors_close(&file);
    return status;
}
