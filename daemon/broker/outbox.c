/* SPDX-License-Identifier: Apache-2.0
 *
 * Releases and acks on their way to a home, one outbox per peer. Everything gathered in one loop
 * turn goes in one message; one message is under way at a time. Leases given back unconsumed are
 * gathered for a millisecond: nobody waits for them, and a reader that looks at many samples does
 * not pay for two more messages with each. What the home has not confirmed is retried with
 * back-off, for ever: `consumed` and acks are facts that must not be lost. A `returned` release
 * needs no retry once its link is gone: the home has ended that lease itself.
 */
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "state.h"

#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define GATHER_NS        NS_PER_MS
#define GATHER_COUNT     64u

struct outbox *outbox_of(struct broker *broker, struct peer *peer) {
    struct outbox *outbox = peer_user(peer);
    if (outbox)
        return outbox;
    outbox = calloc(1, sizeof *outbox);
    if (!outbox)
        return NULL;
    outbox->broker = broker;
    outbox->peer = peer;
    outbox->backoff_ns = BACKOFF_FIRST_NS;
    TAILQ_INIT(&outbox->waiting);
    TAILQ_INIT(&outbox->sent);
    peer_set_user(peer, outbox);
    return outbox;
}

static void forget(struct outbox *outbox, struct pending_end_list *list, struct pending_end *end) {
    TAILQ_REMOVE(list, end, link);
    outbox->count--;
    outbox->broker->release_pending--;
    free(end);
}

static struct pending_end *add(struct broker *broker, struct peer *peer, const char *store) {
    struct outbox *outbox = outbox_of(broker, peer);
    struct pending_end *end = outbox ? calloc(1, sizeof *end) : NULL;
    if (!end) {
        log_error("store %s: out of memory: a release for node %s is lost", store, peer_node(peer));
        return NULL;
    }
    strncpy(end->store, store, sizeof end->store - 1);
    TAILQ_INSERT_TAIL(&outbox->waiting, end, link);
    outbox->count++;
    broker->release_pending++;
    return end;
}

/* A lease given back may wait a moment for others; what retires a sample may not, nor does it let
 * those before it wait. A back-off keeps its time. */
static void gather(struct outbox *outbox, bool urgent, uint64_t now_ns) {
    bool first = TAILQ_FIRST(&outbox->waiting) == TAILQ_LAST(&outbox->waiting, pending_end_list);
    if (outbox->retry_ns > now_ns + GATHER_NS)
        return;
    if (urgent || outbox->count >= GATHER_COUNT)
        outbox->retry_ns = now_ns;
    else if (first && outbox->retry_ns <= now_ns)
        outbox->retry_ns = now_ns + GATHER_NS;
}

void outbox_release(struct broker *broker, uint64_t remote_lease_id, bool consumed) {
    struct remote_lease *lease = remote_lease_find(broker, remote_lease_id);
    if (!lease || (lease->ended && !consumed))
        return;
    bool link_holds = peer_is_up(lease->peer) && peer_epoch(lease->peer) == lease->epoch;
    struct pending_end *end =
        consumed || link_holds ? add(broker, lease->peer, lease->store) : NULL;
    if (end) {
        end->consumed = consumed;
        end->corrupt = lease->corrupt;
        end->hi = lease->hi;
        end->lo = lease->lo;
        end->generation = lease->generation;
        end->epoch = lease->epoch;
        gather(outbox_of(broker, lease->peer), consumed || lease->corrupt, broker->now_ns);
    }
    if (!lease->ended)
        remote_lease_end(broker, lease);
}

void outbox_ack(struct broker *broker, struct peer *peer, const char *store,
                const struct item *item) {
    if (BROKER_PLANTED(PLANTED_ACK_FORGOTTEN))
        return;
    struct pending_end *end = add(broker, peer, store);
    if (!end)
        return;
    end->is_ack = true;
    end->generation = item->generation;
    end->incarnation = item->incarnation;
    end->op = item->op;
    memcpy(end->sample_id, item->sample_id, sizeof end->sample_id);
    gather(outbox_of(broker, peer), true, broker->now_ns);
}

/* ---- sending ---- */

static void put_back(struct outbox *outbox) {
    struct pending_end *end;
    while ((end = TAILQ_LAST(&outbox->sent, pending_end_list))) {
        bool moot = !end->is_ack &&
                    (!end->consumed ||
                     BROKER_PLANTED(
                         PLANTED_RELEASE_FORGOTTEN)); /* the link has gone, and the lease with it */
        if (moot) {
            forget(outbox, &outbox->sent, end);
            continue;
        }
        TAILQ_REMOVE(&outbox->sent, end, link);
        TAILQ_INSERT_HEAD(&outbox->waiting, end, link);
    }
}

static void on_confirmed(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                         size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct outbox *outbox = context;
    outbox->busy = false;
    if (!outbox->peer) { /* outbox_free() has been */
        free(outbox);
        return;
    }
    if (reply && reply->status == FB__STATUS__OK) {
        while (!TAILQ_EMPTY(&outbox->sent))
            forget(outbox, &outbox->sent, TAILQ_FIRST(&outbox->sent));
        outbox->backoff_ns = BACKOFF_FIRST_NS;
        return;
    }
    put_back(outbox);
    outbox->retry_ns = outbox->broker->now_ns + outbox->backoff_ns;
    outbox->backoff_ns *= 2;
    if (outbox->backoff_ns > outbox->broker->config->reconnect_max_ms * NS_PER_MS)
        outbox->backoff_ns = outbox->broker->config->reconnect_max_ms * NS_PER_MS;
}

