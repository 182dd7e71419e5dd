/* SPDX-License-Identifier: Apache-2.0
 *
 * The accounts of this node (charges.h): one for each session, user and peer that holds something.
 *
 *   node <- user <- session         what a session is charged for is charged to its user and to the
 *        <- peer                    node as well: parents of accounts (store/charges.h)
 *
 * An account is there as long as its owner is (holds > 0), and longer while something is still
 * charged to it: what a session leaves behind, for example acks that a home has not confirmed,
 * stays charged to it and to its user. A user who could shed charges by reconnecting would have no
 * limit.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/node.h"

void accounts_init(struct broker *broker) {
    TAILQ_INIT(&broker->accounts);
    account_init(&broker->node_account, ACCOUNT_NODE, 0, NULL, &broker->limits);
}

void accounts_deinit(struct broker *broker) {
    assert(!broker->account_count);
    account_deinit(&broker->node_account);
}

/* Users and peers are few, and looked for only when one connects: a list will do. */
static struct held_account *accounts_find(struct broker *broker, enum account_kind kind,
                                          uint64_t number, const char *name) {
    struct held_account *held;
    TAILQ_FOREACH (held, &broker->accounts, link)
        if (held->account.kind == kind && held->account.number == number &&
            !strcmp(held->name, name))
            return held;
    return NULL;
}

/* Accounts of sessions are not in the list: each is known to its session, and nobody looks for it.
 */
static struct held_account *accounts_new(struct broker *broker, enum account_kind kind,
                                         uint64_t number, const char *name,
                                         struct account *parent) {
    struct held_account *held = calloc(1, sizeof *held);
    if (!held)
        return NULL;
    account_init(&held->account, kind, number, parent, &broker->limits);
    snprintf(held->name, sizeof held->name, "%s", name);
    held->account.name = held->name;
    broker->account_count++;
    if (kind != ACCOUNT_SESSION)
        TAILQ_INSERT_TAIL(&broker->accounts, held, link);
    return held;
}

static struct account *accounts_hold(struct held_account *held) {
    if (!held)
        return NULL;
    held->holds++;
    return &held->account;
}

void accounts_keep(struct account *account) {
    ((struct held_account *)account)->holds++;
}

struct account *accounts_user(struct broker *broker, uid_t uid) {
    struct held_account *held = accounts_find(broker, ACCOUNT_USER, uid, "");
    if (!held)
        held = accounts_new(broker, ACCOUNT_USER, uid, "", &broker->node_account);
    return accounts_hold(held);
}

struct account *accounts_peer(struct broker *broker, const char *node) {
    struct held_account *held = accounts_find(broker, ACCOUNT_PEER, 0, node);
    if (!held)
        held = accounts_new(broker, ACCOUNT_PEER, 0, node, &broker->node_account);
    return accounts_hold(held);
}

/* The account of a session holds that of its user, which therefore cannot end before it. */
struct account *accounts_session(struct broker *broker, uint64_t session_id, uid_t uid) {
    struct account *user = accounts_user(broker, uid);
    struct held_account *held =
        user ? accounts_new(broker, ACCOUNT_SESSION, session_id, "", user) : NULL;
    if (user && !held)
        accounts_unhold(broker, user);
    return accounts_hold(held);
}

/* Frees the account if nobody has to do with it any more, then perhaps its user's. Frees the
 * account of a session before it lets go of that of its user, because the one points to the other
 * as its parent. */
static void accounts_settle(struct broker *broker, struct account *account) {
    struct held_account *held = (struct held_account *)account;
    if (account->kind == ACCOUNT_NODE || held->holds || !account_is_empty(account))
        return;
    struct account *parent = account->parent;
    bool of_session = account->kind == ACCOUNT_SESSION;
    account_deinit(account);
    if (!of_session)
        TAILQ_REMOVE(&broker->accounts, held, link);
    broker->account_count--;
    free(held);
    if (of_session)
        accounts_unhold(broker, parent);
}

void accounts_unhold(struct broker *broker, struct account *account) {
    ((struct held_account *)account)->holds--;
    accounts_settle(broker, account);
}

/* A charge that is given back may be the last thing that kept the account of somebody who is gone.
 */
void accounts_release(struct broker *broker, struct account *account, enum charge charge,
                      uint64_t count) {
    account_release(account, charge, count);
    accounts_settle(broker, account);
}
