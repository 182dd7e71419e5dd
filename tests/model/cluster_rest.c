/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a history: all faults end, every request is answered, clients give back what they hold
 * and leave. Then, within a bounded time, every broker serves again, is connected to all others and
 * idle: no lease, reservation, waiter, transfer or pending release; every store is sound, exactly
 * those samples are resident that the contract says, and the index names these and no others. At
 * last one node reads some of them.
 */
#include "exchange/held_check.h"
#include "model/cluster_sim.h"

#include <inttypes.h>
#include <string.h>

#include "directory/etcd/record.h"
#include "model/cluster_clients.h"

#define STEP_NS       (25 * MS)
#define REST_NS_MAX   (20000 * MS) /* leases of dead nodes end, nodes join again, all answers */
#define COMPARED_NS   (5000 * MS)  /* in which every node has compared what it holds */
#define READ_NS_MAX   (250 * MS)
#define READ_ATTEMPTS 6u
#define READ_COUNT    4u
#define READ_BYTES    100000u /* what surely fits the landing share at once */

/* ---- coming to rest ---- */

static bool knows_all(const struct node *node) {
    for (unsigned i = 0; i < node->world->node_count; i++) {
        const struct node *other = &node->world->nodes[i];
        const struct peer *peer = peers_find(node->peers, other->name);
        struct peer_info info;
        if (other == node)
            continue;
        if (!peer)
            return false;
        peer_query(peer, &info);
        if (strcmp(info.state, "up") || info.incarnation != other->incarnation)
            return false;
    }
    return true;
}

static bool has_timed_requests(const struct broker *broker) {
    const struct broker_session *session;
    const struct call *call;
    TAILQ_FOREACH (session, &broker->sessions, link)
        TAILQ_FOREACH (call, &session->calls, link)
            for (uint32_t i = 0; i < call->count; i++)
                if (call_item(call, i)->timed.queued)
                    return true;
    return false;
}

/* NULL, or what it still does. */
static const char *busy_with(const struct node *node) {
    const struct broker *broker = node->broker;
    struct store_totals t;
    store_totals(node_space(node)->store, &t);
    return !broker_is_idle(broker)                    ? "leases, reservations or pending releases"
           : !broker_serves(broker)                   ? "its registration"
           : !knows_all(node)                         ? "its connections"
           : !TAILQ_EMPTY(&broker->exchange->fetches) ? "transfers"
           : has_timed_requests(broker)               ? "timed requests"
           : supersede_set_first(broker->exchange->publishings) ? "puts"
           : !TAILQ_EMPTY(&broker->exchange->held_checks) || held_due_any(broker)
               ? "checks of what it holds"
           : broker->exchange->remote_leases.live  ? "leases elsewhere"
           : t.put_waiters + t.get_waiters         ? "waiting puts or gets"
           : t.planned + t.sealed + t.land_waiters ? "samples being written"
                                                   : NULL;
}

static const struct node *home_of(const struct world *w, const struct sample_record *record) {
    for (unsigned i = 0; i < w->node_count; i++)
        if (!strcmp(w->nodes[i].name, record->home) &&
            w->nodes[i].incarnation == record->incarnation)
            return &w->nodes[i];
    return NULL;
}

struct dead_records {
    const struct world *w;
    unsigned count;
};

static void count_dead(void *context, const struct etcd_kv *kv, bool current) {
    struct dead_records *dead = context;
    struct sample_record record;
    if (current && kv->value && !etcd_sample_parse(kv->key, kv->value, &record))
        dead->count += !home_of(dead->w, &record);
}

static bool all_rest(const struct world *w) {
    struct dead_records dead = {.w = w};
    if (w->forgot && w->now_ns < w->forgot_ns + COMPARED_NS)
        return false;
    for (unsigned i = 0; i < w->node_count; i++)
        if (busy_with(&w->nodes[i]))
            return false;
    if (w->history->fences) /* a sweep is to come */
        fake_etcd_each(w->etcd, 0, count_dead, &dead);
    return !dead.count;
}

static bool all_answered(const struct world *w) {
    const struct asked *first;
    return !clients_unanswered(w, &first);
}

