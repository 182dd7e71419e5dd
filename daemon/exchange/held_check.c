/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against what the index says of it, one sample at a time. A record may be
 * lost, or be an old one that came back with a backup, or another cluster's: none of these ends a
 * sample.
 *
 *   the record of what we hold      then
 *   names it                        all is well
 *   is missing                      it is written again
 *   names a home that is dead       that put has replaced ours, if the index has not gone back in
 *                                   time since and that home was a member. Else ours is written in
 *                                   its place. (Whoever puts a later generation answers only when
 *                                   we have confirmed, or when word of the end of ours is kept for
 *                                   us: that put was never answered.)
 *   names us, another generation    the same, unless that one is on its way
 *   names a home that lives         that home is asked, and removes a record of what it does not
 *                                   hold. If it holds it, and its put is over, then word of an end
 *                                   was lost: the one that was put earlier goes.
 *
 * Checked
 *   - for another node whose put is in the index and does not know what it has replaced: it names
 *     its generation, and if the index names that one too, ours has been replaced. One that names
 *     none wants the record put right;
 *   - by ourselves when a node has died: all that we hold, a few at a time;
 *   - by ourselves when the index, read as a whole, does not name what we hold (reconcile.c).
 *
 * A generation that is SEALED is on its way to the index: that it is not there yet proves nothing,
 * and who replaces it will name it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/exchange.h"

#define OWN_IN_FLIGHT_MAX 64u
#define OWN_STEPS_MAX     1024u /* in one turn of the loop */
#define DUE_A_TURN        256u
#define DUE_IN_FLIGHT_MAX 512u /* of their questions, and of what is written again */
#define WAITING_MAX       1024u
#define RETRY_NS          (1000 * NS_PER_MS)
#define DUE_RETRY_NS      (10 * NS_PER_MS)
#define LOST_US           (ROUND_TRIP_LIMIT_NS / 1000)

