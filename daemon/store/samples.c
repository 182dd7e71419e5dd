/* SPDX-License-Identifier: Apache-2.0
 *
 * Generation slots from PLANNED to GONE: taking one with all that it needs or nothing, committing
 * each transition, giving back what it held, and the tombstones.
 *
 * Which lists a slot is in follows from its state:
 *   PLANNED at home       its name's pending list, its holder's reservations, the planned list
 *   PLANNED landing copy  none
 *   SEALED                its name's pending list
 *   RESIDENT at home      its name's `resident`, the age list
 *   RESIDENT landing copy the idle list while nobody reads it
 *   RETIRED at home       the retired list; its name's `gone` if it is the last one
 *   GONE                  the tombstones, once its effect has been pulled; its name's `gone`
 * store_audit() checks this, and attach.c builds the lists anew by it.
 *
 * A tombstone answers for its generation: "consumed 20 s ago" instead of "never heard of". Beyond
 * max_tombstones the oldest one is freed. A GONE slot whose effect has not been pulled is no
 * tombstone yet and counts against max_samples: its slot is not free.
 *
 * Order of stores (a process may die between any two of them; see slots.h). A slot that is taken is
 * FREE until its word is committed, so that the rest of it, its name and its chunks may be written
 * in any order. A slot that ends is committed as GONE (or FREE) before its bytes, chunks and name
 * are given back, for the next put may write there at once. RETIRED without readers is half way to
 * GONE, and attach goes the other half.
 */
#include <string.h>

#include "store/store_internal.h"

uint64_t extent_round(uint64_t bytes) {
    return (bytes + EXTENT_UNIT_BYTES - 1) & ~(uint64_t)(EXTENT_UNIT_BYTES - 1);
}

/* 64 bytes are a cache line, 4096 a page. */
bool put_is_valid(const struct store_put *put) {
    return put->sample_id_bytes && put->sample_id_bytes <= STORE_ID_BYTES_MAX &&
           put->spec_bytes <= STORE_SPEC_BYTES_MAX && put->tensor_count <= STORE_TENSORS_MAX &&
           put->extent_bytes && (put->align_bytes == 64 || put->align_bytes == 4096);
}

/* The token of a reservation names one use of a slot: the use count in the upper half, and the
 * index + 1 below, so that no token is 0. */
uint64_t sample_token(const struct store *store, uint32_t index) {
    return (word_load(&sample_at(store, index)->word) & ~0xffffffffull) | (index + 1);
}

/* Only the holder that made a reservation finds it: tokens of reservations are not secret, for they
 * can be counted. */
uint32_t reservation_find(const struct store *store, uint32_t holder, uint64_t token) {
    uint32_t index = (uint32_t)token - 1;
    if (index >= store->samples.touched || sample_token(store, index) != token)
        return NONE;
    const struct sample_slot *sample = sample_at(store, index);
    if (sample_state(sample) != STORE_PLANNED || sample_flag(sample, WORD_LANDING) ||
        sample->holder != holder)
        return NONE;
    return index;
}

/* ---- by generation ---- */
static uint32_t *samples_generation_bucket(const struct store *store, uint64_t generation) {
    return u32_at(store, store->generation_hash) +
           (hash_u64(store, generation) & store->generation_mask);
}

/* Buckets hold index + 1: a zeroed table is an empty one. Tombstones are found as well. */
uint32_t sample_by_generation(const struct store *store, uint64_t generation) {
    if (!generation)
        return NONE;
    uint32_t index = *samples_generation_bucket(store, generation) - 1;
    while (index != NONE && sample_at(store, index)->generation != generation)
        index = sample_at(store, index)->hash_next;
    return index;
}

static void samples_unhash(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    if (!sample->hashed)
        return;
    sample->hashed = false;
    uint32_t *bucket = samples_generation_bucket(store, sample->generation);
    if (*bucket == index + 1) {
        *bucket = sample->hash_next + 1;
        return;
    }
    uint32_t at = *bucket - 1;
    while (sample_at(store, at)->hash_next != index)
        at = sample_at(store, at)->hash_next;
    sample_at(store, at)->hash_next = sample->hash_next;
}

