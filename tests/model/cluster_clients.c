/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients: the other side of broker_session_request(). What an answer means is told to the
 * contract; bytes held under a lease are read again when the lease ends.
 */
#include "model/cluster_sim.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/cluster_clients.h"
#include "proto/version.h"

#define IDS_BY_NAME 3u /* samples 0, 1, 2 are also asked for by id alone */

const char *const clients_ids[SAMPLE_IDS] = {"s0", "s1", "s2", "s3", "s4", "s5"};
const char *const clients_step_names[STEP_KINDS] = {
    "put",          "reserve", "commit", "cancel", "get", "get by id", "release",
    "release late", "ack",     "abort",  "stat",   "gc",  "leave",     "repeat",
};

const uint8_t *clients_node_bytes(const struct node *node, uint64_t offset) {
    return (const uint8_t *)node_space(node)->arena.base + offset;
}

void held_check(struct world *w, const struct held *held, const char *when) {
    const struct node *node = &w->nodes[held->node];
    if (!payload_matches(clients_node_bytes(node, held->offset), held->claim->nonce,
                         held->claim->bytes))
        contract_broken(&w->contract, "leased bytes changed",
                        "the bytes of put %" PRIx64 ", leased at node %s, had changed %s",
                        held->claim->nonce, node->name, when);
}

/* ---- going ---- */

void clients_send(struct client *client, uint32_t request_id, bool wants_reply,
                  const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes) {
    const char *why;
    struct node *node = client->node;
    uint64_t turn_ns = node->world->now_ns + 5 * US;
    if (turn_ns < node->pump_ns)
        node->pump_ns = turn_ns;
    if (!broker_session_request(client->session, request_id, wants_reply, request, payload,
                                payload_bytes, node_clock_ns(node), &why))
        contract_broken(&node->world->contract, "breach", "a request was called a breach: %s", why);
}

static void abandon(struct world *w, struct asked *asked) {
    asked->answered = true;
    if ((asked->kind == STEP_PUT || asked->kind == STEP_COMMIT) &&
        asked->claim->state == CLAIM_OPEN)
        contract_commit_unknown(&w->contract, asked->claim);
    if ((asked->kind == STEP_ACK || asked->kind == STEP_ABORT) && !asked->claim &&
        !clients_have_no_effect(w, asked))
        clients_id_retired(w, asked, false);
}

/* What it has asked is not answered any more over this connection. */
static void abandon_all(struct client *client) {
    struct world *w = client->node->world;
    for (unsigned i = 1; i < w->asked_count; i++)
        if (w->asked[i].client == client && w->asked[i].serial == client->serial &&
            !w->asked[i].answered)
            abandon(w, &w->asked[i]);
}

/* Its leases end as returned. */
static void forget_session(struct client *client) {
    struct world *w = client->node->world;
    abandon_all(client);
    for (unsigned i = 0; i < w->reserved_count; i++)
        if (w->reserved[i].client == client && w->reserved[i].serial == client->serial)
            w->reserved[i].open = false;
    for (unsigned i = 0; i < w->held_count; i++) {
        struct held *held = &w->held[i];
        if (held->client != client || held->serial != client->serial || held->state != LEASE_HELD)
            continue;
        held_check(w, held, "before its holder died");
        held->state = LEASE_DIED;
        bool at_home = held->claim->home == held->node;
        held->claim->live -= at_home && held->claim->live > 0;
        if (at_home)
            contract_home_settles(&w->contract, held->claim);
    }
    client->session = NULL;
    client->returns = false;
}

/* One that has not come back is missed by its broker's watch on processes. */
void client_leave(struct client *client) {
    if (client->returns && client->node->broker && !client->node->dying)
        client_connect(client);
    if (!client->session && !client->returns)
        return;
    struct broker_session *session = client->session;
    forget_session(client);
    if (session)
        broker_session_close(session, node_clock_ns(client->node));
}

