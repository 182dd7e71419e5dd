/* SPDX-License-Identifier: Apache-2.0
 *
 * A broker and a home made of bytes: the home answers what the test says, true or not, and keeps
 * what it is told of the ends of its leases. No end may be forgotten, and no answer believed that
 * is not one to what was asked.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/directory.h"
#include "exchange/exchange_internal.h"
#include "proto/frame.h"
#include "proto/version.h"
#include "requests/requests.h"
#include "support/transport_fake.h"

#define ARENA_BYTES    (64ull << 10)
#define BYTES          1000u
#define GENERATION     4711ull
#define INCARNATION    77ull
#define LEASE_HI       0x1111ull
#define LEASE_LO       0x2222ull
#define TURN_NS        (1000 * 1000ull)
#define TURNS_MAX      2000
#define GC_INTERVAL_MS 50u
#define RELEASES_MAX   16u
#define HOME_ADDRESS   "b:1"
#define HANDLE         1u

struct world {
    struct fake_network *network;
    uint64_t now_ns;
    /* the broker, a */
    struct config config;
    struct config_store store;
    struct broker *broker;
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
    struct broker_session *session;
    uint32_t next_request;
    bool answered;
    Fb__Status status; /* of the last answer's one item */
    char error[512];
    uint64_t lease_hi, lease_lo;
    /* the home, b */
    struct transport *home;
    Fb__PeerLeaseReply lie; /* what it answers to a PeerLease */
    uint8_t payload[4096];
    size_t payload_bytes;
    bool without_lease; /* OK, and no lease in it */
    Fb__SampleInfo info;
    uint32_t release_count;
    struct {
        uint64_t hi, lo;
        bool consumed;
    } releases[RELEASES_MAX];
    uint8_t spec[128];
};

/* ---- the home ---- */

static void home_reply(struct transport_conn *conn, struct transport *home, uint32_t request_id,
                       const Fb__PeerReply *reply, const void *payload, size_t payload_bytes) {
    uint8_t head[FRAME_HEADER_BYTES], body[4096];
    size_t body_bytes = fb__peer_reply__pack(reply, body);
    struct frame_header header = {FRAME_VERSION, FRAME_REPLY, request_id, (uint32_t)body_bytes,
                                  (uint32_t)payload_bytes};
    frame_encode(&header, head);
    struct iovec parts[3] = {
        {head, sizeof head}, {body, body_bytes}, {(void *)payload, payload_bytes}};
    cr_assert_eq(home->ops->send(conn, parts, payload_bytes ? 3 : 2), 0);
}

/* The one connection. */
static struct transport_conn *home_conn;

static void *home_accepted(void *owner, struct transport_conn *conn, const void *hello,
                           size_t hello_bytes) {
    (void)hello, (void)hello_bytes;
    home_conn = conn;
    return owner;
}

static void home_message(void *owner, void *user, const void *data, size_t bytes) {
    (void)user;
    struct world *w = owner;
    struct frame_header header;
    cr_assert_null(frame_open(data, bytes, FRAME_PEER_BYTES_MAX, &header));
    Fb__PeerRequest *request = fb__peer_request__unpack(NULL, header.body_bytes,
                                                        (const uint8_t *)data + FRAME_HEADER_BYTES);
    cr_assert_not_null(request);
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    Fb__StatResult stat = FB__STAT_RESULT__INIT;
    size_t payload_bytes = 0;
    if (request->op_case == FB__PEER_REQUEST__OP_LEASE && !w->without_lease) {
        reply.result_case = FB__PEER_REPLY__RESULT_LEASE;
        reply.lease = &w->lie;
        payload_bytes = w->payload_bytes;
    } else if (request->op_case == FB__PEER_REQUEST__OP_STAT) {
        reply.result_case = FB__PEER_REPLY__RESULT_STAT;
        stat.info = &w->info;
        reply.stat = &stat;
    } else if (request->op_case == FB__PEER_REQUEST__OP_RELEASE) {
        for (size_t i = 0; i < request->release->n_items && w->release_count < RELEASES_MAX; i++) {
            const Fb__PeerReleaseItem *item = request->release->items[i];
            w->releases[w->release_count].hi = item->lease_hi;
            w->releases[w->release_count].lo = item->lease_lo;
            w->releases[w->release_count++].consumed = item->consumed;
        }
    }
    if (header.type == FRAME_REQUEST)
        home_reply(home_conn, w->home, header.request_id, &reply, w->payload, payload_bytes);
    fb__peer_request__free_unpacked(request, NULL);
}

