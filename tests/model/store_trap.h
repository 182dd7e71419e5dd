/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory in which every single store is seen: which instruction wrote what. The code under test
 * knows nothing of it and is compiled as always.
 */
#ifndef FEATURED_TESTS_STORE_TRAP_H
#define FEATURED_TESTS_STORE_TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trap_write { /* of one instruction: 8 bytes that have another value since */
    uint32_t step;  /* the instruction, counted from 0 */
    uint32_t word;  /* which 8 bytes: offset / 8 */
    uint64_t value;
};

/* False: this machine cannot step over single instructions. */
bool trap_can(void);
/* Memory to be watched, zeroed. One at a time. */
void *trap_memory(size_t bytes);
/* What trap_image() and trap_scratch() show is the watched memory as it is now; from here to
 * trap_disarm() its writes are noted. */
void trap_arm(void);
/* The writes since trap_arm(), in order. */
const struct trap_write *trap_disarm(size_t *count_out);
/* The memory as it was at trap_arm(); the caller carries out writes in it, one after the other. */
uint64_t *trap_image(void);
/* A copy of the image, to be written to; each call makes it anew. */
void *trap_scratch(void);
/* The watched memory becomes what the image is. */
void trap_restore(void);
void trap_free(void);

#endif
