/* SPDX-License-Identifier: Apache-2.0
 *
 * One history: its steps, chosen at random; then all faults end, clients give back what they hold
 * and leave, and everything must come to rest: no lease, reservation, waiter or pending release, a
 * sound store on every node, and exactly those samples resident that the contract says. At last one
 * node reads some of them.
 */
#include "cluster_sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SETTLE_NS     (500 * MS)
#define SETTLE_NS_MAX (5000 * MS)
#define SETTLE_INDEX_NS                                                                            \
    (9000 * MS) /* leases of dead nodes end, nodes join again, puts hear of older homes */
#define READ_COUNT 4u
#define READ_BYTES 100000u /* what surely fits the landing share at once */

/* ---- choosing ---- */

static const struct {
    const char *name;
    unsigned weight;
} kinds[STEP_KINDS] = {
    [STEP_PUT] = {"put", 150},
    [STEP_RESERVE] = {"reserve", 40},
    [STEP_COMMIT] = {"commit", 45},
    [STEP_CANCEL] = {"cancel", 6},
    [STEP_GET_REF] = {"get by ref", 260},
    [STEP_GET_ID] = {"get by id", 60},
    [STEP_RELEASE] = {"release", 230},
    [STEP_RELEASE_LATE] = {"release late", 20},
    [STEP_ACK] = {"ack", 30},
    [STEP_ABORT] = {"abort", 30},
    [STEP_STAT] = {"stat", 20},
    [STEP_GC] = {"gc", 4},
    [STEP_LEAVE] = {"client dies", 16},
    [STEP_REPEAT] = {"repeat", 20},
    [STEP_CUT] = {"cut", 12},
    [STEP_DROP_LINK] = {"drop link", 12},
    [STEP_PAUSE] = {"pause", 8},
    [STEP_CRASH] = {"crash", 5},
    [STEP_SLOW] = {"slow", 3},
    [STEP_DIRECTORY_CUT] = {"directory cut", 4},
    [STEP_DIRECTORY_VAGUE] = {"directory vague", 4},
};

static uint64_t any_gap_ns(uint64_t *random, bool index) {
    uint64_t pick = cluster_random(random);
    switch (pick % 16) {
    case 0:
        return pick / 16 % (index ? 400 * MS : 20 * MS);
    case 1:
    case 2:
    case 3:
        return 0;
    case 4:
    case 5:
    case 6:
    case 7:
        return pick / 16 % (60 * US);
    default:
        return pick / 16 % (900 * US);
    }
}

static enum step_kind any_kind(uint64_t *random) {
    unsigned sum = 0, kind = 0;
    for (unsigned i = 0; i < STEP_KINDS; i++)
        sum += kinds[i].weight;
    unsigned pick = (unsigned)(cluster_random(random) % sum);
    while (pick >= kinds[kind].weight)
        pick -= kinds[kind++].weight;
    return (enum step_kind)kind;
}

void history_choose(struct history *h, uint64_t seed, bool index, unsigned events) {
    uint64_t random = seed * 0x9e3779b97f4a7c15u + index;
    h->seed = seed;
    h->index = index;
    h->nodes = 3 + (unsigned)(cluster_random(&random) % 3);
    h->policy = (enum contract_policy)(cluster_random(&random) % 3);
    h->readers = 1 + (cluster_random(&random) % 3 == 0);
    h->step_count = events < STEPS_MAX ? events : STEPS_MAX;
    uint64_t at_ns = index ? 300 * MS : 2 * MS;
    for (unsigned i = 0; i < h->step_count; i++) {
        at_ns += any_gap_ns(&random, index);
        h->steps[i] = (struct step){.at_ns = at_ns,
                                    .kind = any_kind(&random),
                                    .node = (unsigned)(cluster_random(&random) % h->nodes),
                                    .client = (unsigned)(cluster_random(&random) % 3),
                                    .a = (uint32_t)(cluster_random(&random) >> 16),
                                    .b = (uint32_t)(cluster_random(&random) >> 16),
                                    .c = (uint32_t)(cluster_random(&random) >> 16)};
    }
}

void history_print(const struct history *h) {
    static const char *const policies[] = {"on-release", "on-ack", "retain"};
    printf("%u nodes, %s, %u readers, %s, %u steps:\n", h->nodes, policies[h->policy], h->readers,
           h->index ? "index" : "static", h->step_count);
    for (unsigned i = 0; i < h->step_count; i++)
        printf("  %9.3f ms  %-15s node %c client %u  %u %u %u\n", (double)h->steps[i].at_ns / 1e6,
               kinds[h->steps[i].kind].name, 'a' + (char)h->steps[i].node, h->steps[i].client,
               h->steps[i].a, h->steps[i].b, h->steps[i].c);
}

/* ---- running ---- */

/* Mostly shorter than what the brokers take for silence, sometimes longer. */
static uint64_t any_span_ns(const struct world *w, const struct step *step) {
    uint64_t longest_ns = w->history->index ? 5000 * MS : 400 * MS;
    return (step->b % 4 ? step->c % (longest_ns / 10) : step->c % longest_ns);
}

static void cut(struct world *w, const struct step *step) {
    unsigned from = step->node, to = (from + 1 + step->a % (w->node_count - 1)) % w->node_count;
    uint64_t until_ns = w->now_ns + any_span_ns(w, step);
    world_cut(w, from, to, until_ns);
    if (step->b / 4 % 2)
        world_cut(w, to, from, until_ns);
}

