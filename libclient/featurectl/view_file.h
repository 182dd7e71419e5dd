/* SPDX-License-Identifier: Apache-2.0
 *
 * A sample that is being read becomes a safetensors file.
 */
#ifndef FEATURED_CTL_VIEW_FILE_H
#define FEATURED_CTL_VIEW_FILE_H

#include "feature.h"
#include "featurectl/output_file.h"
#include "featurectl/progress.h"

/* Writes the view's tensors and metadata; the caller commits the file. progress: counts on from
 * done. 0, or -errno with a sentence that does not repeat the path; -EINVAL, and nothing was
 * written, when the format has no name for a dtype. */
int view_file_write(const struct feature_view *view, struct output_file *file,
                    struct progress *progress, char *why, size_t why_bytes);
/* How many bytes such a file of this ref has, which must carry its tensors (no mere URI). */
uint64_t view_file_bytes(const struct feature_ref *ref);

/* A release is one-way: a round trip behind it makes sure that the broker has it before this
 * program is gone. Returns a status; feature_last_error() has the sentence. */
int view_file_release(struct feature *feature, struct feature_view *view, bool consumed);

#endif
