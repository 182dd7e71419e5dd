/* SPDX-License-Identifier: Apache-2.0
 *
 * How much memory the control group of a process may use: whoever goes over it is killed by the
 * kernel, without a word. Both versions of control groups, each group above counts.
 */
#ifndef FEATURED_HOST_CGROUP_H
#define FEATURED_HOST_CGROUP_H

#include <stdint.h>

#define CGROUP_NO_LIMIT UINT64_MAX

struct cgroup_limit {
    uint64_t bytes;  /* the tightest of the process's group and those above it */
    char file[1024]; /* that says so; "" = there is none */
};

struct cgroup_limits {
    struct cgroup_limit memory;     /* going over is death */
    struct cgroup_limit slow;       /* memory.high: going over makes everything crawl */
    struct cgroup_limit huge_pages; /* of 2 MiB: going over is death */
};

/* proc: "/proc/self" or "/proc/PID". root: "" (a test's own directory: where mount points are
 * looked for). What cannot be read limits nothing, as far as we can know. */
void cgroup_limits_read(const char *proc, const char *root, struct cgroup_limits *out);

#endif
