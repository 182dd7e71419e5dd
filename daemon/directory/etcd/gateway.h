/* SPDX-License-Identifier: Apache-2.0
 *
 * What the directory asks of an etcd cluster, as typed requests and answers. Behind `struct etcd`
 * stands the JSON gateway of a real etcd (client.c) or, in tests, a simulation. Nothing here knows
 * of samples, nodes or fencing.
 *
 * Keys and values are NUL-terminated text. Answers come by callback, never from inside the call
 * that asked, exactly once.
 */
#ifndef FEATURED_DIRECTORY_ETCD_GATEWAY_H
#define FEATURED_DIRECTORY_ETCD_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "directory/directory.h"

#define ETCD_TXN_OPS_MAX   128u       /* etcd's --max-txn-ops */
#define ETCD_TXN_BYTES_MAX (1u << 20) /* of keys and values; etcd refuses beyond 1.5 MiB */
#define ETCD_LEASE_TTL_MIN 2          /* seconds; etcd 3.4 raises smaller ones silently */

enum etcd_result {
    ETCD_OK = 0,
    ETCD_E_REFUSED,     /* answered with an error: not done and never will be */
    ETCD_E_COMPACTED,   /* the revision asked for is gone: not done */
    ETCD_E_UNREACHABLE, /* no endpoint took it: not done and never will be */
    ETCD_E_UNKNOWN,     /* sent and not answered: may be done now, later or never */
};

struct etcd_kv {
    const char *key, *value;
    int64_t create_revision, mod_revision, lease;
};

enum etcd_target { ETCD_CREATE_REVISION, ETCD_MOD_REVISION, ETCD_VALUE };
enum etcd_relation { ETCD_EQUAL, ETCD_GREATER, ETCD_LESS };

struct etcd_compare {
    const char *key;
    enum etcd_target target;
    enum etcd_relation relation;
    int64_t revision;  /* of ETCD_CREATE_REVISION (0 = the key does not exist) and _MOD_REVISION */
    const char *value; /* of ETCD_VALUE: bytewise; a key that does not exist compares false */
};

enum etcd_op_kind { ETCD_PUT, ETCD_RANGE, ETCD_DELETE, ETCD_PUT_IF, ETCD_DELETE_IF };

struct etcd_op {
    enum etcd_op_kind kind;
    const char *key;
    const char *range_end;               /* RANGE: [key, range_end); NULL = the key alone */
    const char *value;                   /* PUT */
    int64_t lease;                       /* PUT; 0 = none */
    bool prev_kv;                        /* PUT: answer what was there */
    int64_t revision, limit;             /* RANGE; 0 = now, all */
    const struct etcd_compare *compares; /* .._IF: a nested Txn that acts if all hold */
    size_t compare_count;
};

enum etcd_request_kind {
    ETCD_TXN,
    ETCD_READ, /* one RANGE: a Txn cannot say `more` */
    ETCD_LEASE_GRANT,
    ETCD_LEASE_KEEP_ALIVE,
    ETCD_LEASE_REVOKE,
    ETCD_AUTHENTICATE,
};

/* Lives until ask() returns. */
struct etcd_request {
    enum etcd_request_kind kind;
    /* TXN: `success` if all compares hold, else `failure`. No key twice among PUT and DELETE. */
    const struct etcd_compare *compares;
    size_t compare_count;
    const struct etcd_op *success, *failure;
    size_t success_count, failure_count;
    struct etcd_op read;         /* READ */
    int64_t lease;               /* KEEP_ALIVE, REVOKE */
    int64_t ttl_s;               /* GRANT */
    const char *name, *password; /* AUTHENTICATE */
};

struct etcd_op_answer {
    bool succeeded;            /* .._IF: the compares held */
    int64_t deleted;           /* DELETE */
    size_t kv_first, kv_count; /* of the answer's kvs: what RANGE found, PUT's prev_kv */
};

/* Lives until the callback returns. */
struct etcd_answer {
    int64_t revision;
    bool succeeded; /* TXN: the compares held */
    bool more;      /* READ: there are keys beyond `limit` */
    struct etcd_op_answer *ops;
    size_t op_count;
    struct etcd_kv *kvs;
    size_t kv_count;
    int64_t lease, ttl_s; /* GRANT, KEEP_ALIVE; ttl_s 0 = there is no such lease */
    const char *token;    /* AUTHENTICATE */
};

struct etcd_event {
    bool deleted; /* then kv has a key only */
    struct etcd_kv kv;
};

/* One message of a watch; lives until the callback returns. A watch ends with `ended`, after which
 * it need not be closed: compact_revision > 0 says that the revision asked for is gone. */
struct etcd_watch_message {
    int64_t revision;
    const struct etcd_event *events;
    size_t event_count;
    bool ended;
    int64_t compact_revision;
};

/* answer NULL unless ETCD_OK; why: one sentence unless ETCD_OK. */
typedef void (*etcd_done_fn)(void *context, enum etcd_result result,
                             const struct etcd_answer *answer, const char *why);
/* Must not ask, watch or unwatch. */
typedef void (*etcd_watch_fn)(void *context, const struct etcd_watch_message *message);

struct etcd;
struct etcd_watch;

struct etcd_ops {
    /* timeout_ms: within which the answer comes, whatever it is. */
    void (*ask)(struct etcd *etcd, const struct etcd_request *request, uint32_t timeout_ms,
                etcd_done_fn done, void *context);
    /* Changes of [key, range_end) from start_revision on. NULL when out of memory. */
    struct etcd_watch *(*watch)(struct etcd *etcd, const char *key, const char *range_end,
                                int64_t start_revision, etcd_watch_fn fn, void *context);
    void (*unwatch)(struct etcd *etcd, struct etcd_watch *watch);
    /* What is unanswered is answered ETCD_E_UNKNOWN first; watches just end. revoke: a lease given
     * back as a last deed, as far as possible; 0 = none. */
    void (*destroy)(struct etcd *etcd, int64_t revoke);
};

struct etcd {
    const struct etcd_ops *ops;
    struct directory_counts counts; /* filled in by whoever carries the requests out */
};

#endif
