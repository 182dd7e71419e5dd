/* SPDX-License-Identifier: Apache-2.0
 *
 * What the index says of us, read as a whole and told to the owner: the records that name our node
 * and incarnation, and the ends that others have kept for us while we could not be told.
 *
 *   IDLE -> DUE <-> ASKED (page by page, first one list, then the other) -> TELLING -> IDLE
 *
 * Read after each registration but the first, before this node serves again: what ended before our
 * record was written is seen in the ends; whoever ends something later finds us alive and asks.
 * Read also when the index has gone back in time, and now and then without a cause, for a record
 * may be gone without a trace.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/etcd/own.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "ops/log.h"

static void own_drop(struct directory_etcd *self) {
    for (unsigned i = 0; i < OWN_LISTS; i++) {
        free(self->own[i].records);
        free(self->own[i].views);
        self->own[i] = (struct own_list){0};
    }
}

/* A page that is under way cannot be called back. It is marked void, and reading begins anew when
 * its answer has come. */
void own_begin(struct directory_etcd *self) {
    own_drop(self);
    self->own_void = self->own_state == OWN_ASKED;
    self->own_state = self->own_void ? OWN_ASKED : OWN_DUE;
    self->own_at = OWN_RECORDS;
    self->own_revision = 0;
    self->dirty = true;
}

void own_note_compared(struct directory_etcd *self, int64_t create_revision) {
    self->own_compared = create_revision;
    if (self->options.kept)
        self->options.kept->compared = create_revision;
}

void own_free(struct directory_etcd *self) {
    own_drop(self);
}

/* ---- telling ---- */

/* The owner sees records as views, with pointers into our list; both lists stay until the owner has
 * finished with them. One more than needed is allocated, because calloc(0) may return NULL without
 * being out of memory. */
static bool own_make_views(struct own_list *list) {
    list->views = calloc(list->count + 1, sizeof *list->views);
    for (size_t i = 0; list->views && i < list->count; i++)
        list->views[i] = etcd_sample_view(&list->records[i]);
    return list->views;
}

/* True: this was the comparison that join.c waits for. From now on nothing of the old history is
 * left here, and the next reading without a cause is an interval away. */
static bool own_told(struct directory_etcd *self) {
    self->history_new = false;
    own_note_compared(self, self->create_revision);
    self->own_state = OWN_IDLE;
    self->own_next_ns = self->now_ns + self->options.compare_interval_ns;
    own_drop(self);
    return self->join == JOIN_COMPARING;
}

/* The owner may take several ticks to compare, with the same lists; `begins` is true for the first
 * of them. Out of memory costs the membership: this node may not serve what it could not compare,
 * and a new registration tries again. */
static bool own_tell(struct directory_etcd *self) {
    struct own_list *records = &self->own[OWN_RECORDS], *ended = &self->own[OWN_ENDED];
    bool begins = self->own_state != OWN_TELLING;
    if (begins && (!own_make_views(records) || !own_make_views(ended))) {
        own_begin(self);
        note_lost(self, "out of memory while comparing our records with etcd's");
        return false;
    }
    self->own_state = OWN_TELLING;
    const struct directory_records named = {records->views, records->count};
    const struct directory_records over = {ended->views, ended->count};
    bool first = self->history_new || self->join == JOIN_COMPARING;
    if (self->events.reconcile &&
        !self->events.reconcile(self->owner, &named, &over, first, begins))
        return false; /* not finished: it is called again with the next tick */
    return own_told(self);
}

/* ---- reading ---- */

/* The list doubles: a node may have a million records, and 256 are usual. */
static int own_keep(struct own_list *list, const struct sample_record *record) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 256;
        struct sample_record *records = reallocarray(list->records, room, sizeof *records);
        if (!records)
            return -ENOMEM;
        list->records = records;
        list->room = room;
    }
    list->records[list->count++] = *record;
    return 0;
}

