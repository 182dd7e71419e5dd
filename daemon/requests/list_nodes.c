/* SPDX-License-Identifier: Apache-2.0
 *
 * The members of the cluster: what this node knows of each (link, standing, last contact) and what
 * each says of itself, asked for with the request's patience. One that does not answer is listed
 * all the same, with the reason.
 *
 *   new -> each other node is asked, one item each -> answered, or silent until the deadline
 *       -> one page of all of them is sent
 *
 * A node is listed from two sides: what this node measures on its link to it (bytes, errors, last
 * contact), and what that node says of itself (its health). Where the two differ, for example a
 * node that says it is ready while the link is down, that is what the reader is looking for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "requests/kinds.h"

#define NODES_MAX      FRAME_BATCH_ITEMS_MAX
#define CUT_BYTES      60u    /* of a sentence, where there are many */
#define PAGE_BYTES_MAX 49152u /* leaves room in a frame */

/* ---- this node's own health ---- */

/* Needs no right and no store: monitors ask for it. */
static void list_health(struct request *request) {
    struct broker_session *session = request->session;
    struct health health;
    health_fill(session->broker, &health);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_HEALTH;
    reply.health = &health.reply;
    request_send(request, &reply, -1);
}

/* ---- asking the others ---- */

/* One other node. */
struct node_item {
    struct item item;
    Fb__HealthReply *health; /* what it says of itself, malloc'ed; NULL: it has not answered */
};

static struct node_item *node_of(const struct item *item) {
    return container_of(item, struct node_item, item);
}

/* The node's own words are kept as the message they came in. */
static void list_nodes_on_health(void *context, const Fb__PeerReply *reply, const uint8_t *payload,
                                 size_t payload_bytes, const char *why) {
    (void)payload, (void)payload_bytes;
    struct item *item = ask_take(context);
    if (!item)
        return;
    if (!reply || reply->result_case != FB__PEER_REPLY__RESULT_HEALTH) {
        item_done(item, FB__STATUS__UNAVAILABLE, "%s", ask_failure(reply, why));
        return;
    }
    node_of(item)->health = peer_reply_take(reply, health);
    item_done(item, FB__STATUS__OK, NULL);
}

/* A node that has left is not waited for. */
static void list_nodes_ask_health(struct item *item, struct peer *peer) {
    struct broker *broker = item->call->broker;
    Fb__PeerHealth health = FB__PEER_HEALTH__INIT;
    Fb__PeerRequest request = FB__PEER_REQUEST__INIT;
    request.op_case = FB__PEER_REQUEST__OP_HEALTH;
    request.health = &health;
    snprintf(item->ref.home, sizeof item->ref.home, "%s", peer_node(peer));
    bool asked = item->call->patience_ns && !nodes_is_dead(broker, item->ref.home, 0);
    if (asked && !ask_send(ask_new(item, peer), &request, list_nodes_on_health)) {
        item_set_deadline(item, broker->now_ns + item->call->patience_ns);
        return;
    }
    if (asked)
        item_done(item, FB__STATUS__UNAVAILABLE, "it cannot be asked now");
    else
        item_done(item, FB__STATUS__OK, NULL);
}

/* A patience of 0 asks nobody: only what this node knows is listed. */
static void list_nodes(struct request *request) {
    struct broker_session *session = request->session;
    struct peers *peers = session->broker->peers;
    size_t count = 0;
    for (struct peer *peer = peers_next(peers, NULL); peer && count < NODES_MAX;
         peer = peers_next(peers, peer))
        count++;
    struct call *call = call_new(request, NULL, count);
    if (!call)
        return;
    call->patience_ns = request->message->nodes->deadline_ms * NS_PER_MS;
    struct peer *peer = NULL;
    for (size_t i = 0; i < count; i++) {
        peer = peers_next(peers, peer);
        list_nodes_ask_health(call_item(call, i), peer);
    }
    call_begun(call);
}

/* ---- the answer ---- */

/* Everything that the answer points to, for 256 nodes and this one: some hundreds of KiB, and so
 * malloc'ed for the one answer. Names and sentences inside are those of the links, the peers'
 * messages and the broker; nothing of them changes before the answer has been packed. */
struct node_page {
    Fb__NodeInfo infos[NODES_MAX + 1], *pointers[NODES_MAX + 1];
    struct peer_info from[NODES_MAX + 1];
    struct {
        Fb__RailInfo infos[TRANSPORT_RAILS_MAX], *pointers[TRANSPORT_RAILS_MAX];
    } rails[NODES_MAX + 1];
    struct health own;
    char self_failure[192];
    size_t count, bytes;
};

/* In place: the message is the item's own. Cutting within a character of UTF-8 is possible;
 * featurectl shows what is left of it as \\xNN. */
static void list_nodes_cut(char *text) {
    if (strlen(text) > CUT_BYTES)
        text[CUT_BYTES] = '\0';
}

/* Names, sentences and rails are what could outgrow a frame. */
static void list_nodes_cut_details(Fb__HealthReply *health) {
    while (health->n_store_names)
        free(health->store_names[--health->n_store_names]);
    list_nodes_cut(health->trouble);
    list_nodes_cut(health->not_ready_why);
    list_nodes_cut(health->twin);
}

static Fb__NodeInfo *list_nodes_next_node(struct node_page *page) {
    Fb__NodeInfo *info = &page->infos[page->count];
    fb__node_info__init(info);
    page->pointers[page->count++] = info;
    return info;
}

