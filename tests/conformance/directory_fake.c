/* SPDX-License-Identifier: Apache-2.0
 *
 * Each node has one queue of what it is owed: answers and events, in the order they arose. tick()
 * delivers from its head what is due and was there when the tick began.
 */
#include "conformance/directory_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES    65
#define ID_BYTES      129
#define ADDRESS_BYTES 256

struct record {
    char store[NAME_BYTES], sample_id[ID_BYTES], home[NAME_BYTES];
    uint64_t generation, incarnation, bytes;
};

enum due_kind {
    DUE_PUBLISH,
    DUE_REPUBLISH,
    DUE_RETIRE,
    DUE_LOCATE,
    DUE_MEMBERS,
    DUE_NODE_UP,
    DUE_NODE_DOWN,
    DUE_FENCED
};

struct due {
    struct due *next;
    enum due_kind kind;
    uint64_t at_ns;
    struct record record; /* node events: home and incarnation */
    uint64_t in_place_of;
    char address[ADDRESS_BYTES];
    bool fenced;
    directory_publish_fn publish;
    directory_retire_fn retire;
    directory_locate_fn locate;
    directory_members_fn members;
    void *context;
};

struct fake {
    struct directory base;
    struct directory_fake_cluster *cluster;
    char node[NAME_BYTES], address[ADDRESS_BYTES];
    uint64_t incarnation;
    struct directory_events events;
    void *owner;
    bool started, unreachable, fenced;
    struct due *first, **last;
    uint64_t owed, pending, now_ns;
};

struct directory_fake_cluster {
    struct fake *nodes[DIRECTORY_FAKE_NODES_MAX];
    struct record *records;
    size_t record_count, record_room;
    uint64_t last_generation, delay_ns;
};

static void *must(void *block) {
    if (!block)
        abort();
    return block;
}

/* ---- the index ---- */

static struct record *index_find(struct directory_fake_cluster *cluster,
                                 const struct record *wanted) {
    for (size_t i = 0; i < cluster->record_count; i++) {
        struct record *record = &cluster->records[i];
        if (!strcmp(record->store, wanted->store) && !strcmp(record->sample_id, wanted->sample_id))
            return record;
    }
    return NULL;
}

static void index_add(struct directory_fake_cluster *cluster, const struct record *record) {
    if (cluster->record_count == cluster->record_room) {
        cluster->record_room = cluster->record_room ? 2 * cluster->record_room : 64;
        cluster->records =
            must(realloc(cluster->records, cluster->record_room * sizeof *cluster->records));
    }
    cluster->records[cluster->record_count++] = *record;
}

static bool home_is_alive(const struct directory_fake_cluster *cluster,
                          const struct record *record) {
    for (size_t i = 0; i < DIRECTORY_FAKE_NODES_MAX; i++) {
        const struct fake *node = cluster->nodes[i];
        if (node && node->started && !node->fenced && !strcmp(node->node, record->home) &&
            node->incarnation == record->incarnation)
            return true;
    }
    return false;
}

static struct record record_copy(const struct directory_record *from) {
    struct record to = {
        .generation = from->generation, .incarnation = from->incarnation, .bytes = from->bytes};
    snprintf(to.store, sizeof to.store, "%s", from->store);
    snprintf(to.sample_id, sizeof to.sample_id, "%s", from->sample_id);
    snprintf(to.home, sizeof to.home, "%s", from->home);
    return to;
}

static struct directory_record record_view(const struct record *record) {
    return (struct directory_record){
        .store = record->store,
        .sample_id = record->sample_id,
        .home = record->home,
        .generation = record->generation,
        .incarnation = record->incarnation,
        .bytes = record->bytes,
    };
}

/* ---- what a node is owed ---- */

static struct due *owe(struct fake *fake, enum due_kind kind, uint64_t delay_ns) {
    struct due *due = must(calloc(1, sizeof *due));
    due->kind = kind;
    due->at_ns = fake->now_ns + delay_ns;
    *fake->last = due;
    fake->last = &due->next;
    fake->owed++;
    fake->pending += kind <= DUE_RETIRE;
    return due;
}

static struct due *take_first(struct fake *fake) {
    struct due *due = fake->first;
    fake->first = due->next;
    if (!fake->first)
        fake->last = &fake->first;
    fake->owed--;
    fake->pending -= due->kind <= DUE_RETIRE;
    return due;
}

static enum directory_result access_result(const struct fake *fake) {
    if (fake->unreachable)
        return DIRECTORY_E_UNAVAILABLE;
    return fake->fenced ? DIRECTORY_E_FENCED : DIRECTORY_OK;
}

static void deliver_publish(struct fake *fake, const struct due *due) {
    enum directory_result result = access_result(fake);
    if (result != DIRECTORY_OK) {
        due->publish(due->context, result, NULL, false);
        return;
    }
    struct record *current = index_find(fake->cluster, &due->record);
    if (!current || current->generation == due->record.generation) {
        if (!current)
            index_add(fake->cluster, &due->record);
        due->publish(due->context, DIRECTORY_OK, NULL, false);
        return;
    }
    struct record older = *current;
    *current = due->record;
    struct directory_record view = record_view(&older);
    due->publish(due->context, DIRECTORY_OK, &view, false);
}

