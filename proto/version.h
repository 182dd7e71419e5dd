/* SPDX-License-Identifier: Apache-2.0
 *
 * Which versions of the two protocols this program speaks, and which one is spoken with somebody
 * who speaks others. These are not the version of the frame (FRAME_VERSION): that one says how to
 * read the 16 bytes of a header, and stays as it is while protocols change, so that a Hello can
 * always be read. PROTOCOL.md says when a version is raised and how.
 */
#ifndef FEATURED_PROTO_VERSION_H
#define FEATURED_PROTO_VERSION_H

#include <stdint.h>

struct version_range {
    uint32_t lowest, highest; /* both are understood, and all between */
};

/* Between a client and its broker, and between two brokers. */
#define VERSION_CLIENT ((struct version_range){.lowest = 1, .highest = 1})
#define VERSION_PEER   ((struct version_range){.lowest = 1, .highest = 1})

/* The highest version that both understand; 0 = there is none. Both sides come to the same. */
uint32_t version_choose(struct version_range ours, struct version_range theirs);

#define VERSION_WORDS_BYTES 48u
/* "version 1", "versions 2 to 4". */
const char *version_words(struct version_range range, char out[VERSION_WORDS_BYTES]);

#endif
