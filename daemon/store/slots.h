/* SPDX-License-Identifier: Apache-2.0
 *
 * The slots a store is made of, the lists and pools that hold them, and struct store itself.
 * Internal to daemon/store; everything lies in the caller's block and is addressed by 32-bit index.
 *
 * Truth: sample slots (committed by their word), the names they point to, lease slots (same). All
 * links, heads, counts, the extent maps and the id and generation hashes can be rebuilt from them.
 */
#ifndef FEATURED_STORE_SLOTS_H
#define FEATURED_STORE_SLOTS_H

#include <stdatomic.h>

#include "store/extent.h"
#include "store/store.h"

#define NONE UINT32_MAX

struct link {
    uint32_t prev, next;
};
struct list {
    uint32_t head, tail;
};

/* Slots of one kind. A free slot keeps the next free one at link_offset. Never-used slots are
 * handed out by `touched`, so that their pages stay untouched until needed. */
struct pool {
    uint64_t offset; /* of slot 0 in the block */
    uint32_t stride, link_offset, capacity, touched, free_head, used;
};

/* Word of a sample or lease slot: state 0-7, reason or how 8-15, flags 16-23, use count 32-63. The
 * use count rises each time the slot is taken anew; tokens are made of it. */
#define WORD_LANDING 0x010000ull /* a landing copy */
#define WORD_CACHED  0x020000ull /* landing copy that stays when idle */
#define WORD_DROPPED 0x040000ull /* landing copy that is freed when its transfer ends */

struct sample_slot { /* one generation */
    _Atomic uint64_t word;
    uint64_t generation, origin, since_ns;
    uint64_t extent_offset, extent_bytes;
    uint32_t extent;
    uint32_t name;
    uint32_t chunk; /* spec, then room for the checksums */
    uint16_t spec_bytes, checksums_bytes;
    uint32_t tensor_count;
    uint32_t holder; /* PLANNED at home: whose reservation */
    uint32_t lease_count, consumed;
    uint32_t hash_next; /* by generation */
    bool hashed;
    bool read; /* somebody has had a lease on it */
    struct list leases;
    struct link by_name;   /* PLANNED, SEALED at home: among its name's pending ones */
    struct link by_holder; /* PLANNED at home */
    struct link age;    /* PLANNED, RESIDENT or RETIRED at home | idle landing copy | tombstone */
    struct link effect; /* RETIRED not yet pulled */
    bool effect_queued;
    bool claimed; /* PLANNED at home: see claim.c */
};

struct name_slot {                  /* one sample_id, while any slot or waiter speaks of it */
    uint32_t references, hash_next; /* hash_next also links free slots */
    uint32_t resident;              /* home generation, or NONE */
    uint32_t gone;                  /* the last one RETIRED or GONE, or NONE */
    struct list pending;            /* PLANNED and SEALED at home, oldest first */
    struct list waiters;            /* gets by id, oldest first */
    uint32_t hash, id_bytes;
    char id[STORE_ID_BYTES_MAX];
};

enum lease_state { LEASE_FREE = 0, LEASE_LIVE, LEASE_ENDED };
struct lease_slot {
    _Atomic uint64_t word; /* lease_state, enum store_how */
    uint64_t hi, lo, generation, cookie, since_ns;
    uint32_t sample, sample_use; /* the slot, and its use count when the lease was granted */
    uint32_t holder;
    struct link by_sample;
    struct link by_holder; /* once ended: the ended ones, oldest first */
    struct link effect;    /* LEASE_ENDED not yet pulled */
    bool effect_queued;
    bool claimed; /* see claim.c */
};

struct holder_slot {
    uint32_t open, free_next;
    uint64_t owner;
    struct account *account;
    uint64_t reserved_bytes;
    uint32_t lease_count, reservation_count;
    struct list leases, reservations, waiters;
};

enum waiter_kind { WAITER_FREE = 0, WAITER_PUT, WAITER_LAND, WAITER_GET_ID, WAITER_GET_GENERATION };
struct waiter_slot {
    uint32_t kind, free_next;
    bool ready; /* answered: in the effect list instead of its queue */
    uint32_t holder, heap_at, name, chunk;
    uint64_t tag, cookie, deadline_ns, sequence, generation, origin;
    uint64_t extent_bytes;
    uint32_t align_bytes, spec_bytes, tensor_count;
    struct link queue, by_holder, effect;
    /* the answer */
    enum store_result result;
    uint32_t granted; /* sample slot, or lease slot of a get */
    uint64_t token;   /* of the granted sample slot */
    struct store_refusal refusal;
};

#define CHUNK_DATA_BYTES 124u
struct chunk {
    uint32_t next;
    unsigned char data[CHUNK_DATA_BYTES];
};

struct replay_slot {
    struct store_op op;
    struct store_answer answer;
    uint32_t hash_next;
};

/* Those who wait for room, first come first. */
struct line {
    struct list queue;
    uint64_t head_sequence; /* of who is first, 0 = nobody */
    uint64_t head_since_ns; /* since when */
};