static bool own_parse(const struct directory_etcd *self, const struct etcd_kv *kv,
                      struct sample_record *out) {
    int64_t registration = 0;
    int result = self->own_at == OWN_ENDED ? etcd_ended_parse(kv->key, out, &registration)
                                           : etcd_sample_parse(kv->key, kv->value, out);
    if (result < 0)
        log_warning("node %s: etcd has %.128s = %.128s, which is no record of featured: ignored",
                    self->self.node, kv->key, kv->value);
    /* What this node holds it has put up to its last registration that was compared; what is said
     * of an earlier one has been heard then. */
    if (registration)
        out->generation = registration >= self->own_compared ? UINT64_MAX : 0;
    return result == 0 && out->generation && out->incarnation == self->self.incarnation &&
           !strcmp(out->home, self->self.node);
}

/* All pages of one list are read at the revision of the first, so that together they show one
 * moment. The second list begins at the then current revision. */
static void own_take_page(struct directory_etcd *self, const struct etcd_answer *answer) {
    for (size_t i = 0; i < answer->kv_count; i++) {
        struct sample_record record;
        if (own_parse(self, &answer->kvs[i], &record) &&
            own_keep(&self->own[self->own_at], &record) < 0)
            note_lost(self, "out of memory while reading our records from etcd");
    }
    if (answer->kv_count) /* the smallest key after the last: itself and the smallest byte */
        snprintf(self->own_from, sizeof self->own_from, "%s\x01",
                 answer->kvs[answer->kv_count - 1].key);
    self->own_revision = self->own_revision ? self->own_revision : answer->revision;
    if (!answer->more) {
        self->own_at++;
        self->own_revision = 0;
    }
}

/* A revision that was compacted meanwhile cannot be read to its end: begin again. */
static void own_on_page(void *context, enum etcd_result result, const struct etcd_answer *answer,
                        const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    if (result != ETCD_OK)
        trouble_note(self, TROUBLE_READ, result, why);
    bool is_void = self->own_void;
    self->own_void = false;
    self->own_state = OWN_DUE;
    if (is_void)
        return;
    if (result == ETCD_OK) {
        own_take_page(self, answer);
        backoff_reset(&self->own_backoff);
        return;
    }
    log_debug("node %s: own records not read: %s", self->self.node, why);
    if (result == ETCD_E_COMPACTED || result == ETCD_E_REFUSED) /* from the beginning */
        own_begin(self);
    backoff_fail(&self->own_backoff, self->now_ns);
}

static void own_ask_page(struct directory_etcd *self) {
    char begin[ETCD_KEY_BYTES], end[ETCD_KEY_BYTES];
    if (self->own_at == OWN_RECORDS)
        etcd_range_of(begin, end, self->cluster, "samples");
    else
        etcd_ended_range_of(begin, end, self->cluster, self->self.node, self->self.incarnation);
    struct etcd_request request = {.kind = ETCD_READ,
                                   .read = {.kind = ETCD_RANGE,
                                            .key = self->own_revision ? self->own_from : begin,
                                            .range_end = end,
                                            .revision = self->own_revision,
                                            .limit = LIST_PAGE}};
    self->own_state = OWN_ASKED;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, own_on_page, self);
}

/* ---- the part as a whole ---- */

static bool own_may_read(const struct directory_etcd *self) {
    return self->join == JOIN_COMPARING || self->join == JOIN_MEMBER;
}

static bool own_is_wanted(const struct directory_etcd *self) {
    return self->options.compare_interval_ns && self->join == JOIN_MEMBER;
}

bool own_tick(struct directory_etcd *self) {
    if (!self->own_next_ns)
        self->own_next_ns = self->now_ns + self->options.compare_interval_ns;
    if (self->own_state == OWN_IDLE && own_is_wanted(self) && self->now_ns >= self->own_next_ns)
        own_begin(self);
    if ((self->own_state != OWN_DUE && self->own_state != OWN_TELLING) || !own_may_read(self))
        return false;
    if (self->own_at == OWN_LISTS)
        return own_tell(self);
    if (self->now_ns >= self->own_backoff.next_ns)
        own_ask_page(self);
    return false;
}

uint64_t own_deadline_ns(const struct directory_etcd *self) {
    if (self->own_state == OWN_IDLE && own_is_wanted(self))
        return self->own_next_ns;
    if ((self->own_state != OWN_DUE && self->own_state != OWN_TELLING) || !own_may_read(self))
        return UINT64_MAX;
    return self->own_at == OWN_LISTS ? 0 : self->own_backoff.next_ns;
}
