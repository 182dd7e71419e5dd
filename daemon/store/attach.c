/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking over a block that another process left, at any instruction.
 *
 *   check    check.c reads all that is kept. A block that is not whole is refused, unchanged.
 *   derive   lists, hashes, counts, free slots and the maps of extents are made anew from the
 * slots; what was in their place is not looked at. finish   what was half done is done: the same
 * functions are called that would have been called next. Each knows its state from the slots alone.
 *
 * What can be half done (the order of stores of each transition stands beside it):
 *   two RESIDENT generations of one id       the older has lost: RETIRED, SUPERSEDED
 *   RETIRED and no lease                     GONE
 *   a lease with WORD_ENDING                 its count, and what its end means for the sample
 *   RESIDENT landing copy, no cache, no lease   of no use to anybody: RETIRED, UNCACHED
 *   too many tombstones                      the oldest are freed
 *   PLANNED with a generation or checksums   a seal that was not committed: both are forgotten
 * And what cannot go on without the process that died:
 *   PLANNED landing copy                     its transfer is dead: GONE, FETCH_FAILED
 *   a grant to a waiter who has not heard of it   is no grant: a reservation is FREE again, a lease
 *                                            ends as returned
 *
 * A death in here is a death like any other: derived parts are made anew by the next attach, and
 * finishing goes by the same transitions as everything else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/check.h"

#define LEASE_ITEM (1u << 31) /* of struct keyed: the index is a lease's, not a sample's */

struct attach {
    struct store *store;
    struct scratch *scratch;
    uint64_t now_ns;
    size_t todo; /* samples in scratch->todo that attach_finish() has to look at */
};

/* ---- scratch ---- */
/* One more than is needed of each, because calloc(0) may return NULL. */
static bool attach_scratch_new(struct scratch *scratch, const struct store_header *header) {
    size_t items = (size_t)header->touched[POOL_SAMPLES] + header->touched[POOL_LEASES];
    if (items < header->touched[POOL_NAMES])
        items = header->touched[POOL_NAMES];
    *scratch = (struct scratch){.chunk_used = calloc(header->touched[POOL_CHUNKS] + 1ul, 1),
                                .name_used = calloc(header->touched[POOL_NAMES] + 1ul, 1),
                                .items = malloc((items + 1) * sizeof(struct keyed)),
                                .spare = malloc((items + 1) * sizeof(struct keyed)),
                                .todo = malloc((items + 1) * sizeof(uint32_t))};
    return scratch->chunk_used && scratch->name_used && scratch->items && scratch->spare &&
           scratch->todo;
}

static void attach_scratch_free(struct scratch *scratch) {
    free(scratch->chunk_used);
    free(scratch->name_used);
    free(scratch->items);
    free(scratch->spare);
    free(scratch->todo);
}

/* ---- derive: tables ---- */
/* Nobody heard of it, so nobody can miss it. */
static void attach_forget_unheard(struct attach *attach) {
    struct store *store = attach->store;
    for (uint32_t i = 0; i < store->samples.touched; i++) {
        struct sample_slot *s = sample_at(store, i);
        if (sample_state(s) != STORE_PLANNED || !sample_flag(s, WORD_UNHEARD))
            continue;
        for (uint32_t c = s->chunk; c != NONE; c = chunk_at(store, c)->next)
            attach->scratch->chunk_used[c] = 0;
        word_commit(&s->word, STORE_FREE, 0, 0, 0);
    }
}

/* Members that mean something in other states only are set back: a seal may have been under way. */
static void attach_reset_sample(struct store *store, uint32_t i) {
    struct sample_slot *s = sample_at(store, i);
    enum store_state state = sample_state(s);
    bool reserved = state == STORE_PLANNED && !sample_flag(s, WORD_LANDING);
    s->extent = EXTENT_NONE;
    s->lease_count = 0;
    s->hashed = false;
    s->read = s->consumed;
    s->leases = LIST_EMPTY;
    if (state == STORE_GONE)
        s->chunk = NONE;
    if (state == STORE_PLANNED)
        s->checksums_bytes = 0;
    if (reserved)
        s->generation = 0;
    else
        s->holder = STORE_NO_HOLDER;
    name_at(store, s->name)->references++;
    sample_count(store, s, 1);
}

