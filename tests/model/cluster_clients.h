/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by cluster_clients.c, which asks, cluster_puts.c, which does so for what puts, and
 * cluster_answers.c, which hears the answers.
 */
#ifndef FEATURED_TESTS_CLUSTER_CLIENTS_H
#define FEATURED_TESTS_CLUSTER_CLIENTS_H

#include "model/cluster_sim.h"

#define GREETING_BASE 0x80000000u /* request ids of Hello and StoreOpen */

extern const struct broker_client_ops clients_ops;
extern const char *const clients_ids[SAMPLE_IDS];
extern const char *const clients_step_names[STEP_KINDS];

/* The bytes of the put with that nonce. */
void clients_fill(uint8_t *at, uint64_t nonce, uint64_t bytes);
const uint8_t *clients_node_bytes(const struct node *node, uint64_t offset);
/* Is it still in the session it was in? */
bool client_is_current(const struct client *client, uint64_t serial);
bool clients_have_no_effect(const struct world *w, const struct asked *asked);
void clients_id_retired(struct world *w, const struct asked *asked, bool ok);

/* Sends a request; request_id is clients_number() of what was asked. */
void clients_send(struct client *client, uint32_t request_id, bool wants_reply,
                  const Fb__ClientRequest *request, const uint8_t *payload, size_t bytes);
/* Notes that something of that kind is asked now; NULL when the history has asked enough. */
struct asked *clients_ask(struct client *client, enum step_kind kind);
uint32_t clients_number(const struct world *w, const struct asked *asked);
/* Gives it an operation id, so that it can be repeated. */
uint64_t clients_new_op(struct client *client, struct asked *asked);

void clients_put(struct client *client, const struct step *step);
void clients_reserve(struct client *client, const struct step *step);
void clients_commit(struct client *client, const struct step *step);
void clients_cancel(struct client *client, const struct step *step);
/* What those send; again for a repeat. */
void clients_send_put(struct client *client, struct asked *asked, uint32_t deadline_ms);
void clients_send_commit(struct client *client, struct asked *asked, uint64_t reservation);

#endif
