/* SPDX-License-Identifier: Apache-2.0
 *
 * The comparison of one sample's record in the index with what this node holds, for somebody who
 * wants to know the finding: a client of ours (requests/index.c), or another broker. held_check.c
 * compares the same things, but for the node's own sake, and tells nobody.
 *
 *   facts noted --> record read --> facts again --> judged --> (repair) mended --> answered
 *
 * The facts are noted twice because the sample may move while the record is being read: what
 * differs then is no finding (AUDIT_MOVING). What is wrong, and what mends it, cluster/audit.c
 * decides; it also has the sentences. A check goes on when whoever asked for it is gone, because a
 * repair that was begun is to be ended; it is then answered to nobody.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/held_check.h"
#include "exchange/index_check.h"
#include "exchange/nodes.h"
#include "exchange/publish.h"
#include "exchange/serve.h"
#include "proto/frame.h"

#define INDEX_SENTENCE_BYTES 768u /* three names of 64 bytes, a sample id of 128, and words */

struct index_check {
    TAILQ_ENTRY(index_check) link;
    struct broker *broker;
    index_checked_fn *done; /* NULL: another broker has asked */
    void *context;
    struct asking *asking;   /* NULL: it is gone, or there is none */
    struct account *charged; /* the asking node's; NULL: whoever gave the context is charged */
    uint32_t request_id;
    bool repair, record_only;
    struct space *space; /* NULL: no such store here */
    char store[LAYOUT_NAME_BYTES_MAX + 1], sample_id[LAYOUT_ID_BYTES_MAX + 1];
    struct audit_facts before, after;
    enum audit_finding finding;
    bool has_record;
    struct directory_record record;
    char home[LAYOUT_NAME_BYTES_MAX + 1];
};

/* ---- what this node holds ---- */

/* While this node is fenced, or has a put or a write of that sample under way, the record may
 * change under our eyes without anything being wrong. */
static struct audit_facts index_check_facts_of(const struct index_check *check) {
    const struct broker *broker = check->broker;
    const struct directory *directory = broker->directory;
    const struct space *space = check->space;
    struct audit_facts facts = {
        .moving = !broker_serves(broker) ||
                  directory->ops->audit->is_writing(directory, check->store, check->sample_id)};
    struct store_info info;
    if (!space)
        return facts;
    facts.moving |= publish_is_on_the_way(broker, space, check->sample_id) ||
                    publish_pursues(broker, space, check->sample_id, 0);
    if (!space->dropped &&
        store_stat(space->store, check->sample_id, (uint32_t)strlen(check->sample_id), 0, &info) &&
        info.state == STORE_RESIDENT && !info.landing)
        facts.held = info.generation;
    return facts;
}

/* ---- the answer ---- */

_Static_assert((int)AUDIT_AGREES == FB__FINDING__AGREES &&
                   (int)AUDIT_MOVING == FB__FINDING__MOVING &&
                   (int)AUDIT_HOME_DEAD == FB__FINDING__HOME_DEAD &&
                   (int)AUDIT_NOT_HELD == FB__FINDING__NOT_HELD &&
                   (int)AUDIT_NOT_RECORDED == FB__FINDING__NOT_RECORDED &&
                   (int)AUDIT_REPLACED == FB__FINDING__REPLACED &&
                   (int)AUDIT_OTHER_GENERATION == FB__FINDING__OTHER_GENERATION &&
                   (int)AUDIT_NOT_CHECKED == FB__FINDING__NOT_CHECKED,
               "a finding is sent as it is");

/* The record as cluster/audit.c takes it. Of no record all is 0, and no finding looks at it. */
static struct audit_record index_check_recorded(const struct index_check *check) {
    return (struct audit_record){.home = check->home,
                                 .generation = check->record.generation,
                                 .incarnation = check->record.incarnation};
}

static void index_check_fill_record(const struct index_check *check, Fb__IndexRecord *to) {
    fb__index_record__init(to);
    to->store = (char *)check->store;
    to->sample_id = (char *)check->sample_id;
    to->generation = check->record.generation;
    to->home = (char *)check->home;
    to->incarnation = check->record.incarnation;
    to->bytes = check->record.bytes;
    to->home_is_member = check->finding != AUDIT_HOME_DEAD;
}

/* The finding goes as it is: the other node says it to whoever asked there. */
static void index_check_answer_peer(struct index_check *check, Fb__IndexFinding *finding) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_INDEX_CHECK;
    reply.index_check = finding;
    if (check->asking)
        asker_reply(check->asking->asker, check->request_id, &reply, NULL, 0);
}

