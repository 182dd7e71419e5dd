/* SPDX-License-Identifier: Apache-2.0
 *
 * The way back from a directory that `export` wrote: which refs it holds, and a store like the one
 * that was exported.
 */
#ifndef FEATURED_CTL_RESTORE_H
#define FEATURED_CTL_RESTORE_H

#include "featurectl/context.h"
#include "featurectl/refs.h"

/* What the directory's manifest names, of each sample the last line. None when it is no directory
 * of an export. Makes the store, with the settings of the one that was exported, when this node has
 * none of that name; one that has another policy or other readers is told of. Returns a status,
 * already reported; refs_free() in any case. */
int restore_begin(struct context *context, const char *directory, const char *store_name,
                  struct targets *out);

/* What the line of a sample that was put back has in addition: "old_uri" and "old_ref". */
json_t *restore_more(const struct feature_ref *was);
/* At most so many bytes. */
size_t restore_more_bytes(const struct feature_ref *was);

#endif
