/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking homes for leases: the home a ref names, or, for an id that no directory can place, every
 * peer at once. Of several peers that grant one, the first wins and the others get theirs back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange_internal.h"

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
        get_of(item)->ops->look_again(item, reply->error);
        return;
    }
    if (item->ask_count || item->in_store)
        return; /* others may still say yes */
    if (!reply && remote_is_lost(item))
        remote_refuse_lost(item);
    else if (absent && !get_of(item)->unheard)
        get_of(item)->ops->absent(item);
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
    struct peer *peer = ask->peer;
    uint64_t asked = ask->generation, remote = ask->remote;
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
    if (!granted) {
        remote_settle_refusal(item, peer, reply, why);
        return;
    }
    get_of(item)->remote = remote;
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

/* The end of a sentence about a node that was not asked. result: -errno. */
static const char *remote_why_not_asked(int result) {
    return result == -ENOMEM ? "the broker is out of memory" : "it cannot be asked now";
}

/* 0 or -errno. */
static int remote_ask_for_lease(struct item *item, struct peer *peer, bool by_id) {
    struct call *call = item->call;
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
    int result = peer_call(peer, &request, remote_on_leased, ask, call->broker->now_ns);
    if (result < 0) {
        remote_lease_cancel(call->broker, remote);
        ask_take(ask);
    }
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
    if (item->call->space->settings.landing_bytes == 0) {
        item_done(item, FB__STATUS__FULL,
                  "store %s has no landing_bytes on node %s: it cannot read other nodes' samples",
                  item->call->space->name, broker->config->node);
        return;
    }
    int result = remote_ask_for_lease(item, peer, false);
    if (result < 0)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is at node %s, which was not asked: %s",
                  item->ref.sample_id, item->call->space->name, item->ref.home,
                  remote_why_not_asked(result));
    else
        remote_watch(item);
}

void remote_get_anywhere(struct item *item) {
    struct broker *broker = item->call->broker;
    int failed = 0;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer)) {
        int result = remote_ask_for_lease(item, peer, true);
        if (result < 0) {
            get_of(item)->unheard = peer;
            failed = result;
        }
    }
    if (item->ask_count)
        remote_watch(item);
    else if (!item->in_store && get_of(item)->unheard)
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s is not on this node, and node %s was not asked: %s",
                  item->ref.sample_id, item->call->space->name, peer_node(get_of(item)->unheard),
                  remote_why_not_asked(failed));
    else if (!item->in_store)
        get_of(item)->ops->absent(item);
}
