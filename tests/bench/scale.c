/* SPDX-License-Identifier: Apache-2.0
 *
 * A million resident samples on one node of a pair: what a get costs over the same get among a
 * thousand, what the broker holds for them beside the arenas, and what it burns when nobody asks
 * for anything.
 *
 * Both stores live in the same broker with the same settings, so that the gets differ in the number
 * of residents alone. The samples look like EAGLE3 features (four tensors with their names and
 * shapes) of very few tokens, so that the index and not the arena is what is large.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/rounds.h"

#define FEW       1000u
#define BATCH     256u
#define REFS_KEPT 16384u /* of the many: enough that neither side finds its slots in a cache */

static const char settings[] = "[memory]\nmax_resident_bytes = 2GiB\nprefault = on\n"
                               "[stores]\npolicy = retain\nmax_resident_bytes = 768MiB\n"
                               "landing_bytes = 1MiB\nmax_samples = 1100000\n"
                               "[store few]\n[store many]\n";

/* ---- filling ---- */
static const struct feature_tensor tensors[] = {
    {.size = sizeof(struct feature_tensor),
     .name = "input_ids",
     .dtype = FEATURE_DTYPE_I64,
     .rank = 1,
     .shape = {1}},
    {.size = sizeof(struct feature_tensor),
     .name = "loss_mask",
     .dtype = FEATURE_DTYPE_U8,
     .rank = 1,
     .shape = {1}},
    {.size = sizeof(struct feature_tensor),
     .name = "aux_hidden_state",
     .dtype = FEATURE_DTYPE_F16,
     .rank = 2,
     .shape = {1, 96}},
    {.size = sizeof(struct feature_tensor),
     .name = "hidden_state",
     .dtype = FEATURE_DTYPE_F16,
     .rank = 2,
     .shape = {1, 32}},
};
static char zeros[192];
static const struct iovec data[] = {{zeros, 8}, {zeros, 1}, {zeros, 192}, {zeros, 64}};

struct residents {
    struct feature_store *store;
    struct feature_ref *refs[REFS_KEPT]; /* spread evenly over all of them */
    uint32_t ref_count, count;
    uint64_t random;
};

static void keep_or_free(struct residents *residents, uint32_t index, struct feature_ref *ref) {
    const uint32_t every = residents->count / REFS_KEPT + 1;
    if (index % every == 0 && residents->ref_count < REFS_KEPT)
        residents->refs[residents->ref_count++] = ref;
    else
        feature_ref_free(ref);
}

static int put_batch(struct residents *residents, uint32_t first, uint32_t count) {
    struct feature_sample samples[BATCH];
    struct feature_put_item items[BATCH];
    char ids[BATCH][20];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(ids[i], sizeof ids[i], "sample-%07u", first + i);
        samples[i] = (struct feature_sample){.size = sizeof samples[i],
                                             .sample_id = ids[i],
                                             .tensors = tensors,
                                             .tensor_count = sizeof tensors / sizeof tensors[0]};
        items[i] = (struct feature_put_item){
            .size = sizeof(struct feature_put_item), .sample = &samples[i], .data = data};
    }
    const int status = feature_put_batch(residents->store, items, count, 0);
    const int result = status == FEATURE_OK ? 0 : bench_fail_feature("filling", status);
    for (uint32_t i = 0; i < count; i++)
        if (items[i].ref != NULL)
            keep_or_free(residents, first + i, items[i].ref);
    return result;
}

static int fill(struct residents *residents, struct feature *feature, const char *store,
                uint32_t count) {
    residents->count = count;
    residents->random = 1;
    if (broker_open_store(feature, store, &residents->store) != 0)
        return -1;
    for (uint32_t first = 0; first < count; first += BATCH)
        if (put_batch(residents, first, count - first < BATCH ? count - first : BATCH) != 0)
            return -1;
    return 0;
}

static void residents_deinit(struct residents *residents) {
    for (uint32_t i = 0; i < residents->ref_count; i++)
        feature_ref_free(residents->refs[i]);
}

