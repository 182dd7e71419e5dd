/* SPDX-License-Identifier: Apache-2.0
 *
 * How commands that act on refs learn which: arguments REF..., or --manifest FILE with --id.
 */
#ifndef FEATURED_CTL_SELECT_H
#define FEATURED_CTL_SELECT_H

#include "featurectl/context.h"
#include "featurectl/refs.h"

#define OPTION_MANIFEST                                                                            \
    {                                                                                              \
        .name = "manifest", .letter = 'm', .kind = OPTION_TEXT, .argument = "FILE",                \
        .help = "take refs from FILE, as written by ingest"                                        \
    }
#define OPTION_ID                                                                                  \
    {                                                                                              \
        .name = "id", .kind = OPTION_TEXT, .argument = "ID",                                       \
        .help = "of the manifest, only this sample"                                                \
    }

/* All that the command line names, at least one. Reports trouble. */
int select_targets(struct context *context, struct targets *out);
/* The same, but exactly one. */
int select_target(struct context *context, struct targets *out);

#endif
