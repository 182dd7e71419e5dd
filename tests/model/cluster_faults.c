/* SPDX-License-Identifier: Apache-2.0
 *
 * What can go wrong in the simulated cluster: a node crashes or stops, the network is cut or slow,
 * etcd cannot be reached, loses answers, or forgets (it is restored from an older backup, emptied,
 * a record is deleted, or another cluster's record is written). Each fault has an end, which
 * world_end_faults() (cluster_world.c) brings about.
 */
#include "model/cluster_world.h"

#include <stdio.h>
#include <string.h>

#define SLOW_NS_MAX (30 * MS)

static void keep_hears_nothing(struct keep *keep, const char *name) {
    (void)keep, (void)name;
}

/* What tells a kill from a crash: the keeper holds the memory, as it was at this moment. */
static void take_away(struct node *node, bool silent, uint64_t until_ns) {
    fake_network_kill(node->transport, silent);
    if (node->etcd)
        etcd_fake_kill(node->etcd);
    world_take_apart(node);
    node->dying = false;
    node->deferred_count = 0;
    node->crashed_until_ns = until_ns;
}

/* In this order: the memory is frozen, and the keeper does not listen any more, before anything of
 * the broker is taken apart. */
void world_kill(struct node *node, bool silent, uint64_t until_ns) {
    static const struct keep_ops deaf = {.drop = keep_hears_nothing};
    const struct keep_ops *listens = node->keep->keep.ops;
    world_say(node->world, "%s is killed%s", node->name, silent ? " without a word" : "");
    for (size_t i = 0; i < node->keep->count; i++)
        memory_freeze(node->keep->entries[i].fd);
    node->keep->keep.ops = &deaf;
    node->dying = true;
    node->away = true;
    node->killed = true;
    node->clock_set_back = cluster_random(&node->world->random) % 3 == 0;
    clients_lose_broker(node);
    take_away(node, silent, until_ns);
    node->keep->keep.ops = listens;
    keep_fake_restart(node->keep);
}

void world_crash(struct node *node, bool silent, uint64_t until_ns) {
    struct world *w = node->world;
    world_say(w, "%s crashes%s", node->name, silent ? " without a word" : "");
    contract_node_dies(&w->contract, node->index, node->incarnation);
    node->dying = true;
    clients_die(node);
    take_away(node, silent, until_ns);
    node->clock_set_back = false;
    if (node->keep)
        keep_fake_deinit(node->keep);
}

void world_pause(struct node *node, uint64_t until_ns) {
    world_say(node->world, "%s stops for %.1f ms", node->name,
              (double)(until_ns - node->world->now_ns) / 1e6);
    node->paused = true;
    node->paused_until_ns = until_ns;
    fake_network_freeze(node->transport, true);
    node->away = true;
    if (node->etcd)
        etcd_fake_freeze(node->etcd, true);
}

void world_cut(struct world *w, unsigned from, unsigned to, uint64_t until_ns) {
    world_say(w, "%s no longer reaches %s for %.1f ms", w->nodes[from].name, w->nodes[to].name,
              (double)(until_ns - w->now_ns) / 1e6);
    w->cut_until_ns[from][to] = until_ns;
    world_apply_cuts(w);
}

void world_slow(struct world *w, uint64_t until_ns) {
    world_say(w, "the network is slow for %.1f ms", (double)(until_ns - w->now_ns) / 1e6);
    w->slow_until_ns = until_ns;
    fake_network_set_delay(w->network, DELAY_NS_MIN, SLOW_NS_MAX);
}

void world_directory_cut(struct world *w, unsigned node, uint64_t until_ns) {
    if (!w->etcd)
        return;
    world_say(w, "%s no longer reaches etcd for %.1f ms", w->nodes[node].name,
              (double)(until_ns - w->now_ns) / 1e6);
    w->directory_cut_until_ns[node] = until_ns;
    w->nodes[node].away = true;
    if (w->nodes[node].etcd)
        etcd_fake_cut(w->nodes[node].etcd, true);
}

void world_directory_vague(struct world *w, uint64_t until_ns) {
    if (!w->etcd)
        return;
    world_say(w, "etcd loses answers for %.1f ms, and compacts",
              (double)(until_ns - w->now_ns) / 1e6);
    w->vague_until_ns = until_ns;
    for (unsigned i = 0; i < w->node_count; i++)
        w->nodes[i].away = true;
    fake_etcd_set_vague(w->etcd, 40);
    fake_etcd_compact(w->etcd);
}

