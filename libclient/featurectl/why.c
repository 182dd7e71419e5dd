/* SPDX-License-Identifier: Apache-2.0
 *
 * Two halves: what would free the sample (by state and policy), and who reads or writes it now.
 *
 * "waits for 1 of 2 consumed releases; read by session 3 pid 4312 trainer (12 s)". The words are
 * made here and not by the broker, because they follow from what it tells (state, reason,
 * readers, policy) and are only for people who list samples.
 *
 * The text is one of two parts or both: "STATE", or "STATE; read by WHO". It is made for one
 * sample at a time and freed by the caller.
 */
#include "featurectl/why.h"

#include <inttypes.h>
#include <stdlib.h>

#include "featurectl/memory.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"
#include "featurectl/words.h"

/* By the policy of the store. A copy of another node has no policy here: its home decides. */
static char *why_resident(const Fb__SampleInfo *info, Fb__Policy policy) {
    if (info->landing)
        return memory_print("copy of node %s, %s", info->home,
                            info->leases ? "until released" : "freed when its room is needed");
    if (policy == FB__POLICY__ON_ACK)
        return memory_copy("waits for ack");
    if (policy == FB__POLICY__RETAIN)
        return memory_copy("kept until abort, re-put or gc");
    uint32_t missing = info->readers > info->consumed ? info->readers - info->consumed : 0;
    if (missing == 0)
        return memory_copy("consumed, waits for its last lease");
    return memory_print("waits for %" PRIu32 " of %" PRIu32 " consumed releases", missing,
                        info->readers);
}

/* One case for each state, in the order in which a sample goes through them. */
static char *why_state(const Fb__SampleInfo *info, Fb__Policy policy) {
    char reason[WORDS_ROOM];
    words_reason(info->reason, reason);
    switch (info->state) {
    case FB__SAMPLE_STATE__PLANNED:
        return memory_copy(info->landing ? "arriving from its home" : "being written");
    case FB__SAMPLE_STATE__SEALED:
        return memory_copy("committed, waits for the directory");
    case FB__SAMPLE_STATE__RESIDENT:
        return why_resident(info, policy);
    case FB__SAMPLE_STATE__RETIRED:
        return memory_print("%s, waits for its last lease", *reason ? reason : "retired");
    case FB__SAMPLE_STATE__GONE:
        return memory_print("%s, freed", *reason ? reason : "retired");
    case FB__SAMPLE_STATE__HOME_LOST:
        return memory_print("node %s is dead, and the bytes with it", info->home);
    default:
        return memory_copy("never seen");
    }
}

/* Empty unless the request has asked for holders. */
char *why_holders(const Fb__SampleInfo *info) {
    char *names = memory_copy("");
    for (size_t i = 0; i < info->n_holders; i++) {
        char age[UNITS_ROOM];
        char *longer = memory_print("%s%s%s (%s)", names, i ? ", " : "", info->holders[i]->holder,
                                    units_duration(info->holders[i]->age_ms, age));
        free(names);
        names = longer;
    }
    return names;
}

/* The same as a list of objects. */
json_t *why_holders_json(const Fb__SampleInfo *info) {
    json_t *holders = json_array();
    for (size_t i = 0; i < info->n_holders; i++)
        json_array_append_new(holders, json_pack("{s:o, s:I, s:I}", "holder",
                                                 shown_json(info->holders[i]->holder), "session_id",
                                                 (json_int_t)info->holders[i]->session_id, "age_ms",
                                                 (json_int_t)info->holders[i]->age_ms));
    return holders;
}

/* Without the names of holders at least their number is told. Freed by the caller. */
char *why_kept(const Fb__SampleInfo *info, Fb__Policy policy) {
    char *state = why_state(info, policy), *holders, *why;
    const char *verb = info->state == FB__SAMPLE_STATE__PLANNED ? "held by" : "read by";
    if (info->n_holders) {
        holders = why_holders(info);
        why = memory_print("%s; %s %s", state, verb, holders);
        free(holders);
    } else if (info->leases) {
        why = memory_print("%s; read by %" PRIu32, state, info->leases);
    } else {
        return state;
    }
    free(state);
    return why;
}