/* Free slots are given back from the last to the first, so that the first is taken first. */
static void attach_pools(struct attach *attach) {
    struct store *store = attach->store;
    for (uint32_t i = store->chunks.touched; i--;)
        if (!attach->scratch->chunk_used[i])
            pool_give(store, &store->chunks, i);
    for (uint32_t i = store->names.touched; i--;)
        name_at(store, i)->references = 0;
    for (uint32_t i = store->samples.touched; i--;)
        if (sample_state(sample_at(store, i)) == STORE_FREE)
            pool_give(store, &store->samples, i);
        else
            attach_reset_sample(store, i);
    for (uint32_t i = store->names.touched; i--;)
        if (name_at(store, i)->references)
            name_restore(store, i);
        else
            pool_give(store, &store->names, i);
    for (uint32_t i = store->leases.touched; i--;)
        if (lease_state(lease_at(store, i)) == LEASE_FREE)
            pool_give(store, &store->leases, i);
    for (uint32_t i = store->holders.touched; i--;)
        if (!holder_restore(store, i))
            pool_give(store, &store->holders, i);
}

/* From the lowest to the highest, so that the rest of the region is always one hole. */
static void attach_extents(struct attach *attach) {
    struct store *store = attach->store;
    struct keyed *items = attach->scratch->items;
    uint32_t last[2] = {EXTENT_NONE, EXTENT_NONE};
    size_t count = 0;
    for (uint32_t i = 0; i < store->samples.touched; i++) {
        const struct sample_slot *s = sample_at(store, i);
        if (sample_state(s) != STORE_FREE && sample_state(s) != STORE_GONE)
            items[count++] = (struct keyed){s->extent_offset, i};
    }
    keyed_sort(items, attach->scratch->spare, count);
    for (size_t k = 0; k < count; k++) {
        struct sample_slot *s = sample_at(store, items[k].index);
        bool landing = sample_flag(s, WORD_LANDING);
        struct extent_map *map = landing ? landing_map(store) : home_map(store);
        s->extent = last[landing] =
            extent_place(map, last[landing], s->extent_offset, s->extent_bytes);
        *(landing ? &store->landing_bytes : &store->home_bytes) += s->extent_bytes;
    }
    if (store->options.account)
        store->options.account->used_bytes += store->home_bytes;
}

/* ---- derive: leases, in the order in which they were granted or ended ---- */
/* What lease_grant() does besides writing the slot. Accounts are charged when the holder is
 * adopted.
 */
static void attach_live_lease(struct store *store, uint32_t index) {
    const struct lease_slot *lease = lease_at(store, index);
    struct sample_slot *s = sample_at(store, lease->sample);
    struct holder_slot *holder = holder_at(store, lease->holder);
    if (!s->lease_count++ && !sample_flag(s, WORD_LANDING))
        store->leased_bytes += s->extent_bytes;
    list_append(store, &store->leases, LEASE_BY_SAMPLE, &s->leases, index);
    list_append(store, &store->leases, LEASE_BY_HOLDER, &holder->leases, index);
    s->read = true;
    holder->lease_count++;
    store->lease_count++;
}

/* Collects the leases that are not FREE and have one of the flags (0: all), and sorts them. */
static size_t attach_sort_leases(struct attach *attach, uint64_t flags) {
    const struct store *store = attach->store;
    struct keyed *items = attach->scratch->items;
    size_t count = 0;
    for (uint32_t i = 0; i < store->leases.touched; i++) {
        const struct lease_slot *lease = lease_at(store, i);
        if (lease_state(lease) != LEASE_FREE && (!flags || word_load(&lease->word) & flags))
            items[count++] = (struct keyed){lease_order(lease), i};
    }
    keyed_sort(items, attach->scratch->spare, count);
    return count;
}

/* An ended lease with something to tell is in the queue of effects, and in no other list. */
static void attach_leases(struct attach *attach) {
    struct store *store = attach->store;
    const struct keyed *items = attach->scratch->items;
    size_t count = attach_sort_leases(attach, 0);
    for (size_t k = 0; k < count; k++) {
        const struct lease_slot *lease = lease_at(store, items[k].index);
        if (lease_state(lease) == LEASE_LIVE)
            attach_live_lease(store, items[k].index);
        else if (!(word_load(&lease->word) & WORD_TELL))
            lease_bury(store, items[k].index);
    }
}

/* ---- derive: samples, in the order of their stamps ---- */
/* Looked at once everything is in its lists; it may have ended by then for another reason. */
static void attach_todo(struct attach *attach, uint32_t index) {
    attach->scratch->todo[attach->todo++] = index;
}

/* Of two the newer is found. They are in the order of their stamps, but for a generation of our own
 * that was sealed just now: its stamp is that of its reservation. */
static void attach_hash(struct store *store, uint32_t index) {
    struct sample_slot *s = sample_at(store, index);
    if (!s->generation || s->hidden)
        return;
    uint32_t older = sample_by_generation(store, s->generation);
    if (older != NONE && sample_flag(s, WORD_LANDING) &&
        !sample_flag(sample_at(store, older), WORD_LANDING))
        s->hidden = 1;
    else
        sample_hash(store, index);
}

