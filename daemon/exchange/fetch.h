/* SPDX-License-Identifier: Apache-2.0
 *
 * Bringing the bytes of a generation into this node's memory: fetch.c. Where they come from is a
 * *source* behind a table of two functions; another broker is the only kind today (source_peer.c).
 */
#ifndef FEATURED_EXCHANGE_FETCH_H
#define FEATURED_EXCHANGE_FETCH_H

#include "exchange/exchange_internal.h"
#include "proto/place.h"

/* ---- sources ---- */

struct source;
struct source_read {
    struct place from; /* its segment is one of the source's */
    void *local;       /* room for from.bytes, which stays until `done` */
    /* status 0 or -errno, and then why; exactly once. Nothing is written to local afterwards. */
    void (*done)(void *context, int status, const char *why);
    /* bytes_done have come, the first prefix_bytes of the sample among them. */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t prefix_bytes, uint64_t now_ns);
    void *context;
};
struct source_ops {
    const char *(*name)(const struct source *source); /* of the node, for a sentence */
    /* 0, and `done` follows, not from inside; or -errno. */
    int (*read)(const struct source *source, const struct source_read *read, uint64_t now_ns);
};
struct source {
    const struct source_ops *ops;
    void *of;        /* which one; two sources are the same if this is */
    uint64_t number; /* the same in every process: what the store is told of it */
    uint64_t epoch;  /* of its connection, where there is one */
};
/* source_peer.c. epoch: of the link by which the lease was granted. */
struct source source_peer(struct peer *peer, uint64_t epoch);

/* ---- readers ---- */

struct fetch_moved {
    struct place to;
    uint64_t bytes_done, prefix_bytes, transfer;
    /* Clients that want to know are to be told now: how many bytes have come, and that the first
     * prefix_bytes may be read. Not at each step, for a notice costs a message. */
    bool tell_progress, tell_landed;
    uint64_t now_ns;
};
/* Called by a fetch. landed, failed: the reader has left the fetch before. */
struct fetch_reader_ops {
    /* The bytes are here, and the landing copy becomes RESIDENT as soon as all readers have been
     * told: each takes its place in the store's queue for the copy now. */
    void (*landed)(struct fetch_reader *reader);
    void (*failed)(struct fetch_reader *reader, Fb__Status status, const char *sentence);
    void (*moved)(struct fetch_reader *reader, const struct fetch_moved *moved);
};

/* ---- fetches ---- */

/* Everything is copied, or not used any more after fetch_begin(). */
struct fetch_order {
    const char *sample_id;
    uint64_t generation;
    struct source source;
    struct place from;
    const struct layout *layout;
    ProtobufCBinaryData spec, checksums;
    const uint8_t *bytes; /* the bytes themselves, where they have come already; NULL: to be read */
    uint64_t room_deadline_ns; /* to wait for landing space until then */
};
/* The fetch of a generation that is under way; NULL: none. */
struct fetch *fetch_find(struct broker *broker, const struct space *space, uint64_t generation);
/* Is it of the very sample that this source has granted? */
bool fetch_is_of(const struct fetch *fetch, const struct source *source, const char *sample_id,
                 uint64_t bytes);
/* A landing copy is here, or on its way. */
bool fetch_has_copy(struct broker *broker, struct space *space, uint64_t generation);
/* It stands in the store's queue for landing space. */
bool fetch_waits_for_room(const struct fetch *fetch);
void fetch_join(struct fetch *fetch, struct fetch_reader *reader);
/* There must be none of that generation. May tell the reader of its end before it returns. */
void fetch_begin(struct broker *broker, struct space *space, const struct fetch_order *order,
                 struct fetch_reader *reader);
/* The reader does not want the bytes any more. */
void fetch_leave(struct fetch_reader *reader);

#endif
