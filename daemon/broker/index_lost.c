/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of dead homes are removed in two steps. A home may have died between writing the record
 * of its put and hearing that the older generation elsewhere is retired: as long as the record
 * stands, whoever looks finds that the older one has been replaced. So first every member retires
 * what it holds of the sample; only then the record goes, if its home is still dead (directory.h).
 *
 * One record at a time, asked of all members at once; a record of which a member has not confirmed
 * stays for another time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

struct kept {
    struct directory_record record; /* its strings are the three below */
    char store[LAYOUT_NAME_BYTES_MAX + 1], sample_id[LAYOUT_ID_BYTES_MAX + 1];
    char home[LAYOUT_NAME_BYTES_MAX + 1];
    bool refused;
};

struct lost {
    struct broker *broker;
    directory_sweep_fn done;
    void *context;
    size_t count, at;
    uint32_t open; /* members still to answer about records[at], + 1 while they are being asked */
    struct kept records[];
};

static void on_swept(void *context, enum directory_result result, size_t removed) {
    struct lost *lost = context;
    lost->done(lost->context, result, removed);
    free(lost);
}

static void sweep(struct lost *lost) {
    struct directory *directory = lost->broker->directory;
    struct directory_record records[DIRECTORY_PAGE_RECORDS];
    size_t count = 0;
    for (size_t i = 0; i < lost->count; i++)
        if (!lost->records[i].refused)
            records[count++] = lost->records[i].record;
    directory->ops->audit->sweep(directory, records, count, on_swept, lost);
}

static void ask_members(struct lost *lost);

static void answered(struct lost *lost) {
    while (!--lost->open) {
        if (++lost->at == lost->count) {
            sweep(lost);
            return;
        }
        ask_members(lost);
    }
}

static void on_retired(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                       size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct lost *lost = context;
    lost->records[lost->at].refused |= !reply || reply->status != FB__STATUS__OK;
    answered(lost);
}

static void ask_member(struct lost *lost, struct peer *peer) {
    struct kept *kept = &lost->records[lost->at];
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = kept->sample_id; /* generation 0: whatever the index does not name */
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = kept->store;
    retire.reason = FB__REASON__SUPERSEDED;
    retire.n_items = 1;
    retire.items = items;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    if (peer_call(peer, &request, on_retired, lost, lost->broker->now_ns) < 0)
        kept->refused = true;
    else
        lost->open++;
}

/* The caller drops the one that holds the record open while they are being asked. */
static void ask_members(struct lost *lost) {
    struct broker *broker = lost->broker;
    const struct kept *kept = &lost->records[lost->at];
    struct space *space = space_find(broker, kept->store);
    lost->open = 1;
    if (space)
        held_check_own(broker, space, kept->sample_id);
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        if (!nodes_is_dead(broker, peer_node(peer), 0))
            ask_member(lost, peer);
}

static void keep(struct kept *kept, const struct directory_record *record) {
    snprintf(kept->store, sizeof kept->store, "%s", record->store);
    snprintf(kept->sample_id, sizeof kept->sample_id, "%s", record->sample_id);
    snprintf(kept->home, sizeof kept->home, "%s", record->home);
    kept->record = *record;
    kept->record.store = kept->store;
    kept->record.sample_id = kept->sample_id;
    kept->record.home = kept->home;
}

bool lost_remove(struct broker *broker, const struct directory_record *records, size_t count,
                 directory_sweep_fn done, void *context) {
    struct lost *lost = calloc(1, sizeof *lost + count * sizeof lost->records[0]);
    if (!lost)
        return false;
    *lost = (struct lost){.broker = broker, .done = done, .context = context, .count = count};
    for (size_t i = 0; i < count; i++)
        keep(&lost->records[i], &records[i]);
    ask_members(lost);
    answered(lost);
    return true;
}
