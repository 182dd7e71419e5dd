/* SPDX-License-Identifier: Apache-2.0
 *
 * A small store for the unit tests of daemon/store: 64 KiB of home region, 32 KiB for landings, one
 * page per sample unless said otherwise, and short ways to say the usual things.
 */
#ifndef FEATURED_TESTS_STORE_FIXTURE_H
#define FEATURED_TESTS_STORE_FIXTURE_H

#include "store/store.h"

#define KIB        1024ull
#define FOREVER_NS UINT64_MAX

struct fixture {
    struct store_options options;
    struct store_account account;
    struct charge_limits limits;
    struct account session; /* of every holder of fixture_holder() */
    struct store *store;
    void *block;
    size_t block_bytes;
    uint32_t holder; /* one that is open from the start */
    uint64_t now_ns;
    uint64_t last_generation;
    struct store_refusal refusal; /* of the last refused call */
};

/* Options may be changed between the two calls. */
void fixture_options(struct fixture *f);
void fixture_init(struct fixture *f);
void fixture_deinit(struct fixture *f); /* asserts a clean audit */

uint32_t fixture_holder(struct fixture *f);
struct store_put fixture_put(const char *id, uint64_t bytes);
enum store_result fixture_reserve(struct fixture *f, uint32_t holder, const struct store_put *put,
                                  struct store_reservation *out);
/* reserve + seal + publish by the fixture's holder; returns the new generation. */
uint64_t fixture_publish(struct fixture *f, const char *id, uint64_t bytes);
enum store_result fixture_get_id(struct fixture *f, uint32_t holder, const char *id,
                                 struct store_lease *out);
enum store_result fixture_get(struct fixture *f, uint32_t holder, uint64_t generation,
                              struct store_lease *out);
void fixture_release(struct fixture *f, uint32_t holder, const struct store_lease *lease,
                     enum store_how how);
/* Pulls effects until one of this kind; false when none is left. */
bool fixture_effect(struct fixture *f, enum store_effect_kind kind, struct store_effect *out);
/* Pulls and counts all. */
unsigned fixture_drain(struct fixture *f);
enum store_state fixture_state(struct fixture *f, uint64_t generation);
enum store_reason fixture_reason(struct fixture *f, uint64_t generation);
struct store_totals fixture_totals(struct fixture *f);
struct store_land fixture_land(uint64_t generation, uint64_t bytes);

#endif
