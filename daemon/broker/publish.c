/* SPDX-License-Identifier: Apache-2.0
 *
 * From a sealed generation to an answered put:
 *
 *   SEALED --directory--> RESIDENT --older homes confirm or are dead--> answered, remembered
 *      \--directory refuses--> gone, answered UNAVAILABLE
 *
 * The directory names the record that ours replaced. Its home must have retired that generation, or
 * be dead (its lease in the index has expired, so it serves no more), before the put is answered:
 * from then on no get of the older one succeeds anywhere. A home that cannot be reached is asked
 * again until it answers or is dead. The older put may itself never have been answered, and what it
 * replaced may live on: unless its home says that it was done, every node checks what it holds
 * against the index. Goes on when the caller is gone: what is in the index must
 * become true.
 */
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define RETRY_NS (100 * NS_PER_MS)

/* One home that has to retire what we replaced. */
struct older_home {
    struct publishing *publishing;
    char node[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t incarnation, generation; /* 0 = whatever the index does not name */
    bool confirmed, asked;
    uint64_t retry_ns;
};

struct publishing {
    TAILQ_ENTRY(publishing) link;
    struct broker *broker;
    struct space *space;
    struct item *item; /* NULL once nobody waits for the answer */
    uint64_t generation;
    struct store_op op;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    bool published;               /* or refused, with everyone to be asked all the same */
    enum directory_result result; /* of the directory, once published */
    bool everyone;                /* every node is in `older` */
    struct older_home *older;
    size_t older_count, older_room;
};

void publish_detach(struct item *item) {
    item->publishing->item = NULL;
    item->publishing = NULL;
}

static void attach(struct publishing *publishing, struct item *item) {
    publishing->item = item;
    item->publishing = publishing;
}

bool publish_adopt(struct item *item) {
    struct publishing *publishing;
    if (BROKER_PLANTED(PLANTED_REPEAT_UNADOPTED))
        return false;
    TAILQ_FOREACH (publishing, &item->call->broker->publishings, link)
        if (publishing->op.op_id && publishing->op.op_id == item->op.op_id &&
            publishing->op.client_id == item->op.client_id &&
            publishing->space == item->call->space)
            break;
    if (!publishing)
        return false;
    struct item *before = publishing->item;
    if (before)
        publish_detach(before);
    attach(publishing, item);
    if (before)
        item_done(before, FB__STATUS__UNAVAILABLE,
                  "sample %s: asked again by a later request of the same client",
                  before->sample_id);
    return true;
}

bool publish_was_done(const struct broker *broker, const struct space *space, uint64_t generation) {
    const struct publishing *publishing;
    struct store_info info;
    TAILQ_FOREACH (publishing, &broker->publishings, link)
        if (publishing->space == space && publishing->generation == generation)
            return false;
    return store_stat(space->store, NULL, 0, generation, &info) &&
           (info.state == STORE_RESIDENT || info.reason == STORE_CONSUMED ||
            info.reason == STORE_MAX_HOLD);
}

static void end(struct publishing *publishing) {
    struct broker *broker = publishing->broker;
    TAILQ_REMOVE(&broker->publishings, publishing, link);
    publishing->space->uses--;
    free(publishing->older);
    free(publishing);
}

/* ---- the older homes ---- */

static void answer(struct publishing *publishing) {
    struct item *item = publishing->item;
    struct store_answer remembered = {FB__STATUS__OK, publishing->generation};
    if (publishing->result == DIRECTORY_OK)
        store_replay_record(publishing->space->store, publishing->op, &remembered);
    if (!item)
        return;
    publish_detach(item);
    item->generation = publishing->generation;
    if (publishing->result == DIRECTORY_OK)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s of store %s was not put: %s",
                  publishing->sample_id, publishing->space->name,
                  publishing->result == DIRECTORY_E_FENCED ? broker_fenced_why(publishing->broker)
                                                           : "the directory cannot be reached");
}

