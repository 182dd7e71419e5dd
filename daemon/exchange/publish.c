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
 * again until it answers or is dead. A dead one may have been cut off alone, and come back with
 * what it holds: word of the end is kept for it in the index, and only then is it made sure that it
 * is not back already, in which case it is asked like any other:
 *
 *   asked, and again --confirms--> over
 *         \--is dead--> word kept --> members read --still dead--> over
 *                                                \--is back--> asked
 *
 * The older put may itself never have been answered, and what it replaced may live on: unless its
 * home says that it was done, every node checks what it holds against the index. Goes on when the
 * caller is gone: what is in the index must become true.
 */
#include <stdlib.h>
#include <string.h>

#include "exchange/publish_set.h"

#define RETRY_NS (100 * NS_PER_MS)
#define LATE_NS  (10 * NS_PER_MS)

void publish_detach(struct item *item) {
    item->publishing->item = NULL;
    item->publishing = NULL;
}

static void publish_charge(struct publishing *publishing, struct account *account) {
    publishing->charged = account;
    account_add(account, CHARGE_WAITS, 1);
}

static void publish_attach(struct publishing *publishing, struct item *item) {
    publishing->item = item;
    item->publishing = publishing;
}

bool publish_adopt(struct item *item) {
    if (BROKER_PLANTED(PLANTED_REPEAT_UNADOPTED) || !item->op.op_id)
        return false;
    struct publishing *publishing =
        publish_set_by_op(item->call->broker->exchange->publishings, item->call->space, item->op);
    if (!publishing)
        return false;
    struct item *before = publishing->item;
    if (before)
        publish_detach(before);
    publish_attach(publishing, item);
    if (before)
        item_done(before, FB__STATUS__UNAVAILABLE,
                  "sample %s: asked again by a later request of the same client",
                  before->ref.sample_id);
    return true;
}

static void publish_on_retired(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

static void publish_retire_record(const struct publishing *publishing, directory_retire_fn done,
                                  void *context) {
    struct broker *broker = publishing->broker;
    struct directory_record record = {.store = publishing->space->name,
                                      .sample_id = publishing->sample_id,
                                      .home = broker->config->node,
                                      .generation = publishing->generation,
                                      .incarnation = broker->options.incarnation};
    broker->directory->ops->retire(broker->directory, &record, done, context);
}

static void publish_forget_older(struct publishing *publishing) {
    struct older_home *home;
    while ((home = TAILQ_FIRST(&publishing->older))) {
        TAILQ_REMOVE(&publishing->older, home, link);
        free(home);
    }
}

static void publish_end(struct publishing *publishing) {
    struct broker *broker = publishing->broker;
    publish_set_remove(publishing);
    publishing->space->uses--;
    publish_forget_older(publishing);
    if (publishing->charged)
        accounts_release(broker, publishing->charged, CHARGE_WAITS, 1);
    free(publishing);
}

/* ---- the older homes ---- */

static void publish_answer(struct publishing *publishing) {
    struct item *item = publishing->item;
    char trouble[TROUBLE_BYTES];
    struct store_answer remembered = {FB__STATUS__OK, publishing->generation};
    if (publishing->result == DIRECTORY_OK && !publishing->clears)
        store_replay_record(publishing->space->store, publishing->op, &remembered);
    if (!item)
        return;
    publish_detach(item);
    item->ref.generation = publishing->generation;
    if (publishing->result == DIRECTORY_OK)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s of store %s was not put: %s",
                  publishing->sample_id, publishing->space->name,
                  publishing->result == DIRECTORY_E_FENCED
                      ? broker_fenced_why(publishing->broker)
                      : broker_trouble(publishing->broker,
                                       "the directory did not take its record in time, or has "
                                       "another node's that is newer",
                                       trouble));
}

/* When it goes on by itself: asks again, or looks whether a home is dead by now. Answers bring it
 * on before. */
static void publish_schedule(struct publishing *publishing) {
    uint64_t next_ns = UINT64_MAX;
    const struct older_home *home;
    TAILQ_FOREACH (home, &publishing->older, link)
        if (!home->confirmed && !home->asked && !home->ending && home->retry_ns < next_ns)
            next_ns = home->retry_ns;
    if (publishing->everyone == EVERYONE_DUE && publishing->everyone_retry_ns < next_ns)
        next_ns = publishing->everyone_retry_ns;
    deadlines_set_or_clear(&publishing->broker->deadlines, &publishing->due, next_ns);
}