static void home_closed(void *owner, void *user, const char *why) {
    (void)owner, (void)user, (void)why;
}

static const struct transport_events home_events = {
    .accepted = home_accepted, .message = home_message, .closed = home_closed};

/* What a true home would say of sample s. */
static void tell_the_truth(struct world *w) {
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors[1] = {&tensor};
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    uint64_t shape[1] = {BYTES};
    struct layout layout;
    tensor.name = (char *)"t";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = shape;
    tensor.bytes = BYTES;
    spec.n_tensors = 1;
    spec.tensors = tensors;
    cr_assert_null(layout_compute(&spec, &layout));
    fb__peer_lease_reply__init(&w->lie);
    w->lie.lease_hi = LEASE_HI;
    w->lie.lease_lo = LEASE_LO;
    w->lie.generation = GENERATION;
    w->lie.sample_id = (char *)"s";
    w->lie.extent_bytes = layout.extent_bytes;
    w->lie.spec = (ProtobufCBinaryData){fb__sample_spec__pack(&spec, w->spec), w->spec};
    w->payload_bytes = layout.extent_bytes;
    memset(w->payload, 0x5a, sizeof w->payload);
    fb__sample_info__init(&w->info);
    w->info.sample_id = (char *)"s";
    w->info.generation = GENERATION;
    w->info.state = FB__SAMPLE_STATE__RESIDENT;
}

/* ---- the client ---- */

static void client_reply(void *client, uint32_t request_id, const Fb__ClientReply *reply, int fd) {
    struct world *w = client;
    (void)request_id, (void)fd;
    w->answered = true;
    w->status = reply->status;
    snprintf(w->error, sizeof w->error, "%s", reply->error);
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_GET) {
        w->status = reply->get->items[0]->status;
        snprintf(w->error, sizeof w->error, "%s", reply->get->items[0]->error);
        w->lease_hi = reply->get->items[0]->lease_hi;
        w->lease_lo = reply->get->items[0]->lease_lo;
    } else if (reply->result_case == FB__CLIENT_REPLY__RESULT_STAT) {
        w->status = reply->stat->items[0]->status;
        snprintf(w->error, sizeof w->error, "%s", reply->stat->items[0]->error);
    }
}

static void client_notice(void *client, uint32_t request_id, const Fb__ClientNotice *notice) {
    (void)client, (void)request_id, (void)notice;
}

static const struct broker_client_ops client_ops = {client_reply, client_notice};

static void ask(struct world *w, const Fb__ClientRequest *request) {
    const char *why;
    w->answered = false;
    cr_assert(broker_session_request(w->session, ++w->next_request, true, request, NULL, 0,
                                     w->now_ns, &why),
              "%s", why);
}

static void turn(struct world *w) {
    w->now_ns += TURN_NS;
    while (fake_network_next_ns(w->network) <= w->now_ns)
        fake_network_step(w->network);
    fake_network_advance(w->network, w->now_ns);
    broker_pump(w->broker, w->now_ns);
}

static void await_answer(struct world *w) {
    for (int i = 0; !w->answered; i++) {
        cr_assert_lt(i, TURNS_MAX, "no answer");
        turn(w);
    }
}

static void connect_client(struct world *w) {
    static const struct broker_credentials credentials = {.uid = 0, .gid = 0, .pid = 1};
    uint8_t nonce[AUTH_NONCE_BYTES] = {0};
    char why[256];
    Fb__Hello hello = FB__HELLO__INIT;
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    w->session = broker_session_open(w->broker, &client_ops, w, &credentials, why, sizeof why);
    cr_assert_not_null(w->session);
    hello.version_min = hello.version_max = VERSION_PEER.highest;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    ask(w, &request);
    open.store = (char *)"run";
    open.client_nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    ask(w, &request);
    cr_assert_eq(w->status, FB__STATUS__OK, "%s", w->error);
}

