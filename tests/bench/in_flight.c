/* SPDX-License-Identifier: Apache-2.0
 *
 * What a put costs while many others are under way: the machine of cluster/supersede.c, its set and
 * its deadline, from the seal to the answer, with one older home that confirms. A walk over all
 * that is under way anywhere in there would show as a ratio of hundreds.
 *
 * Both sets are of the same size and both use ids and operations that spread over all of it, so
 * that the memory that a put touches is as far away with 10 others as with 10,000.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/rounds.h"
#include "cluster/cluster.h"
#include "time/deadlines.h"

#define FEW          10u
#define MANY         10000u
#define PUTS_PER_RUN 1000u

struct put {
    struct supersede supersede;
    struct deadline due;
    char sample_id[32];
};
struct in_flight {
    struct supersede_set *set;
    struct roster *roster;
    struct deadlines deadlines;
    struct put *others; /* under way all the time */
    uint64_t serial;
};

static void never_due(struct deadline *due, uint64_t now_ns) {
    (void)due, (void)now_ns;
}

/* Until its older home has been asked. */
static struct older_home *put_begin(struct in_flight *all, struct put *put) {
    const struct supersede_rules rules = {.roster = all->roster, .keeps_words = true};
    struct supersede_action action = {0};
    struct older_home *asked = NULL;
    *put = (struct put){.supersede = {.generation = ++all->serial,
                                      .client_id = 1,
                                      .op_id = all->serial,
                                      .sample_id = put->sample_id}};
    snprintf(put->sample_id, sizeof put->sample_id, "sample-%llu", (unsigned long long)all->serial);
    deadline_init(&put->due, never_due);
    supersede_begin_put(all->set, &put->supersede);
    supersede_published(&put->supersede, &(struct supersede_published){.answer = CLUSTER_DONE,
                                                                       .older_home = "b",
                                                                       .older_generation = 1,
                                                                       .older_incarnation = 1});
    supersede_go_on(&put->supersede, &rules, 0);
    while (supersede_next_action(&put->supersede, &action))
        if (action.what == SUPERSEDE_DO_ASK)
            asked = action.home;
    deadlines_set(&all->deadlines, &put->due, all->serial);
    return asked;
}

/* Op: PUTS_PER_RUN puts, one after the other, each looked for as clients and peers look for it. */
static int run_puts(void *context) {
    struct in_flight *all = context;
    static struct put put;
    struct supersede_action action;
    for (unsigned i = 0; i < PUTS_PER_RUN; i++) {
        struct older_home *asked = put_begin(all, &put);
        const struct supersede *s = &put.supersede;
        if (!asked || supersede_of_generation(all->set, 0, s->generation, SUPERSEDE_PUTS) != s ||
            supersede_of_sample(all->set, 0, s->sample_id, SUPERSEDE_IN_THE_INDEX) != s ||
            supersede_of_op(all->set, 0, 1, s->op_id) != s ||
            !supersede_defer_removal(all->set, 0, s->generation))
            return bench_fail("a put that is under way was not found");
        supersede_replied(asked, true, true, 0);
        while (supersede_next_action(&put.supersede, &action))
            ;
        if (put.supersede.state != SUPERSEDE_OVER)
            return bench_fail("a put whose older home has confirmed is not over");
        deadlines_clear(&all->deadlines, &put.due);
        supersede_end(&put.supersede);
    }
    return 0;
}

static int in_flight_init(struct in_flight *all, unsigned others) {
    static const uint8_t key[CLUSTER_HASH_KEYBYTES] = {1};
    all->set = supersede_set_new(key);
    all->roster = roster_new();
    all->others = calloc(others, sizeof *all->others);
    if (!all->set || !all->roster || !all->others || !roster_come(all->roster, "b", 1))
        return bench_fail("out of memory");
    for (unsigned i = 0; i < others; i++)
        put_begin(all, &all->others[i]);
    return 0;
}

static void in_flight_deinit(struct in_flight *all) {
    struct supersede *s;
    while (all->set && (s = supersede_set_first(all->set)))
        supersede_end(s);
    supersede_set_free(all->set);
    roster_free(all->roster);
    free(all->others);
}

int bench_in_flight(struct bench *bench) {
    static struct in_flight few, many;
    struct rounds_op ops[] = {{.run = run_puts, .context = &few},
                              {.run = run_puts, .context = &many}};
    const struct rounds_plan plan = {bench->quick ? 4 : 40, 10, 2};
    int result = in_flight_init(&few, FEW);
    if (result == 0)
        result = in_flight_init(&many, MANY);
    if (result == 0)
        result = rounds_run(ops, 2, plan);
    if (result == 0)
        bench_report(bench,
                     &(struct bench_figure){
                         "publish_10k_in_flight", "us",
                         samples_median(&ops[1].samples) / 1e3 / PUTS_PER_RUN,
                         samples_median(&ops[0].samples) / 1e3 / PUTS_PER_RUN, BENCH_AT_MOST, 1.3,
                         "of a put from seal to answer with 10,000 others under way, over "
                         "the same with 10"});
    rounds_deinit(ops, 2);
    in_flight_deinit(&few);
    in_flight_deinit(&many);
    return result;
}