static void fault(struct world *w, const struct step *step) {
    struct node *node = &w->nodes[step->node];
    uint64_t until_ns = w->now_ns + any_span_ns(w, step);
    if (!node->broker)
        return;
    switch (step->kind) {
    case STEP_CUT:
        cut(w, step);
        break;
    case STEP_DROP_LINK:
        world_say(w, "a connection of %s breaks%s", node->name,
                  step->b % 2 ? "" : ", the other side does not know");
        fake_network_drop_nth(node->transport, step->a, step->b % 2 == 0);
        break;
    case STEP_PAUSE:
        if (!node->paused)
            world_pause(node, until_ns);
        break;
    case STEP_CRASH:
        world_crash(node, step->a % 3 == 0, until_ns + 10 * MS);
        break;
    case STEP_SLOW:
        world_slow(w, until_ns);
        break;
    case STEP_DIRECTORY_CUT:
        world_directory_cut(w, step->node, until_ns);
        break;
    case STEP_DIRECTORY_VAGUE:
        world_directory_vague(w, until_ns);
        break;
    default:
        break;
    }
}

static void run_steps(struct world *w, const struct history *h) {
    uint64_t begin_ns = w->now_ns;
    for (unsigned i = 0; i < h->step_count && !w->contract.broken; i++) {
        const struct step *step = &h->steps[i];
        world_go(w, begin_ns + step->at_ns);
        if (step->kind >= STEP_CUT)
            fault(w, step);
        else
            client_step(w, step);
    }
}

/* ---- coming to rest ---- */

static bool all_idle(const struct world *w) {
    for (unsigned i = 0; i < w->node_count; i++)
        if (!broker_is_idle(w->nodes[i].broker))
            return false;
    return true;
}

static void settle(struct world *w) {
    uint64_t give_up_ns = w->now_ns + SETTLE_NS_MAX;
    for (unsigned i = 0; i < w->node_count; i++)
        clients_let_go(&w->nodes[i]);
    world_go(w, w->now_ns + 5 * MS);
    for (unsigned i = 0; i < w->node_count; i++)
        clients_die(&w->nodes[i]);
    do
        world_go(w, w->now_ns + 20 * MS);
    while (!w->contract.broken && !all_idle(w) && w->now_ns < give_up_ns);
    for (unsigned i = 0; i < w->node_count && !w->contract.broken; i++) {
        char load[128];
        if (broker_is_idle(w->nodes[i].broker))
            continue;
        broker_describe_load(w->nodes[i].broker, load, sizeof load);
        contract_broken(&w->contract, "no rest", "node %s does not come to rest: %s",
                        w->nodes[i].name, load);
    }
}

static void check_answered(struct world *w) {
    const struct asked *first;
    unsigned count = clients_unanswered(w, &first);
    if (count)
        contract_broken(&w->contract, "no answer",
                        "%u requests were never answered, the last a %s (#%u) at node %s", count,
                        kinds[first->kind].name, (unsigned)(first - w->asked),
                        first->client->node->name);
}

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
    if (t.planned || t.sealed || t.retired || t.put_waiters || t.get_waiters || t.land_waiters)
        contract_broken(&w->contract, "left over",
                        "node %s at rest has %" PRIu64 " planned, %" PRIu64 " sealed, %" PRIu64
                        " retired; waiting: %" PRIu64 " puts, %" PRIu64 " gets, %" PRIu64
                        " landings",
                        node->name, t.planned, t.sealed, t.retired, t.put_waiters, t.get_waiters,
                        t.land_waiters);
    if (!TAILQ_EMPTY(&node->broker->fetches) || !TAILQ_EMPTY(&node->broker->timed) ||
        node->broker->remote_leases.live)
        contract_broken(&w->contract, "left over",
                        "node %s at rest has fetches, timed items or %u leases elsewhere",
                        node->name, node->broker->remote_leases.live);
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
        const uint8_t *at = (const uint8_t *)space->arena.base + info.extent_offset;
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

static void check_rest(struct world *w) {
    bool seen[CLAIMS_MAX] = {false};
    struct contract *c = &w->contract;
    for (unsigned i = 0; i < w->node_count && !c->broken; i++) {
        check_totals(w, &w->nodes[i]);
        check_resident(w, &w->nodes[i], seen);
    }
    for (unsigned i = 0; i < c->claim_count && !c->broken; i++)
        if (contract_must_rest(c, &c->claims[i]) && !seen[i])
            contract_broken(c, "lost",
                            "put %" PRIx64 " (generation %" PRIx64
                            ") of node %s is gone though nothing ended it",
                            c->claims[i].nonce, c->claims[i].generation,
                            w->nodes[c->claims[i].home].name);
}

/* One node reads some of what must be there. */
static void read_some(struct world *w) {
    struct contract *c = &w->contract;
    struct client *reader = &w->nodes[w->random % w->node_count].clients[0];
    unsigned before = w->asked_count, held_before = w->held_count;
    reader->node = &w->nodes[w->random % w->node_count];
    client_connect(reader);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < c->claim_count && !c->broken; i++)
        if (contract_must_rest(c, &c->claims[i]) && w->asked_count - before < READ_COUNT &&
            bytes + c->claims[i].bytes <= READ_BYTES) {
            bytes += c->claims[i].bytes;
            client_get(reader, &c->claims[i]);
        }
    unsigned asked = w->asked_count - before;
    world_go(w, w->now_ns + 250 * MS);
    check_answered(w);
    if (!c->broken && w->held_count - held_before != asked)
        contract_broken(c, "unreadable", "%u of %u samples at rest could not be read at node %s",
                        asked - (w->held_count - held_before), asked, reader->node->name);
}

const char *history_run(struct world *w, const struct history *h, bool trace) {
    world_init(w, h, trace);
    run_steps(w, h);
    if (!w->contract.broken) {
        world_heal(w);
        w->settling = true;
        world_go(w, w->now_ns + (h->index ? SETTLE_INDEX_NS : SETTLE_NS));
        check_answered(w);
    }
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
    world_free(w);
    return w->contract.broken;
}