static void get(struct world *w, uint64_t generation, uint64_t incarnation) {
    Fb__GetItem item = FB__GET_ITEM__INIT, *items[1] = {&item};
    Fb__Get body = FB__GET__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.sample_id = (char *)"s";
    item.generation = generation;
    item.home = (char *)(generation ? "b" : "");
    item.incarnation = incarnation;
    body.handle = HANDLE;
    body.deadline_ms = 1000;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &body;
    ask(w, &request);
    await_answer(w);
}

static void release(struct world *w, bool consumed) {
    Fb__ReleaseItem item = FB__RELEASE_ITEM__INIT, *items[1] = {&item};
    Fb__Release body = FB__RELEASE__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.lease_hi = w->lease_hi;
    item.lease_lo = w->lease_lo;
    item.consumed = consumed;
    body.handle = HANDLE;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &body;
    ask(w, &request);
}

static void drop_store(struct world *w) {
    Fb__StoreDrop body = FB__STORE_DROP__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    body.store = (char *)"run";
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_DROP;
    request.store_drop = &body;
    ask(w, &request);
}

/* ---- the world ---- */

static void configure(struct world *w) {
    w->config = (struct config){.max_sessions = 4,
                                .max_resident_bytes = ARENA_BYTES,
                                .max_stores = 4,
                                .reads_per_peer = 4,
                                .peer_timeout_ms = 5000,
                                .ping_interval_ms = 1000,
                                .reconnect_max_ms = 1000,
                                .gc_interval_ms = GC_INTERVAL_MS,
                                .stores = &w->store,
                                .store_count = 1};
    charge_limits_init(&w->config.limits);
    strcpy(w->config.node, "a");
    w->store = (struct config_store){.name = "run",
                                     .readers = 1,
                                     .max_resident_bytes = ARENA_BYTES,
                                     .landing_bytes = ARENA_BYTES,
                                     .max_samples = 16};
}

static void build_transport(struct world *w, const char *node, uint64_t incarnation,
                            const struct transport_events *events, void *owner,
                            struct transport **out) {
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct peers_options options = {.node = node, .incarnation = incarnation};
    struct transport_options transport = {.hello = hello,
                                          .hello_bytes = peers_hello(&options, hello),
                                          .chunk_bytes = 64u << 10,
                                          .reads_per_connection = 4,
                                          .handshake_timeout_ms = 1000,
                                          .send_queue_bytes = 1u << 20,
                                          .connections_max = 8};
    cr_assert_eq(fake_transport_new(w->network, &transport, events, owner, out), 0);
}

static void build(struct world *w, uint64_t home_incarnation) {
    char why[256], bound[64];
    struct broker_options options = {.config = &w->config, .incarnation = 5};
    struct peers_options peers = {.node = "a",
                                  .incarnation = 5,
                                  .ping_interval_ns = 1000 * NS_PER_MS,
                                  .timeout_ns = 5000 * NS_PER_MS,
                                  .reconnect_max_ns = 1000 * NS_PER_MS};
    struct directory_peer other = {"b", HOME_ADDRESS, ""};
    *w = (struct world){.now_ns = 1000 * NS_PER_MS};
    tell_the_truth(w);
    configure(w);
    w->network = fake_network_new(1, 10000, 20000);
    fake_network_advance(w->network, w->now_ns);
    build_transport(w, "b", home_incarnation, &home_events, w, &w->home);
    cr_assert_eq(w->home->ops->listen(w->home, HOME_ADDRESS, bound), 0);
    cr_assert_eq(broker_new(&options, &w->broker), 0);
    cr_assert_eq(broker_attach(w->broker, w->now_ns, why, sizeof why), 0, "%s", why);
    peers.deadlines = broker_deadlines(w->broker);
    cr_assert_eq(peers_new(&peers, &broker_peers_events, w->broker, &w->peers), 0);
    build_transport(w, "a", 5, &peers_transport_events, w->peers, &w->transport);
    peers_set_transport(w->peers, w->transport);
    cr_assert_eq(
        directory_static_new("a", &other, 1, 1, &broker_directory_events, w->broker, &w->directory),
        0);
    broker_connect(w->broker, w->peers, w->transport, w->directory);
    cr_assert_eq(broker_open_stores(w->broker, why, sizeof why), 0, "%s", why);
    cr_assert_eq(w->directory->ops->start(w->directory), 0);
    turn(w);
    connect_client(w);
}