struct held_check {
    TAILQ_ENTRY(held_check) link;
    struct broker *broker;
    struct asking *asking;   /* NULL: our own, or its connection is gone */
    struct account *charged; /* of the node that asks; NULL: our own */
    bool own;
    bool locating; /* our own, counted in held_walk.in_flight */
    bool first;    /* counted in held_walk.first */
    struct space *space;
    uint32_t request_id;
    uint64_t generation; /* what we held when it began */
    uint64_t newer;      /* for another node: its generation; 0 = none */
    uint64_t newer_age_us;
    struct deadline retry; /* our own: when it is begun again; not set: it is under way */
    struct directory_record rival;
    char rival_home[LAYOUT_NAME_BYTES_MAX + 1];
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

static void held_check_walk_again(struct broker *broker, uint64_t at_ns) {
    struct held_walk *walk = &broker->exchange->held_walk;
    if (!walk->again || at_ns < walk->next_ns)
        walk->next_ns = at_ns;
    walk->again = true;
    deadlines_set_earlier(&broker->deadlines, &walk->go_on, at_ns);
}

bool held_find(const struct space *space, const char *sample_id, struct store_info *info) {
    return !layout_check_sample_id(sample_id) &&
           store_stat(space->store, sample_id, (uint32_t)strlen(sample_id), 0, info) &&
           !info->landing && info->state == STORE_RESIDENT;
}

static bool held_check_still_holds(const struct held_check *check) {
    struct store_info info;
    return held_find(check->space, check->sample_id, &info) && info.generation == check->generation;
}

static void check_end(struct held_check *check) {
    TAILQ_REMOVE(&check->broker->exchange->held_checks, check, link);
    check->broker->exchange->held_walk.waiting -= check->retry.queued;
    deadlines_clear(&check->broker->deadlines, &check->retry);
    check->broker->exchange->held_walk.first -= check->first;
    check->space->uses--;
    if (check->charged)
        accounts_release(check->broker, check->charged, CHARGE_WAITS, 1);
    free(check);
}

static void check_later(struct held_check *check) {
    struct held_walk *walk = &check->broker->exchange->held_walk;
    uint64_t at_ns = check->broker->now_ns + RETRY_NS;
    walk->first -= check->first; /* one that takes long does not keep the node from serving */
    check->first = false;
    if (walk->waiting < WAITING_MAX) {
        deadlines_set(&check->broker->deadlines, &check->retry, at_ns);
        walk->waiting++;
        return;
    }
    held_check_walk_again(check->broker, at_ns);
    check_end(check);
}

static void held_check_retire_held(struct held_check *check) {
    bool retired;
    store_retire(check->space->store, check->sample_id, (uint32_t)strlen(check->sample_id),
                 check->generation, STORE_SUPERSEDED, check->broker->now_ns, &retired);
}

static uint64_t held_check_age_us(const struct held_check *check) {
    return publish_age_us(check->broker, check->space, check->generation);
}

/* ---- a rival: the record names what another home has, and it lives ---- */

static void held_check_on_rival_retired(void *context, const Fb__PeerReply *reply,
                                        const uint8_t *payload, size_t payload_bytes,
                                        const char *why) {
    (void)reply, (void)payload, (void)payload_bytes, (void)why;
    check_later(context);
}

static void held_check_retire_rival(struct held_check *check) {
    struct broker *broker = check->broker;
    struct peer *peer = peers_find(broker->peers, check->rival_home);
    Fb__RetireItem item = FB__RETIRE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = check->sample_id;
    item.generation = check->rival.generation;
    item.incarnation = check->rival.incarnation;
    Fb__PeerRetire retire = FB__PEER_RETIRE__INIT;
    retire.store = check->space->name;
    retire.reason = FB__REASON__SUPERSEDED;
    retire.n_items = 1;
    retire.items = items;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_RETIRE;
    request.retire = &retire;
    if (!peer || peer_call(peer, &request, held_check_on_rival_retired, check, broker->now_ns) < 0)
        check_later(check);
}

/* Both are there and both were put: which of them ended the other was known to a record or a kept
 * end that is lost. Ages are compared, not clocks: each by its own node's. */
static void held_check_settle_rivalry(struct held_check *check, uint64_t rival_age_us) {
    uint64_t our_age_us = held_check_age_us(check);
    bool ours_is_newer = our_age_us != rival_age_us ? our_age_us < rival_age_us
                                                    : check->generation > check->rival.generation;
    log_warning("store %s: sample %s is here (generation %" PRIu64 ", put %" PRIu64
                " ms ago) and at node %s (%" PRIu64 ", %" PRIu64
                " ms), and the index has lost which of them replaced the other: the older goes",
                check->space->name, check->sample_id, check->generation, our_age_us / 1000,
                check->rival_home, check->rival.generation, rival_age_us / 1000);
    if (ours_is_newer) {
        held_check_retire_rival(check);
        return;
    }
    held_check_retire_held(check);
    check_end(check);
}

static void held_check_on_rival(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct held_check *check = context;
    const Fb__IndexFinding *found =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_INDEX_CHECK ? reply->index_check
                                                                          : NULL;
    bool there = found && found->held == check->rival.generation && held_check_still_holds(check);
    /* One whose put is not over may ask us yet; but if it is the newer one, that is clear now. */
    if (there &&
        (found->finding == FB__FINDING__AGREES || found->held_age_us < held_check_age_us(check)))
        held_check_settle_rivalry(check, found->held_age_us);
    else
        check_later(check);
}

static void held_check_ask_rival(struct held_check *check, const struct directory_record *record) {
    struct broker *broker = check->broker;
    struct peer *peer = peers_find(broker->peers, record->home);
    Fb__PeerIndexCheck asked = FB__PEER_INDEX_CHECK__INIT;
    check->rival = *record;
    strcpy(check->rival_home, record->home);
    asked.store = check->space->name;
    asked.sample_id = check->sample_id;
    asked.repair = true;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_INDEX_CHECK;
    request.index_check = &asked;
    if (!peer || peer_call(peer, &request, held_check_on_rival, check, broker->now_ns) < 0)
        check_later(check);
}

/* ---- what the index says ---- */

static bool held_check_is_ours(const struct held_check *check,
                               const struct directory_record *record) {
    return record->incarnation == check->broker->options.incarnation &&
           !strcmp(record->home, check->broker->config->node);
}

/* By a put of a node that has died since: as long as the index has not lost anything since ours was
 * put, what it names was put later. Of a node that we never knew that is not certain. */
static bool held_check_was_replaced(const struct held_check *check,
                                    const struct directory_record *record) {
    const struct broker *broker = check->broker;
    const struct directory *directory = broker->directory;
    return record && !held_check_is_ours(check, record) && !record->again &&
           nodes_is_dead(broker, record->home, record->incarnation) &&
           directory->ops->audit->remembers(directory, held_check_age_us(check));
}

static void held_check_mend(struct held_check *check, enum directory_result result,
                            const struct directory_record *record) {
    struct broker *broker = check->broker;
    struct space *space = check->space;
    /* Before the ends that were kept for us have been read (reconcile.c) nothing is right yet. */
    bool settled = (result == DIRECTORY_E_NOT_FOUND || record) &&
                   broker->now_ns < broker->directory->ops->serves_until_ns(broker->directory);
    bool in_flux = record && held_check_is_ours(check, record) &&
                   publish_is_of(broker, space, record->generation);
    bool rival = record && !held_check_is_ours(check, record) && result == DIRECTORY_OK &&
                 !nodes_have_lost(broker, result, record);
    if (!held_check_still_holds(check) || (record && record->generation == check->generation)) {
        check_end(check);
    } else if (settled && !rival && held_check_was_replaced(check, record)) {
        held_check_retire_held(check);
        check_end(check);
    } else if (!settled || in_flux) {
        check_later(check);
    } else if (rival) {
        held_check_ask_rival(check, record);
    } else {
        log_info("store %s: sample %s: its record is missing or not true: published again",
                 space->name, check->sample_id);
        republish(broker, space, check->sample_id, check->generation,
                  record ? record->generation : 0, check->first);
        check_end(check);
    }
}

/* The record names ours, but only because etcd had lost the other's and we were faster. */
static bool held_check_was_written_again(const struct held_check *check,
                                         const struct directory_record *record) {
    return record->generation == check->generation && record->again &&
           check->newer_age_us < held_check_age_us(check);
}

static void held_check_answer_asking(struct held_check *check,
                                     const struct directory_record *record) {
    struct broker *broker = check->broker;
    bool replaced =
        check->newer && record &&
        (record->generation == check->newer || held_check_was_written_again(check, record));
    bool named = record && record->generation == check->generation;
    /* Else the index names a third, or none. Whoever put that one asks us in its turn, unless the
     * record of ours was lost before: after so long it was, and ours is the newer one. */
    bool lost = check->newer_age_us > LOST_US && held_check_age_us(check) < check->newer_age_us;
    bool over = replaced || named || !held_check_still_holds(check) || !check->newer || lost;
    if (replaced)
        held_check_retire_held(check);
    else if (!named)
        held_check_own(broker, check->space, check->sample_id);
    if (check->asking)
        serve_refuse(check->asking, check->request_id,
                     over ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE,
                     over ? "" : "the index does not say now who has replaced it");
    check_end(check);
}

static void held_check_on_checked(void *context, enum directory_result result,
                                  const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct held_check *check = context;
    check->broker->exchange->held_walk.in_flight -= check->locating;
    if (check->locating)
        held_checks_wake(check->broker);
    check->locating = false;
    if (check->broker->exchange->closing)
        check_end(check);
    else if (check->own)
        held_check_mend(check, result, record);
    else
        held_check_answer_asking(check, record);
}

static void check_locate(struct held_check *check) {
    struct broker *broker = check->broker;
    check->locating = check->own;
    broker->exchange->held_walk.in_flight += check->own;
    broker->directory->ops->locate(broker->directory, check->space->name, check->sample_id,
                                   held_check_on_checked, check);
}

static void held_check_on_retry(struct deadline *retry, uint64_t now_ns) {
    struct held_check *check = container_of(retry, struct held_check, retry);
    (void)now_ns; /* broker->now_ns */
    check->broker->exchange->held_walk.waiting--;
    check_locate(check);
}

/* NULL: out of memory. */
static struct held_check *check_new(struct broker *broker, struct space *space,
                                    const struct store_info *held) {
    struct held_check *check = calloc(1, sizeof *check);
    if (!check)
        return NULL;
    check->broker = broker;
    deadline_init(&check->retry, held_check_on_retry);
    check->space = space;
    check->generation = held->generation;
    strcpy(check->sample_id, held->sample_id);
    space->uses++;
    TAILQ_INSERT_TAIL(&broker->exchange->held_checks, check, link);
    return check;
}

bool held_check_serve(struct asking *asking, uint32_t request_id, struct space *space,
                      const char *sample_id, const Fb__PeerRetire *asked) {
    struct store_info info;
    if (publish_is_on_the_way(asking->broker, space, sample_id)) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE,
                     "a put of it is on its way to the index");
        return true;
    }
    if (!held_find(space, sample_id, &info))
        return false;
    struct held_check *check = check_new(asking->broker, space, &info);
    if (!check) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the home is out of memory");
        return true;
    }
    check->asking = asking;
    check->charged = asking->account;
    account_add(check->charged, CHARGE_WAITS, 1);
    check->request_id = request_id;
    check->newer = asked->newer;
    check->newer_age_us = asked->newer_age_us;
    check_locate(check);
    return true;
}

