/* SPDX-License-Identifier: Apache-2.0
 *
 * Compares all that the probes of a store show with what the reference knows.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/store_model.h"

void model_fail(struct model *m, const char *format, ...) {
    va_list args;
    int at = snprintf(m->why, sizeof m->why, "step %llu, %s: ", (unsigned long long)m->step, m->op);
    va_start(args, format);
    vsnprintf(m->why + at, sizeof m->why - (size_t)at, format, args);
    va_end(args);
    longjmp(m->failed, 1);
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
uint64_t model_rnd(struct model *m, uint64_t below) {
    m->random ^= m->random >> 12;
    m->random ^= m->random << 25;
    m->random ^= m->random >> 27;
    return (m->random * 0x2545f4914f6cdd1dull >> 33) % below;
}

const char *model_id_text(int id) {
    static const char longest[] = "a-name-of-the-greatest-length-that-is-allowed-0123456789-"
                                  "0123456789-0123456789-0123456789-0123456789-0123456789-"
                                  "01234567890123";
    static const char *const ids[IDS] = {"a",        "b",   "c",     "dd", "sample-4",
                                         "sample-5", "x/6", "seven", "8",  longest};
    return ids[id];
}

static uint64_t serial_of(struct model *m, const struct store_info *info) {
    unsigned char spec[1024];
    uint64_t sums[8], serial;
    uint32_t spec_bytes, sums_bytes;
    if (!store_spec(m->store, info->slot, spec, sizeof spec, &spec_bytes, sums, sizeof sums,
                    &sums_bytes))
        model_fail(m, "slot %u has no spec", info->slot);
    memcpy(&serial, spec, sizeof serial);
    SAME(m, "spec_bytes", spec_bytes, 8 + serial * 37 % 700);
    if (spec_bytes > 8 && spec[spec_bytes - 1] != (unsigned char)serial)
        model_fail(m, "the spec of slot %u is damaged", info->slot);
    for (uint32_t i = 0; i < sums_bytes / 8; i++)
        SAME(m, "checksum", sums[i], serial + i);
    return serial;
}

static bool walk(struct model *m, uint64_t *cursor, struct store_info *info) {
    while (store_list_next(m->store, cursor, info))
        if (info->state != STORE_FREE)
            return true;
    return false;
}

void model_look(struct model *m) {
    struct store_info info;
    m->ref->seen_count = 0;
    for (uint64_t cursor = 0; walk(m, &cursor, &info);)
        if (info.state != STORE_GONE)
            m->ref->seen[m->ref->seen_count++] =
                (struct ref_seen){serial_of(m, &info), info.place.offset};
}

static void compare_live(struct model *m, const struct store_info *info) {
    const struct ref_sample *s = ref_by_serial(m->ref, serial_of(m, info));
    if (!s)
        model_fail(m, "the store shows generation %llu, which should not be there",
                   (unsigned long long)info->generation);
    SAME(m, "state", info->state, s->state);
    SAME(m, "reason", info->reason, s->reason);
    SAME(m, "generation", info->generation, s->generation);
    SAME(m, "origin", info->origin, s->origin);
    SAME(m, "landing", info->landing, s->landing);
    SAME(m, "cached", info->cached, s->cached);
    SAME(m, "since_ns", info->since_ns, s->since_ns);
    SAME(m, "extent_offset", info->place.offset, s->offset);
    SAME(m, "extent_bytes", info->place.bytes, s->bytes);
    SAME(m, "leases", info->leases, s->leases);
    SAME(m, "consumed", info->consumed, s->consumed);
    if (strcmp(info->sample_id, model_id_text(s->id)))
        model_fail(m, "sample_id is %s, not %s", info->sample_id, model_id_text(s->id));
    if (info->state == STORE_PLANNED && !info->landing)
        SAME(m, "owner", info->owner, 100 + s->holder);
}

static void compare_gone(struct model *m, const struct store_info *info) {
    for (const struct ref_sample *s = m->ref->samples; s < m->ref->samples + REF_SAMPLES; s++)
        if (s->serial && s->state == STORE_GONE && s->generation == info->generation &&
            s->reason == info->reason && s->landing == info->landing &&
            s->since_ns == info->since_ns && !strcmp(model_id_text(s->id), info->sample_id))
            return;
    model_fail(m, "the store keeps a tombstone of %s generation %llu that the reference has not",
               info->sample_id, (unsigned long long)info->generation);
}

static void compare_stat(struct model *m) {
    struct store_info info;
    int id = (int)model_rnd(m, IDS);
    const struct ref_sample *s = ref_by_id(m->ref, id);
    bool found =
        store_stat(m->store, model_id_text(id), (uint32_t)strlen(model_id_text(id)), 0, &info);
    SAME(m, "stat by id found", found, s != NULL);
    if (s) {
        SAME(m, "stat by id: state", info.state, s->state);
        SAME(m, "stat by id: generation", info.generation, s->generation);
    }
    uint64_t generation = m->generations[model_rnd(m, HISTORY)];
    s = ref_by_generation(m->ref, generation);
    found = generation && store_stat(m->store, NULL, 0, generation, &info);
    SAME(m, "stat by generation found", found, s != NULL);
    if (s)
        SAME(m, "stat by generation: state", info.state, s->state);
    bool landing = s && s->landing && (s->state == STORE_PLANNED || s->state == STORE_RESIDENT);
    SAME(m, "has_landing", store_has_landing(m->store, generation), landing);
}

static void compare_totals(struct model *m) {
    struct store_totals a, b;
    store_totals(m->store, &a);
    ref_totals(m->ref, &b);
    const uint64_t *va = (const uint64_t *)&a, *vb = (const uint64_t *)&b;
    for (size_t i = 0; i < sizeof a / sizeof *va; i++)
        if (va[i] != vb[i])
            model_fail(m, "store_totals field %zu: store says %llu, reference %llu", i,
                       (unsigned long long)va[i], (unsigned long long)vb[i]);
    SAME(m, "account used_bytes", m->account.used_bytes, m->ref_account.used_bytes);
    SAME(m, "next deadline", store_next_deadline_ns(m->store), ref_next_deadline_ns(m->ref));
}

void model_compare(struct model *m) {
    struct store_info info;
    char why[256];
    uint64_t shown = 0, gone = 0, expected = 0;
    if (m->ref->broken)
        model_fail(m, "%s", m->ref->broken);
    for (uint64_t cursor = 0; walk(m, &cursor, &info);) {
        if (info.state == STORE_GONE) {
            compare_gone(m, &info);
            gone++;
        } else {
            compare_live(m, &info);
            shown++;
        }
    }
    for (const struct ref_sample *s = m->ref->samples; s < m->ref->samples + REF_SAMPLES; s++)
        expected += s->serial && s->state != STORE_GONE;
    SAME(m, "generations shown", shown, expected);
    compare_totals(m);
    compare_stat(m);
    if (m->step % AUDIT_EVERY == 0 && store_audit(m->store, why, sizeof why))
        model_fail(m, "audit: %s", why);
}

void model_compare_refusal(struct model *m, const struct store_refusal *a,
                           const struct store_refusal *b) {
    SAME(m, "refusal cause", a->cause, b->cause);
    SAME(m, "refusal limit", a->limit, b->limit);
    SAME(m, "refusal used", a->used, b->used);
    SAME(m, "refusal asked", a->asked, b->asked);
}
