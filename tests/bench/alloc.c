/* SPDX-License-Identifier: Apache-2.0
 *
 * The extent allocator by itself, without a broker: samples of 64 KiB to 64 MiB (each octave as
 * often as any other) come and go in random order in a region kept 90 % full; then the region is
 * filled until the first request that is refused. The region is never touched, so it costs no
 * memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/rounds.h"
#include "store/extent.h"

#define REGION_BYTES (64 * GIB)
#define EXTENTS_MAX  65536u
#define SIZES        65536u
#define FILL         0.9

struct churn {
    struct extent_map *map;
    uint64_t *sizes;
    uint32_t *live; /* handles */
    uint32_t live_count, next_size;
    uint64_t random, refused;
};

/* xorshift64* (Vigna 2016): a few cycles, so that the allocator is what is timed. */
static uint64_t random_next(struct churn *churn) {
    churn->random ^= churn->random >> 12;
    churn->random ^= churn->random << 25;
    churn->random ^= churn->random >> 27;
    return churn->random * 2685821657736338717ull;
}

/* An octave of 64 KiB .. 64 MiB at random, any multiple of 4 KiB in it. */
static void choose_sizes(struct churn *churn) {
    for (uint32_t i = 0; i < SIZES; i++) {
        const uint64_t octave = (64 * KIB) << (random_next(churn) >> 32) % 10;
        churn->sizes[i] = (octave + (random_next(churn) >> 16) % octave) & ~4095ull;
    }
}

static void churn_deinit(struct churn *churn) {
    free(churn->map);
    free(churn->sizes);
    free(churn->live);
}

static int churn_init(struct churn *churn, uint64_t seed) {
    const size_t map_bytes = (extent_map_bytes(EXTENTS_MAX) + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, map_bytes);
    *churn = (struct churn){.map = memory,
                            .sizes = calloc(SIZES, sizeof *churn->sizes),
                            .live = calloc(EXTENTS_MAX, sizeof *churn->live),
                            .random = seed};
    if (memory == NULL || churn->sizes == NULL || churn->live == NULL) {
        churn_deinit(churn);
        return bench_fail("no memory for the allocator's metadata");
    }
    memset(memory, 0, map_bytes);
    churn->map = extent_init(memory, 0, REGION_BYTES, EXTENTS_MAX);
    choose_sizes(churn);
    return 0;
}

static void free_any(struct churn *churn) {
    const uint32_t victim = (uint32_t)(random_next(churn) % churn->live_count);
    extent_free(churn->map, churn->live[victim]);
    churn->live[victim] = churn->live[--churn->live_count];
}

static bool alloc_next(struct churn *churn) {
    uint64_t offset;
    const uint32_t extent =
        extent_alloc(churn->map, churn->sizes[churn->next_size++ % SIZES], 4096, &offset);
    if (extent == EXTENT_NONE)
        return false;
    churn->live[churn->live_count++] = extent;
    return true;
}

/* So many allocs, each after as many frees as keep the fill. */
static void churn_run(struct churn *churn, uint32_t pairs) {
    const uint64_t full = (uint64_t)(FILL * (double)REGION_BYTES);
    while (pairs-- > 0) {
        const uint64_t bytes = churn->sizes[churn->next_size % SIZES];
        while (extent_used_bytes(churn->map) + bytes > full)
            free_any(churn);
        churn->refused += !alloc_next(churn);
    }
}

static double fill_up(struct churn *churn) {
    while (churn->live_count < EXTENTS_MAX && alloc_next(churn))
        ;
    return (double)extent_used_bytes(churn->map) / (double)REGION_BYTES;
}

struct figures {
    struct samples pair_ns, fill_ppm;
    uint64_t refused, pairs; /* of the timed churn */
};

/* One seed: ns per pair, and parts per million of the region in use at the first refusal. */
static int measure_seed(uint64_t seed, uint32_t pairs, struct figures *figures) {
    struct churn churn;
    if (churn_init(&churn, seed) != 0)
        return -1;
    churn_run(&churn, pairs); /* from empty to a steady state */
    churn.refused = 0;
    const uint64_t began_ns = rounds_now_ns();
    churn_run(&churn, pairs);
    const uint64_t took_ns = rounds_now_ns() - began_ns;
    const double fill = fill_up(&churn);
    const int failed = samples_add(&figures->pair_ns, took_ns / pairs) != 0 ||
                       samples_add(&figures->fill_ppm, (uint64_t)(fill * 1e6)) != 0;
    figures->refused += churn.refused;
    figures->pairs += pairs;
    churn_deinit(&churn);
    return failed ? bench_fail("out of memory for samples") : 0;
}

static void report(struct bench *bench, struct figures *figures) {
    char what[160];
    bench_report(bench,
                 &(struct bench_figure){
                     "alloc_pair", "ns", samples_median(&figures->pair_ns), 200, BENCH_AT_MOST, 1.0,
                     "alloc + free at 90 % fill, 64 KiB to 64 MiB mixed, over 200 ns"});
    snprintf(
        what, sizeof what,
        "of 64 GiB in use at the first refusal after that churn, which refused %.0f in a million",
        1e6 * (double)figures->refused / (double)figures->pairs);
    bench_report(bench, &(struct bench_figure){"alloc_fill", "part",
                                               samples_median(&figures->fill_ppm) / 1e6, 1,
                                               BENCH_AT_LEAST, 0.92, what});
}

int bench_alloc(struct bench *bench) {
    struct figures figures = {0};
    const unsigned seeds = bench->quick ? 3 : 21;
    const uint32_t pairs = bench->quick ? 50000 : 500000;
    int result = 0;
    for (unsigned seed = 1; seed <= seeds && result == 0; seed++)
        result = measure_seed(seed, pairs, &figures);
    if (result == 0)
        report(bench, &figures);
    samples_deinit(&figures.pair_ns);
    samples_deinit(&figures.fill_ppm);
    return result;
}