/* What samples_join_lists() does for a reservation, without the charges. */
static void attach_reservation(struct store *store, uint32_t index) {
    const struct sample_slot *s = sample_at(store, index);
    struct holder_slot *holder = holder_at(store, s->holder);
    list_append(store, &store->samples, SAMPLE_BY_HOLDER, &holder->reservations, index);
    list_append(store, &store->samples, SAMPLE_AGE, &store->planned, index);
    holder->reservation_count++;
    holder->reserved_bytes += s->extent_bytes;
}

/* Called in the order of stamps, so that appending keeps every list in its order, and the later one
 * of two resident generations of an id is the one that counts. */
static void attach_home(struct attach *attach, uint32_t index) {
    struct store *store = attach->store;
    struct sample_slot *s = sample_at(store, index);
    struct name_slot *name = name_at(store, s->name);
    enum store_state state = sample_state(s);
    if (state == STORE_PLANNED)
        attach_reservation(store, index);
    if (state == STORE_PLANNED || state == STORE_SEALED)
        list_append(store, &store->samples, SAMPLE_BY_NAME, &name->pending, index);
    if (state == STORE_RESIDENT) {
        list_append(store, &store->samples, SAMPLE_AGE, &store->resident, index);
        if (name->resident != NONE)
            attach_todo(attach, name->resident);
        name->resident = index;
    }
    if (state == STORE_RETIRED) {
        list_append(store, &store->samples, SAMPLE_AGE, &store->retired, index);
        if (!s->lease_count)
            attach_todo(attach, index);
    }
    if ((state == STORE_RETIRED || state == STORE_GONE) && s->left >= name->left) {
        name->left = s->left;
        name->gone = index;
    }
}

/* A leased copy is in no list; it joins the idle ones with the end of its last lease. */
static void attach_landing(struct attach *attach, uint32_t index) {
    struct store *store = attach->store;
    const struct sample_slot *s = sample_at(store, index);
    enum store_state state = sample_state(s);
    bool idle = state == STORE_RESIDENT && !s->lease_count;
    if (idle) {
        list_append(store, &store->samples, SAMPLE_AGE, &store->idle, index);
        store->idle_bytes += s->extent_bytes;
    }
    if (state == STORE_PLANNED || (state == STORE_RETIRED && !s->lease_count) ||
        (idle && !sample_flag(s, WORD_CACHED)))
        attach_todo(attach, index);
}

static void attach_samples(struct attach *attach) {
    struct store *store = attach->store;
    struct keyed *items = attach->scratch->items;
    size_t count = 0;
    for (uint32_t i = 0; i < store->samples.touched; i++)
        if (sample_state(sample_at(store, i)) != STORE_FREE)
            items[count++] = (struct keyed){sample_stamp(sample_at(store, i))->order, i};
    keyed_sort(items, attach->scratch->spare, count);
    for (size_t k = 0; k < count; k++) {
        uint32_t index = items[k].index;
        const struct sample_slot *s = sample_at(store, index);
        attach_hash(store, index);
        if (sample_flag(s, WORD_LANDING))
            attach_landing(attach, index);
        else
            attach_home(attach, index);
        if (sample_state(s) == STORE_GONE && !sample_flag(s, WORD_TELL))
            sample_bury(store, index);
    }
}

/* ---- derive: effects, of samples and leases together ---- */
/* Both kinds have their numbers from one counter, so that sorting them together restores the queue.
 */
static void attach_effects(struct attach *attach) {
    struct store *store = attach->store;
    struct keyed *items = attach->scratch->items;
    size_t count = attach_sort_leases(attach, WORD_TELL);
    for (size_t k = 0; k < count; k++)
        items[k].index |= LEASE_ITEM;
    for (uint32_t i = 0; i < store->samples.touched; i++)
        if (sample_state(sample_at(store, i)) != STORE_FREE &&
            sample_flag(sample_at(store, i), WORD_TELL))
            items[count++] = (struct keyed){sample_stamp(sample_at(store, i))->order, i};
    keyed_sort(items, attach->scratch->spare, count);
    for (size_t k = 0; k < count; k++)
        if (items[k].index & LEASE_ITEM)
            effect_lease_ended(store, items[k].index & ~LEASE_ITEM);
        else
            effect_sample_retired(store, items[k].index);
}

/* store_init() finds them zeroed, an attach does not. */
static void attach_clear_hashes(struct store *store) {
    const struct {
        uint64_t offset;
        uint32_t mask;
    } tables[] = {{store->generation_hash, store->generation_mask},
                  {store->name_hash, store->name_mask},
                  {store->replay_hash, store->replay_mask}};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        memset(store_at(store, tables[i].offset), 0, (tables[i].mask + 1ul) * sizeof(uint32_t));
}

