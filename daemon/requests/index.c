/* SPDX-License-Identifier: Apache-2.0
 *
 * The index, for whoever audits it: its pages, and `featurectl index check`, which compares each
 * sample's record with what one node holds.
 *
 *   a check, item by item:
 *     new --its node is another one---> that node is asked (PeerIndexCheck) --> done
 *       \---its node is this or none--> compared here (exchange/index_check.c) --> done
 *   a page:
 *     new -> the directory is asked for it -> sent from the directory's own memory -> done
 *
 * A page of the index is read from etcd as it is at that moment, and what a node holds changes all
 * the time. A record may be listed, and be gone when its sample is checked: the check then says so.
 * What was listed is therefore never taken for a finding by itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "requests/kinds.h"

/* ---- one sample of a check ---- */

struct finding_item {
    struct item item;
    Fb__IndexFinding *finding; /* malloc'ed; NULL: it could not be checked */
    Fb__IndexFinding none;     /* for the answer then */
};

static struct finding_item *index_finding_of(const struct item *item) {
    return container_of(item, struct finding_item, item);
}

/* The finding of a check is gone when the check is, and the call may have other items to wait for.
 * NULL: out of memory. */
static Fb__IndexFinding *index_copy_of(const Fb__IndexFinding *from) {
    size_t bytes = fb__index_finding__get_packed_size(from);
    cleanup_free uint8_t *packed = malloc(bytes + 1);
    if (!packed)
        return NULL;
    fb__index_finding__pack(from, packed);
    return fb__index_finding__unpack(NULL, bytes, packed);
}

/* May be called while the item is being begun, or much later. */
static void index_on_checked(void *context, const Fb__IndexFinding *finding) {
    struct item *item = ask_take(context);
    if (!item)
        return;
    index_finding_of(item)->finding = index_copy_of(finding);
    if (index_finding_of(item)->finding)
        item_done(item, FB__STATUS__OK, NULL);
    else
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory for what it found");
}

/* The check is a thing of its own (exchange/index_check.c) that goes on without the item; what ties
 * them is the ask, which is an orphan when the item is gone. */
static void index_check_own(struct item *item, const char *store, bool repair) {
    struct ask *ask = ask_new(item, NULL);
    bool record_only = !*item->ref.home;
    if (ask && index_check_here(item->call->broker, store, item->ref.sample_id, repair, record_only,
                                index_on_checked, ask))
        return;
    if (ask)
        ask_take(ask);
    item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
}

/* Whatever else that node has said, without a finding there is nothing to pass on but why. */
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
    index_finding_of(item)->finding = peer_reply_take(reply, index_check);
    item_done(item, FB__STATUS__OK, NULL);
}

/* That node compares the record with what it holds itself: nobody else can. */
static void index_check_there(struct item *item, const char *store, bool repair) {
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

/* An item without a node is about the record alone: is its home dead? Any node can tell. */
static void index_check_one(struct item *item, const char *store, const Fb__IndexCheckItem *asked,
                            bool repair) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, 0, asked->node, 0))
        return;
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    if (!*asked->node || !strcmp(asked->node, broker->config->node))
        index_check_own(item, store, repair);
    else
        index_check_there(item, store, repair);
}

/* NOT_CHECKED says that nothing is known of the sample, and why. It is no finding about the index.
 */
static Fb__IndexFinding *index_result(const struct item *item) {
    struct finding_item *result = index_finding_of(item);
    if (result->finding)
        return result->finding;
    fb__index_finding__init(&result->none);
    result->none.finding = FB__FINDING__NOT_CHECKED;
    result->none.node = (char *)item->ref.home;
    result->none.sentence = item_error(item);
    return &result->none;
}

/* One finding for each sample that was asked about, in the order of the request. */
static void index_check_answer(const struct call *call) {
    Fb__IndexFinding *findings[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < call->count; i++)
        findings[i] = index_result(call_item(call, i));
    Fb__IndexCheckReply result = FB__INDEX_CHECK_REPLY__INIT;
    result.n_items = call->count;
    result.items = findings;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_INDEX_CHECK;
    reply.index_check = &result;
    call_send(call, &reply);
}

static void index_check_free_item(struct item *item) {
    if (index_finding_of(item)->finding)
        fb__index_finding__free_unpacked(index_finding_of(item)->finding, NULL);
}

/* ---- requests ---- */

/* False: refused. With `directory = static` there is no index, and nothing to audit. */
static bool index_is_there(const struct request *request) {
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

/* Admins only: a check may name samples of any store, and a repair writes to the index on behalf of
 * the node. */
static void index_check_begin(struct request *request) {
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
    if (!index_is_there(request))
        return;
    struct call *call = call_new(request, NULL, asked->n_items);
    if (!call)
        return;
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    for (size_t i = 0; i < asked->n_items; i++)
        index_check_one(call_item(call, i), asked->store, asked->items[i], asked->repair);
    call_begun(call);
}

/* ---- pages of the index ---- */

/* Records carry the wall-clock time of their node: the age is what the clocks of two machines say
 * together, never negative. */
static void index_fill_listed(const struct broker *broker, const struct directory_listed *from,
                              Fb__IndexRecord *to) {
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

/* `page` lives on this function's stack. item_done() packs and sends the answer before it returns,
 * because the item is the call's only one and the call has been begun already. */
static void index_on_page(void *context, enum directory_result result,
                          const struct directory_listed *listed, size_t count, size_t unreadable,
                          const char *next) {
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
        index_fill_listed(item->call->broker, &listed[i], &records[i]);
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

/* A client may look through the records of the store that it has opened; an admin through all. */
static void index_list_begin(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__IndexList *asked = request->message->index_list;
    const struct attachment *attachment = session_attachment(session, asked->handle);
    const char *store = attachment ? attachment->space->name : *asked->store ? asked->store : NULL;
    if (!attachment && (!session->admin || (store && layout_check_name(store)))) {
        request_reply(request, FB__STATUS__DENIED,
                      "only admins may look through the index beyond stores they have opened");
        return;
    }
    if (!index_is_there(request))
        return;
    struct call *call = call_new(request, NULL, 1);
    if (!call)
        return;
    struct item *item = call_item(call, 0);
    call_begun(call);
    struct ask *ask = ask_new(item, NULL);
    struct directory *directory = session->broker->directory;
    if (ask)
        directory->ops->audit->list(directory, store, asked->cursor, index_on_page, ask);
    else
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
}

const struct request_kind index_check_kind = {
    .begin = index_check_begin,
    .item_bytes = sizeof(struct finding_item),
    .answer = index_check_answer,
    .free_item = index_check_free_item,
};
const struct request_kind index_list_kind = {
    .begin = index_list_begin,
    .item_bytes = sizeof(struct index_page_item),
    .answer = index_list_answer,
};
