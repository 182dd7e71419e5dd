/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of the node's memory (memory/kept_table.h), as they lie there, and how a broker comes
 * by that memory. All of them stand here, whoever fills them: together they are a format that the
 * next version of featured has to read. A record that changes gets a new `version` in kept.c.
 *
 * The keeper holds the node's memory as "node", the arena of the store in slot 3 as "a.3" and its
 * index as "i.3".
 */
#ifndef FEATURED_NODE_KEPT_H
#define FEATURED_NODE_KEPT_H

#include <stddef.h>
#include <stdint.h>

#include "broker.h"
#include "config.h"
#include "directory/directory.h"
#include "memory/kept_table.h"
#include "proto/auth.h"
#include "proto/layout.h"

struct broker;

#define KEPT_NODE_NAME "node"

/* A store, from before the first client can open it until its memory is given back. Its word is an
 * enum kept_store_word. */
enum kept_store_word { KEPT_STORE_LIVES = 1, KEPT_STORE_DROPPED = 2 };

struct kept_store {
    uint32_t slot; /* N in the names "a.N" and "i.N" */
    uint32_t has_secret, has_creator;
    uint32_t creator_uid; /* who made it at run time */
    uint64_t arena_bytes, block_bytes;
    uint32_t hugepages; /* whether the arena has such */
    uint32_t policy, checksum, readers, max_samples;
    /* With max_samples and the two sizes these fix the layout of the index. */
    uint32_t max_tombstones, max_leases, max_ended_leases;
    uint32_t max_holders, max_waiters, max_replays, max_events;
    uint64_t max_resident_bytes, landing_bytes;
    uint64_t max_hold_ms, max_reserve_ms, max_wait_ms, max_pass_ms;
    struct config_ids allow_uids, writer_uids;
    uint8_t key[AUTH_KEY_BYTES]; /* made of the secret; zeros without one */
    char name[LAYOUT_NAME_BYTES_MAX + 1];
};

/* A session whose client comes back to it, and what is open in it (node/sessions_kept.c, which says
 * when each is written). Its process and the lock of its program are with the keeper as "p.N" and
 * "l.N", N being the number of its record. */
enum kept_session_word { KEPT_SESSION_LIVES = 1 };
struct kept_session {
    uint64_t id; /* of the session, and of what it holds in stores */
    uint64_t client_id;
    uint64_t opened_ns;
    uint32_t uid, gid;
    int32_t pid; /* 0: of another pid namespace */
    uint8_t token[BROKER_TOKEN_BYTES];
    char client_name[48];
};
enum kept_attachment_word { KEPT_ATTACHMENT_OPEN = 1 };
struct kept_attachment {
    uint64_t session_id;
    uint32_t session; /* its record */
    uint32_t handle;  /* by which the client names it, from 1 */
    uint32_t slot;    /* of the store */
    uint32_t holder;  /* in the store */
    uint32_t write;
};

/* A lease that another home has granted to this node (exchange/remote_lease.c). */
enum kept_lease_word {
    KEPT_LEASE_HELD = 1,
    KEPT_LEASE_RETURNED, /* a reader may say `consumed` later */
    KEPT_LEASE_CONSUMED, /* its home has not confirmed that */
    KEPT_LEASE_TOLD,     /* it has */
};
struct kept_remote_lease {
    uint64_t id; /* by which the store's lease here names it */
    uint64_t hi, lo, generation;
    uint32_t uid; /* for whom */
    char node[LAYOUT_NAME_BYTES_MAX + 1], store[LAYOUT_NAME_BYTES_MAX + 1];
};

/* An ack that a home has not confirmed (exchange/outbox.c). */
enum kept_end_word { KEPT_END_ACK = 1 };
struct kept_end {
    uint64_t sequence; /* they are said in this order */
    uint64_t generation, incarnation;
    uint64_t client_id, op_id;
    uint32_t uid; /* who is charged */
    char node[LAYOUT_NAME_BYTES_MAX + 1], store[LAYOUT_NAME_BYTES_MAX + 1];
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

/* A put from before its sample is sealed until it is over (exchange/publish_recall.c). */
enum kept_put_word {
    KEPT_PUT_PUBLISHING = 1,
    KEPT_PUT_PUBLISHED, /* the index has it, and the older_... are set */
};
struct kept_put {
    uint64_t generation;
    uint64_t client_id, op_id; /* op_id 0: nobody repeats it */
    uint64_t begun_ns;
    int64_t moment; /* directory_ops.moment() before it was published */
    uint64_t older_generation, older_incarnation; /* what it has replaced elsewhere */
    uint32_t uid, ask_everyone;
    char store[LAYOUT_NAME_BYTES_MAX + 1], older_home[LAYOUT_NAME_BYTES_MAX + 1];
};

/* The tables of this version; the last argument of kept_memory_new() and of the attach. */
extern const struct kept_table_spec kept_specs[];
extern const uint32_t kept_spec_count;

/* Attaches the memory that the keeper has, or makes it and gives it to the keeper. broker->kept is
 * set, and broker->options.incarnation is that of the memory. 0, or -errno with a sentence. */
int kept_open(struct broker *broker, uint64_t now_ns, char *why, size_t why_bytes);

/* What the directory must know again; for its constructor. After kept_open(). */
struct directory_kept *kept_directory(const struct broker *broker);

#endif
