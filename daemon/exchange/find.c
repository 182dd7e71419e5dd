/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds what one item of a get asks for, here or on another node, and gets it a lease that the
 * client can use: the shell of cluster/search.c, where the states are drawn. This file tells that
 * machine what has happened, and does what it says: it asks this node's store, the directory and
 * other brokers, and has the bytes brought here (fetch.c).
 *
 * Who owns what. A lease that a home grants is recorded in remote_lease.c from before the home is
 * asked. While the search goes on, `remote` names the lease that this item holds; the local lease
 * that ends the search carries it on as its cookie, so that the end of the local one is told to the
 * home. A lease that comes when the item has ended is given back at once.
 *
 * An item that ends may free its call, and itself with it. So find_on() is the last thing that a
 * function does with an item.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/believe.h"
#include "exchange/fetch.h"
#include "exchange/find.h"
#include "exchange/remote_lease.h"
#include "node/knowledge.h"

/* With a million samples a broker serves 5 s after its start; who is silent longer is not waited
 * for. */
#define RETURNS_NS (5000 * NS_PER_MS)
#define AGAIN_NS   (50 * NS_PER_MS)
#define AGAIN_MAX  100u /* for one get: what moves bytes gives it its time anew */

/* Tells the machine of an event, and does what it says, which may bring about the next event from
 * inside: the store, for example, is asked and answers at once. It never goes deep, for each such
 * event leads to a state that waits, or to the end. */
static void find_on(struct find *find, enum search_event event, const struct find_told *told);

/* ---- this node's own store ---- */

/* What the item stood in the store's queue for has come, or will not come in time. The node may
 * have been fenced while it waited: then what it holds may have been superseded on another node,
 * and the lease is given back. A landing copy may be read nevertheless, because its home, which is
 * not fenced, has granted it. */
static void find_on_resident(struct waiter *waiter, const struct store_effect *effect) {
    struct find *find = container_of(waiter, struct find, item.waiter);
    const struct call *call = find->item.call;
    struct find_told told = {
        .result = effect->result, .lease = effect->lease, .refusal = effect->refusal};
    find->item.in_store = false;
    if (effect->result != STORE_OK) {
        find_on(find, SEARCH_ON_WAIT_OVER, &told);
    } else if (find->state != SEARCH_COPY && !broker_serves(call->broker)) {
        store_release(call->space->store, call->holder, effect->lease.hi, effect->lease.lo,
                      STORE_RETURNED, call->broker->now_ns);
        find_on(find, SEARCH_ON_FENCED, &told);
    } else {
        find_on(find, SEARCH_ON_RESIDENT, &told);
    }
}

/* Asks the store for a lease. Returns what it says as an event, and fills in what goes with it. */
static enum search_event find_ask_store(struct find *find, struct store_get get,
                                        struct find_told *told) {
    struct item *item = &find->item;
    const struct call *call = item->call;
    get.tag = (uint64_t)(uintptr_t)&item->waiter;
    *told = (struct find_told){0};
    told->result = store_get(call->space->store, call->holder, &get, call->broker->now_ns,
                             &told->lease, &told->refusal);
    switch (told->result) {
    case STORE_OK:
        return SEARCH_ON_GRANTED;
    case STORE_WAIT:
        item->waiter.granted = find_on_resident;
        item->in_store = true;
        return SEARCH_ON_QUEUED;
    case STORE_E_NOT_FOUND:
        return SEARCH_ON_MISSING;
    default:
        return SEARCH_ON_REFUSED;
    }
}

/* A generation that is on its way to the index is waited for although nobody said so: whoever asks
 * may have read of it there. */
static void find_try_here(struct find *find) {
    const struct item *item = &find->item;
    const struct call *call = item->call;
    if (!broker_serves(call->broker)) {
        find_on(find, SEARCH_ON_FENCED, &(struct find_told){0});
        return;
    }
    uint64_t wait_ns = call->wait_ns;
    if (find->state == SEARCH_TRY_OURS)
        wait_ns = sample_wait_ns(call->space, item->ref.generation, wait_ns);
    struct find_told told;
    enum search_event event =
        find_ask_store(find,
                       (struct store_get){
                           .sample_id = item->ref.sample_id,
                           .sample_id_bytes = (uint32_t)strlen(item->ref.sample_id),
                           .generation = item->ref.generation,
                           .deadline_ns = call->broker->now_ns + wait_ns,
                       },
                       &told);
    find_on(find, event, &told);
}

