/* SPDX-License-Identifier: Apache-2.0
 *
 * The index has been read as a whole, and is compared with what this node holds. This happens after
 * a time in which this node was fenced, when the index has gone back in time, and now and then:
 *
 *   ENDS (kept for us) --> RECORDS (that name us) --> HELD (what we hold) --> done
 *
 * An end retires what it names. A record of what is neither held nor being put is removed. What is
 * held and not named is checked one by one (check.c), in its turn. This goes in steps, some in each
 * turn of the loop. What changes in between is judged as it is when its turn comes: what has been
 * put since the index was read is not named, is looked up, and is found.
 */
#include "cluster/cluster.h"
#include "cluster/generation_set.h"

bool reconcile_begin(struct reconciling *reconciling, size_t ends, size_t records) {
    reconcile_end(reconciling);
    *reconciling = (struct reconciling){.ends = ends, .records = records};
    return generation_set_init(&reconciling->named, records);
}

void reconcile_end(struct reconciling *reconciling) {
    generation_set_deinit(&reconciling->named);
}

enum reconcile_phase reconcile_phase(const struct reconciling *reconciling) {
    if (reconciling->at < reconciling->ends)
        return RECONCILE_ENDS;
    return reconciling->at - reconciling->ends < reconciling->records ? RECONCILE_RECORDS
                                                                      : RECONCILE_HELD;
}

size_t reconcile_next(struct reconciling *reconciling) {
    const size_t at = reconciling->at++;
    return at < reconciling->ends ? at : at - reconciling->ends;
}

/* An end is of one generation, and of all that this node has put before it of the sample: the
 * numbers that one node gives out only grow. */
bool reconcile_ends(uint64_t held, uint64_t ended) {
    return held && held <= ended;
}

enum reconcile_do reconcile_record(struct reconciling *reconciling, uint64_t held,
                                   uint64_t recorded, bool put_under_way) {
    /* If another generation is held, its check finds that this record is not true. */
    if (held == recorded)
        generation_set_add(&reconciling->named, recorded);
    if (held || put_under_way)
        return RECONCILE_LEAVE;
    reconciling->removed++;
    return RECONCILE_REMOVE;
}

bool reconcile_held(struct reconciling *reconciling, uint64_t held) {
    reconciling->held++;
    if (generation_set_has(&reconciling->named, held))
        return false;
    reconciling->checked++;
    return true;
}