/* Until it holds, for as long as that. */
static void go_until(struct world *w, bool (*holds)(const struct world *w), uint64_t longest_ns) {
    uint64_t give_up_ns = w->now_ns + longest_ns;
    while (!w->contract.broken && !holds(w) && w->now_ns < give_up_ns)
        world_go(w, w->now_ns + STEP_NS);
}

static void check_answered(struct world *w) {
    const struct asked *first;
    unsigned count = clients_unanswered(w, &first);
    if (count)
        contract_broken(&w->contract, "no answer",
                        "%u requests were never answered, the last a %s (#%u) at node %s", count,
                        clients_step_names[first->kind], (unsigned)(first - w->asked),
                        first->client->node->name);
}

static void settle(struct world *w) {
    for (unsigned i = 0; i < w->node_count; i++)
        clients_let_go(&w->nodes[i]);
    world_go(w, w->now_ns + 5 * MS);
    for (unsigned i = 0; i < w->node_count; i++)
        clients_die(&w->nodes[i]);
    go_until(w, all_rest, REST_NS_MAX);
    for (unsigned i = 0; i < w->node_count && !w->contract.broken; i++) {
        char load[128];
        const char *busy = busy_with(&w->nodes[i]);
        if (!busy)
            continue;
        broker_describe_load(w->nodes[i].broker, load, sizeof load);
        contract_broken(&w->contract, "no rest",
                        "node %s does not come to rest, it is busy with %s: %s", w->nodes[i].name,
                        busy, load);
    }
}

/* ---- what must hold then ---- */

/* What readers on nodes that lived on have said must have reached the homes. */
static void count_far_consumed(struct world *w) {
    for (unsigned i = 0; i < w->held_count; i++) {
        const struct held *held = &w->held[i];
        if (held->state == LEASE_SAID_CONSUMED && held->node != held->claim->home &&
            w->nodes[held->node].incarnation == held->incarnation)
            held->claim->consumed_sure++;
    }
}

static void check_totals(struct world *w, const struct node *node) {
    struct store_totals t;
    char why[256];
    store_totals(node_space(node)->store, &t);
    if (store_audit(node_space(node)->store, why, sizeof why))
        contract_broken(&w->contract, "audit", "node %s: %s", node->name, why);
    if (t.retired)
        contract_broken(&w->contract, "left over", "node %s at rest has %" PRIu64 " retired",
                        node->name, t.retired);
    if (w->contract.policy != CONTRACT_RETAIN && t.landing)
        contract_broken(&w->contract, "left over", "node %s at rest has %" PRIu64 " landing copies",
                        node->name, t.landing);
}

static void check_resident(struct world *w, const struct node *node, bool seen[CLAIMS_MAX]) {
    const struct space *space = node_space(node);
    struct store_info info;
    struct contract *c = &w->contract;
    for (uint64_t cursor = 0; store_list_next(space->store, &cursor, &info);) {
        if (info.state != STORE_RESIDENT)
            continue;
        const uint8_t *at = (const uint8_t *)space->arena.base + info.place.offset;
        struct claim *claim = contract_find(c, payload_nonce(at));
        if (!claim || !payload_matches(at, claim->nonce, claim->bytes)) {
            contract_broken(c, "wrong bytes at rest", "generation %" PRIx64 " at node %s",
                            info.generation, node->name);
            return;
        }
        if (info.landing)
            continue;
        if (claim->incarnation != node->incarnation)
            contract_broken(c, "wrong home", "put %" PRIx64 " lies at node %s", claim->nonce,
                            node->name);
        contract_rests(c, claim, info.generation, info.consumed);
        seen[claim - c->claims] = true;
    }
}

/* ---- the index ---- */

static bool is_resident(const struct node *node, uint64_t generation) {
    struct store_info info;
    return store_stat(node_space(node)->store, NULL, 0, generation, &info) && !info.landing &&
           info.state == STORE_RESIDENT;
}

struct indexed {
    struct world *w;
    uint64_t records, dead;
};

