/* SPDX-License-Identifier: Apache-2.0
 *
 * One sample that this node holds, against what the index says of it: the shell around
 * cluster/check.c, which has the table of states and says why each thing is decided. This file
 * reads the record of the sample, gathers the facts of that moment, and carries out what the
 * machine answers (a set of actions).
 *
 * Checks begin
 *   - when another node asks, whose put does not know what it has replaced (held_check_serve());
 *   - when a node has died: all that we hold (held_due_all(), held_walk.c);
 *   - when the index, read as a whole, does not name what we hold (held_due_one(), held_walk.c);
 *   - when a put or an admin has found that the record of one sample may be wrong
 *     (held_check_own()).
 *
 * A generation that is SEALED is not checked: it is on its way to the index. That it is not there
 * yet proves nothing, and who replaces it will name it.
 *
 * A check lives until the machine says CHECK_END. While it lives its store is not freed
 * (space->uses). There is one check of our own for each generation at most; they are found by hash
 * (held_walk.own).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/nodes.h"
#include "exchange/publish.h"
#include "exchange/serve.h"

/* Checks that wait to be begun again; more than that are found again by a walk over all. */
#define WAITING_MAX 1024u
/* After so long a check that could not be decided is begun again. */
#define RETRY_NS (1000 * NS_PER_MS)

struct held_check {
    struct check check;
    TAILQ_ENTRY(held_check) link;
    LIST_ENTRY(held_check) same_hash; /* of our own, in held_walk.own */
    struct broker *broker;
    struct asking *asking;   /* NULL: our own, or its connection is gone */
    struct account *charged; /* of the node that asks; NULL: our own */
    bool locating;           /* our own, counted in held_walk.in_flight */
    bool first;              /* counted in exchange->fencing */
    struct space *space;
    uint32_t request_id;
    struct deadline retry; /* our own: when it is begun again; not set: it is under way */
    struct directory_record rival;
    char rival_home[LAYOUT_NAME_BYTES_MAX + 1];
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

bool held_find(const struct space *space, const char *sample_id, struct store_info *info) {
    return !layout_check_sample_id(sample_id) &&
           store_stat(space->store, sample_id, (uint32_t)strlen(sample_id), 0, info) &&
           !info->landing && info->state == STORE_RESIDENT;
}

/* The sample may have been retired, or replaced here, while the index was asked. */
static bool held_check_still_holds(const struct held_check *check) {
    struct store_info info;
    return held_find(check->space, check->sample_id, &info) &&
           info.generation == check->check.generation;
}

static void held_check_end(struct held_check *check) {
    TAILQ_REMOVE(&check->broker->exchange->held_checks, check, link);
    check->broker->exchange->held_walk.waiting -= check->retry.queued;
    deadlines_clear(&check->broker->deadlines, &check->retry);
    fencing_let_go(&check->broker->exchange->fencing, check->first);
    if (check->check.own)
        LIST_REMOVE(check, same_hash);
    check->space->uses--;
    if (check->charged)
        accounts_release(check->broker, check->charged, CHARGE_WAITS, 1);
    free(check);
}

/* It cannot be decided now, for example because the rival's node does not answer: the check is
 * begun again after a while. So that a million of them take no memory, only some wait; the others
 * are dropped, and all that is held is walked over instead. */
static void held_check_later(struct held_check *check) {
    struct held_walk *walk = &check->broker->exchange->held_walk;
    uint64_t at_ns = check->broker->now_ns + RETRY_NS;
    /* One that takes long does not keep the node from serving. */
    fencing_let_go(&check->broker->exchange->fencing, check->first);
    check->first = false;
    if (walk->waiting < WAITING_MAX) {
        deadlines_set(&check->broker->deadlines, &check->retry, at_ns);
        walk->waiting++;
        return;
    }
    held_due_all_at(check->broker, at_ns);
    held_check_end(check);
}

static void held_check_carry_out(struct held_check *check, unsigned actions);

static void held_check_retire_held(struct held_check *check) {
    bool retired;
    store_retire(check->space->store, check->sample_id, (uint32_t)strlen(check->sample_id),
                 check->check.generation, STORE_SUPERSEDED, check->broker->now_ns, &retired);
}

static uint64_t held_check_age_us(const struct held_check *check) {
    return publish_age_us(check->broker, check->space, check->check.generation);
}

/* ---- a rival: the record names what another home has, and it lives ---- */

static void held_check_on_rival_retired(void *context, const Fb__PeerReply *reply,
                                        const uint8_t *payload, size_t payload_bytes,
                                        const char *why) {
    (void)reply, (void)payload, (void)payload_bytes, (void)why;
    struct held_check *check = context;
    held_check_carry_out(check, check_rival_ended(&check->check));
}

/* It is older than what we hold: its home is told to retire it, as by a put that has replaced it.
 * The answer is not looked at; the next look at the record shows whether it was done. */
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
        held_check_carry_out(check, check_rival_ended(&check->check));
}

