/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of samples on two brokers in one process, once for every allocation that it takes, with
 * that one made to fail. Whatever fails: nothing crashes, every request is answered, the first
 * refusal says that it was memory, and at the end nothing is left: no lease, no reservation, no
 * pending release, no block of memory, and the stores pass their audit.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "directory/directory.h"
#include "directory/etcd/directory_etcd.h"
#include "memory/counted.h"
#include "proto/frame.h"
#include "requests/requests.h"
#include "support/etcd_fake.h"
#include "support/transport_fake.h"

#define ARENA_BYTES (256ull << 10)
#define BYTES       1000u
#define LARGE_BYTES (40u << 10) /* more than comes with the lease: it is read in chunks */
#define TURN_NS     (1000 * 1000ull)
#define TURNS_MAX   20000
#define PATIENCE_MS 2000u
#define HANDLE      1u
#define STEPS_MAX   64u
#define PLACE_TURNS 200

struct node {
    struct world *world;
    const char *name, *address;
    struct config config;
    struct config_store store;
    struct broker *broker;
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
};

struct client {
    struct node *node;
    struct broker_session *session;
    uint32_t next_request;
    bool answered;
    Fb__ClientReply__ResultCase result; /* that an OK to the last request has */
    Fb__Status status;                  /* of the last answer: of its first item that is not OK */
    char error[600];
    uint64_t reservation, generation, lease_hi, lease_lo;
};

struct world {
    struct fake_network *network;
    struct fake_etcd *etcd; /* NULL: directory = static */
    uint64_t now_ns;
    struct node a, b;
    struct client writer, reader; /* writer: at a; reader: at b */
    uint8_t payload[BYTES];
    uint8_t spec[256];
    /* What the clients were told. */
    bool refused;
    char first_refusal[700];
};

/* ---- the brokers ---- */

static void node_configure(struct node *node, struct world *w, const char *name,
                           const char *address) {
    node->world = w;
    node->name = name;
    node->address = address;
    node->config = (struct config){.max_sessions = 8,
                                   .max_resident_bytes = 8 * ARENA_BYTES,
                                   .max_stores = 4,
                                   .reads_per_peer = 4,
                                   .peer_timeout_ms = 5000,
                                   .ping_interval_ms = 1000,
                                   .reconnect_max_ms = 100,
                                   .gc_interval_ms = 50,
                                   .stores = &node->store,
                                   .store_count = 1};
    charge_limits_init(&node->config.limits);
    snprintf(node->config.node, sizeof node->config.node, "%s", name);
    node->store = (struct config_store){.name = "run",
                                        .readers = 1,
                                        .max_resident_bytes = ARENA_BYTES,
                                        .landing_bytes = ARENA_BYTES,
                                        .max_samples = 64};
}

static void on_woken(void *owner) {
    (void)owner;
}

static struct directory *node_make_index(struct node *node) {
    struct directory_etcd_options options = {
        .cluster = "memory",
        .node = node->name,
        .incarnation = (uint64_t)node->name[0],
        .capacity_bytes = ARENA_BYTES,
        .lease_ttl_s = 2,
        .batch_max = 8,
        .batch_delay_ns = NS_PER_MS,
        .request_timeout_ms = 300,
        .written_kept = 16,
        .give_up_ns = 1000 * NS_PER_MS,
    };
    struct directory *directory;
    struct etcd *etcd = etcd_fake_new(node->world->etcd, on_woken, node);
    cr_assert_eq(
        directory_etcd_new(&options, etcd, &broker_directory_events, node->broker, &directory), 0);
    directory_etcd_set_address(directory, node->address, "");
    return directory;
}

static struct directory *node_make_static(struct node *node, const struct node *other) {
    struct directory_peer peer = {other->name, other->address, ""};
    struct directory *directory;
    cr_assert_eq(directory_static_new(node->name, &peer, 1, 1, &broker_directory_events,
                                      node->broker, &directory),
                 0);
    return directory;
}

