/* SPDX-License-Identifier: Apache-2.0
 *
 * Puts that are under way, as they lie in the node's memory (struct kept_put), and how a broker
 * that was killed and started again with its memory goes on with them.
 *
 *   publish_prepare() --> PUBLISHING --the directory says yes--> PUBLISHED --over--> freed
 *
 * At the next start, by the record's word and the state of the sample in the store:
 *
 *   word        sample            what follows
 *   PUBLISHING  SEALED            the directory settles whether the index has it: publish_again()
 *   PUBLISHING  RESIDENT          cannot be, but for a directory that takes everything; as below
 *   PUBLISHED   SEALED            it is made resident, then as below
 *   PUBLISHED   RESIDENT, ended   the pursuit of older ones goes on, and its client's repeat waits
 *   any         PLANNED, unknown  nothing: it was killed before the seal, or the put was refused
 *
 * A sample that is SEALED and has no record is taken back (publish_recall_unknown()).
 */
#include <stdio.h>
#include <string.h>

#include "exchange/publish.h"
#include "exchange/publishing.h"

/* In this order: its record, the seal, publish(). Whoever finds a SEALED sample after a restart
 * finds out whose put it is, so that a client that asks again hears how that put has ended. */
bool publish_prepare(struct broker *broker, const struct space *space, struct publish_put *put) {
    const struct directory *directory = broker->directory;
    struct kept_table *table = kept_table(broker->kept, KEPT_PUTS);
    uint32_t index;
    struct kept_put *kept = kept_take(table, &index);
    if (!kept)
        return false;
    *kept =
        (struct kept_put){.generation = put->generation,
                          .client_id = put->op.client_id,
                          .op_id = put->op.op_id,
                          .begun_ns = broker->now_ns,
                          .moment = directory->ops->moment ? directory->ops->moment(directory) : 0,
                          .uid = (uint32_t)put->charged->number};
    snprintf(kept->store, sizeof kept->store, "%s", space->name);
    kept_commit(table, index, KEPT_PUT_PUBLISHING);
    put->kept = index + 1;
    return true;
}

void publish_not(struct broker *broker, const struct publish_put *put) {
    if (put->kept)
        kept_free(kept_table(broker->kept, KEPT_PUTS), put->kept - 1);
}

/* Before the sample becomes resident: what it has replaced must be known again after a restart,
 * too, for it may be at a node that is dead, which no question to all members reaches. */
void publish_note_published(struct publishing *publishing,
                            const struct supersede_published *published) {
    if (!publishing->kept)
        return;
    struct kept_table *table = kept_table(publishing->broker->kept, KEPT_PUTS);
    struct kept_put *kept = kept_record(table, publishing->kept - 1);
    snprintf(kept->older_home, sizeof kept->older_home, "%s",
             published->older_home ? published->older_home : "");
    kept->older_generation = published->older_generation;
    kept->older_incarnation = published->older_incarnation;
    kept->ask_everyone = published->ask_everyone;
    kept_commit(table, publishing->kept - 1, KEPT_PUT_PUBLISHED);
}

/* ---- after a restart ---- */

/* What the directory had said before the restart. Without an index there is nothing to pursue. */
static void publish_recall_published(struct publishing *publishing, const struct kept_put *kept,
                                     bool certain, enum store_state state) {
    const bool has_index = publishing->broker->directory->ops->index;
    struct supersede_published published = {
        .answer = CLUSTER_DONE,
        .has_index = has_index,
        .ask_everyone = has_index && (!certain || kept->ask_everyone),
        .was_retired = state != STORE_RESIDENT,
    };
    if (certain && *kept->older_home) {
        published.older_home = kept->older_home;
        published.older_generation = kept->older_generation;
        published.older_incarnation = kept->older_incarnation;
    }
    if (state == STORE_SEALED)
        publish_make_resident(publishing, NULL, &published);
    supersede_recall_put(publishing->broker->exchange->publishings, &publishing->supersede);
    supersede_published(&publishing->supersede, &published);
    publish_go_on(publishing);
}

static void publish_recall_one(struct broker *broker, struct space *space, uint32_t index,
                               const struct store_info *info) {
    const struct kept_table *table = kept_table(broker->kept, KEPT_PUTS);
    const struct kept_put *kept = kept_record(table, index);
    const bool published = kept_word(table, index) == KEPT_PUT_PUBLISHED;
    struct publishing *publishing = publish_new(broker, space, info->sample_id, kept->generation);
    struct account *user = publishing ? accounts_user(broker, kept->uid) : NULL;
    if (!publishing) {
        log_error("store %s: sample %s: out of memory: its put goes on only after the next restart",
                  space->name, info->sample_id);
        return;
    }
    publishing->bytes = info->place.bytes;
    publishing->kept = index + 1;
    publishing->moment = kept->moment;
    publishing->again = true;
    publishing->supersede.begun_ns = kept->begun_ns;
    publishing->supersede.client_id = kept->client_id;
    publishing->supersede.op_id = kept->op_id;
    if (user) {
        publish_charge(publishing, user);
        accounts_unhold(broker, user);
    }
    if (published || info->state != STORE_SEALED) {
        publish_recall_published(publishing, kept, published, info->state);
        return;
    }
    supersede_begin_put(broker->exchange->publishings, &publishing->supersede);
    publish_carry_out(publishing);
}

/* Is there anything to go on with? A put that was refused is GONE, and CANCELLED. */
static bool publish_is_recalled(const struct kept_table *table, uint32_t index,
                                struct store_info *info, const struct space *space) {
    const struct kept_put *kept = kept_record(table, index);
    if (!space || !store_stat(space->store, NULL, 0, kept->generation, info))
        return false;
    return info->state == STORE_SEALED || info->state == STORE_RESIDENT ||
           kept_word(table, index) == KEPT_PUT_PUBLISHED;
}

/* A sealed sample that no record names cannot be told from one that was refused: its client has
 * heard nothing, and puts it again. */
static void publish_recall_unknown(struct broker *broker, struct space *space) {
    uint64_t cursor = 0;
    struct store_info info;
    while (store_list_next(space->store, &cursor, &info))
        if (info.state == STORE_SEALED && !info.landing &&
            !publish_is_of(broker, space, info.generation))
            store_unseal(space->store, info.generation, broker->now_ns);
}

void publish_recall(struct broker *broker) {
    struct kept_table *table = kept_table(broker->kept, KEPT_PUTS);
    uint32_t cursor = 0, index;
    while (kept_walk(table, &cursor, &index)) {
        const struct kept_put *kept = kept_record(table, index);
        struct space *space = space_find(broker, kept->store);
        struct store_info info;
        if (publish_is_recalled(table, index, &info, space))
            publish_recall_one(broker, space, index, &info);
        else
            kept_free(table, index);
    }
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used)
            publish_recall_unknown(broker, &broker->spaces[i]);
}