static void move_to_sent(struct outbox *outbox, struct pending_end *end) {
    TAILQ_REMOVE(&outbox->waiting, end, link);
    TAILQ_INSERT_TAIL(&outbox->sent, end, link);
}

static int send_ack(struct outbox *outbox, struct pending_end *end) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = end->sample_id;
    item.generation = end->generation;
    item.incarnation = end->incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = end->store;
    retire.reason = FB__REASON__ACKED;
    retire.n_items = 1;
    retire.items = items;
    retire.client_id = end->op.client_id;
    retire.op_id = end->op.op_id;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    move_to_sent(outbox, end);
    return peer_call(outbox->peer, &request, on_confirmed, outbox, outbox->broker->now_ns);
}

static int send_releases(struct outbox *outbox) {
    Fb__PeerReleaseItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__PeerRelease release = FB__PEER_RELEASE__INIT;
    struct pending_end *end;
    while ((end = TAILQ_FIRST(&outbox->waiting)) && !end->is_ack &&
           release.n_items < FRAME_BATCH_ITEMS_MAX) {
        Fb__PeerReleaseItem *item = &items[release.n_items];
        fb__peer_release_item__init(item);
        item->store = end->store;
        item->lease_hi = end->hi;
        item->lease_lo = end->lo;
        item->consumed = end->consumed;
        item->corrupt = end->corrupt;
        item->generation = end->generation;
        pointers[release.n_items++] = item;
        move_to_sent(outbox, end);
    }
    release.items = pointers;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RELEASE;
    request.release = &release;
    return peer_call(outbox->peer, &request, on_confirmed, outbox, outbox->broker->now_ns);
}

/* Its records are swept after so long (index_sweep.c). If it comes back all the same, it finds word
 * of the acks; what was only released can be read again. */
static void give_up_on_the_dead(struct broker *broker, struct outbox *outbox) {
    uint64_t keep_ns = broker->config->lost_keep_ms * NS_PER_MS;
    if (!keep_ns || TAILQ_EMPTY(&outbox->waiting) || peer_is_up(outbox->peer) ||
        nodes_gone_ns(broker, peer_node(outbox->peer)) <= keep_ns)
        return;
    log_warning("node %s has been gone for more than %llu s: %llu releases for it are given up",
                peer_node(outbox->peer), (unsigned long long)(broker->config->lost_keep_ms / 1000),
                (unsigned long long)outbox->count);
    for (struct pending_end *end; (end = TAILQ_FIRST(&outbox->waiting));) {
        struct space *space = end->is_ack ? space_find(broker, end->store) : NULL;
        const struct directory_record lost = {.store = end->store,
                                              .sample_id = end->sample_id,
                                              .home = peer_node(outbox->peer),
                                              .generation = end->generation,
                                              .incarnation = end->incarnation};
        if (space && space->settings.policy != FB__POLICY__RETAIN)
            publish_end_lost(broker, space, &lost, STORE_ACKED, false, NULL);
        forget(outbox, &outbox->waiting, end);
    }
}

void outbox_flush(struct broker *broker, struct peer *peer, uint64_t now_ns) {
    struct outbox *outbox = peer_user(peer);
    if (outbox)
        give_up_on_the_dead(broker, outbox);
    if (!outbox || outbox->busy || outbox->retry_ns > now_ns || TAILQ_EMPTY(&outbox->waiting))
        return;
    struct pending_end *first = TAILQ_FIRST(&outbox->waiting);
    outbox->busy = true;
    int result = first->is_ack ? send_ack(outbox, first) : send_releases(outbox);
    if (result < 0)
        on_confirmed(outbox, NULL, NULL, 0, "");
}

void outboxes_flush(struct broker *broker, uint64_t now_ns) {
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        outbox_flush(broker, peer, now_ns);
}

uint64_t outboxes_next_deadline_ns(const struct broker *broker) {
    uint64_t next_ns = UINT64_MAX;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer)) {
        const struct outbox *outbox = peer_user(peer);
        if (outbox && !outbox->busy && !TAILQ_EMPTY(&outbox->waiting) && outbox->retry_ns < next_ns)
            next_ns = outbox->retry_ns;
    }
    return next_ns;
}

void outbox_free(struct peer *peer) {
    struct outbox *outbox = peer_user(peer);
    if (!outbox)
        return;
    TAILQ_CONCAT(&outbox->waiting, &outbox->sent, link);
    while (!TAILQ_EMPTY(&outbox->waiting))
        forget(outbox, &outbox->waiting, TAILQ_FIRST(&outbox->waiting));
    peer_set_user(peer, NULL);
    outbox->peer = NULL;
    if (!outbox->busy) /* else its message is still to be answered: peer_deinit() does that */
        free(outbox);
}