/* ---- get ---- */
static int get_any(void *context) {
    struct residents *residents = context;
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_view *view;
    residents->random = residents->random * 6364136223846793005u + 1442695040888963407u;
    const uint32_t index = (uint32_t)((residents->random >> 33) % residents->ref_count);
    const int status =
        feature_get(residents->store, FEATURE_BY_REF(residents->refs[index]), &options, &view);
    if (status != FEATURE_OK)
        return bench_fail_feature("get", status);
    feature_release(view, FEATURE_RELEASE_RETURNED);
    return 0;
}

static int measure_get(struct bench *bench, struct residents *few, struct residents *many) {
    struct rounds_op ops[] = {{.run = get_any, .context = few}, {.run = get_any, .context = many}};
    const struct rounds_plan plan = {bench->quick ? 2 : 40, bench->quick ? 50 : 400, 20};
    const int result = rounds_run(ops, 2, plan);
    if (result == 0)
        bench_report(bench, &(struct bench_figure){
                                "get_1M_residents", "us", samples_median(&ops[1].samples) / 1e3,
                                samples_median(&ops[0].samples) / 1e3, BENCH_AT_MOST, 1.25,
                                bench->quick ? "SMOKE TEST with 20,000 residents only"
                                             : "get + release, p50, over the same among 1,000"});
    rounds_deinit(ops, 2);
    return result;
}

/* ---- memory ---- */
/* Resident KiB of every mapping but the arenas (shared memfds that the clients map, too). */
static int rss_beside_arenas_kib(pid_t pid, uint64_t *out) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return bench_fail("%s: %s", path, strerror(errno));
    bool arena = false;
    uint64_t kib;
    *out = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long begin, end;
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
            arena = strstr(line, "/memfd:") != NULL;
        else if (!arena && sscanf(line, "Rss: %lu kB", &kib) == 1)
            *out += kib;
    }
    fclose(file);
    return 0;
}

static int measure_rss(struct bench *bench, const struct broker *broker) {
    uint64_t kib = 0;
    if (rss_beside_arenas_kib(broker->pid, &kib) != 0)
        return -1;
    bench_report(bench,
                 &(struct bench_figure){
                     "rss_1M_residents", "GiB", (double)kib / (double)MIB, 1.1, BENCH_AT_MOST, 1.0,
                     bench->quick ? "SMOKE TEST with 20,000 residents only"
                                  : "of the broker, all mappings but the arenas, over 1.1 GiB"});
    return 0;
}

/* ---- idling ---- */
static int measure_idle(struct bench *bench, const struct broker *broker) {
    uint64_t before_ns, after_ns;
    const uint64_t began_ns = rounds_now_ns();
    if (broker_cpu_ns(broker, &before_ns) != 0 ||
        broker_idle(broker, bench->quick ? 1000 : 10000) != 0 ||
        broker_cpu_ns(broker, &after_ns) != 0)
        return -1;
    const double took_ns = (double)(rounds_now_ns() - began_ns);
    bench_report(bench, &(struct bench_figure){
                            "idle_cpu", "%", 100 * (double)(after_ns - before_ns) / took_ns, 0.1,
                            BENCH_AT_MOST, 1.0,
                            "of a core, all threads, a peer connected, those samples resident"});
    return 0;
}

static int measure(struct bench *bench, const struct broker *broker, struct feature *feature) {
    static struct residents few, many;
    int result = fill(&few, feature, "few", FEW);
    if (result == 0)
        result = fill(&many, feature, "many", bench->quick ? 20000 : 1000000);
    if (result == 0)
        result = measure_get(bench, &few, &many);
    if (result == 0)
        result = measure_rss(bench, broker);
    if (result == 0)
        result = measure_idle(bench, broker);
    residents_deinit(&few);
    residents_deinit(&many);
    return result;
}

int bench_scale(struct bench *bench) {
    struct brokers brokers;
    struct feature *feature = NULL;
    if (brokers_start(&brokers, bench, 2, settings) != 0)
        return -1;
    int result = broker_connect(&brokers.list[0], &feature);
    if (result == 0)
        result = measure(bench, &brokers.list[0], feature);
    feature_disconnect(feature);
    brokers_stop(&brokers);
    return result;
}
