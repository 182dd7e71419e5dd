/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by cluster_clients.c, which asks, and cluster_answers.c, which hears the answers.
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

#endif