/* A record names what its home has; where dead homes' records are swept, none of these is left. */
static void check_record(void *context, const struct etcd_kv *kv, bool current) {
    struct indexed *indexed = context;
    struct world *w = indexed->w;
    struct sample_record record;
    if (!current || !kv->value || etcd_sample_parse(kv->key, kv->value, &record) < 0)
        return;
    const struct node *home = home_of(w, &record);
    indexed->records += home != NULL;
    indexed->dead += home == NULL;
    if (home && !is_resident(home, record.generation))
        contract_broken(&w->contract, "empty record",
                        "%s names generation %" PRIx64 ", which node %s does not have", kv->key,
                        record.generation, record.home);
}

/* Each that is resident has its record, for there are as many of one as of the other. */
static void check_index(struct world *w) {
    struct indexed indexed = {.w = w};
    uint64_t resident = 0;
    fake_etcd_each(w->etcd, 0, check_record, &indexed);
    if (indexed.dead && w->history->fences)
        contract_broken(&w->contract, "dead record",
                        "the index names %" PRIu64 " samples of nodes that are dead", indexed.dead);
    for (unsigned i = 0; i < w->node_count; i++) {
        struct store_info info;
        for (uint64_t cursor = 0; store_list_next(node_space(&w->nodes[i])->store, &cursor, &info);)
            resident += info.state == STORE_RESIDENT && !info.landing;
    }
    if (resident != indexed.records)
        contract_broken(&w->contract, "no record",
                        "%" PRIu64 " samples are resident, the index names %" PRIu64 " of them",
                        resident, indexed.records);
}

static void check_rest(struct world *w) {
    bool seen[CLAIMS_MAX] = {false};
    struct contract *c = &w->contract;
    for (unsigned i = 0; i < w->node_count && !c->broken; i++) {
        check_totals(w, &w->nodes[i]);
        check_resident(w, &w->nodes[i], seen);
    }
    if (w->etcd)
        check_index(w);
    for (unsigned i = 0; i < c->claim_count && !c->broken; i++)
        if (contract_must_rest(c, &c->claims[i]) && !seen[i])
            contract_broken(c, "lost",
                            "put %" PRIx64 " (generation %" PRIx64
                            ") of node %s is gone though nothing ended it",
                            c->claims[i].nonce, c->claims[i].generation,
                            w->nodes[c->claims[i].home].name);
}

/* How many of some that must be there this client could not read. */
static unsigned unreadable(struct world *w, struct client *reader) {
    const struct contract *c = &w->contract;
    unsigned asked_before = w->asked_count, held_before = w->held_count;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < c->claim_count && !c->broken; i++)
        if (contract_must_rest(c, &c->claims[i]) && w->asked_count - asked_before < READ_COUNT &&
            bytes + c->claims[i].bytes <= READ_BYTES) {
            bytes += c->claims[i].bytes;
            client_get(reader, &w->contract.claims[i]);
        }
    unsigned asked = w->asked_count - asked_before;
    go_until(w, all_answered, READ_NS_MAX);
    check_answered(w);
    return asked - (w->held_count - held_before);
}

/* Not at the first attempt, if a connection is dead and nobody has noticed yet. */
static void read_some(struct world *w) {
    struct client *reader = &w->nodes[w->random % w->node_count].clients[0];
    unsigned missing = 0;
    reader->node = &w->nodes[w->random % w->node_count];
    for (unsigned attempt = 0; attempt < READ_ATTEMPTS && !w->contract.broken; attempt++) {
        client_connect(reader);
        missing = unreadable(w, reader);
        if (!missing)
            return;
        settle(w);
    }
    contract_broken(&w->contract, "unreadable", "%u samples at rest could not be read at node %s",
                    missing, reader->node->name);
}

void world_rest(struct world *w) {
    world_heal(w);
    w->settling = true;
    go_until(w, all_answered, REST_NS_MAX);
    check_answered(w);
    if (!w->contract.broken)
        settle(w);
    if (!w->contract.broken) {
        count_far_consumed(w);
        check_rest(w);
    }
    if (!w->contract.broken)
        read_some(w);
    if (!w->contract.broken)
        settle(w);
    for (unsigned i = 0; i < w->node_count && !w->contract.broken; i++)
        check_totals(w, &w->nodes[i]);
}
