/* SPDX-License-Identifier: Apache-2.0
 *
 * What the groups of figures share: how they are told to run and how they report.
 *
 * Method: a figure and its limit are measured in one process, in alternating rounds (rounds.h), so
 * that the drift of a shared machine falls on both; medians over all rounds are compared.
 */
#ifndef FEATURED_TESTS_BENCH_BENCH_H
#define FEATURED_TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

struct bench {
    bool json, quick;
    char program[4096];  /* the featured to measure: the one beside this program */
    char directory[256]; /* temporary; the guard removes it */
    bool header_written;
};

enum bench_bar {
    BENCH_AT_MOST,  /* ratio <= bar_ratio is ok */
    BENCH_AT_LEAST, /* ratio >= bar_ratio is ok */
    BENCH_NO_BAR,
};

struct bench_figure {
    const char *name, *unit;
    double value, limit; /* ratio = value / limit */
    enum bench_bar bar;
    double bar_ratio;
    const char *what; /* over which limit, and the conditions; for the table */
};

/* One JSON object on a line, or one row of the table. */
void bench_report(struct bench *bench, const struct bench_figure *figure);
/* GB/s of so many bytes in so many ns. */
double bench_gb_per_s(uint64_t bytes, double ns);
/* Writes the sentence to stderr; returns -1. */
int bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a failed call of libfeature: adds status and sentence. */
int bench_fail_feature(const char *what, int status);

/* The groups: 0, or -1 after the reason was written. */
int bench_local(struct bench *bench);
int bench_remote(struct bench *bench);
int bench_ops(struct bench *bench);
int bench_alloc(struct bench *bench);
int bench_scale(struct bench *bench);
int bench_index(struct bench *bench);
/* Part of the group index; wants no etcd. */
int bench_in_flight(struct bench *bench);
int bench_beside(struct bench *bench);
int bench_scrape(struct bench *bench);
/* Only when asked for: it measures brokers that others have started (rdma.c). */
int bench_rdma(struct bench *bench);

#endif
