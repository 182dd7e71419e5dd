/* SPDX-License-Identifier: Apache-2.0
 *
 * Puts and ends on their way to the index: the shell around the state machine of
 * cluster/supersede.c, which says what happens and why. This file turns answers of the directory,
 * of peers and of the store into its events, and carries out its actions:
 *
 *   an answer of the directory or of a peer
 *     --> an event: supersede_published(), supersede_replied(), ...
 *     --> actions: supersede_next_action(), one after the other
 *     --> a question to the directory or to a peer, or the answer to who waits
 *
 * A struct publishing lives until the machine says that it is over, whether somebody waits for it
 * or not. While it lives, its store is not freed (space->uses), and the user or node who caused it
 * is charged one of its waits.
 *
 * A put has a record in the node's memory (struct kept_put) from before its sample is SEALED until
 * it is over, for a broker that is killed meanwhile and started again. Its word says whether the
 * index has taken the put, and then what it has replaced. publish_recall.c goes on from there: a
 * put whose record in the index is in doubt is settled by the directory (publish_again()).
 *
 * When the broker closes, the directory answers all that is open with "unavailable". Then nothing
 * new is begun, and publishings_free() frees what is left.
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/nodes.h"
#include "exchange/publish.h"
#include "exchange/publishing.h"

/* A put that became resident so long after its commit is written down (publish_age_us()). */
#define LATE_NS (10 * NS_PER_MS)

static struct publishing *publish_of(struct supersede *supersede) {
    return container_of(supersede, struct publishing, supersede);
}

static struct publishing *publish_of_home(const struct older_home *home) {
    return publish_of(home->supersede);
}

/* ---- who waits ---- */

void publish_leave(struct publish_waiter *waiter) {
    if (waiter->publishing)
        waiter->publishing->waiter = NULL;
    waiter->publishing = NULL;
}

static void publish_attach(struct publishing *publishing, struct publish_waiter *waiter) {
    publishing->waiter = waiter;
    waiter->publishing = publishing;
}

/* Whoever waits is told once, and waits no more: it may be freed by what it does then. */
static void publish_tell(struct publishing *publishing, Fb__Status status, const char *sentence) {
    struct publish_waiter *waiter = publishing->waiter;
    if (!waiter)
        return;
    publish_leave(waiter);
    waiter->ended(waiter, status, publishing->supersede.generation, sentence);
}

bool publish_adopt(struct broker *broker, const struct space *space, struct store_op op,
                   struct publish_waiter *waiter) {
    char sentence[SENTENCE_BYTES];
    /* The client has lost its connection and says the same commit again. Two waiters for one put
     * cannot be: the earlier one's connection is gone, or its client does not read that answer. */
    struct supersede *found =
        supersede_of_op(broker->exchange->publishings, space->index, op.client_id, op.op_id);
    if (!found)
        return false;
    struct publishing *publishing = publish_of(found);
    snprintf(sentence, sizeof sentence,
             "sample %s: asked again by a later request of the same client", publishing->sample_id);
    publish_tell(publishing, FB__STATUS__UNAVAILABLE, sentence);
    publish_attach(publishing, waiter);
    return true;
}

/* ---- actions ---- */

