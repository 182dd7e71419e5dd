/* SPDX-License-Identifier: Apache-2.0
 *
 * The last descriptors of the process are kept: a broker that has none left cannot even accept a
 * client in order to refuse it, and an admin could not come in to see who has them all.
 *
 * Descriptors are numbered from the lowest free one, so that a new descriptor with a number near
 * the limit means that nearly all below it are in use. A limit of 32 files or a quarter of all is
 * kept, whichever is smaller; of those a quarter may be spent on telling clients that they are
 * refused.
 */
#include "local/open_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#define KEPT_MAX      32u
#define KEPT_SHARE    4u /* of all */
#define REFUSED_SHARE 4u /* of what is kept */

static uint64_t open_files_limit(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

static uint64_t open_files_kept_of(uint64_t limit) {
    return limit / KEPT_SHARE < KEPT_MAX ? limit / KEPT_SHARE : KEPT_MAX;
}

bool open_files_is_kept(int fd) {
    uint64_t limit = open_files_limit();
    return (uint64_t)fd >= limit - open_files_kept_of(limit);
}

uint32_t open_files_refusals(void) {
    return (uint32_t)open_files_kept_of(open_files_limit()) / REFUSED_SHARE;
}

void open_files_sentence(char *out, size_t out_bytes) {
    uint64_t limit = open_files_limit();
    snprintf(out, out_bytes,
             "the broker may open %" PRIu64 " files (RLIMIT_NOFILE), of which the last %" PRIu64
             " are kept for admins and itself: all others are in use; featurectl sessions shows "
             "whose, and LimitNOFILE= of the unit raises it",
             limit, open_files_kept_of(limit));
}