/* ---- the directory ---- */

/* What the directory's answer means to this search. Three cases need care:
 *
 * - ask_peers: there is no index (`directory = static`), so only the peers can know.
 * - There is no record, and the client is willing to wait: the sample may be put on any node, and
 *   its record is written only at the end of that put. So each peer is asked, and waits for it.
 * - The record is the one that was found out of date a moment ago: the index has not heard yet.
 *   Looking again and again until it has would be a loop without an end, so it counts as none. */
static enum search_event find_event_located(const struct find *find, enum directory_result result,
                                            const struct directory_record *record, bool ask_peers) {
    const struct broker *broker = find->item.call->broker;
    if (ask_peers || (result == DIRECTORY_E_NOT_FOUND && find->item.call->wait_ns))
        return SEARCH_ON_CANNOT_NAME; /* each peer waits for it, if it is to be waited for */
    if (nodes_have_lost(broker, result, record))
        return SEARCH_ON_NAMES_DEAD;
    if (result == DIRECTORY_E_UNAVAILABLE)
        return SEARCH_ON_INDEX_DOWN;
    if (result != DIRECTORY_OK || record->generation == find->missed)
        return SEARCH_ON_NAMES_NOBODY;
    return strcmp(record->home, broker->config->node) ? SEARCH_ON_NAMES_OTHER : SEARCH_ON_NAMES_US;
}

static void find_on_located(void *context, enum directory_result result,
                            const struct directory_record *record, bool ask_peers) {
    struct item *item = ask_take(context);
    if (!item)
        return;
    struct find *find = find_of(item);
    enum search_event event = find_event_located(find, result, record, ask_peers);
    if (event == SEARCH_ON_NAMES_OTHER)
        ref_locate(&item->ref, record);
    else if (event == SEARCH_ON_NAMES_US && !item->in_store)
        item->ref.generation = record->generation;
    find_on(find, event, &(struct find_told){.record = record});
}

/* The deadline of an item whose time no store keeps: as long as the client waits for the sample,
 * and its patience with whoever is asked on top of that. */
static void find_watch(struct item *item) {
    const struct call *call = item->call;
    if (!item->timed.queued)
        item_set_deadline(item, call->broker->now_ns + call->wait_ns + call->patience_ns);
}

static void find_ask_index(struct find *find) {
    struct item *item = &find->item;
    struct directory *directory = item->call->broker->directory;
    struct ask *ask = ask_new(item, NULL);
    if (!ask) { /* the item's refusal will say that there was no memory */
        find_on(find, SEARCH_ON_NAMES_NOBODY, &(struct find_told){0});
        return;
    }
    find_watch(item);
    directory->ops->locate(directory, item->call->space->name, item->ref.sample_id, find_on_located,
                           ask);
}

/* Between the look into the index and the question to the home the sample may have been put anew
 * elsewhere, so the index is asked once more. `why` is told should it name nothing newer. */
static void find_ask_index_again(struct find *find, const char *why) {
    struct item *item = &find->item;
    free(item->error);
    item->error = strdup(why);
    find->missed = item->ref.generation;
    item->ref.generation = item->ref.incarnation = 0;
    *item->ref.home = '\0';
    find_ask_index(find);
}

/* ---- other brokers ---- */

/* The answer of a peer that was asked for a lease, or the loss of the link to it. First the remote
 * lease is settled, whatever became of the item: a lease that was granted must be recorded, or
 * given back, in any case, or the home would keep the generation for us for ever. */
