/* SPDX-License-Identifier: Apache-2.0
 *
 * Answering other brokers. An asking broker is one holder in each store it touches; all it holds is
 * returned when its connection is proven dead. It acts for its clients: what it may do was settled
 * by the cluster secret, and its clients' rights by itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/index_check.h"
#include "exchange/serve.h"
#include "exchange/twin.h"
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

void *serve_open(void *owner, struct asker *asker, const char *node, uint64_t incarnation) {
    (void)incarnation;
    struct broker *broker = owner;
    struct asking *asking = calloc(1, sizeof *asking);
    struct account *account = asking ? accounts_peer(broker, node) : NULL;
    struct charge_refusal full;
    if (account && !account_charge(account, CHARGE_CONNECTIONS, 1, &full)) {
        char sentence[SENTENCE_BYTES];
        account_sentence(sentence, sizeof sentence, &full);
        log_limited(LOG_LEVEL_WARNING, log_source(node),
                    "node %s may not ask over one more connection: %s", node, sentence);
        accounts_unhold(broker, account);
        account = NULL;
    }
    if (!account) {
        free(asking);
        return NULL;
    }
    asking->account = account;
    asking->broker = broker;
    asking->asker = asker;
    owner_add(broker, &asking->owner, asking->name);
    snprintf(asking->name, sizeof asking->name, "node %s", node);
    for (uint32_t i = 0; i < SPACES_MAX; i++)
        asking->holders[i] = STORE_NO_HOLDER;
    TAILQ_INIT(&asking->waiting);
    TAILQ_INSERT_TAIL(&broker->exchange->askings, asking, link);
    return asking;
}

void serve_closed(void *owner, void *user) {
    struct broker *broker = owner;
    struct asking *asking = user;
    if (!asking)
        return;
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (asking->holders[i] != STORE_NO_HOLDER)
            (void)space_leave(broker, &broker->spaces[i], asking->holders[i], asking->account);
    struct served *served;
    while ((served = TAILQ_FIRST(&asking->waiting))) {
        serve_served_free(served);
    }
    index_forget_checks(broker, asking);
    held_checks_forget(broker, asking);
    TAILQ_REMOVE(&broker->exchange->askings, asking, link);
    owner_remove(&asking->owner);
    account_release(asking->account, CHARGE_CONNECTIONS, 1);
    accounts_unhold(broker, asking->account);
    free(asking);
}

void serve_leave_space(struct broker *broker, struct space *space) {
    struct asking *asking;
    TAILQ_FOREACH (asking, &broker->exchange->askings, link) {
        struct store_totals totals;
        store_totals(space->store, &totals);
        if (asking->holders[space->index] != STORE_NO_HOLDER && !totals.leases) {
            store_holder_close(space->store, asking->holders[space->index], broker->now_ns);
            asking->holders[space->index] = STORE_NO_HOLDER;
        }
    }
}

void serve_refuse(struct asking *asking, uint32_t request_id, Fb__Status status,
                  const char *sentence) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)sentence;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

/* The answer to what has no result of its own: it has been done. */
static void serve_confirm(struct asking *asking, uint32_t request_id) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

void serve_refuse_full(struct asking *asking, uint32_t request_id,
                       const struct charge_refusal *full) {
    char sentence[SENTENCE_BYTES];
    account_sentence(sentence, sizeof sentence, full);
    serve_refuse(asking, request_id, FB__STATUS__FULL, sentence);
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

/* ---- leases ---- */

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

bool serve_wrong_incarnation(const struct broker *broker, const char *home, uint64_t incarnation) {
    return incarnation && incarnation != broker->options.incarnation &&
           (!*home || !strcmp(home, broker->config->node));
}

static void serve_on_lease(struct asking *asking, uint32_t request_id, const Fb__PeerLease *asked) {
    struct broker *broker = asking->broker;
    struct space *space = space_find(broker, asked->store);
    char sentence[SENTENCE_BYTES];
    if (!asked->item || layout_check_sample_id(asked->item->sample_id)) {
        serve_refuse(asking, request_id, FB__STATUS__INVALID, "a lease asked for without a sample");
    } else if (!space) {
        snprintf(sentence, sizeof sentence, "store %.64s does not exist on node %s", asked->store,
                 broker->config->node);
        serve_refuse(asking, request_id, FB__STATUS__NOT_FOUND, sentence);
    } else if (serve_wrong_incarnation(broker, asked->item->home, asked->item->incarnation)) {
        snprintf(sentence, sizeof sentence,
                 "sample %s of store %s: node %s has restarted without its memory since this ref "
                 "was made",
                 asked->item->sample_id, space->name, broker->config->node);
        serve_refuse(asking, request_id, FB__STATUS__LOST, sentence);
    } else if (twin_was_first(broker)) {
        char trouble[TROUBLE_BYTES];
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE,
                     broker_trouble(broker, "", trouble));
    } else if (!broker_serves(broker)) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, broker_fenced_why(broker));
    } else {
        serve_lease_for(asking, space, request_id, asked);
    }
}

