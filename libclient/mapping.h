/* SPDX-License-Identifier: Apache-2.0
 *
 * A store's arena mapped into this process: one mapping per arena and access, shared by the store's
 * handles and kept alive by views and reservations. Thread-safe.
 */
#ifndef FEATURED_LIBCLIENT_MAPPING_H
#define FEATURED_LIBCLIENT_MAPPING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cuda.h"
#include "fork.h"

/* How far its registration with CUDA is: see pin.c. */
enum fc_pin_state { FC_PIN_NONE = 0, FC_PIN_BUSY, FC_PIN_DONE, FC_PIN_REFUSED, FC_PIN_TOLD };

struct fc_mapping {
    atomic_uint refs;
    uint8_t *base;
    uint64_t bytes;
    dev_t device;
    ino_t inode;
    bool write;
    struct fc_inherited inherited; /* a forked child may read it, not write */
    atomic_int pin;                /* an enum fc_pin_state */
    struct fc_cuda_range cuda;     /* the thread's of pin.c while that is BUSY */
    char pin_failure[256];         /* a sentence, when REFUSED */
};

/* Maps `bytes` of the arena of store `name` behind fd (kept by the caller). FEATURE_OK, or with a
 * sentence FEATURE_E_FULL when a limit of this process forbids it, FEATURE_E_INTERNAL when the file
 * is smaller than the broker says. */
int fc_mapping_new(const char *name, int fd, uint64_t bytes, bool write, struct fc_mapping **out);
/* True if it maps this very file with this access and size. */
bool fc_mapping_is(const struct fc_mapping *mapping, int fd, uint64_t bytes, bool write);
struct fc_mapping *fc_mapping_ref(struct fc_mapping *mapping);
/* NULL is fine. */
void fc_mapping_unref(struct fc_mapping *mapping);
/* True if [offset, offset + bytes) lies inside and offset is a multiple of align_bytes: whatever
 * the broker says is checked with this before use. */
bool fc_mapping_holds(const struct fc_mapping *mapping, uint64_t offset, uint64_t bytes,
                      uint32_t align_bytes);

#endif
