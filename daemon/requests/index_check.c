/* SPDX-License-Identifier: Apache-2.0
 *
 * `featurectl index check`: pages of the index for whoever audits it, and the comparison of one
 * sample's record with what one node holds, by that node itself.
 *
 *   item --(its node is another)--> PeerIndexCheck --> a check there
 *        \-(this node, or none)---> a check here
 *   check: facts noted --> record read --> facts again --> judged --> (repair) mended --> answered
 *
 * A check belongs to an item of a client (through its ask) or to another broker (asking); it goes
 * on when they are gone, and is answered to nobody then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/index_judge.h"
#include "proto/frame.h"
#include "requests/kinds.h"

#define INDEX_SENTENCE_BYTES 768u

struct check {
    TAILQ_ENTRY(check) link;
    struct broker *broker;
    struct ask *ask;
    struct asking *asking;
    struct account *charged; /* the asking node's; NULL: an item's ask is charged */
    uint32_t request_id;
    bool repair, record_only;
    struct space *space; /* NULL: no such store here */
    char store[LAYOUT_NAME_BYTES_MAX + 1], sample_id[LAYOUT_ID_BYTES_MAX + 1];
    struct index_facts before, after;
    Fb__Finding finding;
    bool has_record;
    struct directory_record record;
    char home[LAYOUT_NAME_BYTES_MAX + 1];
};

/* ---- what this node holds ---- */

