/* SPDX-License-Identifier: Apache-2.0
 *
 * How a simulated client comes to its broker: for the first time, or back to its session when the
 * broker was killed and has started again with its memory. What libfeature and local/session.c do
 * between them, in one place: there is no socket here.
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "model/cluster_clients.h"
#include "proto/version.h"

static const struct broker_credentials credentials = {.uid = 0, .gid = 0, .pid = 1};

static void say_hello(struct client *client, const Fb__Hello *hello) {
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = (Fb__Hello *)hello;
    clients_send(client, GREETING_BASE, true, &request, NULL, 0);
}

/* A client that does not know what has become of its commit holds the reservation. */
static bool is_reserved_by(const struct client *client, const struct reserved *reserved) {
    return reserved->client == client && reserved->serial == client->serial &&
           (reserved->open || reserved->claim->state == CLAIM_UNKNOWN);
}

/* What it was granted and never heard of ends. */
static void say_what_it_holds(struct client *client) {
    static uint64_t leases[2 * LEASES_MAX], reservations[CLAIMS_MAX];
    const struct world *w = client->node->world;
    Fb__HeldStore store = FB__HELD_STORE__INIT, *stores[1] = {&store};
    store.handle = client->handle;
    store.leases = leases;
    store.reservations = reservations;
    for (unsigned i = 0; i < w->held_count; i++) {
        const struct held *held = &w->held[i];
        if (held->state != LEASE_HELD || held->client != client || held->serial != client->serial)
            continue;
        leases[store.n_leases++] = held->hi;
        leases[store.n_leases++] = held->lo;
    }
    for (unsigned i = 0; i < w->reserved_count; i++)
        if (is_reserved_by(client, &w->reserved[i]))
            reservations[store.n_reservations++] = w->reserved[i].reservation;
    Fb__Holds holds = FB__HOLDS__INIT;
    holds.n_stores = 1;
    holds.stores = stores;
    holds.complete = true;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HOLDS;
    request.holds = &holds;
    clients_send(client, GREETING_BASE, false, &request, NULL, 0);
}

/* What local/session.c does with a connection whose Hello names a session. */
static void come_back(struct client *client, Fb__Hello *hello) {
    struct node *node = client->node;
    hello->session_id = client->session_id;
    hello->token = (ProtobufCBinaryData){sizeof client->token, client->token};
    client->session = broker_session_claimed(node->broker, hello, &credentials);
    if (!client->session) {
        contract_broken(&node->world->contract, "session lost",
                        "a client of node %s came back, and its session is not there", node->name);
        return;
    }
    world_say(node->world, "%s: client %u comes back", node->name,
              (unsigned)(client - node->clients));
    broker_session_resume(client->session, &clients_ops, client);
    say_hello(client, hello);
    client->returns = false;
    say_what_it_holds(client);
}

void client_connect(struct client *client) {
    if (client->session)
        return;
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = client->client_id;
    hello.lasts = client->node->keep != NULL;
    if (client->returns) {
        come_back(client, &hello);
        return;
    }
    client->session = broker_session_open(client->node->broker, &clients_ops, client, &credentials,
                                          (char[320]){0}, 320);
    cr_assert_not_null(client->session);
    client->serial++;
    say_hello(client, &hello);
    /* In place of the descriptors by which a real broker watches the process. */
    cr_assert_eq(broker_session_keep(client->session, STDIN_FILENO, STDIN_FILENO), 0);
    uint8_t nonce[AUTH_NONCE_BYTES] = {0};
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    open.store = (char *)"run";
    open.write = true;
    open.client_nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    clients_send(client, GREETING_BASE, true, &request, NULL, 0);
}
