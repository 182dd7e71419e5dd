/* SPDX-License-Identifier: Apache-2.0
 *
 * The requests of a life, and what is made of the answers: an item that is not OK makes its request
 * refused; an OK without the result that belongs to it is INTERNAL, for then an answer was lost.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memory/life.h"

/* ---- clients ---- */

static void client_note(struct client *client, Fb__Status status, const char *error) {
    if (client->status != FB__STATUS__OK || status == FB__STATUS__OK)
        return;
    client->status = status;
    snprintf(client->error, sizeof client->error, "%s", error);
}

static void client_reply(void *owner, uint32_t request_id, const Fb__ClientReply *reply, int fd) {
    struct client *client = owner;
    (void)request_id, (void)fd;
    client->answered = true;
    if (reply->status == FB__STATUS__OK && reply->result_case != client->result)
        client_note(client, FB__STATUS__INTERNAL, "OK, and no answer");
    client_note(client, reply->status, reply->error);
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_PUT) {
        for (size_t i = 0; i < reply->put->n_items; i++)
            client_note(client, reply->put->items[i]->status, reply->put->items[i]->error);
        client->reservation = reply->put->items[0]->reservation;
        client->generation = reply->put->items[0]->generation;
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET) {
        for (size_t i = 0; i < reply->get->n_items; i++)
            client_note(client, reply->get->items[i]->status, reply->get->items[i]->error);
        client->lease_hi = reply->get->items[0]->lease_hi;
        client->lease_lo = reply->get->items[0]->lease_lo;
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_ITEMS) {
        for (size_t i = 0; i < reply->items->n_items; i++)
            client_note(client, reply->items->items[i]->status, reply->items->items[i]->error);
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_STAT) {
        for (size_t i = 0; i < reply->stat->n_items; i++)
            if (reply->stat->items[i]->status == FB__STATUS__OK && !reply->stat->items[i]->info)
                client_note(client, FB__STATUS__INTERNAL, "OK, and no answer");
        for (size_t i = 0; i < reply->stat->n_items; i++)
            client_note(client, reply->stat->items[i]->status, reply->stat->items[i]->error);
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_EXPLAIN) {
        for (size_t i = 0; i < reply->explain->n_says; i++)
            client_note(client, reply->explain->says[i]->status, reply->explain->says[i]->sentence);
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_NODES) {
        for (size_t i = 0; i < reply->nodes->n_nodes; i++)
            if (!reply->nodes->nodes[i]->health && !*reply->nodes->nodes[i]->silence)
                client_note(client, FB__STATUS__INTERNAL, "neither health nor silence");
        for (size_t i = 0; i < reply->nodes->n_nodes; i++)
            if (*reply->nodes->nodes[i]->silence)
                client_note(client, FB__STATUS__UNAVAILABLE, reply->nodes->nodes[i]->silence);
    }
}

static void client_notice(void *client, uint32_t request_id, const Fb__ClientNotice *notice) {
    (void)client, (void)request_id, (void)notice;
}

static const struct broker_client_ops client_ops = {client_reply, client_notice};

/* Of stat only what this node itself has seen is asked for here: who of the others was silent, and
 * why, is not in its answer. */
static bool is_said_of_one_node(const char *what, const char *sentence) {
    return !strcmp(what, "stat") && strstr(sentence, "was never seen on node");
}

static void note_refusal(struct world *w, const char *what, Fb__Status status,
                         const char *sentence) {
    if (w->refused || is_said_of_one_node(what, sentence))
        return;
    w->refused = true;
    snprintf(w->first_refusal, sizeof w->first_refusal, "%s: status %d: %s", what, (int)status,
             sentence);
}

static Fb__ClientReply__ResultCase result_of(Fb__ClientRequest__OpCase op) {
    switch (op) {
    case FB__CLIENT_REQUEST__OP_HELLO:
        return FB__CLIENT_REPLY__RESULT_HELLO;
    case FB__CLIENT_REQUEST__OP_STORE_OPEN:
        return FB__CLIENT_REPLY__RESULT_STORE_OPENED;
    case FB__CLIENT_REQUEST__OP_STORES:
        return FB__CLIENT_REPLY__RESULT_STORES;
    case FB__CLIENT_REQUEST__OP_RESERVE:
    case FB__CLIENT_REQUEST__OP_COMMIT:
    case FB__CLIENT_REQUEST__OP_PUT:
        return FB__CLIENT_REPLY__RESULT_PUT;
    case FB__CLIENT_REQUEST__OP_GET:
        return FB__CLIENT_REPLY__RESULT_GET;
    case FB__CLIENT_REQUEST__OP_ACK:
    case FB__CLIENT_REQUEST__OP_ABORT:
        return FB__CLIENT_REPLY__RESULT_ITEMS;
    case FB__CLIENT_REQUEST__OP_STAT:
        return FB__CLIENT_REPLY__RESULT_STAT;
    case FB__CLIENT_REQUEST__OP_LIST:
        return FB__CLIENT_REPLY__RESULT_LIST;
    case FB__CLIENT_REQUEST__OP_LEASES:
        return FB__CLIENT_REPLY__RESULT_LEASES;
    case FB__CLIENT_REQUEST__OP_EXPLAIN:
        return FB__CLIENT_REPLY__RESULT_EXPLAIN;
    case FB__CLIENT_REQUEST__OP_HEALTH:
        return FB__CLIENT_REPLY__RESULT_HEALTH;
    case FB__CLIENT_REQUEST__OP_NODES:
        return FB__CLIENT_REPLY__RESULT_NODES;
    case FB__CLIENT_REQUEST__OP_SESSIONS:
        return FB__CLIENT_REPLY__RESULT_SESSIONS;
    default:
        return FB__CLIENT_REPLY__RESULT__NOT_SET;
    }
}