void held_checks_forget(struct broker *broker, const struct asking *asking) {
    struct held_check *check;
    TAILQ_FOREACH (check, &broker->exchange->held_checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}

/* ---- our own ---- */

static struct held_check *held_check_find_own(const struct broker *broker,
                                              const struct space *space,
                                              const struct store_info *held) {
    struct held_check *check;
    TAILQ_FOREACH (check, &broker->exchange->held_checks, link)
        if (check->own && check->space == space && check->generation == held->generation)
            return check;
    return NULL;
}

static void check_own(struct broker *broker, struct space *space, const char *sample_id,
                      bool first) {
    struct store_info info;
    if (!held_find(space, sample_id, &info) || held_check_find_own(broker, space, &info))
        return;
    struct held_check *check = check_new(broker, space, &info);
    if (!check) {
        held_check_walk_again(broker, broker->now_ns + RETRY_NS);
        return;
    }
    check->own = true;
    check->first = first;
    broker->exchange->held_walk.first += first;
    check_locate(check);
}

void held_check_own(struct broker *broker, struct space *space, const char *sample_id) {
    check_own(broker, space, sample_id, false);
}

void held_check_first(struct broker *broker, struct space *space, const char *sample_id) {
    check_own(broker, space, sample_id, true);
}

void held_check_all(struct broker *broker) {
    if (broker->directory->ops->index && !BROKER_PLANTED(PLANTED_DEATH_UNCHECKED))
        held_check_walk_again(broker, broker->now_ns);
}

bool held_checks_are_due(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return walk->walking || walk->again || walk->due_count;
}

/* ---- what reconcile.c has found ---- */

void held_check_due(struct broker *broker, const struct space *space, uint64_t generation,
                    bool first) {
    struct held_walk *walk = &broker->exchange->held_walk;
    if (walk->due_count == walk->due_room) {
        size_t room = walk->due_room ? 2 * walk->due_room : 1024;
        struct held_due *due = reallocarray(walk->due, room, sizeof *due);
        if (!due) {
            held_check_walk_again(broker, broker->now_ns + RETRY_NS);
            return;
        }
        walk->due = due;
        walk->due_room = room;
    }
    walk->due[walk->due_count++] = (struct held_due){generation, space->index, first};
    walk->first += first;
    held_checks_wake(broker);
}

void held_checks_drop_due(struct broker *broker) {
    struct held_walk *walk = &broker->exchange->held_walk;
    for (size_t i = 0; i < walk->due_count; i++)
        walk->first -= walk->due[i].first;
    free(walk->due);
    walk->due = NULL;
    walk->due_count = walk->due_room = 0;
}

/* Not while this node is fenced: nothing that the index says is certain then. */
static bool held_check_may_take_due(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return walk->due_count && walk->in_flight < DUE_IN_FLIGHT_MAX &&
           walk->republishing < DUE_IN_FLIGHT_MAX &&
           broker->now_ns < broker->directory->ops->serves_until_ns(broker->directory);
}

static void held_check_take_due(struct broker *broker) {
    struct held_walk *walk = &broker->exchange->held_walk;
    for (uint32_t i = 0; i < DUE_A_TURN && held_check_may_take_due(broker); i++) {
        const struct held_due due = walk->due[--walk->due_count];
        struct space *space = &broker->spaces[due.space];
        struct store_info info;
        if (space->used && !space->dropped &&
            store_stat(space->store, NULL, 0, due.generation, &info) &&
            info.state == STORE_RESIDENT)
            check_own(broker, space, info.sample_id, due.first);
        walk->first -= due.first;
    }
    if (!walk->due_count)
        held_checks_drop_due(broker);
}

/* ---- all that is held ---- */

/* False: all stores have been walked. */
static bool held_check_step(struct broker *broker, struct held_walk *walk) {
    if (walk->space >= broker->space_end)
        return false;
    struct store_info info;
    struct space *space = &broker->spaces[walk->space];
    if (!space->used || space->dropped || !store_list_next(space->store, &walk->cursor, &info)) {
        walk->space++;
        walk->cursor = 0;
        return true;
    }
    if (info.state == STORE_RESIDENT && !info.landing)
        held_check_own(broker, space, info.sample_id);
    return true;
}

/* There is more to do now, of the walk or of what is due. Each of them is taken up to a limit of
 * questions that are under way at once; the answers wake it again. */
static bool held_check_may_go_on(const struct broker *broker) {
    const struct held_walk *walk = &broker->exchange->held_walk;
    return (walk->walking && walk->in_flight < OWN_IN_FLIGHT_MAX) ||
           held_check_may_take_due(broker);
}

static void held_check_on_go_on(struct deadline *go_on, uint64_t now_ns) {
    struct exchange *exchange = container_of(go_on, struct exchange, held_walk.go_on);
    struct broker *broker = exchange->broker;
    struct held_walk *walk = &exchange->held_walk;
    if (walk->due_count)
        held_check_take_due(broker);
    if (!walk->walking && walk->again && walk->next_ns <= now_ns) {
        walk->walking = true;
        walk->again = false;
        walk->next_ns = walk->cursor = walk->space = 0;
    }
    for (uint32_t i = 0; walk->walking && i < OWN_STEPS_MAX && walk->in_flight < OWN_IN_FLIGHT_MAX;
         i++)
        walk->walking = held_check_step(broker, walk);
    if (held_check_may_go_on(broker))
        held_checks_wake(broker); /* in the next turn */
    else if (walk->due_count)     /* the node is fenced, or answers wake it before */
        deadlines_set_earlier(&broker->deadlines, go_on, now_ns + DUE_RETRY_NS);
    if (walk->again && !walk->walking)
        deadlines_set_earlier(&broker->deadlines, go_on, walk->next_ns);
}

void held_checks_init(struct exchange *exchange) {
    deadline_init(&exchange->held_walk.go_on, held_check_on_go_on);
}

void held_checks_wake(struct broker *broker) {
    deadlines_set_earlier(&broker->deadlines, &broker->exchange->held_walk.go_on, broker->now_ns);
}

void held_checks_free(struct broker *broker) {
    struct held_check *check;
    while ((check = TAILQ_FIRST(&broker->exchange->held_checks)))
        check_end(check);
    held_checks_drop_due(broker);
}
