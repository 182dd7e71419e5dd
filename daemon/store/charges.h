/* SPDX-License-Identifier: Apache-2.0
 *
 * What clients and peers make the broker keep, and to whom it is charged. An account belongs to a
 * session, to a user, to a peer or to the whole node; what is charged to a session is charged to
 * its user and to the node as well (parent), so that opening more sessions, stores or handles
 * multiplies nothing. Each limit has a key of the configuration.
 *
 * Whoever charges something releases it, once, when it is gone; an account is empty when its owner
 * ends. Pure: no clock, no memory of its own; a charge is a few comparisons and additions.
 */
#ifndef FEATURED_STORE_CHARGES_H
#define FEATURED_STORE_CHARGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum charge {
    CHARGE_SESSIONS = 0,
    CHARGE_HANDLES,        /* stores opened: each handle counts */
    CHARGE_LEASES,         /* and gets that wait for one in a store */
    CHARGE_RESERVATIONS,   /* and puts that wait for room */
    CHARGE_RESERVED_BYTES, /* of reservations not committed yet; counted, not limited */
    CHARGE_QUEUED_BYTES,   /* of puts that wait for room */
    CHARGE_KEPT_BYTES,     /* bytes of samples kept outside the arenas while they wait for room */
    CHARGE_REQUESTS,       /* not answered yet */
    CHARGE_WAITS,          /* items of those; of a user and a peer also what outlives them */
    CHARGE_UNREAD_BYTES,   /* of answers that the client has not taken yet */
    CHARGE_UNREAD_DESCRIPTORS,
    CHARGE_PENDING_ENDS, /* releases and acks that a home has not confirmed */
    CHARGE_STORES,       /* created at run time */
    CHARGE_CONNECTIONS,  /* of a peer */
    CHARGES
};

enum account_kind { ACCOUNT_NODE = 0, ACCOUNT_USER, ACCOUNT_SESSION, ACCOUNT_PEER, ACCOUNT_KINDS };

#define CHARGE_UNLIMITED UINT64_MAX

struct charge_limits {
    uint64_t of[ACCOUNT_KINDS][CHARGES];
};

struct account {
    struct account *parent;             /* charged along; NULL = none */
    const struct charge_limits *limits; /* looked at with each charge: they may change */
    enum account_kind kind;
    uint64_t number;  /* session id or uid */
    const char *name; /* of a peer */
    uint64_t used[CHARGES];
};

/* Which limit, of whom. */
struct charge_refusal {
    const struct account *account;
    enum charge charge;
    uint64_t limit, used, asked;
};

/* No limit anywhere. */
void charge_limits_init(struct charge_limits *limits);
void account_init(struct account *account, enum account_kind kind, uint64_t number,
                  struct account *parent, const struct charge_limits *limits);
/* Asserts that everything has been released. */
void account_deinit(const struct account *account);
bool account_is_empty(const struct account *account);

/* Would so many more fit, here and at every parent? False: *refusal says what is full. */
bool account_has_room(const struct account *account, enum charge charge, uint64_t count,
                      struct charge_refusal *refusal);
/* The same, and charges them. */
bool account_charge(struct account *account, enum charge charge, uint64_t count,
                    struct charge_refusal *refusal);
/* Charges what cannot be refused any more. */
void account_add(struct account *account, enum charge charge, uint64_t count);
void account_release(struct account *account, enum charge charge, uint64_t count);

/* The key of the configuration that limits it, e.g. "max_leases_per_session"; NULL = no limit of
 * that kind. */
const char *charge_key(enum account_kind kind, enum charge charge);
/* "leases"; of bytes: "of unread answers". */
const char *charge_words(enum charge charge);
bool charge_is_bytes(enum charge charge);

#endif