/* This node is listed first, as a node like the others. */
static void list_nodes_fill_self(const struct broker *broker, struct node_page *page) {
    Fb__NodeInfo *self = list_nodes_next_node(page);
    health_fill(broker, &page->own);
    page->own.reply.n_counters = 0; /* as the others, which do not tell theirs */
    self->node = (char *)broker->config->node;
    self->address =
        (char *)(*broker->config->advertise ? broker->config->advertise : broker->config->listen);
    self->state = (char *)(broker->draining         ? "draining"
                           : !broker_serves(broker) ? "fenced"
                                                    : "up");
    self->incarnation = broker->options.incarnation;
    self->self = true;
    self->data_address = (char *)broker->config->data_address;
    peers_data_failure(broker->peers, page->self_failure, sizeof page->self_failure);
    self->data_failure = page->self_failure;
    self->leases = page->own.reply.leases;
    self->health = &page->own.reply;
    self->twin = (char *)peers_twin(broker->peers);
}

/* A rail is one network port over which this node and that one read each other's memory. */
static void list_nodes_fill_rails(struct node_page *page, size_t node) {
    const struct transport_info *from = &page->from[node].transport;
    Fb__NodeInfo *info = &page->infos[node];
    for (uint32_t i = 0; i < from->rail_count; i++) {
        const struct transport_rail_info *rail = &from->rails[i];
        Fb__RailInfo *out = page->rails[node].pointers[i] = &page->rails[node].infos[i];
        fb__rail_info__init(out);
        out->name = (char *)rail->name;
        out->local = (char *)rail->local;
        out->last_failure = (char *)rail->last_failure;
        out->up = rail->up;
        out->mtu_bytes = rail->mtu_bytes;
        out->bytes_in = rail->bytes_in;
        out->reads = rail->reads;
        out->errors = rail->errors;
    }
    info->n_rails = from->rail_count;
    info->rails = page->rails[node].pointers;
    info->detail = (char *)from->detail;
}

/* Beyond the size of a frame details are left out, never nodes: rails first, then names and
 * sentences. */
static void list_nodes_fill_node(const struct broker *broker, const struct item *item,
                                 struct node_page *page) {
    struct peer *peer = peers_find(broker->peers, item->ref.home);
    struct peer_info *from = &page->from[page->count];
    Fb__NodeInfo *info = list_nodes_next_node(page);
    peer_query(peer, from);
    info->node = (char *)from->node;
    info->address = (char *)from->address;
    info->data_address = (char *)from->data_address;
    info->data_failure = from->transport.data_failure;
    info->state = (char *)(nodes_is_dead(broker, from->node, 0) ? "left" : from->state);
    info->transport = (char *)(from->transport.transport ? from->transport.transport : "");
    info->last_failure = (char *)from->last_failure;
    info->incarnation = nodes_incarnation(broker, from->node);
    if (!info->incarnation)
        info->incarnation = from->incarnation;
    info->bytes_in = from->transport.read_bytes_in + from->transport.message_bytes_in;
    info->bytes_out = from->transport.read_bytes_out + from->transport.message_bytes_out;
    info->reads = from->reads;
    info->errors = from->errors;
    info->release_pending = outbox_pending_at(peer);
    info->reads_in_flight = from->transport.reads_in_flight;
    list_nodes_fill_rails(page, page->count - 1);
    info->heard = from->heard_ns > 0;
    if (broker->now_ns > from->heard_ns) /* the links' clock may be ahead by a turn of the loop */
        info->heard_ms_ago = info->heard ? (broker->now_ns - from->heard_ns) / NS_PER_MS : 0;
    info->odd_answers = from->odd_answers;
    info->twin = (char *)peers_rival(broker->peers, from->node);
    info->silence = item_error(item);
    info->health = node_of(item)->health;
    info->leases = info->health ? info->health->leases : 0;
    page->bytes += fb__node_info__get_packed_size(info);
    if (page->bytes > PAGE_BYTES_MAX)
        info->n_rails = 0;
    if (info->health && page->bytes > PAGE_BYTES_MAX)
        list_nodes_cut_details(info->health);
}

/* Packed sizes are added up as nodes are filled in, so that the later ones are cut, not the first.
 */
static void list_answer_nodes(const struct call *call) {
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    Fb__NodesReply result = FB__NODES_REPLY__INIT;
    struct node_page *page = malloc(sizeof *page);
    if (!page) {
        reply.status = FB__STATUS__UNAVAILABLE;
        reply.error = (char *)"the broker is out of memory";
        call_send(call, &reply);
        return;
    }
    page->count = page->bytes = 0;
    list_nodes_fill_self(call->broker, page);
    for (uint32_t i = 0; i < call->count; i++)
        list_nodes_fill_node(call->broker, call_item(call, i), page);
    result.n_nodes = page->count;
    result.nodes = page->pointers;
    reply.result_case = FB__CLIENT_REPLY__RESULT_NODES;
    reply.nodes = &result;
    call_send(call, &reply);
    free(page);
}

static void list_nodes_free_item(struct item *item) {
    if (node_of(item)->health)
        fb__health_reply__free_unpacked(node_of(item)->health, NULL);
}

const struct request_kind health_kind = {.begin = list_health};
const struct request_kind nodes_kind = {
    .begin = list_nodes,
    .item_bytes = sizeof(struct node_item),
    .answer = list_answer_nodes,
    .free_item = list_nodes_free_item,
};
