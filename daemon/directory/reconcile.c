/* SPDX-License-Identifier: Apache-2.0
 *
 * A merge of two sorted lists. The records are those that name this node and incarnation, so that a
 * held sample without one was either removed or is named by another node's record by now: it has
 * been given away, and goes. Only an index that was lost proves nothing by silence; then it is
 * published again.
 *
 * A record of ours that names another generation than the one held stems from a put that failed
 * when we were fenced: had it succeeded, we would hold that generation and not the older one. The
 * held one is the last that was acknowledged; it takes its record back, unless another node has
 * written it by then.
 */
#include <string.h>

#include "directory.h"

int directory_record_compare(const void *a, const void *b) {
    const struct directory_record *left = a, *right = b;
    int order = strcmp(left->store, right->store);
    return order ? order : strcmp(left->sample_id, right->sample_id);
}

void directory_reconcile(const struct directory_record *held, size_t held_count,
                         const struct directory_record *records, size_t record_count,
                         bool index_lost, directory_verdict_fn verdict, void *context) {
    enum directory_verdict missing = index_lost ? DIRECTORY_PUBLISH_HELD : DIRECTORY_RETIRE_HELD;
    size_t h = 0, r = 0;
    while (h < held_count || r < record_count) {
        int order = h == held_count     ? 1
                    : r == record_count ? -1
                                        : directory_record_compare(&held[h], &records[r]);
        if (order < 0)
            verdict(context, missing, &held[h], 0);
        else if (order > 0)
            verdict(context, DIRECTORY_RETIRE_RECORD, &records[r], 0);
        else if (held[h].generation != records[r].generation)
            verdict(context, DIRECTORY_PUBLISH_HELD, &held[h], records[r].generation);
        h += order <= 0;
        r += order >= 0;
    }
}