static void on_destroyed(void *owner) {
    (void)owner;
}

static void take_apart(struct world *w) {
    if (w->session)
        broker_session_close(w->session, w->now_ns);
    fake_network_kill(w->transport, false);
    w->transport->ops->destroy(w->transport, on_destroyed);
    peers_set_transport(w->peers, NULL);
    broker_release_peers(w->broker);
    peers_free(w->peers);
    w->directory->ops->destroy(w->directory);
    broker_free(w->broker);
    fake_network_kill(w->home, false);
    w->home->ops->destroy(w->home, on_destroyed);
    fake_network_free(w->network);
}

static void await_release(struct world *w, bool consumed) {
    for (int i = 0; !w->release_count; i++) {
        cr_assert_lt(i, TURNS_MAX, "the home hears of no end of its lease");
        turn(w);
    }
    cr_expect_eq(w->releases[0].hi, LEASE_HI);
    cr_expect_eq(w->releases[0].lo, LEASE_LO);
    cr_expect_eq(w->releases[0].consumed, consumed);
}

static uint64_t odd_answers(struct world *w) {
    return peer_odd_answers(peers_find(w->peers, "b"));
}

/* Refused with a sentence that has both words in it, given back, counted, nothing left. */
static void expect_disbelief(struct world *w, const char *one, const char *other) {
    cr_expect_eq(w->status, FB__STATUS__INTERNAL, "status %d: %s", (int)w->status, w->error);
    cr_expect(strstr(w->error, one) && strstr(w->error, other), "%s", w->error);
    cr_expect_geq(odd_answers(w), 1u);
    await_release(w, false);
    for (int i = 0; i < 50; i++)
        turn(w);
    struct store_totals totals;
    store_totals(w->broker->spaces[0].store, &totals);
    cr_expect_eq(totals.leases, 0u);
    cr_expect_eq(totals.landing, 0u);
    cr_expect_eq(w->broker->exchange->release_pending, 0u);
}

Test(ending, a_true_home_is_believed) {
    struct world w;
    build(&w, INCARNATION);
    get(&w, GENERATION, INCARNATION);
    cr_expect_eq(w.status, FB__STATUS__OK, "%s", w.error);
    cr_expect_eq(odd_answers(&w), 0u);
    release(&w, true);
    await_release(&w, true);
    take_apart(&w);
}

Test(ending, another_generation_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.generation = GENERATION + 1;
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "4711", "4712");
    take_apart(&w);
}

Test(ending, generation_zero_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.generation = 0;
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "4711", "generation 0");
    take_apart(&w);
}

Test(ending, another_sample_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.sample_id = (char *)"other";
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "sample s ", "sample other");
    take_apart(&w);
}

Test(ending, another_sample_of_an_id_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.sample_id = (char *)"other";
    get(&w, 0, 0);
    expect_disbelief(&w, "sample s ", "sample other");
    take_apart(&w);
}

Test(ending, another_incarnation_is_not_believed) {
    struct world w;
    build(&w, INCARNATION + 1);
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "incarnation 77,", "incarnation 78");
    take_apart(&w);
}

Test(ending, sizes_that_do_not_fit_the_spec_are_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.extent_bytes += 4096;
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "node b", "sizes");
    take_apart(&w);
}

Test(ending, checksums_of_another_number_of_tensors_are_not_believed) {
    struct world w;
    uint8_t sums[16] = {0};
    build(&w, INCARNATION);
    w.lie.checksums = (ProtobufCBinaryData){sizeof sums, sums};
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "node b", "checksums");
    take_apart(&w);
}