/* A generation that lands here once more hides its older copy, which may be RETIRED with readers,
 * or a tombstone. The older slot lives on; it only cannot be found by its number any more, also not
 * after the newer one has been freed. Called after the newer one has been committed: attach finds
 * two then, if the process dies in between, and hides the older. */
void sample_hash(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    uint32_t older = sample_by_generation(store, sample->generation);
    if (older != NONE) {
        samples_unhash(store, older);
        sample_at(store, older)->hidden = 1;
    }
    uint32_t *bucket = samples_generation_bucket(store, sample->generation);
    sample->hash_next = *bucket - 1;
    sample->hashed = true;
    *bucket = index + 1;
}

/* ---- transitions ---- */
/* Adds or takes off (by = -1) one slot in the counters of the state that it is in. Called before
 * and after each commit, so that no transition has to know which counters it changes. */
void sample_count(struct store *store, const struct sample_slot *sample, uint64_t by) {
    enum store_state state = sample_state(sample);
    if (state == STORE_FREE)
        return;
    if (state == STORE_GONE) {
        store->gone_count += by;
        return;
    }
    if (sample_flag(sample, WORD_LANDING)) {
        store->landing_count += by;
        return;
    }
    store->home_count[state] += by;
    store->state_bytes[state] += by * sample->extent_bytes;
}

/* Writes the stamp that does not count yet; the flag to commit with it. */
static uint64_t samples_stamp(struct sample_slot *sample, uint64_t since_ns, uint64_t order) {
    uint64_t next = ~word_load(&sample->word) & WORD_STAMP;
    sample->stamps[next != 0] = (struct stamp){.since_ns = since_ns, .order = order};
    return next;
}

/* Last in its list from now on, in the same state since the same time. */
void sample_to_end(struct store *store, uint32_t index, uint64_t flags_gone) {
    struct sample_slot *sample = sample_at(store, index);
    uint64_t next = samples_stamp(sample, sample_stamp(sample)->since_ns, order_next(store));
    word_set(&sample->word, (word_load(&sample->word) & ~(WORD_STAMP | flags_gone)) | next);
}

/* For whoever watches: called before the slot changes, so that its state and since_ns are those
 * that it leaves. A RETIRED one has been counted when it was retired. */
static void samples_note_end(struct store *store, const struct sample_slot *sample,
                             enum store_state state, enum store_reason reason, uint64_t now_ns) {
    enum store_state before = sample_state(sample);
    if ((state != STORE_RETIRED && state != STORE_GONE) || before == STORE_RETIRED)
        return;
    store->lives.ended[reason]++;
    if (before == STORE_RESIDENT && (reason == STORE_CONSUMED || reason == STORE_ACKED))
        histogram_add_span(&store->lives.consumed, sample_stamp(sample)->since_ns, now_ns);
}

/* The one place where the state of a slot changes. The word is stored in one piece, after all that
 * readers of it rely on. The stamp stays when a reservation is sealed: how long it has stood counts
 * from the reservation. since_ns stays when a retired generation is freed, and its place among the
 * effects, too, if that it was retired has not been told yet. */
void sample_commit(struct store *store, uint32_t index, enum store_state state,
                   enum store_reason reason, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    const struct stamp *before = sample_stamp(sample);
    bool landing = sample_flag(sample, WORD_LANDING),
         retired = sample_state(sample) == STORE_RETIRED;
    uint64_t kept = WORD_LANDING | WORD_CACHED | WORD_DROPPED | WORD_TELL, set = 0;
    samples_note_end(store, sample, state, reason, now_ns);
    sample_count(store, sample, (uint64_t)-1);
    if (state == STORE_PLANNED)
        kept |= WORD_UNHEARD;
    if (state == STORE_SEALED)
        kept |= WORD_STAMP;
    else
        set = samples_stamp(sample, retired ? before->since_ns : now_ns,
                            retired && sample_flag(sample, WORD_TELL) ? before->order
                                                                      : order_next(store));
    if (!retired && (state == STORE_RETIRED || state == STORE_GONE))
        sample->left = sample->stamps[set != 0].order;
    if (state == STORE_RETIRED && !landing)
        set |= WORD_TELL;
    word_commit(&sample->word, state, reason, kept, set);
    sample_count(store, sample, 1);
    event_record(store, sample, now_ns);
}

