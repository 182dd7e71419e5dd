/* SPDX-License-Identifier: Apache-2.0
 *
 * Releases and acks on their way to a home ("ends"), one outbox for each peer.
 *
 *   outbox_release(), outbox_ack()          one message                 confirmed
 *   --> waiting ----------------------------> sent -----------------------> freed
 *          ^                                   |
 *          '-------- refused, or the link is gone: again after the back-off
 *
 * Everything gathered in one turn of the loop goes in one message, and one message is under way at
 * a time. Leases given back unconsumed are gathered for a millisecond: nobody waits for them, and a
 * reader that looks at many samples does not pay for two more messages with each. What the home has
 * not confirmed is retried with back-off, for ever: `consumed` and acks are facts that must not be
 * lost. A release that says `returned` needs no retry once its link is gone, because the home has
 * ended that lease itself.
 *
 * What is not confirmed outlives this process: `consumed` is in the record of its remote lease
 * (remote_lease.c), an ack has a record of its own (struct kept_end), committed before its client
 * is answered and freed when the home has confirmed. outbox_recall() makes them pending again.
 *
 * The deadline `flush` is set exactly while something waits and no message is under way; whoever
 * changes one of these calls outbox_schedule(). What waits is charged to the user whose client
 * caused it (CHARGE_PENDING_ENDS), so that one user's acks for a dead node do not fill the broker.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/nodes.h"
#include "exchange/outbox.h"
#include "exchange/remote_lease.h"
#include "proto/cleanup.h"
#include "proto/frame.h"

#define BACKOFF_FIRST_NS (100 * NS_PER_MS) /* doubled each time, up to reconnect_max */
#define GATHER_NS        NS_PER_MS         /* so long a returned lease may wait for others */
#define GATHER_COUNT     64u               /* as many leave at once */
#define GIVEN_UP_A_TURN  256u              /* each may begin a write to the index */
/* Acks in one bucket at most: max_pending_ends / 4096, 64 by default. */
#define OUTBOX_BUCKET_BITS 12

static void outbox_on_flush(struct deadline *flush, uint64_t now_ns);

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
    deadline_init(&outbox->flush, outbox_on_flush);
    TAILQ_INIT(&outbox->waiting);
    TAILQ_INIT(&outbox->sent);
    peer_set_user(peer, outbox);
    return outbox;
}

static const char *outbox_store(const struct pending_end *end) {
    return end->names;
}

static const char *outbox_sample(const struct pending_end *end) {
    return end->names + end->store_bytes + 1;
}

/* To be called when retry_ns, `busy` or what waits has changed. */
static void outbox_schedule(struct outbox *outbox) {
    bool idle = outbox->busy || TAILQ_EMPTY(&outbox->waiting);
    deadlines_set_or_clear(&outbox->broker->deadlines, &outbox->flush,
                           idle ? UINT64_MAX : outbox->retry_ns);
}

void outbox_on_link_up(void *owner, struct peer *peer) {
    struct outbox *outbox = outbox_of(owner, peer);
    if (!outbox)
        return;
    outbox->retry_ns = 0;
    outbox_schedule(outbox);
}

uint64_t outbox_pending(const struct broker *broker) {
    return broker->exchange->release_pending;
}

uint64_t outbox_pending_at(const struct peer *peer) {
    const struct outbox *outbox = peer_user(peer);
    return outbox ? outbox->count : 0;
}

/* While the broker ends, the records stay for the next one. */
static void outbox_drop_record(struct broker *broker, const struct pending_end *end) {
    if (broker->exchange->closing)
        return;
    if (end->is_ack && end->ack.kept)
        kept_free(kept_table(broker->kept, KEPT_ENDS), end->ack.kept - 1);
    else if (!end->is_ack && end->consumed)
        remote_lease_told(broker, end->lease.id);
}

/* It is confirmed, moot or given up: it leaves its list, and is charged to nobody any more. */
static void outbox_forget(struct outbox *outbox, struct pending_end_list *list,
                          struct pending_end *end) {
    struct broker *broker = outbox->broker;
    outbox_drop_record(broker, end);
    TAILQ_REMOVE(list, end, link);
    if (end->is_ack)
        LIST_REMOVE(end, same_hash);
    outbox->count--;
    broker->exchange->release_pending--;
    accounts_release(broker, end->account, CHARGE_PENDING_ENDS, 1);
    free(end);
}

