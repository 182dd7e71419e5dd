/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. The library keeps the mapping as long as the view lives: bytes go from there to the
 * file, with no copy in between.
 */
#include "featurectl/view_file.h"

#include <stdlib.h>

#include "featurectl/safetensors.h"

/* Called with the bytes of each step, not with the sum so far. */
static void view_file_show_written(void *context, uint64_t bytes) {
    struct progress *progress = context;
    progress_set(progress, progress->done + bytes, progress->total);
}

/* tensors: room for FEATURE_TENSORS_MAX. */
static struct safetensors_content view_file_content(const struct feature_ref *ref,
                                                    struct feature_tensor *tensors) {
    struct safetensors_content content = {.tensors = tensors,
                                          .tensor_count = feature_ref_tensor_count(ref)};
    content.metadata = feature_ref_metadata(ref, &content.metadata_bytes);
    for (uint32_t i = 0; i < content.tensor_count; i++)
        tensors[i] = *feature_ref_tensor(ref, i);
    return content;
}

/* The data stay where they are; only the header is made here. */
int view_file_write(const struct feature_view *view, struct output_file *file,
                    struct progress *progress, char *why, size_t why_bytes) {
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    const void *data[FEATURE_TENSORS_MAX];
    struct safetensors_content content = view_file_content(feature_view_ref(view), tensors);
    for (uint32_t i = 0; i < content.tensor_count; i++)
        data[i] = feature_view_data(view, i);
    content.data = data;
    return safetensors_write(file, &content, view_file_show_written, progress, why, why_bytes);
}

/* The header is a function of the ref: the same names, shapes and metadata in the same order. */
uint64_t view_file_bytes(const struct feature_ref *ref) {
    struct feature_tensor tensors[FEATURE_TENSORS_MAX];
    struct safetensors_content content = view_file_content(ref, tensors);
    size_t header_bytes;
    free(safetensors_header(&content, &header_bytes));
    uint64_t bytes = header_bytes;
    for (uint32_t i = 0; i < content.tensor_count; i++)
        bytes += tensors[i].bytes;
    return bytes;
}

int view_file_release(struct feature *feature, struct feature_view *view, bool consumed) {
    struct feature_health health = {.size = sizeof health};
    int status =
        feature_release(view, consumed ? FEATURE_RELEASE_CONSUMED : FEATURE_RELEASE_RETURNED);
    return status ? status : feature_health(feature, &health);
}
