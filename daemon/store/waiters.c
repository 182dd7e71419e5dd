/* SPDX-License-Identifier: Apache-2.0
 *
 * Those who wait: puts and landings for room, in lines (the rule is in store.h, store_reserve()),
 * and gets for something to become readable.
 *
 *   queued --answered--> ready --pulled--> free
 *      \------forgotten-----\-------------^
 *
 * Queued: in its queue, and in the heap of deadlines unless it waits for ever. Ready: in the queue
 * of effects, its answer inside; what it was granted is taken from that moment on, and is given
 * back if the waiter is forgotten before anybody heard of it.
 *
 * Gets by id queue at their name, gets by generation in a hash table of queues: publishing looks at
 * no other waiter. The heap is a binary one of waiter indices, earliest deadline first; each waiter
 * knows its place in it, so that one that is answered is taken out in O(log n).
 *
 * Nothing here runs by itself. store_settle() serves the lines; every function of the store that
 * may have freed something calls it as the last thing that it does, and pull.c calls it with each
 * pull.
 */
#include "store/store_internal.h"

static uint32_t *waiters_heap_of(const struct store *store) {
    return u32_at(store, store->heap);
}

/* ---- deadlines ---- */
/* Of two with the same deadline the older one goes first, so that the order of answers does not
 * depend on the shape of the heap. The simulator replays histories and needs that. */
static bool waiters_earlier(const struct store *store, uint32_t a, uint32_t b) {
    const struct waiter_slot *wa = waiter_at(store, a), *wb = waiter_at(store, b);
    if (wa->deadline_ns != wb->deadline_ns)
        return wa->deadline_ns < wb->deadline_ns;
    return wa->sequence < wb->sequence;
}

static void waiters_heap_set(struct store *store, uint32_t at, uint32_t waiter) {
    waiters_heap_of(store)[at] = waiter;
    waiter_at(store, waiter)->heap_at = at;
}

/* Puts `waiter` in at place `at`, moving down those on the way to the root whose deadlines are
 * later. */
