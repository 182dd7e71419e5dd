/* SPDX-License-Identifier: Apache-2.0
 *
 * Inventories of this node: samples, leases, stores, peers, health. Paged, so that a large store
 * never makes a large answer or a long turn of the loop.
 */
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "state.h"

#define PAGE_ITEMS_MAX 256u
#define PAGE_BYTES_MAX 98304u /* leaves room in a frame */
#define STEPS_PER_TURN 64u    /* of up to 4096 slots each */

static void answer(struct broker_session *session, uint32_t request_id, bool wants_reply,
                   const Fb__ClientReply *reply) {
    if (wants_reply)
        session->ops->reply(session->client, request_id, reply, -1);
}

/* ---- samples ---- */

struct sample_page {
    Fb__SampleInfo infos[PAGE_ITEMS_MAX], *pointers[PAGE_ITEMS_MAX];
    struct store_info from[PAGE_ITEMS_MAX]; /* keeps the ids */
    size_t count, bytes;
};

static bool wanted(const Fb__List *asked, const struct store_info *info) {
    if (info->state == STORE_FREE || strncmp(info->sample_id, asked->prefix, strlen(asked->prefix)))
        return false;
    return asked->all_states || (info->state == STORE_RESIDENT && !info->landing);
}

static uint64_t fill_page(const struct broker *broker, const struct space *space,
                          const Fb__List *asked, struct sample_page *page) {
    uint64_t cursor = asked->cursor;
    uint32_t limit = asked->limit && asked->limit < PAGE_ITEMS_MAX ? asked->limit : PAGE_ITEMS_MAX;
    for (uint32_t steps = 0;
         page->count < limit && page->bytes < PAGE_BYTES_MAX / 2 && steps < STEPS_PER_TURN * 64;) {
        struct store_info *from = &page->from[page->count];
        if (!store_list_next(space->store, &cursor, from))
            return 0;
        steps += from->state == STORE_FREE ? 64 : 1;
        if (!wanted(asked, from))
            continue;
        Fb__SampleInfo *info = &page->infos[page->count];
        probe_fill_info(broker, space, from, asked->holders, info);
        page->pointers[page->count++] = info;
        page->bytes += fb__sample_info__get_packed_size(info);
    }
    return cursor;
}

bool list_samples(struct broker_session *session, uint32_t request_id, bool wants_reply,
                  const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                  const char **why) {
    (void)payload, (void)payload_bytes, (void)why;
    const Fb__List *asked = request->list;
    struct space *space =
        probe_space(session, asked->handle, asked->store, request_id, wants_reply);
    if (!space)
        return true;
    struct sample_page *page = malloc(sizeof *page);
    if (!page) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__UNAVAILABLE,
                          "the broker is out of memory");
        return true;
    }
    page->count = page->bytes = 0;
    Fb__ListReply result = FB__LIST_REPLY__INIT;
    result.cursor = fill_page(session->broker, space, asked, page);
    result.n_samples = page->count;
    result.samples = page->pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_LIST;
    reply.list = &result;
    answer(session, request_id, wants_reply, &reply);
    for (size_t i = 0; i < page->count; i++)
        probe_free_info(&page->infos[i]);
    free(page);
    return true;
}

/* ---- leases ---- */

struct lease_page {
    Fb__LeaseInfo infos[PAGE_ITEMS_MAX], *pointers[PAGE_ITEMS_MAX];
    struct store_lease_info from[PAGE_ITEMS_MAX];
    char owners[PAGE_ITEMS_MAX][160];
    size_t count;
};

static uint64_t fill_leases(const struct broker *broker, const struct space *space,
                            const Fb__Leases *asked, struct lease_page *page) {
    uint64_t cursor = asked->cursor;
    uint32_t limit = asked->limit && asked->limit < PAGE_ITEMS_MAX ? asked->limit : PAGE_ITEMS_MAX;
    for (uint32_t steps = 0; page->count < limit && steps < STEPS_PER_TURN;) {
        struct store_lease_info *from = &page->from[page->count];
        if (!store_lease_next(space->store, &cursor, from))
            return 0;
        if (!from->generation) {
            steps++;
            continue;
        }
        Fb__LeaseInfo *info = &page->infos[page->count];
        fb__lease_info__init(info);
        info->session_id = from->owner;
        info->holder = (char *)broker_owner_name(broker, from->owner, page->owners[page->count]);
        info->age_ms = (broker->now_ns - from->since_ns) / NS_PER_MS;
        info->store = (char *)space->name;
        info->sample_id = from->sample_id;
        info->generation = from->generation;
        page->pointers[page->count++] = info;
    }
    return cursor;
}

bool list_leases(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                 const char **why) {
    (void)payload, (void)payload_bytes, (void)why;
    const Fb__Leases *asked = request->leases;
    struct space *space = probe_space(session, 0, asked->store, request_id, wants_reply);
    if (!space)
        return true;
    struct lease_page *page = malloc(sizeof *page);
    if (!page) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__UNAVAILABLE,
                          "the broker is out of memory");
        return true;
    }
    page->count = 0;
    Fb__LeasesReply result = FB__LEASES_REPLY__INIT;
    result.cursor = fill_leases(session->broker, space, asked, page);
    result.n_leases = page->count;
    result.leases = page->pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_LEASES;
    reply.leases = &result;
    answer(session, request_id, wants_reply, &reply);
    free(page);
    return true;
}

/* ---- stores ---- */

