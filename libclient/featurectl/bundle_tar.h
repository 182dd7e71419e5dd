/* SPDX-License-Identifier: Apache-2.0
 *
 * A tar archive (POSIX ustar), written member by member.
 */
#ifndef FEATURED_CTL_BUNDLE_TAR_H
#define FEATURED_CTL_BUNDLE_TAR_H

#include "featurectl/output_file.h"

/* name: at most 99 bytes. mode: 0600 is given to each. mtime: seconds since 1970. Return as
 * output_file_write(). */
int bundle_tar_add(struct output_file *out, const char *name, const char *data, size_t bytes,
                   uint64_t mtime, char *why, size_t why_bytes);
/* Behind the last member. */
int bundle_tar_end(struct output_file *out, char *why, size_t why_bytes);

#endif