/* True: carried out. */
static bool client_ask(struct client *client, const char *what, const Fb__ClientRequest *request,
                       const uint8_t *payload, size_t payload_bytes) {
    struct world *w = client->node->world;
    const char *why = "";
    if (!client->session)
        return false;
    client->answered = false;
    client->status = FB__STATUS__OK;
    client->result = result_of(request->op_case);
    client->reservation = client->generation = client->lease_hi = client->lease_lo = 0;
    cr_assert(broker_session_request(client->session, ++client->next_request, true, request,
                                     payload, payload_bytes, w->now_ns, &why),
              "%s: %s", what, why);
    for (int i = 0; !client->answered; i++) {
        cr_assert_lt(i, TURNS_MAX, "%s: no answer", what);
        turn(w);
    }
    if (client->status != FB__STATUS__OK)
        note_refusal(w, what, client->status, client->error);
    return client->status == FB__STATUS__OK;
}

bool client_connect(struct client *client, struct node *node) {
    struct world *w = node->world;
    const struct broker_credentials credentials = {.uid = geteuid(), .gid = 0, .pid = 1};
    uint8_t nonce[AUTH_NONCE_BYTES] = {0};
    char why[256] = "";
    Fb__Hello hello = FB__HELLO__INIT;
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    *client = (struct client){.node = node};
    client->session =
        broker_session_open(node->broker, &client_ops, client, &credentials, why, sizeof why);
    if (!client->session) {
        note_refusal(w, "connect", FB__STATUS__OK, why);
        return false;
    }
    hello.version_min = hello.version_max = FRAME_VERSION;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    client_ask(client, "hello", &request, NULL, 0);
    open.store = (char *)"run";
    open.write = true;
    open.client_nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    return client_ask(client, "open", &request, NULL, 0);
}

static ProtobufCBinaryData make_spec(struct world *w, uint64_t bytes) {
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors[1] = {&tensor};
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    uint64_t shape[1] = {bytes};
    tensor.name = (char *)"t";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = shape;
    tensor.bytes = bytes;
    spec.n_tensors = 1;
    spec.tensors = tensors;
    return (ProtobufCBinaryData){fb__sample_spec__pack(&spec, w->spec), w->spec};
}

bool reserve(struct client *client, const char *id, uint64_t bytes) {
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items[1] = {&item};
    Fb__Reserve body = FB__RESERVE__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.sample_id = (char *)id;
    item.spec = make_spec(client->node->world, bytes);
    body.handle = HANDLE;
    body.deadline_ms = PATIENCE_MS;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &body;
    return client_ask(client, "reserve", &request, NULL, 0);
}

static uint64_t commit(struct client *client, uint64_t reservation, uint64_t op_id) {
    Fb__CommitItem item = FB__COMMIT_ITEM__INIT, *items[1] = {&item};
    Fb__Commit body = FB__COMMIT__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    uint64_t checksum = 0;
    item.reservation = reservation;
    item.checksums = (ProtobufCBinaryData){sizeof checksum, (uint8_t *)&checksum};
    body.handle = HANDLE;
    body.n_items = 1;
    body.items = items;
    body.op_id = op_id;
    request.op_case = FB__CLIENT_REQUEST__OP_COMMIT;
    request.commit = &body;
    return client_ask(client, "commit", &request, NULL, 0) ? client->generation : 0;
}

uint64_t put_large(struct client *client, const char *id, uint64_t bytes, uint64_t op_id) {
    return reserve(client, id, bytes) ? commit(client, client->reservation, op_id) : 0;
}

uint64_t put_small(struct client *client, const char *id, uint64_t op_id) {
    struct world *w = client->node->world;
    Fb__PutItem item = FB__PUT_ITEM__INIT, *items[1] = {&item};
    Fb__Put body = FB__PUT__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    uint64_t checksum = 0;
    item.sample_id = (char *)id;
    item.spec = make_spec(w, BYTES);
    item.checksums = (ProtobufCBinaryData){sizeof checksum, (uint8_t *)&checksum};
    item.bytes = BYTES;
    body.handle = HANDLE;
    body.deadline_ms = PATIENCE_MS;
    body.n_items = 1;
    body.items = items;
    body.op_id = op_id;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &body;
    return client_ask(client, "put", &request, w->payload, BYTES) ? client->generation : 0;
}