static void publish_on_retired(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

/* Our record in the index: what stands there when the put has been done. */
static struct directory_record publish_record(const struct publishing *publishing) {
    const struct broker *broker = publishing->broker;
    return (struct directory_record){.store = publishing->space->name,
                                     .sample_id = publishing->sample_id,
                                     .home = broker->config->node,
                                     .generation = publishing->supersede.generation,
                                     .incarnation = broker->options.incarnation,
                                     .bytes = publishing->bytes};
}

/* Frees it. The store may have been waiting for that to be dropped (space->uses). */
static void publish_end(struct publishing *publishing) {
    struct broker *broker = publishing->broker;
    deadlines_clear(&broker->deadlines, &publishing->due);
    supersede_end(&publishing->supersede);
    publishing->space->uses--;
    if (publishing->charged)
        accounts_release(broker, publishing->charged, CHARGE_WAITS, 1);
    if (publishing->kept && !broker->exchange->closing)
        kept_free(kept_table(broker->kept, KEPT_PUTS), publishing->kept - 1);
    free(publishing);
}

/* Tells who waits how it has ended. A put that was refused says why, as far as the directory has
 * told: this node is fenced, there is trouble with etcd, or the record of another node is newer. */
static void publish_answer(struct publishing *publishing) {
    const struct broker *broker = publishing->broker;
    const struct supersede *supersede = &publishing->supersede;
    char trouble[TROUBLE_BYTES], sentence[SENTENCE_BYTES + TROUBLE_BYTES];
    const struct store_answer remembered = {FB__STATUS__OK, supersede->generation};
    /* Before the client hears of it: it may lose this answer, and ask again. */
    if (supersede->purpose == SUPERSEDE_PUT)
        store_replay_record(publishing->space->store,
                            (struct store_op){supersede->client_id, supersede->op_id}, &remembered);
    if (!supersede->refused) {
        publish_tell(publishing, FB__STATUS__OK, NULL);
        return;
    }
    snprintf(sentence, sizeof sentence, "sample %s of store %s was not put: %s",
             publishing->sample_id, publishing->space->name,
             publishing->result == DIRECTORY_E_FENCED
                 ? broker_fenced_why(broker)
                 : broker_trouble(broker,
                                  "the directory did not take its record in time, or has "
                                  "another node's that is newer",
                                  trouble));
    publish_tell(publishing, FB__STATUS__UNAVAILABLE, sentence);
}

/* Wakes the machine when it has said. When the broker closes it is not woken any more. */
static void publish_schedule(struct publishing *publishing) {
    const bool closing = publishing->broker->exchange->closing;
    deadlines_set_or_clear(&publishing->broker->deadlines, &publishing->due,
                           closing ? UINT64_MAX : publishing->supersede.next_ns);
}

/* A home has answered, or will not (reply NULL). The count of items in its answer is 1 when the put
 * that it has retired had been answered before (serve_retire.c): then nothing older can live. */
static void publish_on_replied(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                               size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct older_home *home = context;
    struct publishing *publishing = publish_of_home(home);
    const bool was_over =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_ITEMS && reply->items->count;
    supersede_replied(home, reply && reply->status == FB__STATUS__OK, was_over,
                      publishing->broker->now_ns);
    publish_carry_out(publishing);
}

/* Asks one older home to retire what it holds of the sample. */
static void publish_ask(struct publishing *publishing, struct older_home *home) {
    const struct supersede *supersede = &publishing->supersede;
    const struct broker *broker = publishing->broker;
    struct peer *peer = peers_find(broker->peers, home->node);
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = publishing->sample_id;
    item.generation = home->generation;
    item.incarnation = home->incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = publishing->space->name;
    /* Of a home that the record names, one generation is to be retired, for our reason. Of any
     * other nothing is known: it compares what it holds with the index (held_check_serve()), and
     * needs to know which generation and of what age is newer, unless we only want its records put
     * right. */
    retire.reason = home->generation ? (Fb__Reason)publishing->reason : FB__REASON__SUPERSEDED;
    retire.n_items = 1;
    retire.items = items;
    if (!home->generation && !supersede_is_hint(supersede)) {
        retire.newer = supersede->generation;
        if (supersede->purpose == SUPERSEDE_PUT)
            retire.newer_age_us = (broker->now_ns - supersede->begun_ns) / 1000;
    }
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    if (!peer || peer_call(peer, &request, publish_on_replied, home, broker->now_ns) != 0)
        supersede_not_asked(home, broker->now_ns);
}

/* The members are known: each of them is asked as an older home. */
static void publish_on_listed(void *context, enum directory_result result) {
    struct publishing *publishing = context;
    const struct broker *broker = publishing->broker;
    bool listed = result == DIRECTORY_OK; /* when all is taken down it is not, and no peers are */
    struct peer *peer = listed ? peers_next(broker->peers, NULL) : NULL;
    for (; listed && peer; peer = peers_next(broker->peers, peer))
        listed = supersede_add_member(&publishing->supersede, peer_node(peer));
    supersede_listed(&publishing->supersede, listed, broker->now_ns);
    publish_schedule(publishing);
}

/* The directory must be asked: a node that has just joined, of which we have not heard, may hold
 * the sample. When it answers, every member has been announced, and is a peer. */
static void publish_list(struct publishing *publishing) {
    struct directory *directory = publishing->broker->directory;
    directory->ops->members(directory, publish_on_listed, publishing);
}

/* The three answers about a home that is dead. */

static void publish_on_looked(void *context, enum directory_result result,
                              const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct older_home *home = context;
    supersede_looked(home, nodes_answer(result),
                     record && record->generation == home->supersede->generation);
    publish_go_on(publish_of_home(home));
}

static void publish_on_kept(void *context, enum directory_result result) {
    struct older_home *home = context;
    supersede_kept(home, nodes_answer(result));
    publish_go_on(publish_of_home(home));
}

/* Word of the end is kept in the index for a home that is dead or cut off: it hears of it by
 * reconcile() when it comes back, before it serves again. */
static void publish_keep(struct publishing *publishing, struct older_home *home) {
    struct directory *directory = publishing->broker->directory;
    const struct directory_record record = {.store = publishing->space->name,
                                            .sample_id = publishing->sample_id,
                                            .home = home->node,
                                            .generation = home->generation,
                                            .incarnation = home->dead};
    directory->ops->end(directory, &record, publish_on_kept, home);
}

static void publish_on_reread(void *context, enum directory_result result) {
    struct older_home *home = context;
    supersede_reread(home, nodes_answer(result));
    publish_go_on(publish_of_home(home));
}

static void publish_on_cleared(void *context, enum directory_result result) {
    struct publishing *publishing = context;
    (void)result; /* whatever it was: the record is gone, or the directory goes on trying */
    supersede_cleared(&publishing->supersede);
    publish_schedule(publishing);
}

static void publish_on_published(void *context, enum directory_result result,
                                 const struct directory_record *older, bool ask_peers);

/* Frees it when it is over. Each action asks one question, whose answer comes later and never from
 * inside the call that asks; so the machine does not change while its actions are carried out,
 * apart from supersede_not_asked(), which asks for nothing. */
void publish_carry_out(struct publishing *publishing) {
    struct broker *broker = publishing->broker;
    struct directory *directory = broker->directory;
    const struct directory_record record = publish_record(publishing);
    struct supersede_action action;
    while (supersede_next_action(&publishing->supersede, &action)) {
        switch (action.what) {
        case SUPERSEDE_DO_NOTHING:
            break;
        case SUPERSEDE_DO_PUBLISH:
            if (publishing->again)
                directory->ops->publish_again(directory, &record, publishing->moment,
                                              publish_on_published, publishing);
            else
                directory->ops->publish(directory, &record, publish_on_published, publishing);
            break;
        case SUPERSEDE_DO_CHECK_OWN:
            held_check_own(broker, publishing->space, publishing->sample_id);
            break;
        case SUPERSEDE_DO_FREE_RECORD:
            directory->ops->retire(directory, &record, publish_on_retired, NULL);
            break;
        case SUPERSEDE_DO_CLEAR_RECORD:
            directory->ops->retire(directory, &record, publish_on_cleared, publishing);
            break;
        case SUPERSEDE_DO_LIST:
            publish_list(publishing);
            break;
        case SUPERSEDE_DO_ASK:
            publish_ask(publishing, action.home);
            break;
        case SUPERSEDE_DO_LOOK:
            directory->ops->locate(directory, publishing->space->name, publishing->sample_id,
                                   publish_on_looked, action.home);
            break;
        case SUPERSEDE_DO_KEEP:
            publish_keep(publishing, action.home);
            break;
        case SUPERSEDE_DO_REREAD:
            directory->ops->members(directory, publish_on_reread, action.home);
            break;
        case SUPERSEDE_DO_END:
            publish_answer(publishing);
            publish_end(publishing);
            return;
        }
    }
    publish_schedule(publishing);
}

/* Lets the machine go on with what is due, and carries out what follows. Nothing is begun any more
 * once the peers are gone. */
void publish_go_on(struct publishing *publishing) {
    const struct broker *broker = publishing->broker;
    const struct supersede_rules rules = {.roster = broker->exchange->roster,
                                          .keeps_words = broker->directory->ops->end};
    if (!broker->exchange->closing)
        supersede_go_on(&publishing->supersede, &rules, broker->now_ns);
    publish_carry_out(publishing);
}

static void publish_on_due(struct deadline *due, uint64_t now_ns) {
    (void)now_ns; /* broker->now_ns */
    publish_go_on(container_of(due, struct publishing, due));
}

/* ---- the directory's answer to a put ---- */

/* The directory has not taken it: readers must never see it, and its room is free again. */
static void publish_take_back(struct publishing *publishing) {
    struct store *store = publishing->space->store;
    const uint64_t generation = publishing->supersede.generation;
    store_unseal(store, generation, publishing->broker->now_ns);
}

/* It was aborted while the directory wrote its record, or another node put the sample later still.
 * The index has had it all the same, so what is resident here of this sample is older. */
static void publish_was_retired_on_the_way(struct publishing *publishing) {
    bool retired;
    store_retire(publishing->space->store, publishing->sample_id,
                 (uint32_t)strlen(publishing->sample_id), 0, STORE_SUPERSEDED,
                 publishing->broker->now_ns, &retired);
}

/* The store counts a sample's age from here, not from its commit: where that was long ago it is
 * written down, for ages decide between two puts when the index has lost its records. */
static void publish_note_late(struct broker *broker, const struct publishing *publishing) {
    const uint64_t late_ns = broker->now_ns - publishing->supersede.begun_ns;
    if (late_ns >= LATE_NS)
        broker->exchange->late[broker->exchange->late_count++ % LATE_KEPT] =
            (struct late){publishing->supersede.generation, late_ns};
}

/* The index has it: readers may see it now, and what stood here before under this id is retired by
 * the store. */
void publish_make_resident(struct publishing *publishing, const struct directory_record *older,
                           struct supersede_published *published) {
    struct broker *broker = publishing->broker;
    uint64_t superseded;
    const bool ours = older && !strcmp(older->home, broker->config->node);
    /* To be asked before the older one is retired. If its put was not over, what that one had
     * replaced may live on elsewhere. */
    if (ours && !publish_was_done(broker, publishing->space, older->generation))
        published->ask_everyone = true;
    published->was_retired =
        store_publish(publishing->space->store, publishing->supersede.generation, broker->now_ns,
                      &superseded) != STORE_OK;
    if (published->was_retired)
        publish_was_retired_on_the_way(publishing);
    else
        publish_note_late(broker, publishing);
}

/* older: the record that ours has replaced, or NULL. ask_peers: the directory does not know what it
 * has replaced, so every member is to be asked. When the put was refused and ask_peers is true, the
 * record may have been written all the same, for the answer was lost (may_stand). */
static void publish_on_published(void *context, enum directory_result result,
                                 const struct directory_record *older, bool ask_peers) {
    struct publishing *publishing = context;
    const struct broker *broker = publishing->broker;
    struct supersede_published published = {.answer = nodes_answer(result),
                                            .ask_everyone = ask_peers,
                                            .may_stand = result != DIRECTORY_OK && ask_peers,
                                            .has_index = broker->directory->ops->index};
    publishing->result = result;
    if (older && strcmp(older->home, broker->config->node) != 0) {
        published.older_home = older->home;
        published.older_generation = older->generation;
        published.older_incarnation = older->incarnation;
    }
    if (result == DIRECTORY_OK) {
        publish_note_published(publishing, &published);
        publish_make_resident(publishing, older, &published);
    } else {
        publish_take_back(publishing);
    }
    supersede_published(&publishing->supersede, &published);
    publish_go_on(publishing);
}

/* ---- what begins ---- */

/* NULL: out of memory. */
struct publishing *publish_new(struct broker *broker, struct space *space, const char *sample_id,
                               uint64_t generation) {
    struct publishing *publishing = calloc(1, sizeof *publishing);
    if (!publishing)
        return NULL;
    publishing->broker = broker;
    publishing->space = space;
    publishing->reason = STORE_SUPERSEDED;
    strncpy(publishing->sample_id, sample_id, sizeof publishing->sample_id - 1);
    publishing->supersede.store = space->index;
    publishing->supersede.sample_id = publishing->sample_id;
    publishing->supersede.generation = generation;
    deadline_init(&publishing->due, publish_on_due);
    space->uses++;
    return publishing;
}

/* Released when the publishing ends, however many wait for it meanwhile. */
void publish_charge(struct publishing *publishing, struct account *account) {
    publishing->charged = account;
    account_add(account, CHARGE_WAITS, 1);
}

/* From here on the put goes its way, whether its client stays or not. Without memory the client is
 * told at once, and the generation is taken back. */
void publish(struct broker *broker, struct space *space, const struct publish_put *put,
             struct publish_waiter *waiter) {
    struct store_info info;
    char sentence[SENTENCE_BYTES];
    store_stat(space->store, NULL, 0, put->generation, &info);
    struct publishing *publishing = publish_new(broker, space, info.sample_id, put->generation);
    if (!publishing) {
        store_unseal(space->store, put->generation, broker->now_ns);
        publish_not(broker, put);
        snprintf(sentence, sizeof sentence, "sample %s: the broker is out of memory",
                 info.sample_id);
        waiter->ended(waiter, FB__STATUS__UNAVAILABLE, 0, sentence);
        return;
    }
    publishing->bytes = info.place.bytes;
    publishing->supersede.begun_ns = broker->now_ns;
    publishing->supersede.client_id = put->op.client_id;
    publishing->supersede.op_id = put->op.op_id;
    publishing->kept = put->kept;
    publish_attach(publishing, waiter);
    publish_charge(publishing, put->charged);
    supersede_begin_put(broker->exchange->publishings, &publishing->supersede);
    publish_carry_out(publishing);
}

/* Its put failed: it was SEALED when the directory refused it or did not answer. Other generations
 * of which a record is left were resident once, and have replaced what was to be replaced. */
static bool publish_was_cancelled(const struct space *space, uint64_t generation) {
    struct store_info info;
    return store_stat(space->store, NULL, 0, generation, &info) && info.reason == STORE_CANCELLED;
}

void publish_clear(struct broker *broker, struct space *space, const char *sample_id,
                   uint64_t generation) {
    if (!broker->directory->ops->index || publish_is_of(broker, space, generation))
        return;
    struct publishing *publishing = publish_new(broker, space, sample_id, generation);
    if (!publishing) {
        log_error("store %s: out of memory: the record of %s stays", space->name, sample_id);
        return;
    }
    supersede_begin_repair(broker->exchange->publishings, &publishing->supersede,
                           publish_was_cancelled(space, generation), broker->now_ns);
    publish_carry_out(publishing);
}

void publish_end_lost(struct broker *broker, struct space *space,
                      const struct directory_record *lost, enum store_reason reason, bool by_id,
                      struct account *charged, struct publish_waiter *waiter) {
    /* Without an index there is no record, and nobody keeps words; an end without a generation says
     * nothing that could be kept. */
    const bool pointless = !broker->directory->ops->index || !lost->generation;
    const bool elsewhere = lost->incarnation && strcmp(lost->home, broker->config->node) != 0;
    struct publishing *publishing =
        pointless ? NULL : publish_new(broker, space, lost->sample_id, lost->generation);
    if (!publishing) {
        if (!pointless)
            log_error("store %s: out of memory: the record of %s stays", space->name,
                      lost->sample_id);
        if (waiter)
            waiter->ended(waiter, pointless ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE, 0,
                          pointless ? NULL : "the broker is out of memory");
        return;
    }
    publishing->reason = reason;
    if (waiter)
        publish_attach(publishing, waiter);
    if (charged)
        publish_charge(publishing, charged);
    supersede_begin_end(broker->exchange->publishings, &publishing->supersede,
                        elsewhere ? lost->home : NULL, lost->incarnation, lost->generation, by_id,
                        broker->now_ns);
    publish_schedule(publishing); /* the caller may be inside a walk over records */
    bool retired;
    if (by_id)
        store_retire(space->store, lost->sample_id, (uint32_t)strlen(lost->sample_id), 0, reason,
                     broker->now_ns, &retired);
}

void publish_retired(struct broker *broker, struct space *space, const char *sample_id,
                     uint64_t generation, enum store_reason reason) {
    const struct directory_record record = {.store = space->name,
                                            .sample_id = sample_id,
                                            .home = broker->config->node,
                                            .generation = generation,
                                            .incarnation = broker->options.incarnation};
    /* The later put has replaced the record of one that was superseded, unless that was written
     * again after it. */
    if ((reason != STORE_SUPERSEDED || broker->exchange->has_republished) &&
        !publish_keeps_record(broker, space, generation))
        broker->directory->ops->retire(broker->directory, &record, publish_on_retired, NULL);
}

/* Of several puts of one sample that are under way, those up to the generation of the word have
 * ended; a later one has not. */
void publish_has_ended(struct broker *broker, const struct directory_record *ended) {
    struct space *space = space_find(broker, ended->store);
    const struct supersede_set *set = broker->exchange->publishings;
    struct supersede *at = NULL;
    bool retired;
    while (space && (at = supersede_next_of_sample(set, space->index, ended->sample_id, at)))
        if (at->purpose == SUPERSEDE_PUT && at->generation <= ended->generation)
            store_retire(space->store, ended->sample_id, (uint32_t)strlen(ended->sample_id),
                         at->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
}

struct supersede_set *publishings_new(void) {
    uint8_t key[CLUSTER_HASH_KEYBYTES];
    randombytes_buf(key, sizeof key);
    return supersede_set_new(key);
}

void publishings_free(struct broker *broker) {
    struct supersede *supersede;
    while ((supersede = supersede_set_first(broker->exchange->publishings)))
        publish_end(publish_of(supersede));
    supersede_set_free(broker->exchange->publishings);
}
