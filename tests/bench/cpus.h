/* SPDX-License-Identifier: Apache-2.0
 *
 * Who runs where. A round trip costs six times as much between two cores that wake from idle as
 * between two processes that take turns on one (50 and 8 us on the same machine), and left to
 * itself the scheduler changes its mind as other load comes and goes. So each process has its
 * place, and a limit's server has the place of the broker it is compared with.
 */
#ifndef FEATURED_TESTS_BENCH_CPUS_H
#define FEATURED_TESTS_BENCH_CPUS_H

enum cpu_role { CPU_CLIENT = 0, CPU_NODE_A = 1, CPU_NODE_B = 2 };

/* Pins the calling process to its CPU: the role's, counted through those this program was started
 * with, and around again when there are fewer. Nothing happens if the kernel refuses. */
void cpus_take_place(enum cpu_role role);
/* The calling process may run where this program could when it was started. */
void cpus_take_all(void);
/* Before anything else is pinned: remembers the CPUs this program was started with. */
void cpus_init(void);

#endif
