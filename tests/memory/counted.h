/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocations of the daemon and the library, counted, and one of them made to fail. The suite
 * `memory` is linked with copies of both libraries in which malloc() and its kin have other names
 * (see the Makefile): what the test, its fakes and the system's libraries allocate for themselves
 * is not counted and never fails. Decoded protobuf messages are, for the daemon and the library
 * decode them.
 */
#ifndef FEATURED_TESTS_COUNTED_H
#define FEATURED_TESTS_COUNTED_H

#include <stdbool.h>
#include <stdint.h>

/* Counts anew from 1, and lets the n-th allocation from here fail; 0: none fails. */
void counted_fail_at(uint64_t n);
/* Lets n of them fail in a row, from the one that counted_fail_at() names: 1 by default. */
void counted_fail_so_many(uint64_t n);
/* Allocations since then. */
uint64_t counted_calls(void);
/* One has failed since then. */
bool counted_has_failed(void);
/* Blocks allocated and not freed. */
int64_t counted_live(void);

#endif