static void deliver_republish(struct fake *fake, const struct due *due) {
    enum directory_result result = access_result(fake);
    struct record *current = index_find(fake->cluster, &due->record);
    uint64_t stands = current ? current->generation : 0;
    if (result == DIRECTORY_OK && stands != due->in_place_of)
        result = DIRECTORY_E_NOT_FOUND;
    else if (result == DIRECTORY_OK && current)
        *current = due->record;
    else if (result == DIRECTORY_OK)
        index_add(fake->cluster, &due->record);
    due->retire(due->context, result);
}

static void deliver_retire(struct fake *fake, const struct due *due) {
    enum directory_result result = access_result(fake);
    if (result == DIRECTORY_OK) {
        struct directory_fake_cluster *cluster = fake->cluster;
        struct record *current = index_find(cluster, &due->record);
        if (current && current->generation == due->record.generation)
            *current = cluster->records[--cluster->record_count];
    }
    due->retire(due->context, result);
}

static void deliver_locate(struct fake *fake, const struct due *due) {
    const struct record *found = index_find(fake->cluster, &due->record);
    if (fake->unreachable) {
        due->locate(due->context, DIRECTORY_E_UNAVAILABLE, NULL, false);
    } else if (!found) {
        due->locate(due->context, DIRECTORY_E_NOT_FOUND, NULL, false);
    } else {
        struct record copy = *found;
        struct directory_record view = record_view(&copy);
        bool alive = home_is_alive(fake->cluster, &copy);
        due->locate(due->context, alive ? DIRECTORY_OK : DIRECTORY_E_LOST, &view, false);
    }
}

static void deliver(struct fake *fake, const struct due *due) {
    switch (due->kind) {
    case DUE_PUBLISH:
        deliver_publish(fake, due);
        return;
    case DUE_REPUBLISH:
        deliver_republish(fake, due);
        return;
    case DUE_RETIRE:
        deliver_retire(fake, due);
        return;
    case DUE_LOCATE:
        deliver_locate(fake, due);
        return;
    case DUE_MEMBERS: /* the events owed before it have been delivered */
        due->members(due->context, fake->unreachable ? DIRECTORY_E_UNAVAILABLE : DIRECTORY_OK);
        return;
    case DUE_NODE_UP:
        fake->events.node_up(fake->owner, due->record.home, due->address, due->address,
                             due->record.incarnation);
        return;
    case DUE_NODE_DOWN:
        fake->events.node_down(fake->owner, due->record.home, due->record.incarnation);
        return;
    case DUE_FENCED:
        fake->events.fenced(fake->owner, due->fenced,
                            due->fenced ? "the test took this node's record away"
                                        : "registered again");
        return;
    }
}

/* ---- membership ---- */

static void owe_node(struct fake *to, enum due_kind kind, const struct fake *about) {
    struct due *due = owe(to, kind, to->cluster->delay_ns);
    snprintf(due->record.home, sizeof due->record.home, "%s", about->node);
    snprintf(due->address, sizeof due->address, "%s", about->address);
    due->record.incarnation = about->incarnation;
}

static bool is_member(const struct fake *node) {
    return node && node->started && !node->fenced;
}

static void tell_others(const struct fake *about, enum due_kind kind) {
    for (size_t i = 0; i < DIRECTORY_FAKE_NODES_MAX; i++) {
        struct fake *other = about->cluster->nodes[i];
        if (other && other != about && other->started)
            owe_node(other, kind, about);
    }
}

/* ---- operations ---- */

static int fake_start(struct directory *d) {
    struct fake *fake = (struct fake *)d;
    fake->started = true;
    tell_others(fake, DUE_NODE_UP);
    for (size_t i = 0; i < DIRECTORY_FAKE_NODES_MAX; i++) {
        const struct fake *other = fake->cluster->nodes[i];
        if (other != fake && is_member(other))
            owe_node(fake, DUE_NODE_UP, other);
    }
    return 0;
}

static uint64_t fake_next_generation(struct directory *d) {
    struct fake *fake = (struct fake *)d;
    return fake->unreachable ? 0 : ++fake->cluster->last_generation;
}

static void fake_publish(struct directory *d, const struct directory_record *record,
                         directory_publish_fn done, void *context) {
    struct fake *fake = (struct fake *)d;
    struct due *due = owe(fake, DUE_PUBLISH, fake->cluster->delay_ns);
    due->record = record_copy(record);
    due->publish = done;
    due->context = context;
}

static void fake_republish(struct directory *d, const struct directory_record *record,
                           uint64_t in_place_of, directory_retire_fn done, void *context) {
    struct fake *fake = (struct fake *)d;
    struct due *due = owe(fake, DUE_REPUBLISH, fake->cluster->delay_ns);
    due->record = record_copy(record);
    due->in_place_of = in_place_of;
    due->retire = done;
    due->context = context;
}