/* sample_id "" where it is of no interest. NULL: out of memory. */
static struct pending_end *outbox_new_end(const char *store, const char *sample_id) {
    size_t store_bytes = strlen(store), sample_bytes = strlen(sample_id);
    struct pending_end *end = calloc(1, sizeof *end + store_bytes + 1 + sample_bytes + 1);
    if (!end)
        return NULL;
    end->store_bytes = (uint8_t)store_bytes;
    memcpy(end->names, store, store_bytes);
    memcpy(end->names + store_bytes + 1, sample_id, sample_bytes);
    return end;
}

struct pending_end *outbox_new_release(const char *store) {
    return outbox_new_end(store, "");
}

/* account: who is charged, whether there is room or not. An ack is refused before this when there
 * is none (outbox_ack()); a release cannot be refused, for the lease has ended. */
static void outbox_add(struct outbox *outbox, struct pending_end *end, struct account *account) {
    end->account = account;
    account_add(account, CHARGE_PENDING_ENDS, 1);
    TAILQ_INSERT_TAIL(&outbox->waiting, end, link);
    outbox->count++;
    outbox->broker->exchange->release_pending++;
}

/* A lease given back may wait a moment for others; what retires a sample may not, nor does it let
 * those before it wait. A back-off keeps its time. */
static void outbox_gather(struct outbox *outbox, bool urgent, uint64_t now_ns) {
    bool first = TAILQ_FIRST(&outbox->waiting) == TAILQ_LAST(&outbox->waiting, pending_end_list);
    bool backs_off = outbox->retry_ns > now_ns + GATHER_NS;
    if (!backs_off && (urgent || outbox->count >= GATHER_COUNT))
        outbox->retry_ns = now_ns;
    else if (!backs_off && first && outbox->retry_ns <= now_ns)
        outbox->retry_ns = now_ns + GATHER_NS;
    outbox_schedule(outbox);
}

/* A `consumed` that is said after the lease was given back: the memory that the lease had for its
 * release has been used. NULL: there is none now. What has been read cannot be refused: it is
 * charged to whom it was leased for, however much that user has pending. */
static struct pending_end *outbox_add_late(struct broker *broker,
                                           const struct remote_lease *lease) {
    struct account *user = accounts_user(broker, lease->uid);
    struct pending_end *end = user ? outbox_new_release(lease->store) : NULL;
    if (end)
        outbox_add(outbox_of(broker, lease->peer), end, user);
    else
        log_error("store %s: out of memory: node %s is not told that a sample which was given back "
                  "has been consumed all the same",
                  lease->store, peer_node(lease->peer));
    if (user)
        accounts_unhold(broker, user);
    return end;
}

/* The first end of the lease takes the memory that the lease has kept for it. */
static struct pending_end *outbox_add_release(struct broker *broker, struct remote_lease *lease) {
    if (lease->ended)
        return outbox_add_late(broker, lease);
    struct pending_end *end = steal_pointer(&lease->end);
    outbox_add(outbox_of(broker, lease->peer), end, lease->user);
    return end;
}

static void outbox_fill_release(struct broker *broker, struct remote_lease *lease,
                                struct pending_end *end) {
    end->consumed = lease->telling = lease->consumed;
    end->corrupt = lease->corrupt;
    end->lease.hi = lease->hi;
    end->lease.lo = lease->lo;
    end->lease.epoch = lease->epoch;
    end->lease.id = lease->id;
    end->generation = lease->generation;
    outbox_gather(outbox_of(broker, lease->peer), lease->consumed || lease->corrupt,
                  broker->now_ns);
}

void outbox_recall_consumed(struct broker *broker, struct remote_lease *lease) {
    struct pending_end *end = outbox_add_late(broker, lease);
    if (end)
        outbox_fill_release(broker, lease, end);
}

/* What is told: that it was consumed, always; that it was only given back, as long as the link
 * lives over which the lease was granted. If that link is gone the home has ended the lease by
 * itself, and a message would be about nothing. */
void outbox_release(struct broker *broker, uint64_t remote_lease_id, bool consumed) {
    struct remote_lease *lease = remote_lease_find(broker, remote_lease_id);
    if (!lease || lease->consumed || (lease->ended && !consumed))
        return;
    bool link_holds = peer_is_up(lease->peer) && peer_epoch(lease->peer) == lease->epoch;
    lease->consumed = consumed;
    if (lease->granted)
        remote_lease_note(broker, lease, consumed ? KEPT_LEASE_CONSUMED : KEPT_LEASE_RETURNED);
    struct pending_end *end = consumed || link_holds ? outbox_add_release(broker, lease) : NULL;
    if (end)
        outbox_fill_release(broker, lease, end);
    if (!lease->ended)
        remote_lease_end(broker, lease);
}

/* ---- acks ---- */