static void publish_finish_if_confirmed(struct publishing *publishing) {
    const struct older_home *home;
    bool confirmed = publishing->everyone != EVERYONE_DUE && publishing->everyone != EVERYONE_ASKED;
    TAILQ_FOREACH (home, &publishing->older, link)
        confirmed &= home->confirmed;
    publish_schedule(publishing);
    if (!confirmed)
        return;
    if (publishing->record_due)
        publish_retire_record(publishing, publish_on_retired, NULL);
    /* Whoever took us for dead has written its own in place of ours. */
    if (!TAILQ_EMPTY(&publishing->older) && !publishing->record_due)
        held_check_own(publishing->broker, publishing->space, publishing->sample_id);
    publish_answer(publishing);
    publish_end(publishing);
}

/* False: out of memory. */
static bool publish_add_older(struct publishing *publishing, const char *node, uint64_t incarnation,
                              uint64_t generation) {
    struct older_home *home = calloc(1, sizeof *home);
    if (!home)
        return false;
    home->publishing = publishing;
    home->incarnation = incarnation;
    home->generation = generation;
    strncpy(home->node, node, sizeof home->node - 1);
    TAILQ_INSERT_TAIL(&publishing->older, home, link);
    return true;
}

static void publish_on_members(void *context, enum directory_result result) {
    struct publishing *publishing = context;
    struct broker *broker = publishing->broker;
    bool listed = result == DIRECTORY_OK; /* when all is taken down it is not, and no peers are */
    struct peer *peer = listed ? peers_next(broker->peers, NULL) : NULL;
    for (; listed && peer; peer = peers_next(broker->peers, peer))
        listed = publish_add_older(publishing, peer_node(peer), 0, 0);
    publishing->everyone = listed ? EVERYONE_LISTED : EVERYONE_DUE;
    publishing->everyone_retry_ns = broker->now_ns + RETRY_NS;
    deadlines_set(&broker->deadlines, &publishing->due, listed ? 0 : publishing->everyone_retry_ns);
}

/* Every node is to check whatever it holds of this sample and the index does not name. One that
 * joins later comes with nothing, or reconciled. */
static void publish_add_everyone(struct publishing *publishing) {
    if (publishing->everyone == EVERYONE_NOT_NEEDED)
        publishing->everyone = EVERYONE_DUE;
}

static void publish_on_superseded(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                  size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct older_home *home = context;
    home->asked = false;
    home->confirmed = (reply && reply->status == FB__STATUS__OK) ||
                      (!reply && BROKER_PLANTED(PLANTED_UNREACHED_IS_DEAD));
    home->retry_ns = home->publishing->broker->now_ns + RETRY_NS;
    bool was_done =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_ITEMS && reply->items->count;
    if (home->confirmed && home->generation && !was_done && !home->publishing->clears)
        publish_add_everyone(home->publishing);
    publish_finish_if_confirmed(home->publishing);
}

/* Others are only to put their own records right. */
static bool publish_is_hint(const struct publishing *publishing) {
    return publishing->clears && !publishing->by_id;
}

static void publish_ask(struct older_home *home) {
    struct publishing *publishing = home->publishing;
    struct broker *broker = publishing->broker;
    struct peer *peer = peers_find(broker->peers, home->node);
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = publishing->sample_id;
    item.generation = home->generation;
    item.incarnation = home->incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = publishing->space->name;
    retire.reason = home->generation ? (Fb__Reason)publishing->reason : FB__REASON__SUPERSEDED;
    retire.n_items = 1;
    retire.items = items;
    if (!home->generation && !publish_is_hint(publishing)) {
        retire.newer = publishing->generation;
        if (!publishing->by_id)
            retire.newer_age_us = (broker->now_ns - publishing->begun_ns) / 1000;
    }
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    home->asked = peer && !peer_call(peer, &request, publish_on_superseded, home, broker->now_ns);
    home->retry_ns = broker->now_ns + RETRY_NS;
}

static void publish_pursue(struct publishing *publishing, uint64_t now_ns);

