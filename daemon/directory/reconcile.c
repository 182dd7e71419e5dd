/* SPDX-License-Identifier: Apache-2.0
 *
 * A merge of two sorted lists. The records are those that name this node and incarnation, so that a
 * held sample without one was either removed or is named by another node's record by now: it has
 * been given away, and goes. Only an index that was lost proves nothing by silence; then it is
 * published again.
 *
 * A record of ours that names another generation than the one held stems from a put that was under
 * way when we were fenced. It has replaced what we hold, and perhaps others' in between: what we
 * hold goes, and the record too if that put is over (the broker knows). In an index that was lost
 * it is an old one, and what we hold takes its place.
 */
#include <string.h>

#include "directory.h"

int directory_record_compare(const void *a, const void *b) {
    const struct directory_record *left = a, *right = b;
    int order = strcmp(left->store, right->store);
    return order ? order : strcmp(left->sample_id, right->sample_id);
}

static void differ(const struct directory_record *held, const struct directory_record *record,
                   bool index_lost, directory_verdict_fn verdict, void *context) {
    if (index_lost) {
        verdict(context, DIRECTORY_PUBLISH_HELD, held, record->generation);
        return;
    }
    verdict(context, DIRECTORY_RETIRE_HELD, held, 0);
    verdict(context, DIRECTORY_RETIRE_RECORD, record, 0);
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
            differ(&held[h], &records[r], index_lost, verdict, context);
        h += order <= 0;
        r += order >= 0;
    }
}
