/* SPDX-License-Identifier: Apache-2.0
 *
 * Explain: what became of a sample, put together from what this node knows, what its home (or, for
 * a bare id, every member) says, and what the index has. Whoever does not answer in time is named;
 * the rest is answered all the same. Of several nodes that know the sample the one that tells most
 * is believed: resident before planned before retired, and of two that are over the later.
 *
 *   new -> index and nodes asked --all have answered, or the deadline--> finished -> answered
 *              ^          |
 *              `----------' each answer is merged into the one reply (explain_offer())
 *
 * What finishing adds (explain_finish()) is what no single node can say: that the home is gone and
 * the bytes with it, by what a superseded sample was replaced, or who was silent when nobody knew
 * it.
 *
 * An explain is answered OK whatever was found: that nobody knows the sample is an answer too. It
 * is meant for people, and `featurectl explain` prints its sentences as they are.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/knowledge.h"
#include "requests/kinds.h"

#define TOLD_BYTES (SENTENCE_BYTES * 3)

/* ---- what has been said so far ---- */

/* The answer is put together in place: `explained` is the message that is sent in the end, and each
 * node that answers adds to it or replaces parts of it. It is made of malloc'ed parts throughout,
 * so that parts of a peer's answer can be moved into it. */
struct explain_item {
    struct item item;
    char store[LAYOUT_NAME_BYTES_MAX + 1]; /* which this node need not have */
    Fb__ExplainReply *explained;
};

static struct explain_item *explain_of(const struct item *item) {
    return container_of(item, struct explain_item, item);
}

/* Without memory for it "" stands there, and the item ends saying why. */
static void explain_set_text(struct item *item, char **text, const char *to) {
    item->no_memory |= !text_set(text, to);
}

/* What one node says, in the order in which the answers came in. */
static void explain_add_says(struct item *item, const char *node, Fb__Status status,
                             const char *sentence) {
    Fb__ExplainReply *explained = explain_of(item)->explained;
    Fb__NodeSays **says =
        reallocarray(explained->says, explained->n_says + 1, sizeof *explained->says);
    if (says)
        explained->says = says;
    Fb__NodeSays *said = says ? malloc(sizeof *said) : NULL;
    if (!said) {
        item->no_memory = true;
        return;
    }
    fb__node_says__init(said);
    said->status = status;
    explain_set_text(item, &said->node, node);
    explain_set_text(item, &said->sentence, sentence);
    explained->says[explained->n_says++] = said;
}

/* Of two with the same rank the one whose state is younger tells more: "consumed 2 s ago" rather
 * than "consumed 20 s ago". Anything tells more than nothing. */
static bool explain_tells_more(const Fb__ExplainReply *reply, const Fb__ExplainReply *than) {
    int more = sample_rank(reply->state), before = sample_rank(than->state);
    if (more != before || !reply->info || !than->info)
        return more > before || !*than->sentence;
    return reply->info->age_ms < than->info->age_ms;
}

/* Takes out of the reply what is told best by it. */
static void explain_offer(struct item *item, Fb__ExplainReply *reply) {
    Fb__ExplainReply *explained = explain_of(item)->explained;
    explain_add_says(item, reply->node, FB__STATUS__OK, reply->sentence);
    if (!explain_tells_more(reply, explained))
        return;
    explained->state = reply->state;
    explain_set_text(item, &explained->sentence, reply->sentence);
    explain_set_text(item, &explained->node, reply->node);
    if (explained->info)
        fb__sample_info__free_unpacked(explained->info, NULL);
    explained->info = steal_pointer(&reply->info);
}

/* This node's own word counts like that of any other node. */
static void explain_offer_own(struct item *item) {
    Fb__ExplainReply *own = explain_here(item->call->broker, item->call->space, &item->ref);
    if (!own) {
        item->no_memory = true;
        return;
    }
    explain_offer(item, own);
    fb__explain_reply__free_unpacked(own, NULL);
}

/* ---- the index ---- */

/* Two ways to lose a sample with its node: the node is gone, or it is back without its memory. */
static void explain_say_left(const struct broker *broker, const char *node, char *out,
                             size_t out_bytes) {
    uint64_t gone_ns = nodes_gone_ns(broker, node);
    if (gone_ns)
        snprintf(out, out_bytes, "it left the cluster %.1f s ago", (double)gone_ns / 1e9);
    else
        snprintf(out, out_bytes, "it has restarted without its memory");
}

