/* SPDX-License-Identifier: Apache-2.0
 *
 * How a search ends without a lease: which status, and a sentence that names the sample, the store,
 * the node that was asked, and what that node or this one said. A user reads the sentence and must
 * know from it what to do, so each cause has its own:
 *
 *   NOT_FOUND    nobody has it: what became of it, as far as this node or its last home knows
 *   LOST         its home is gone with its memory: waiting does not help
 *   UNAVAILABLE  somebody could not be asked: it may well be there, and a retry may help
 *   INTERNAL     a broker gave an answer that cannot be true: nothing of it was used
 *   else         as the store here or the home there has said
 */
#include <stdio.h>
#include <stdlib.h>

#include "exchange/believe.h"
#include "exchange/find.h"

bool find_home_is_dead(const struct item *item) {
    return item->ref.incarnation &&
           nodes_is_dead(item->call->broker, item->ref.home, item->ref.incarnation);
}

static void find_ends_missing(struct item *item) {
    char sentence[SENTENCE_BYTES];
    status_not_found(sentence, item->call->broker, item->call->space, item->ref.sample_id,
                     item->ref.generation);
    item_done(item, FB__STATUS__NOT_FOUND, "%s", sentence);
}

/* The home that the index had named knew what became of it (superseded, aborted, consumed), and its
 * words are better than ours. */
static void find_ends_absent(struct item *item) {
    char *why = steal_pointer(&item->error);
    if (why)
        item_done(item, FB__STATUS__NOT_FOUND, "%s", why);
    else
        find_ends_missing(item);
    free(why);
}

/* The store's own refusals: a limit, a wait that was too short. A wait that the operator's max_wait
 * has cut says so, or the user would look for the mistake in his own wait_ms. */
static void find_ends_refused(struct item *item, enum store_result result,
                              const struct store_refusal *refusal) {
    const struct call *call = item->call;
    char sentence[SENTENCE_BYTES];
    if (result == STORE_E_NOT_FOUND) { /* after a wait: it ended meanwhile */
        find_ends_missing(item);
        return;
    }
    if (result == STORE_E_TIMEOUT) {
        snprintf(sentence, sizeof sentence, "sample %s of store %s was not put within %llu ms",
                 item->ref.sample_id, call->space->name,
                 (unsigned long long)(call->wait_ns / NS_PER_MS));
        if (call->wait_cut)
            status_add_cut(sentence, call->space);
    } else {
        space_count_refusal(call->space, refusal);
        status_sentence(sentence, call->space, result, refusal, item->ref.sample_id);
    }
    item_done(item, status_of(result), "%s", sentence);
}

/* What it granted for this item is given back with the item's end. */
static void find_ends_odd(struct item *item, const struct peer *peer, const char *wrong) {
    item_done(item, FB__STATUS__INTERNAL,
              "sample %s of store %s: node %s gave no answer to what it was asked: %s; nothing of "
              "it was used",
              item->ref.sample_id, item->call->space->name, peer_node(peer), wrong);
}

/* The other node's sentence names that node already, and is passed on as it is. An answer without a
 * status and without a lease is a fault of that node. */
static void find_ends_as_said(struct item *item, struct peer *peer, const Fb__PeerReply *reply) {
    if (reply->status != FB__STATUS__OK) {
        item_done(item, reply->status, "%s", reply->error);
        return;
    }
    believe_not(peer, "asked for a lease, and it answered without one");
    find_ends_odd(item, peer, "it granted a lease without saying which");
}

/* One of those who may have it was not heard, so nothing is known: NOT_FOUND would be wrong. reply:
 * of the last who answered; NULL: the last did not either. */
static void find_ends_unheard(struct find *find, const Fb__PeerReply *reply, const char *why) {
    struct item *item = &find->item;
    if (!reply && find_home_is_dead(item))
        item_done(item, FB__STATUS__LOST,
                  "sample %s of store %s: its home, node %s, is gone and its memory with it",
                  item->ref.sample_id, item->call->space->name, item->ref.home);
    else
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s cannot be reached: %s", item->ref.sample_id,
                  item->call->space->name, peer_node(find->unheard),
                  reply ? "the others do not have it" : why);
}

static void find_ends_index_down(struct item *item) {
    char trouble[TROUBLE_BYTES];
    item_done(item, FB__STATUS__UNAVAILABLE,
              "sample %s of store %s is not on this node and the directory cannot be reached: %s",
              item->ref.sample_id, item->call->space->name,
              broker_trouble(item->call->broker, "it has not answered in time", trouble));
}

void find_end(struct find *find, enum search_do what, const struct find_told *told) {
    struct item *item = &find->item;
    const struct broker *broker = item->call->broker;
    const char *id = item->ref.sample_id, *store = item->call->space->name;
    switch (what) {
    case SEARCH_DO_END_MISSING:
        find_ends_missing(item);
        break;
    case SEARCH_DO_END_ABSENT:
        find_ends_absent(item);
        break;
    case SEARCH_DO_END_REFUSED:
        find_ends_refused(item, told->result, &told->refusal);
        break;
    case SEARCH_DO_END_FENCED:
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: node %s serves nothing now: %s", id, store,
                  broker->config->node, broker_fenced_why(broker));
        break;
    case SEARCH_DO_END_RECORD_LOST:
        item_done(item, FB__STATUS__LOST,
                  "sample %s of store %s was at node %s, which is gone with its memory", id, store,
                  told->record->home);
        break;
    case SEARCH_DO_END_INDEX_DOWN:
        find_ends_index_down(item);
        break;
    case SEARCH_DO_END_AS_SAID:
        find_ends_as_said(item, told->peer, told->reply);
        break;
    case SEARCH_DO_END_ODD:
        find_ends_odd(item, told->peer, told->why);
        break;
    case SEARCH_DO_END_UNHEARD:
        find_ends_unheard(find, told->reply, told->why);
        break;
    case SEARCH_DO_END_NOT_ASKED:
    case SEARCH_DO_END_NOT_LANDED:
        item_done(item, told->status, "%s", told->why);
        break;
    case SEARCH_DO_END_COPY_GONE:
        item_done(item, FB__STATUS__UNAVAILABLE,
                  "sample %s of store %s: its landing copy was dropped", id, store);
        break;
    default: /* find.c carries out the others */
        break;
    }
}