void clients_die(struct node *node) {
    for (unsigned i = 0; i < CLIENTS_PER_NODE; i++)
        client_leave(&node->clients[i]);
}

void clients_lose_broker(struct node *node) {
    for (unsigned i = 0; i < CLIENTS_PER_NODE; i++) {
        struct client *client = &node->clients[i];
        if (!client->session)
            continue;
        abandon_all(client);
        client->session = NULL; /* world_take_apart() closes it, unseen by the next broker */
        client->returns = true;
    }
}

/* ---- asking ---- */

struct asked *clients_ask(struct client *client, enum step_kind kind) {
    struct world *w = client->node->world;
    if (w->asked_count == ASKED_MAX)
        return NULL;
    struct asked *asked = &w->asked[w->asked_count++];
    *asked = (struct asked){.kind = kind,
                            .client = client,
                            .serial = client->serial,
                            .at_ns = w->now_ns,
                            .begun = w->begun ? w->begun : ++w->contract.turn};
    w->done++;
    return asked;
}

uint32_t clients_number(const struct world *w, const struct asked *asked) {
    return (uint32_t)(asked - w->asked);
}

uint64_t clients_new_op(struct client *client, struct asked *asked) {
    client->last_asked = clients_number(client->node->world, asked);
    asked->op_id = ++client->op_id;
    return asked->op_id;
}

static struct claim *any_claim(struct world *w, uint32_t pick) {
    struct contract *c = &w->contract;
    unsigned reach = pick % 4 ? 12 : 64, from = pick / 4 % reach;
    for (unsigned i = from; i < c->claim_count; i++) {
        struct claim *claim = &c->claims[c->claim_count - 1 - i];
        if (claim->state == CLAIM_DONE)
            return claim;
    }
    for (unsigned i = 0; i < c->claim_count; i++)
        if (c->claims[i].state == CLAIM_DONE)
            return &c->claims[i];
    return NULL;
}

static void send_get(struct client *client, struct asked *asked, uint32_t deadline_ms,
                     uint32_t wait_ms, bool checked) {
    struct world *w = client->node->world;
    asked->checked = checked;
    const struct claim *claim = asked->claim;
    Fb__GetItem item = FB__GET_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)clients_ids[asked->id];
    item.want_spec = true;
    if (claim) {
        item.generation = claim->generation;
        item.home = w->nodes[claim->home].name;
        item.incarnation = checked ? claim->incarnation : 0;
    }
    Fb__Get get = FB__GET__INIT;
    get.handle = client->handle;
    get.n_items = 1;
    get.items = items;
    get.deadline_ms = deadline_ms;
    get.wait_ms = wait_ms;
    get.want_landed = true;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    if (claim)
        world_say(w, "#%u %s get put %" PRIx64 " generation %" PRIx64 " of %s",
                  clients_number(w, asked), client->node->name, claim->nonce, claim->generation,
                  item.home);
    else
        world_say(w, "#%u %s get %s by id", clients_number(w, asked), client->node->name,
                  clients_ids[asked->id]);
    clients_send(client, clients_number(w, asked), true, &request, NULL, 0);
}

void client_get(struct client *client, struct claim *claim) {
    struct asked *asked = clients_ask(client, STEP_GET_REF);
    if (!asked)
        return;
    asked->claim = claim;
    asked->id = claim->id;
    if (client->node->index != claim->home)
        contract_far(&client->node->world->contract, claim);
    send_get(client, asked, 200, 0, true);
}

static void do_get_ref(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    struct claim *claim = any_claim(w, step->a);
    struct asked *asked = claim ? clients_ask(client, STEP_GET_REF) : NULL;
    if (!asked)
        return;
    asked->claim = claim;
    asked->id = claim->id;
    if (client->node->index != claim->home)
        contract_far(&w->contract, claim);
    send_get(client, asked, 5 + step->b % 100, 0, step->c % 8 != 0);
}