/* Refused as everything is when the directory is taken down: then nobody goes on. */
static void publish_on_members_after(void *context, enum directory_result result) {
    struct older_home *home = context;
    home->ending = false;
    home->kept = result == DIRECTORY_OK;
    publish_pursue(home->publishing, home->publishing->broker->now_ns);
}

static void publish_on_kept(void *context, enum directory_result result) {
    struct older_home *home = context;
    struct directory *directory = home->publishing->broker->directory;
    if (result == DIRECTORY_OK)
        directory->ops->members(directory, publish_on_members_after, home);
    else
        publish_on_members_after(home, result);
}

static void publish_end_there(struct older_home *home) {
    const struct publishing *publishing = home->publishing;
    struct broker *broker = publishing->broker;
    const struct directory_record record = {.store = publishing->space->name,
                                            .sample_id = publishing->sample_id,
                                            .home = home->node,
                                            .generation = home->generation,
                                            .incarnation = home->dead};
    broker->directory->ops->end(broker->directory, &record, publish_on_kept, home);
}

/* Whatever it holds is older than ours for as long as ours is the last in the index. Replaced
 * meanwhile, it is for who replaced it to see to. */
static void publish_on_still_named(void *context, enum directory_result result,
                                   const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct older_home *home = context;
    bool known = result != DIRECTORY_E_UNAVAILABLE;
    if (known && record && record->generation == home->publishing->generation)
        publish_end_there(home);
    else
        publish_on_members_after(home, known ? DIRECTORY_OK : result);
}

/* Its home is dead, or not known here (yet). */
static void publish_keep_word(struct older_home *home) {
    const struct publishing *publishing = home->publishing;
    struct directory *directory = publishing->broker->directory;
    home->ending = true;
    home->dead =
        home->incarnation ? home->incarnation : nodes_incarnation(publishing->broker, home->node);
    if (home->generation || publishing->clears)
        publish_end_there(home);
    else
        directory->ops->locate(directory, publishing->space->name, publishing->sample_id,
                               publish_on_still_named, home);
}

/* Nothing that it held can be there any more, or it finds word of the end. */
static bool publish_is_over(const struct older_home *home) {
    const struct broker *broker = home->publishing->broker;
    bool ends = home->generation || !publish_is_hint(home->publishing);
    return home->kept || !ends || !broker->directory->ops->end;
}

static void publish_pursue_dead(struct older_home *home) {
    if (!publish_is_over(home)) {
        publish_keep_word(home);
        return;
    }
    home->confirmed = true;
    if (!home->publishing->clears)
        publish_add_everyone(home->publishing);
}

static void publish_pursue(struct publishing *publishing, uint64_t now_ns) {
    struct directory *directory = publishing->broker->directory;
    struct older_home *home;
    if (publishing->broker->exchange->closing) {
        deadlines_clear(&publishing->broker->deadlines, &publishing->due);
        return;
    }
    TAILQ_FOREACH (home, &publishing->older, link) {
        if (home->confirmed || home->asked || home->ending)
            continue;
        if (nodes_is_dead(publishing->broker, home->node, home->incarnation) ||
            nodes_is_absent(publishing->broker, home->node))
            publish_pursue_dead(home);
        else if (home->retry_ns <= now_ns)
            publish_ask(home);
    }
    if (publishing->everyone == EVERYONE_DUE && publishing->everyone_retry_ns <= now_ns) {
        publishing->everyone = EVERYONE_ASKED;
        if (BROKER_PLANTED(PLANTED_MEMBERS_HEARD_OF))
            publish_on_members(publishing, DIRECTORY_OK);
        else
            directory->ops->members(directory, publish_on_members, publishing);
    }
    publish_finish_if_confirmed(publishing);
}

static void publish_on_due(struct deadline *due, uint64_t now_ns) {
    publish_pursue(container_of(due, struct publishing, due), now_ns);
}

/* ---- the directory's answer ---- */

static void publish_take_back(struct publishing *publishing) {
    struct store *store = publishing->space->store;
    uint64_t superseded;
    if (BROKER_PLANTED(PLANTED_REFUSED_PUBLISHED))
        store_publish(store, publishing->generation, publishing->broker->now_ns, &superseded);
    else
        store_unseal(store, publishing->generation, publishing->broker->now_ns);
}

