/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases: the right of one holder to read one generation. A token is the slot's number and 96 bits
 * of SipHash-128 over (slot, running number) under the store's secret key: found without a hash
 * table, and not to be guessed from earlier ones. An ended lease stays as a tombstone, so that a
 * late `consumed` for one that ended as returned counts, once; the oldest tombstones are freed
 * beyond leases_max_ended. One whose LEASE_ENDED effect waits still counts against max_leases.
 */
#include <sodium.h>
#include <string.h>

#include "store/store_internal.h"

enum store_result lease_check(const struct store *store, uint32_t holder,
                              struct store_refusal *refusal) {
    struct charge_refusal full;
    if (account_has_room(holder_at(store, holder)->account, CHARGE_LEASES, 1, &full))
        return STORE_OK;
    return refuse_account(refusal, STORE_CAUSE_SESSION_LEASES, &full);
}

static void lease_make_token(struct store *store, uint32_t index, struct lease_slot *lease) {
    uint64_t input[2] = {index, ++store->token_count}, hash[2];
    crypto_shorthash_siphashx24((unsigned char *)hash, (const unsigned char *)input, sizeof input,
                                store->key);
    lease->hi = (hash[0] & ~0xffffffffull) | index;
    lease->lo = hash[1];
}

uint32_t lease_grant(struct store *store, uint32_t sample_index, uint32_t holder, uint64_t cookie,
                     uint64_t now_ns) {
    if (store->leases.used - store->ended_count >= store->options.max_leases)
        return NONE;
    uint32_t index = pool_take(store, &store->leases);
    struct sample_slot *sample = sample_at(store, sample_index);
    struct lease_slot *lease = lease_at(store, index);
    *lease = (struct lease_slot){.generation = sample->generation,
                                 .cookie = cookie,
                                 .since_ns = now_ns,
                                 .sample = sample_index,
                                 .sample_use = word_use(&sample->word),
                                 .holder = holder};
    lease_make_token(store, index, lease);
    bool first = !sample->lease_count++;
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
    store->gets++;
    word_commit(&lease->word, LEASE_LIVE, STORE_RETURNED);
    return index;
}

void lease_describe(const struct store *store, uint32_t index, struct store_lease *out) {
    const struct lease_slot *lease = lease_at(store, index);
    const struct sample_slot *sample = sample_at(store, lease->sample);
    *out = (struct store_lease){.hi = lease->hi,
                                .lo = lease->lo,
                                .generation = lease->generation,
                                .extent_offset = sample->extent_offset,
                                .extent_bytes = sample->extent_bytes,
                                .slot = lease->sample};
}

void lease_bury(struct store *store, uint32_t index) {
    list_append(store, &store->leases, LEASE_BY_HOLDER, &store->ended, index);
    if (++store->ended_count <= store->leases_max_ended)
        return;
    uint32_t oldest = store->ended.head;
    list_remove(store, &store->leases, LEASE_BY_HOLDER, &store->ended, oldest);
    store->ended_count--;
    word_commit(&lease_at(store, oldest)->word, LEASE_FREE, 0);
    pool_give(store, &store->leases, oldest);
}

static void lease_tell_ended(struct store *store, uint32_t index) {
    lease_at(store, index)->effect_queued = true;
    effect_lease_ended(store, index);
}

/* An ended lease whose owner was told `returned` has to be told again. */
static void lease_tell_again(struct store *store, uint32_t index) {
    if (lease_at(store, index)->effect_queued)
        return; /* not told yet: the one effect will say consumed */
    list_remove(store, &store->leases, LEASE_BY_HOLDER, &store->ended, index);
    store->ended_count--;
    lease_tell_ended(store, index);
}

/* What the end of a lease, or a late `consumed`, means for the generation it was on. */
static void lease_reader_left(struct store *store, uint32_t index, uint64_t now_ns) {
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
    word_commit(&lease->word, LEASE_ENDED, how);
    sample->consumed += how == STORE_CONSUMED_BY_READER;
    bool last = !--sample->lease_count, landing = sample_flag(sample, WORD_LANDING);
    bool idle = last && landing && sample_state(sample) == STORE_RESIDENT;
    if (last && !landing)
        store->leased_bytes -= sample->extent_bytes;
    if (idle) {
        list_append(store, &store->samples, SAMPLE_AGE, &store->idle, lease->sample);
        store->idle_bytes += sample->extent_bytes;
    }
    uint32_t sample_index = lease->sample;
    if (tell && lease->cookie)
        lease_tell_ended(store, index);
    else
        lease_bury(store, index);
    lease_reader_left(store, sample_index, now_ns);
}

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

void lease_late_consumed(struct store *store, uint32_t index, uint64_t now_ns) {
    struct lease_slot *lease = lease_at(store, index);
    struct sample_slot *sample = sample_at(store, lease->sample);
    if (lease_how(lease) == STORE_CONSUMED_BY_READER)
        return;
    word_commit(&lease->word, LEASE_ENDED, STORE_CONSUMED_BY_READER);
    if (lease->cookie)
        lease_tell_again(store, index);
    if (word_use(&sample->word) != lease->sample_use || sample_state(sample) != STORE_RESIDENT)
        return;
    sample->consumed++;
    lease_reader_left(store, lease->sample, now_ns);
}