static unsigned id_by_name(const struct world *w, const struct step *step) {
    return step->a % (w->history->ids < IDS_BY_NAME ? w->history->ids : IDS_BY_NAME);
}

static void do_get_id(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    struct asked *asked = clients_ask(client, STEP_GET_ID);
    if (!asked)
        return;
    asked->id = id_by_name(w, step);
    contract_far_id(&w->contract, asked->id, client->node->index);
    send_get(client, asked, 5 + step->b % 100, step->c % 3 ? 0 : step->c % 20, true);
}

static void send_release(struct client *client, struct asked *asked, const struct held *held,
                         bool consumed, bool wants_reply) {
    struct world *w = client->node->world;
    Fb__ReleaseItem item = FB__RELEASE_ITEM__INIT, *items[1] = {&item};
    item.lease_hi = held->hi;
    item.lease_lo = held->lo;
    item.consumed = consumed;
    Fb__Release release = FB__RELEASE__INIT;
    release.handle = client->handle;
    release.n_items = 1;
    release.items = items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &release;
    world_say(w, "#%u %s release put %" PRIx64 " %s", clients_number(w, asked), client->node->name,
              held->claim->nonce, consumed ? "consumed" : "returned");
    asked->answered = !wants_reply;
    clients_send(client, clients_number(w, asked), wants_reply, &request, NULL, 0);
}

static struct held *any_held(struct world *w, uint32_t pick, const struct client *client) {
    for (unsigned i = 0; i < w->held_count; i++) {
        struct held *held = &w->held[(pick + i) % w->held_count];
        if (held->state == LEASE_HELD && held->client == client)
            return held;
    }
    return NULL;
}

static void said(struct world *w, struct held *held, bool consumed) {
    bool at_home = held->claim->home == held->node;
    if (consumed)
        contract_consumed(&w->contract, held->claim, at_home);
    if (at_home)
        contract_home_settles(&w->contract, held->claim);
}

static void release_held(struct client *client, struct held *held, bool consumed,
                         bool wants_reply) {
    struct world *w = client->node->world;
    struct asked *asked = clients_ask(client, STEP_RELEASE);
    if (!asked)
        return;
    held_check(w, held, "before its release");
    held->state = consumed ? LEASE_SAID_CONSUMED : LEASE_SAID_RETURNED;
    if (held->claim->home == held->node)
        held->claim->live--;
    send_release(client, asked, held, consumed, wants_reply);
    said(w, held, consumed);
}

static void do_release(struct client *client, const struct step *step) {
    struct held *held = any_held(client->node->world, step->a, client);
    if (held)
        release_held(client, held, step->b % 4 != 0, step->c % 2);
}

/* A lease that ended is released once more, by whoever is there. */
static void do_release_late(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    const struct node *node = client->node;
    for (unsigned i = 0; i < w->held_count; i++) {
        struct held *held = &w->held[(step->a + i) % w->held_count];
        if (held->state == LEASE_HELD || held->node != node->index ||
            held->incarnation != node->incarnation)
            continue;
        struct asked *asked = clients_ask(client, STEP_RELEASE_LATE);
        bool counts = held->state != LEASE_SAID_CONSUMED;
        if (!asked)
            return;
        held->state = LEASE_SAID_CONSUMED;
        send_release(client, asked, held, true, true);
        if (counts)
            said(w, held, true);
        return;
    }
}

