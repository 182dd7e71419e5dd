/* SPDX-License-Identifier: Apache-2.0
 *
 * One or two brokers on loopback, each with a generated config in a directory of its own, peers of
 * each other with a cluster secret, on ephemeral ports. They die with this process, however it
 * ends.
 */
#ifndef FEATURED_TESTS_BENCH_BROKERS_H
#define FEATURED_TESTS_BENCH_BROKERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/bench.h"
#include "feature.h"

#define BROKERS_MAX 2u

struct broker { /* zeroed = not running */
    pid_t pid;
    int pidfd;
    char node[2];
    char directory[300], socket_path[320], config_path[320], log_path[320];
    uint16_t port;
};
struct brokers { /* zeroed = none */
    struct broker list[BROKERS_MAX];
    size_t count;
};

/* Nodes "a" (and "b"). settings: sections of featured.conf for memory and stores. Returns when all
 * answer, see each other and have prefaulted their arenas; -1 with the reason and their logs' ends
 * written. */
int brokers_start(struct brokers *brokers, const struct bench *bench, size_t count,
                  const char *settings);
/* The same; they find each other through this directory, a section [directory], instead of being
 * told. */
int brokers_start_in(struct brokers *brokers, const struct bench *bench, size_t count,
                     const char *settings, const char *directory);
/* Lets them drain, then insists. Fine on none. */
void brokers_stop(struct brokers *brokers);

/* 0, or -1 with the reason written. */
int broker_connect(const struct broker *broker, struct feature **out);
int broker_open_store(struct feature *feature, const char *name, struct feature_store **out);
/* Bytes that this broker has read from its peers so far. */
int broker_peer_bytes_in(struct feature *feature, uint64_t *out);
/* Waits so long unless the broker dies first (-1, with the reason written). */
int broker_idle(const struct broker *broker, uint32_t ms);
/* CPU time of all its threads so far. */
int broker_cpu_ns(const struct broker *broker, uint64_t *out);

#endif
