/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases: the right of one holder to read one generation.
 *
 *   FREE --grant--> LIVE --release, or the holder's end--> ENDED --oldest of too many--> FREE
 *
 * A token is the slot's number (32 bits) and 96 bits of SipHash-128 over (slot, running number)
 * under the store's secret key. So a lease is found without a hash table, and a token cannot be
 * guessed from tokens that one has seen.
 *
 * An ended lease stays as a tombstone, so that a `consumed` that arrives late, for a lease that
 * ended as returned, still counts, and counts once. Beyond leases_max_ended the oldest tombstones
 * are freed. A lease whose LEASE_ENDED effect has not been pulled is in neither list, and counts
 * against max_leases: its slot is not free yet.
 *
 * Who may be freed by the end of a lease is decided in lease_reader_left(), for all ways in which a
 * lease ends.
 */
#include <sodium.h>
#include <string.h>

#include "store/store_internal.h"

/* May this holder have one more? Asked before lease_grant(), which only knows the limit of the
 * store. */
enum store_result lease_check(const struct store *store, uint32_t holder,
                              struct store_refusal *refusal) {
    struct charge_refusal full;
    if (account_has_room(holder_at(store, holder)->account, CHARGE_LEASES, 1, &full))
        return STORE_OK;
    return refuse_account(refusal, STORE_CAUSE_SESSION_LEASES, &full);
}

/* The running number makes each use of a slot have another token: an old token never fits a new
 * lease. */
static void lease_make_token(struct store *store, uint32_t index, struct lease_slot *lease) {
    uint64_t input[2] = {index, ++store->kept.token_count}, hash[2];
    crypto_shorthash_siphashx24((unsigned char *)hash, (const unsigned char *)input, sizeof input,
                                store->key);
    lease->hi = (hash[0] & ~0xffffffffull) | index;
    lease->lo = hash[1];
}

/* NONE: the store has as many leases as it may have. The word is committed last: before that the
 * slot is still FREE to whoever looks at it.
 *
 * A landing copy that nobody reads is in the list of idle copies, from which landing takes room.
 * With its first lease it leaves that list. */
uint32_t lease_grant(struct store *store, uint32_t sample_index, uint32_t holder, uint64_t cookie,
                     uint64_t unheard, uint64_t now_ns) {
    if (store->leases.used - store->ended_count >= store->options.max_leases)
        return NONE;
    uint32_t index = pool_take(store, &store->leases);
    struct sample_slot *sample = sample_at(store, sample_index);
    struct lease_slot *lease = lease_at(store, index);
    *lease = (struct lease_slot){.generation = sample->generation,
                                 .cookie = cookie,
                                 .since_ns = now_ns,
                                 .orders = {order_next(store)},
                                 .sample = sample_index,
                                 .sample_use = word_use(&sample->word),
                                 .holder = holder};
    lease_make_token(store, index, lease);
    bool first = !sample->lease_count++;
    if (!sample->read && !sample_flag(sample, WORD_LANDING))
        histogram_add_span(&store->lives.first_get, sample_stamp(sample)->since_ns, now_ns);
    sample->read = true;
    if (first && !sample_flag(sample, WORD_LANDING))
        store->leased_bytes += sample->extent_bytes;
    if (first && sample_flag(sample, WORD_LANDING)) {
        list_remove(store, &store->samples, SAMPLE_AGE, &store->idle, sample_index);
        store->idle_bytes -= sample->extent_bytes;
    }
    list_append(store, &store->leases, LEASE_BY_SAMPLE, &sample->leases, index);
    list_append(store, &store->leases, LEASE_BY_HOLDER, &holder_at(store, holder)->leases, index);
    holder_at(store, holder)->lease_count++;
    account_add(holder_at(store, holder)->account, CHARGE_LEASES, 1);
    store->lease_count++;
    store->kept.gets++;
    word_commit(&lease->word, LEASE_LIVE, STORE_RETURNED, 0, unheard);
    return index;
}