/* Generations of one node are given out one after the other. The multiplication (by 2^64 over the
 * golden ratio: Knuth, TAOCP vol. 3, 6.4) spreads them over the buckets. */
static struct pending_end_hash *outbox_bucket(const struct outbox *outbox, uint64_t generation) {
    return &outbox->acks[(generation * 0x9e3779b97f4a7c15ull) >> (64 - OUTBOX_BUCKET_BITS)];
}

/* The same ack is pending already: a client repeats what was not answered, or two clients ack the
 * same sample. The home need be told once. */
static bool outbox_has_ack(const struct outbox *outbox, const char *store,
                           const struct item *item) {
    const struct pending_end *end;
    if (!outbox->acks)
        return false;
    LIST_FOREACH (end, outbox_bucket(outbox, item->ref.generation), same_hash)
        if (end->generation == item->ref.generation &&
            end->ack.incarnation == item->ref.incarnation && !strcmp(outbox_store(end), store) &&
            !strcmp(outbox_sample(end), item->ref.sample_id))
            return true;
    return false;
}

/* The table of acks is made with the first one: most peers are never without a link for long, and
 * need none. False: out of memory. */
static bool outbox_add_ack(struct outbox *outbox, const struct kept_end *kept, uint32_t index,
                           struct account *account) {
    if (!outbox->acks)
        outbox->acks = calloc((size_t)1 << OUTBOX_BUCKET_BITS, sizeof *outbox->acks);
    struct pending_end *end = outbox->acks ? outbox_new_end(kept->store, kept->sample_id) : NULL;
    if (!end)
        return false;
    outbox_add(outbox, end, account);
    end->is_ack = true;
    end->generation = kept->generation;
    end->ack.incarnation = kept->incarnation;
    end->ack.op = (struct store_op){kept->client_id, kept->op_id};
    end->ack.kept = index + 1;
    LIST_INSERT_HEAD(outbox_bucket(outbox, end->generation), end, same_hash);
    outbox_gather(outbox, true, outbox->broker->now_ns);
    return true;
}

/* False: out of memory, or of room for one more record. */
static bool outbox_keep_ack(struct outbox *outbox, const char *store, const struct item *item) {
    struct broker *broker = outbox->broker;
    const struct account *account = item->call->session->account;
    struct kept_table *table = kept_table(broker->kept, KEPT_ENDS);
    uint32_t index;
    struct kept_end *kept = kept_take(table, &index);
    if (!kept)
        return false;
    *kept = (struct kept_end){.sequence = ++broker->exchange->end_sequence,
                              .generation = item->ref.generation,
                              .incarnation = item->ref.incarnation,
                              .client_id = item->op.client_id,
                              .op_id = item->op.op_id,
                              .uid = (uint32_t)account->parent->number};
    snprintf(kept->node, sizeof kept->node, "%s", peer_node(outbox->peer));
    snprintf(kept->store, sizeof kept->store, "%s", store);
    snprintf(kept->sample_id, sizeof kept->sample_id, "%s", item->ref.sample_id);
    if (!outbox_add_ack(outbox, kept, index, item->call->session->account)) {
        kept_free(table, index);
        return false;
    }
    kept_commit(table, index, KEPT_END_ACK);
    return true;
}

bool outbox_ack(struct broker *broker, struct peer *peer, struct item *item) {
    const char *store = item->call->space->name;
    struct outbox *outbox = outbox_of(broker, peer);
    struct charge_refusal full;
    char limit[SENTENCE_BYTES];
    if (outbox && outbox_has_ack(outbox, store, item))
        return true;
    if (!account_has_room(item->call->session->account, CHARGE_PENDING_ENDS, 1, &full)) {
        account_sentence(limit, sizeof limit, &full);
        item_done(item, FB__STATUS__FULL,
                  "sample %s of store %s: node %s cannot be reached, and no more acks are kept for "
                  "it: %s: ack again when it answers",
                  item->ref.sample_id, store, peer_node(peer), limit);
        return false;
    }
    if (outbox && outbox_keep_ack(outbox, store, item))
        return true;
    item_done(item, FB__STATUS__UNAVAILABLE,
              "sample %s of store %s: node %s cannot be reached, and the broker has no memory to "
              "keep the ack: ack again",
              item->ref.sample_id, store, peer_node(peer));
    return false;
}

/* ---- after a restart ---- */

struct recalled_end {
    const struct kept_end *kept;
    uint32_t index; /* of its record */
};

static int outbox_by_sequence(const void *a, const void *b) {
    const struct kept_end *one = ((const struct recalled_end *)a)->kept;
    const struct kept_end *other = ((const struct recalled_end *)b)->kept;
    return one->sequence < other->sequence ? -1 : one->sequence > other->sequence;
}

