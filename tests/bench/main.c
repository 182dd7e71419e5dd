/* SPDX-License-Identifier: Apache-2.0
 *
 * feature-bench: measures featured against the machine's own limits. Composition only: which
 * groups, in which form, under the guard.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/cpus.h"
#include "bench/guard.h"
#include "host/std_fds.h"

static const struct {
    const char *name;
    int (*run)(struct bench *bench);
    bool on_request; /* not one of "all" */
} groups[] = {
    {"local", bench_local, false},   {"remote", bench_remote, false},
    {"ops", bench_ops, false},       {"alloc", bench_alloc, false},
    {"scale", bench_scale, false},   {"index", bench_index, false},
    {"beside", bench_beside, false}, {"rdma", bench_rdma, true},
    {"scrape", bench_scrape, false},
};
#define GROUP_COUNT (sizeof groups / sizeof groups[0])

struct selection {
    struct bench bench;
    bool chosen[GROUP_COUNT];
    bool any;
};

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "One JSON object a line instead of a table", 0},
    {"quick", 'q', NULL, 0, "A smoke test: few rounds, small stores; the figures mean little", 0},
    {0},
};

static error_t choose(struct selection *selection, const char *name) {
    for (size_t i = 0; i < GROUP_COUNT; i++)
        if (strcmp(groups[i].name, name) == 0) {
            selection->chosen[i] = selection->any = true;
            return 0;
        }
    return EINVAL;
}

static error_t parse(int key, char *argument, struct argp_state *state) {
    struct selection *selection = state->input;
    switch (key) {
    case 'j':
        selection->bench.json = true;
        return 0;
    case 'q':
        selection->bench.quick = true;
        return 0;
    case ARGP_KEY_ARG:
        if (choose(selection, argument) != 0)
            argp_error(
                state,
                "no group '%s': local, remote, ops, alloc, scale, index, beside, scrape or rdma",
                argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int measure(void *context) {
    struct selection *selection = context;
    int failed = 0;
    cpus_take_place(CPU_CLIENT);
    for (size_t i = 0; i < GROUP_COUNT; i++) {
        if (selection->any ? !selection->chosen[i] : groups[i].on_request)
            continue;
        if (groups[i].run(&selection->bench) != 0) {
            bench_fail("group %s could not be measured", groups[i].name);
            failed = 1;
        }
    }
    return failed;
}

/* The featured beside this program. */
static int find_featured(char *out, size_t room) {
    const ssize_t bytes = readlink("/proc/self/exe", out, room - sizeof "featured");
    char *slash = NULL;
    if (bytes > 0) {
        out[bytes] = '\0';
        slash = strrchr(out, '/');
    }
    if (slash == NULL)
        return bench_fail("readlink /proc/self/exe: %s", strerror(errno));
    memcpy(slash + 1, "featured", sizeof "featured");
    return access(out, X_OK) == 0 ? 0 : bench_fail("%s: %s", out, strerror(errno));
}

int main(int argc, char **argv) {
    const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "[local|remote|ops|alloc|scale|index|beside|scrape|rdma]...",
        .doc =
            "Measures featured against the limits of this machine, taken in the same run. Starts "
            "its own brokers on loopback and leaves nothing behind. Without a group: all of them "
            "but rdma, which tests/vm/bench runs between two machines.",
    };
    static struct selection selection;
    std_fds_open();
    const error_t error = argp_parse(&argp, argc, argv, 0, NULL, &selection);
    if (error != 0 || find_featured(selection.bench.program, sizeof selection.bench.program) != 0)
        return EXIT_FAILURE;
    cpus_init();
    return guard_run(selection.bench.directory, sizeof selection.bench.directory, measure,
                     &selection);
}