static void node_build(struct node *node, const struct node *other) {
    struct world *w = node->world;
    char why[512], bound[64];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct broker_options options = {.config = &node->config,
                                     .incarnation = (uint64_t)node->name[0]};
    cr_assert_eq(broker_new(&options, &node->broker), 0);
    struct peers_options peers = {.node = node->name,
                                  .incarnation = options.incarnation,
                                  .ping_interval_ns = 1000 * NS_PER_MS,
                                  .timeout_ns = 5000 * NS_PER_MS,
                                  .reconnect_max_ns = 100 * NS_PER_MS,
                                  .deadlines = broker_deadlines(node->broker)};
    struct transport_options transport = {.hello = hello,
                                          .hello_bytes = peers_hello(&peers, hello),
                                          .chunk_bytes = 16u << 10,
                                          .reads_per_connection = 4,
                                          .handshake_timeout_ms = 1000,
                                          .send_queue_bytes = 1u << 20,
                                          .connections_max = 8};
    cr_assert_eq(peers_new(&peers, &broker_peers_events, node->broker, &node->peers), 0);
    cr_assert_eq(fake_transport_new(w->network, &transport, &peers_transport_events, node->peers,
                                    &node->transport),
                 0);
    peers_set_transport(node->peers, node->transport);
    node->directory = w->etcd ? node_make_index(node) : node_make_static(node, other);
    broker_connect(node->broker, node->peers, node->transport, node->directory);
    cr_assert_eq(broker_open_stores(node->broker, why, sizeof why), 0, "%s", why);
    cr_assert_eq(peers_listen(node->peers, node->address, bound), 0);
    cr_assert_eq(node->directory->ops->start(node->directory), 0);
}

static void on_destroyed(void *owner) {
    (void)owner;
}

static void node_take_apart(struct node *node) {
    fake_network_kill(node->transport, false);
    node->transport->ops->destroy(node->transport, on_destroyed);
    peers_set_transport(node->peers, NULL);
    broker_release_peers(node->broker);
    peers_free(node->peers);
    node->directory->ops->destroy(node->directory);
    broker_free(node->broker);
}

static void turn(struct world *w) {
    w->now_ns += TURN_NS;
    while (w->etcd && fake_etcd_next_ns(w->etcd) <= w->now_ns)
        fake_etcd_step(w->etcd, w->now_ns);
    if (w->etcd)
        fake_etcd_set_time(w->etcd, w->now_ns);
    while (fake_network_next_ns(w->network) <= w->now_ns)
        fake_network_step(w->network);
    fake_network_advance(w->network, w->now_ns);
    broker_pump(w->a.broker, w->now_ns);
    broker_pump(w->b.broker, w->now_ns);
}

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

