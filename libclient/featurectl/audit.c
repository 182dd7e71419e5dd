/* SPDX-License-Identifier: Apache-2.0
 *
 * The records are kept in tsearch(3)'s balanced tree, keyed by store and sample. A suspect is
 * confirmed when two looks in a row, some time apart, found the same thing wrong with it.
 *
 * records of the index (a tree) --each node's samples--> what does not match is a suspect
 * suspect --asked of its node, twice--> agrees, or confirmed: a finding
 *
 * Everything is read at different moments, so that a difference alone proves nothing. It only
 * says where to look.
 */
#include "featurectl/audit.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/memory.h"

struct record {
    char *store, *sample_id, *home;
    uint64_t generation;
    bool home_is_member, seen;
};

/* A record is known by store and sample; the index has at most one of each. */
static int audit_compare(const void *a, const void *b) {
    const struct record *left = a, *right = b;
    int order = strcmp(left->store, right->store);
    return order ? order : strcmp(left->sample_id, right->sample_id);
}

/* For tdestroy(3), which hands over the records alone. */
static void audit_free_record(void *node) {
    struct record *record = node;
    free(record->store);
    free(record->sample_id);
    free(record->home);
    free(record);
}

static void audit_free_suspect(struct suspect *suspect) {
    free(suspect->store);
    free(suspect->sample_id);
    free(suspect->node);
    if (suspect->finding)
        fb__index_finding__free_unpacked(suspect->finding, NULL);
}

/* The names in `audit` are all copies: replies are freed long before. */
void audit_deinit(struct audit *audit) {
    tdestroy(audit->records, audit_free_record);
    for (size_t i = 0; i < audit->suspect_count; i++)
        audit_free_suspect(&audit->suspects[i]);
    free(audit->suspects);
    *audit = (struct audit){0};
}

/* A suspicion costs one question to its node; it is cheaper to have one too many than to judge here
 * by data that were read at different times. */
static void audit_suspect(struct audit *audit, const char *store, const char *sample_id,
                          const char *node) {
    if (audit->suspect_count == audit->suspect_room) {
        audit->suspect_room = audit->suspect_room ? 2 * audit->suspect_room : 64;
        audit->suspects =
            memory_grow(audit->suspects, audit->suspect_room, sizeof *audit->suspects);
    }
    audit->suspects[audit->suspect_count++] = (struct suspect){.store = memory_copy(store),
                                                               .sample_id = memory_copy(sample_id),
                                                               .node = memory_copy(node)};
}

/* ---- comparing ---- */

void audit_add_record(struct audit *audit, const Fb__IndexRecord *from) {
    struct record *record = memory_grow(NULL, 1, sizeof *record);
    *record = (struct record){.store = memory_copy(from->store),
                              .sample_id = memory_copy(from->sample_id),
                              .home = memory_copy(from->home),
                              .generation = from->generation,
                              .home_is_member = from->home_is_member};
    struct record **kept = tsearch(record, &audit->records, audit_compare);
    if (!kept || *kept != record) { /* a page was read twice */
        audit_free_record(record);
        return;
    }
    audit->record_count++;
    if (!from->home_is_member)
        audit_suspect(audit, from->store, from->sample_id, "");
}

/* A sample and its record agree when generation and home are the same and the home is a member. All
 * else is a suspect, also what was put or retired while the lists were read: such ones agree when
 * they are looked at again. */
void audit_add_sample(struct audit *audit, const char *store, const char *node,
                      const Fb__SampleInfo *sample) {
    struct record wanted = {.store = (char *)store, .sample_id = sample->sample_id};
    struct record **found = tfind(&wanted, &audit->records, audit_compare);
    bool same = found && (*found)->generation == sample->generation && (*found)->home_is_member &&
                !strcmp((*found)->home, node);
    audit->sample_count++;
    if (same)
        (*found)->seen = true;
    else
        audit_suspect(audit, store, sample->sample_id, node);
}