static void fill_store(struct space *space, Fb__StoreInfo *info) {
    struct store_totals totals;
    store_totals(space->store, &totals);
    fb__store_info__init(info);
    info->store = space->name;
    info->settings = &space->settings;
    info->resident_bytes = totals.resident_bytes;
    info->landing_used_bytes = totals.landing_used_bytes;
    info->planned = totals.planned + totals.sealed;
    info->resident = totals.resident;
    info->retired = totals.retired;
    info->landing = totals.landing;
    info->leases = totals.leases;
    info->reservations = totals.reservations;
    info->put_waiters = totals.put_waiters;
    info->get_waiters = totals.get_waiters;
    info->arena_bytes = space->arena.bytes;
    info->prefaulted_bytes = space->prefaulted_bytes;
    info->hugepages = space->arena.hugepages;
    info->secret = space->has_secret;
    info->puts = totals.puts;
    info->gets = totals.gets;
    info->frees = totals.frees;
    info->free_largest_bytes = totals.largest_free_bytes;
}

bool list_stores(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                 const char **why) {
    (void)request, (void)payload, (void)payload_bytes, (void)why;
    Fb__StoreInfo infos[SPACES_MAX], *pointers[SPACES_MAX];
    Fb__StoresReply result = FB__STORES_REPLY__INIT;
    result.stores = pointers;
    for (uint32_t i = 0; i < session->broker->space_end; i++) {
        struct space *space = &session->broker->spaces[i];
        if (!space->used || space->dropped)
            continue;
        fill_store(space, &infos[result.n_stores]);
        pointers[result.n_stores] = &infos[result.n_stores];
        result.n_stores++;
    }
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_STORES;
    reply.stores = &result;
    answer(session, request_id, wants_reply, &reply);
    return true;
}

/* ---- nodes ---- */

struct node_page {
    Fb__NodeInfo infos[PAGE_ITEMS_MAX], *pointers[PAGE_ITEMS_MAX];
    struct peer_info from[PAGE_ITEMS_MAX];
    struct {
        Fb__RailInfo infos[TRANSPORT_RAILS_MAX], *pointers[TRANSPORT_RAILS_MAX];
    } rails[PAGE_ITEMS_MAX];
    size_t count;
};

static Fb__NodeInfo *next_node(struct node_page *page) {
    Fb__NodeInfo *info = &page->infos[page->count];
    fb__node_info__init(info);
    page->pointers[page->count++] = info;
    return info;
}

static void fill_rails(struct node_page *page, size_t node) {
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

static void fill_nodes(struct broker *broker, struct node_page *page) {
    Fb__NodeInfo *self = next_node(page);
    self->node = (char *)broker->config->node;
    self->address = (char *)broker->config->listen;
    self->state = (char *)(broker->draining         ? "draining"
                           : !broker_serves(broker) ? "fenced"
                                                    : "up");
    self->incarnation = broker->options.incarnation;
    self->self = true;
    for (struct peer *peer = peers_next(broker->peers, NULL); peer && page->count < PAGE_ITEMS_MAX;
         peer = peers_next(broker->peers, peer)) {
        struct peer_info *from = &page->from[page->count];
        Fb__NodeInfo *info = next_node(page);
        const struct outbox *outbox = peer_user(peer);
        peer_query(peer, from);
        info->node = (char *)from->node;
        info->address = (char *)from->address;
        info->state = (char *)from->state;
        info->transport = (char *)(from->transport.transport ? from->transport.transport : "");
        info->last_failure = (char *)from->last_failure;
        info->incarnation = from->incarnation;
        info->bytes_in = from->transport.read_bytes_in + from->transport.message_bytes_in;
        info->bytes_out = from->transport.read_bytes_out + from->transport.message_bytes_out;
        info->reads = from->reads;
        info->errors = from->errors;
        info->release_pending = outbox ? outbox->count : 0;
        info->reads_in_flight = from->transport.reads_in_flight;
        fill_rails(page, page->count - 1);
    }
}

bool list_nodes(struct broker_session *session, uint32_t request_id, bool wants_reply,
                const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                const char **why) {
    (void)request, (void)payload, (void)payload_bytes, (void)why;
    struct node_page *page = malloc(sizeof *page);
    if (!page) {
        call_reply_simple(session, request_id, wants_reply, FB__STATUS__UNAVAILABLE,
                          "the broker is out of memory");
        return true;
    }
    page->count = 0;
    fill_nodes(session->broker, page);
    Fb__NodesReply result = FB__NODES_REPLY__INIT;
    result.n_nodes = page->count;
    result.nodes = page->pointers;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_NODES;
    reply.nodes = &result;
    answer(session, request_id, wants_reply, &reply);
    free(page);
    return true;
}

/* ---- health ---- */

bool list_health(struct broker_session *session, uint32_t request_id, bool wants_reply,
                 const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                 const char **why) {
    (void)request, (void)payload, (void)payload_bytes, (void)why;
    struct broker *broker = session->broker;
    Fb__HealthReply result = FB__HEALTH_REPLY__INIT;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct store_totals totals;
        if (!broker->spaces[i].used)
            continue;
        store_totals(broker->spaces[i].store, &totals);
        result.leases += totals.leases;
        result.stores += !broker->spaces[i].dropped;
    }
    result.node = (char *)broker->config->node;
    result.incarnation = broker->options.incarnation;
    result.broker_version = (char *)FEATURED_VERSION;
    result.uptime_ms = (broker->now_ns - broker->started_ns) / NS_PER_MS;
    result.resident_bytes = broker->account.used_bytes;
    result.max_resident_bytes = broker->account.limit_bytes;
    result.sessions = broker->session_count;
    result.release_pending = broker->release_pending;
    result.draining = broker->draining;
    result.directory = (char *)broker->directory->ops->name;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_HEALTH;
    reply.health = &result;
    answer(session, request_id, wants_reply, &reply);
    return true;
}
