/* SPDX-License-Identifier: Apache-2.0
 *
 * What an answer of a broker means to the simulated client that asked, told to the contract.
 */
#include "model/cluster_sim.h"

#include <inttypes.h>
#include <string.h>

#include "exchange/exchange_internal.h"
#include "model/cluster_clients.h"

bool client_is_current(const struct client *client, uint64_t serial) {
    return client->session && client->serial == serial;
}

static void add_held(struct world *w, struct client *client, struct claim *claim,
                     const Fb__GetResult *result) {
    struct node *node = client->node;
    if (w->held_count == LEASES_MAX)
        return;
    w->held[w->held_count++] = (struct held){.client = client,
                                             .serial = client->serial,
                                             .node = node->index,
                                             .incarnation = node->incarnation,
                                             .claim = claim,
                                             .hi = result->lease_hi,
                                             .lo = result->lease_lo,
                                             .offset = result->extent_offset};
    claim->live += claim->home == node->index;
}

/* What a client may have read before the answer, if the answer says that it counts. */
static void judge_landed(struct world *w, const struct asked *asked, const struct claim *claim,
                         const Fb__GetResult *result) {
    const struct landed *landed = &asked->landed;
    if (!landed->bytes || landed->transfer != result->transfer ||
        landed->offset != result->extent_offset)
        return;
    if (landed->nonce != claim->nonce)
        contract_broken(&w->contract, "told too early",
                        "%" PRIu64 " bytes of put %" PRIx64 " were said to have landed at node %s, "
                        "and were not its own then",
                        landed->bytes, claim->nonce, asked->client->node->name);
}

static void granted(struct world *w, const struct asked *asked, const Fb__GetResult *result) {
    struct contract *c = &w->contract;
    struct client *client = asked->client;
    const uint8_t *at = clients_node_bytes(client->node, result->extent_offset);
    struct claim *claim = contract_find(c, payload_nonce(at));
    if (!claim || claim->id != asked->id || (asked->claim && claim != asked->claim) ||
        !payload_matches(at, claim->nonce, claim->bytes)) {
        contract_broken(c, "wrong bytes",
                        "a get of %s at node %s was granted generation %" PRIx64
                        " with bytes that are not its own",
                        clients_ids[asked->id], client->node->name, result->generation);
        return;
    }
    world_say(w, "  #%u granted: put %" PRIx64 " generation %" PRIx64 "%s",
              (unsigned)(asked - w->asked), claim->nonce, result->generation,
              result->over_network ? " over the network" : "");
    if (*result->home && (strcmp(result->home, w->nodes[claim->home].name) ||
                          result->incarnation != claim->incarnation))
        contract_broken(
            c, "wrong home",
            "put %" PRIx64 " of node %s was granted as one of node %s, incarnation %" PRIx64,
            claim->nonce, w->nodes[claim->home].name, result->home, result->incarnation);
    judge_landed(w, asked, claim, result);
    contract_granted(c, claim, result->generation, asked->begun);
    add_held(w, client, claim, result);
}

/* With an index, a node that was away may have been declared dead for a while. */
static void called_lost(struct world *w, const struct claim *claim) {
    if (!w->contract.index || !w->nodes[claim->home].away)
        contract_called_lost(&w->contract, claim);
}

static void on_get(struct world *w, struct asked *asked, const Fb__GetResult *result) {
    struct contract *c = &w->contract;
    if (result->status == FB__STATUS__OK)
        granted(w, asked, result);
    else if (result->status == FB__STATUS__NOT_FOUND && asked->claim)
        contract_not_found(c, asked->claim, asked->begun, asked->checked);
    else if (result->status == FB__STATUS__NOT_FOUND && !w->forgot)
        contract_id_not_found(c, asked->id, asked->begun); /* else: until its home has noticed */
    else if (result->status == FB__STATUS__LOST && asked->claim)
        called_lost(w, asked->claim);
    else if (result->status == FB__STATUS__INTERNAL || result->status == FB__STATUS__INVALID)
        contract_broken(c, "internal", "a get was answered: %s", result->error);
}