/* Both are there and both were put: which of them ended the other was known to a record or a kept
 * end that is lost. */
static void held_check_tell_rivalry(const struct held_check *check, uint64_t rival_age_us) {
    log_warning("store %s: sample %s is here (generation %" PRIu64 ", put %" PRIu64
                " ms ago) and at node %s (%" PRIu64 ", %" PRIu64
                " ms), and the index has lost which of them replaced the other: the older goes",
                check->space->name, check->sample_id, check->check.generation,
                held_check_age_us(check) / 1000, check->rival_home, check->rival.generation,
                rival_age_us / 1000);
}

/* The rival's home has answered: what it holds, since when, and whether the record agrees. */
static void held_check_on_rival(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes, (void)why;
    struct held_check *check = context;
    const Fb__IndexFinding *found =
        reply && reply->result_case == FB__PEER_REPLY__RESULT_INDEX_CHECK ? reply->index_check
                                                                          : NULL;
    const unsigned actions = check_rival_answered(
        &check->check, found ? found->held : 0, found && found->finding == FB__FINDING__AGREES,
        found ? found->held_age_us : 0, held_check_age_us(check), held_check_still_holds(check));
    if (found && actions & (CHECK_RETIRE_HELD | CHECK_RETIRE_RIVAL))
        held_check_tell_rivalry(check, found->held_age_us);
    held_check_carry_out(check, actions);
}

/* The home that the record names is asked to compare the sample with the index, too. If it does not
 * hold it, it removes the record. When it cannot be asked, that counts as no answer. */
static void held_check_ask_rival(struct held_check *check) {
    struct broker *broker = check->broker;
    struct peer *peer = peers_find(broker->peers, check->rival_home);
    Fb__PeerIndexCheck asked = FB__PEER_INDEX_CHECK__INIT;
    asked.store = check->space->name;
    asked.sample_id = check->sample_id;
    asked.repair = true;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_INDEX_CHECK;
    request.index_check = &asked;
    if (!peer || peer_call(peer, &request, held_check_on_rival, check, broker->now_ns) < 0)
        held_check_on_rival(check, NULL, NULL, 0, "");
}

/* ---- what the index says ---- */

static bool held_check_is_ours(const struct held_check *check,
                               const struct directory_record *record) {
    return record->incarnation == check->broker->options.incarnation &&
           !strcmp(record->home, check->broker->config->node);
}

/* All that the machine needs to know of the world, at one moment. */
static struct check_facts held_check_facts(const struct held_check *check,
                                           enum directory_result result,
                                           const struct directory_record *record) {
    const struct broker *broker = check->broker;
    const struct directory *directory = broker->directory;
    const struct directory_audit_ops *audit = directory->ops->audit;
    struct check_facts facts = {
        .reading = nodes_reading(result),
        .holds = held_check_still_holds(check),
        .may_mend = fencing_may_mend(nodes_fencing(broker)),
        .age_us = held_check_age_us(check),
        .closing = broker->exchange->closing,
    };
    facts.index_remembers = audit && audit->remembers(directory, facts.age_us);
    if (!record)
        return facts;
    facts.recorded = record->generation;
    facts.recorded_again = record->again;
    facts.recorded_here = held_check_is_ours(check, record);
    facts.recorded_before = nodes_have_lost(broker, result, record);
    facts.home_is_dead = nodes_is_dead(broker, record->home, record->incarnation);
    facts.put_under_way = publish_is_of(broker, check->space, record->generation);
    return facts;
}

static void held_check_republish(struct held_check *check) {
    log_info("store %s: sample %s: its record is missing or not true: published again",
             check->space->name, check->sample_id);
    republish(check->broker, check->space, check->sample_id, check->check.generation,
              check->rival.generation, check->first);
}

/* To the node that asked. over: nothing older can be read here any more. */
static void held_check_answer(struct held_check *check, bool over) {
    if (check->asking)
        serve_refuse(check->asking, check->request_id,
                     over ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE,
                     over ? "" : "the index does not say now who has replaced it");
}

static void held_check_locate(struct held_check *check);

/* Frees it when it is over. The last of the actions may lead to the next event. */
static void held_check_carry_out(struct held_check *check, unsigned actions) {
    if (actions & CHECK_RETIRE_HELD)
        held_check_retire_held(check);
    if (actions & CHECK_REPUBLISH)
        held_check_republish(check);
    if (actions & CHECK_CHECK_OWN)
        held_check_own(check->broker, check->space, check->sample_id);
    if (actions & (CHECK_ANSWER_YES | CHECK_ANSWER_NO))
        held_check_answer(check, actions & CHECK_ANSWER_YES);
    if (actions & CHECK_LOCATE)
        held_check_locate(check);
    else if (actions & CHECK_ASK_RIVAL)
        held_check_ask_rival(check);
    else if (actions & CHECK_RETIRE_RIVAL)
        held_check_retire_rival(check);
    else if (actions & CHECK_WAIT)
        held_check_later(check);
    else if (actions & CHECK_END)
        held_check_end(check);
}

