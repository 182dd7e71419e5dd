/* SPDX-License-Identifier: Apache-2.0
 *
 * Composition: which table lies where in the block, the options, and their limits.
 *
 * Everything lies in one block that the caller provides: this struct, two extent maps, the pools of
 * slots, the hash tables, the heap of deadlines and two rings. The place of each follows from the
 * options alone, so that store_block_bytes(), store_init() and store_attach() walk the same list
 * (store_lay_out()). Pointers are in the derived part only (accounts), for the block may be
 * attached by another process (attach.c).
 *
 * A fresh block is all zero, and zero is an empty table everywhere but in the waiters' buckets: of
 * a block for a million samples only a few pages are touched here.
 */
#include <sodium.h>
#include <string.h>

#include "store/store_internal.h"

#define SLOTS_MAX          (1u << 28) /* leaves the top bits of a reference to effects.c */
#define ENDED_LEASES_MIN   65536u
#define WAITER_BUCKETS_MAX 16384u /* they are not zero when empty: store_init() touches them */
#define SPEC_CHUNKS_EACH                                                                           \
    8u /* per sample and waiter: 992 bytes on average, any one may take 8 KiB */
#define REGION_ALIGN_BYTES 4096u
#define REGION_BYTES_MAX   (1ull << 48)

/* Tables are as large as a power of two, so that a hash is cut to an index by a mask. */
static uint32_t store_power_of_two(uint64_t at_least) {
    uint32_t value = 16;
    while (value < at_least)
        value *= 2;
    return value;
}

static const char *store_check_counts(const struct store_options *o) {
    if (!o->max_samples || o->max_samples > SLOTS_MAX / 4)
        return "max_samples is 0 or above 67108864";
    if (o->max_tombstones > SLOTS_MAX / 4)
        return "max_tombstones is above 67108864";
    if (!o->max_leases || o->max_leases > SLOTS_MAX / 4)
        return "max_leases is 0 or above 67108864";
    if (o->max_ended_leases > SLOTS_MAX / 4)
        return "max_ended_leases is above 67108864";
    if (!o->max_holders || o->max_holders > SLOTS_MAX)
        return "max_holders is 0 or above 268435456";
    if (!o->max_waiters || o->max_waiters > SLOTS_MAX / 4)
        return "max_waiters is 0 or above 67108864";
    if (o->max_replays > SLOTS_MAX)
        return "max_replays is above 268435456";
    if (o->max_events > SLOTS_MAX)
        return "max_events is above 268435456";
    return NULL;
}

static const char *store_check(const struct store_options *o) {
    if (!o->max_resident_bytes || o->max_resident_bytes % REGION_ALIGN_BYTES ||
        o->max_resident_bytes > REGION_BYTES_MAX)
        return "max_resident_bytes is 0, not a multiple of 4096, or above 256 TiB";
    if (o->landing_bytes % REGION_ALIGN_BYTES || o->landing_bytes > REGION_BYTES_MAX)
        return "landing_bytes is not a multiple of 4096, or above 256 TiB";
    if (o->policy > STORE_RETAIN)
        return "policy is unknown";
    if (!o->readers)
        return "readers is 0";
    return store_check_counts(o);
}

/* Hands out the next bytes of the block. 64 is a cache line: no two tables share one. */
static uint64_t store_place(uint64_t *end, uint64_t bytes) {
    uint64_t at = *end;
    *end += (bytes + 63) & ~63ull;
    return at;
}

#define PLACE_POOL(store, end, pool, kind, type, link, capacity)                                   \
    pool_init(&(store)->pool, kind, store_place(end, (uint64_t)(capacity) * sizeof(struct type)),  \
              sizeof(struct type), offsetof(struct type, link), capacity)

/* A pool has as many slots as the limits allow, so that a check of the limit is enough and taking a
 * slot afterwards cannot fail. */
static void store_place_pools(struct store *store, const struct store_options *o, uint64_t *end) {
    uint32_t slots = o->max_samples + o->max_tombstones;
    store->leases_max_ended =
        o->max_ended_leases > ENDED_LEASES_MIN ? o->max_ended_leases : ENDED_LEASES_MIN;
    /* One more than the limits: a slot joins the tombstones before the oldest of them is
     * freed. */
    PLACE_POOL(store, end, samples, POOL_SAMPLES, sample_slot, generation, slots + 1);
    PLACE_POOL(store, end, names, POOL_NAMES, name_slot, hash_next, slots + 1 + o->max_waiters);
    PLACE_POOL(store, end, leases, POOL_LEASES, lease_slot, hi,
               o->max_leases + store->leases_max_ended + 1);
    PLACE_POOL(store, end, holders, POOL_HOLDERS, holder_slot, free_next, o->max_holders);
    PLACE_POOL(store, end, waiters, POOL_WAITERS, waiter_slot, free_next, o->max_waiters);
    uint32_t one = spec_chunks(STORE_SPEC_BYTES_MAX, STORE_TENSORS_MAX);
    PLACE_POOL(store, end, chunks, POOL_CHUNKS, chunk, next,
               SPEC_CHUNKS_EACH * (o->max_samples + o->max_waiters) + one);
}