/* The user is charged, for the session that was charged is gone with the old process. */
static void outbox_recall_ack(struct broker *broker, const struct kept_end *kept, uint32_t index) {
    struct peer *peer = nodes_peer_recalled(broker, kept->node);
    struct outbox *outbox = peer ? outbox_of(broker, peer) : NULL;
    struct account *user = outbox ? accounts_user(broker, kept->uid) : NULL;
    if (!user || !outbox_add_ack(outbox, kept, index, user))
        log_error("store %s: out of memory: node %s is told of an ack of sample %s only after the "
                  "next restart",
                  kept->store, kept->node, kept->sample_id);
    if (user)
        accounts_unhold(broker, user);
    if (kept->sequence > broker->exchange->end_sequence)
        broker->exchange->end_sequence = kept->sequence;
}

/* Their order matters, so that they are sorted. The records stay where they are. */
void outbox_recall_acks(struct broker *broker) {
    const struct kept_table *table = kept_table(broker->kept, KEPT_ENDS);
    uint32_t cursor = 0, index, count = 0, used = kept_table_used(table);
    struct recalled_end *ends = calloc((size_t)used + 1, sizeof *ends);
    if (!ends) {
        log_error("out of memory: acks of before the restart are told only after the next one");
        return;
    }
    while (count < used && kept_walk(table, &cursor, &index))
        ends[count++] = (struct recalled_end){kept_record(table, index), index};
    qsort(ends, count, sizeof *ends, outbox_by_sequence);
    for (uint32_t i = 0; i < count; i++)
        outbox_recall_ack(broker, ends[i].kept, ends[i].index);
    free(ends);
}

/* ---- sending ---- */

/* A lease given back unconsumed over a link that has gone: the home has ended it by itself. */
static bool outbox_is_moot(const struct outbox *outbox, const struct pending_end *end) {
    if (end->is_ack)
        return false;
    bool link_holds = peer_is_up(outbox->peer) && peer_epoch(outbox->peer) == end->lease.epoch;
    return !end->consumed && !link_holds;
}

/* The message was not confirmed. What it carried waits again, in its old order and before what came
 * later. */
static void outbox_put_back(struct outbox *outbox) {
    struct pending_end *end;
    while ((end = TAILQ_LAST(&outbox->sent, pending_end_list))) {
        if (outbox_is_moot(outbox, end)) {
            outbox_forget(outbox, &outbox->sent, end);
            continue;
        }
        TAILQ_REMOVE(&outbox->sent, end, link);
        TAILQ_INSERT_HEAD(&outbox->waiting, end, link);
    }
}

/* The home has answered the message under way, or it will not (reply NULL). */
static void outbox_on_confirmed(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct outbox *outbox = context;
    outbox->busy = false;
    if (!outbox->peer) { /* outbox_free() has been called while the message was under way */
        free(outbox);
        return;
    }
    if (reply && reply->status == FB__STATUS__OK) {
        while (!TAILQ_EMPTY(&outbox->sent))
            outbox_forget(outbox, &outbox->sent, TAILQ_FIRST(&outbox->sent));
        outbox->backoff_ns = BACKOFF_FIRST_NS;
        outbox_schedule(outbox);
        return;
    }
    outbox_put_back(outbox);
    outbox->retry_ns = outbox->broker->now_ns + outbox->backoff_ns;
    outbox->backoff_ns *= 2;
    if (outbox->backoff_ns > outbox->broker->config->reconnect_max_ms * NS_PER_MS)
        outbox->backoff_ns = outbox->broker->config->reconnect_max_ms * NS_PER_MS;
    outbox_schedule(outbox);
}

static void outbox_move_to_sent(struct outbox *outbox, struct pending_end *end) {
    TAILQ_REMOVE(&outbox->waiting, end, link);
    TAILQ_INSERT_TAIL(&outbox->sent, end, link);
}

/* An ack goes alone, because its message names one operation: if the answer is lost, the home knows
 * the repeat by it. */
static int outbox_send_ack(struct outbox *outbox, struct pending_end *end) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)outbox_sample(end);
    item.generation = end->generation;
    item.incarnation = end->ack.incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = (char *)outbox_store(end);
    retire.reason = FB__REASON__ACKED;
    retire.n_items = 1;
    retire.items = items;
    retire.client_id = end->ack.op.client_id;
    retire.op_id = end->ack.op.op_id;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    outbox_move_to_sent(outbox, end);
    return peer_call(outbox->peer, &request, outbox_on_confirmed, outbox, outbox->broker->now_ns);
}

