/* SPDX-License-Identifier: Apache-2.0
 *
 * One history: its steps, chosen at random and carried out at their times; then all faults end and
 * the cluster must come to rest (cluster_rest.c).
 */
#include "model/cluster_sim.h"

#include <stdio.h>

#define FAULTS_MORE 3u /* where they outlast leases */
#define FORGETS     3u /* in one history of so many etcd forgets */
#define KILLS       3u /* in one of so many brokers are killed with their memory */

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
    [STEP_KILL] = {"kill", 24},
    [STEP_SLOW] = {"slow", 3},
    [STEP_DIRECTORY_CUT] = {"directory cut", 4},
    [STEP_DIRECTORY_VAGUE] = {"directory vague", 4},
    [STEP_DIRECTORY_EMPTIED] = {"etcd emptied", 3},
    [STEP_DIRECTORY_RESTORED] = {"etcd restored", 5},
    [STEP_RECORD_LOST] = {"record lost", 4},
    [STEP_RECORD_FOREIGN] = {"foreign record", 4},
};

static uint64_t any_gap_ns(uint64_t *random, const struct history *h) {
    uint64_t longest_ns = h->fences ? 600 * MS : h->index ? 400 * MS : 20 * MS;
    uint64_t pick = cluster_random(random);
    switch (pick % 16) {
    case 0:
        return pick / 16 % longest_ns;
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

static unsigned weight_of(unsigned kind, const struct history *h) {
    if (kind == STEP_KILL)
        return h->kills ? kinds[kind].weight : 0;
    if (kind >= STEP_DIRECTORY_EMPTIED)
        return h->forgets ? kinds[kind].weight : 0;
    return kinds[kind].weight * (h->fences && kind >= STEP_CUT ? FAULTS_MORE : 1);
}

static enum step_kind any_kind(uint64_t *random, const struct history *h) {
    unsigned sum = 0, kind = 0;
    for (unsigned i = 0; i < STEP_KINDS; i++)
        sum += weight_of(i, h);
    unsigned pick = (unsigned)(cluster_random(random) % sum);
    while (pick >= weight_of(kind, h))
        pick -= weight_of(kind++, h);
    return (enum step_kind)kind;
}

void history_choose(struct history *h, uint64_t seed, bool index, unsigned events) {
    uint64_t random = seed * 0x9e3779b97f4a7c15u + index;
    h->seed = seed;
    h->index = index;
    h->nodes = 3 + (unsigned)(cluster_random(&random) % 3);
    h->policy = (enum contract_policy)(cluster_random(&random) % 3);
    h->readers = 1 + (cluster_random(&random) % 3 == 0);
    h->ids = 1 + (unsigned)(cluster_random(&random) % SAMPLE_IDS);
    h->fences = index && cluster_random(&random) % 3 == 0;
    uint64_t forgets = seed ^ 0xd1b54a32d192ed03u; /* of its own: the other histories stay */
    h->forgets = index && cluster_random(&forgets) % FORGETS == 0;
    h->kills = KILLS && cluster_random(&forgets) % (KILLS + !KILLS) == 0;
    h->events_least = events < STEPS_MAX / STEPS_PER_EVENT ? events : STEPS_MAX / STEPS_PER_EVENT;
    h->step_count = STEPS_PER_EVENT * h->events_least;
    uint64_t at_ns = index ? 300 * MS : 2 * MS;
    for (unsigned i = 0; i < h->step_count; i++) {
        at_ns += any_gap_ns(&random, h);
        h->steps[i] = (struct step){.at_ns = at_ns,
                                    .kind = any_kind(&random, h),
                                    .node = (unsigned)(cluster_random(&random) % h->nodes),
                                    .client = (unsigned)(cluster_random(&random) % 3),
                                    .a = (uint32_t)(cluster_random(&random) >> 16),
                                    .b = (uint32_t)(cluster_random(&random) >> 16),
                                    .c = (uint32_t)(cluster_random(&random) >> 16)};
    }
}

void history_print(const struct history *h) {
    static const char *const policies[] = {"on-release", "on-ack", "retain"};
    printf("%u nodes%s, %s, %u readers, %s%s, %u ids, %u steps:\n", h->nodes,
           h->kills ? " that are killed" : "", policies[h->policy], h->readers,
           h->index ? "index" : "static", h->forgets ? " that forgets" : "", h->ids, h->step_count);
    for (unsigned i = 0; i < h->step_count; i++)
        printf("  %9.3f ms  %-15s node %c client %u  %u %u %u\n", (double)h->steps[i].at_ns / 1e6,
               kinds[h->steps[i].kind].name, 'a' + (char)h->steps[i].node, h->steps[i].client,
               h->steps[i].a, h->steps[i].b, h->steps[i].c);
}

/* ---- running ---- */

/* Mostly shorter than what the brokers take for silence, sometimes longer; or the other way. */
static uint64_t any_span_ns(const struct world *w, const struct step *step) {
    uint64_t longest_ns = w->history->index ? 5000 * MS : 400 * MS;
    bool is_short = w->history->fences ? step->b / 2 % 4 == 0 : step->b % 4 != 0;
    return step->c % (is_short ? longest_ns / 10 : longest_ns);
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
    if (!node->broker || (step->kind >= STEP_DIRECTORY_CUT && !w->etcd))
        return;
    w->done++;
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
    case STEP_KILL:
        if (!node->paused)
            world_kill(node, step->a % 3 == 0, until_ns + MS);
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
    case STEP_DIRECTORY_EMPTIED:
    case STEP_DIRECTORY_RESTORED:
    case STEP_RECORD_LOST:
    case STEP_RECORD_FOREIGN:
        world_directory_forgets(w, step, until_ns);
        break;
    default:
        break;
    }
}

/* Where many steps find nobody to ask, more are gone through. */
static bool has_enough(const struct world *w, const struct history *h, unsigned steps) {
    return steps >= h->step_count ||
           (steps >= h->events_least && w->done + w->delivered >= h->events_least);
}

static void run_steps(struct world *w, const struct history *h) {
    uint64_t begin_ns = w->now_ns;
    for (unsigned i = 0; !has_enough(w, h, i) && !w->contract.broken; i++) {
        const struct step *step = &h->steps[i];
        world_go(w, begin_ns + step->at_ns);
        if (step->kind >= STEP_CUT)
            fault(w, step);
        else
            client_step(w, step);
    }
}

const char *history_run(struct world *w, const struct history *h, bool trace) {
    world_init(w, h, trace);
    run_steps(w, h);
    if (!w->contract.broken)
        world_rest(w);
    if (!w->contract.broken)
        world_drop(w);
    world_free(w);
    return w->contract.broken;
}