/* The strings of a record are the directory's and gone after its call, hence the copies. */
static void explain_keep_record(struct item *item, const struct directory_record *record,
                                bool home_is_member) {
    Fb__IndexRecord *kept = malloc(sizeof *kept);
    if (!kept) {
        item->no_memory = true;
        return;
    }
    fb__index_record__init(kept);
    explain_set_text(item, &kept->store, explain_of(item)->store);
    explain_set_text(item, &kept->sample_id, record->sample_id);
    kept->generation = record->generation;
    explain_set_text(item, &kept->home, record->home);
    kept->incarnation = record->incarnation;
    kept->bytes = record->bytes;
    kept->home_is_member = home_is_member;
    explain_of(item)->explained->record = kept;
}

/* The record is kept as it is, too: `featurectl explain --json` shows it. */
static void explain_note_record(struct item *item, enum directory_result result,
                                const struct directory_record *record) {
    const struct broker *broker = item->call->broker;
    bool lost = nodes_have_lost(broker, result, record);
    char index[SENTENCE_BYTES], left[SENTENCE_BYTES / 2];
    if (result == DIRECTORY_E_NOT_FOUND) {
        snprintf(index, sizeof index, "no record: no generation of it can be got");
    } else if (result != DIRECTORY_OK && result != DIRECTORY_E_LOST) {
        snprintf(index, sizeof index, "not known: etcd does not answer node %s",
                 broker->config->node);
    } else {
        explain_keep_record(item, record, !lost);
        explain_say_left(broker, record->home, left, sizeof left);
        snprintf(index, sizeof index, "generation %" PRIu64 " on node %s, %" PRIu64 " bytes%s%s",
                 record->generation, record->home, record->bytes, lost ? ": lost: " : "",
                 lost ? left : "");
    }
    explain_set_text(item, &explain_of(item)->explained->index, index);
}

/* ---- the way of its bytes ---- */

/* Names the network ports over which the bytes would come. */
static void explain_say_rails(const struct transport_info *transport, char *out, size_t out_bytes) {
    unsigned up = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < transport->rail_count; i++) {
        size_t used = strlen(out);
        if (transport->rails[i].up)
            snprintf(out + used, out_bytes - used, "%s%s", up++ ? ", " : " on ",
                     transport->rails[i].name);
    }
    if (transport->rail_count && !up)
        snprintf(out, out_bytes, ", no rail up");
}

/* Only a sample that can still be got has a path. */
static void explain_note_path(struct item *item) {
    const struct broker *broker = item->call->broker;
    const Fb__ExplainReply *explained = explain_of(item)->explained;
    const char *home = explained->info ? explained->info->home : item->ref.home;
    char path[SENTENCE_BYTES], rails[SENTENCE_BYTES / 2];
    struct peer_info info;
    if (!*home || sample_rank(explained->state) <= sample_rank(FB__SAMPLE_STATE__RETIRED))
        return; /* nothing that could be got */
    struct peer *peer = peers_find(broker->peers, home);
    if (!strcmp(home, broker->config->node)) {
        snprintf(path, sizeof path, "shared memory of node %s", home);
    } else if (peer && (peer_query(peer, &info), info.transport.transport)) {
        explain_say_rails(&info.transport, rails, sizeof rails);
        snprintf(path, sizeof path, "%s%s from node %s", info.transport.transport, rails, home);
    } else {
        snprintf(path, sizeof path, "none: node %s is not connected", home);
    }
    explain_set_text(item, &explain_of(item)->explained->path, path);
}

/* ---- the end ---- */

/* The state HOME_LOST is no state of a store: only somebody who knows that the node is gone can say
 * so. */
static void explain_say_lost(struct item *item, const char *node) {
    Fb__ExplainReply *explained = explain_of(item)->explained;
    char sentence[TOLD_BYTES], left[SENTENCE_BYTES / 2];
    explain_say_left(item->call->broker, node, left, sizeof left);
    snprintf(sentence, sizeof sentence,
             "sample %s of store %s: lost with node %s: %s, and the bytes with it",
             item->ref.sample_id, explain_of(item)->store, node, left);
    explained->state = FB__SAMPLE_STATE__HOME_LOST;
    explain_set_text(item, &explained->sentence, sentence);
    explain_set_text(item, &explained->node, item->call->broker->config->node);
}

/* What is over may have been replaced by what the index names now. A reader whose sample was
 * superseded wants to know by what. */