static void finish_if_confirmed(struct publishing *publishing) {
    for (size_t i = 0; i < publishing->older_count; i++)
        if (!publishing->older[i].confirmed)
            return;
    answer(publishing);
    end(publishing);
}

static void add_older(struct publishing *publishing, const char *node, uint64_t incarnation,
                      uint64_t generation) {
    if (publishing->older_count == publishing->older_room)
        return; /* a node that joined since: it came with nothing older */
    struct older_home *home = &publishing->older[publishing->older_count++];
    *home = (struct older_home){
        .publishing = publishing, .incarnation = incarnation, .generation = generation};
    strncpy(home->node, node, sizeof home->node - 1);
}

/* Whatever they hold of this sample and the index does not name. */
static void add_everyone(struct publishing *publishing) {
    struct broker *broker = publishing->broker;
    if (publishing->everyone)
        return;
    publishing->everyone = true;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        add_older(publishing, peer_node(peer), 0, 0);
}

static void on_superseded(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                          size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct older_home *home = context;
    home->asked = false;
    home->confirmed = (reply && reply->status == FB__STATUS__OK) ||
                      (!reply && BROKER_PLANTED(PLANTED_UNREACHED_IS_DEAD));
    home->retry_ns = home->publishing->broker->now_ns + RETRY_NS;
    bool was_done =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_ITEMS && reply->items->count;
    if (home->confirmed && home->generation && !was_done)
        add_everyone(home->publishing);
    finish_if_confirmed(home->publishing);
}

static void ask(struct older_home *home) {
    struct publishing *publishing = home->publishing;
    struct broker *broker = publishing->broker;
    struct peer *peer = peers_find(broker->peers, home->node);
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = publishing->sample_id;
    item.generation = home->generation;
    item.incarnation = home->incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = publishing->space->name;
    retire.reason = FB__REASON__SUPERSEDED;
    retire.n_items = 1;
    retire.items = items;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    home->asked = peer && !peer_call(peer, &request, on_superseded, home, broker->now_ns);
    home->retry_ns = broker->now_ns + RETRY_NS;
}

static void pursue(struct publishing *publishing, uint64_t now_ns) {
    for (size_t i = 0; i < publishing->older_count; i++) {
        struct older_home *home = &publishing->older[i];
        if (home->confirmed || home->asked)
            continue;
        if (nodes_is_dead(publishing->broker, home->node, home->incarnation)) {
            home->confirmed = true;
            add_everyone(publishing);
        } else if (home->retry_ns <= now_ns)
            ask(home);
    }
    finish_if_confirmed(publishing);
}

void publishings_pump(struct broker *broker, uint64_t now_ns) {
    struct publishing *publishing, *next;
    for (publishing = TAILQ_FIRST(&broker->publishings); publishing; publishing = next) {
        next = TAILQ_NEXT(publishing, link);
        if (publishing->published)
            pursue(publishing, now_ns);
    }
}

uint64_t publishings_next_deadline_ns(const struct broker *broker) {
    uint64_t next_ns = UINT64_MAX;
    const struct publishing *publishing;
    TAILQ_FOREACH (publishing, &broker->publishings, link)
        for (size_t i = 0; i < publishing->older_count; i++) {
            const struct older_home *home = &publishing->older[i];
            if (!home->confirmed && !home->asked && home->retry_ns < next_ns)
                next_ns = home->retry_ns;
        }
    return next_ns;
}

static size_t peer_count(const struct broker *broker) {
    size_t count = 0;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        count++;
    return count;
}

/* False: out of memory. */
static bool list_older(struct publishing *publishing, const struct directory_record *older,
                       bool ask_peers) {
    struct broker *broker = publishing->broker;
    publishing->older_room = peer_count(broker) + 1;
    publishing->older = calloc(publishing->older_room, sizeof *publishing->older);
    if (!publishing->older)
        return false;
    if (BROKER_PLANTED(PLANTED_NOT_SUPERSEDED))
        return true;
    if (older && strcmp(older->home, broker->config->node))
        add_older(publishing, older->home, older->incarnation, older->generation);
    if (ask_peers)
        add_everyone(publishing);
    return true;
}