/* Bytes: first this store's own quota, then what all stores of the node may use together. `used`
 * can be above the limit after a reload has lowered it, hence the comparison before the
 * subtraction. */
static enum store_result samples_check_home(const struct store *store, uint64_t bytes,
                                            struct store_refusal *refusal) {
    const struct store_options *options = &store->options;
    if (bytes > options->max_resident_bytes - store->home_bytes)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_QUOTA, options->max_resident_bytes,
                      store->home_bytes, bytes);
    const struct store_account *account = options->account;
    if (account && (account->used_bytes > account->limit_bytes ||
                    bytes > account->limit_bytes - account->used_bytes))
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_NODE_QUOTA, account->limit_bytes,
                      account->used_bytes, bytes);
    return STORE_OK;
}

/* A waiter brings name and pieces of its own (sample_id NULL), so that only a newcomer needs free
 * ones. */
static enum store_result samples_check_slots(const struct store *store,
                                             const struct sample_request *request,
                                             struct store_refusal *refusal) {
    uint32_t used = store->samples.used - store->tombstone_count;
    if (used >= store->options.max_samples)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_SAMPLES, store->options.max_samples, used,
                      1);
    uint32_t chunks = spec_chunks(request->spec_bytes, request->tensor_count);
    if (request->sample_id && chunks > pool_left(&store->chunks))
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_SPECS, store->chunks.capacity,
                      store->chunks.used, chunks);
    return STORE_OK;
}

/* The bytes may all be there and yet no hole be large enough. Then the refusal names the largest
 * hole, for quota would be the wrong thing to raise. */
static enum store_result samples_take_extent(struct store *store,
                                             const struct sample_request *request, uint32_t *extent,
                                             uint64_t *offset, struct store_refusal *refusal) {
    struct extent_map *map = request->landing ? landing_map(store) : home_map(store);
    *extent = extent_alloc(map, request->extent_bytes, request->align_bytes, offset);
    if (*extent != EXTENT_NONE)
        return STORE_OK;
    if (request->landing)
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_LANDING, store->options.landing_bytes,
                      store->landing_bytes, request->extent_bytes);
    return refuse(refusal, STORE_E_FULL, STORE_CAUSE_FRAGMENTED, extent_largest_free(map),
                  store->home_bytes, request->extent_bytes);
}

/* What a reservation costs is charged here, and given back in sample_unreserve(), which all ways
 * out of PLANNED go through. */
static void samples_join_lists(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    if (sample_flag(sample, WORD_LANDING)) {
        store->landing_bytes += sample->extent_bytes;
        return;
    }
    store->home_bytes += sample->extent_bytes;
    if (store->options.account)
        store->options.account->used_bytes += sample->extent_bytes;
    struct name_slot *name = name_at(store, sample->name);
    list_append(store, &store->samples, SAMPLE_BY_NAME, &name->pending, index);
    struct holder_slot *holder = holder_at(store, sample->holder);
    list_append(store, &store->samples, SAMPLE_BY_HOLDER, &holder->reservations, index);
    list_append(store, &store->samples, SAMPLE_AGE, &store->planned, index);
    holder->reservation_count++;
    holder->reserved_bytes += sample->extent_bytes;
    account_add(holder->account, CHARGE_RESERVATIONS, 1);
    account_add(holder->account, CHARGE_RESERVED_BYTES, sample->extent_bytes);
}

void sample_unreserve(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    struct holder_slot *holder = holder_at(store, sample->holder);
    list_remove(store, &store->samples, SAMPLE_BY_HOLDER, &holder->reservations, index);
    list_remove(store, &store->samples, SAMPLE_AGE, &store->planned, index);
    holder->reservation_count--;
    holder->reserved_bytes -= sample->extent_bytes;
    account_release(holder->account, CHARGE_RESERVATIONS, 1);
    account_release(holder->account, CHARGE_RESERVED_BYTES, sample->extent_bytes);
}

/* The word is stored on its own, FREE and with the use count of this use: the use count must not be
 * lost, or an old token would fit again. */