static void find_on_answer(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                           size_t payload_bytes, const char *why) {
    struct ask *ask = context;
    struct broker *broker = ask->broker;
    struct peer *peer = ask->peer;
    uint64_t asked = ask->generation, remote = ask->remote, asked_ns = ask->asked_ns;
    struct item *item = ask_take(ask);
    bool granted = reply && reply->status == FB__STATUS__OK &&
                   reply->result_case == FB__PEER_REPLY__RESULT_LEASE;
    if (granted)
        remote_lease_granted(broker, remote, reply->lease->lease_hi, reply->lease->lease_lo,
                             reply->lease->generation);
    else
        remote_lease_cancel(broker, remote);
    if (granted && !item) /* it has its sample from elsewhere, or its client is gone */
        outbox_release(broker, remote, false);
    if (!item)
        return;
    struct find *find = find_of(item);
    struct find_told told = {.peer = peer,
                             .reply = reply,
                             .payload = payload,
                             .payload_bytes = payload_bytes,
                             .why = why};
    char wrong[SENTENCE_BYTES];
    if (!reply) {
        find->unheard = peer;
        find_on(find, SEARCH_ON_UNHEARD, &told);
    } else if (!granted) {
        find_on(find,
                reply->status == FB__STATUS__NOT_FOUND ? SEARCH_ON_NOT_FOUND : SEARCH_ON_SAID_NO,
                &told);
    } else if (find->remote = remote, !believe_lease(item, peer, asked, reply->lease, wrong)) {
        told.why = wrong;
        find_on(find, SEARCH_ON_ODD, &told);
    } else {
        item_found(item);
        strcpy(item->ref.home, peer_node(peer));
        item->ref.incarnation = peer_incarnation(peer);
        item->ref.generation = reply->lease->generation;
        find->over_network = true;
        find->home_ns = broker_moment_ns(broker) - asked_ns;
        histogram_add(&broker->counts.ask_home, find->home_ns);
        find_on(find, SEARCH_ON_LEASED, &told);
    }
}

/* 0 or -errno. The room that the lease and its release take is taken before the home is asked.
 * have_copy tells the home that the bytes are here already, so that a small sample is not sent
 * again. */
static int find_ask_for_lease(struct find *find, struct peer *peer, bool by_id) {
    struct item *item = &find->item;
    const struct call *call = item->call;
    uint64_t remote = remote_lease_new(call->broker, peer, call->space->name,
                                       (uid_t)call->session->account->parent->number);
    struct ask *ask = remote ? ask_new(item, peer) : NULL;
    if (remote && !ask)
        remote_lease_cancel(call->broker, remote);
    if (!ask)
        return -ENOMEM;
    ask->remote = remote;
    Fb__GetItem get = FB__GET_ITEM__INIT;
    get.sample_id = item->ref.sample_id;
    get.generation = by_id ? 0 : item->ref.generation;
    get.home = item->ref.home;
    get.incarnation = by_id ? 0 : item->ref.incarnation;
    Fb__PeerLease lease = FB__PEER_LEASE__INIT;
    lease.store = call->space->name;
    lease.item = &get;
    lease.wait_ms = (uint32_t)(call->wait_ns / NS_PER_MS);
    lease.have_copy =
        item->ref.generation && fetch_has_copy(call->broker, call->space, item->ref.generation);
    lease.holder = (char *)broker_session_name(call->session);
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_LEASE;
    request.lease = &lease;
    int result = peer_call(peer, &request, find_on_answer, ask, call->broker->now_ns);
    if (result < 0) {
        remote_lease_cancel(call->broker, remote);
        ask_take(ask);
    }
    return result;
}

/* The end of a sentence about a node that was not asked. result: -errno. */
static const char *find_why_not_asked(int result) {
    return result == -ENOMEM ? "the broker is out of memory" : "it cannot be asked now";
}

/* Asks the node that the ref names. Each thing that stands in the way has a sentence that says what
 * to do: a peer that the configuration does not name, a store without room to land. False: it was
 * not asked; told says why. */
