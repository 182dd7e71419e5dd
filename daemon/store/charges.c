/* SPDX-License-Identifier: Apache-2.0
 *
 * What an account may hold of each kind of thing, and the words for it.
 *
 * Accounts form chains: a session's account has that of its user as parent, the user's that of the
 * node. Whatever is charged to one is charged to all of its parents, and a limit that is reached
 * anywhere in the chain refuses. An account does not know what is charged to it; it only counts.
 * Whoever adds a charge releases it, and account_deinit() asserts that nothing is left.
 *
 * The table below is the only place that names the keys of featured.conf for limits, so that a
 * refusal can name the key that an admin has to raise.
 */
#include "store/charges.h"

#include <assert.h>
#include <string.h>

struct charge_name {
    const char *words, *keys[ACCOUNT_KINDS];
    bool bytes;
};

/* clang-format off */
#define SESSION_AND_USER(name) \
    .keys = {[ACCOUNT_SESSION] = name "_per_session", [ACCOUNT_USER] = name "_per_user"}

static const struct charge_name names[CHARGES] = {
    [CHARGE_SESSIONS] = {"sessions", .keys = {[ACCOUNT_USER] = "max_sessions_per_user"}},
    [CHARGE_HANDLES] = {"open handles of stores", SESSION_AND_USER("max_handles")},
    [CHARGE_LEASES] = {"leases", .keys = {[ACCOUNT_SESSION] = "max_leases_per_session",
                                          [ACCOUNT_USER] = "max_leases_per_user",
                                          [ACCOUNT_PEER] = "max_leases_per_peer"}},
    [CHARGE_RESERVATIONS] = {"reservations", SESSION_AND_USER("max_reservations")},
    [CHARGE_RESERVED_BYTES] = {"reserved", .bytes = true},
    [CHARGE_QUEUED_BYTES] = {"of puts that wait for room", SESSION_AND_USER("max_queued_bytes"), .bytes = true},
    [CHARGE_KEPT_BYTES] = {"of small puts that wait for room", SESSION_AND_USER("max_kept_bytes"), .bytes = true},
    [CHARGE_REQUESTS] = {"requests not answered yet", SESSION_AND_USER("max_requests")},
    [CHARGE_WAITS] = {"items of requests not answered yet", .keys = {[ACCOUNT_SESSION] = "max_waits_per_session",
                                                         [ACCOUNT_USER] = "max_waits_per_user",
                                                         [ACCOUNT_PEER] = "max_waits_per_peer"}},
    [CHARGE_UNREAD_BYTES] = {"of unread answers", .keys = {[ACCOUNT_SESSION] = "max_unread_bytes_per_session",
        [ACCOUNT_USER] = "max_unread_bytes_per_user",
        [ACCOUNT_PEER] = "max_unread_bytes_per_peer"}, .bytes = true},
    [CHARGE_UNREAD_DESCRIPTORS] = {"descriptors not taken yet", SESSION_AND_USER("max_unread_descriptors")},
    [CHARGE_PENDING_ENDS] = {"acks and releases that wait for a node", .keys = {[ACCOUNT_SESSION] = "max_pending_ends_per_session",
                                                                   [ACCOUNT_USER] = "max_pending_ends_per_user",
                                                                   [ACCOUNT_NODE] = "max_pending_ends"}},
    [CHARGE_STORES] = {"stores created", .keys = {[ACCOUNT_USER] = "max_stores_per_user"}},
    [CHARGE_CONNECTIONS] = {"connections", .keys = {[ACCOUNT_PEER] = "max_connections_per_peer"}},
};
/* clang-format on */

/* A limit that has no key in featured.conf stays unlimited. */
void charge_limits_init(struct charge_limits *limits) {
    for (size_t kind = 0; kind < ACCOUNT_KINDS; kind++)
        for (size_t charge = 0; charge < CHARGES; charge++)
            limits->of[kind][charge] = CHARGE_UNLIMITED;
}

void account_init(struct account *account, enum account_kind kind, uint64_t number,
                  struct account *parent, const struct charge_limits *limits) {
    *account = (struct account){.parent = parent, .limits = limits, .kind = kind, .number = number};
}

/* memcmp() against zeros: `used` is an array of integers without padding. */
bool account_is_empty(const struct account *account) {
    static const uint64_t nothing[CHARGES];
    return !memcmp(account->used, nothing, sizeof nothing);
}

void account_deinit(const struct account *account) {
    assert(account_is_empty(account));
    (void)account;
}

/* Walks from the account up to the node. The first account that is full is the one named: for a
 * user at the limit of its session the session's limit is what can be acted on. A limit can be
 * below what is used already, when a reload has lowered it; then nothing more is let in until
 * enough has been released. */
bool account_has_room(const struct account *account, enum charge charge, uint64_t count,
                      struct charge_refusal *refusal) {
    for (; account; account = account->parent) {
        uint64_t limit = account->limits->of[account->kind][charge], used = account->used[charge];
        if (used <= limit && count <= limit - used)
            continue;
        *refusal = (struct charge_refusal){account, charge, limit, used, count};
        return false;
    }
    return true;
}

/* Checks the whole chain before anything is added, so that a refusal leaves nothing to be undone.
 */
bool account_charge(struct account *account, enum charge charge, uint64_t count,
                    struct charge_refusal *refusal) {
    if (!account_has_room(account, charge, count, refusal))
        return false;
    account_add(account, charge, count);
    return true;
}

void account_add(struct account *account, enum charge charge, uint64_t count) {
    for (; account; account = account->parent)
        account->used[charge] += count;
}

void account_release(struct account *account, enum charge charge, uint64_t count) {
    for (; account; account = account->parent) {
        assert(account->used[charge] >= count);
        account->used[charge] -= count;
    }
}

const char *charge_key(enum account_kind kind, enum charge charge) {
    return names[charge].keys[kind];
}

const char *charge_words(enum charge charge) {
    return names[charge].words;
}

bool charge_is_bytes(enum charge charge) {
    return names[charge].bytes;
}
