/* SPDX-License-Identifier: Apache-2.0
 *
 * open and check -> reserve -> read each tensor into its place -> commit. A failure on the way
 * cancels the reservation: the sample exists whole or not at all.
 */
#include "featurectl/put_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checksum.h"
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

/* Which tensor of the file is number `i` of the sample. */
static uint32_t put_file_find(const struct safetensors *file, const struct feature_tensor *tensor) {
    uint32_t i = 0;
    while (i < file->tensor_count && strcmp(file->tensors[i].name, tensor->name) != 0)
        i++;
    return i;
}

/* A file that somebody has changed, or that the disk has, is no copy any more. */
static bool put_file_is_copy(const struct feature_ref *was, uint32_t i, const void *data) {
    const struct feature_tensor *tensor = feature_ref_tensor(was, i);
    return !feature_ref_has_checksums(was) || fc_checksum(data, tensor->bytes) == tensor->checksum;
}

/* 0, or -errno with a sentence. */
static int put_file_read_tensors(const struct safetensors *file,
                                 const struct feature_sample *sample,
                                 const struct feature_reservation *reservation,
                                 const struct feature_ref *was, struct progress *progress,
                                 char *why, size_t why_bytes) {
    for (uint32_t i = 0; i < sample->tensor_count; i++) {
        void *to = feature_reservation_data(reservation, i);
        int error = safetensors_read(file, put_file_find(file, &sample->tensors[i]), to,
                                     put_file_count_moved, progress, why, why_bytes);
        if (error)
            return error;
        if (was && !put_file_is_copy(was, i, to)) {
            snprintf(why, why_bytes,
                     "tensor %s is not what was exported: its checksum is another one",
                     sample->tensors[i].name);
            return -EIO;
        }
    }
    return 0;
}

/* The sample as it was, if the file holds just that: 0, or -EINVAL with a sentence. tensors: room
 * for FEATURE_TENSORS_MAX. */
static int put_file_take_after(const struct safetensors *file, const struct feature_ref *was,
                               struct feature_sample *sample, struct feature_tensor *tensors,
                               char *why, size_t why_bytes) {
    sample->tensor_count = feature_ref_tensor_count(was);
    sample->tensors = tensors;
    sample->metadata = feature_ref_metadata(was, &sample->metadata_bytes);
    bool same = sample->tensor_count == file->tensor_count;
    for (uint32_t i = 0; same && i < sample->tensor_count; i++) {
        tensors[i] = *feature_ref_tensor(was, i);
        uint32_t at = put_file_find(file, &tensors[i]);
        same = at < file->tensor_count && file->tensors[at].dtype == tensors[i].dtype &&
               file->tensors[at].rank == tensors[i].rank &&
               file->tensors[at].bytes == tensors[i].bytes &&
               memcmp(file->tensors[at].shape, tensors[i].shape,
                      tensors[i].rank * sizeof *tensors[i].shape) == 0;
    }
    if (!same)
        snprintf(why, why_bytes, "does not hold the tensors that the export's manifest names");
    return same ? 0 : -EINVAL;
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
    if (put_file_read_tensors(file, sample, reservation, around->was, progress, why, sizeof why) !=
            0 ||
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
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    int status;
    if (around->was &&
        put_file_take_after(&file, around->was, &sample, tensors, why, sizeof why) != 0)
        status = context_refuse(context, CTL_E_LOCAL, path, "%s", why);
    else
        status = put_open_file(context, store, path, &file, &sample, deadline_ms, progress, around);
    free(base_name);
    safetensors_close(&file);
    return status;
}
