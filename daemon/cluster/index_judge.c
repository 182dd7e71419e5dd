/* SPDX-License-Identifier: Apache-2.0
 *
 * A home holds at most one RESIDENT generation of a sample, and the index has at most one record of
 * it, so that there are few ways to disagree:
 *
 *   held      the record names               finding
 *   nothing   nothing, or another node       AGREES
 *   nothing   this node                      NOT_HELD: a retire was lost, or somebody wrote it
 *   G         this node, G                   AGREES
 *   G         this node, another generation  OTHER_GENERATION: of a put that failed
 *   G         another node                   REPLACED: of another put, or an old one come back
 *   G         nothing                        NOT_RECORDED: the record was lost
 *
 * The remedies are those of held_check.c: no record ends a sample by being there or not.
 */
#include "cluster/index_judge.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

Fb__Finding index_judge_record(enum directory_result result) {
    switch (result) {
    case DIRECTORY_E_LOST:
        return FB__FINDING__HOME_DEAD;
    case DIRECTORY_OK:
    case DIRECTORY_E_NOT_FOUND:
        return FB__FINDING__AGREES;
    default:
        return FB__FINDING__NOT_CHECKED;
    }
}

Fb__Finding index_judge(const struct index_facts *before, const struct index_facts *after,
                        enum directory_result result, const struct directory_record *record,
                        const char *node, uint64_t incarnation) {
    if (index_judge_record(result) == FB__FINDING__NOT_CHECKED)
        return FB__FINDING__NOT_CHECKED;
    if (before->moving || after->moving || before->held != after->held)
        return FB__FINDING__MOVING;
    bool recorded = result != DIRECTORY_E_NOT_FOUND;
    bool ours = recorded && !strcmp(record->home, node) && record->incarnation == incarnation;
    if (!after->held)
        return ours ? FB__FINDING__NOT_HELD : FB__FINDING__AGREES;
    if (!recorded)
        return FB__FINDING__NOT_RECORDED;
    if (!ours)
        return FB__FINDING__REPLACED;
    return record->generation == after->held ? FB__FINDING__AGREES : FB__FINDING__OTHER_GENERATION;
}

static void index_judge_say_verdict(char *out, size_t out_bytes, Fb__Finding finding,
                                    const char *node, uint64_t held,
                                    const struct directory_record *record) {
    static const struct directory_record none = {.home = "?"};
    const struct directory_record *r = record ? record : &none;
    switch (finding) {
    case FB__FINDING__AGREES:
        snprintf(out, out_bytes, "the index and node %s agree", node);
        break;
    case FB__FINDING__MOVING:
        snprintf(out, out_bytes, "a change is on its way at node %s", node);
        break;
    case FB__FINDING__HOME_DEAD:
        snprintf(out, out_bytes,
                 "its record names generation %" PRIu64 " on node %s, incarnation %" PRIu64
                 ", which is dead: the bytes are lost",
                 r->generation, r->home, r->incarnation);
        break;
    case FB__FINDING__NOT_HELD:
        snprintf(out, out_bytes,
                 "its record names generation %" PRIu64 " on node %s, which does not hold it",
                 r->generation, node);
        break;
    case FB__FINDING__NOT_RECORDED:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64
                 ", of which the index has no record: nobody finds it by its id",
                 node, held);
        break;
    case FB__FINDING__REPLACED:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64 ", and its record names generation %" PRIu64
                 " on node %s",
                 node, held, r->generation, r->home);
        break;
    case FB__FINDING__OTHER_GENERATION:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64 ", and its record names generation %" PRIu64
                 ", which it does not hold",
                 node, held, r->generation);
        break;
    default:
        snprintf(out, out_bytes, "not checked: the index could not be read at node %s", node);
    }
}

void index_say(char *out, size_t out_bytes, Fb__Finding finding, const char *store,
               const char *sample_id, const char *node, uint64_t held,
               const struct directory_record *record) {
    char verdict[384];
    index_judge_say_verdict(verdict, sizeof verdict, finding, node, held, record);
    snprintf(out, out_bytes, "sample %s of store %s: %s", sample_id, store, verdict);
}

void index_say_remedy(char *out, size_t out_bytes, Fb__Finding finding, const char *node) {
    out[0] = '\0';
    if (finding == FB__FINDING__HOME_DEAD)
        snprintf(out, out_bytes, "remove the record");
    else if (finding == FB__FINDING__NOT_HELD)
        snprintf(out, out_bytes, "node %s removes the record", node);
    else if (finding == FB__FINDING__REPLACED)
        snprintf(out, out_bytes,
                 "node %s asks the record's home: a record of what that does not hold is put "
                 "right; of two that are held the older one goes",
                 node);
    else if (finding == FB__FINDING__NOT_RECORDED || finding == FB__FINDING__OTHER_GENERATION)
        snprintf(out, out_bytes, "node %s publishes what it holds again", node);
}