static void explain_add_successor(struct item *item) {
    Fb__ExplainReply *explained = explain_of(item)->explained;
    const Fb__IndexRecord *record = explained->record;
    char sentence[TOLD_BYTES + SENTENCE_BYTES];
    if (!explained->info || explained->info->reason != FB__REASON__SUPERSEDED || !record ||
        record->generation == explained->info->generation)
        return;
    snprintf(sentence, sizeof sentence, "%s (now: generation %" PRIu64 " on node %s)",
             explained->sentence, record->generation, record->home);
    explain_set_text(item, &explained->sentence, sentence);
}

/* Nobody knows the sample: then whoever was silent may be why. */
static void explain_add_silence(struct item *item) {
    Fb__ExplainReply *explained = explain_of(item)->explained;
    char sentence[TOLD_BYTES + SENTENCE_BYTES];
    for (size_t i = 0; i < explained->n_says; i++) {
        const Fb__NodeSays *says = explained->says[i];
        if (says->status == FB__STATUS__OK)
            continue;
        if (*item->ref.home)
            snprintf(sentence, sizeof sentence,
                     "sample %s of store %s: its home, node %s, cannot be reached: %s",
                     item->ref.sample_id, explain_of(item)->store, says->node, says->sentence);
        else
            snprintf(sentence, sizeof sentence, "%s; node %s has not answered: %s",
                     explained->sentence, says->node, says->sentence);
        explain_set_text(item, &explained->sentence, sentence);
        return;
    }
}

/* Everybody has answered, or the time is over. A dead home outweighs what others remember of the
 * sample; only then it is worth saying what replaced it, or who was silent. */
static void explain_finish(struct item *item) {
    const struct broker *broker = item->call->broker;
    Fb__ExplainReply *explained = explain_of(item)->explained;
    const Fb__IndexRecord *record = explained->record;
    bool over = sample_rank(explained->state) <= sample_rank(FB__SAMPLE_STATE__RETIRED);
    bool by_ref = *item->ref.home && item->ref.incarnation;
    if (over && by_ref && nodes_is_dead(broker, item->ref.home, item->ref.incarnation))
        explain_say_lost(item, item->ref.home);
    else if (over && record && !record->home_is_member &&
             (!item->ref.generation || item->ref.generation == record->generation))
        explain_say_lost(item, record->home);
    else if (over && explained->state != FB__SAMPLE_STATE__NEVER_SEEN)
        explain_add_successor(item);
    else if (over)
        explain_add_silence(item);
    explain_note_path(item);
    if (item->no_memory)
        item_done(item, FB__STATUS__UNAVAILABLE, "sample %s of store %s is not explained",
                  item->ref.sample_id, explain_of(item)->store);
    else
        item_done(item, FB__STATUS__OK, NULL);
}

/* Those that have not answered are named. The answer is OK: what the others said is worth having.
 */
static void explain_expired(struct item *item) {
    char why[64];
    const struct ask *ask;
    snprintf(why, sizeof why, "no answer within %llu ms",
             (unsigned long long)((item->call->broker->now_ns - item->call->begun_ns) / NS_PER_MS));
    LIST_FOREACH (ask, &item->asks, link)
        if (ask->peer)
            explain_add_says(item, peer_node(ask->peer), FB__STATUS__TIMEOUT, why);
        else
            explain_set_text(item, &explain_of(item)->explained->index, why);
    explain_finish(item);
}

/* ---- asking ---- */

/* Whether the peers would have to be asked does not matter here: they have been. */
static void explain_on_located(void *context, enum directory_result result,
                               const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct item *item = ask_take(context);
    if (!item)
        return;
    explain_note_record(item, result, record);
    if (!item->ask_count)
        explain_finish(item);
}

/* A node without a store of that name has nothing to say, and is not listed among those who said
 * something. */
static void explain_on_answer(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                              size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct ask *ask = context;
    struct peer *peer = ask->peer;
    struct item *item = ask_take(ask);
    if (!item)
        return;
    if (reply && reply->result_case == FB__PEER_REPLY__RESULT_EXPLAIN && reply->explain) {
        Fb__ExplainReply *said = peer_reply_take(reply, explain);
        explain_offer(item, said);
        fb__explain_reply__free_unpacked(said, NULL);
    } else if (reply && reply->status != FB__STATUS__NOT_FOUND) /* it has no such store */
        explain_add_says(item, peer_node(peer), reply->status, reply->error);
    else if (!reply)
        explain_add_says(item, peer_node(peer), FB__STATUS__UNAVAILABLE, why);
    if (!item->ask_count)
        explain_finish(item);
}