/* All releases that wait before the first ack, up to the size of a message. What waits keeps its
 * order, so that a release is not overtaken by an ack of the same sample. */
static int outbox_send_releases(struct outbox *outbox) {
    Fb__PeerReleaseItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__PeerRelease release = FB__PEER_RELEASE__INIT;
    struct pending_end *end;
    while ((end = TAILQ_FIRST(&outbox->waiting)) && !end->is_ack &&
           release.n_items < FRAME_BATCH_ITEMS_MAX) {
        Fb__PeerReleaseItem *item = &items[release.n_items];
        fb__peer_release_item__init(item);
        item->store = (char *)outbox_store(end);
        item->lease_hi = end->lease.hi;
        item->lease_lo = end->lease.lo;
        item->consumed = end->consumed;
        item->corrupt = end->corrupt;
        item->generation = end->generation;
        pointers[release.n_items++] = item;
        outbox_move_to_sent(outbox, end);
    }
    release.items = pointers;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RELEASE;
    request.release = &release;
    return peer_call(outbox->peer, &request, outbox_on_confirmed, outbox, outbox->broker->now_ns);
}

/* A home that has been gone for longer than lost_keep is told no more: its records are swept from
 * the index after so long, too (index_sweep.c). Its acks are recorded in the index, so that if it
 * comes back all the same, it finds them there; what was only released can be read again. True:
 * there was something to give up, and there may be more. */
static bool outbox_gives_up(struct broker *broker, struct outbox *outbox) {
    uint64_t keep_ns = broker->config->lost_keep_ms * NS_PER_MS;
    if (!keep_ns || TAILQ_EMPTY(&outbox->waiting) || peer_is_up(outbox->peer) ||
        nodes_gone_ns(broker, peer_node(outbox->peer)) <= keep_ns)
        return false;
    if (!outbox->giving_up)
        log_warning("node %s has been gone for more than %llu s: %llu releases for it are given up",
                    peer_node(outbox->peer),
                    (unsigned long long)(broker->config->lost_keep_ms / 1000),
                    (unsigned long long)outbox->count);
    outbox->giving_up = true;
    struct pending_end *end;
    for (uint32_t i = 0; i < GIVEN_UP_A_TURN && (end = TAILQ_FIRST(&outbox->waiting)); i++) {
        struct space *space = end->is_ack ? space_find(broker, outbox_store(end)) : NULL;
        const struct directory_record lost = {.store = outbox_store(end),
                                              .sample_id = outbox_sample(end),
                                              .home = peer_node(outbox->peer),
                                              .generation = end->generation,
                                              .incarnation =
                                                  end->is_ack ? end->ack.incarnation : 0};
        if (space && space->settings.policy != FB__POLICY__RETAIN)
            publish_end_lost(broker, space, &lost, STORE_ACKED, false, NULL, NULL);
        outbox_forget(outbox, &outbox->waiting, end);
    }
    outbox->giving_up = !TAILQ_EMPTY(&outbox->waiting);
    return true;
}

/* One message leaves, with as much of what waits as goes into one; the next one leaves when this
 * one has been confirmed. A home that has been gone for long is told no more: it is given up in
 * parts, one in each turn. */
static void outbox_on_flush(struct deadline *flush, uint64_t now_ns) {
    struct outbox *outbox = container_of(flush, struct outbox, flush);
    if (outbox_gives_up(outbox->broker, outbox)) {
        outbox->retry_ns = now_ns;
        outbox_schedule(outbox);
        return;
    }
    struct pending_end *first = TAILQ_FIRST(&outbox->waiting);
    outbox->busy = true;
    int result = first->is_ack ? outbox_send_ack(outbox, first) : outbox_send_releases(outbox);
    if (result < 0)
        outbox_on_confirmed(outbox, NULL, NULL, 0, "");
}

/* Called when the broker ends. The answer to a message that is under way still comes, from
 * peer_deinit(): until then the outbox stays, without a peer. */
void outbox_free(struct peer *peer) {
    struct outbox *outbox = peer_user(peer);
    if (!outbox)
        return;
    TAILQ_CONCAT(&outbox->waiting, &outbox->sent, link);
    while (!TAILQ_EMPTY(&outbox->waiting))
        outbox_forget(outbox, &outbox->waiting, TAILQ_FIRST(&outbox->waiting));
    deadlines_clear(&outbox->broker->deadlines, &outbox->flush);
    peer_set_user(peer, NULL);
    outbox->peer = NULL;
    free(outbox->acks);
    outbox->acks = NULL;
    if (!outbox->busy)
        free(outbox);
}
