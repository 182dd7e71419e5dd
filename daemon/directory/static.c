/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory of a cluster without one: a fixed list of peers. Every question is answered by the
 * next tick: publish and retire succeed (the home alone knows), locate says "ask the peers".
 *
 * Generations: 16 bits of XXH3-64(node), then 48 bits counting up from unix_ms * 128. A daemon that
 * restarts without its memory begins above all it gave before as long as it gives fewer than 128000
 * a second on average and the clock is not set back over its last start; one that restarts with its
 * memory goes on where it was, whatever the clock says. Two nodes whose hashes agree differ in
 * the counter unless they start in the same millisecond. The counter wraps after 2^48 / 128 ms
 * = 69.7 years.
 *
 * The answers owed form a ring: `count` of them from `first`. A tick delivers those that were owed
 * when it began; a callback may ask again. The ring is made with room for more questions than a
 * turn of the loop can ask, because the interface has no way to refuse one: see
 * static_answer_later().
 */
#include "directory/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ops/log.h"
#include "proto/container.h"

#define COUNTER_BITS  48
#define COUNTS_PER_MS 128u
/* A power of two, like every later size. A turn carries out some 1000 effects and deadlines
 * (broker.c) and the requests that have come in meanwhile, of 256 items at most each. Room that was
 * never used takes no memory: the kernel gives out pages when they are written to. */
#define ANSWERS_MIN     65536u
#define NODE_HASH(node) (XXH3_64bits(node, strlen(node)) >> COUNTER_BITS)

enum question { QUESTION_PUBLISH, QUESTION_RETIRE, QUESTION_LOCATE, QUESTION_MEMBERS };

struct answer {
    enum question question;
    union {
        directory_publish_fn publish;
        directory_retire_fn retire;
        directory_locate_fn locate;
        directory_members_fn members;
    } done;
    void *context;
};

struct peer {
    char *node, *address, *data_address;
    bool announce; /* a node_up event is due */
};

struct directory_static {
    struct directory base;
    struct directory_events events;
    void *owner;
    uint64_t node_bits, counter;
    struct directory_kept *kept; /* NULL: none */
    struct peer *peers;
    size_t peer_count;
    bool announce; /* node_up events of peers that want one are due */
    struct answer *answers;
    size_t first, count, room; /* room: a power of two */
    uint64_t pending;          /* publishes and retires among the answers */
};

static struct directory_static *static_from_base(struct directory *d) {
    return container_of(d, struct directory_static, base);
}

/* ---- answers ---- */

/* False: out of memory. */
static bool static_answers_grow(struct directory_static *self) {
    size_t room = self->room ? self->room * 2 : ANSWERS_MIN;
    struct answer *answers = calloc(room, sizeof *answers);
    if (!answers)
        return false;
    for (size_t i = 0; i < self->count; i++)
        answers[i] = self->answers[(self->first + i) & (self->room - 1)];
    free(self->answers);
    self->answers = answers;
    self->first = 0;
    self->room = room;
    return true;
}

/* Every question is owed an answer. One that finds the ring full and no memory for a larger one
 * does not get it: who has asked waits until his own time is over. That takes 65536 questions in
 * one turn of the loop; ending the whole daemon for it would be worse. */
static void static_answer_later(struct directory_static *self, struct answer answer) {
    if (self->count == 0)
        self->first = 0; /* only the part of the ring that is needed is ever touched */
    if (self->count == self->room && !static_answers_grow(self)) {
        log_error("directory: out of memory: one of more than %zu questions is not answered",
                  self->room);
        return;
    }
    self->answers[(self->first + self->count++) & (self->room - 1)] = answer;
    self->pending += answer.question <= QUESTION_RETIRE;
}

static void static_answer_first(struct directory_static *self, bool available) {
    struct answer answer = self->answers[self->first];
    self->first = (self->first + 1) & (self->room - 1);
    self->count--;
    self->pending -= answer.question <= QUESTION_RETIRE;
    enum directory_result result = available ? DIRECTORY_OK : DIRECTORY_E_UNAVAILABLE;
    if (answer.question == QUESTION_PUBLISH)
        answer.done.publish(answer.context, result, NULL, false);
    else if (answer.question == QUESTION_RETIRE)
        answer.done.retire(answer.context, result);
    else if (answer.question == QUESTION_MEMBERS)
        answer.done.members(answer.context, result);
    else
        answer.done.locate(answer.context, available ? DIRECTORY_E_NOT_FOUND : result, NULL,
                           available);
}

/* ---- operations ---- */

static int static_start(struct directory *d) {
    static_from_base(d)->announce = true;
    return 0;
}

/* 0 means "no generation" everywhere, so the one number in 2^64 that would be 0 is passed over. */
static uint64_t static_next_generation(struct directory *d) {
    struct directory_static *self = static_from_base(d);
    uint64_t counter = self->counter++ & ((UINT64_C(1) << COUNTER_BITS) - 1);
    uint64_t generation = self->node_bits | counter;
    /* Before it is given: it is the 48 bits that count up, for the wrap comes after 69 years. */
    if (self->kept)
        self->kept->generation = self->counter;
    return generation ? generation : static_next_generation(d);
}

static void static_publish(struct directory *d, const struct directory_record *record,
                           directory_publish_fn done, void *context) {
    (void)record;
    static_answer_later(
        static_from_base(d),
        (struct answer){.question = QUESTION_PUBLISH, .done.publish = done, .context = context});
}

static void static_retire(struct directory *d, const struct directory_record *record,
                          directory_retire_fn done, void *context) {
    (void)record;
    static_answer_later(
        static_from_base(d),
        (struct answer){.question = QUESTION_RETIRE, .done.retire = done, .context = context});
}