static struct index_facts index_check_facts_of(const struct check *check) {
    const struct broker *broker = check->broker;
    const struct directory *directory = broker->directory;
    const struct space *space = check->space;
    struct index_facts facts = {
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

static void index_check_fill_record(const struct check *check, Fb__IndexRecord *to) {
    fb__index_record__init(to);
    to->store = (char *)check->store;
    to->sample_id = (char *)check->sample_id;
    to->generation = check->record.generation;
    to->home = (char *)check->home;
    to->incarnation = check->record.incarnation;
    to->bytes = check->record.bytes;
    to->home_is_member = check->finding != FB__FINDING__HOME_DEAD;
}

static void index_check_answer_item(struct check *check, const Fb__IndexFinding *finding) {
    struct item *item = ask_take(check->ask);
    if (item)
        item_answer(item, &finding->base);
}

static void index_check_answer_peer(struct check *check, Fb__IndexFinding *finding) {
    Fb__PeerReply reply = FB__PEER_REPLY__INIT;
    reply.result_case = FB__PEER_REPLY__RESULT_INDEX_CHECK;
    reply.index_check = finding;
    if (check->asking)
        asker_reply(check->asking->asker, check->request_id, &reply, NULL, 0);
}

/* trouble: why the remedy could not be carried out; NULL = it was, or none was asked for. */
static void index_check_finish(struct check *check, bool repaired, const char *trouble) {
    char sentence[INDEX_SENTENCE_BYTES], remedy[SENTENCE_BYTES];
    const char *node = check->broker->config->node;
    Fb__IndexRecord record;
    Fb__IndexFinding finding = FB__INDEX_FINDING__INIT;
    index_say(sentence, sizeof sentence, check->finding, check->store, check->sample_id, node,
              check->after.held, check->has_record ? &check->record : NULL);
    index_say_remedy(remedy, sizeof remedy, check->finding, node);
    index_check_fill_record(check, &record);
    finding.finding = check->finding;
    finding.node = (char *)(check->record_only ? check->home : node);
    finding.record = check->has_record ? &record : NULL;
    finding.held = check->after.held;
    if (finding.held)
        finding.held_age_us = publish_age_us(check->broker, check->space, finding.held);
    finding.sentence = sentence;
    finding.remedy = (char *)(trouble ? trouble : remedy);
    finding.repaired = repaired;
    if (check->ask)
        index_check_answer_item(check, &finding);
    else
        index_check_answer_peer(check, &finding);
    TAILQ_REMOVE(&check->broker->index_checks, check, link);
    if (check->space)
        check->space->uses--;
    if (check->charged)
        accounts_release(check->broker, check->charged, CHARGE_WAITS, 1);
    free(check);
}

/* ---- the remedies ---- */

static void index_check_on_republished(void *context, enum directory_result result) {
    index_check_finish(context, result == DIRECTORY_OK,
                       result == DIRECTORY_OK ? NULL
                       : result == DIRECTORY_E_NOT_FOUND
                           ? "the record has changed meanwhile: check again"
                           : "the index cannot be written now: check again");
}

static void index_check_publish_held(struct check *check, uint64_t in_place_of) {
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
        .bytes = info.extent_bytes,
    };
    directory->ops->republish(directory, &record, in_place_of, index_check_on_republished, check);
}

static void index_check_on_removed(void *context, enum directory_result result) {
    (void)context, (void)result; /* the directory retries and counts in pending() by itself */
}

static void index_check_remove_record(struct check *check) {
    struct directory *directory = check->broker->directory;
    if (check->space && !check->space->dropped)
        publish_clear(check->broker, check->space, check->sample_id, check->record.generation);
    else
        directory->ops->retire(directory, &check->record, index_check_on_removed, NULL);
    index_check_finish(check, true, NULL);
}

/* The record may be an old one, or of somebody's who never knew us: its home is asked. */
static void index_check_compare_homes(struct check *check) {
    held_check_own(check->broker, check->space, check->sample_id);
    index_check_finish(check, true, NULL);
}

static void index_check_on_swept(void *context, enum directory_result result, size_t removed) {
    index_check_finish(context, result == DIRECTORY_OK && removed,
                       result != DIRECTORY_OK ? "the index cannot be written now: check again"
                       : removed              ? NULL
                                 : "it has changed, or a member could not be asked: check again");
}

static void index_check_mend(struct check *check) {
    log_info("index: store %s: sample %s: repairing: generation %llu held, %llu recorded",
             check->store, check->sample_id, (unsigned long long)check->after.held,
             (unsigned long long)check->record.generation);
    switch (check->finding) {
    case FB__FINDING__HOME_DEAD:
        check->broker->directory->ops->audit->sweep(check->broker->directory, &check->record, 1,
                                                    index_check_on_swept, check);
        break;
    case FB__FINDING__NOT_HELD:
        index_check_remove_record(check);
        break;
    case FB__FINDING__NOT_RECORDED:
        index_check_publish_held(check, 0);
        break;
    case FB__FINDING__OTHER_GENERATION:
        index_check_publish_held(check, check->record.generation);
        break;
    case FB__FINDING__REPLACED:
        index_check_compare_homes(check);
        break;
    default:
        index_check_finish(check, false, NULL);
    }
}

/* ---- a check ---- */

static void index_check_keep_record(struct check *check, const struct directory_record *record) {
    check->has_record = true;
    check->record = *record;
    check->record.store = check->store;
    check->record.sample_id = check->sample_id;
    snprintf(check->home, sizeof check->home, "%s", record->home);
    check->record.home = check->home;
}

static void index_check_on_located(void *context, enum directory_result result,
                                   const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct check *check = context;
    struct broker *broker = check->broker;
    if (record)
        index_check_keep_record(check, record);
    check->after = index_check_facts_of(check);
    check->finding = check->record_only
                         ? index_judge_record(result)
                         : index_judge(&check->before, &check->after, result, &check->record,
                                       broker->config->node, broker->options.incarnation);
    if (check->repair)
        index_check_mend(check);
    else
        index_check_finish(check, false, NULL);
}

/* Names must be well-formed. NULL: out of memory. */
static struct check *check_new(struct broker *broker, const char *store, const char *sample_id,
                               bool repair) {
    struct check *check = calloc(1, sizeof *check);
    if (!check)
        return NULL;
    check->broker = broker;
    check->repair = repair;
    check->space = space_find(broker, store);
    if (check->space)
        check->space->uses++;
    snprintf(check->store, sizeof check->store, "%s", store);
    snprintf(check->sample_id, sizeof check->sample_id, "%s", sample_id);
    TAILQ_INSERT_TAIL(&broker->index_checks, check, link);
    return check;
}

static void check_begin(struct check *check) {
    struct directory *directory = check->broker->directory;
    check->before = index_check_facts_of(check);
    directory->ops->locate(directory, check->store, check->sample_id, index_check_on_located,
                           check);
}

void index_serve_check(struct asking *asking, uint32_t request_id,
                       const Fb__PeerIndexCheck *asked) {
    struct broker *broker = asking->broker;
    if (!broker->directory->ops->audit || layout_check_name(asked->store) ||
        layout_check_sample_id(asked->sample_id)) {
        serve_refuse(asking, request_id, FB__STATUS__INVALID,
                     "a check of a sample without a name, or of a node without an index");
        return;
    }
    struct charge_refusal full;
    if (!account_has_room(asking->account, CHARGE_WAITS, 1, &full)) {
        serve_refuse_full(asking, request_id, &full);
        return;
    }
    struct check *check = check_new(broker, asked->store, asked->sample_id, asked->repair);
    if (!check) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the home is out of memory");
        return;
    }
    check->asking = asking;
    check->charged = asking->account;
    account_add(check->charged, CHARGE_WAITS, 1);
    check->request_id = request_id;
    check_begin(check);
}

