/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker has granted to this handle and not got back: leases and reservations, by their
 * tokens. After a lost connection the broker is told of all of them; what it granted by answers
 * that never came is not among them, and ends (Holds in proto/client.proto).
 *
 * All with the hub's lock held.
 */
#ifndef FEATURED_LIBCLIENT_HELD_H
#define FEATURED_LIBCLIENT_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"

/* A reservation has hi 0, which no lease has. handle 0 = an empty place. */
struct fc_holding {
    uint64_t hi, lo;
    uint32_t handle; /* of the store, in the present session */
};

/* A hash table. All zero = empty. */
struct fc_held {
    struct fc_holding *places;
    size_t place_count; /* a power of two, or 0 */
    size_t count, promised;
};

/* Makes sure that so many more can be entered without memory, until fc_held_unpromise(). False: no
 * memory. */
bool fc_held_promise(struct fc_held *held, size_t count);
void fc_held_unpromise(struct fc_held *held, size_t count);
/* Enters what this answer to a Get or Reserve on that store grants, `count` at most: so many were
 * promised. */
void fc_held_enter(struct fc_held *held, uint32_t handle, const Fb__ClientReply *reply,
                   size_t count);
/* It was given back, or is about to be. Does nothing for one that is not there. */
void fc_held_drop(struct fc_held *held, uint64_t hi, uint64_t lo);
void fc_held_clear(struct fc_held *held);
void fc_held_deinit(struct fc_held *held);

#endif
