/* SPDX-License-Identifier: Apache-2.0
 *
 * The accounts of sessions, users and peers (charges.h): made when first needed, kept as long as
 * their owner holds them or anything is charged to them.
 */
#ifndef FEATURED_BROKER_ACCOUNTS_H
#define FEATURED_BROKER_ACCOUNTS_H

#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "proto/layout.h"
#include "store/charges.h"

struct broker;

struct held_account {
    struct account account; /* first: the rest of the broker sees this alone */
    TAILQ_ENTRY(held_account) link;
    uint32_t holds; /* by its owner: sessions of a user, connections of a peer, a session */
    char name[LAYOUT_NAME_BYTES_MAX + 1]; /* of a peer */
};
TAILQ_HEAD(held_account_list, held_account);

void accounts_init(struct broker *broker);
/* Nothing is charged any more. */
void accounts_deinit(struct broker *broker);
/* The account of a new session; of a user or node, made when there is none. Held until
 * accounts_unhold(); then it stays as long as something is charged to it. NULL: no memory. */
struct account *accounts_session(struct broker *broker, uint64_t session_id, uid_t uid);
struct account *accounts_user(struct broker *broker, uid_t uid);
struct account *accounts_peer(struct broker *broker, const char *node);
/* One more has to do with it. */
void accounts_keep(struct account *account);
void accounts_unhold(struct broker *broker, struct account *account);
/* As account_release(), of what may outlive the account's owner. */
void accounts_release(struct broker *broker, struct account *account, enum charge charge,
                      uint64_t count);

#endif
