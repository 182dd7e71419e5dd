/* SPDX-License-Identifier: Apache-2.0
 *
 * Is what a block keeps whole? Asked before store_attach() changes anything in it.
 *
 * A process that dies leaves a block in which some transition may be half done; that is no damage,
 * and all of it passes here. Damage is what no death leaves behind: a segment that was cut short, a
 * file of another program, memory that something wrote into, the layout of another configuration.
 * Such a block is only read, and refused with the first thing found wrong.
 *
 * The derived part is not believed, not even where the tables lie: that follows from the options,
 * which the header must agree with. So nothing here uses the accessors of slots.h. What is believed
 * afterwards: indices are inside their tables, chains of chunks end and share nothing, extents lie
 * inside their regions and apart from each other, no generation and no name is there twice, and
 * what refers to something refers to something that is there.
 *
 * Takes O(slots ever used) time and memory.
 */
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/check.h"

struct check {
    const struct store_header *header;
    const struct sample_slot *samples;
    const struct name_slot *names;
    const struct lease_slot *leases;
    const struct holder_slot *holders;
    const struct chunk *chunks;
    const struct replay_slot *replays;
    const struct store_event *events;
    unsigned char key[16];
    unsigned char *chunk_used; /* one byte for each: some sample's chain leads over it */
    unsigned char *name_used;
    struct keyed *items, *spare;
    char *why;
    size_t why_bytes;
};

/* Writes the sentence that the administrator reads. It goes on from "store NAME: ". */
static bool __attribute__((format(printf, 2, 3)))
check_wrong(struct check *check, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(check->why, check->why_bytes, format, args);
    va_end(args);
    return false;
}

/* ---- the header ---- */
/* What fixes the layout, by the names of struct store_options. */
static bool check_layout(struct check *check, const struct store_options *o) {
    const struct store_header *h = check->header;
    const struct {
        const char *name;
        uint64_t made_with, now;
    } counts[] = {
        {"max_resident_bytes", h->max_resident_bytes, o->max_resident_bytes},
        {"landing_bytes", h->landing_bytes, o->landing_bytes},
        {"max_samples", h->max_samples, o->max_samples},
        {"max_tombstones", h->max_tombstones, o->max_tombstones},
        {"max_leases", h->max_leases, o->max_leases},
        {"max_ended_leases", h->max_ended_leases, o->max_ended_leases},
        {"max_holders", h->max_holders, o->max_holders},
        {"max_waiters", h->max_waiters, o->max_waiters},
        {"max_replays", h->max_replays, o->max_replays},
        {"max_events", h->max_events, o->max_events},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].made_with != counts[i].now)
            return check_wrong(check,
                               "its index was made with %s %llu, the configuration now means %llu: "
                               "start with the old configuration, or drop the store",
                               counts[i].name, (unsigned long long)counts[i].made_with,
                               (unsigned long long)counts[i].now);
    return true;
}

/* The sizes of slots belong to the format; a compiler that lays them out differently is found here
 * and not later. */
static bool check_format(struct check *check) {
    const struct store_header *h = check->header;
    struct store_header own;
    store_describe(&own, &(struct store_options){0}, 0);
    if (h->format_version != STORE_FORMAT_VERSION)
        return check_wrong(
            check,
            "its index has format %u, this featured knows %u: start the version that "
            "made it, or drop the store",
            h->format_version, STORE_FORMAT_VERSION);
    if (h->header_bytes != own.header_bytes ||
        memcmp(&h->sample_slot_bytes, &own.sample_slot_bytes, 8 * sizeof(uint32_t)) != 0)
        return check_wrong(check, "its index has slots of other sizes than this featured makes");
    return true;
}

/* Slots above `touched` are not looked at, so that this number must be right before any of them is.
 */
static bool check_touched(struct check *check, const struct store *layout) {
    const struct pool *pools[POOLS] = {
        [POOL_SAMPLES] = &layout->samples, [POOL_NAMES] = &layout->names,
        [POOL_LEASES] = &layout->leases,   [POOL_HOLDERS] = &layout->holders,
        [POOL_CHUNKS] = &layout->chunks,   [POOL_WAITERS] = &layout->waiters,
    };
    for (size_t i = 0; i < POOLS; i++)
        if (check->header->touched[i] > pools[i]->capacity)
            return check_wrong(check, "its header says that %u slots of table %zu were used, of %u",
                               check->header->touched[i], i, pools[i]->capacity);
    return true;
}