void lease_describe(const struct store *store, uint32_t index, struct store_lease *out) {
    const struct lease_slot *lease = lease_at(store, index);
    const struct sample_slot *sample = sample_at(store, lease->sample);
    *out = (struct store_lease){.hi = lease->hi,
                                .lo = lease->lo,
                                .generation = lease->generation,
                                .place = sample_place(sample),
                                .slot = lease->sample};
}

/* Makes a tombstone of an ended lease, and frees the oldest one if there are too many. by_holder is
 * free to be used for this list, because the lease has left its holder. */
void lease_bury(struct store *store, uint32_t index) {
    list_append(store, &store->leases, LEASE_BY_HOLDER, &store->ended, index);
    if (++store->ended_count <= store->leases_max_ended)
        return;
    uint32_t oldest = store->ended.head;
    list_remove(store, &store->leases, LEASE_BY_HOLDER, &store->ended, oldest);
    store->ended_count--;
    word_commit(&lease_at(store, oldest)->word, LEASE_FREE, 0, 0, 0);
    pool_give(store, &store->leases, oldest);
}

/* The youngest of the ended ones from now on, with nothing left to tell; committed at once. */
void lease_told(struct store *store, uint32_t index) {
    struct lease_slot *lease = lease_at(store, index);
    uint64_t next = lease_stamp(store, lease);
    word_set(&lease->word, (word_load(&lease->word) & ~(WORD_STAMP | WORD_TELL)) | next);
    lease_bury(store, index);
}

/* What the end of a lease, or a late `consumed`, means for the generation that it was on. While
 * others read it, nothing. After the last one:
 *   RETIRED: it only waited for its readers, its bytes are free now.
 *   RESIDENT landing copy, not cached: it was here for its readers alone.
 *   RESIDENT at home, policy on-release: it is retired if enough readers have consumed it.
 *   RESIDENT otherwise: it stays, for other readers, for an ack, or as a cache. */
void lease_reader_left(struct store *store, uint32_t index, uint64_t now_ns) {
    struct sample_slot *sample = sample_at(store, index);
    if (sample->lease_count)
        return;
    bool landing = sample_flag(sample, WORD_LANDING);
    if (sample_state(sample) == STORE_RETIRED)
        sample_end(store, index, sample_reason(sample), now_ns);
    else if (sample_state(sample) != STORE_RESIDENT)
        return;
    else if (landing && !sample_flag(sample, WORD_CACHED))
        sample_retire(store, index, STORE_UNCACHED, now_ns);
    else if (!landing && store->options.policy == STORE_ON_RELEASE &&
             sample->consumed >= store->options.readers)
        sample_retire(store, index, STORE_CONSUMED, now_ns);
}

/* The end of a lease, and what is still to be done because of it: `tell`, an effect for its owner;
 * the count of readers that have consumed; perhaps the end of the sample. One store commits the end
 * together with a note of all that (flags), so that attach finishes it and nothing counts twice:
 *   WORD_TELL     the effect is to be pulled; pulling takes the flag away
 *   WORD_ENDING   the count and lease_reader_left() are not done yet (lease_worked_off() ends that)
 *   WORD_COUNT    the lowest bit of the count that includes this reader. The count has been raised
 *                 if its lowest bit is the same, else attach raises it.
 * Returns with the count raised. */
static void lease_commit_end(struct store *store, struct lease_slot *lease, enum store_how how,
                             bool tell, bool counts) {
    struct sample_slot *sample = sample_at(store, lease->sample);
    uint64_t set = counts ? WORD_ENDING : 0, kept = WORD_TELL;
    bool consumed = counts && how == STORE_CONSUMED_BY_READER;
    bool queued = word_load(&lease->word) & WORD_TELL;
    if (consumed && !(sample->consumed & 1))
        set |= WORD_COUNT;
    if (tell && !queued)
        set |= WORD_TELL;
    if (lease_state(lease) == LEASE_LIVE || (tell && !queued))
        set |= lease_stamp(store, lease);
    else
        kept |= WORD_STAMP; /* it stays where it is, in the queue or among the ended ones */
    word_commit(&lease->word, LEASE_ENDED, how, kept, set);
    sample->consumed += consumed;
}