static void held_check_on_checked(void *context, enum directory_result result,
                                  const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct held_check *check = context;
    check->broker->exchange->held_walk.in_flight -= check->locating;
    if (check->locating)
        held_due_wake(check->broker);
    check->locating = false;
    /* Kept for what follows: the record itself does not outlive this call. */
    check->rival = record ? *record : (struct directory_record){0};
    if (record)
        snprintf(check->rival_home, sizeof check->rival_home, "%s", record->home);
    const struct check_facts facts = held_check_facts(check, result, record);
    held_check_carry_out(check, check_located(&check->check, &facts));
}

/* Only our own are counted: those of other nodes are limited by what these nodes may ask. */
static void held_check_locate(struct held_check *check) {
    struct broker *broker = check->broker;
    check->locating = check->check.own;
    broker->exchange->held_walk.in_flight += check->check.own;
    broker->directory->ops->locate(broker->directory, check->space->name, check->sample_id,
                                   held_check_on_checked, check);
}

static void held_check_on_retry(struct deadline *retry, uint64_t now_ns) {
    struct held_check *check = container_of(retry, struct held_check, retry);
    (void)now_ns; /* broker->now_ns */
    check->broker->exchange->held_walk.waiting--;
    held_check_carry_out(check, check_retry(&check->check));
}

/* NULL: out of memory. */
static struct held_check *held_check_new(struct broker *broker, struct space *space,
                                         const struct store_info *held) {
    struct held_check *check = calloc(1, sizeof *check);
    if (!check)
        return NULL;
    check->broker = broker;
    deadline_init(&check->retry, held_check_on_retry);
    check->space = space;
    check->check.generation = held->generation;
    strcpy(check->sample_id, held->sample_id);
    space->uses++;
    TAILQ_INSERT_TAIL(&broker->exchange->held_checks, check, link);
    return check;
}

void held_check_serve(const struct serve_asked *asked, struct space *space, const char *sample_id) {
    struct asking *asking = asked->asking;
    struct store_info info;
    if (publish_is_on_the_way(asking->broker, space, sample_id)) {
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "a put of it is on its way to the index");
        return;
    }
    if (!held_find(space, sample_id, &info)) {
        serve_confirm(asked); /* there is nothing that the asking node's put could replace */
        return;
    }
    struct held_check *check = held_check_new(asking->broker, space, &info);
    if (!check) {
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "the home is out of memory");
        return;
    }
    check->asking = asking;
    check->charged = asking->account;
    account_add(check->charged, CHARGE_WAITS, 1);
    check->request_id = asked->request_id;
    check->check.newer = asked->message->retire->newer;
    check->check.newer_age_us = asked->message->retire->newer_age_us;
    held_check_carry_out(check, check_begin(&check->check));
}

void held_checks_forget(struct broker *broker, const struct asking *asking) {
    struct held_check *check;
    TAILQ_FOREACH (check, &broker->exchange->held_checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}

/* ---- our own ---- */

/* Generations are given out one after the other, so that their low bits spread well. */
static struct held_check_list *held_check_bucket(struct broker *broker, uint64_t generation) {
    return &broker->exchange->held_walk.own[generation % HELD_CHECK_BUCKETS];
}

static struct held_check *held_check_find_own(struct broker *broker, const struct space *space,
                                              const struct store_info *held) {
    struct held_check *check;
    LIST_FOREACH (check, held_check_bucket(broker, held->generation), same_hash)
        if (check->space == space && check->check.generation == held->generation)
            return check;
    return NULL;
}

/* Nothing is begun for what is not held as a home, or what has a check already. */
static void held_check_begin_own(struct broker *broker, struct space *space, const char *sample_id,
                                 bool first) {
    struct store_info info;
    if (!held_find(space, sample_id, &info) || held_check_find_own(broker, space, &info))
        return;
    struct held_check *check = held_check_new(broker, space, &info);
    if (!check) {
        held_due_all_at(broker, broker->now_ns + RETRY_NS);
        return;
    }
    check->check.own = true;
    LIST_INSERT_HEAD(held_check_bucket(broker, info.generation), check, same_hash);
    check->first = first;
    fencing_hold(&broker->exchange->fencing, first);
    held_check_carry_out(check, check_begin(&check->check));
}

void held_check_own(struct broker *broker, struct space *space, const char *sample_id) {
    held_check_begin_own(broker, space, sample_id, false);
}

void held_check_first(struct broker *broker, struct space *space, const char *sample_id) {
    held_check_begin_own(broker, space, sample_id, true);
}

void held_checks_free(struct broker *broker) {
    struct held_check *check;
    while ((check = TAILQ_FIRST(&broker->exchange->held_checks)))
        held_check_end(check);
    held_due_drop(broker);
}