static void on_put(struct world *w, struct asked *asked, const Fb__PutResult *result) {
    struct contract *c = &w->contract;
    bool repeats_done = asked->repeats && asked->claim->state == CLAIM_DONE;
    /* As when a generation is given a second time: the store does not take it. */
    if (result->status == FB__STATUS__INTERNAL || result->status == FB__STATUS__INVALID)
        contract_broken(c, "internal", "a put was answered: %s", result->error);
    if (result->status == FB__STATUS__OK) {
        contract_commit_done(c, asked->claim, result->generation);
        world_say(w, "  #%u put %" PRIx64 " is generation %" PRIx64, (unsigned)(asked - w->asked),
                  asked->claim->nonce, result->generation);
    } else if (!repeats_done) {
        bool surely = !asked->repeats && !(c->index && result->status == FB__STATUS__UNAVAILABLE);
        contract_commit_failed(c, asked->claim, surely);
    }
}

static void on_reserve(struct world *w, struct asked *asked, const Fb__PutResult *result) {
    struct client *client = asked->client;
    if (result->status != FB__STATUS__OK || w->reserved_count == CLAIMS_MAX)
        return;
    clients_fill((uint8_t *)clients_node_bytes(client->node, result->extent_offset),
                 asked->claim->nonce, asked->claim->bytes);
    w->reserved[w->reserved_count++] = (struct reserved){.claim = asked->claim,
                                                         .client = client,
                                                         .serial = client->serial,
                                                         .reservation = result->reservation,
                                                         .offset = result->extent_offset,
                                                         .open = true};
}

/* An ack answered OK whose home has not heard of it yet. */
static bool ack_is_on_its_way(const struct node *node, const struct claim *claim) {
    const struct peer *home = peers_find(node->peers, node->world->nodes[claim->home].name);
    const struct outbox *outbox = home ? peer_user(home) : NULL;
    const struct pending_end *end;
    if (!outbox)
        return false;
    TAILQ_FOREACH (end, &outbox->waiting, link)
        if (end->is_ack && end->generation == claim->generation)
            return true;
    TAILQ_FOREACH (end, &outbox->sent, link)
        if (end->is_ack && end->generation == claim->generation)
            return true;
    return false;
}

void clients_id_retired(struct world *w, const struct asked *asked, bool ok) {
    struct contract *c = &w->contract;
    const struct node *node = asked->client->node;
    bool ack = asked->kind == STEP_ACK;
    unsigned sure_home = c->index && !ack ? EVERYWHERE : node->index;
    const char *why = ack ? "acked by id" : "aborted by id";
    /* One said again may have done its work the first time, before later puts. */
    contract_retire_id_ends(c, asked->id, asked->home, sure_home, asked->incarnation, asked->begun,
                            ok && !asked->repeats ? why : NULL);
    if (!ok && asked->home == EVERYWHERE && !c->index)
        contract_retire_id_unknown(c, asked->id);
}

bool clients_have_no_effect(const struct world *w, const struct asked *asked) {
    return asked->kind == STEP_ACK && w->contract.policy == CONTRACT_RETAIN;
}

static void on_retire(struct world *w, struct asked *asked, const Fb__ItemResult *result) {
    bool ok = result->status == FB__STATUS__OK;
    if (clients_have_no_effect(w, asked))
        return;
    if (!asked->claim)
        clients_id_retired(w, asked, ok);
    else if (ok && !ack_is_on_its_way(asked->client->node, asked->claim))
        contract_gone(&w->contract, asked->claim, asked->kind == STEP_ACK ? "acked" : "aborted");
}

static void on_stat(struct world *w, struct asked *asked, const Fb__StatResult *result) {
    struct contract *c = &w->contract;
    const struct claim *claim = asked->claim;
    if (result->status == FB__STATUS__NOT_FOUND)
        contract_not_found(c, claim, asked->begun, true);
    else if (result->status == FB__STATUS__LOST)
        called_lost(w, claim);
    else if (result->status == FB__STATUS__OK && result->info &&
             result->info->state == FB__SAMPLE_STATE__RESIDENT && claim->gone < asked->begun &&
             !contract_is_excused(c, claim, asked->begun))
        contract_broken(c, "shown after its end",
                        "put %" PRIx64 " was shown as resident after it had ended: %s",
                        claim->nonce, claim->gone_why);
    else if (result->status == FB__STATUS__OK && result->info && !claim->threats &&
             result->info->state != FB__SAMPLE_STATE__RESIDENT)
        contract_broken(c, "shown as gone",
                        "put %" PRIx64 " was shown in state %d, reason %d, "
                        "though nothing ended it",
                        claim->nonce, (int)result->info->state, (int)result->info->reason);
}