/* Answers, and frees the check. trouble: why the remedy could not be carried out; NULL = it was, or
 * none was asked for. */
static void index_check_finish(struct index_check *check, bool repaired, const char *trouble) {
    char sentence[INDEX_SENTENCE_BYTES], remedy[SENTENCE_BYTES];
    const char *node = check->broker->config->node;
    const struct audit_record recorded = index_check_recorded(check);
    Fb__IndexRecord record;
    Fb__IndexFinding finding = FB__INDEX_FINDING__INIT;
    cluster_audit_say(sentence, sizeof sentence, check->finding, check->store, check->sample_id,
                      node, check->after.held, check->has_record ? &recorded : NULL);
    cluster_audit_say_remedy(remedy, sizeof remedy, check->finding, node);
    index_check_fill_record(check, &record);
    finding.finding = (Fb__Finding)check->finding;
    finding.node = (char *)(check->record_only ? check->home : node);
    finding.record = check->has_record ? &record : NULL;
    finding.held = check->after.held;
    if (finding.held)
        finding.held_age_us = publish_age_us(check->broker, check->space, finding.held);
    finding.sentence = sentence;
    finding.remedy = (char *)(trouble ? trouble : remedy);
    finding.repaired = repaired;
    if (check->done)
        check->done(check->context, &finding);
    else
        index_check_answer_peer(check, &finding);
    TAILQ_REMOVE(&check->broker->exchange->index_checks, check, link);
    if (check->space)
        check->space->uses--;
    if (check->charged)
        accounts_release(check->broker, check->charged, CHARGE_WAITS, 1);
    free(check);
}

/* ---- the remedies ---- */

/* The directory has written the record, or has refused, because another one stands now. */
static void index_check_on_republished(void *context, enum directory_result result) {
    index_check_finish(context, result == DIRECTORY_OK,
                       result == DIRECTORY_OK ? NULL
                       : result == DIRECTORY_E_NOT_FOUND
                           ? "the record has changed meanwhile: check again"
                           : "the index cannot be written now: check again");
}

/* The record is written anew in place of the one that was read (0: of none). The directory refuses
 * it when another one stands by then, and the user is told to check again. */
static void index_check_publish_held(struct index_check *check, uint64_t in_place_of) {
    struct directory *directory = check->broker->directory;
    struct store_info info;
    check->broker->exchange->has_republished = true;
    store_stat(check->space->store, NULL, 0, check->after.held, &info);
    struct directory_record record = {
        .store = check->store,
        .sample_id = check->sample_id,
        .home = check->broker->config->node,
        .generation = check->after.held,
        .incarnation = check->broker->options.incarnation,
        .bytes = info.place.bytes,
    };
    directory->ops->republish(directory, &record, in_place_of, index_check_on_republished, check);
}