/* The magic comes first and says whether the rest means anything. The layout comes before the
 * sizes, because the sizes follow from it and would name the consequence, not the cause. */
enum store_attached check_header(const void *block, size_t block_bytes,
                                 const struct store_options *options, char *why, size_t why_bytes) {
    struct check check = {.header = block, .why = why, .why_bytes = why_bytes};
    struct store layout = {0};
    if (block_bytes < sizeof *check.header) {
        check_wrong(&check, "its index has %zu bytes, less than a header", block_bytes);
        return STORE_ATTACH_REFUSED;
    }
    uint64_t magic = word_load(&check.header->magic);
    if (!magic) {
        check_wrong(&check, "its index was never finished and holds nothing");
        return STORE_ATTACH_EMPTY;
    }
    if (magic != STORE_MAGIC) {
        check_wrong(&check, "it begins with %016llx, which no index of a store does",
                    (unsigned long long)magic);
        return STORE_ATTACH_REFUSED;
    }
    if (!check_format(&check) || !check_layout(&check, options))
        return STORE_ATTACH_REFUSED;
    uint64_t needed = store_lay_out(&layout, options);
    if (check.header->block_bytes != needed || block_bytes < needed) {
        check_wrong(&check, "its index has %zu bytes and its header says %llu, of %llu",
                    block_bytes, (unsigned long long)check.header->block_bytes,
                    (unsigned long long)needed);
        return STORE_ATTACH_REFUSED;
    }
    return check_touched(&check, &layout) ? STORE_ATTACHED : STORE_ATTACH_REFUSED;
}

/* ---- samples ---- */
/* Exactly as many chunks as the spec and the checksums take, and none that another sample has. */
static bool check_chunks(struct check *check, uint32_t i) {
    const struct sample_slot *s = &check->samples[i];
    uint32_t at = s->chunk, left = spec_chunks(s->spec_bytes, s->tensor_count);
    for (; left; left--) {
        if (at >= check->header->touched[POOL_CHUNKS])
            return check_wrong(check, "the spec of sample slot %u ends %u chunks too early", i,
                               left);
        if (check->chunk_used[at])
            return check_wrong(check, "chunk %u belongs to the specs of two samples", at);
        check->chunk_used[at] = 1;
        at = check->chunks[at].next;
    }
    if (at != NONE)
        return check_wrong(check, "the spec of sample slot %u does not end where it should", i);
    return true;
}

/* The region of a landing copy begins where that of home generations ends. The end of the region is
 * subtracted from, not added to, so that a huge length cannot wrap around. */
static bool check_extent(struct check *check, uint32_t i) {
    const struct sample_slot *s = &check->samples[i];
    const struct store_header *h = check->header;
    bool landing = sample_flag(s, WORD_LANDING);
    uint64_t from = landing ? h->max_resident_bytes : 0;
    uint64_t to = landing ? from + h->landing_bytes : h->max_resident_bytes;
    if (!s->extent_bytes || s->extent_bytes % EXTENT_UNIT_BYTES ||
        s->extent_offset % EXTENT_UNIT_BYTES || s->extent_offset < from || s->extent_offset > to ||
        s->extent_bytes > to - s->extent_offset)
        return check_wrong(
            check, "the bytes of sample slot %u, %llu at %llu, are not in its region", i,
            (unsigned long long)s->extent_bytes, (unsigned long long)s->extent_offset);
    return true;
}

/* What a sample that has bytes must have. */
static bool check_live(struct check *check, uint32_t i) {
    const struct sample_slot *s = &check->samples[i];
    enum store_state state = sample_state(s);
    bool landing = sample_flag(s, WORD_LANDING);
    if (s->spec_bytes > STORE_SPEC_BYTES_MAX || s->tensor_count > STORE_TENSORS_MAX ||
        (s->checksums_bytes && s->checksums_bytes != s->tensor_count * 8))
        return check_wrong(check, "sample slot %u has a spec of impossible sizes", i);
    if (landing && state == STORE_SEALED)
        return check_wrong(check, "sample slot %u is SEALED, which landing copies never are", i);
    if (!s->generation && (landing || state != STORE_PLANNED))
        return check_wrong(check, "sample slot %u has no generation", i);
    if (!landing && state == STORE_PLANNED &&
        (s->holder >= check->header->touched[POOL_HOLDERS] || !check->holders[s->holder].open))
        return check_wrong(check, "sample slot %u is reserved by holder %u, which is not there", i,
                           s->holder);
    return check_extent(check, i) && check_chunks(check, i);
}