/* ---- an etcd that forgets ---- */

#define SAMPLES "/featured/sim/samples/run/"

static void cut_all_from_etcd(struct world *w, uint64_t until_ns) {
    for (unsigned i = 0; i < w->node_count; i++)
        world_directory_cut(w, i, until_ns);
}

/* To any earlier moment, mostly one not long ago. */
static void restore(struct world *w, const struct step *step) {
    int64_t revision = fake_etcd_revision(w->etcd), back = 1 + (int64_t)(step->a / 8 % 12);
    if (step->a % 4 == 0)
        back = (int64_t)(step->a / 8) % revision;
    if (step->kind == STEP_DIRECTORY_EMPTIED)
        back = revision;
    world_say(w, "etcd is restored to %lld revisions ago%s",
              (long long)(back < revision ? back : revision), back < revision ? "" : ": emptied");
    fake_etcd_restore(w->etcd, back < revision ? revision - back : 1);
}

/* Another cluster's: a node of a name that we may have too, under an incarnation that we never
 * had. */
static void write_foreign(struct world *w, const struct step *step) {
    char key[64], value[256];
    uint64_t generation = (UNIX_MS - 1000 + step->b % 4000) << 20 | step->a % 1000;
    snprintf(key, sizeof key, SAMPLES "s%u", step->a % w->history->ids);
    snprintf(value, sizeof value,
             "{\"gen\":%llu,\"home\":\"%c\",\"inc\":\"%llx\",\"bytes\":64,\"time\":1}",
             (unsigned long long)generation, 'a' + (char)(step->c % 6),
             (unsigned long long)cluster_random(&w->random) | 1);
    world_say(w, "somebody writes %s = %s", key, value);
    fake_etcd_write(w->etcd, key, value);
    contract_record_lost(&w->contract, step->a % w->history->ids);
}

static bool knows_everybody(const struct node *node) {
    const struct world *w = node->world;
    for (unsigned i = 0; w->etcd && i < w->node_count; i++)
        if (&w->nodes[i] != node && !peers_find(node->peers, w->nodes[i].name))
            return false;
    return true;
}

void world_may_not_know(const struct node *node, unsigned id) {
    struct world *w = node->world;
    if ((w->forgot && w->now_ns - w->forgot_ns < LEASES_NS) || !knows_everybody(node))
        contract_record_lost(&w->contract, id);
}

void world_directory_forgets(struct world *w, const struct step *step, uint64_t until_ns) {
    const char *lost = fake_etcd_any(w->etcd, SAMPLES, step->a);
    for (unsigned i = 0; i < w->node_count; i++)
        w->nodes[i].away = true;
    w->forgot = true;
    w->forgot_ns = w->now_ns;
    if (step->kind == STEP_RECORD_LOST && lost) {
        world_say(w, "somebody deletes %s", lost);
        fake_etcd_write(w->etcd, lost, NULL);
        contract_record_lost(&w->contract, (unsigned)(lost[strlen(lost) - 1] - '0'));
    } else if (step->kind == STEP_RECORD_FOREIGN) {
        write_foreign(w, step);
    } else if (step->kind == STEP_DIRECTORY_EMPTIED || step->kind == STEP_DIRECTORY_RESTORED) {
        if (step->b % 2)
            cut_all_from_etcd(w, until_ns);
        contract_index_lost(&w->contract);
        restore(w, step);
    }
}

void world_heal(struct world *w) {
    world_say(w, "all faults end");
    w->forgot_ns = w->now_ns; /* nodes that were away have yet to compare */
    for (unsigned a = 0; a < w->node_count; a++) {
        for (unsigned b = 0; b < w->node_count; b++)
            w->cut_until_ns[a][b] = w->cut_until_ns[a][b] ? w->now_ns : 0;
        w->directory_cut_until_ns[a] = w->directory_cut_until_ns[a] ? w->now_ns : 0;
        w->nodes[a].crashed_until_ns = w->nodes[a].paused_until_ns = w->now_ns;
    }
    w->slow_until_ns = w->slow_until_ns ? w->now_ns : 0;
    w->vague_until_ns = w->vague_until_ns ? w->now_ns : 0;
    world_end_faults(w);
}