static bool find_ask_home(struct find *find, struct find_told *told,
                          char sentence[SENTENCE_BYTES]) {
    struct item *item = &find->item;
    const struct broker *broker = item->call->broker;
    const struct space *space = item->call->space;
    const char *id = item->ref.sample_id, *home = item->ref.home, *node = broker->config->node;
    struct peer *peer = peers_find(broker->peers, home);
    char trouble[TROUBLE_BYTES];
    told->status = FB__STATUS__UNAVAILABLE;
    told->why = sentence;
    if (find_home_is_dead(item)) {
        told->status = FB__STATUS__LOST;
        snprintf(sentence, SENTENCE_BYTES,
                 "sample %s of store %s: its home, node %s, is gone and its memory with it", id,
                 space->name, home);
    } else if (!peer && broker->directory->ops->index) {
        snprintf(sentence, SENTENCE_BYTES,
                 "sample %s of store %s is at node %s, of which node %s knows nothing: %s", id,
                 space->name, home, node,
                 broker_trouble(broker, "it is no member of the cluster", trouble));
    } else if (!peer) {
        snprintf(sentence, SENTENCE_BYTES,
                 "sample %s of store %s is at node %s, which is no peer of node %s: add [peer %s] "
                 "to its configuration",
                 id, space->name, home, node, home);
    } else if (space->settings.landing_bytes == 0) {
        told->status = FB__STATUS__FULL;
        snprintf(sentence, SENTENCE_BYTES,
                 "store %s has no landing_bytes on node %s: it cannot read other nodes' samples",
                 space->name, node);
    } else {
        int result = find_ask_for_lease(find, peer, false);
        if (result == 0)
            return true;
        snprintf(sentence, SENTENCE_BYTES,
                 "sample %s of store %s is at node %s, which was not asked: %s", id, space->name,
                 home, find_why_not_asked(result));
    }
    return false;
}

/* False: no peer was asked; told says of one of them why. */
static bool find_ask_all(struct find *find, struct find_told *told, char sentence[SENTENCE_BYTES]) {
    struct item *item = &find->item;
    struct peers *peers = item->call->broker->peers;
    for (struct peer *peer = peers_next(peers, NULL); peer; peer = peers_next(peers, peer)) {
        int result = find_ask_for_lease(find, peer, true);
        if (result == 0)
            continue;
        find->unheard = peer;
        told->status = FB__STATUS__UNAVAILABLE;
        told->why = sentence;
        snprintf(sentence, SENTENCE_BYTES,
                 "sample %s of store %s is not on this node, and node %s was not asked: %s",
                 item->ref.sample_id, item->call->space->name, peer_node(peer),
                 find_why_not_asked(result));
    }
    return item->ask_count;
}

/* ---- the bytes ---- */

static void find_on_landed(struct fetch_reader *reader) {
    struct find *find = container_of(reader, struct find, reader);
    find_on(find, SEARCH_ON_LANDED, &(struct find_told){0});
}

static void find_on_not_landed(struct fetch_reader *reader, Fb__Status status,
                               const char *sentence) {
    struct find *find = container_of(reader, struct find, reader);
    find_on(find, SEARCH_ON_NOT_LANDED, &(struct find_told){.status = status, .why = sentence});
}

/* The item gets its whole patience anew: its deadline is meant for a read that stands still, and a
 * sample of gigabytes may well take longer than that. So a get ends with TIMEOUT only when nothing
 * has come for the time it asked for. */
static void find_on_moved(struct fetch_reader *reader, const struct fetch_moved *moved) {
    struct find *find = container_of(reader, struct find, reader);
    struct item *item = &find->item;
    item_set_deadline(item, moved->now_ns + item->call->patience_ns);
    if (moved->tell_progress && item->call->wants_reply)
        find_send_progress(item, moved);
    if (moved->tell_landed && item->call->wants_reply && find->wants_landed)
        find_send_landed(item, moved);
}

/* What a fetch tells each get that waits for it. */
static const struct fetch_reader_ops find_reader_ops = {
    .landed = find_on_landed,
    .failed = find_on_not_landed,
    .moved = find_on_moved,
};

/* Leases the landing copy, or queues for one that is about to be resident. */
static enum search_event find_ask_copy(struct find *find, struct find_told *told) {
    return find_ask_store(
        find, (struct store_get){.generation = find->item.ref.generation, .cookie = find->remote},
        told);
}

/* The lease that came with such an answer is given back when the item ends. */
static void find_end_unbelieved(struct find *find, const char *wrong) {
    const struct item *item = &find->item;
    char sentence[2 * SENTENCE_BYTES];
    snprintf(sentence, sizeof sentence, "sample %s of store %s from node %s: %s",
             item->ref.sample_id, item->call->space->name, item->ref.home, wrong);
    find_on(find, SEARCH_ON_NOT_LANDED,
            &(struct find_told){.status = FB__STATUS__INTERNAL, .why = sentence});
}