/* A GONE slot has neither bytes nor chunks any more; only its state, its name and its order are
 * looked at. */
static bool check_sample(struct check *check, uint32_t i) {
    const struct sample_slot *s = &check->samples[i];
    enum store_state state = sample_state(s);
    if (state == STORE_FREE)
        return true;
    if (state > STORE_GONE || sample_reason(s) > STORE_RESERVE_ENDED)
        return check_wrong(check, "sample slot %u has the word %016llx, which says nothing", i,
                           (unsigned long long)word_load(&s->word));
    if (s->name >= check->header->touched[POOL_NAMES])
        return check_wrong(check, "sample slot %u has name %u, which is not there", i, s->name);
    uint32_t id_bytes = check->names[s->name].id_bytes;
    if (!id_bytes || id_bytes > STORE_ID_BYTES_MAX)
        return check_wrong(check, "name slot %u has an id of %u bytes", s->name, id_bytes);
    check->name_used[s->name] = 1;
    if (sample_stamp(s)->order > check->header->order)
        return check_wrong(check, "sample slot %u comes after everything that happened", i);
    return state == STORE_GONE || check_live(check, i);
}

/* ---- what must be there only once ---- */
/* Home generations and landing copies together: their regions do not overlap either. */
static size_t check_collect_extents(struct check *check) {
    size_t count = 0;
    for (uint32_t i = 0; i < check->header->touched[POOL_SAMPLES]; i++) {
        enum store_state state = sample_state(&check->samples[i]);
        if (state != STORE_FREE && state != STORE_GONE)
            check->items[count++] = (struct keyed){check->samples[i].extent_offset, i};
    }
    return count;
}

/* Sorted by where they begin, each must end before the next one begins. */
static bool check_apart(struct check *check) {
    size_t count = check_collect_extents(check);
    keyed_sort(check->items, check->spare, count);
    for (size_t k = 1; k < count; k++) {
        uint32_t a = check->items[k - 1].index, b = check->items[k].index;
        if (check->samples[a].extent_offset + check->samples[a].extent_bytes >
            check->samples[b].extent_offset)
            return check_wrong(check, "sample slots %u and %u have bytes in common", a, b);
    }
    return true;
}

/* Landing copies of one generation may be there several times, of which the newest is found. A
 * PLANNED one at home has a generation only in the middle of a seal, which attach undoes. */
static bool check_generations(struct check *check) {
    size_t count = 0;
    for (uint32_t i = 0; i < check->header->touched[POOL_SAMPLES]; i++) {
        const struct sample_slot *s = &check->samples[i];
        enum store_state state = sample_state(s);
        if (state != STORE_FREE && state != STORE_PLANNED && s->generation &&
            !sample_flag(s, WORD_LANDING))
            check->items[count++] = (struct keyed){s->generation, i};
    }
    keyed_sort(check->items, check->spare, count);
    for (size_t k = 1; k < count; k++)
        if (check->items[k - 1].key == check->items[k].key)
            return check_wrong(check, "sample slots %u and %u have the same generation %llu",
                               check->items[k - 1].index, check->items[k].index,
                               (unsigned long long)check->items[k].key);
    return true;
}

/* Two slots with one id would each have half of its samples. They are compared only where their
 * hashes agree, so that this stays linear. */
static bool check_names(struct check *check) {
    size_t count = 0;
    for (uint32_t i = 0; i < check->header->touched[POOL_NAMES]; i++) {
        if (!check->name_used[i])
            continue;
        struct keyed *item = &check->items[count++];
        item->index = i;
        crypto_shorthash((unsigned char *)&item->key, (const unsigned char *)check->names[i].id,
                         check->names[i].id_bytes, check->key);
    }
    keyed_sort(check->items, check->spare, count);
    for (size_t k = 1; k < count; k++) {
        const struct name_slot *a = &check->names[check->items[k - 1].index];
        const struct name_slot *b = &check->names[check->items[k].index];
        if (check->items[k - 1].key == check->items[k].key && a->id_bytes == b->id_bytes &&
            !memcmp(a->id, b->id, a->id_bytes))
            return check_wrong(check, "name slots %u and %u have the same id",
                               check->items[k - 1].index, check->items[k].index);
    }
    return true;
}