/* Aborted, or superseded by a later put elsewhere. The index has had it, all the same: what is
 * resident here of this sample is older, and its record goes. */
static void publish_was_retired_on_the_way(struct publishing *publishing) {
    bool retired;
    publishing->record_due = true;
    store_retire(publishing->space->store, publishing->sample_id,
                 (uint32_t)strlen(publishing->sample_id), 0, STORE_SUPERSEDED,
                 publishing->broker->now_ns, &retired);
}

/* The store counts from here, not from the commit: where that is long ago it is written down. */
static void publish_note_late(struct broker *broker, const struct publishing *publishing) {
    uint64_t late_ns = broker->now_ns - publishing->begun_ns;
    if (late_ns >= LATE_NS)
        broker->exchange->late[broker->exchange->late_count++ % LATE_KEPT] =
            (struct late){publishing->generation, late_ns};
}

/* False: the older put, here, was not done: what it replaced may live on. */
static bool publish_make_resident(struct publishing *publishing,
                                  const struct directory_record *older) {
    struct broker *broker = publishing->broker;
    uint64_t superseded;
    bool ours = older && !strcmp(older->home, broker->config->node);
    bool chain_ends = !ours || publish_was_done(broker, publishing->space, older->generation);
    if (store_publish(publishing->space->store, publishing->generation, broker->now_ns,
                      &superseded) != STORE_OK)
        publish_was_retired_on_the_way(publishing);
    else
        publish_note_late(broker, publishing);
    return chain_ends;
}

static void publish_note_older(struct publishing *publishing, const struct directory_record *older,
                               bool ask_peers) {
    if (BROKER_PLANTED(PLANTED_NOT_SUPERSEDED))
        return;
    bool elsewhere = older && strcmp(older->home, publishing->broker->config->node) != 0;
    if (ask_peers || (elsewhere && !publish_add_older(publishing, older->home, older->incarnation,
                                                      older->generation)))
        publish_add_everyone(publishing);
}

/* What is held and has been replaced meanwhile could not be told from what this put would replace:
 * that is made up for when it is refused. Refused after its answer was lost, the put may have
 * replaced something for a moment: then everyone checks as well. */
static void publish_on_published(void *context, enum directory_result result,
                                 const struct directory_record *older, bool ask_peers) {
    struct publishing *publishing = context;
    publishing->result = result;
    publishing->published = true;
    publishing->clears = result != DIRECTORY_OK;
    if (result == DIRECTORY_OK)
        ask_peers |= !publish_make_resident(publishing, older);
    else
        publish_take_back(publishing);
    if (result != DIRECTORY_OK && publishing->broker->directory->ops->index)
        held_check_own(publishing->broker, publishing->space, publishing->sample_id);
    if (result != DIRECTORY_OK && ask_peers) /* the index may have it all the same */
        publish_retire_record(publishing, publish_on_retired, NULL);
    publish_note_older(publishing, older, ask_peers);
    publish_pursue(publishing, publishing->broker->now_ns);
}

void publish(struct item *item, uint64_t generation) {
    struct broker *broker = item->call->broker;
    struct space *space = item->call->space;
    struct store_info info;
    store_stat(space->store, NULL, 0, generation, &info);
    memcpy(item->ref.sample_id, info.sample_id, sizeof item->ref.sample_id);
    struct publishing *publishing = calloc(1, sizeof *publishing);
    if (!publishing) {
        store_unseal(space->store, generation, broker->now_ns);
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s: the broker is out of memory",
                  item->ref.sample_id);
        return;
    }
    publishing->broker = broker;
    publishing->space = space;
    publishing->generation = generation;
    publishing->begun_ns = broker->now_ns;
    publishing->op = item->op;
    publishing->reason = STORE_SUPERSEDED;
    TAILQ_INIT(&publishing->older);
    memcpy(publishing->sample_id, info.sample_id, sizeof publishing->sample_id);
    publish_attach(publishing, item);
    publish_charge(publishing, item->call->session->account->parent);
    space->uses++;
    deadline_init(&publishing->due, publish_on_due);
    publish_set_add(broker->exchange->publishings, publishing);
    struct directory_record record = {.store = space->name,
                                      .sample_id = item->ref.sample_id,
                                      .home = broker->config->node,
                                      .generation = generation,
                                      .incarnation = broker->options.incarnation,
                                      .bytes = info.extent_bytes};
    broker->directory->ops->publish(broker->directory, &record, publish_on_published, publishing);
}