/* Without an index nothing can have been replaced meanwhile. */
static void static_publish_again(struct directory *d, const struct directory_record *record,
                                 int64_t moment, directory_publish_fn done, void *context) {
    (void)moment;
    static_publish(d, record, done, context);
}

static int64_t static_moment(const struct directory *d) {
    (void)d;
    return 0;
}

/* There is no index that could have lost the record. */
static void static_republish(struct directory *d, const struct directory_record *record,
                             uint64_t in_place_of, directory_retire_fn done, void *context) {
    (void)in_place_of;
    static_retire(d, record, done, context);
}

static void static_locate(struct directory *d, const char *store, const char *sample_id,
                          directory_locate_fn done, void *context) {
    (void)store;
    (void)sample_id;
    static_answer_later(
        static_from_base(d),
        (struct answer){.question = QUESTION_LOCATE, .done.locate = done, .context = context});
}

static void static_members(struct directory *d, directory_members_fn done, void *context) {
    static_answer_later(
        static_from_base(d),
        (struct answer){.question = QUESTION_MEMBERS, .done.members = done, .context = context});
}

/* Without an index no other node can have put the same sample as the newer one: there is nothing to
 * fence. */
static uint64_t static_serves_until_ns(const struct directory *d) {
    (void)d;
    return UINT64_MAX; /* no index, no fencing */
}

static uint64_t static_pending(const struct directory *d) {
    return (container_of(d, const struct directory_static, base))->pending;
}

static void static_free_peer(struct peer *peer) {
    free(peer->node);
    free(peer->address);
    free(peer->data_address);
}

/* False: out of memory. */
static bool static_copy_peer(struct peer *out, const struct directory_peer *peer) {
    bool apart = peer->data_address && *peer->data_address;
    *out = (struct peer){.node = strdup(peer->node),
                         .address = strdup(peer->address),
                         .data_address = strdup(apart ? peer->data_address : peer->address),
                         .announce = true};
    if (out->node && out->address && out->data_address)
        return true;
    static_free_peer(out);
    return false;
}

static void static_announce_peers(struct directory_static *self) {
    self->announce = false;
    for (size_t i = 0; i < self->peer_count; i++) {
        struct peer *peer = &self->peers[i];
        if (peer->announce)
            self->events.node_up(self->owner, peer->node, peer->address, peer->data_address, 0);
        peer->announce = false;
    }
}

/* Only those owed at the beginning are answered: what a callback asks anew is for the next tick. */
static void static_tick(struct directory *d, uint64_t now_ns) {
    (void)now_ns;
    struct directory_static *self = static_from_base(d);
    if (self->announce)
        static_announce_peers(self);
    for (size_t owed = self->count; owed > 0; owed--)
        static_answer_first(self, true);
}

static uint64_t static_next_deadline_ns(const struct directory *d) {
    const struct directory_static *self = container_of(d, const struct directory_static, base);
    return self->announce || self->count > 0 ? 0 : UINT64_MAX;
}

static void static_destroy(struct directory *d) {
    struct directory_static *self = static_from_base(d);
    while (self->count > 0)
        static_answer_first(self, false);
    for (size_t i = 0; i < self->peer_count; i++)
        static_free_peer(&self->peers[i]);
    free(self->peers);
    free(self->answers);
    free(self);
}

static const struct directory_ops static_ops = {
    .name = "static",
    .start = static_start,
    .next_generation = static_next_generation,
    .publish = static_publish,
    .publish_again = static_publish_again,
    .moment = static_moment,
    .republish = static_republish,
    .retire = static_retire,
    .locate = static_locate,
    .members = static_members,
    .serves_until_ns = static_serves_until_ns,
    .pending = static_pending,
    .tick = static_tick,
    .next_deadline_ns = static_next_deadline_ns,
    .destroy = static_destroy,
};

int directory_static_know(struct directory *directory, const struct directory_peer *peer) {
    struct directory_static *self = static_from_base(directory);
    struct peer copy, *known = NULL;
    for (size_t i = 0; i < self->peer_count; i++)
        if (strcmp(self->peers[i].node, peer->node) == 0)
            known = &self->peers[i];
    if (!static_copy_peer(&copy, peer))
        return -ENOMEM;
    if (!known) {
        struct peer *peers = reallocarray(self->peers, self->peer_count + 1, sizeof *peers);
        if (!peers) {
            static_free_peer(&copy);
            return -ENOMEM;
        }
        self->peers = peers;
        known = &peers[self->peer_count++];
        *known = (struct peer){.node = NULL};
    }
    static_free_peer(known);
    *known = copy;
    self->announce = true;
    return 0;
}

void directory_static_keep(struct directory *directory, struct directory_kept *kept) {
    struct directory_static *self = static_from_base(directory);
    self->kept = kept;
    if (kept->generation > self->counter)
        self->counter = kept->generation;
}

int directory_static_new(const char *node, const struct directory_peer *peers, size_t peer_count,
                         uint64_t unix_ms, const struct directory_events *events, void *owner,
                         struct directory **out) {
    struct directory_static *self = calloc(1, sizeof *self);
    if (!self)
        return -ENOMEM;
    self->base.ops = &static_ops;
    self->events = *events;
    self->owner = owner;
    self->node_bits = (uint64_t)NODE_HASH(node) << COUNTER_BITS;
    self->counter = unix_ms * COUNTS_PER_MS;
    int error = static_answers_grow(self) ? 0 : -ENOMEM;
    for (size_t i = 0; i < peer_count && !error; i++)
        error = directory_static_know(&self->base, &peers[i]);
    self->announce = false; /* not before static_start() */
    if (error) {
        static_destroy(&self->base);
        return error;
    }
    *out = &self->base;
    return 0;
}
