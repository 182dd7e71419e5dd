/* SPDX-License-Identifier: Apache-2.0
 *
 * All puts and ends that are under way, found by generation, by operation and by sample. There may
 * be hundreds of thousands, and each message of a client or a peer asks about some, so nothing here
 * walks them all: each question looks at the one bucket where the answer must be.
 *
 * The three tables have a fixed size, because growing one would take a long turn of the loop. Their
 * pages are zero until they are used, so that an idle broker does not pay for them. With 2^17
 * buckets a bucket has one entry on average when 131072 puts are under way.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/cluster.h"

#define BUCKETS (1u << 17)

_Static_assert(CLUSTER_HASH_KEYBYTES == crypto_shorthash_KEYBYTES, "SipHash takes such a key");

struct supersede_set {
    struct supersede_list all;
    uint8_t key[CLUSTER_HASH_KEYBYTES];
    struct supersede_list by_generation[BUCKETS], by_op[BUCKETS], by_sample[BUCKETS];
};

/* SipHash under a random key: whoever chooses names or operation ids cannot choose the bucket. */
static uint64_t supersede_hash(const struct supersede_set *set, const void *data, size_t bytes) {
    uint64_t hash;
    crypto_shorthash((uint8_t *)&hash, data, bytes, set->key);
    return hash % BUCKETS;
}

static uint64_t supersede_hash_op(const struct supersede_set *set, uint64_t client_id,
                                  uint64_t op_id) {
    const uint64_t both[2] = {client_id, op_id};
    return supersede_hash(set, both, sizeof both);
}

struct supersede_set *supersede_set_new(const uint8_t *key) {
    struct supersede_set *set = calloc(1, sizeof *set);
    if (set)
        memcpy(set->key, key, sizeof set->key);
    return set;
}

void supersede_set_free(struct supersede_set *set) {
    free(set);
}

struct supersede *supersede_set_first(const struct supersede_set *set) {
    return LIST_FIRST(&set->all);
}

/* Insertion is at the head, so that the youngest comes first in each bucket. The look-ups below
 * rely on it: a repair that was begun later is found before the put that it is about. */
void supersede_set_add(struct supersede_set *set, struct supersede *s) {
    LIST_INSERT_HEAD(&set->all, s, link);
    LIST_INSERT_HEAD(&set->by_generation[supersede_hash(set, &s->generation, sizeof s->generation)],
                     s, by_generation);
    LIST_INSERT_HEAD(&set->by_sample[supersede_hash(set, s->sample_id, strlen(s->sample_id))], s,
                     by_sample);
    /* Those without an operation would all be in one bucket, and nobody looks for them there. */
    if (s->op_id)
        LIST_INSERT_HEAD(&set->by_op[supersede_hash_op(set, s->client_id, s->op_id)], s, by_op);
}

/* From all lists that it is in; those of the same sample or generation stay as they are. */
void supersede_set_remove(struct supersede *s) {
    LIST_REMOVE(s, link);
    LIST_REMOVE(s, by_generation);
    LIST_REMOVE(s, by_sample);
    if (s->op_id)
        LIST_REMOVE(s, by_op);
}

/* A put that was refused has become a repair (supersede_published()), and counts as one. */
static bool supersede_is_such(const struct supersede *s, enum supersede_which which) {
    switch (which) {
    case SUPERSEDE_PUTS:
        return s->purpose == SUPERSEDE_PUT;
    case SUPERSEDE_ON_THE_WAY:
        return s->state == SUPERSEDE_PUBLISHING;
    case SUPERSEDE_IN_THE_INDEX:
        return s->state != SUPERSEDE_PUBLISHING;
    default:
        return true;
    }
}

/* The four look-ups. A bucket may hold others that hash to the same, so each is compared in full.
 */

struct supersede *supersede_of_generation(const struct supersede_set *set, uint32_t store,
                                          uint64_t generation, enum supersede_which which) {
    struct supersede *s;
    LIST_FOREACH (s, &set->by_generation[supersede_hash(set, &generation, sizeof generation)],
                  by_generation)
        if (s->store == store && s->generation == generation && supersede_is_such(s, which))
            return s;
    return NULL;
}

struct supersede *supersede_next_of_sample(const struct supersede_set *set, uint32_t store,
                                           const char *sample_id, struct supersede *after) {
    struct supersede *s =
        after ? LIST_NEXT(after, by_sample)
              : LIST_FIRST(&set->by_sample[supersede_hash(set, sample_id, strlen(sample_id))]);
    while (s && (s->store != store || strcmp(s->sample_id, sample_id) != 0))
        s = LIST_NEXT(s, by_sample);
    return s;
}

/* Of one sample several may be under way: a put, and the repair of an earlier one that failed. */
struct supersede *supersede_of_sample(const struct supersede_set *set, uint32_t store,
                                      const char *sample_id, enum supersede_which which) {
    struct supersede *s = NULL;
    do
        s = supersede_next_of_sample(set, store, sample_id, s);
    while (s && !supersede_is_such(s, which));
    return s;
}

struct supersede *supersede_of_op(const struct supersede_set *set, uint32_t store,
                                  uint64_t client_id, uint64_t op_id) {
    struct supersede *s;
    if (!op_id) /* not in the table, see supersede_set_add() */
        return NULL;
    LIST_FOREACH (s, &set->by_op[supersede_hash_op(set, client_id, op_id)], by_op)
        if (s->store == store && s->op_id == op_id && s->client_id == client_id)
            return s;
    return NULL;
}

bool supersede_defer_removal(const struct supersede_set *set, uint32_t store, uint64_t generation) {
    struct supersede *s, *oldest = NULL;
    /* A repair may be under way for the same generation; the record belongs to the put, which is
     * the oldest, and the list begins with the youngest. */
    LIST_FOREACH (s, &set->by_generation[supersede_hash(set, &generation, sizeof generation)],
                  by_generation)
        if (s->store == store && s->generation == generation)
            oldest = s;
    if (oldest)
        oldest->record_due = true;
    return oldest;
}