static void fake_retire(struct directory *d, const struct directory_record *record,
                        directory_retire_fn done, void *context) {
    struct fake *fake = (struct fake *)d;
    struct due *due = owe(fake, DUE_RETIRE, fake->cluster->delay_ns);
    due->record = record_copy(record);
    due->retire = done;
    due->context = context;
}

static void fake_locate(struct directory *d, const char *store, const char *sample_id,
                        directory_locate_fn done, void *context) {
    struct fake *fake = (struct fake *)d;
    struct due *due = owe(fake, DUE_LOCATE, fake->cluster->delay_ns);
    due->record =
        record_copy(&(struct directory_record){.store = store, .sample_id = sample_id, .home = ""});
    due->locate = done;
    due->context = context;
}

static void fake_members(struct directory *d, directory_members_fn done, void *context) {
    struct fake *fake = (struct fake *)d;
    struct due *due = owe(fake, DUE_MEMBERS, fake->cluster->delay_ns);
    due->members = done;
    due->context = context;
}

static uint64_t fake_serves_until_ns(const struct directory *d) {
    return ((const struct fake *)d)->fenced ? 0 : UINT64_MAX;
}

static uint64_t fake_pending(const struct directory *d) {
    return ((const struct fake *)d)->pending;
}

static void fake_tick(struct directory *d, uint64_t now_ns) {
    struct fake *fake = (struct fake *)d;
    fake->now_ns = now_ns;
    for (uint64_t budget = fake->owed; budget > 0 && fake->first->at_ns <= now_ns; budget--) {
        struct due *due = take_first(fake);
        deliver(fake, due);
        free(due);
    }
}

static uint64_t fake_next_deadline_ns(const struct directory *d) {
    const struct fake *fake = (const struct fake *)d;
    return fake->first ? fake->first->at_ns : UINT64_MAX;
}

static void fake_destroy(struct directory *d) {
    struct fake *fake = (struct fake *)d;
    fake->unreachable = true; /* so that questions still owed an answer get UNAVAILABLE */
    while (fake->first) {
        struct due *due = take_first(fake);
        if (due->kind <= DUE_MEMBERS)
            deliver(fake, due);
        free(due);
    }
    for (size_t i = 0; i < DIRECTORY_FAKE_NODES_MAX; i++)
        if (fake->cluster->nodes[i] == fake)
            fake->cluster->nodes[i] = NULL;
    if (is_member(fake))
        tell_others(fake, DUE_NODE_DOWN);
    free(fake);
}

static const struct directory_ops fake_ops = {
    .name = "fake",
    .index = true,
    .start = fake_start,
    .next_generation = fake_next_generation,
    .publish = fake_publish,
    .republish = fake_republish,
    .retire = fake_retire,
    .locate = fake_locate,
    .members = fake_members,
    .serves_until_ns = fake_serves_until_ns,
    .pending = fake_pending,
    .tick = fake_tick,
    .next_deadline_ns = fake_next_deadline_ns,
    .destroy = fake_destroy,
};

struct directory *directory_fake_new(struct directory_fake_cluster *cluster, const char *node,
                                     const char *address, uint64_t incarnation,
                                     const struct directory_events *events, void *owner) {
    struct fake *fake = must(calloc(1, sizeof *fake));
    fake->base.ops = &fake_ops;
    fake->cluster = cluster;
    snprintf(fake->node, sizeof fake->node, "%s", node);
    snprintf(fake->address, sizeof fake->address, "%s", address);
    fake->incarnation = incarnation;
    fake->events = *events;
    fake->owner = owner;
    fake->last = &fake->first;
    size_t free_place = 0;
    while (free_place < DIRECTORY_FAKE_NODES_MAX && cluster->nodes[free_place])
        free_place++;
    if (free_place == DIRECTORY_FAKE_NODES_MAX)
        abort();
    cluster->nodes[free_place] = fake;
    return &fake->base;
}

void directory_fake_set_reachable(struct directory *d, bool reachable) {
    ((struct fake *)d)->unreachable = !reachable;
}

void directory_fake_set_fenced(struct directory *d, bool fenced) {
    struct fake *fake = (struct fake *)d;
    if (fake->fenced == fenced)
        return;
    fake->fenced = fenced;
    owe(fake, DUE_FENCED, fake->cluster->delay_ns)->fenced = fenced;
    tell_others(fake, fenced ? DUE_NODE_DOWN : DUE_NODE_UP);
}

struct directory_fake_cluster *directory_fake_cluster_new(void) {
    return must(calloc(1, sizeof(struct directory_fake_cluster)));
}

void directory_fake_cluster_free(struct directory_fake_cluster *cluster) {
    free(cluster->records);
    free(cluster);
}

void directory_fake_set_delay(struct directory_fake_cluster *cluster, uint64_t delay_ns) {
    cluster->delay_ns = delay_ns;
}

size_t directory_fake_record_count(const struct directory_fake_cluster *cluster) {
    return cluster->record_count;
}