static void on_refused(struct world *w, struct asked *asked, const Fb__ClientReply *reply) {
    if (reply->status == FB__STATUS__INTERNAL || reply->status == FB__STATUS__INVALID)
        contract_broken(&w->contract, "internal", "a %s was answered: %s",
                        clients_step_names[asked->kind], reply->error);
    Fb__PutResult put = FB__PUT_RESULT__INIT;
    put.status = reply->status;
    Fb__ItemResult item = FB__ITEM_RESULT__INIT;
    item.status = reply->status;
    if (asked->kind == STEP_PUT || asked->kind == STEP_COMMIT)
        on_put(w, asked, &put);
    else if (asked->kind == STEP_ACK || asked->kind == STEP_ABORT)
        on_retire(w, asked, &item);
}

static void on_greeting(struct client *client, const Fb__ClientReply *reply) {
    struct contract *c = &client->node->world->contract;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_STORE_OPENED)
        client->handle = reply->store_opened->handle;
    if (reply->result_case != FB__CLIENT_REPLY__RESULT_HELLO)
        return;
    if (client->returns && !reply->hello->resumed)
        contract_broken(c, "session lost", "a client of node %s came back, and has a new session",
                        client->node->name);
    client->session_id = reply->hello->session_id;
    if (reply->hello->token.len == sizeof client->token)
        memcpy(client->token, reply->hello->token.data, sizeof client->token);
}

static void on_reply(void *context, uint32_t request_id, const Fb__ClientReply *reply, int fd) {
    struct client *client = context;
    struct world *w = client->node->world;
    (void)fd;
    if (client->node->dying)
        return;
    if (request_id >= GREETING_BASE) {
        on_greeting(client, reply);
        return;
    }
    struct asked *asked = &w->asked[request_id];
    if (asked->answered || asked->client != client || asked->serial != client->serial)
        contract_broken(&w->contract, "answered twice",
                        "request #%u was answered twice, or in another session", request_id);
    asked->answered = true;
    if (reply->status != FB__STATUS__OK)
        world_say(w, "  #%u refused: %s", request_id, reply->error);
    switch (reply->result_case) {
    case FB__CLIENT_REPLY__RESULT_GET:
        if (reply->get->items[0]->status)
            world_say(w, "  #%u: %s", request_id, reply->get->items[0]->error);
        on_get(w, asked, reply->get->items[0]);
        break;
    case FB__CLIENT_REPLY__RESULT_PUT:
        if (reply->put->items[0]->status)
            world_say(w, "  #%u: %s", request_id, reply->put->items[0]->error);
        if (asked->kind == STEP_RESERVE)
            on_reserve(w, asked, reply->put->items[0]);
        else
            on_put(w, asked, reply->put->items[0]);
        break;
    case FB__CLIENT_REPLY__RESULT_ITEMS:
        if (asked->kind == STEP_ACK || asked->kind == STEP_ABORT) {
            world_say(w, "  #%u: status %d %s", request_id, (int)reply->items->items[0]->status,
                      reply->items->items[0]->error);
            on_retire(w, asked, reply->items->items[0]);
        }
        break;
    case FB__CLIENT_REPLY__RESULT_STAT:
        on_stat(w, asked, reply->stat->items[0]);
        break;
    default:
        if (reply->status != FB__STATUS__OK)
            on_refused(w, asked, reply);
    }
}

static void on_landed(struct client *client, struct asked *asked, const Fb__Landed *told) {
    struct world *w = client->node->world;
    struct landed *landed = &asked->landed;
    if (told->item != 0 || !told->transfer || !told->bytes || asked->answered ||
        !client_is_current(client, asked->serial) ||
        (landed->transfer == told->transfer && told->bytes <= landed->bytes))
        contract_broken(&w->contract, "odd notice", "node %s told of %" PRIu64 " bytes of item %u",
                        client->node->name, told->bytes, told->item);
    const uint8_t *at = clients_node_bytes(client->node, told->extent_offset);
    const struct claim *claim = contract_find(&w->contract, payload_nonce(at));
    uint64_t bytes = !claim || told->bytes < claim->bytes ? told->bytes : claim->bytes;
    bool whole = claim && payload_matches(at, claim->nonce, bytes);
    *landed = (struct landed){.transfer = told->transfer,
                              .offset = told->extent_offset,
                              .bytes = told->bytes,
                              .nonce = whole ? claim->nonce : 0};
}

static void on_notice(void *context, uint32_t request_id, const Fb__ClientNotice *notice) {
    struct client *client = context;
    if (!client->node->dying && notice->note_case == FB__CLIENT_NOTICE__NOTE_LANDED)
        on_landed(client, &client->node->world->asked[request_id], notice->landed);
}

const struct broker_client_ops clients_ops = {.reply = on_reply, .notice = on_notice};