/* Joins the fetch that is under way, takes the copy that is here, or begins a fetch. */
static void find_land(struct find *find, const struct find_told *leased) {
    struct item *item = &find->item;
    struct broker *broker = item->call->broker;
    struct space *space = item->call->space;
    const Fb__PeerLeaseReply *reply = leased->reply->lease;
    struct peer *home = leased->peer;
    const struct source source = source_peer(home, remote_lease_find(broker, find->remote)->epoch);
    uint64_t patience_end_ns = broker->now_ns + item->call->patience_ns;
    struct layout layout;
    char odd[SENTENCE_BYTES];
    const char *wrong = believe_spec(broker, reply, leased->payload_bytes, &layout);
    if (wrong)
        believe_not(home, wrong);
    else if (!believe_copy(item, home, reply, odd))
        wrong = odd;
    struct fetch *fetch = wrong ? NULL : fetch_find(broker, space, reply->generation);
    if (fetch && !fetch_is_of(fetch, &source, item->ref.sample_id, reply->extent_bytes))
        believe_not(home, wrong = "it says of one generation what another has said of it, or what "
                                  "it has said otherwise itself");
    if (wrong) {
        find_end_unbelieved(find, wrong);
        return;
    }
    find->reader.ops = &find_reader_ops;
    if (fetch) {
        item_set_deadline(item, patience_end_ns);
        fetch_join(fetch, &find->reader);
        return;
    }
    struct find_told told;
    enum search_event copy = find_ask_copy(find, &told);
    if (copy != SEARCH_ON_MISSING) {
        find_on(find, copy, &told);
        return;
    }
    item_set_deadline(item, patience_end_ns);
    fetch_begin(broker, space,
                &(struct fetch_order){
                    .sample_id = item->ref.sample_id,
                    .generation = reply->generation,
                    .source = source,
                    .from = {.tier = PLACE_MEMORY,
                             .segment = reply->region,
                             .offset = reply->extent_offset,
                             .bytes = reply->extent_bytes},
                    .layout = &layout,
                    .spec = reply->spec,
                    .checksums = reply->checksums,
                    .bytes = leased->payload_bytes ? leased->payload : NULL,
                    .room_deadline_ns = patience_end_ns,
                },
                &find->reader);
}

/* ---- a home that may be back in a moment ---- */

/* The generation that was found for an id, and whose bytes did not come, is not asked for again: it
 * may have ended meanwhile while another node has a newer one, and its home would say "not found"
 * of it alone. Such a get ends as UNAVAILABLE, and whoever asks again begins a new search. */
static bool find_home_returns(const struct find *find, enum search_event event,
                              const struct find_told *told) {
    const struct broker *broker = find->item.call->broker;
    struct peer *home = peers_find(broker->peers, find->item.ref.home);
    struct peer_info info;
    if ((event != SEARCH_ON_UNHEARD && event != SEARCH_ON_NOT_LANDED) || !home ||
        (event == SEARCH_ON_NOT_LANDED &&
         (told->status != FB__STATUS__UNAVAILABLE || !find->by_ref)) ||
        broker->exchange->closing || find_home_is_dead(&find->item))
        return false;
    peer_query(home, &info);
    return info.heard_ns && find->asked_again < AGAIN_MAX &&
           broker->now_ns - info.heard_ns < RETURNS_NS;
}

/* It was asked again, and there is no link to it now. */
static bool find_home_is_away(const struct find *find) {
    const struct peer *home = peers_find(find->item.call->broker->peers, find->item.ref.home);
    return find->again.queued || (find->asked_again && (!home || !peer_is_up(home)));
}

static void find_on_again(struct deadline *again, uint64_t now_ns) {
    (void)now_ns; /* broker->now_ns */
    find_on(container_of(again, struct find, again), SEARCH_ON_AGAIN, &(struct find_told){0});
}

static void find_ask_later(struct find *find) {
    struct broker *broker = find->item.call->broker;
    if (find->remote) /* of the link that is gone, by which nothing can be read any more */
        outbox_release(broker, find->remote, false);
    find->remote = 0;
    find->unheard = NULL;
    find->asked_again++;
    deadline_init(&find->again, find_on_again);
    deadlines_set(&broker->deadlines, &find->again, broker->now_ns + AGAIN_NS);
}

