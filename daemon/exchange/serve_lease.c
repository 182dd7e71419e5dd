/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases that other brokers ask for, and the releases of them. An asking broker is one holder in
 * each store that it has asked; its clients are its own affair. A lease of a sample that is not
 * there yet waits in the store's queue, as a client's get does:
 *
 *   asked --resident--> granted            (the answer carries the bytes when they are few)
 *        \--not there--> struct served, in asking->waiting --resident--> granted
 *                                                          \--too late, or fenced--> refused
 *
 * A lease ends when its broker says so, or when the connection it came over is proven dead
 * (serve_closed()).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/nodes.h"
#include "exchange/serve.h"
#include "node/knowledge.h"
#include "proto/frame.h"

/* A lease that has been asked for, until it is granted or refused. */
struct served {
    struct waiter waiter;     /* the store's effect carries a pointer to it as its tag */
    TAILQ_ENTRY(served) link; /* in asking->waiting, once the store has made it wait */
    struct asking *asking;
    struct space *space;
    uint32_t request_id;
    bool have_copy;      /* the asking node has the bytes already, and wants only the lease */
    uint64_t generation; /* 0: whichever stands under that id */
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

/* Ends the wait of a lease that stands in the list of its asking broker. */
static void serve_end_wait(struct served *served) {
    TAILQ_REMOVE(&served->asking->waiting, served, link);
    account_release(served->asking->account, CHARGE_WAITS, 1);
    free(served);
}

/* The asking broker as a holder in the store, made when it asks for the first time.
 * STORE_NO_HOLDER: the store has no place for another holder (max_sessions of them, and the
 * brokers). */
static uint32_t serve_holder_of(struct asking *asking, struct space *space) {
    uint32_t *holder = &asking->holders[space->index];
    if (*holder == STORE_NO_HOLDER &&
        store_holder_open(space->store, asking->owner.id, asking->account, holder) != STORE_OK)
        *holder = STORE_NO_HOLDER;
    return *holder;
}

/* The answer says where the bytes are, and what they are: with the tensors' specs and checksums the
 * asking node needs no second question. The bytes of a small sample come along, because a read over
 * the network would take longer than they do; those of a large one are read from the region of this
 * store's memory, straight into the other node's. */
static void serve_grant(const struct served *served, const struct store_lease *lease) {
    const struct space *space = served->space;
    uint8_t spec[STORE_SPEC_BYTES_MAX], checksums[8 * STORE_TENSORS_MAX];
    uint32_t spec_bytes = 0, checksums_bytes = 0;
    struct store_info info;
    store_stat(space->store, NULL, 0, lease->generation, &info);
    store_spec(space->store, lease->slot, spec, sizeof spec, &spec_bytes, checksums,
               sizeof checksums, &checksums_bytes);
    Fb__PeerLeaseReply result = FB__PEER_LEASE_REPLY__INIT;
    result.lease_hi = lease->hi;
    result.lease_lo = lease->lo;
    result.generation = lease->generation;
    result.extent_offset = lease->place.offset;
    result.extent_bytes = lease->place.bytes;
    result.sample_id = info.sample_id;
    result.spec = (ProtobufCBinaryData){spec_bytes, spec};
    result.checksums = (ProtobufCBinaryData){checksums_bytes, checksums};
    result.region = space->region;
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_LEASE;
    reply.lease = &result;
    bool small = lease->place.bytes <= FRAME_INLINE_BYTES_MAX && !served->have_copy;
    asker_reply(served->asking->asker, served->request_id, &reply,
                (const uint8_t *)space->arena.base + lease->place.offset,
                small ? lease->place.bytes : 0);
}

/* The store has answered the get, whether at once or after a wait. */
static void serve_settle(const struct served *served, enum store_result result,
                         const struct store_lease *lease, const struct store_refusal *refusal) {
    char sentence[SENTENCE_BYTES];
    if (result == STORE_OK) {
        serve_grant(served, lease);
        return;
    }
    if (result == STORE_E_NOT_FOUND || result == STORE_E_TIMEOUT) {
        status_not_found(sentence, served->asking->broker, served->space, served->sample_id,
                         served->generation);
    } else {
        space_count_refusal(served->space, refusal);
        status_sentence(sentence, served->space, result, refusal, served->sample_id);
    }
    serve_refuse(served->asking, served->request_id, status_of(result), sentence);
}

/* The wait is over. The node may have been fenced since the lease was asked for: then the store has
 * granted what must not leave this node, and the lease is given back at once. */
static void serve_on_resident(struct waiter *waiter, const struct store_effect *effect) {
    struct served *served = container_of(waiter, struct served, waiter);
    struct broker *broker = served->asking->broker;
    if (effect->result == STORE_OK && !broker_serves(broker)) {
        store_release(served->space->store, effect->holder, effect->lease.hi, effect->lease.lo,
                      STORE_RETURNED, broker->now_ns);
        serve_refuse(served->asking, served->request_id, FB__STATUS__UNAVAILABLE,
                     broker_fenced_why(broker));
    } else {
        serve_settle(served, effect->result, &effect->lease, &effect->refusal);
    }
    serve_end_wait(served);
}

/* There is no memory for a struct served (no_memory), or the store has no place for one more node
 * among its readers: the lease cannot even be waited for. */
static void serve_refuse_reader(const struct serve_asked *asked, bool no_memory) {
    const struct config *config = asked->asking->broker->config;
    const char *sample_id = asked->message->lease->item->sample_id;
    struct store_totals totals;
    char sentence[SENTENCE_BYTES];
    store_totals(asked->space->store, &totals);
    if (no_memory)
        snprintf(sentence, sizeof sentence,
                 "sample %s of store %s: its home, node %s, is out of memory", sample_id,
                 asked->space->name, config->node);
    else
        snprintf(
            sentence, sizeof sentence,
            "sample %s of store %s: node %s has no place for another reader: all %llu places of "
            "sessions and nodes in this store are taken (their number follows from "
            "max_sessions = %u)",
            sample_id, asked->space->name, config->node, (unsigned long long)totals.max_holders,
            config->max_sessions);
    serve_refuse(asked->asking, asked->request_id,
                 no_memory ? FB__STATUS__UNAVAILABLE : FB__STATUS__FULL, sentence);
}

/* Asks the store, which grants, refuses or makes it wait. `served` is freed here unless it waits.
 */
static void serve_ask_store(struct served *served, uint32_t holder, uint64_t wait_ns) {
    struct asking *asking = served->asking;
    struct space *space = served->space;
    const uint64_t now_ns = asking->broker->now_ns;
    bool cut; /* not told: the asking broker has a max_wait of its own, of which it tells its client
               */
    uint64_t cut_ns = space_cut_wait_ns(space, wait_ns, &cut);
    struct store_get get = {
        .sample_id = served->sample_id,
        .sample_id_bytes = (uint32_t)strlen(served->sample_id),
        .generation = served->generation,
        .deadline_ns = now_ns + sample_wait_ns(space, served->generation, cut_ns),
        .tag = (uint64_t)(uintptr_t)&served->waiter,
    };
    struct store_lease lease;
    struct store_refusal refusal = {0};
    enum store_result result = store_get(space->store, holder, &get, now_ns, &lease, &refusal);
    if (result == STORE_WAIT) {
        TAILQ_INSERT_TAIL(&asking->waiting, served, link);
        account_add(asking->account, CHARGE_WAITS, 1);
        return;
    }
    serve_settle(served, result, &lease, &refusal);
    free(served);
}

static void serve_lease_for(const struct serve_asked *asked) {
    struct asking *asking = asked->asking;
    const Fb__PeerLease *lease = asked->message->lease;
    struct charge_refusal full;
    if (!account_has_room(asking->account, CHARGE_WAITS, 1, &full)) {
        serve_refuse_full(asking, asked->request_id, &full);
        return;
    }
    struct served *served = calloc(1, sizeof *served);
    uint32_t holder = serve_holder_of(asking, asked->space);
    if (!served || holder == STORE_NO_HOLDER) {
        serve_refuse_reader(asked, !served);
        free(served);
        return;
    }
    *served = (struct served){.waiter = {serve_on_resident},
                              .asking = asking,
                              .space = asked->space,
                              .request_id = asked->request_id,
                              .have_copy = lease->have_copy,
                              .generation = lease->item->generation};
    strcpy(served->sample_id, lease->item->sample_id);
    serve_ask_store(served, holder, lease->wait_ms * NS_PER_MS);
}

/* The table in serve.c lets this be called only while the node serves: what a node grants when it
 * may have been taken for dead could have been superseded elsewhere. A ref of an earlier
 * incarnation is LOST for certain: its bytes were in the memory that went with that one. */
void serve_lease(const struct serve_asked *asked) {
    const struct broker *broker = asked->asking->broker;
    const Fb__PeerLease *lease = asked->message->lease;
    char sentence[SENTENCE_BYTES];
    if (!lease->item || layout_check_sample_id(lease->item->sample_id)) {
        serve_refuse_malformed(asked, "it names no sample");
    } else if (nodes_is_earlier_us(broker, lease->item->home, lease->item->incarnation)) {
        snprintf(sentence, sizeof sentence,
                 "sample %s of store %s: node %s has restarted without its memory since this ref "
                 "was made",
                 lease->item->sample_id, asked->space->name, broker->config->node);
        serve_refuse(asked->asking, asked->request_id, FB__STATUS__LOST, sentence);
    } else {
        serve_lease_for(asked);
    }
}

void serve_forget_waiting(struct asking *asking) {
    struct served *served;
    while ((served = TAILQ_FIRST(&asking->waiting)))
        serve_end_wait(served);
}

/* ---- releases ---- */

/* A lease may stand under an earlier connection of the same node, which that node has given up but
 * this node does not know to be dead yet. So all connections of that incarnation are looked at. */
static void serve_release_in(struct asking *asking, struct space *space,
                             const Fb__PeerReleaseItem *item) {
    const struct asking *other;
    enum store_how how = item->consumed ? STORE_CONSUMED_BY_READER : STORE_RETURNED;
    TAILQ_FOREACH (other, &asking->broker->exchange->askings, link)
        if (other == asking ||
            (!strcmp(other->name, asking->name) &&
             asker_incarnation(other->asker) == asker_incarnation(asking->asker)))
            store_release(space->store, other->holders[space->index], item->lease_hi,
                          item->lease_lo, how, asking->broker->now_ns);
}

/* A lease that is not there is no error, because a release may come twice: its first answer may
 * have been lost. The stores are walked and not looked up by name, because a store that was dropped
 * and one made anew may have the same name, and either may have the lease. */
void serve_release(const struct serve_asked *asked) {
    struct asking *asking = asked->asking;
    struct broker *broker = asking->broker;
    const Fb__PeerRelease *release = asked->message->release;
    for (size_t i = 0; i < release->n_items; i++) {
        const Fb__PeerReleaseItem *item = release->items[i];
        if (item->corrupt)
            log_limited(LOG_LEVEL_WARNING, log_source(asking->name),
                        "%s found a checksum mismatch in generation %llu of store %.64s",
                        asking->name, (unsigned long long)item->generation, item->store);
        for (uint32_t k = 0; k < broker->space_end; k++)
            if (broker->spaces[k].used && !strcmp(broker->spaces[k].name, item->store))
                serve_release_in(asking, &broker->spaces[k], item);
    }
    serve_confirm(asked);
}
