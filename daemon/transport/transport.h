/* SPDX-License-Identifier: Apache-2.0
 *
 * What moves messages and bytes between two brokers. One table of operations per transport; no
 * store, lease or protobuf type appears here. Everything happens on the loop thread; nothing
 * blocks; no callback runs from inside an operation (they come from the loop, or from the fake's
 * step).
 *
 * A connection is authenticated (mutual challenge-response with the cluster secret) before `up` or
 * `accepted` is raised. It carries messages, whole and in order, and reads of the other side's
 * registered regions, concurrently, neither delaying the other by more than one chunk. It ends
 * once, by `closed`, after which the transport has forgotten it. Reads outstanding at that moment
 * are reported by `read_done` with an error before `closed`; no byte is written to a landing range
 * after its `read_done`.
 *
 * On the home's side, `closed` of an accepted connection is the proof that its peer can read no
 * further byte of any region.
 */
#ifndef FEATURED_TRANSPORT_H
#define FEATURED_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "proto/auth.h"

#define TRANSPORT_HELLO_BYTES_MAX   512u
#define TRANSPORT_MESSAGE_BYTES_MAX 1048576u
#define TRANSPORT_KEY_BYTES_MAX     4096u
#define TRANSPORT_PARTS_MAX         16u /* of one message */
#define TRANSPORT_RAILS_MAX         8u

struct transport;
/* One connection, as its owner holds it. Each transport has it inside a struct of its own. */
struct transport_conn {
    struct transport *transport; /* that it is of */
};

struct transport_events {
    /* Another broker dialled us and proved itself. hello: what it said of itself. Return the user
     * pointer for this connection, or NULL to refuse it. */
    void *(*accepted)(void *owner, struct transport_conn *conn, const void *hello,
                      size_t hello_bytes);
    /* Our connect() succeeded and the other side proved itself. */
    void (*up)(void *owner, void *user, const void *hello, size_t hello_bytes);
    void (*message)(void *owner, void *user, const void *data, size_t bytes);
    /* status: 0, or -ECONNRESET, -ETIMEDOUT, -EINVAL (the home refused the range), ... */
    void (*read_done)(void *owner, void *user, void *read_user, int status);
    /* Bytes of a read arrived (at most once per chunk): for progress-based deadlines. prefix_bytes:
     * so many from its beginning have landed and are not written again; it never shrinks, is never
     * more than bytes_done, and stays 0 where the transport does not know. */
    void (*read_progress)(void *owner, void *user, void *read_user, uint64_t bytes_done,
                          uint64_t prefix_bytes);
    /* The connection is over a way that was second choice, and the first would work now: closing
     * and connecting again, when it suits the owner, gets that. May be NULL. */
    void (*better)(void *owner, void *user);
    /* why: one sentence, "" after our own close(). Last event of a connection. */
    void (*closed)(void *owner, void *user, const char *why);
};

struct transport_options {
    const uint8_t
        *cluster_key;  /* AUTH_KEY_BYTES; NULL = no secret configured: both sides must have none */
    const void *hello; /* ours, copied */
    size_t hello_bytes;
    uint32_t chunk_bytes;          /* of bulk reads; default 1 MiB */
    uint32_t reads_per_connection; /* outstanding at once; further ones queue in order */
    uint32_t handshake_timeout_ms;
    uint32_t data_timeout_ms;  /* for a data address to answer; 0 = handshake_timeout_ms */
    uint64_t send_queue_bytes; /* -ENOBUFS from send() beyond this */
    uint32_t connections_max;  /* accepted ones */
};

struct transport_read {
    const void *key; /* from the other side's region_key(), carried to us by its owner */
    size_t key_bytes;
    uint64_t remote_offset, bytes; /* inside that region */
    void *local;                   /* lands here; inside a region of ours */
    void *read_user;               /* handed to read_done and read_progress */
};

/* One path of a connection that has several. Counters are of the connection, over every time the
 * path was up. */
struct transport_rail_info {
    char name[32], local[48]; /* device and port, our address on it */
    bool up;
    uint32_t mtu_bytes;
    uint64_t bytes_in, reads, errors;
    char last_failure[96]; /* in words; "" = none */
};

struct transport_info {
    const char *transport; /* "tcp", "rdma", "fake" */
    char local[64], remote[64];
    uint64_t message_bytes_in, message_bytes_out, read_bytes_in, read_bytes_out;
    uint32_t reads_in_flight;
    uint64_t send_queued_bytes;
    char detail[96]; /* in words; may be empty */
    /* Why bytes do not come from the data address that was to be dialled but from where messages
     * go;
     * "" = they come from there, or none was given. */
    char data_failure[96];
    uint32_t rail_count; /* 0 where there are no rails */
    struct transport_rail_info rails[TRANSPORT_RAILS_MAX];
};

struct transport_ops {
    const char *name;
    /* address: "host:port"; port 0 = any. bound_out: the address got. 0 or -errno. */
    int (*listen)(struct transport *t, const char *address, char bound_out[64]);
    int (*add_region)(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out);
    /* Peers cannot read it from here on; connections with a read under way on it are closed. */
    void (*remove_region)(struct transport *t, uint32_t region);
    /* The key with which the other side of this connection reads the region; over any other
     * connection it opens nothing. Bytes written to out (<= TRANSPORT_KEY_BYTES_MAX), or -ENOENT.
     */
    int (*region_key)(struct transport_conn *conn, uint32_t region, void *out, size_t out_bytes);
    /* address: of messages. data_address: of bulk bytes, when they take a way of their own; "" =
     * the same. A data address that cannot be reached does not keep the connection from coming up:
     * query tells. user: handed to every event of this connection. Failure to connect comes as
     * `closed`.
     */
    int (*connect)(struct transport *t, const char *address, const char *data_address, void *user,
                   struct transport_conn **out);
    /* One message of at most TRANSPORT_MESSAGE_BYTES_MAX; copied or sent before return. 0,
     * -EMSGSIZE (also more than TRANSPORT_PARTS_MAX parts), -ENOBUFS, -ENOTCONN. */
    int (*send)(struct transport_conn *conn, const struct iovec *parts, int part_count);
    /* 0 or -errno; on 0 exactly one read_done follows. A read ends early only with its connection.
     */
    int (*read)(struct transport_conn *conn, const struct transport_read *read);
    /* `closed` follows from the loop. */
    void (*close)(struct transport_conn *conn);
    void (*query)(const struct transport_conn *conn, struct transport_info *out);
    /* Closes everything; `closed` events follow; then on_destroyed(owner). */
    void (*destroy)(struct transport *t, void (*on_destroyed)(void *owner));
};

struct transport {
    const struct transport_ops *ops;
};

/* What a constructor of a transport gets; all of it is copied. */
struct transport_setup {
    struct uv_loop_s *loop;
    const struct transport_options *options;
    const struct transport_events *events;
    void *owner; /* handed to each event */
};
/* 0, or -errno with one sentence in `why` that says what is missing and what to do about it. Those
 * of transports that need more than a setup (a device's options, a fake network) take more
 * arguments; daemon/transports.c wraps them into this form. */
typedef int (*transport_constructor)(const struct transport_setup *setup, struct transport **out,
                                     char *why, size_t why_bytes);

#endif
