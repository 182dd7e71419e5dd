/* SPDX-License-Identifier: Apache-2.0
 *
 * The slots a store is made of, the lists and pools that hold them, and struct store itself.
 * Internal to daemon/store; everything lies in the caller's block and is addressed by 32-bit index.
 *
 * Each struct has two parts. What is *kept* is true on its own: store_attach() believes it after
 * the process that wrote it has died at any instruction. What is *derived* (links, heads, counts,
 * hash chains, pointers) stands below the line that says so; attach writes it anew and never reads
 * it. proto/MEMORY.md describes the kept part byte by byte. Whoever changes it raises
 * STORE_FORMAT_VERSION.
 *
 * A process dies between two instructions, and all that it stored before that is there. So what a
 * transition needs is only the right order of its stores, which word_commit() makes the compiler
 * keep: everything that the new state relies on is stored before the word, and everything that the
 * old state relied on is given up after it.
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
    uint32_t kind;   /* enum pool_kind: which `touched` of the header is its own */
    uint32_t stride, link_offset, capacity, touched, free_head, used;
};

/* Word of a sample or lease slot: state 0-7, reason or how 8-15, flags 16-31, use count 32-63. The
 * use count rises each time the slot is taken anew; tokens are made of it. */
#define WORD_LANDING 0x010000ull /* a landing copy */
#define WORD_CACHED  0x020000ull /* landing copy that stays when idle */
#define WORD_DROPPED 0x040000ull /* landing copy that is freed when its transfer ends */
#define WORD_TELL                                                                                  \
    0x080000ull /* that it was retired, or has ended, is still to be told: an effect */
#define WORD_UNHEARD 0x100000ull /* granted to one who waited, and who has not heard of it */
#define WORD_STAMP   0x200000ull /* the second of its two stamps counts, not the first */
#define WORD_ENDING  0x400000ull /* lease: what follows from its end is not done yet */
#define WORD_COUNT   0x800000ull /* lease with ENDING: lowest bit of the sample's count with it */
#define WORD_FLAGS   0xff0000ull

/* When a slot came into its state, and its place among all that ever happened in this store. A slot
 * has two: a transition writes the one that does not count and commits it together with the state
 * (WORD_STAMP), so that at no moment a state stands beside the time of another one. `order` is what
 * the lists are sorted by after an attach. */
struct stamp {
    uint64_t since_ns, order;
};

struct sample_slot { /* one generation */
    _Atomic uint64_t word;
    uint64_t generation, origin;
    uint64_t extent_offset, extent_bytes;
    struct stamp stamps[2];
    uint64_t left; /* RETIRED, GONE at home: `order` of when it ceased to be current */
    uint32_t name;
    uint32_t chunk; /* spec, then room for the checksums */
    uint16_t spec_bytes, checksums_bytes;
    uint32_t tensor_count;
    uint32_t holder; /* PLANNED at home: whose reservation */
    uint32_t consumed;
    uint32_t hidden; /* 1: this generation landed here once more, and is not found here */
    /* ---- derived ---- */
    uint32_t extent;
    uint32_t lease_count;
    uint32_t hash_next; /* by generation */
    bool hashed;
    bool read; /* somebody has had a lease on it */
    struct list leases;
    struct link by_name;   /* PLANNED, SEALED at home: among its name's pending ones */
    struct link by_holder; /* PLANNED at home */
    struct link age;    /* PLANNED, RESIDENT or RETIRED at home | idle landing copy | tombstone */
    struct link effect; /* RETIRED not yet pulled: WORD_TELL */
    bool claimed;       /* PLANNED at home: see claim.c */
};

/* One sample_id, while any slot or waiter speaks of it. It has no word: it counts as taken while a
 * sample slot that is not FREE names it. */
struct name_slot {
    uint64_t left; /* the greatest `left` of its samples, also of those that are FREE again */
    uint32_t id_bytes;
    char id[STORE_ID_BYTES_MAX];
    /* ---- derived ---- */
    uint32_t hash;
    uint32_t references, hash_next; /* hash_next also links free slots */
    uint32_t resident;              /* home generation, or NONE */
    uint32_t gone;                  /* the last one RETIRED or GONE, or NONE */
    struct list pending;            /* PLANNED and SEALED at home, oldest first */
    struct list waiters;            /* gets by id, oldest first */
};

enum lease_state { LEASE_FREE = 0, LEASE_LIVE, LEASE_ENDED };
struct lease_slot {
    _Atomic uint64_t word; /* lease_state, enum store_how */
    uint64_t hi, lo, generation, cookie, since_ns;
    uint64_t orders[2];          /* as in struct stamp: WORD_STAMP says which one counts */
    uint32_t sample, sample_use; /* the slot, and its use count when the lease was granted */
    uint32_t holder;
    /* ---- derived ---- */
    struct link by_sample;
    struct link by_holder; /* once ended: the ended ones, oldest first */
    struct link effect;    /* LEASE_ENDED not yet pulled: WORD_TELL */
    bool claimed;          /* see claim.c */
};

struct holder_slot {
    uint64_t owner;
    uint32_t open; /* 1: stored last when it is opened, cleared when it holds nothing any more */
    /* ---- derived ---- */
    uint32_t free_next;
    struct account *account;
    uint64_t reserved_bytes;
    uint32_t lease_count, reservation_count;
    struct list leases, reservations, waiters;
};