/* ---- the machine ---- */

/* The index named one of ours, which was not resident a moment ago and is gone now; or the home
 * that it named has said what became of it. */
static void find_look_again(struct find *find, const struct find_told *told) {
    char sentence[SENTENCE_BYTES];
    if (told->reply) {
        find_ask_index_again(find, told->reply->error);
        return;
    }
    status_not_found(sentence, find->item.call->broker, find->item.call->space,
                     find->item.ref.sample_id, find->item.ref.generation);
    find_ask_index_again(find, sentence);
}

static void find_on(struct find *find, enum search_event event, const struct find_told *told) {
    struct item *item = &find->item;
    const struct search_facts facts = {.more_answers = item->ask_count,
                                       .waits_here = item->in_store,
                                       .unheard = find->unheard,
                                       .returns = find_home_returns(find, event, told)};
    struct find_told next = {0};
    char sentence[SENTENCE_BYTES];
    enum search_do what = search_step(&find->state, event, &facts);
    switch (what) {
    case SEARCH_DO_NOTHING:
        break;
    case SEARCH_DO_TRY_HERE:
        find_try_here(find);
        break;
    case SEARCH_DO_ASK_INDEX:
        find_ask_index(find);
        break;
    case SEARCH_DO_ASK_INDEX_AGAIN:
        find_look_again(find, told);
        break;
    case SEARCH_DO_ASK_LATER:
        find_ask_later(find);
        break;
    case SEARCH_DO_ASK_HOME:
        if (find_ask_home(find, &next, sentence))
            find_watch(item);
        else
            find_on(find, SEARCH_ON_NOT_ASKED, &next);
        break;
    case SEARCH_DO_ASK_ALL:
        if (find_ask_all(find, &next, sentence))
            find_watch(item);
        else
            find_on(find, SEARCH_ON_NOT_ASKED, &next);
        break;
    case SEARCH_DO_LAND:
        find_land(find, told);
        break;
    case SEARCH_DO_LEASE_COPY:
        event = find_ask_copy(find, &next);
        find_on(find, event, &next);
        break;
    case SEARCH_DO_GRANT:
        item->in_store = false;
        find->remote = 0; /* the local lease carries it on as its cookie */
        find->granted(find, &told->lease);
        break;
    default: /* SEARCH_DO_END_... */
        find_end(find, what, told);
        break;
    }
}

void find_begin(struct find *find) {
    const struct ref *ref = &find->item.ref;
    bool here = ref_is_at(ref, find->item.call->broker->config->node);
    enum search_event event = !here             ? SEARCH_ON_REF_ELSEWHERE
                              : ref->generation ? SEARCH_ON_REF_HERE
                                                : SEARCH_ON_ID;
    find->by_ref = !here;
    find_on(find, event, &(struct find_told){0});
}

void find_expire(struct find *find) {
    struct item *item = &find->item;
    if (find->state != SEARCH_LANDING && find_home_is_away(find))
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: the link to node %s was lost, and it has not come back "
                  "within %llu ms",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  item_waited_ms(item));
    else if (find->state != SEARCH_LANDING)
        item_expire_unanswered(item);
    else if (fetch_waits_for_room(find->reader.fetch))
        item_done(item, FB__STATUS__FULL,
                  "sample %s of store %s: no room to land it here within %llu ms: others' samples "
                  "hold the landing_bytes of this node",
                  item->ref.sample_id, item->call->space->name, item_waited_ms(item));
    else
        item_done(
            item, FB__STATUS__TIMEOUT,
            "sample %s of store %s: its bytes stopped coming from node %s; gave up after %llu ms",
            item->ref.sample_id, item->call->space->name, item_silent_node(item),
            item_waited_ms(item));
}

void find_leave(struct find *find) {
    deadlines_clear(&find->item.call->broker->deadlines, &find->again);
    if (find->reader.fetch)
        fetch_leave(&find->reader);
    if (find->remote) /* leased at its home, never granted here */
        outbox_release(find->item.call->broker, find->remote, false);
    find->remote = 0;
    find->state = SEARCH_OVER;
}