/* ---- the directory's answer ---- */

static void take_back(struct publishing *publishing) {
    struct store *store = publishing->space->store;
    uint64_t superseded;
    if (BROKER_PLANTED(PLANTED_REFUSED_PUBLISHED))
        store_publish(store, publishing->generation, publishing->broker->now_ns, &superseded);
    else
        store_unseal(store, publishing->generation, publishing->broker->now_ns);
}

static void on_retired(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

/* Aborted, or superseded by a later put elsewhere. The index has had it, all the same: what it
 * replaced here is over, and its record goes. */
static void was_retired_on_the_way(const struct publishing *publishing, uint64_t replaced_here) {
    struct broker *broker = publishing->broker;
    const char *id = publishing->sample_id;
    struct directory_record record = {publishing->space->name,     id,
                                      broker->config->node,        publishing->generation,
                                      broker->options.incarnation, 0};
    bool retired;
    if (replaced_here)
        store_retire(publishing->space->store, id, (uint32_t)strlen(id), replaced_here,
                     STORE_SUPERSEDED, broker->now_ns, &retired);
    broker->directory->ops->retire(broker->directory, &record, on_retired, NULL);
}

/* False: the older put, here, was not done: what it replaced may live on. */
static bool make_resident(struct publishing *publishing, const struct directory_record *older) {
    struct broker *broker = publishing->broker;
    uint64_t superseded;
    bool ours = older && !strcmp(older->home, broker->config->node);
    bool chain_ends = !ours || publish_was_done(broker, publishing->space, older->generation);
    if (store_publish(publishing->space->store, publishing->generation, broker->now_ns,
                      &superseded) != STORE_OK)
        was_retired_on_the_way(publishing, ours ? older->generation : 0);
    return chain_ends;
}

/* Refused after its answer was lost, the put may have replaced something for a moment: then
 * everyone checks as well. */
static void on_published(void *context, enum directory_result result,
                         const struct directory_record *older, bool ask_peers) {
    struct publishing *publishing = context;
    publishing->result = result;
    publishing->published = true;
    if (result == DIRECTORY_OK)
        ask_peers |= !make_resident(publishing, older);
    else
        take_back(publishing);
    if (!list_older(publishing, older, ask_peers))
        log_error("store %s: out of memory: an older generation of %s may linger until it is read",
                  publishing->space->name, publishing->sample_id);
    pursue(publishing, publishing->broker->now_ns);
}

void publish(struct item *item, uint64_t generation) {
    struct broker *broker = item->call->broker;
    struct space *space = item->call->space;
    struct store_info info;
    store_stat(space->store, NULL, 0, generation, &info);
    memcpy(item->sample_id, info.sample_id, sizeof item->sample_id);
    struct publishing *publishing = calloc(1, sizeof *publishing);
    if (!publishing) {
        store_unseal(space->store, generation, broker->now_ns);
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s: the broker is out of memory",
                  item->sample_id);
        return;
    }
    publishing->broker = broker;
    publishing->space = space;
    publishing->generation = generation;
    publishing->op = item->op;
    memcpy(publishing->sample_id, info.sample_id, sizeof publishing->sample_id);
    attach(publishing, item);
    space->uses++;
    TAILQ_INSERT_TAIL(&broker->publishings, publishing, link);
    struct directory_record record = {space->name,
                                      item->sample_id,
                                      broker->config->node,
                                      generation,
                                      broker->options.incarnation,
                                      info.extent_bytes};
    broker->directory->ops->publish(broker->directory, &record, on_published, publishing);
}

void publishings_free(struct broker *broker) {
    struct publishing *publishing;
    while ((publishing = TAILQ_FIRST(&broker->publishings)))
        end(publishing);
}