static bool client_connect(struct client *client, struct node *node) {
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

static bool reserve(struct client *client, const char *id, uint64_t bytes) {
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

static uint64_t put_large(struct client *client, const char *id, uint64_t bytes, uint64_t op_id) {
    return reserve(client, id, bytes) ? commit(client, client->reservation, op_id) : 0;
}

static uint64_t put_small(struct client *client, const char *id, uint64_t op_id) {
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
static void get(struct client *client, const char *id, const char *second, uint64_t generation,
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

static void retire(struct client *client, bool ack, const char *id, uint64_t generation,
                   uint64_t op_id) {
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

static void look(struct client *client, const char *id) {
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

static void create_and_drop(struct client *client) {
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

static void client_disconnect(struct client *client) {
    if (client->session)
        broker_session_close(client->session, client->node->world->now_ns);
    client->session = NULL;
}

/* ---- the life ---- */

static void live(struct world *w) {
    struct client *writer = &w->writer, *reader = &w->reader;
    uint64_t first, large;
    client_connect(writer, &w->a);
    client_connect(reader, &w->b);
    first = put_small(writer, "first", 1);
    large = put_large(writer, "large", LARGE_BYTES, 2);
    put_small(writer, "second", 3);
    put_small(writer, "third", 4);
    get(writer, "first", NULL, first, false);
    if (large)
        get(reader, "large", NULL, large, true);
    get(reader, "second", "third", 0, false);
    look(writer, "first");
    look(reader, "third");
    put_small(writer, "first", 5);       /* supersedes one here */
    put_small(reader, "second", 6);      /* supersedes one elsewhere */
    if (reserve(writer, "never", BYTES)) /* left to the end of the session */
        retire(reader, true, "third", 0, 7);
    retire(writer, false, "first", 0, 8);
    retire(reader, false, "second", 0, 9);
    create_and_drop(writer);
    client_disconnect(reader);
    client_disconnect(writer);
}

/* ---- what must be true at the end ---- */

static bool is_at_rest(const struct node *node) {
    struct store_totals totals;
    store_totals(node->broker->spaces[0].store, &totals);
    return broker_is_idle(node->broker) && !totals.planned && !totals.sealed &&
           !totals.put_waiters && !totals.get_waiters && !totals.land_waiters &&
           !node->broker->exchange->remote_leases.live && !node->broker->spaces[1].used;
}

static void expect_sound(const struct node *node, uint64_t n) {
    char why[256];
    const char *wrong = store_audit(node->broker->spaces[0].store, why, sizeof why);
    cr_assert_null(wrong, "allocation %llu: node %s: %s: %s", (unsigned long long)n, node->name,
                   wrong, why);
}

static int descriptors_open(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static bool is_ready(const struct node *node) {
    char why[TROUBLE_BYTES];
    return !broker_not_ready_why(node->broker, why) &&
           peers_next(node->broker->peers, NULL) != NULL &&
           peer_is_up(peers_next(node->broker->peers, NULL));
}

/* Lives once, with the n-th allocation failing and those right behind it, `in_a_row` in all;
 * `index`: with an index in etcd. Returns how many allocations it took. */
static uint64_t live_once(uint64_t n, uint64_t in_a_row, bool index) {
    struct world *w = calloc(1, sizeof *w);
    int64_t live_before = counted_live();
    int descriptors_before = descriptors_open();
    w->now_ns = 1000 * NS_PER_MS;
    w->network = fake_network_new(1, 10000, 20000);
    fake_network_advance(w->network, w->now_ns);
    if (index) {
        w->etcd = fake_etcd_new(1, 10000, 20000);
        fake_etcd_set_time(w->etcd, w->now_ns);
    }
    node_configure(&w->a, w, "a", "a:1");
    node_configure(&w->b, w, "b", "b:1");
    node_build(&w->a, &w->b);
    node_build(&w->b, &w->a);
    for (int i = 0; !is_ready(&w->a) || !is_ready(&w->b); i++) {
        cr_assert_lt(i, TURNS_MAX, "not ready");
        turn(w);
    }
    counted_fail_so_many(in_a_row);
    counted_fail_at(n);
    live(w);
    uint64_t calls = counted_calls();
    bool failed = counted_has_failed();
    counted_fail_at(0);
    for (int i = 0; !is_at_rest(&w->a) || !is_at_rest(&w->b); i++) {
        char left[2][160];
        broker_describe_load(w->a.broker, left[0], sizeof left[0]);
        broker_describe_load(w->b.broker, left[1], sizeof left[1]);
        cr_assert_lt(i, TURNS_MAX, "allocation %llu: not at rest: a has %s, b %s",
                     (unsigned long long)n, left[0], left[1]);
        turn(w);
    }
    expect_sound(&w->a, n);
    expect_sound(&w->b, n);
    cr_expect(!w->refused || (failed && strstr(w->first_refusal, "memory")), "allocation %llu: %s",
              (unsigned long long)n, w->first_refusal);
    node_take_apart(&w->a);
    node_take_apart(&w->b);
    fake_network_free(w->network);
    if (w->etcd)
        fake_etcd_free(w->etcd);
    cr_assert_eq(counted_live(), live_before, "allocation %llu: %lld blocks are not freed",
                 (unsigned long long)n, (long long)(counted_live() - live_before));
    cr_assert_eq(descriptors_open(), descriptors_before, "allocation %llu: descriptors",
                 (unsigned long long)n);
    free(w);
    return calls;
}

static void live_with_each_failing(bool index) {
    cr_assert_geq(auth_init(), 0);
    uint64_t calls = live_once(0, 1, index);
    cr_assert_gt(calls, 100u);
    for (uint64_t n = 1; n <= calls; n++)
        live_once(n, 1, index);
    printf("memory: %llu allocations, each failed once\n", (unsigned long long)calls);
}

static void live_with_some_failing(bool index) {
    cr_assert_geq(auth_init(), 0);
    uint64_t calls = live_once(0, 1, index);
    for (uint64_t n = 1; n <= calls; n += 3)
        live_once(n, 8, index);
}

Test(memory, a_life_whose_every_allocation_fails_once) {
    live_with_each_failing(false);
}

Test(memory, a_life_whose_allocations_fail_in_a_row) {
    live_with_some_failing(false);
}

Test(memory, a_life_with_an_index_whose_every_allocation_fails_once) {
    live_with_each_failing(true);
}

Test(memory, a_life_with_an_index_whose_allocations_fail_in_a_row) {
    live_with_some_failing(true);
}
