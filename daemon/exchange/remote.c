/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking homes for leases: the home a ref names, or, for an id that no directory can place, every
 * peer at once. Of several peers that grant one, the first wins and the others get theirs back.
 */
#include <stdlib.h>
#include <string.h>

#include "requests/requests.h"

static void remote_give_back(struct broker *broker, struct peer *peer, const struct space *space,
                             const Fb__PeerLeaseReply *lease, uid_t uid) {
    uint64_t id = remote_lease_new(broker, peer, space->name, lease->lease_hi, lease->lease_lo,
                                   lease->generation, uid);
    if (id)
        outbox_release(broker, id, false);
}

static void remote_refuse_lost(struct item *item) {
    item_done(item, FB__STATUS__LOST,
              "sample %s of store %s: its home, node %s, is gone and its memory with it",
              item->ref.sample_id, item->call->space->name, item->ref.home);
}

/* What it granted for this item is given back with the item's end. */
static void remote_refuse_odd(struct item *item, const struct peer *peer, const char *wrong) {
    item_done(item, FB__STATUS__INTERNAL,
              "sample %s of store %s: node %s gave no answer to what it was asked: %s; nothing of "
              "it was used",
              item->ref.sample_id, item->call->space->name, peer_node(peer), wrong);
}

/* Of a ref that names no incarnation only the home itself can tell. */
static bool remote_is_lost(const struct item *item) {
    return item->ref.incarnation &&
           nodes_is_dead(item->call->broker, item->ref.home, item->ref.incarnation);
}

static void remote_refuse_as_said(struct item *item, struct peer *peer,
                                  const Fb__PeerReply *reply) {
    if (reply->status != FB__STATUS__OK) {
        item_done(item, reply->status, "%s", reply->error);
        return;
    }
    believe_not(peer, "asked for a lease, and it answered without one");
    remote_refuse_odd(item, peer, "it granted a lease without saying which");
}

/* One of possibly several answers for the item was no. That no node has an id is known only when
 * all have said so. */
static void remote_settle_refusal(struct item *item, struct peer *peer, const Fb__PeerReply *reply,
                                  const char *why) {
    bool absent = reply && reply->status == FB__STATUS__NOT_FOUND && !item->ref.generation;
    if (!reply)
        get_of(item)->unheard = peer;
    if (get_of(item)->located && reply && reply->status == FB__STATUS__NOT_FOUND) {
        get_look_again(item, reply->error);
        return;
    }
    if (item->ask_count || item->in_store)
        return; /* others may still say yes */
    if (!reply && remote_is_lost(item))
        remote_refuse_lost(item);
    else if (absent && (!get_of(item)->unheard || BROKER_PLANTED(PLANTED_UNHEARD_IS_NO)))
        get_local_not_found(item);
    else if (reply && !absent)
        remote_refuse_as_said(item, peer, reply);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s cannot be reached: %s", item->ref.sample_id,
                  item->call->space->name, peer_node(get_of(item)->unheard),
                  reply ? "the others do not have it" : why);
}

static void remote_on_leased(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                             size_t payload_bytes, const char *why) {
    struct ask *ask = context;
    struct broker *broker = ask->broker;
    struct space *space = ask->space;
    struct peer *peer = ask->peer;
    uid_t uid = (uid_t)ask->user->number;
    uint64_t asked = ask->generation;
    struct item *item = ask_take(ask);
    bool granted = reply && reply->status == FB__STATUS__OK &&
                   reply->result_case == FB__PEER_REPLY__RESULT_LEASE;
    if (granted && !item) {
        remote_give_back(broker, peer, space, reply->lease, uid);
        return;
    }
    if (!item)
        return;
    if (!granted) {
        remote_settle_refusal(item, peer, reply, why);
        return;
    }
    get_of(item)->remote = remote_lease_new(broker, peer, space->name, reply->lease->lease_hi,
                                            reply->lease->lease_lo, reply->lease->generation, uid);
    if (!get_of(item)->remote) {
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s: the broker is out of memory",
                  item->ref.sample_id);
        return;
    }
    char wrong[SENTENCE_BYTES];
    if (!believe_lease(item, peer, asked, reply->lease, wrong)) {
        remote_refuse_odd(item, peer, wrong);
        return;
    }
    item_found(item);
    strcpy(item->ref.home, peer_node(peer));
    item->ref.incarnation = peer_incarnation(peer);
    item->ref.generation = reply->lease->generation;
    get_of(item)->over_network = true;
    fetch_item(item, reply->lease, payload, payload_bytes);
}

/* 0 or -errno. */
static int remote_ask_for_lease(struct item *item, struct peer *peer, bool by_id) {
    struct call *call = item->call;
    struct ask *ask = ask_new(item, peer);
    if (!ask)
        return -1;
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
    int result = peer_call(peer, &request, remote_on_leased, ask, call->broker->now_ns);
    if (result < 0)
        ask_take(ask);
    return result;
}

static void remote_watch(struct item *item) {
    if (!item->timed.queued)
        item_set_deadline(item, item->call->broker->now_ns + item->call->wait_ns +
                                    item->call->patience_ns);
}

void remote_get(struct item *item) {
    struct broker *broker = item->call->broker;
    struct peer *peer = peers_find(broker->peers, item->ref.home);
    if (remote_is_lost(item)) {
        remote_refuse_lost(item);
        return;
    }
    if (!peer && broker->directory->ops->index) {
        char trouble[TROUBLE_BYTES];
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, of which node %s knows nothing: %s",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  broker->config->node,
                  broker_trouble(broker, "it is no member of the cluster", trouble));
        return;
    }
    if (!peer) {
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, which is no peer of node %s: add [peer %s] "
                  "to its configuration",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  broker->config->node, item->ref.home);
        return;
    }
    if (item->call->space->settings.landing_bytes == 0)
        item_done(item, FB__STATUS__FULL,
                  "store %s has no landing_bytes on node %s: it cannot read other nodes' samples",
                  item->call->space->name, broker->config->node);
    else if (remote_ask_for_lease(item, peer, false) < 0)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s cannot be asked now", item->ref.sample_id,
                  item->call->space->name, item->ref.home);
    else
        remote_watch(item);
}

void remote_get_anywhere(struct item *item) {
    struct broker *broker = item->call->broker;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        if (remote_ask_for_lease(item, peer, true) < 0)
            get_of(item)->unheard = peer;
    if (item->ask_count)
        remote_watch(item);
    else if (!item->in_store && get_of(item)->unheard)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is not on this node, and node %s cannot be asked now",
                  item->ref.sample_id, item->call->space->name, peer_node(get_of(item)->unheard));
    else if (!item->in_store)
        get_local_not_found(item);
}