static void waiters_heap_up(struct store *store, uint32_t at, uint32_t waiter) {
    while (at && waiters_earlier(store, waiter, waiters_heap_of(store)[(at - 1) / 2])) {
        waiters_heap_set(store, at, waiters_heap_of(store)[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    waiters_heap_set(store, at, waiter);
}

/* Puts `waiter` in at place `at`, moving up those below it whose deadlines are earlier. */
static void waiters_heap_down(struct store *store, uint32_t at, uint32_t waiter) {
    const uint32_t *heap = waiters_heap_of(store);
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < store->heap_count && waiters_earlier(store, heap[child + 1], heap[child]))
            child++;
        if (child >= store->heap_count || !waiters_earlier(store, heap[child], waiter))
            break;
        waiters_heap_set(store, at, heap[child]);
        at = child;
    }
    waiters_heap_set(store, at, waiter);
}

/* The last one of the heap fills the hole. It may belong above or below it: it can come from
 * another branch. */
static void waiters_heap_remove(struct store *store, uint32_t waiter) {
    uint32_t at = waiter_at(store, waiter)->heap_at;
    if (at == NONE)
        return;
    waiter_at(store, waiter)->heap_at = NONE;
    uint32_t last = waiters_heap_of(store)[--store->heap_count];
    if (last == waiter)
        return;
    waiters_heap_up(store, at, last);
    waiters_heap_down(store, waiter_at(store, last)->heap_at, last);
}

uint64_t waiters_deadline_ns(const struct store *store) {
    return store->heap_count ? waiter_at(store, waiters_heap_of(store)[0])->deadline_ns
                             : UINT64_MAX;
}

/* ---- queues ---- */
/* Waits for different generations can share a bucket; waiters_next_by_generation() tells them
 * apart. */
static struct list *waiters_bucket_of(const struct store *store, uint64_t generation) {
    struct list *buckets = store_at(store, store->waiter_hash);
    return &buckets[hash_u64(store, generation) & store->waiter_mask];
}

static struct list *waiters_queue_of(const struct store *store, const struct waiter_slot *waiter) {
    switch (waiter->kind) {
    case WAITER_PUT:
        return (struct list *)&store->put_line.queue;
    case WAITER_LAND:
        return (struct list *)&store->land_line.queue;
    case WAITER_GET_ID:
        return &name_at(store, waiter->name)->waiters;
    default:
        return waiters_bucket_of(store, waiter->generation);
    }
}

/* charge: account_add or account_release. A wait is charged like what it waits for: a put as a
 * reservation and its bytes, a get as a lease. So a holder cannot wait for more than it may have.
 */
static void waiters_charge_with(struct store *store, const struct waiter_slot *waiter,
                                void (*charge)(struct account *account, enum charge charge,
                                               uint64_t count)) {
    struct account *account = holder_at(store, waiter->holder)->account;
    if (waiter->kind == WAITER_PUT) {
        charge(account, CHARGE_RESERVATIONS, 1);
        charge(account, CHARGE_QUEUED_BYTES, waiter->extent_bytes);
    } else {
        charge(account, CHARGE_LEASES, 1);
    }
}

static uint64_t *waiters_counter_of(struct store *store, const struct waiter_slot *waiter) {
    return waiter->kind == WAITER_LAND  ? &store->land_waiters
           : waiter->kind == WAITER_PUT ? &store->put_waiters
                                        : &store->get_waiters;
}

enum store_result waiter_check(const struct store *store, struct store_refusal *refusal) {
    if (pool_left(&store->waiters))
        return STORE_OK;
    return refuse(refusal, STORE_E_FULL, STORE_CAUSE_WAITERS, store->options.max_waiters,
                  store->waiters.used, 1);
}

/* The caller has checked that there is a free slot (waiter_check()), so that this cannot fail. */
uint32_t waiter_new(struct store *store, enum waiter_kind kind, uint32_t holder, uint64_t tag,
                    uint64_t deadline_ns) {
    uint32_t index = pool_take(store, &store->waiters);
    *waiter_at(store, index) = (struct waiter_slot){.kind = kind,
                                                    .holder = holder,
                                                    .heap_at = NONE,
                                                    .name = NONE,
                                                    .chunk = NONE,
                                                    .tag = tag,
                                                    .deadline_ns = deadline_ns,
                                                    .sequence = ++store->waiter_count};
    return index;
}

/* Name and spec are copied now: the caller's memory is gone when the waiter's turn comes. When it
 * is granted room they are handed over to the sample as they are, so that no piece has to be found
 * then. */
enum store_result waiter_for_room(struct store *store, enum waiter_kind kind, uint32_t holder,
                                  const struct store_put *put, struct store_refusal *refusal,
                                  uint32_t *index_out) {
    uint32_t chunks = spec_chunks(put->spec_bytes, put->tensor_count);
    enum store_result result = waiter_check(store, refusal);
    if (result)
        return result;
    if (chunks > pool_left(&store->chunks))
        return refuse(refusal, STORE_E_FULL, STORE_CAUSE_SPECS, store->chunks.capacity,
                      store->chunks.used, chunks);
    *index_out = waiter_new(store, kind, holder, put->tag, put->deadline_ns);
    struct waiter_slot *waiter = waiter_at(store, *index_out);
    waiter->name = name_ref(store, put->sample_id, put->sample_id_bytes);
    waiter->chunk = spec_store(store, put->spec, put->spec_bytes, put->tensor_count);
    waiter->spec_bytes = put->spec_bytes;
    waiter->tensor_count = put->tensor_count;
    waiter->extent_bytes = extent_round(put->extent_bytes);
    waiter->align_bytes = put->align_bytes;
    waiter->refusal = *refusal;
    return STORE_OK;
}

/* Notes who is first now, and since when: that decides for how long others may pass (max_pass_ns).
 * The sequence number tells a new first one from the old one, even in the same slot. */
static void waiters_line_note_head(struct store *store, struct line *line, uint64_t now_ns) {
    uint32_t head = line->queue.head;
    uint64_t sequence = head == NONE ? 0 : waiter_at(store, head)->sequence;
    if (sequence == line->head_sequence)
        return;
    line->head_sequence = sequence;
    line->head_since_ns = now_ns;
}

/* One with a deadline of UINT64_MAX is in no heap: it waits for ever, that is until its transfer
 * ends. */
void waiter_enqueue(struct store *store, uint32_t index, uint64_t now_ns) {
    struct waiter_slot *waiter = waiter_at(store, index);
    list_append(store, &store->waiters, WAITER_QUEUE, waiters_queue_of(store, waiter), index);
    if (waiter->holder != STORE_NO_HOLDER)
        list_append(store, &store->waiters, WAITER_BY_HOLDER,
                    &holder_at(store, waiter->holder)->waiters, index);
    ++*waiters_counter_of(store, waiter);
    if (waiter->kind != WAITER_LAND) /* the broker's own: no holder's limits */
        waiters_charge_with(store, waiter, account_add);
    waiters_line_note_head(store, &store->put_line, now_ns);
    waiters_line_note_head(store, &store->land_line, now_ns);
    if (waiter->deadline_ns == UINT64_MAX)
        return;
    waiters_heap_up(store, store->heap_count++, index);
}

static void waiters_leave_queue(struct store *store, uint32_t index) {
    struct waiter_slot *waiter = waiter_at(store, index);
    list_remove(store, &store->waiters, WAITER_QUEUE, waiters_queue_of(store, waiter), index);
    waiters_heap_remove(store, index);
    --*waiters_counter_of(store, waiter);
    if (waiter->kind != WAITER_LAND)
        waiters_charge_with(store, waiter, account_release);
}

/* The charges of the wait are released here; what it was granted has been charged by whoever
 * granted it. */
void waiter_answer(struct store *store, uint32_t index, enum store_result result) {
    struct waiter_slot *waiter = waiter_at(store, index);
    waiters_leave_queue(store, index);
    waiter->ready = true;
    waiter->result = result;
    effect_waiter(store, index);
}

void waiter_free(struct store *store, uint32_t index) {
    struct waiter_slot *waiter = waiter_at(store, index);
    if (waiter->holder != STORE_NO_HOLDER)
        list_remove(store, &store->waiters, WAITER_BY_HOLDER,
                    &holder_at(store, waiter->holder)->waiters, index);
    spec_free(store, waiter->chunk);
    if (waiter->name != NONE)
        name_unref(store, waiter->name);
    waiter->kind = WAITER_FREE;
    pool_give(store, &store->waiters, index);
}

/* An answer that nobody has heard never was: the lease is no lease, the room is free again. A
 * reservation may be gone already, and its slot in use by another generation; the token tells. */
static void waiters_undo_grant(struct store *store, const struct waiter_slot *waiter,
                               enum store_reason reason, uint64_t now_ns) {
    if (waiter->result != STORE_OK)
        return;
    if (waiter->kind == WAITER_GET_ID || waiter->kind == WAITER_GET_GENERATION) {
        lease_end(store, waiter->granted, STORE_RETURNED, false, now_ns);
        return;
    }
    const struct sample_slot *sample = sample_at(store, waiter->granted);
    if (sample_state(sample) == STORE_PLANNED &&
        sample_token(store, waiter->granted) == waiter->token)
        sample_end(store, waiter->granted, reason, now_ns);
}

/* Its holder has left, or does not want it any more. */
void waiter_forget(struct store *store, uint32_t index, enum store_reason reason, uint64_t now_ns) {
    struct waiter_slot *waiter = waiter_at(store, index);
    if (waiter->ready) {
        effect_forget_waiter(store, index);
        waiters_undo_grant(store, waiter, reason, now_ns);
    } else {
        waiters_leave_queue(store, index);
    }
    waiter_free(store, index);
}

/* ---- room ---- */
static void waiters_request_of(const struct waiter_slot *waiter, struct sample_request *request) {
    *request = (struct sample_request){.name = waiter->name,
                                       .chunk = waiter->chunk,
                                       .spec_bytes = waiter->spec_bytes,
                                       .tensor_count = waiter->tensor_count,
                                       .extent_bytes = waiter->extent_bytes,
                                       .align_bytes = waiter->align_bytes,
                                       .landing = waiter->kind == WAITER_LAND,
                                       .waited = true,
                                       .holder = waiter->holder,
                                       .generation = waiter->generation,
                                       .origin = waiter->origin};
}

/* False: still no room, and the refusal says why. Any other outcome is an answer, also that a
 * landing copy of this generation is there by now. */
static bool waiters_try_room(struct store *store, uint32_t index, uint64_t now_ns) {
    struct waiter_slot *waiter = waiter_at(store, index);
    struct sample_request request;
    waiters_request_of(waiter, &request);
    uint32_t sample;
    enum store_result result =
        request.landing ? sample_new_landing(store, &request, now_ns, &sample, &waiter->refusal)
                        : sample_new(store, &request, now_ns, &sample, &waiter->refusal);
    if (result == STORE_E_FULL)
        return false;
    if (result == STORE_OK) {
        waiter->chunk = waiter->name = NONE; /* the sample has them now */
        waiter->granted = sample;
        waiter->token = sample_token(store, sample);
        waiter->refusal = (struct store_refusal){0};
    }
    waiter_answer(store, index, result);
    return true;
}

static bool waiters_line_is_open(const struct store *store, const struct line *line,
                                 uint64_t now_ns) {
    return now_ns - line->head_since_ns < store->options.max_pass_ns;
}

/* Passing is for a while only. A large put at the head would otherwise wait for ever behind a
 * stream of small ones that always fit. */
bool line_lets_pass(const struct store *store, const struct line *line, uint64_t waiters,
                    uint64_t now_ns) {
    return waiters <= STORE_LOOK_MAX && waiters_line_is_open(store, line, now_ns);
}

/* The head cannot be served: those behind it that fit take what is there, in their order. Only the
 * first STORE_LOOK_MAX are tried, so that a long line does not make each release expensive. */
static void waiters_line_pass(struct store *store, const struct line *line, uint64_t now_ns) {
    uint32_t at = waiter_at(store, line->queue.head)->queue.next;
    for (uint32_t looked = 1; at != NONE && looked < STORE_LOOK_MAX; looked++) {
        uint32_t next = waiter_at(store, at)->queue.next;
        waiters_try_room(store, at, now_ns);
        at = next;
    }
}

/* First the head, as long as there is one that can be served; each time one leaves, the next one
 * becomes the head, and its time there begins. */
static void waiters_line_serve(struct store *store, struct line *line, uint64_t now_ns) {
    for (;;) {
        uint32_t next = line->queue.head;
        waiters_line_note_head(store, line, now_ns);
        if (next == NONE)
            return;
        if (!waiters_try_room(store, next, now_ns))
            break;
    }
    if (waiters_line_is_open(store, line, now_ns))
        waiters_line_pass(store, line, now_ns);
}

/* Serves both lines until a second look at them would change nothing. A put that is served only
 * takes room, but a landing can help others in two ways, hence the loop:
 *   - it is of the same generation as one that stands before it and did not fit. That one is
 *     answered EXISTS now: the copy that it waited to make is on its way. Without a second look it
 *     would stay in the line, and keep others from passing, until the next call.
 *   - it evicted idle copies, and with their bytes went their slots, which a put may wait for. This
 *     counts even if the landing still did not fit.
 * Each round but the last answers a landing or evicts a copy, so there is a last one. */
void store_settle(struct store *store, uint64_t now_ns) {
    uint64_t landings, idle_bytes;
    store->now_ns = now_ns;
    do {
        waiters_line_serve(store, &store->put_line, now_ns);
        landings = store->land_waiters;
        idle_bytes = store->idle_bytes;
        waiters_line_serve(store, &store->land_line, now_ns);
    } while (store->land_waiters != landings || store->idle_bytes != idle_bytes);
}

/* A put that runs out of time learns why there was no room: what the store lacked if it was first
 * in its line, and otherwise that it stood behind others. A get was merely waiting. */
static void waiters_expire_one(struct store *store, uint32_t index) {
    struct waiter_slot *waiter = waiter_at(store, index);
    bool room = waiter->kind == WAITER_PUT || waiter->kind == WAITER_LAND;
    if (room && waiters_queue_of(store, waiter)->head != index)
        refuse(&waiter->refusal, STORE_E_FULL, STORE_CAUSE_QUEUE, store->options.max_waiters,
               waiter->kind == WAITER_PUT ? store->put_waiters : store->land_waiters, 1);
    waiter_answer(store, index, room ? STORE_E_FULL : STORE_E_TIMEOUT);
}

/* At most EXPIRE_BUDGET; the deadline stays in the past, so that the caller pulls again for the
 * rest. The caller has settled just before, and settles again: those behind the expired ones may
 * fit. */
void waiters_expire(struct store *store, uint64_t now_ns) {
    for (uint32_t i = 0; i < EXPIRE_BUDGET && waiters_deadline_ns(store) <= now_ns; i++)
        waiters_expire_one(store, waiters_heap_of(store)[0]);
}

/* ---- readable ---- */
static uint32_t waiters_next_by_generation(const struct store *store, uint32_t at,
                                           uint64_t generation) {
    while (at != NONE && waiter_at(store, at)->generation != generation)
        at = waiter_at(store, at)->queue.next;
    return at;
}

/* A store at its limit of leases answers FULL: the sample is there, but the waiter cannot have it
 * now. */
static void waiters_wake_some(struct store *store, uint32_t index, uint32_t sample,
                              uint64_t now_ns) {
    struct waiter_slot *waiter = waiter_at(store, index);
    if (sample == NONE) {
        waiter_answer(store, index, STORE_E_NOT_FOUND);
        return;
    }
    waiter->granted =
        lease_grant(store, sample, waiter->holder, waiter->cookie, WORD_UNHEARD, now_ns);
    if (waiter->granted == NONE)
        refuse(&waiter->refusal, STORE_E_FULL, STORE_CAUSE_LEASES, store->options.max_leases,
               store->leases.used - store->ended_count, 1);
    waiter_answer(store, index, waiter->granted == NONE ? STORE_E_FULL : STORE_OK);
}

/* Waits by generation and by id are two queues for the same sample. They are merged by sequence, so
 * that who asked first is served first, whichever way it asked. */
void waiters_wake(struct store *store, uint64_t generation, uint32_t name, uint32_t sample,
                  uint64_t now_ns) {
    if (!store->waiters.used)
        return;
    struct list *bucket = waiters_bucket_of(store, generation);
    for (;;) {
        uint32_t a = waiters_next_by_generation(store, bucket->head, generation);
        uint32_t b = name == NONE ? NONE : name_at(store, name)->waiters.head;
        if (a == NONE && b == NONE)
            return;
        bool by_generation = b == NONE || (a != NONE && waiter_at(store, a)->sequence <
                                                            waiter_at(store, b)->sequence);
        waiters_wake_some(store, by_generation ? a : b, sample, now_ns);
    }
}

void waiters_fail_all(struct store *store) {
    for (uint32_t i = 0; i < store->waiters.touched; i++) {
        struct waiter_slot *waiter = waiter_at(store, i);
        if (waiter->kind != WAITER_FREE && !waiter->ready)
            waiter_answer(store, i, STORE_E_NOT_FOUND);
    }
}

/* A landing has no holder; it is looked for in its line, which has few. */
bool store_cancel_wait(struct store *store, uint32_t holder, uint64_t tag) {
    uint32_t at = holder == STORE_NO_HOLDER ? store->land_line.queue.head
                                            : holder_at(store, holder)->waiters.head;
    while (at != NONE && waiter_at(store, at)->tag != tag)
        at = holder == STORE_NO_HOLDER ? waiter_at(store, at)->queue.next
                                       : waiter_at(store, at)->by_holder.next;
    if (at == NONE)
        return false;
    waiter_forget(store, at, STORE_CANCELLED, store->now_ns);
    store_settle(store, store->now_ns);
    return true;
}