static void release(struct client *client, bool consumed) {
    Fb__ReleaseItem item = FB__RELEASE_ITEM__INIT, *items[1] = {&item};
    Fb__Release body = FB__RELEASE__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    if (!client->lease_hi && !client->lease_lo)
        return;
    item.lease_hi = client->lease_hi;
    item.lease_lo = client->lease_lo;
    item.consumed = consumed;
    body.handle = HANDLE;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &body;
    client_ask(client, "release", &request, NULL, 0);
}

/* The first is released at once; of two the other one is left to the end of the session. */
void get(struct client *client, const char *id, const char *second, uint64_t generation,
         bool consumed) {
    Fb__GetItem of[2] = {FB__GET_ITEM__INIT, FB__GET_ITEM__INIT};
    Fb__GetItem *items[2] = {&of[0], &of[1]};
    Fb__Get body = FB__GET__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    of[0].sample_id = (char *)id;
    of[0].generation = generation;
    of[0].home = (char *)(generation ? "a" : "");
    of[0].want_spec = true;
    of[1].sample_id = (char *)second;
    body.handle = HANDLE;
    body.deadline_ms = PATIENCE_MS;
    body.n_items = second ? 2 : 1;
    body.items = items;
    body.want_landed = true;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &body;
    client_ask(client, "get", &request, NULL, 0);
    release(client, consumed);
}

void retire(struct client *client, bool ack, const char *id, uint64_t generation, uint64_t op_id) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    Fb__Retire body = FB__RETIRE__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.sample_id = (char *)id;
    item.generation = generation;
    item.home = (char *)(generation ? "a" : "");
    body.handle = HANDLE;
    body.deadline_ms = PATIENCE_MS;
    body.n_items = 1;
    body.items = items;
    body.op_id = op_id;
    request.op_case = ack ? FB__CLIENT_REQUEST__OP_ACK : FB__CLIENT_REQUEST__OP_ABORT;
    if (ack)
        request.ack = &body;
    else
        request.abort = &body;
    client_ask(client, ack ? "ack" : "abort", &request, NULL, 0);
}

void look(struct client *client, const char *id) {
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    Fb__Stat stat = FB__STAT__INIT;
    Fb__List list = FB__LIST__INIT;
    Fb__Explain explain = FB__EXPLAIN__INIT;
    Fb__Health health = FB__HEALTH__INIT;
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__Stores stores = FB__STORES__INIT;
    Fb__Sessions sessions = FB__SESSIONS__INIT;
    Fb__Leases leases = FB__LEASES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.sample_id = (char *)id;
    item.home = (char *)"";
    stat.handle = list.handle = explain.handle = HANDLE;
    stat.deadline_ms = list.deadline_ms = explain.deadline_ms = nodes.deadline_ms = PATIENCE_MS;
    stat.n_items = 1;
    stat.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_STAT;
    request.stat = &stat;
    client_ask(client, "stat", &request, NULL, 0);
    list.limit = leases.limit = sessions.limit = 10;
    list.holders = true;
    request.op_case = FB__CLIENT_REQUEST__OP_LIST;
    request.list = &list;
    client_ask(client, "list", &request, NULL, 0);
    list.node = (char *)(client->node->name[0] == 'a' ? "b" : "a");
    client_ask(client, "list elsewhere", &request, NULL, 0);
    explain.item = &item;
    request.op_case = FB__CLIENT_REQUEST__OP_EXPLAIN;
    request.explain = &explain;
    client_ask(client, "explain", &request, NULL, 0);
    request.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.health = &health;
    client_ask(client, "health", &request, NULL, 0);
    request.op_case = FB__CLIENT_REQUEST__OP_NODES;
    request.nodes = &nodes;
    client_ask(client, "nodes", &request, NULL, 0);
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    client_ask(client, "stores", &request, NULL, 0);
    request.op_case = FB__CLIENT_REQUEST__OP_SESSIONS;
    request.sessions = &sessions;
    client_ask(client, "sessions", &request, NULL, 0);
    leases.store = (char *)"run";
    request.op_case = FB__CLIENT_REQUEST__OP_LEASES;
    request.leases = &leases;
    client_ask(client, "leases", &request, NULL, 0);
}

void create_and_drop(struct client *client) {
    Fb__StoreCreate create = FB__STORE_CREATE__INIT;
    Fb__StoreSettings settings = FB__STORE_SETTINGS__INIT;
    Fb__StoreDrop drop = FB__STORE_DROP__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    settings.readers = 1;
    settings.max_resident_bytes = ARENA_BYTES;
    settings.max_samples = 16;
    create.store = drop.store = (char *)"other";
    create.settings = &settings;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_CREATE;
    request.store_create = &create;
    if (!client_ask(client, "create", &request, NULL, 0))
        return;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_DROP;
    request.store_drop = &drop;
    client_ask(client, "drop", &request, NULL, 0);
}

void client_disconnect(struct client *client) {
    if (client->session)
        broker_session_close(client->session, client->node->world->now_ns);
    client->session = NULL;
}
