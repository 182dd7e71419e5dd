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

/* A lease asked for that waits for the sample to be put. */
struct served {
    struct waiter waiter; /* an effect's tag is a pointer to it */
    TAILQ_ENTRY(served) link;
    struct asking *asking;
    struct space *space;
    uint32_t request_id;
    bool have_copy;
    uint64_t generation;
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

/* Ends the wait of a lease that stands in the list of its asking broker. */
static void serve_served_free(struct served *served) {
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

static void serve_grant(struct asking *asking, struct space *space, uint32_t request_id,
                        bool have_copy, const struct store_lease *lease) {
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
    bool small = lease->place.bytes <= FRAME_INLINE_BYTES_MAX && !have_copy;
    asker_reply(asking->asker, request_id, &reply,
                (const uint8_t *)space->arena.base + lease->place.offset,
                small ? lease->place.bytes : 0);
}

static void serve_settle_lease(struct asking *asking, struct space *space, uint32_t request_id,
                               bool have_copy, const char *sample_id, uint64_t generation,
                               enum store_result result, const struct store_lease *lease,
                               const struct store_refusal *refusal) {
    char sentence[SENTENCE_BYTES];
    if (result == STORE_OK) {
        serve_grant(asking, space, request_id, have_copy, lease);
        return;
    }
    if (result == STORE_E_NOT_FOUND || result == STORE_E_TIMEOUT)
        status_not_found(sentence, asking->broker, space, sample_id, generation);
    else
        status_sentence(sentence, space, result, refusal, sample_id);
    serve_refuse(asking, request_id, status_of(result), sentence);
}

static void serve_on_resident(struct waiter *waiter, const struct store_effect *effect) {
    struct served *served = container_of(waiter, struct served, waiter);
    struct broker *broker = served->asking->broker;
    if (effect->result == STORE_OK && !broker_serves(broker)) {
        store_release(served->space->store, effect->holder, effect->lease.hi, effect->lease.lo,
                      STORE_RETURNED, broker->now_ns);
        serve_refuse(served->asking, served->request_id, FB__STATUS__UNAVAILABLE,
                     broker_fenced_why(broker));
        serve_served_free(served);
        return;
    }
    serve_settle_lease(served->asking, served->space, served->request_id, served->have_copy,
                       served->sample_id, served->generation, effect->result, &effect->lease,
                       &effect->refusal);
    serve_served_free(served);
}

/* The lease was asked for, and cannot even be waited for. */
static void serve_refuse_reader(struct asking *asking, const struct space *space,
                                uint32_t request_id, const char *sample_id, bool no_memory) {
    const struct config *config = asking->broker->config;
    struct store_totals totals;
    char sentence[SENTENCE_BYTES];
    store_totals(space->store, &totals);
    if (no_memory)
        snprintf(sentence, sizeof sentence,
                 "sample %s of store %s: its home, node %s, is out of memory", sample_id,
                 space->name, config->node);
    else
        snprintf(
            sentence, sizeof sentence,
            "sample %s of store %s: node %s has no place for another reader: all %llu places of "
            "sessions and nodes in this store are taken (their number follows from "
            "max_sessions = %u)",
            sample_id, space->name, config->node, (unsigned long long)totals.max_holders,
            config->max_sessions);
    serve_refuse(asking, request_id, no_memory ? FB__STATUS__UNAVAILABLE : FB__STATUS__FULL,
                 sentence);
}

static void serve_lease_for(struct asking *asking, struct space *space, uint32_t request_id,
                            const Fb__PeerLease *asked) {
    struct broker *broker = asking->broker;
    struct charge_refusal full;
    if (!account_has_room(asking->account, CHARGE_WAITS, 1, &full)) {
        serve_refuse_full(asking, request_id, &full);
        return;
    }
    struct served *served = calloc(1, sizeof *served);
    uint32_t holder = serve_holder_of(asking, space);
    if (!served || holder == STORE_NO_HOLDER) {
        serve_refuse_reader(asking, space, request_id, asked->item->sample_id, !served);
        free(served);
        return;
    }
    *served = (struct served){.waiter = {serve_on_resident},
                              .asking = asking,
                              .space = space,
                              .request_id = request_id,
                              .have_copy = asked->have_copy,
                              .generation = asked->item->generation};
    strcpy(served->sample_id, asked->item->sample_id);
    bool cut;
    uint64_t asked_ns = space_cut_wait_ns(space, asked->wait_ms * NS_PER_MS, &cut);
    uint64_t wait_ns = sample_wait_ns(space, served->generation, asked_ns);
    struct store_get get = {
        .sample_id = served->sample_id,
        .sample_id_bytes = (uint32_t)strlen(served->sample_id),
        .generation = served->generation,
        .deadline_ns = broker->now_ns + wait_ns,
        .tag = (uint64_t)(uintptr_t)&served->waiter,
    };
    struct store_lease lease;
    struct store_refusal refusal = {0};
    enum store_result result =
        store_get(space->store, holder, &get, broker->now_ns, &lease, &refusal);
    if (result == STORE_WAIT) {
        TAILQ_INSERT_TAIL(&asking->waiting, served, link);
        account_add(asking->account, CHARGE_WAITS, 1);
        return;
    }
    serve_settle_lease(asking, space, request_id, served->have_copy, served->sample_id,
                       served->generation, result, &lease, &refusal);
    free(served);
}

/* Only while this node serves (the table in serve.c): what it grants when it may have been taken
 * for dead could have been superseded elsewhere. */
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
        serve_lease_for(asked->asking, asked->space, asked->request_id, lease);
    }
}

void serve_forget_waiting(struct asking *asking) {
    struct served *served;
    while ((served = TAILQ_FIRST(&asking->waiting)))
        serve_served_free(served);
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
