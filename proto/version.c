/* SPDX-License-Identifier: Apache-2.0
 *
 * A range whose ends are the wrong way round holds no version. Whoever sends it has none in common
 * with anybody, and is told so.
 */
#include "proto/version.h"

#include <stdio.h>

uint32_t version_choose(struct version_range ours, struct version_range theirs) {
    const uint32_t lowest = ours.lowest > theirs.lowest ? ours.lowest : theirs.lowest;
    const uint32_t highest = ours.highest < theirs.highest ? ours.highest : theirs.highest;
    return lowest <= highest ? highest : 0;
}

const char *version_words(struct version_range range, char out[VERSION_WORDS_BYTES]) {
    if (range.lowest == range.highest)
        snprintf(out, VERSION_WORDS_BYTES, "version %u", range.lowest);
    else
        snprintf(out, VERSION_WORDS_BYTES, "versions %u to %u", range.lowest, range.highest);
    return out;
}