struct store {
    struct store_options options;
    unsigned char key[16];
    uint64_t token_count, waiter_count;
    uint64_t now_ns;                /* of the last call */
    uint64_t home_map, landing_map; /* offsets of the extent maps */
    struct pool samples, names, leases, holders, waiters, chunks;
    struct list planned, resident, retired, idle, tombstones, ended; /* ages, oldest first */
    struct line put_line, land_line;
    struct list effects; /* typed references, see effects.c */
    uint64_t generation_hash, name_hash, waiter_hash, replay_hash, heap, replays, events;
    uint32_t generation_mask, name_mask, waiter_mask, replay_mask;
    uint32_t heap_count, replay_count, replay_at;
    uint32_t gc_cursor, tombstone_count, ended_count;
    uint32_t leases_max_ended;
    uint64_t event_last;
    uint64_t home_bytes, landing_bytes, idle_bytes;
    uint64_t home_count[STORE_GONE + 1], landing_count, gone_count;
    uint64_t state_bytes[STORE_GONE + 1], leased_bytes; /* at home */
    uint64_t reserves_ended;
    uint64_t lease_count, put_waiters, get_waiters, land_waiters;
    uint64_t puts, gets, frees;
    struct store_lives lives;
};

static inline void *store_at(const struct store *store, uint64_t offset) {
    return (char *)(uintptr_t)store + offset;
}

#define SLOT_ACCESSOR(type, name, pool)                                                            \
    static inline struct type *name(const struct store *store, uint32_t index) {                   \
        return (struct type *)store_at(store, store->pool.offset) + index;                         \
    }
SLOT_ACCESSOR(sample_slot, sample_at, samples)
SLOT_ACCESSOR(name_slot, name_at, names)
SLOT_ACCESSOR(lease_slot, lease_at, leases)
SLOT_ACCESSOR(holder_slot, holder_at, holders)
SLOT_ACCESSOR(waiter_slot, waiter_at, waiters)
SLOT_ACCESSOR(chunk, chunk_at, chunks)

/* Where the sample's bytes are: a store has one arena, its segment 0. */
static inline struct place sample_place(const struct sample_slot *sample) {
    return (struct place){
        .tier = PLACE_MEMORY, .offset = sample->extent_offset, .bytes = sample->extent_bytes};
}

static inline uint32_t *u32_at(const struct store *store, uint64_t offset) {
    return store_at(store, offset);
}

/* ---- words ---- */
static inline uint64_t word_load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_acquire);
}
static inline enum store_state sample_state(const struct sample_slot *sample) {
    return (enum store_state)(word_load(&sample->word) & 0xff);
}
static inline enum store_reason sample_reason(const struct sample_slot *sample) {
    return (enum store_reason)(word_load(&sample->word) >> 8 & 0xff);
}
static inline bool sample_flag(const struct sample_slot *sample, uint64_t flag) {
    return word_load(&sample->word) & flag;
}
static inline enum lease_state lease_state(const struct lease_slot *lease) {
    return (enum lease_state)(word_load(&lease->word) & 0xff);
}
static inline enum store_how lease_how(const struct lease_slot *lease) {
    return (enum store_how)(word_load(&lease->word) >> 8 & 0xff);
}
static inline uint32_t word_use(const _Atomic uint64_t *word) {
    return (uint32_t)(word_load(word) >> 32);
}
/* The commit point: keeps the flags and the use count. */
static inline void word_commit(_Atomic uint64_t *word, unsigned state, unsigned detail) {
    uint64_t kept = word_load(word) & ~0xffffull;
    atomic_store_explicit(word, kept | state | (uint64_t)detail << 8, memory_order_release);
}
static inline void word_flag(_Atomic uint64_t *word, uint64_t flag) {
    atomic_store_explicit(word, word_load(word) | flag, memory_order_release);
}

/* ---- pools ---- */
void pool_init(struct pool *pool, uint64_t offset, uint32_t stride, uint32_t link_offset,
               uint32_t capacity);
uint32_t pool_take(struct store *store, struct pool *pool); /* NONE when all are used */
void pool_give(struct store *store, struct pool *pool, uint32_t index);
static inline uint32_t pool_left(const struct pool *pool) {
    return pool->capacity - pool->used;
}

/* ---- lists: doubly linked through the struct link at link_offset of a pool's slots ---- */
#define LIST_EMPTY ((struct list){NONE, NONE})
void list_append(struct store *store, const struct pool *pool, size_t link_offset,
                 struct list *list, uint32_t index);
void list_remove(struct store *store, const struct pool *pool, size_t link_offset,
                 struct list *list, uint32_t index);

#define SAMPLE_BY_NAME   offsetof(struct sample_slot, by_name)
#define SAMPLE_BY_HOLDER offsetof(struct sample_slot, by_holder)
#define SAMPLE_AGE       offsetof(struct sample_slot, age)
#define LEASE_BY_SAMPLE  offsetof(struct lease_slot, by_sample)
#define LEASE_BY_HOLDER  offsetof(struct lease_slot, by_holder)
#define WAITER_QUEUE     offsetof(struct waiter_slot, queue)
#define WAITER_BY_HOLDER offsetof(struct waiter_slot, by_holder)

/* ---- keyed hashes: ids, generations and operations come from clients ---- */
uint64_t hash_bytes(const struct store *store, const void *bytes, size_t count);
uint64_t hash_u64(const struct store *store, uint64_t value);

#endif
