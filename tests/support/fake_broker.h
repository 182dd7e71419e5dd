/* SPDX-License-Identifier: Apache-2.0
 *
 * A small broker for the unit tests of libfeature: one thread, one store, real sockets and a real
 * memfd. It behaves unless its hook says otherwise. It never frees arena room and checks nothing
 * that a client sends: it is no model of featured.
 */
#ifndef FEATURED_TESTS_SUPPORT_FAKE_BROKER_H
#define FEATURED_TESTS_SUPPORT_FAKE_BROKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "proto/auth.h"
#include "proto/frame.h"

#define FAKE_STORE        "run0"
#define FAKE_NODE         "node-a"
#define FAKE_ARENA_BYTES  (16u << 20)
#define FAKE_SAMPLES_MAX  1024u
#define FAKE_SESSIONS_MAX 8u
#define FAKE_RECORDS_MAX  4096u
#define FAKE_HELD_MAX     1024u

enum fake_verdict {
    FAKE_ANSWER, /* as a good broker would */
    FAKE_HOLD,   /* not now: fake_broker_answer_held() does */
    FAKE_DROP,   /* carry it out, but close the connection instead of answering */
    FAKE_CLOSE,  /* close the connection at once */
};

struct fake_request {
    int fd;
    struct frame_header header;
    Fb__ClientRequest *message;
    const uint8_t *payload;
};

/* What came, in order; read it under the lock or after fake_broker_await(). */
struct fake_record {
    Fb__ClientRequest__OpCase op;
    bool note;
    unsigned connection; /* 1 = the first that was accepted */
    uint64_t op_id;
    uint64_t id; /* first lease_lo of a Release, first reservation of a Cancel */
    unsigned items;
    bool consumed, corrupt;
};

struct fake_sample {
    char id[129];
    uint64_t generation, reservation, extent_offset, extent_bytes, op_id;
    uint8_t spec[8192], checksums[512];
    size_t spec_bytes, checksums_bytes;
};

struct fake_session {
    int fd;
    unsigned connection;
    uint8_t client_nonce[AUTH_NONCE_BYTES], server_nonce[AUTH_NONCE_BYTES];
};

struct fake_broker {
    /* set between fake_broker_init() and _start(), or under the lock */
    uint64_t incarnation;
    bool has_secret, wrong_proof;
    uint8_t key[AUTH_KEY_BYTES];
    Fb__ChecksumPolicy checksum;
    bool over_network;
    uint64_t arena_bytes_said;
    uint32_t inline_bytes, batch_items, version;
    uint32_t requests_said, items_said; /* limits; 0 = not said */
    /* Called with the lock held for every request; may change what it points to. */
    enum fake_verdict (*on_request)(struct fake_broker *broker, const struct fake_request *request);
    /* Called with the lock held for every answer; may change it. */
    void (*on_reply)(struct fake_broker *broker, const struct fake_request *request,
                     Fb__ClientReply *reply);
    void *context;

    char directory[64], path[96];
    pthread_mutex_t lock;
    pthread_cond_t recorded;
    pthread_t thread;
    bool running;
    int listen_fd, wake_fd, arena_fd;
    uint8_t *arena;
    uint64_t arena_used_bytes, next_generation, next_lease;
    struct fake_session sessions[FAKE_SESSIONS_MAX];
    unsigned connections; /* ever accepted */
    struct fake_sample *samples;
    unsigned sample_count, effects; /* puts and commits carried out */
    struct fake_record records[FAKE_RECORDS_MAX];
    unsigned record_count;
    struct fake_held {
        unsigned connection;
        size_t bytes;
        uint8_t *frame;
    } held[FAKE_HELD_MAX];
    unsigned held_count;
};

/* A socket path in a new directory, a sealed arena; not yet listening. */
void fake_broker_init(struct fake_broker *broker);
void fake_broker_start(struct fake_broker *broker);
/* Closes the listener and all connections; what was put stays. */
void fake_broker_stop(struct fake_broker *broker);
/* Stop, forget everything, take a new arena and incarnation, start. */
void fake_broker_restart(struct fake_broker *broker);
void fake_broker_deinit(struct fake_broker *broker);

/* Closes all connections. */
void fake_broker_drop_sessions(struct fake_broker *broker);
void fake_broker_answer_held(struct fake_broker *broker);
/* Sends a notice for this request (from on_request). */
void fake_broker_notice(const struct fake_request *request, uint32_t request_id,
                        const Fb__ClientNotice *notice);
/* How many of `op` came so far. */
unsigned fake_broker_count(struct fake_broker *broker, Fb__ClientRequest__OpCase op);
/* Waits until `count` of `op` came; false after 20 s. */
bool fake_broker_await(struct fake_broker *broker, Fb__ClientRequest__OpCase op, unsigned count);
/* The index-th (from 0) of `op`, which must have come. */
struct fake_record fake_broker_record(struct fake_broker *broker, Fb__ClientRequest__OpCase op,
                                      unsigned index);

#endif