static void send_retire(struct client *client, struct asked *asked, uint32_t deadline_ms) {
    struct world *w = client->node->world;
    const struct claim *claim = asked->claim;
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)clients_ids[asked->id];
    if (claim) {
        item.generation = claim->generation;
        item.home = w->nodes[claim->home].name;
        item.incarnation = claim->incarnation;
    }
    Fb__Retire retire = FB__RETIRE__INIT;
    retire.handle = client->handle;
    retire.n_items = 1;
    retire.items = items;
    retire.op_id = asked->op_id;
    retire.deadline_ms = deadline_ms;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case =
        asked->kind == STEP_ACK ? FB__CLIENT_REQUEST__OP_ACK : FB__CLIENT_REQUEST__OP_ABORT;
    request.ack = &retire;
    if (claim)
        world_say(w, "#%u %s %s put %" PRIx64 " of %s%s", clients_number(w, asked),
                  client->node->name, clients_step_names[asked->kind], claim->nonce, item.home,
                  asked->repeats ? ", again" : "");
    else
        world_say(w, "#%u %s %s %s by id%s", clients_number(w, asked), client->node->name,
                  clients_step_names[asked->kind], clients_ids[asked->id],
                  asked->repeats ? ", again" : "");
    clients_send(client, clients_number(w, asked), true, &request, NULL, 0);
}

static void retire_begins(struct world *w, const struct asked *asked) {
    if (clients_have_no_effect(w, asked))
        return;
    world_may_not_know(asked->client->node, asked->id);
    if (asked->claim)
        contract_retire_begins(&w->contract, asked->claim);
    else
        contract_retire_id_begins(&w->contract, asked->id, asked->home, asked->incarnation);
}

static void do_retire(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    struct contract *c = &w->contract;
    bool by_id = step->b % 4 == 0, ack = step->kind == STEP_ACK;
    struct claim *claim = by_id ? NULL : any_claim(w, step->a);
    struct asked *asked = claim || by_id ? clients_ask(client, step->kind) : NULL;
    if (!asked)
        return;
    asked->claim = claim;
    asked->id = claim ? claim->id : id_by_name(w, step);
    asked->home = ack || c->index ? EVERYWHERE : client->node->index;
    asked->incarnation = client->node->incarnation;
    clients_new_op(client, asked);
    retire_begins(w, asked);
    send_retire(client, asked, 5 + step->c % 100);
}

static void do_stat(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    struct claim *claim = any_claim(w, step->a);
    struct asked *asked = claim ? clients_ask(client, STEP_STAT) : NULL;
    if (!asked)
        return;
    asked->claim = claim;
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)clients_ids[claim->id];
    item.generation = claim->generation;
    item.home = w->nodes[claim->home].name;
    item.incarnation = claim->incarnation;
    Fb__Stat stat = FB__STAT__INIT;
    stat.handle = client->handle;
    stat.n_items = 1;
    stat.items = items;
    stat.deadline_ms = 5 + step->b % 100;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STAT;
    request.stat = &stat;
    world_say(w, "#%u %s stat put %" PRIx64 " of %s", clients_number(w, asked), client->node->name,
              claim->nonce, item.home);
    clients_send(client, clients_number(w, asked), true, &request, NULL, 0);
}

static void do_gc(struct client *client, const struct step *step) {
    struct node *node = client->node;
    struct asked *asked = clients_ask(client, STEP_GC);
    if (!asked)
        return;
    contract_gc_begins(&node->world->contract, node->index, node->incarnation);
    Fb__Gc gc = FB__GC__INIT;
    gc.handle = client->handle;
    gc.max_hold_ms = 5 + step->a % 40;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GC;
    request.gc = &gc;
    world_say(node->world, "#%u %s gc older than %u ms", clients_number(node->world, asked),
              node->name, (unsigned)gc.max_hold_ms);
    clients_send(client, clients_number(node->world, asked), true, &request, NULL, 0);
}

static void do_leave(struct client *client, const struct step *step) {
    (void)step;
    client->node->world->done++;
    world_say(client->node->world, "%s: client %u dies", client->node->name,
              (unsigned)(client - client->node->clients));
    client_leave(client);
}

/* The one that it was put in, if it is the client's still; else one that cannot be. */
static uint64_t reservation_of(const struct client *client, const struct claim *claim) {
    const struct world *w = client->node->world;
    for (unsigned i = 0; i < w->reserved_count; i++)
        if (w->reserved[i].claim == claim && w->reserved[i].serial == client->serial)
            return w->reserved[i].reservation;
    return 1;
}