static void index_check_on_removed(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

/* By way of publish_clear(), because the record may be of a put that failed, which may have
 * replaced another node's record. Without the store here nothing of it can be held or be under way.
 */
static void index_check_remove_record(struct index_check *check) {
    struct directory *directory = check->broker->directory;
    if (check->space && !check->space->dropped)
        publish_clear(check->broker, check->space, check->sample_id, check->record.generation);
    else
        directory->ops->retire(directory, &check->record, index_check_on_removed, NULL);
    index_check_finish(check, true, NULL);
}

/* The record may be an old one, or of somebody's who never knew us: its home is asked. */
static void index_check_compare_homes(struct index_check *check) {
    held_check_own(check->broker, check->space, check->sample_id);
    index_check_finish(check, true, NULL);
}

/* removed: of the one record that was given. None: it is not that of a dead home any more, or a
 * member that may know more did not answer. */
static void index_check_on_swept(void *context, enum directory_result result, size_t removed) {
    index_check_finish(context, result == DIRECTORY_OK && removed,
                       result != DIRECTORY_OK ? "the index cannot be written now: check again"
                       : removed              ? NULL
                                 : "it has changed, or a member could not be asked: check again");
}

/* The finding has one remedy. Each of these paths ends in index_check_finish(), now or when the
 * directory has answered. */
static void index_check_mend(struct index_check *check) {
    log_info("index: store %s: sample %s: repairing: generation %llu held, %llu recorded",
             check->store, check->sample_id, (unsigned long long)check->after.held,
             (unsigned long long)check->record.generation);
    switch (cluster_audit_remedy(check->finding)) {
    case AUDIT_SWEEP:
        check->broker->directory->ops->audit->sweep(check->broker->directory, &check->record, 1,
                                                    index_check_on_swept, check);
        break;
    case AUDIT_REMOVE:
        index_check_remove_record(check);
        break;
    case AUDIT_PUBLISH:
        index_check_publish_held(check, 0);
        break;
    case AUDIT_PUBLISH_OVER:
        index_check_publish_held(check, check->record.generation);
        break;
    case AUDIT_COMPARE_HOMES:
        index_check_compare_homes(check);
        break;
    case AUDIT_NOTHING:
        index_check_finish(check, false, NULL);
    }
}

/* ---- a check ---- */

/* The record is valid only during the directory's call; its names are copied into the check. */
static void index_check_keep_record(struct index_check *check,
                                    const struct directory_record *record) {
    check->has_record = true;
    check->record = *record;
    check->record.store = check->store;
    check->record.sample_id = check->sample_id;
    snprintf(check->home, sizeof check->home, "%s", record->home);
    check->record.home = check->home;
}

/* The record has been read, or there is none, or the index cannot be asked. record_only asks
 * nothing of this node: any node can tell whether the home of a record lives. */
static void index_check_on_located(void *context, enum directory_result result,
                                   const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct index_check *check = context;
    struct broker *broker = check->broker;
    if (record)
        index_check_keep_record(check, record);
    check->after = index_check_facts_of(check);
    const struct audit_record recorded = index_check_recorded(check);
    const enum cluster_reading reading = nodes_reading(result);
    check->finding = check->record_only
                         ? cluster_audit_judge_record(reading)
                         : cluster_audit_judge(&check->before, &check->after, reading, &recorded,
                                               broker->config->node, broker->options.incarnation);
    if (check->repair)
        index_check_mend(check);
    else
        index_check_finish(check, false, NULL);
}

/* Names must be well-formed. NULL: out of memory. */
static struct index_check *index_check_new(struct broker *broker, const char *store,
                                           const char *sample_id, bool repair) {
    struct index_check *check = calloc(1, sizeof *check);
    if (!check)
        return NULL;
    check->broker = broker;
    check->repair = repair;
    check->space = space_find(broker, store);
    if (check->space)
        check->space->uses++;
    snprintf(check->store, sizeof check->store, "%s", store);
    snprintf(check->sample_id, sizeof check->sample_id, "%s", sample_id);
    TAILQ_INSERT_TAIL(&broker->exchange->index_checks, check, link);
    return check;
}

/* Begins it: the facts of this moment are kept until the record has been read. */
static void index_check_go(struct index_check *check) {
    struct directory *directory = check->broker->directory;
    check->before = index_check_facts_of(check);
    directory->ops->locate(directory, check->store, check->sample_id, index_check_on_located,
                           check);
}

bool index_check_here(struct broker *broker, const char *store, const char *sample_id, bool repair,
                      bool record_only, index_checked_fn *done, void *context) {
    struct index_check *check = index_check_new(broker, store, sample_id, repair);
    if (!check)
        return false;
    check->record_only = record_only;
    check->done = done;
    check->context = context;
    index_check_go(check);
    return true;
}

void index_serve_check(const struct serve_asked *asked) {
    struct asking *asking = asked->asking;
    struct broker *broker = asking->broker;
    const Fb__PeerIndexCheck *wanted = asked->message->index_check;
    if (!broker->directory->ops->audit || layout_check_name(wanted->store) ||
        layout_check_sample_id(wanted->sample_id)) {
        serve_refuse_malformed(asked, "it names no sample, or this node has no index");
        return;
    }
    struct charge_refusal full;
    if (!account_has_room(asking->account, CHARGE_WAITS, 1, &full)) {
        serve_refuse_full(asking, asked->request_id, &full);
        return;
    }
    struct index_check *check =
        index_check_new(broker, wanted->store, wanted->sample_id, wanted->repair);
    if (!check) {
        serve_refuse(asking, asked->request_id, FB__STATUS__UNAVAILABLE,
                     "the home is out of memory");
        return;
    }
    check->asking = asking;
    check->charged = asking->account;
    account_add(check->charged, CHARGE_WAITS, 1);
    check->request_id = asked->request_id;
    index_check_go(check);
}

/* The connection over which the answer would go is closed. */
void index_forget_checks(struct broker *broker, const struct asking *asking) {
    struct index_check *check;
    TAILQ_FOREACH (check, &broker->exchange->index_checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}