/* ---- the rest ---- */

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
static void serve_on_release(struct asking *asking, const Fb__PeerRelease *asked) {
    struct broker *broker = asking->broker;
    for (size_t i = 0; i < asked->n_items; i++) {
        const Fb__PeerReleaseItem *item = asked->items[i];
        if (item->corrupt)
            log_limited(LOG_LEVEL_WARNING, log_source(asking->name),
                        "%s found a checksum mismatch in generation %llu of store %.64s",
                        asking->name, (unsigned long long)item->generation, item->store);
        for (uint32_t k = 0; k < broker->space_end; k++)
            if (broker->spaces[k].used && !strcmp(broker->spaces[k].name, item->store))
                serve_release_in(asking, &broker->spaces[k], item);
    }
}

static void serve_on_probe(struct asking *asking, uint32_t request_id, const char *store,
                           const Fb__RetireItem *item, bool explain) {
    const struct broker *broker = asking->broker;
    struct space *space = space_find(asking->broker, store);
    struct ref ref = {0};
    if (!space || !item || ref_from_item(&ref, item)) {
        char sentence[SENTENCE_BYTES];
        snprintf(sentence, sizeof sentence, "store %.64s does not exist on node %s", store,
                 broker->config->node);
        serve_refuse(asking, request_id, FB__STATUS__NOT_FOUND, sentence);
        return;
    }
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = explain ? FB__PEER_REPLY__RESULT_EXPLAIN : FB__PEER_REPLY__RESULT_STAT;
    if (explain)
        reply.explain = explain_here(broker, space, &ref);
    else
        reply.stat = stat_here(broker, space, &ref,
                               broker_serves(broker) ? NULL : broker_fenced_why(broker));
    if (explain ? !reply.explain : !reply.stat)
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the home is out of memory");
    else
        asker_reply(asking->asker, request_id, &reply, NULL, 0);
    if (explain && reply.explain)
        fb__explain_reply__free_unpacked(reply.explain, NULL);
    else if (!explain && reply.stat)
        fb__stat_result__free_unpacked(reply.stat, NULL);
}

static void serve_on_list(struct asking *asking, uint32_t request_id, const Fb__List *asked) {
    const struct broker *broker = asking->broker;
    const struct space *space = asked ? list_space(broker, asked->store, asked->cursor) : NULL;
    Fb__ListReply none = FB__LIST_REPLY__INIT; /* of a store that this node does not have */
    Fb__ListReply *page = space ? list_here(broker, space, asked, false) : &none;
    if (!page) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the node is out of memory");
        return;
    }
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_LIST;
    reply.list = page;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
    if (page != &none)
        fb__list_reply__free_unpacked(page, NULL);
}

static void serve_on_health(struct asking *asking, uint32_t request_id) {
    struct health health;
    health_fill(asking->broker, &health);
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_HEALTH;
    reply.health = &health.reply;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

static void serve_on_region(struct asking *asking, uint32_t request_id, uint32_t region) {
    uint8_t key[TRANSPORT_KEY_BYTES_MAX];
    int key_bytes = asker_region_key(asking->asker, region, key, sizeof key);
    if (key_bytes < 0) {
        serve_refuse(asking, request_id, FB__STATUS__NOT_FOUND, "the store's memory is gone");
        return;
    }
    Fb__PeerRegionReply result = FB__PEER_REGION_REPLY__INIT;
    result.key = (ProtobufCBinaryData){(size_t)key_bytes, key};
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_REGION;
    reply.region = &result;
    asker_reply(asking->asker, request_id, &reply, NULL, 0);
}

void serve_request(void *owner, void *user, uint32_t request_id, bool wants_reply,
                   const Fb__PeerRequest *request) {
    (void)owner;
    struct asking *asking = user;
    struct broker *broker = asking->broker;
    if (broker->options.clock_ns)
        broker->now_ns = broker->options.clock_ns(broker->options.owner);
    broker->request_count++;
    switch (request->op_case) {
    case FB__PEER_REQUEST__OP_LEASE:
        serve_on_lease(asking, request_id, request->lease);
        return;
    case FB__PEER_REQUEST__OP_REGION:
        serve_on_region(asking, request_id, request->region->region);
        return;
    case FB__PEER_REQUEST__OP_STAT:
        serve_on_probe(asking, request_id, request->stat->store, request->stat->item, false);
        return;
    case FB__PEER_REQUEST__OP_EXPLAIN:
        serve_on_probe(asking, request_id, request->explain->store, request->explain->item, true);
        return;
    case FB__PEER_REQUEST__OP_HEALTH:
        serve_on_health(asking, request_id);
        return;
    case FB__PEER_REQUEST__OP_LIST:
        serve_on_list(asking, request_id, request->list->list);
        return;
    case FB__PEER_REQUEST__OP_INDEX_CHECK:
        index_serve_check(asking, request_id, request->index_check);
        return;
    case FB__PEER_REQUEST__OP_RELEASE:
        serve_on_release(asking, request->release);
        break;
    case FB__PEER_REQUEST__OP_RETIRE:
        if (serve_retire(asking, request_id, request->retire))
            return;
        break;
    default:
        serve_refuse(asking, request_id, FB__STATUS__UNSUPPORTED,
                     "this node does not know that request");
        return;
    }
    if (wants_reply)
        serve_confirm(asking, request_id);
}