/* The connection breaks, and the client says its last operation again over a new one. */
static void do_repeat(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    const struct asked *first = &w->asked[client->last_asked];
    if (!client->last_asked || (first->claim && first->kind < STEP_GET_REF &&
                                first->claim->incarnation != client->node->incarnation))
        return;
    if (step->a % 3)
        client_leave(client);
    else if (!first->answered)
        return; /* a client says an operation again only when its connection broke */
    client_connect(client);
    struct asked *asked = clients_ask(client, first->kind);
    if (!asked)
        return;
    first = &w->asked[client->last_asked];
    asked->claim = first->claim;
    asked->id = first->id;
    asked->home = first->home;
    asked->incarnation = client->node->incarnation;
    asked->op_id = first->op_id;
    asked->repeats = client->last_asked;
    client->last_asked = clients_number(w, asked);
    bool put = first->kind == STEP_PUT || first->kind == STEP_COMMIT;
    if (put)
        world_may_not_know(client->node, first->claim->id);
    if (put && first->claim->state != CLAIM_DONE)
        contract_commit_again(&w->contract, first->claim);
    if (first->kind == STEP_PUT)
        clients_send_put(client, asked, 0);
    else if (first->kind == STEP_COMMIT)
        clients_send_commit(client, asked, reservation_of(client, first->claim));
    else {
        retire_begins(w, asked);
        send_retire(client, asked, 50);
    }
}

void client_step(struct world *w, const struct step *step) {
    static void (*const steps[STEP_KINDS])(struct client * client, const struct step *step) = {
        [STEP_PUT] = clients_put,       [STEP_RESERVE] = clients_reserve,
        [STEP_COMMIT] = clients_commit, [STEP_CANCEL] = clients_cancel,
        [STEP_GET_REF] = do_get_ref,    [STEP_GET_ID] = do_get_id,
        [STEP_RELEASE] = do_release,    [STEP_RELEASE_LATE] = do_release_late,
        [STEP_ACK] = do_retire,         [STEP_ABORT] = do_retire,
        [STEP_STAT] = do_stat,          [STEP_GC] = do_gc,
        [STEP_LEAVE] = do_leave,        [STEP_REPEAT] = do_repeat,
    };
    struct node *node = &w->nodes[step->node % w->node_count];
    struct client *client = &node->clients[step->client % CLIENTS_PER_NODE];
    if (!node->broker || !steps[step->kind])
        return;
    if (node->paused) {
        if (node->deferred_count == DEFERRED_MAX)
            return;
        node->deferred_begun[node->deferred_count] = ++w->contract.turn;
        node->deferred[node->deferred_count++] = *step;
        return;
    }
    client->node = node;
    if (!client->client_id)
        client->client_id = 1 + node->index * CLIENTS_PER_NODE + step->client % CLIENTS_PER_NODE;
    if (step->kind != STEP_LEAVE)
        client_connect(client);
    steps[step->kind](client, step);
}

/* ---- at the end ---- */

void clients_consume(struct client *client, unsigned less) {
    struct world *w = client->node->world;
    client_connect(client);
    for (unsigned i = 0; i < w->held_count; i++)
        if (w->held[i].state == LEASE_HELD && w->held[i].client == client && !(less && less--))
            release_held(client, &w->held[i], true, false);
}

void clients_let_go(struct node *node) {
    struct world *w = node->world;
    for (unsigned i = 0; i < w->held_count; i++)
        if (w->held[i].state == LEASE_HELD && w->held[i].node == node->index) {
            client_connect(w->held[i].client);
            release_held(w->held[i].client, &w->held[i], false, true);
        }
}

unsigned clients_unanswered(const struct world *w, const struct asked **first) {
    unsigned count = 0;
    for (unsigned i = w->asked_count; i-- > 1;)
        if (!w->asked[i].answered) {
            *first = &w->asked[i];
            count++;
        }
    return count;
}