/* Fills in where everything lies; returns the bytes of the block. */
uint64_t store_lay_out(struct store *store, const struct store_options *o) {
    uint64_t end = 0;
    store_place(&end, sizeof *store);
    store->home_map = store_place(&end, extent_map_bytes(o->max_samples));
    store->landing_map = store_place(&end, extent_map_bytes(o->landing_bytes ? o->max_samples : 0));
    store_place_pools(store, o, &end);
    uint32_t generations = store_power_of_two((uint64_t)o->max_samples + o->max_tombstones);
    /* The ring of answers is always full, and each record walks two chains: four buckets each. */
    uint32_t replays = store_power_of_two(4ull * o->max_replays);
    uint32_t waiters = store_power_of_two(o->max_waiters < WAITER_BUCKETS_MAX ? o->max_waiters
                                                                              : WAITER_BUCKETS_MAX);
    store->generation_mask = store->name_mask = generations - 1;
    store->replay_mask = replays - 1;
    store->waiter_mask = waiters - 1;
    store->generation_hash = store_place(&end, generations * sizeof(uint32_t));
    store->name_hash = store_place(&end, generations * sizeof(uint32_t));
    store->replay_hash = store_place(&end, replays * sizeof(uint32_t));
    store->waiter_hash = store_place(&end, waiters * sizeof(struct list));
    store->heap = store_place(&end, (uint64_t)o->max_waiters * sizeof(uint32_t));
    store->replays = store_place(&end, (uint64_t)o->max_replays * sizeof(struct replay_slot));
    store->events = store_place(&end, event_ring_bytes(o->max_events));
    return end;
}

/* Lays out a struct on the stack and throws it away: only the size is wanted. */
size_t store_block_bytes(const struct store_options *options, const char **why) {
    struct store layout;
    const char *wrong = store_check(options);
    if (wrong) {
        if (why)
            *why = wrong;
        return 0;
    }
    return store_lay_out(&layout, options);
}

/* The hash of ids needs a key of 16 bytes, so that nobody can choose ids that collide; the caller
 * gives 8 random bytes (the seed). SipHash with a 16-byte result makes the one of the other. */
void store_derive_key(unsigned char key[16], uint64_t seed) {
    static const unsigned char domain[crypto_shorthash_KEYBYTES] = "featured store";
    crypto_shorthash_siphashx24(key, (const unsigned char *)&seed, sizeof seed, domain);
}

void store_describe(struct store_header *header, const struct store_options *o,
                    uint64_t block_bytes) {
    *header = (struct store_header){
        .format_version = STORE_FORMAT_VERSION,
        .header_bytes = sizeof *header,
        .block_bytes = block_bytes,
        .seed = o->seed,
        .max_resident_bytes = o->max_resident_bytes,
        .landing_bytes = o->landing_bytes,
        .max_samples = o->max_samples,
        .max_tombstones = o->max_tombstones,
        .max_leases = o->max_leases,
        .max_ended_leases = o->max_ended_leases,
        .max_holders = o->max_holders,
        .max_waiters = o->max_waiters,
        .max_replays = o->max_replays,
        .max_events = o->max_events,
        .sample_slot_bytes = sizeof(struct sample_slot),
        .name_slot_bytes = sizeof(struct name_slot),
        .lease_slot_bytes = sizeof(struct lease_slot),
        .holder_slot_bytes = sizeof(struct holder_slot),
        .chunk_bytes = sizeof(struct chunk),
        .replay_slot_bytes = sizeof(struct replay_slot),
        .event_bytes = sizeof(struct store_event),
        .waiter_slot_bytes = sizeof(struct waiter_slot),
    };
}

/* All of struct store but the header; the maps, and the buckets of waiters. The other tables are
 * zero when they are empty. */
void store_init_derived(struct store *store, const struct store_options *options) {
    memset((char *)store + sizeof store->kept, 0, sizeof *store - sizeof store->kept);
    store->options = *options;
    store_lay_out(store, options);
    store_derive_key(store->key, store->kept.seed);
    extent_init(store_at(store, store->home_map), 0, options->max_resident_bytes,
                options->max_samples);
    extent_init(store_at(store, store->landing_map), options->max_resident_bytes,
                options->landing_bytes, options->landing_bytes ? options->max_samples : 0);
    struct list *buckets = store_at(store, store->waiter_hash);
    for (uint32_t i = 0; i <= store->waiter_mask; i++)
        buckets[i] = LIST_EMPTY;
    store->planned = store->resident = store->retired = LIST_EMPTY;
    store->idle = store->tombstones = store->ended = store->effects = LIST_EMPTY;
    store->put_line = store->land_line = (struct line){.queue = LIST_EMPTY};
    store->gc_cursor = NONE;
}

/* The magic comes last: before it the block is one that holds nothing yet. */
struct store *store_init(void *block, size_t block_bytes, const struct store_options *options) {
    size_t needed = store_block_bytes(options, NULL);
    if (!needed || block_bytes < needed)
        return NULL;
    struct store *store = block;
    store_describe(&store->kept, options, needed);
    store_init_derived(store, options);
    word_set(&store->kept.magic, STORE_MAGIC);
    return store;
}

/* With 0 readers the first release would retire a sample, consumed or not. */
void store_set_policy(struct store *store, enum store_policy policy, uint32_t readers,
                      uint64_t max_hold_ns) {
    store->options.policy = policy;
    store->options.readers = readers ? readers : 1;
    store->options.max_hold_ns = max_hold_ns;
}

void store_set_bounds(struct store *store, uint64_t max_reserve_ns, uint64_t max_pass_ns) {
    store->options.max_reserve_ns = max_reserve_ns;
    store->options.max_pass_ns = max_pass_ns;
}

/* The block is the caller's; only what lies outside is put right, and the key is wiped. What is
 * kept stays as it is, the seed too: the block can be attached again. */
void store_deinit(struct store *store) {
    struct store_account *account = store->options.account;
    if (account)
        account->used_bytes -= store->home_bytes;
    sodium_memzero(store->key, sizeof store->key);
    store->options.account = NULL;
}
