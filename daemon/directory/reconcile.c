/* SPDX-License-Identifier: Apache-2.0
 *
 * A merge of three sorted lists. That a record is missing proves nothing: etcd may have been
 * emptied or restored from a backup, or the record may be another cluster's by now. What ended
 * while this node could not be told was kept for it by name; everything else goes on, and its
 * record is written again where it is missing or wrong.
 *
 * An end that was kept is of one generation, and of what this node has put before of the sample:
 * the numbers that one node gives out only grow.
 */
#include <string.h>

#include "directory.h"

int directory_record_compare(const void *a, const void *b) {
    const struct directory_record *left = a, *right = b;
    int order = strcmp(left->store, right->store);
    return order ? order : strcmp(left->sample_id, right->sample_id);
}

/* *at moves on in step with the held ones. */
static bool has_ended(const struct directory_records *ended, size_t *at,
                      const struct directory_record *held) {
    bool found = false;
    int order = -1;
    for (;
         *at < ended->count && (order = directory_record_compare(&ended->records[*at], held)) <= 0;
         ++*at)
        found |= order == 0 && ended->records[*at].generation >= held->generation;
    return found;
}

void directory_reconcile(const struct directory_records *held,
                         const struct directory_records *records,
                         const struct directory_records *ended, directory_verdict_fn verdict,
                         void *context) {
    size_t h = 0, r = 0, e = 0;
    while (h < held->count || r < records->count) {
        const struct directory_record *has = &held->records[h], *named = &records->records[r];
        int order = h == held->count      ? 1
                    : r == records->count ? -1
                                          : directory_record_compare(has, named);
        bool over = order <= 0 && has_ended(ended, &e, has);
        if (over)
            verdict(context, DIRECTORY_RETIRE_HELD, has);
        else if (order < 0 || (order == 0 && has->generation != named->generation))
            verdict(context, DIRECTORY_CHECK_HELD, has);
        if (order > 0 || (over && order == 0))
            verdict(context, DIRECTORY_RETIRE_RECORD, named);
        h += order <= 0;
        r += order >= 0;
    }
}