void index_forget_checks(struct broker *broker, const struct asking *asking) {
    struct check *check;
    TAILQ_FOREACH (check, &broker->index_checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}

/* ---- a client's items ---- */

static void check_here(struct item *item, const char *store, bool repair) {
    struct check *check = check_new(item->call->broker, store, item->ref.sample_id, repair);
    struct ask *ask = check ? ask_new(item, NULL) : NULL;
    if (!ask) {
        if (check) {
            TAILQ_REMOVE(&check->broker->index_checks, check, link);
            if (check->space)
                check->space->uses--;
            free(check);
        }
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    check->ask = ask;
    check->record_only = !*item->ref.home;
    check_begin(check);
}

static void index_check_on_peer(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct item *item = ask_take(context);
    if (!item)
        return;
    if (!reply || reply->result_case != FB__PEER_REPLY__RESULT_INDEX_CHECK) {
        item_done(item, FB__STATUS__UNAVAILABLE, "node %s: %s", item->ref.home,
                  ask_failure(reply, why));
        return;
    }
    item_answer(item, &reply->index_check->base);
}

static void check_there(struct item *item, const char *store, bool repair) {
    struct broker *broker = item->call->broker;
    struct peer *peer = peers_find(broker->peers, item->ref.home);
    Fb__PeerIndexCheck check = FB__PEER_INDEX_CHECK__INIT;
    check.store = (char *)store;
    check.sample_id = item->ref.sample_id;
    check.repair = repair;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_INDEX_CHECK;
    request.index_check = &check;
    if (peer && !ask_send(ask_new(item, peer), &request, index_check_on_peer))
        return;
    item_done(item, FB__STATUS__UNAVAILABLE, "node %s is no peer of node %s, or cannot be asked",
              item->ref.home, broker->config->node);
}

static void check_one(struct item *item, const char *store, const Fb__IndexCheckItem *asked,
                      bool repair) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, 0, asked->node, 0))
        return;
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    if (!*asked->node || !strcmp(asked->node, broker->config->node))
        check_here(item, store, repair);
    else
        check_there(item, store, repair);
}

static void index_answer(const struct call *call) {
    Fb__IndexFinding failed[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        const struct item *item = call_item(call, i);
        pointers[i] =
            item->answer ? fb__index_finding__unpack(NULL, item->answer_bytes, item->answer) : NULL;
        if (pointers[i])
            continue;
        fb__index_finding__init(&failed[i]);
        failed[i].finding = FB__FINDING__NOT_CHECKED;
        failed[i].node = (char *)item->ref.home;
        failed[i].sentence =
            item->status == FB__STATUS__OK ? (char *)NO_MEMORY_FOR_ANSWER : item_error(item);
        pointers[i] = &failed[i];
    }
    Fb__IndexCheckReply result = FB__INDEX_CHECK_REPLY__INIT;
    result.n_items = call->count;
    result.items = pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_INDEX_CHECK;
    reply.index_check = &result;
    call_send(call, &reply);
    for (uint32_t i = 0; i < call->count; i++)
        if (pointers[i] != &failed[i])
            fb__index_finding__free_unpacked(pointers[i], NULL);
}

/* ---- requests ---- */

/* False: refused. */
static bool index_check_has_index(const struct request *request) {
    const struct broker_session *session = request->session;
    char sentence[SENTENCE_BYTES];
    if (session->broker->directory->ops->audit)
        return true;
    snprintf(
        sentence, sizeof sentence,
        "directory = %s keeps no index: each node answers for its own samples alone, and there "
        "is nothing to check",
        session->broker->directory->ops->name);
    request_reply(request, FB__STATUS__UNSUPPORTED, sentence);
    return false;
}

