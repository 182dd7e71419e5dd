/* SPDX-License-Identifier: Apache-2.0
 *
 * Three hash tables of lists, of a fixed size: growing one would take a long turn of the loop.
 * Their memory is touched as it is used.
 */
#include "exchange/publish_set.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS (1u << 17)

struct publish_set {
    struct publishing_list all;
    uint8_t key[crypto_shorthash_KEYBYTES]; /* names and operations come from clients */
    struct publishing_list by_generation[BUCKETS], by_op[BUCKETS], by_sample[BUCKETS];
};

static uint64_t publish_set_hash(const struct publish_set *set, const void *data, size_t bytes) {
    uint64_t hash;
    crypto_shorthash((uint8_t *)&hash, data, bytes, set->key);
    return hash % BUCKETS;
}

static struct publishing_list *publish_set_of_generation(struct publish_set *set,
                                                         uint64_t generation) {
    return &set->by_generation[publish_set_hash(set, &generation, sizeof generation)];
}

static struct publishing_list *publish_set_of_op(struct publish_set *set, struct store_op op) {
    uint64_t both[2] = {op.client_id, op.op_id};
    return &set->by_op[publish_set_hash(set, both, sizeof both)];
}

static struct publishing_list *publish_set_of_sample(struct publish_set *set,
                                                     const char *sample_id) {
    return &set->by_sample[publish_set_hash(set, sample_id, strlen(sample_id))];
}

struct publish_set *publish_set_new(void) {
    struct publish_set *set = calloc(1, sizeof *set);
    if (set)
        randombytes_buf(set->key, sizeof set->key);
    return set;
}

void publish_set_free(struct publish_set *set) {
    free(set);
}

struct publishing *publish_set_first(struct publish_set *set) {
    return LIST_FIRST(&set->all);
}

void publish_set_add(struct publish_set *set, struct publishing *publishing) {
    LIST_INSERT_HEAD(&set->all, publishing, link);
    LIST_INSERT_HEAD(publish_set_of_generation(set, publishing->generation), publishing,
                     by_generation);
    LIST_INSERT_HEAD(publish_set_of_op(set, publishing->op), publishing, by_op);
    LIST_INSERT_HEAD(publish_set_of_sample(set, publishing->sample_id), publishing, by_sample);
}

void publish_set_remove(struct publishing *publishing) {
    deadlines_clear(&publishing->broker->deadlines, &publishing->due);
    LIST_REMOVE(publishing, link);
    LIST_REMOVE(publishing, by_generation);
    LIST_REMOVE(publishing, by_op);
    LIST_REMOVE(publishing, by_sample);
}

struct publishing *publish_set_by_generation(struct publish_set *set, const struct space *space,
                                             uint64_t generation, struct publishing *after) {
    struct publishing *at = after ? LIST_NEXT(after, by_generation)
                                  : LIST_FIRST(publish_set_of_generation(set, generation));
    while (at && (at->space != space || at->generation != generation))
        at = LIST_NEXT(at, by_generation);
    return at;
}

struct publishing *publish_set_by_sample(struct publish_set *set, const struct space *space,
                                         const char *sample_id, struct publishing *after) {
    struct publishing *at =
        after ? LIST_NEXT(after, by_sample) : LIST_FIRST(publish_set_of_sample(set, sample_id));
    while (at && (at->space != space || strcmp(at->sample_id, sample_id)))
        at = LIST_NEXT(at, by_sample);
    return at;
}

struct publishing *publish_set_by_op(struct publish_set *set, const struct space *space,
                                     struct store_op op) {
    struct publishing *at = LIST_FIRST(publish_set_of_op(set, op));
    while (at &&
           (at->space != space || at->op.op_id != op.op_id || at->op.client_id != op.client_id))
        at = LIST_NEXT(at, by_op);
    return at;
}
