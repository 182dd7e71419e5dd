/* SPDX-License-Identifier: Apache-2.0
 *
 * After the end of a history, with everything at rest: one node's client reads samples of other
 * nodes, its store is dropped under it, the client says consumed of some and leaves. Every home
 * must hear of every end, the store must be freed, and the index must forget what it held.
 */
#include "model/cluster_sim.h"

#include <inttypes.h>
#include <string.h>

#include "directory/etcd/record.h"
#include "exchange/exchange_internal.h"
#include "model/cluster_clients.h"

#define STEP_NS    (10 * MS)
#define READ_NS    (250 * MS)
#define REST_NS    (10000 * MS)
#define READ_COUNT 4u
#define READ_BYTES 100000u

static void read_of_others(struct world *w, struct client *reader) {
    struct contract *c = &w->contract;
    unsigned count = 0;
    uint64_t bytes = 0;
    client_connect(reader);
    for (unsigned i = 0; i < c->claim_count && count < READ_COUNT; i++) {
        struct claim *claim = &c->claims[i];
        if (!contract_must_rest(c, claim) || claim->home == reader->node->index ||
            bytes + claim->bytes > READ_BYTES)
            continue;
        bytes += claim->bytes;
        count++;
        client_get(reader, claim);
    }
    world_go(w, w->now_ns + READ_NS);
}

struct records {
    const struct node *of;
    unsigned count;
};

static void count_records(void *context, const struct etcd_kv *kv, bool current) {
    struct records *records = context;
    struct sample_record record;
    if (current && kv->value && !etcd_sample_parse(kv->key, kv->value, &record))
        records->count += !strcmp(record.home, records->of->name) &&
                          record.incarnation == records->of->incarnation;
}

/* "" or what is left of it. */
static const char *left_over(const struct world *w, const struct node *dropped) {
    struct records records = {.of = dropped};
    for (unsigned i = 0; i < w->node_count; i++) {
        struct store_totals totals;
        if (&w->nodes[i] == dropped)
            continue;
        store_totals(node_space(&w->nodes[i])->store, &totals);
        if (totals.leases)
            return "a home has leases still";
    }
    if (dropped->broker->exchange->release_pending || dropped->broker->exchange->remote_leases.live)
        return "it has not told the homes";
    if (node_space(dropped)->used)
        return "it is not freed";
    if (w->etcd)
        fake_etcd_each(w->etcd, 0, count_records, &records);
    return records.count ? "the index names what it held" : "";
}

void world_drop(struct world *w) {
    struct node *node = &w->nodes[cluster_random(&w->random) % w->node_count];
    struct client *reader = &node->clients[0];
    reader->node = node;
    read_of_others(w, reader);
    world_say(w, "the store of %s is dropped", node->name);
    space_drop(node->broker, node_space(node), node_clock_ns(node));
    world_go(w, w->now_ns + cluster_random(&w->random) % (2 * STEP_NS));
    clients_consume(reader, (unsigned)(cluster_random(&w->random) % 3));
    client_leave(reader);
    uint64_t give_up_ns = w->now_ns + REST_NS;
    while (*left_over(w, node) && w->now_ns < give_up_ns && !w->contract.broken)
        world_go(w, w->now_ns + STEP_NS);
    if (*left_over(w, node))
        contract_broken(&w->contract, "dropped store", "the store of node %s was dropped: %s",
                        node->name, left_over(w, node));
}