static void lease_worked_off(struct lease_slot *lease) {
    word_unflag(&lease->word, WORD_ENDING | WORD_COUNT);
}

/* tell: put the effect into the queue, if the owner gave a cookie. A grant that is undone before
 * anybody heard of it is not told.
 *
 * Counters, lists and the word are brought up to date before lease_reader_left(), which may free
 * the sample: whatever is freed must look as if nobody had ever read it. The place of an idle copy
 * among the others is stored before the word: while it is leased the place means nothing. */
void lease_end(struct store *store, uint32_t index, enum store_how how, bool tell,
               uint64_t now_ns) {
    struct lease_slot *lease = lease_at(store, index);
    struct sample_slot *sample = sample_at(store, lease->sample);
    struct holder_slot *holder = holder_at(store, lease->holder);
    list_remove(store, &store->leases, LEASE_BY_SAMPLE, &sample->leases, index);
    list_remove(store, &store->leases, LEASE_BY_HOLDER, &holder->leases, index);
    holder->lease_count--;
    account_release(holder->account, CHARGE_LEASES, 1);
    store->lease_count--;
    bool last = !--sample->lease_count, landing = sample_flag(sample, WORD_LANDING);
    bool idle = last && landing && sample_state(sample) == STORE_RESIDENT;
    if (last && !landing)
        store->leased_bytes -= sample->extent_bytes;
    if (idle) {
        sample_to_end(store, lease->sample, 0);
        list_append(store, &store->samples, SAMPLE_AGE, &store->idle, lease->sample);
        store->idle_bytes += sample->extent_bytes;
    }
    tell = tell && lease->cookie;
    lease_commit_end(store, lease, how, tell, true);
    if (tell)
        effect_lease_ended(store, index);
    lease_reader_left(store, lease->sample, now_ns);
    lease_worked_off(lease);
    if (!tell)
        lease_bury(store, index);
}

/* One comparison of all bits, so that the time that it takes tells nothing about how much of a
 * guess was right. The slot number needs no such care: everybody knows how many leases there can
 * be. */
uint32_t lease_find(const struct store *store, uint64_t hi, uint64_t lo) {
    uint32_t index = (uint32_t)hi;
    if (index >= store->leases.touched)
        return NONE;
    const struct lease_slot *lease = lease_at(store, index);
    /* One comparison, so that its time tells nothing about how much of a guess was right. */
    if (((lease->hi ^ hi) | (lease->lo ^ lo)) || lease_state(lease) == LEASE_FREE)
        return NONE;
    return index;
}

/* Said a second time it does not count again, for the word says so. An effect that has not been
 * pulled yet reads the word when it is, and will say consumed; else the owner, who was told
 * `returned`, is told once more. The sample may be gone or its
 * slot used by another generation by now; then the fact changes nothing here, but the owner of the
 * lease (another node's broker) is still told. */
void lease_late_consumed(struct store *store, uint32_t index, uint64_t now_ns) {
    struct lease_slot *lease = lease_at(store, index);
    struct sample_slot *sample = sample_at(store, lease->sample);
    if (lease_how(lease) == STORE_CONSUMED_BY_READER)
        return;
    bool counts =
        word_use(&sample->word) == lease->sample_use && sample_state(sample) == STORE_RESIDENT;
    bool again = lease->cookie && !(word_load(&lease->word) & WORD_TELL);
    if (again) {
        list_remove(store, &store->leases, LEASE_BY_HOLDER, &store->ended, index);
        store->ended_count--;
    }
    lease_commit_end(store, lease, STORE_CONSUMED_BY_READER, lease->cookie, counts);
    if (again)
        effect_lease_ended(store, index);
    if (counts)
        lease_reader_left(store, lease->sample, now_ns);
    lease_worked_off(lease);
}