static void samples_fill(struct store *store, uint32_t index, const struct sample_request *request,
                         uint32_t extent, uint64_t offset) {
    struct sample_slot *sample = sample_at(store, index);
    bool own = request->sample_id;
    uint64_t use = (word_load(&sample->word) >> 32) + 1;
    word_set(&sample->word, use << 32 | (request->landing ? WORD_LANDING : 0) |
                                (request->waited ? WORD_UNHEARD : 0));
    memset((char *)sample + sizeof sample->word, 0, sizeof *sample - sizeof sample->word);
    sample->generation = request->generation;
    sample->origin = request->origin;
    sample->extent_offset = offset;
    sample->extent_bytes = request->extent_bytes;
    sample->extent = extent;
    sample->name =
        own ? name_ref(store, request->sample_id, request->sample_id_bytes) : request->name;
    sample->chunk =
        own ? spec_store(store, request->spec, request->spec_bytes, request->tensor_count)
            : request->chunk;
    sample->spec_bytes = (uint16_t)request->spec_bytes;
    sample->tensor_count = request->tensor_count;
    sample->holder = request->holder;
    sample->leases = LIST_EMPTY;
}

/* All checks come first, and the extent, which can fail, is taken before anything else. From then
 * on nothing fails: the slot, the name and the pieces of the spec have been checked for. */
enum store_result sample_new(struct store *store, const struct sample_request *request,
                             uint64_t now_ns, uint32_t *index_out, struct store_refusal *refusal) {
    uint32_t extent;
    uint64_t offset;
    enum store_result result = samples_check_slots(store, request, refusal);
    if (!result && !request->landing)
        result = samples_check_home(store, request->extent_bytes, refusal);
    if (!result)
        result = samples_take_extent(store, request, &extent, &offset, refusal);
    if (result)
        return result;
    *index_out = pool_take(store, &store->samples);
    samples_fill(store, *index_out, request, extent, offset);
    samples_join_lists(store, *index_out);
    sample_commit(store, *index_out, STORE_PLANNED, STORE_REASON_NONE, now_ns);
    if (request->landing)
        sample_hash(store, *index_out);
    return STORE_OK;
}

/* Landing copies are not charged to the node's account: their region is set aside once and for all.
 */
static void samples_free_bytes(struct store *store, struct sample_slot *sample) {
    bool landing = sample_flag(sample, WORD_LANDING);
    extent_free(landing ? landing_map(store) : home_map(store), sample->extent);
    if (landing) {
        store->landing_bytes -= sample->extent_bytes;
        return;
    }
    store->home_bytes -= sample->extent_bytes;
    if (store->options.account)
        store->options.account->used_bytes -= sample->extent_bytes;
}

/* The last one of its id to leave is what store_stat() by id shows when nothing else is left:
 * `gone` is set when a slot leaves RESIDENT, or ends before it ever was. A RETIRED slot has done so
 * already. `left` is raised after the commit: whichever sample has a greater one left later. */
static void samples_leave_name(struct store *store, uint32_t index, enum store_state before) {
    struct sample_slot *sample = sample_at(store, index);
    struct name_slot *name = name_at(store, sample->name);
    if (sample_flag(sample, WORD_LANDING) || before == STORE_RETIRED)
        return;
    if (before == STORE_PLANNED || before == STORE_SEALED)
        list_remove(store, &store->samples, SAMPLE_BY_NAME, &name->pending, index);
    if (name->resident == index)
        name->resident = NONE;
    name->gone = index;
    name->left = sample->left;
}

/* Every way to GONE. The caller has made sure that nobody leases it: the bytes are free from here
 * on, and the next put may be given them at once. */
void sample_end(struct store *store, uint32_t index, enum store_reason reason, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    enum store_state before = sample_state(sample);
    bool landing = sample_flag(sample, WORD_LANDING);
    if (before == STORE_PLANNED && !landing)
        sample_unreserve(store, index);
    if (before == STORE_RETIRED && !landing)
        list_remove(store, &store->samples, SAMPLE_AGE, &store->retired, index);
    sample_commit(store, index, STORE_GONE, reason, now_ns);
    samples_leave_name(store, index, before);
    samples_free_bytes(store, sample);
    spec_free(store, sample->chunk);
    sample->chunk = NONE;
    if (!sample_flag(sample, WORD_TELL))
        sample_bury(store, index);
}