static void index_check(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__IndexCheck *asked = request->message->index_check;
    if (asked->n_items > FRAME_BATCH_ITEMS_MAX || layout_check_name(asked->store)) {
        request->breach = "a check of more than 256 items, or of no store";
        return;
    }
    if (!session->admin) {
        request_reply(request, FB__STATUS__DENIED, "only admins may check the index");
        return;
    }
    if (!index_check_has_index(request))
        return;
    struct call *call = call_new(request, NULL, asked->n_items);
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    for (size_t i = 0; i < asked->n_items; i++)
        check_one(call_item(call, i), asked->store, asked->items[i], asked->repair);
    call_begun(call);
}

/* ---- pages of the index ---- */

static void index_check_fill_listed(const struct broker *broker,
                                    const struct directory_listed *from, Fb__IndexRecord *to) {
    uint64_t unix_ms = (broker->now_ns + broker->options.unix_offset_ns) / NS_PER_MS;
    fb__index_record__init(to);
    to->store = (char *)from->record.store;
    to->sample_id = (char *)from->record.sample_id;
    to->generation = from->record.generation;
    to->home = (char *)from->record.home;
    to->incarnation = from->record.incarnation;
    to->bytes = from->record.bytes;
    to->age_ms = unix_ms > from->unix_ms ? unix_ms - from->unix_ms : 0;
    to->home_is_member = from->home_is_member;
}

/* The call has one item and has been begun before the index is read: it is answered while the page
 * is still there. */
struct index_page_item {
    struct item item;
    Fb__IndexListReply *page;
};

static void index_check_on_page(void *context, enum directory_result result,
                                const struct directory_listed *listed, size_t count,
                                size_t unreadable, const char *next) {
    struct item *item = ask_take(context);
    if (!item)
        return;
    if (result != DIRECTORY_OK) {
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "the index cannot be read: etcd does not answer node %s",
                  item->call->broker->config->node);
        return;
    }
    Fb__IndexRecord records[DIRECTORY_PAGE_RECORDS], *pointers[DIRECTORY_PAGE_RECORDS];
    Fb__IndexListReply page = FB__INDEX_LIST_REPLY__INIT;
    for (size_t i = 0; i < count; i++) {
        index_check_fill_listed(item->call->broker, &listed[i], &records[i]);
        pointers[i] = &records[i];
    }
    page.n_records = count;
    page.records = pointers;
    page.cursor = (char *)next;
    page.unreadable = unreadable;
    container_of(item, struct index_page_item, item)->page = &page;
    item_done(item, FB__STATUS__OK, NULL);
}

static void index_list_answer(const struct call *call) {
    const struct item *item = call_item(call, 0);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    if (item->status == FB__STATUS__OK) {
        reply.result_case = FB__CLIENT_REPLY__RESULT_INDEX_LIST;
        reply.index_list = container_of(item, struct index_page_item, item)->page;
    }
    call_send(call, &reply);
}

static void index_list(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__IndexList *asked = request->message->index_list;
    const struct attachment *attachment = session_attachment(session, asked->handle);
    const char *store = attachment ? attachment->space->name : *asked->store ? asked->store : NULL;
    if (!attachment && (!session->admin || (store && layout_check_name(store)))) {
        request_reply(request, FB__STATUS__DENIED,
                      "only admins may look through the index beyond stores they have opened");
        return;
    }
    if (!index_check_has_index(request))
        return;
    struct call *call = call_new(request, NULL, 1);
    if (!call)
        return;
    struct item *item = call_item(call, 0);
    call_begun(call);
    struct ask *ask = ask_new(item, NULL);
    struct directory *directory = session->broker->directory;
    if (ask)
        directory->ops->audit->list(directory, store, asked->cursor, index_check_on_page, ask);
    else
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
}

const struct request_kind index_check_kind = {
    .begin = index_check,
    .item_bytes = sizeof(struct item),
    .answer = index_answer,
};
const struct request_kind index_list_kind = {
    .begin = index_list,
    .item_bytes = sizeof(struct index_page_item),
    .answer = index_list_answer,
};