/* A node that cannot be asked at all is listed like one that was silent: with the reason. */
static void explain_ask_peer(struct item *item, struct peer *peer, Fb__RetireItem *asked) {
    Fb__PeerExplain explain = FB__PEER_EXPLAIN__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    explain.store = explain_of(item)->store;
    explain.item = asked;
    request.op_case = FB__PEER_REQUEST__OP_EXPLAIN;
    request.explain = &explain;
    if (!ask_send(ask_new(item, peer), &request, explain_on_answer))
        return;
    explain_add_says(item, peer_node(peer), FB__STATUS__UNAVAILABLE, "it cannot be asked now");
}

/* Not asked where the directory keeps no index: then the sentence says so. */
static void explain_ask_index(struct item *item) {
    struct directory *directory = item->call->broker->directory;
    char why[SENTENCE_BYTES];
    struct ask *ask = directory->ops->audit ? ask_new(item, NULL) : NULL;
    if (ask) {
        directory->ops->locate(directory, explain_of(item)->store, item->ref.sample_id,
                               explain_on_located, ask);
        return;
    }
    snprintf(why, sizeof why, "none: directory = %s", directory->ops->name);
    explain_set_text(item, &explain_of(item)->explained->index, why);
}

/* Dead nodes are left out: they would be silent until the deadline, and what they held is lost in
 * any case. */
static void explain_ask_all(struct item *item, Fb__RetireItem *asked) {
    const struct broker *broker = item->call->broker;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer;
         peer = peers_next(broker->peers, peer))
        if (!nodes_is_dead(broker, peer_node(peer), 0))
            explain_ask_peer(item, peer, asked);
}

/* The deadline is set before anything is asked, for the first question may be the last thing that
 * this function does with the item. With a ref only its home is asked, with a bare id everybody,
 * for any node may hold or remember it. */
static void explain_one(struct item *item, Fb__RetireItem *asked) {
    struct broker *broker = item->call->broker;
    if (!item_name(item, asked->sample_id, asked->generation, asked->home, asked->incarnation))
        return;
    explain_of(item)->explained = malloc(sizeof *explain_of(item)->explained);
    if (!explain_of(item)->explained) {
        item_done(item, FB__STATUS__UNAVAILABLE, "the broker is out of memory");
        return;
    }
    fb__explain_reply__init(explain_of(item)->explained);
    bool here = !*asked->home || !strcmp(asked->home, broker->config->node);
    struct peer *home = here ? NULL : peers_find(broker->peers, asked->home);
    item_set_deadline(item, broker->now_ns + item->call->patience_ns);
    explain_ask_index(item);
    if (here && item->call->space)
        explain_offer_own(item);
    if (here && !asked->generation)
        explain_ask_all(item, asked);
    else if (home && !nodes_is_dead(broker, asked->home, 0))
        explain_ask_peer(item, home, asked);
    else if (!here && !home)
        explain_add_says(item, asked->home, FB__STATUS__NOT_FOUND,
                         "no peer of this node is called so");
    if (!item->ask_count)
        explain_finish(item);
}

/* Without memory for the reply there is the status and a sentence alone. */
static void explain_answer(const struct call *call) {
    const struct item *item = call_item(call, 0);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = item->status;
    reply.error = item_error(item);
    if (explain_of(item)->explained) {
        reply.result_case = FB__CLIENT_REPLY__RESULT_EXPLAIN;
        reply.explain = explain_of(item)->explained;
    }
    call_send(call, &reply);
}

/* An admin may ask about a store that this node does not have. */
static void explain_sample(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Explain *asked = request->message->explain;
    if (!asked->item) {
        request->breach = "an Explain without an item";
        return;
    }
    bool elsewhere = session->admin && !session_attachment(session, asked->handle) &&
                     !space_find(session->broker, asked->store) && !layout_check_name(asked->store);
    struct space *space = elsewhere ? NULL : request_space(request, asked->handle, asked->store);
    struct call *call = elsewhere || space ? call_new(request, space, 1) : NULL;
    if (!call)
        return;
    struct explain_item *explain = explain_of(call_item(call, 0));
    snprintf(explain->store, sizeof explain->store, "%s", space ? space->name : asked->store);
    call->patience_ns = asked->deadline_ms ? asked->deadline_ms * NS_PER_MS : ROUND_TRIP_LIMIT_NS;
    explain_one(call_item(call, 0), asked->item);
    call_begun(call);
}

static void explain_free_item(struct item *item) {
    if (explain_of(item)->explained)
        fb__explain_reply__free_unpacked(explain_of(item)->explained, NULL);
}

const struct request_kind explain_kind = {
    .begin = explain_sample,
    .item_bytes = sizeof(struct explain_item),
    .answer = explain_answer,
    .expire = explain_expired,
    .free_item = explain_free_item,
};
