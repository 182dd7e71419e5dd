/* SPDX-License-Identifier: Apache-2.0
 *
 * What an admin is told about one sample (`featurectl index check`): does what a node holds agree
 * with the index, if not, what is wrong, and what does a repair do about it?
 *
 * A home holds at most one RESIDENT generation of a sample, and the index has at most one record of
 * it, so that there are few ways to disagree:
 *
 * (G is the generation that the node holds; "us" is that node.)
 *
 *   held  the record names        finding           what a repair does
 *   -     nothing, another node   AGREES            nothing
 *   -     us                      NOT_HELD          removes the record
 *   G     us, G                   AGREES            nothing
 *   G     us, another generation  OTHER_GENERATION  writes G over it
 *   G     another node            REPLACED          compares the homes (check.c)
 *   G     nothing                 NOT_RECORDED      writes G
 *
 * and without a look at a node, or without a sure one:
 *
 *   the record's home is dead            HOME_DEAD    removes the record
 *   a put, or the record, is on its way  MOVING       nothing
 *   the index cannot be read             NOT_CHECKED  nothing
 *
 * How each comes about: NOT_HELD, a retire was lost, or somebody else wrote the record.
 * OTHER_GENERATION, the other one is of a put that failed. REPLACED, the record is of another put,
 * or an old one that came back with a backup of etcd. NOT_RECORDED, the record was lost.
 *
 * There is no state between two checks: the facts go in and the finding comes out. The facts are
 * taken before and after the record is read, because the sample may be put or retired meanwhile,
 * and then the record and the facts are of two different moments.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cluster/cluster.h"

enum audit_finding cluster_audit_judge_record(enum cluster_reading reading) {
    switch (reading) {
    case READING_LOST:
        return AUDIT_HOME_DEAD;
    case READING_RECORD:
    case READING_NONE:
        return AUDIT_AGREES;
    default:
        return AUDIT_NOT_CHECKED;
    }
}

enum audit_finding cluster_audit_judge(const struct audit_facts *before,
                                       const struct audit_facts *after,
                                       enum cluster_reading reading,
                                       const struct audit_record *record, const char *node,
                                       uint64_t incarnation) {
    if (cluster_audit_judge_record(reading) == AUDIT_NOT_CHECKED)
        return AUDIT_NOT_CHECKED;
    if (before->moving || after->moving || before->held != after->held)
        return AUDIT_MOVING;
    bool recorded = reading != READING_NONE;
    bool ours = recorded && !strcmp(record->home, node) && record->incarnation == incarnation;
    if (!after->held)
        return ours ? AUDIT_NOT_HELD : AUDIT_AGREES;
    if (!recorded)
        return AUDIT_NOT_RECORDED;
    if (!ours)
        return AUDIT_REPLACED;
    return record->generation == after->held ? AUDIT_AGREES : AUDIT_OTHER_GENERATION;
}

static void audit_say_verdict(char *out, size_t out_bytes, enum audit_finding finding,
                              const char *node, uint64_t held, const struct audit_record *record) {
    static const struct audit_record none = {.home = "?"};
    const struct audit_record *r = record ? record : &none;
    switch (finding) {
    case AUDIT_AGREES:
        snprintf(out, out_bytes, "the index and node %s agree", node);
        break;
    case AUDIT_MOVING:
        snprintf(out, out_bytes, "a change is on its way at node %s", node);
        break;
    case AUDIT_HOME_DEAD:
        snprintf(out, out_bytes,
                 "its record names generation %" PRIu64 " on node %s, incarnation %" PRIu64
                 ", which is dead: the bytes are lost",
                 r->generation, r->home, r->incarnation);
        break;
    case AUDIT_NOT_HELD:
        snprintf(out, out_bytes,
                 "its record names generation %" PRIu64 " on node %s, which does not hold it",
                 r->generation, node);
        break;
    case AUDIT_NOT_RECORDED:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64
                 ", of which the index has no record: nobody finds it by its id",
                 node, held);
        break;
    case AUDIT_REPLACED:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64 ", and its record names generation %" PRIu64
                 " on node %s",
                 node, held, r->generation, r->home);
        break;
    case AUDIT_OTHER_GENERATION:
        snprintf(out, out_bytes,
                 "node %s holds generation %" PRIu64 ", and its record names generation %" PRIu64
                 ", which it does not hold",
                 node, held, r->generation);
        break;
    default:
        snprintf(out, out_bytes, "not checked: the index could not be read at node %s", node);
    }
}

void cluster_audit_say(char *out, size_t out_bytes, enum audit_finding finding, const char *store,
                       const char *sample_id, const char *node, uint64_t held,
                       const struct audit_record *record) {
    char verdict[384];
    audit_say_verdict(verdict, sizeof verdict, finding, node, held, record);
    snprintf(out, out_bytes, "sample %s of store %s: %s", sample_id, store, verdict);
}

void cluster_audit_say_remedy(char *out, size_t out_bytes, enum audit_finding finding,
                              const char *node) {
    out[0] = '\0';
    if (finding == AUDIT_HOME_DEAD)
        snprintf(out, out_bytes, "remove the record");
    else if (finding == AUDIT_NOT_HELD)
        snprintf(out, out_bytes, "node %s removes the record", node);
    else if (finding == AUDIT_REPLACED)
        snprintf(out, out_bytes,
                 "node %s asks the record's home: a record of what that does not hold is put "
                 "right; of two that are held the older one goes",
                 node);
    else if (finding == AUDIT_NOT_RECORDED || finding == AUDIT_OTHER_GENERATION)
        snprintf(out, out_bytes, "node %s publishes what it holds again", node);
}

enum audit_remedy cluster_audit_remedy(enum audit_finding finding) {
    switch (finding) {
    case AUDIT_HOME_DEAD:
        return AUDIT_SWEEP;
    case AUDIT_NOT_HELD:
        return AUDIT_REMOVE;
    case AUDIT_NOT_RECORDED:
        return AUDIT_PUBLISH;
    case AUDIT_OTHER_GENERATION:
        return AUDIT_PUBLISH_OVER;
    case AUDIT_REPLACED:
        return AUDIT_COMPARE_HOMES;
    default:
        return AUDIT_NOTHING;
    }
}
