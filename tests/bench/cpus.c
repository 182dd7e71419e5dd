/* SPDX-License-Identifier: Apache-2.0
 *
 * The set of CPUs at the start is kept, since every process below is forked from one already
 * pinned.
 */
#include "bench/cpus.h"

#include <sched.h>

static cpu_set_t at_start;

void cpus_init(void) {
    if (sched_getaffinity(0, sizeof at_start, &at_start) != 0)
        CPU_ZERO(&at_start);
}

void cpus_take_all(void) {
    if (CPU_COUNT(&at_start) > 0)
        sched_setaffinity(0, sizeof at_start, &at_start);
}

void cpus_take_place(enum cpu_role role) {
    const int count = CPU_COUNT(&at_start);
    if (count == 0)
        return;
    int left = (int)role % count, cpu = 0;
    while (!CPU_ISSET(cpu, &at_start) || left-- > 0)
        cpu++;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}