/* ---- leases, and the rings ---- */
/* An ended lease may outlive its sample, whose slot may be used by another generation by now. */
static bool check_lease(struct check *check, uint32_t i) {
    const struct lease_slot *lease = &check->leases[i];
    enum lease_state state = lease_state(lease);
    if (state == LEASE_FREE)
        return true;
    if (state > LEASE_ENDED || lease_how(lease) > STORE_CONSUMED_BY_READER ||
        (uint32_t)lease->hi != i || lease_order(lease) > check->header->order)
        return check_wrong(check, "lease slot %u has a word, token or order that says nothing", i);
    if (lease->sample >= check->header->touched[POOL_SAMPLES])
        return check_wrong(check, "lease slot %u is on sample slot %u, which is not there", i,
                           lease->sample);
    if (state == LEASE_ENDED)
        return true;
    const struct sample_slot *s = &check->samples[lease->sample];
    if ((sample_state(s) != STORE_RESIDENT && sample_state(s) != STORE_RETIRED) ||
        word_use(&s->word) != lease->sample_use || s->generation != lease->generation)
        return check_wrong(check, "lease slot %u is on a generation that is not there", i);
    if (lease->holder >= check->header->touched[POOL_HOLDERS] ||
        !check->holders[lease->holder].open)
        return check_wrong(check, "lease slot %u belongs to holder %u, which is not there", i,
                           lease->holder);
    return true;
}

/* The event that was being written has no number and may hold anything. */
static bool check_rings(struct check *check) {
    const struct store_header *h = check->header;
    for (uint32_t i = 0; i < h->max_replays; i++)
        if (check->replays[i].op.op_id && check->replays[i].order > h->order)
            return check_wrong(check, "answer %u comes after everything that happened", i);
    for (uint32_t i = 0; i < h->max_events; i++) {
        const struct store_event *event = &check->events[i];
        if (!event->sequence)
            continue;
        if (event->sequence > h->event_last + 1 || event->sequence % h->max_events != i ||
            (unsigned)event->state > STORE_GONE || (unsigned)event->reason > STORE_RESERVE_ENDED ||
            !memchr(event->sample_id, 0, sizeof event->sample_id))
            return check_wrong(check, "the event in place %u of its ring is damaged", i);
    }
    return true;
}

static bool check_slots(struct check *check) {
    const uint32_t *touched = check->header->touched;
    for (uint32_t i = 0; i < touched[POOL_SAMPLES]; i++)
        if (!check_sample(check, i))
            return false;
    for (uint32_t i = 0; i < touched[POOL_LEASES]; i++)
        if (!check_lease(check, i))
            return false;
    return check_apart(check) && check_generations(check) && check_names(check) &&
           check_rings(check);
}

/* Where the tables lie is worked out anew, in a struct on the stack; that of the block is derived.
 */
static void check_begin(struct check *check, const char *block,
                        const struct store_options *options) {
    struct store layout = {0};
    store_lay_out(&layout, options);
    check->header = (const struct store_header *)block;
    check->samples = (const struct sample_slot *)(block + layout.samples.offset);
    check->names = (const struct name_slot *)(block + layout.names.offset);
    check->leases = (const struct lease_slot *)(block + layout.leases.offset);
    check->holders = (const struct holder_slot *)(block + layout.holders.offset);
    check->chunks = (const struct chunk *)(block + layout.chunks.offset);
    check->replays = (const struct replay_slot *)(block + layout.replays);
    check->events = (const struct store_event *)(block + layout.events);
    store_derive_key(check->key, check->header->seed);
}

bool check_block(const void *block, const struct store_options *options,
                 const struct scratch *scratch, char *why, size_t why_bytes) {
    struct check check = {.chunk_used = scratch->chunk_used,
                          .name_used = scratch->name_used,
                          .items = scratch->items,
                          .spare = scratch->spare,
                          .why = why,
                          .why_bytes = why_bytes};
    check_begin(&check, block, options);
    return check_slots(&check);
}