/* No put, but the same pursuit. NULL: out of memory. */
static struct publishing *publish_begin_clearing(struct broker *broker, struct space *space,
                                                 const char *sample_id, uint64_t generation) {
    struct publishing *publishing = calloc(1, sizeof *publishing);
    if (!publishing) {
        log_error("store %s: out of memory: the record of %s stays", space->name, sample_id);
        return NULL;
    }
    publishing->broker = broker;
    publishing->space = space;
    publishing->generation = generation;
    publishing->published = publishing->clears = true;
    publishing->reason = STORE_SUPERSEDED;
    TAILQ_INIT(&publishing->older);
    strncpy(publishing->sample_id, sample_id, sizeof publishing->sample_id - 1);
    space->uses++;
    deadline_init(&publishing->due, publish_on_due);
    publish_set_add(broker->exchange->publishings, publishing);
    deadlines_set(&broker->deadlines, &publishing->due, broker->now_ns);
    return publishing; /* its deadline goes on: the caller may be inside a walk over records */
}

static void publish_on_cleared(void *context, enum directory_result result) {
    struct publishing *publishing = context;
    (void)result;
    publishing->everyone = EVERYONE_DUE;
    publish_schedule(publishing);
}

static bool publish_was_cancelled(const struct space *space, uint64_t generation) {
    struct store_info info;
    return store_stat(space->store, NULL, 0, generation, &info) && info.reason == STORE_CANCELLED;
}

void publish_clear(struct broker *broker, struct space *space, const char *sample_id,
                   uint64_t generation) {
    if (!broker->directory->ops->index || publish_is_of(broker, space, generation))
        return;
    struct publishing *publishing = publish_begin_clearing(broker, space, sample_id, generation);
    if (!publishing)
        return;
    bool failed = publish_was_cancelled(space, generation);
    publishing->everyone = failed ? EVERYONE_ASKED : EVERYONE_NOT_NEEDED; /* when it is gone */
    publish_retire_record(publishing, failed ? publish_on_cleared : publish_on_retired,
                          failed ? publishing : NULL);
}

void publish_end_lost(struct broker *broker, struct space *space,
                      const struct directory_record *lost, enum store_reason reason, bool by_id,
                      struct account *charged, struct item *waits) {
    bool pointless = !broker->directory->ops->index || !lost->generation;
    struct publishing *publishing =
        pointless ? NULL : publish_begin_clearing(broker, space, lost->sample_id, lost->generation);
    if (!publishing) {
        if (waits)
            item_done(waits, pointless ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE,
                      "the broker is out of memory");
        return;
    }
    publishing->reason = reason;
    publishing->by_id = by_id;
    publishing->record_due = true;
    publishing->everyone = by_id ? EVERYONE_DUE : EVERYONE_NOT_NEEDED;
    if (waits)
        publish_attach(publishing, waits);
    if (waits || charged)
        publish_charge(publishing, waits ? waits->call->session->account->parent : charged);
    if (lost->incarnation && strcmp(lost->home, broker->config->node) != 0 &&
        !publish_add_older(publishing, lost->home, lost->incarnation, lost->generation))
        publish_add_everyone(publishing);
    deadlines_set(&broker->deadlines, &publishing->due, broker->now_ns);
    bool retired;
    if (by_id)
        store_retire(space->store, lost->sample_id, (uint32_t)strlen(lost->sample_id), 0, reason,
                     broker->now_ns, &retired);
}

void publish_has_ended(struct broker *broker, const struct directory_record *ended) {
    struct space *space = space_find(broker, ended->store);
    struct publishing *publishing = NULL;
    bool retired;
    while (space && (publishing = publish_set_by_sample(broker->exchange->publishings, space,
                                                        ended->sample_id, publishing)))
        if (!publishing->clears && publishing->generation <= ended->generation)
            store_retire(space->store, ended->sample_id, (uint32_t)strlen(ended->sample_id),
                         publishing->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
}

void publishings_free(struct broker *broker) {
    struct publishing *publishing;
    while ((publishing = publish_set_first(broker->exchange->publishings)))
        publish_end(publishing);
    publish_set_free(broker->exchange->publishings);
}
