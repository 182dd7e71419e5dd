/* SPDX-License-Identifier: Apache-2.0
 *
 * The plainest program that does what a figure must at least do: its time is that figure's limit.
 * Each is a child process that blocks in recv() and answers, on one socket, with nothing of ours in
 * the way.
 */
#ifndef FEATURED_TESTS_BENCH_LIMITS_H
#define FEATURED_TESTS_BENCH_LIMITS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/cpus.h"

#define LIMITS_PING_BYTES  64u
#define LIMITS_CHUNK_BYTES (1u << 20) /* the brokers' default chunk_bytes */

struct limit { /* zeroed = closed */
    int fd;
    pid_t pid;
    void *buffer; /* of a stream: where the bytes land, warm */
    size_t buffer_bytes;
};

/* place: where the other process runs. Echo of LIMITS_PING_BYTES over a SOCK_SEQPACKET socketpair,
 * or over loopback TCP with TCP_NODELAY. 0 or -1 with the reason written. */
int limit_open_unix(struct limit *limit, enum cpu_role place);
int limit_open_tcp(struct limit *limit, enum cpu_role place);
/* Streams `bytes` over loopback TCP on request, sent and received in chunks, kernel defaults for
 * buffers. */
int limit_open_stream(struct limit *limit, enum cpu_role place, size_t bytes);
void limit_close(struct limit *limit);

/* Ops for rounds_run(): context is a struct limit. */
int limit_ping(void *limit);
int limit_stream(void *limit);

#endif
