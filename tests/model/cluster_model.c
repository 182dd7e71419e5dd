/* SPDX-License-Identifier: Apache-2.0
 *
 * Many histories of a cluster, shared out to one process per core. The first that breaks the
 * contract is shrunk (steps are left out while it still breaks in the same way) and printed.
 *
 *   CLUSTER_SEED       the first history's seed, the others follow it; 0 = by the clock
 *   CLUSTER_HISTORIES  how many (10000 with a static directory, 30000 with an index)
 *   CLUSTER_EVENTS     steps of each, and more until it has had as many events (200)
 *   CLUSTER_JOBS       processes (one per core)
 *   CLUSTER_SHRINK=0   does not shrink; CLUSTER_TRACE=0 does not tell what happens
 *   CLUSTER_LOG=1      tells it in the brokers' own words, too, on stderr
 */
#include "model/cluster_sim.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The same histories in every check, so that a failure means a change; hunt with CLUSTER_SEED=0. */
#define SEED_DEFAULT 857075413u

#define JOBS_MAX      16u
#define HISTORY_S_MAX 60 /* they take milliseconds: one that takes so long hangs */

static struct world world;

/* Written by the children, read by the parent. */
struct report {
    uint64_t seed, histories;
    uint64_t steps, deliveries; /* in all: requests and faults; what these led to */
    uint64_t events_min;        /* of both together, in one history */
    char broken[64], why[400];
};

/* libsodium's generator, made to repeat itself: stores take their keys from it. */
static uint64_t sodium_state;

static const char *sodium_name(void) {
    return "simulated";
}

static uint32_t sodium_random(void) {
    return (uint32_t)(cluster_random(&sodium_state) >> 32);
}

static void sodium_buffer(void *const out, const size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)out)[i] = (uint8_t)(cluster_random(&sodium_state) >> 56);
}

static randombytes_implementation simulated_random = {
    .implementation_name = sodium_name,
    .random = sodium_random,
    .buf = sodium_buffer,
};

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t min_of(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static const char *run(const struct history *h, struct report *report, bool trace) {
    sodium_state = h->seed;
    report->seed = h->seed;
    const char *broken = history_run(&world, h, trace);
    uint64_t events = world.done + world.delivered;
    report->steps += world.done;
    report->deliveries += world.delivered;
    report->events_min = min_of(report->histories ? report->events_min : UINT64_MAX, events);
    report->histories++;
    if (!broken && events < h->events_least) {
        contract_broken(&world.contract, "too short", "only %llu events",
                        (unsigned long long)events);
        broken = world.contract.broken;
    }
    if (broken) {
        snprintf(report->broken, sizeof report->broken, "%s", broken);
        snprintf(report->why, sizeof report->why, "%s", world.contract.why);
    }
    return broken;
}

static struct report *reports_new(void) {
    struct report *reports = mmap(NULL, JOBS_MAX * sizeof *reports, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(reports, MAP_FAILED);
    return reports;
}

/* In a child, because a broker that crashes is a find too. */
static bool breaks(const struct history *h, struct report *report, bool trace) {
    memset(report, 0, sizeof *report);
    fflush(stdout);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if (!trace && !freopen("/dev/null", "w", stderr))
            _exit(2);
        alarm(HISTORY_S_MAX);
        run(h, report, trace);
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status)))
        snprintf(report->broken, sizeof report->broken, "crash");
    return *report->broken;
}

/* Leaves out ever smaller runs of steps, as long as it breaks in the same way. */
static void shrink(struct history *h, const char *broken, struct report *report) {
    static struct history shorter;
    for (unsigned run_length = h->step_count / 2; run_length > 0;) {
        bool left_out = false;
        for (unsigned at = 0; at + run_length <= h->step_count;) {
            shorter = *h;
            memmove(&shorter.steps[at], &h->steps[at + run_length],
                    (h->step_count - at - run_length) * sizeof h->steps[0]);
            shorter.step_count -= run_length;
            if (breaks(&shorter, report, false) && !strcmp(report->broken, broken)) {
                *h = shorter;
                left_out = true;
            } else {
                at += run_length;
            }
        }
        if (!left_out || run_length > 1)
            run_length = left_out && run_length == 1 ? 1 : run_length / 2;
    }
}

