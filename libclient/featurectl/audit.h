/* SPDX-License-Identifier: Apache-2.0
 *
 * What `index check` keeps while it compares: the records of the index, by store and sample, and
 * the suspects: samples of which a record and a node's list did not agree. Both were read at
 * different times, so that under traffic most suspects are innocent: each is judged by the node
 * itself, several times, before it is believed. No connection here.
 */
#ifndef FEATURED_CTL_AUDIT_H
#define FEATURED_CTL_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"

struct suspect {
    char *store, *sample_id, *node; /* node: whom to ask; "" = the record alone */
    Fb__IndexFinding *finding;      /* of the last look; NULL before */
    bool confirmed;                 /* two looks in a row said the same */
};

struct audit {
    void *records; /* a tree */
    uint64_t record_count, sample_count;
    struct suspect *suspects;
    size_t suspect_count, suspect_room;
};

void audit_deinit(struct audit *audit);
/* A record of the index. One whose home is no member is suspect. */
void audit_add_record(struct audit *audit, const Fb__IndexRecord *record);
/* A sample that this node holds as its home. Suspect unless it is what the record names. */
void audit_add_sample(struct audit *audit, const char *store, const char *node,
                      const Fb__SampleInfo *sample);
/* Every node that can be asked has said what it holds. Records of a node for which reached() is
 * false stay unknown: their number is returned. Those of others that nobody holds are suspect. */
uint64_t audit_close(struct audit *audit, bool (*reached)(void *context, const char *node),
                     void *context);

/* What a look at a suspect has found; taken over. */
void audit_judge(struct suspect *suspect, Fb__IndexFinding *finding);
/* What came of repairing a finding; taken over. What agrees by now is repaired; a change that is on
 * its way, or a node that does not answer, leaves the finding as it was. */
void audit_mend(struct suspect *suspect, Fb__IndexFinding *finding);
/* Drops the suspects that agree. True: another look may tell more about some of the others. */
bool audit_sift(struct audit *audit);
/* Confirmed, and wrong. */
bool audit_is_finding(const struct suspect *suspect);

#endif
