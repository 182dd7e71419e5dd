/* SPDX-License-Identifier: Apache-2.0
 *
 * How the simulated clients put: at once, or reserve, write and commit, or cancel. Each put has a
 * nonce, from which its bytes follow, so that whoever reads them can tell whose they are.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/cluster_clients.h"

static const uint64_t sizes[SIZES] = {64, 1000, 5000, 20000, 70000};
static struct {
    uint8_t bytes[128];
    size_t count;
} specs[SIZES];

void clients_once(void) {
    for (unsigned i = 0; i < SIZES && !specs[i].count; i++) {
        Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors[1] = {&tensor};
        Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
        uint64_t shape[1] = {sizes[i]};
        tensor.name = (char *)"t";
        tensor.dtype = FB__DTYPE__U8;
        tensor.n_shape = 1;
        tensor.shape = shape;
        tensor.bytes = sizes[i];
        spec.n_tensors = 1;
        spec.tensors = tensors;
        specs[i].count = fb__sample_spec__pack(&spec, specs[i].bytes);
    }
}

static unsigned size_of(const struct claim *claim) {
    unsigned size = 0;
    while (sizes[size] != claim->bytes)
        size++;
    return size;
}

void clients_send_put(struct client *client, struct asked *asked, uint32_t deadline_ms) {
    static uint8_t payload[70000];
    struct claim *claim = asked->claim;
    struct world *w = client->node->world;
    unsigned size = size_of(claim);
    clients_fill(payload, claim->nonce, claim->bytes);
    uint8_t checksum[8] = {1};
    Fb__PutItem item = FB__PUT_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)clients_ids[claim->id];
    item.spec = (ProtobufCBinaryData){specs[size].count, specs[size].bytes};
    item.checksums = (ProtobufCBinaryData){sizeof checksum, checksum};
    item.bytes = (uint32_t)claim->bytes;
    Fb__Put put = FB__PUT__INIT;
    put.handle = client->handle;
    put.n_items = 1;
    put.items = items;
    put.deadline_ms = deadline_ms;
    put.op_id = asked->op_id;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &put;
    world_say(w, "#%u %s put %s %" PRIu64 " bytes as %" PRIx64 "%s", clients_number(w, asked),
              client->node->name, clients_ids[claim->id], claim->bytes, claim->nonce,
              asked->repeats ? ", again" : "");
    clients_send(client, clients_number(w, asked), true, &request, payload, claim->bytes);
}

static struct claim *plan(struct client *client, const struct step *step) {
    struct world *w = client->node->world;
    static const uint8_t weights[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4};
    uint64_t bytes = sizes[weights[step->b % 16]];
    uint64_t nonce = (cluster_random(&w->random) << 12) | w->contract.claim_count;
    return contract_plan(&w->contract, step->a % w->history->ids, client->node->index,
                         client->node->incarnation, nonce, bytes);
}

void clients_put(struct client *client, const struct step *step) {
    struct claim *claim = plan(client, step);
    struct asked *asked = claim ? clients_ask(client, STEP_PUT) : NULL;
    if (!asked)
        return;
    asked->claim = claim;
    asked->id = claim->id;
    clients_new_op(client, asked);
    world_may_not_know(client->node, claim->id);
    contract_commit_begins(&client->node->world->contract, claim);
    clients_send_put(client, asked, step->c % 4 ? 0 : 1 + step->c / 4 % 30);
}

void clients_reserve(struct client *client, const struct step *step) {
    struct claim *claim = plan(client, step);
    struct asked *asked = claim ? clients_ask(client, STEP_RESERVE) : NULL;
    if (!asked)
        return;
    struct world *w = client->node->world;
    unsigned size = size_of(claim);
    asked->claim = claim;
    asked->id = claim->id;
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items[1] = {&item};
    item.sample_id = (char *)clients_ids[claim->id];
    item.spec = (ProtobufCBinaryData){specs[size].count, specs[size].bytes};
    Fb__Reserve reserve = FB__RESERVE__INIT;
    reserve.handle = client->handle;
    reserve.n_items = 1;
    reserve.items = items;
    reserve.deadline_ms = step->c % 4 ? 0 : 1 + step->c / 4 % 30;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.reserve = &reserve;
    world_say(w, "#%u %s reserve %s %" PRIu64 " bytes", clients_number(w, asked),
              client->node->name, clients_ids[claim->id], claim->bytes);
    clients_send(client, clients_number(w, asked), true, &request, NULL, 0);
}

static struct reserved *any_reserved(struct client *client, uint32_t pick) {
    struct world *w = client->node->world;
    for (unsigned i = 0; i < w->reserved_count; i++) {
        struct reserved *reserved = &w->reserved[(pick + i) % w->reserved_count];
        if (reserved->open && reserved->client == client &&
            client_is_current(client, reserved->serial))
            return reserved;
    }
    return NULL;
}

void clients_send_commit(struct client *client, struct asked *asked, uint64_t reservation) {
    struct world *w = client->node->world;
    uint8_t checksum[8] = {1};
    Fb__CommitItem item = FB__COMMIT_ITEM__INIT, *items[1] = {&item};
    item.reservation = reservation;
    item.checksums = (ProtobufCBinaryData){sizeof checksum, checksum};
    Fb__Commit commit = FB__COMMIT__INIT;
    commit.handle = client->handle;
    commit.n_items = 1;
    commit.items = items;
    commit.op_id = asked->op_id;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_COMMIT;
    request.commit = &commit;
    world_say(w, "#%u %s commit %s as %" PRIx64 "%s", clients_number(w, asked), client->node->name,
              clients_ids[asked->id], asked->claim->nonce, asked->repeats ? ", again" : "");
    clients_send(client, clients_number(w, asked), true, &request, NULL, 0);
}

void clients_commit(struct client *client, const struct step *step) {
    struct reserved *reserved = any_reserved(client, step->a);
    struct asked *asked = reserved ? clients_ask(client, STEP_COMMIT) : NULL;
    if (!asked)
        return;
    reserved->open = false;
    asked->claim = reserved->claim;
    asked->id = reserved->claim->id;
    clients_new_op(client, asked);
    world_may_not_know(client->node, asked->claim->id);
    contract_commit_begins(&client->node->world->contract, asked->claim);
    clients_send_commit(client, asked, reserved->reservation);
}

void clients_cancel(struct client *client, const struct step *step) {
    struct reserved *reserved = any_reserved(client, step->a);
    struct asked *asked = reserved ? clients_ask(client, STEP_CANCEL) : NULL;
    if (!asked)
        return;
    reserved->open = false;
    Fb__Cancel cancel = FB__CANCEL__INIT;
    cancel.handle = client->handle;
    cancel.n_reservations = 1;
    cancel.reservations = &reserved->reservation;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_CANCEL;
    request.cancel = &cancel;
    clients_send(client, clients_number(client->node->world, asked), true, &request, NULL, 0);
}

/* A put that was answered, most likely one of the last. */
