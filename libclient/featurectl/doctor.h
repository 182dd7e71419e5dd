/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks of this machine, each with a verdict and, when it is not good, what to do about it.
 *
 * Judging is pure (numbers in, finding out); reading the numbers from the kernel is separate. To
 * add a check: write both and add a line to the table in doctor.c.
 */
#ifndef FEATURED_CTL_DOCTOR_H
#define FEATURED_CTL_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "featurectl/context.h"

/* DOCTOR_SKIP: not checked, because this user (or this container) cannot see it. */
enum doctor_verdict { DOCTOR_OK = 0, DOCTOR_SKIP, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
    enum doctor_verdict verdict;
    char found[768];  /* what is there, with numbers */
    char advice[512]; /* what to do; "" when OK */
};

/* What the socket check has learnt of the broker, for the checks behind it. */
struct doctor_broker {
    bool answers;
    bool unseen; /* one may be running: this user has no way to its socket */
    pid_t pid;   /* of the daemon; 0 = not known */
    uint64_t resident_bytes, max_resident_bytes;
};

typedef void (*doctor_check_fn)(struct context *context, struct doctor_broker *broker,
                                struct doctor_finding *out);

/* doctor_broker.c */
void doctor_check_socket(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out);
void doctor_check_memlock(struct context *context, struct doctor_broker *broker,
                          struct doctor_finding *out);
void doctor_check_nofile(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out);
void doctor_check_data(struct context *context, struct doctor_broker *broker,
                       struct doctor_finding *out);
/* doctor_directory.c */
void doctor_check_directory(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out);
void doctor_check_twin(struct context *context, struct doctor_broker *broker,
                       struct doctor_finding *out);
/* trouble: as the broker tells it, "" = none. */
void doctor_judge_directory(const char *directory, const char *trouble, struct doctor_finding *out);
/* doctor_memory.c */
void doctor_check_memory(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out);
void doctor_check_cgroup(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out);
void doctor_check_hugepages(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out);
void doctor_check_shm(struct context *context, struct doctor_broker *broker,
                      struct doctor_finding *out);
void doctor_check_memfd(struct context *context, struct doctor_broker *broker,
                        struct doctor_finding *out);
/* doctor_kernel.c */
void doctor_check_socket_buffers(struct context *context, struct doctor_broker *broker,
                                 struct doctor_finding *out);
void doctor_check_tcp_buffers(struct context *context, struct doctor_broker *broker,
                              struct doctor_finding *out);
void doctor_check_map_count(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out);
void doctor_check_overcommit(struct context *context, struct doctor_broker *broker,
                             struct doctor_finding *out);
/* doctor_rdma.c */
void doctor_check_rdma(struct context *context, struct doctor_broker *broker,
                       struct doctor_finding *out);

/* Whose /proc/PID files tell of the broker: its own, or this process's while none runs. 0: one
 * runs, or may, and cannot be seen from here; the finding then says so. */
pid_t doctor_whose_limits(const struct doctor_broker *broker, struct doctor_finding *out);

/* Fills in a finding; advice NULL when there is nothing to do. */
void doctor_say(struct doctor_finding *out, enum doctor_verdict verdict, const char *advice,
                const char *found, ...) __attribute__((format(printf, 4, 5)));
/* Reads a small file (proc, sys) into text, zero-terminated; false if it cannot. */
bool doctor_read_file(const char *path, char *text, size_t room);

/* ---- parsing, pure ---- */
/* Soft limit from /proc/PID/limits by its name ("Max open files"); UINT64_MAX = unlimited. */
bool doctor_parse_limit(const char *limits, const char *name, uint64_t *out);
/* "MemAvailable:  123 kB" from /proc/meminfo: the number as it stands there. */
bool doctor_parse_meminfo(const char *meminfo, const char *key, uint64_t *out);
/* Number `index` (from 0) of a line of numbers, as in net.ipv4.tcp_rmem. */
bool doctor_parse_number(const char *text, unsigned index, uint64_t *out);
/* Of sysfs: "fe80:0000:..." is a GID of this link alone. */
bool doctor_gid_is_routable(const char *gid);

#endif