Test(ending, a_spec_that_is_none_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.lie.spec.len--;
    get(&w, GENERATION, INCARNATION);
    expect_disbelief(&w, "node b", "spec");
    take_apart(&w);
}

/* The generation of a copy that is here already is no proof: by id, the home may say anything. */
Test(ending, the_generation_of_another_samples_copy_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    get(&w, GENERATION, INCARNATION);
    cr_assert_eq(w.status, FB__STATUS__OK, "%s", w.error);
    Fb__GetItem item = FB__GET_ITEM__INIT, *items[1] = {&item};
    Fb__Get body = FB__GET__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    item.sample_id = (char *)"other";
    item.generation = GENERATION;
    item.home = (char *)"b";
    w.lie.sample_id = (char *)"other";
    w.lie.lease_lo++;
    body.handle = HANDLE;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &body;
    ask(&w, &request);
    await_answer(&w);
    cr_expect_eq(w.status, FB__STATUS__INTERNAL, "%s", w.error);
    cr_expect(strstr(w.error, "sample other") && strstr(w.error, "sample s "), "%s", w.error);
    take_apart(&w);
}

Test(ending, yes_without_a_lease_is_not_believed) {
    struct world w;
    build(&w, INCARNATION);
    w.without_lease = true;
    get(&w, GENERATION, INCARNATION);
    cr_expect_eq(w.status, FB__STATUS__INTERNAL, "%s", w.error);
    cr_expect(strstr(w.error, "node b"), "%s", w.error);
    cr_expect_eq(odd_answers(&w), 1u);
    take_apart(&w);
}

Test(ending, a_stat_of_another_generation_is_not_believed) {
    struct world w;
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    Fb__Stat body = FB__STAT__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    build(&w, INCARNATION);
    w.info.generation = GENERATION + 1;
    item.sample_id = (char *)"s";
    item.generation = GENERATION;
    item.home = (char *)"b";
    body.handle = HANDLE;
    body.n_items = 1;
    body.items = items;
    request.op_case = FB__CLIENT_REQUEST__OP_STAT;
    request.stat = &body;
    ask(&w, &request);
    await_answer(&w);
    cr_expect_eq(w.status, FB__STATUS__INTERNAL, "%s", w.error);
    cr_expect(strstr(w.error, "4711") && strstr(w.error, "4712"), "%s", w.error);
    take_apart(&w);
}

/* ---- stores that are dropped while somebody holds something of them ---- */

/* In one turn: the client says consumed and leaves, the last of a dropped store, and gc is due. */
Test(ending, a_dropped_store_is_freed_after_its_leases_ends_are_told) {
    struct world w;
    build(&w, INCARNATION);
    get(&w, GENERATION, INCARNATION);
    cr_assert_eq(w.status, FB__STATUS__OK, "%s", w.error);
    drop_store(&w);
    turn(&w);
    cr_expect(w.broker->spaces[0].used, "its reader holds it");
    w.now_ns += 2 * GC_INTERVAL_MS * NS_PER_MS;
    release(&w, true);
    broker_session_close(w.session, w.now_ns);
    w.session = NULL;
    await_release(&w, true);
    for (int i = 0; i < TURNS_MAX && w.broker->spaces[0].used; i++)
        turn(&w);
    cr_expect_not(w.broker->spaces[0].used, "the dropped store is not freed");
    cr_expect_eq(w.broker->exchange->release_pending, 0u);
    cr_expect_eq(w.broker->exchange->remote_leases.live, 0u);
    take_apart(&w);
}

/* The same when its reader just leaves: returned. */
Test(ending, a_dropped_stores_reader_that_leaves_returns_its_lease) {
    struct world w;
    build(&w, INCARNATION);
    get(&w, GENERATION, INCARNATION);
    cr_assert_eq(w.status, FB__STATUS__OK, "%s", w.error);
    drop_store(&w);
    w.now_ns += 2 * GC_INTERVAL_MS * NS_PER_MS;
    broker_session_close(w.session, w.now_ns);
    w.session = NULL;
    await_release(&w, false);
    take_apart(&w);
}
