/* SPDX-License-Identifier: Apache-2.0
 *
 * Assertions and waiting for tests that span processes. A failed check prints one line and ends the
 * calling process with status 1: Criterion reports the test as failed, a parent sees its helper
 * process fail. They work the same in a test, in a forked helper and in the support code itself.
 */
#ifndef FEATURED_TESTS_CHECKS_H
#define FEATURED_TESTS_CHECKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "feature.h"

_Noreturn void check_failed(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void check_status(const char *file, int line, const char *call, int expected, int status);

/* CHECK(bytes == 7, "%d bytes", bytes) */
#define CHECK(condition, ...)                                                                      \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__))
/* The beginning of a text file, at most 256 KiB; "" when it cannot be read. Valid until the next
 * call. */
const char *check_read_text(const char *path);
/* Of a libfeature call: shows its sentence when the status is another one. */
#define CHECK_STATUS(expected, call) check_status(__FILE__, __LINE__, #call, expected, call)
#define CHECK_OK(call)               CHECK_STATUS(FEATURE_OK, call)
/* The last failed call's sentence must hold this word. */
#define CHECK_SAYS(word) check_says(__FILE__, __LINE__, word)
void check_says(const char *file, int line, const char *word);

/* Looks at a condition every few milliseconds until it holds; the check fails when deadline_ms have
 * passed. */
#define WAIT_UNTIL(condition, deadline_ms)                                                         \
    for (uint64_t wait_until_ms_ = check_now_ms() + (deadline_ms); !(condition); check_pause(5))   \
    CHECK(check_now_ms() < wait_until_ms_, "not within %u ms", (unsigned)(deadline_ms))

uint64_t check_now_ms(void); /* CLOCK_MONOTONIC */
uint64_t check_now_us(void);
/* Lets up to this many milliseconds pass: for the rhythm of a loop, never in place of a condition.
 */
void check_pause(uint32_t pause_ms);

/* Of process pid, 0 = this one, from /proc. */
uint32_t check_fd_count(pid_t pid);
uint64_t check_private_bytes(pid_t pid); /* resident, without shared and file pages */
uint32_t check_child_count(void);        /* of this process, zombies included */

/* Seed of a random test: $FEATURED_TEST_SEED, else from the clock. Prints it. */
uint64_t check_seed(const char *test);
/* splitmix64: next number of the stream in *state. */
uint64_t check_random(uint64_t *state);

#endif