static void attach_derive(struct attach *attach, const struct store_options *options) {
    struct store *store = attach->store;
    struct pool *pools[] = {&store->samples, &store->names, &store->leases, &store->holders,
                            &store->chunks};
    store_init_derived(store, options);
    attach_clear_hashes(store);
    store->now_ns = attach->now_ns;
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++)
        pools[i]->touched = pools[i]->used = store->kept.touched[pools[i]->kind];
    attach_forget_unheard(attach);
    attach_pools(attach);
    attach_extents(attach);
    attach_leases(attach);
    attach_samples(attach);
    attach_effects(attach);
    replays_rebuild(store);
    events_restore(store);
}

/* ---- finish ---- */
/* The count has been raised if its lowest bit is the one that was noted. */
static void attach_finish_end(struct attach *attach, uint32_t index) {
    struct store *store = attach->store;
    struct lease_slot *lease = lease_at(store, index);
    struct sample_slot *s = sample_at(store, lease->sample);
    uint64_t word = word_load(&lease->word);
    enum store_state state = sample_state(s);
    if (word_use(&s->word) == lease->sample_use &&
        (state == STORE_RESIDENT || state == STORE_RETIRED)) {
        if (lease_how(lease) == STORE_CONSUMED_BY_READER &&
            (s->consumed & 1) != ((word & WORD_COUNT) != 0))
            s->consumed++;
        store_in_order();
        lease_reader_left(store, lease->sample, attach->now_ns);
    }
    word_unflag(&lease->word, WORD_ENDING | WORD_COUNT);
}

/* A generation that lost to a newer one is retired as of the moment at which the newer one came. */
static void attach_finish_sample(struct attach *attach, uint32_t index) {
    struct store *store = attach->store;
    const struct sample_slot *s = sample_at(store, index);
    bool landing = sample_flag(s, WORD_LANDING);
    switch (sample_state(s)) {
    case STORE_PLANNED:
        sample_end(store, index, sample_flag(s, WORD_DROPPED) ? STORE_DROPPED : STORE_FETCH_FAILED,
                   attach->now_ns);
        break;
    case STORE_RETIRED:
        if (!s->lease_count)
            sample_end(store, index, sample_reason(s), attach->now_ns);
        break;
    case STORE_RESIDENT:
        if (landing)
            sample_retire(store, index, STORE_UNCACHED, attach->now_ns);
        else
            sample_retire(
                store, index, STORE_SUPERSEDED,
                sample_stamp(sample_at(store, name_at(store, s->name)->resident))->since_ns);
        break;
    default:
        break;
    }
}

/* First what the process that died was doing; then what it had granted and not told; PLANNED
 * landing copies last, for a grant among them is undone, not ended. */
static void attach_finish(struct attach *attach) {
    struct store *store = attach->store;
    const struct keyed *items = attach->scratch->items;
    const uint32_t *todo = attach->scratch->todo;
    size_t count = attach_sort_leases(attach, WORD_ENDING);
    for (size_t k = 0; k < count; k++)
        attach_finish_end(attach, items[k].index);
    for (size_t k = 0; k < attach->todo; k++)
        if (sample_state(sample_at(store, todo[k])) != STORE_PLANNED)
            attach_finish_sample(attach, todo[k]);
    count = attach_sort_leases(attach, WORD_UNHEARD);
    for (size_t k = 0; k < count; k++)
        if (lease_state(lease_at(store, items[k].index)) == LEASE_LIVE)
            lease_end(store, items[k].index, STORE_RETURNED, false, attach->now_ns);
    for (size_t k = 0; k < attach->todo; k++)
        if (sample_state(sample_at(store, todo[k])) == STORE_PLANNED)
            attach_finish_sample(attach, todo[k]);
}

enum store_attached store_attach(void *block, size_t block_bytes,
                                 const struct store_options *options, uint64_t now_ns,
                                 struct store **store_out, char *why, size_t why_bytes) {
    const char *wrong = NULL;
    if (!store_block_bytes(options, &wrong)) {
        snprintf(why, why_bytes, "%s", wrong);
        return STORE_ATTACH_REFUSED;
    }
    enum store_attached result = check_header(block, block_bytes, options, why, why_bytes);
    if (result)
        return result;
    struct scratch scratch;
    result = STORE_ATTACH_REFUSED;
    struct attach attach = {.store = block, .scratch = &scratch, .now_ns = now_ns};
    if (!attach_scratch_new(&scratch, &attach.store->kept)) {
        snprintf(why, why_bytes, "there is no memory for checking its index");
    } else if (check_block(block, options, &scratch, why, why_bytes)) {
        attach_derive(&attach, options);
        attach_finish(&attach);
        *store_out = attach.store;
        result = STORE_ATTACHED;
    }
    attach_scratch_free(&scratch);
    return result;
}