/* All of it is derived in the sense of attach: who waits asks again. */
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
struct chunk { /* taken while a sample slot that is neither FREE nor GONE leads to it */
    uint32_t next;
    unsigned char data[CHUNK_DATA_BYTES];
};

struct replay_slot {
    struct store_op op; /* op_id 0: no answer here; it is cleared first and stored last */
    uint64_t order;
    struct store_answer answer;
    /* ---- derived ---- */
    uint32_t hash_next;
};

/* Those who wait for room, first come first. */
struct line {
    struct list queue;
    uint64_t head_sequence; /* of who is first, 0 = nobody */
    uint64_t head_since_ns; /* since when */
};

enum pool_kind {
    POOL_SAMPLES = 0,
    POOL_NAMES,
    POOL_LEASES,
    POOL_HOLDERS,
    POOL_CHUNKS,
    POOL_WAITERS, /* nothing of it is kept */
    POOLS
};

/* The block begins with this, and all of it is kept. The first part is written by store_init() and
 * never again; `magic` comes last, so that a block whose store_init() did not finish has none. */
#define STORE_MAGIC          0x726f747374616566ull /* "featstor" in a hex dump */
#define STORE_FORMAT_VERSION 1u
struct store_header {
    _Atomic uint64_t magic;
    uint32_t format_version, header_bytes;
    uint64_t block_bytes;
    uint64_t seed;
    uint64_t max_resident_bytes, landing_bytes;
    uint32_t max_samples, max_tombstones, max_leases, max_ended_leases;
    uint32_t max_holders, max_waiters, max_replays, max_events;
    uint32_t sample_slot_bytes, name_slot_bytes, lease_slot_bytes, holder_slot_bytes;
    uint32_t chunk_bytes, replay_slot_bytes, event_bytes, waiter_slot_bytes;
    /* ---- what changes ---- */
    uint64_t order;                             /* of the newest stamp */
    uint64_t token_count;                       /* leases that have been given a token */
    uint64_t event_last;                        /* number of the newest event */
    uint64_t puts, gets, frees, reserves_ended; /* statistics: may be one off after a death */
    uint32_t touched[POOLS];                    /* slots at and above this were never used */
    uint32_t reserved;
};

struct store {
    struct store_header kept;
    /* ---- derived ---- */
    struct store_options options;
    unsigned char key[16];
    uint64_t waiter_count;
    uint64_t now_ns;                /* of the last call */
    uint64_t home_map, landing_map; /* offsets of the extent maps */
    struct pool samples, names, leases, holders, waiters, chunks;
    struct list planned, resident, retired, idle, tombstones, ended; /* ages, oldest first */
    struct line put_line, land_line;
    struct list effects; /* typed references, see effects.c */
    uint64_t generation_hash, name_hash, waiter_hash, replay_hash, heap, replays, events;
    uint32_t generation_mask, name_mask, waiter_mask, replay_mask;
    uint32_t heap_count, replay_at;
    uint32_t gc_cursor, tombstone_count, ended_count;
    uint32_t leases_max_ended;
    uint64_t home_bytes, landing_bytes, idle_bytes;
    uint64_t home_count[STORE_GONE + 1], landing_count, gone_count;
    uint64_t state_bytes[STORE_GONE + 1], leased_bytes; /* at home */
    uint64_t lease_count, put_waiters, get_waiters, land_waiters;
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
/* The compiler moves no store over this, in either direction; it costs no instruction. Between two
 * stores of the kept part whose order matters stands a word_set(), or this. */
static inline void store_in_order(void) {
    atomic_signal_fence(memory_order_seq_cst);
}
static inline void word_set(_Atomic uint64_t *word, uint64_t value) {
    store_in_order();
    atomic_store_explicit(word, value, memory_order_release);
    store_in_order();
}
/* The commit point: keeps the use count, and the flags as far as they are in `flags_kept`. */
static inline void word_commit(_Atomic uint64_t *word, unsigned state, unsigned detail,
                               uint64_t flags_kept, uint64_t flags_set) {
    uint64_t kept = word_load(word) & (0xffffffff00000000ull | flags_kept);
    word_set(word, kept | state | (uint64_t)detail << 8 | flags_set);
}
static inline void word_flag(_Atomic uint64_t *word, uint64_t flag) {
    word_set(word, word_load(word) | flag);
}
static inline void word_unflag(_Atomic uint64_t *word, uint64_t flag) {
    word_set(word, word_load(word) & ~flag);
}

/* ---- stamps ---- */
static inline const struct stamp *sample_stamp(const struct sample_slot *sample) {
    return &sample->stamps[sample_flag(sample, WORD_STAMP)];
}
static inline uint64_t lease_order(const struct lease_slot *lease) {
    return lease->orders[(word_load(&lease->word) & WORD_STAMP) != 0];
}
/* Each number is given out once, also if what it was for never came about. */
static inline uint64_t order_next(struct store *store) {
    return ++store->kept.order;
}
/* Writes the order that does not count yet; the flag to commit with it. */
static inline uint64_t lease_stamp(struct store *store, struct lease_slot *lease) {
    uint64_t next = ~word_load(&lease->word) & WORD_STAMP;
    lease->orders[next != 0] = order_next(store);
    return next;
}

/* ---- pools ---- */
void pool_init(struct pool *pool, enum pool_kind kind, uint64_t offset, uint32_t stride,
               uint32_t link_offset, uint32_t capacity);
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