static void explain(uint64_t seed, bool index, unsigned events, struct report *report) {
    static struct history h;
    history_choose(&h, seed, index, events);
    if (!breaks(&h, report, false)) {
        printf("cluster_model: seed %llu broke only once\n", (unsigned long long)seed);
        return;
    }
    char broken[sizeof report->broken];
    memcpy(broken, report->broken, sizeof broken);
    if (from_environment("CLUSTER_SHRINK", 1))
        shrink(&h, broken, report);
    printf("cluster_model: CLUSTER_SEED=%llu, shrunk to ", (unsigned long long)seed);
    history_print(&h);
    breaks(&h, report, from_environment("CLUSTER_TRACE", 1));
    printf("cluster_model: %s: %s\n", report->broken, report->why);
}

static void work(unsigned job, unsigned jobs, uint64_t seed, uint64_t histories, bool index,
                 unsigned events, struct report *reports) {
    static struct history h;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t i = job; i < histories; i += jobs) {
        alarm(HISTORY_S_MAX);
        history_choose(&h, seed + i, index, events);
        if (run(&h, &reports[job], false))
            _exit(1);
        for (unsigned other = 0; other < jobs; other++)
            if (*reports[other].broken)
                _exit(0);
    }
    _exit(0);
}

static unsigned jobs_wanted(void) {
    uint64_t jobs = from_environment("CLUSTER_JOBS", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    return jobs > JOBS_MAX ? JOBS_MAX : jobs ? (unsigned)jobs : 1;
}

static uint64_t seed_wanted(void) {
    struct timespec now;
    uint64_t seed = from_environment("CLUSTER_SEED", SEED_DEFAULT);
    clock_gettime(CLOCK_REALTIME, &now);
    return seed ? seed : (uint64_t)now.tv_sec * 1000003u % 1000000000u;
}

static void prepare(void) {
    log_set_level(from_environment("CLUSTER_LOG", 0) ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    /* What one history frees the next one uses; but a struct broker, large and mostly untouched, is
     * cheaper mapped anew than cleared. */
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    randombytes_set_implementation(&simulated_random);
    cr_assert_eq(auth_init(), 0);
}

static void add_report(struct report *sum, const struct report *report) {
    if (report->histories)
        sum->events_min = min_of(sum->histories ? sum->events_min : UINT64_MAX, report->events_min);
    sum->histories += report->histories;
    sum->steps += report->steps;
    sum->deliveries += report->deliveries;
}

static void print_sum(const struct report *sum, double seconds) {
    double histories = sum->histories ? (double)sum->histories : 1;
    printf("cluster_model: %llu histories in %.1f s (%.0f/s); events of each: %llu at least, %.0f "
           "on average (%.0f requests and faults, the rest deliveries)\n",
           (unsigned long long)sum->histories, seconds, histories / seconds,
           (unsigned long long)sum->events_min, (double)(sum->steps + sum->deliveries) / histories,
           (double)sum->steps / histories);
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Runs them all, or until one breaks; that one's report in *found (seed 0: none). */
static void run_all(unsigned jobs, uint64_t seed, uint64_t histories, bool index, unsigned events,
                    struct report *reports, struct report *found) {
    pid_t children[JOBS_MAX];
    struct report sum = {0};
    double begun = seconds_now();
    for (unsigned i = 0; i < jobs; i++)
        if ((children[i] = fork()) == 0)
            work(i, jobs, seed, histories, index, events, reports);
    for (unsigned i = 0; i < jobs; i++) {
        int status;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        add_report(&sum, &reports[i]);
        if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
            (!found->seed || reports[i].seed < found->seed))
            *found = reports[i];
    }
    print_sum(&sum, seconds_now() - begun);
}

static void hunt(bool index, uint64_t histories_default) {
    uint64_t seed = seed_wanted();
    uint64_t histories = from_environment("CLUSTER_HISTORIES", histories_default);
    unsigned events = (unsigned)from_environment("CLUSTER_EVENTS", 200);
    struct report *reports = reports_new(), found = {0};
    prepare();
    printf("cluster_model: CLUSTER_SEED=%llu, %llu %s histories of %u steps or more\n",
           (unsigned long long)seed, (unsigned long long)histories, index ? "index" : "static",
           events);
    fflush(stdout);
    run_all(jobs_wanted(), seed, histories, index, events, reports, &found);
    if (found.seed)
        explain(found.seed, index, events, &reports[0]);
    fflush(stdout);
    cr_assert_eq(found.seed, 0, "%s: %s (CLUSTER_SEED=%llu CLUSTER_HISTORIES=1)", found.broken,
                 found.why, (unsigned long long)found.seed);
}

Test(cluster_model, static_directory_keeps_the_contract, .timeout = 7200) {
    hunt(false, 10000);
}

Test(cluster_model, index_keeps_the_contract, .timeout = 7200) {
    hunt(true, 30000);
}