static int audit_compare_suspects(const void *a, const void *b) {
    const struct suspect *left = a, *right = b;
    int order = strcmp(left->store, right->store);
    order = order ? order : strcmp(left->sample_id, right->sample_id);
    return order ? order : strcmp(left->node, right->node);
}

/* By store; whom a record and a list both accuse stands once. */
static void audit_unite_suspects(struct audit *audit) {
    size_t kept = 0;
    if (audit->suspect_count)
        qsort(audit->suspects, audit->suspect_count, sizeof *audit->suspects,
              audit_compare_suspects);
    for (size_t i = 0; i < audit->suspect_count; i++)
        if (kept && !audit_compare_suspects(&audit->suspects[kept - 1], &audit->suspects[i]))
            audit_free_suspect(&audit->suspects[i]);
        else
            audit->suspects[kept++] = audit->suspects[i];
    audit->suspect_count = kept;
}

struct closing {
    struct audit *audit;
    bool (*reached)(void *context, const char *node);
    void *context;
    uint64_t unknown;
};

/* A record that no list has shown is a suspect only if its home has been read to the end. The
 * records of a node that does not answer are unknown, and are counted as that. */
static void audit_close_record(const void *node, VISIT visit, void *user) {
    const struct record *record = *(struct record *const *)node;
    struct closing *closing = user;
    if ((visit != postorder && visit != leaf) || record->seen || !record->home_is_member)
        return;
    if (closing->reached(closing->context, record->home))
        audit_suspect(closing->audit, record->store, record->sample_id, record->home);
    else
        closing->unknown++;
}

/* After the last list. `reached`: was every sample of that node read? Returns how many records
 * are unknown.
 */
uint64_t audit_close(struct audit *audit, bool (*reached)(void *context, const char *node),
                     void *context) {
    struct closing closing = {.audit = audit, .reached = reached, .context = context};
    twalk_r(audit->records, audit_close_record, &closing);
    audit_unite_suspects(audit);
    return closing.unknown;
}

/* ---- suspects ---- */

/* A finding counts when two looks in a row say the same of the same generations. One look alone may
 * fall between the two steps of a put. */
void audit_judge(struct suspect *suspect, Fb__IndexFinding *finding) {
    const Fb__IndexFinding *before = suspect->finding;
    suspect->confirmed = before && before->finding == finding->finding &&
                         before->held == finding->held && finding->finding != FB__FINDING__MOVING &&
                         finding->finding != FB__FINDING__NOT_CHECKED;
    if (suspect->finding)
        fb__index_finding__free_unpacked(suspect->finding, NULL);
    suspect->finding = finding;
}

/* After a repair the node tells what it finds now. When it agrees, the finding of before is kept
 * and marked as repaired, because that is what is printed. */
void audit_mend(struct suspect *suspect, Fb__IndexFinding *finding) {
    bool settled = finding->finding != FB__FINDING__AGREES &&
                   finding->finding != FB__FINDING__MOVING &&
                   finding->finding != FB__FINDING__NOT_CHECKED;
    Fb__IndexFinding *dropped = settled ? suspect->finding : finding;
    if (finding->finding == FB__FINDING__AGREES)
        suspect->finding->repaired = true;
    else if (settled)
        suspect->finding = finding;
    fb__index_finding__free_unpacked(dropped, NULL);
}

/* True: some suspects need another look. */
bool audit_sift(struct audit *audit) {
    size_t kept = 0;
    bool open = false;
    for (size_t i = 0; i < audit->suspect_count; i++) {
        struct suspect *suspect = &audit->suspects[i];
        if (suspect->finding && suspect->finding->finding == FB__FINDING__AGREES) {
            audit_free_suspect(suspect);
            continue;
        }
        open |= !suspect->confirmed;
        audit->suspects[kept++] = *suspect;
    }
    audit->suspect_count = kept;
    return open;
}

/* Confirmed, and wrong. Only such ones are printed as findings and may be repaired. */
bool audit_is_finding(const struct suspect *suspect) {
    return suspect->confirmed && suspect->finding->finding != FB__FINDING__AGREES;
}