/* The effect of its retirement has been taken out of the queue. A GONE slot is a tombstone from now
 * on, the youngest one; both facts are committed at once. */
void sample_told(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    if (sample_state(sample) != STORE_GONE) {
        word_unflag(&sample->word, WORD_TELL);
        return;
    }
    sample_to_end(store, index, WORD_TELL);
    sample_bury(store, index);
}

/* What it held has been given back, but its name. */
void sample_free(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    word_commit(&sample->word, STORE_FREE, 0, 0, 0);
    name_unref(store, sample->name);
    pool_give(store, &store->samples, index);
}

/* The generation is not known from here on: a get by it is answered as if it had never been here.
 */
static void samples_tombstone_free(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    list_remove(store, &store->samples, SAMPLE_AGE, &store->tombstones, index);
    store->tombstone_count--;
    samples_unhash(store, index);
    struct name_slot *name = name_at(store, sample->name);
    if (name->gone == index)
        name->gone = NONE;
    store->gone_count--;
    sample_free(store, index);
}

void sample_bury(struct store *store, uint32_t index) {
    list_append(store, &store->samples, SAMPLE_AGE, &store->tombstones, index);
    if (++store->tombstone_count > store->options.max_tombstones)
        samples_tombstone_free(store, store->tombstones.head);
}

/* The cursor of gc may stand on this slot; it moves on to the next one, or it would walk into
 * another list. */
static void samples_leave_age_list(struct store *store, uint32_t index) {
    struct sample_slot *sample = sample_at(store, index);
    if (!sample_flag(sample, WORD_LANDING)) {
        if (store->gc_cursor == index)
            store->gc_cursor = sample->age.next;
        list_remove(store, &store->samples, SAMPLE_AGE, &store->resident, index);
    } else if (!sample->lease_count) {
        list_remove(store, &store->samples, SAMPLE_AGE, &store->idle, index);
        store->idle_bytes -= sample->extent_bytes;
    }
}

/* From the commit on nobody is granted a lease. Those who have one keep their bytes until they
 * release them; the last one ends the sample (lease.c). Without readers it ends at once.
 *
 * That it is to be told is part of the commit, so that no death can come between the two: a
 * generation that the directory was never told of would be found there for ever. A GONE slot whose
 * effect is queued does not become a tombstone yet. A landing copy has no effect: the directory
 * knows nothing of copies. */
void sample_retire(struct store *store, uint32_t index, enum store_reason reason, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    bool landing = sample_flag(sample, WORD_LANDING);
    samples_leave_age_list(store, index);
    if (!landing)
        list_append(store, &store->samples, SAMPLE_AGE, &store->retired, index);
    sample_commit(store, index, STORE_RETIRED, reason, now_ns);
    samples_leave_name(store, index, STORE_RESIDENT);
    if (!landing) {
        store->kept.frees++;
        effect_sample_retired(store, index);
    }
    if (!sample->lease_count)
        sample_end(store, index, reason, now_ns);
}

/* Cached copies that nobody reads make room, the one that has been idle for longest first, but only
 * if all of them together can make enough: evicting copies for a landing that has to wait in any
 * case would help nobody. Pieces of specs are not freed by bytes, so that lack of them evicts
 * nothing. */
enum store_result sample_new_landing(struct store *store, const struct sample_request *request,
                                     uint64_t now_ns, uint32_t *index_out,
                                     struct store_refusal *refusal) {
    if (sample_by_generation(store, request->generation) != NONE) {
        const struct sample_slot *there =
            sample_at(store, sample_by_generation(store, request->generation));
        enum store_state state = sample_state(there);
        if (!sample_flag(there, WORD_LANDING) || state == STORE_PLANNED || state == STORE_RESIDENT)
            return STORE_E_EXISTS;
    }
    for (;;) {
        enum store_result result = sample_new(store, request, now_ns, index_out, refusal);
        uint64_t used = store->landing_bytes - store->idle_bytes;
        bool worth = store->idle.head != NONE &&
                     request->extent_bytes <= store->options.landing_bytes - used;
        if (result != STORE_E_FULL || refusal->cause == STORE_CAUSE_SPECS || !worth)
            return result;
        sample_retire(store, store->idle.head, STORE_UNCACHED, now_ns);
    }
}
