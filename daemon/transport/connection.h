/* SPDX-License-Identifier: Apache-2.0
 *
 * What TCP and RDMA have alike of a transport (struct endpoint) and of one of its connections
 * (struct connection): each has these inside a struct of its own, and adds what is of its medium.
 *
 * The end of a connection, whatever the cause, goes like this:
 *
 *   open --connection_fail()--> closing --from the loop--> reads reported, `closed`, freed
 *
 * connection_fail() may be called anywhere, also from inside an operation of the owner, so it
 * raises no event. It keeps the reason and has the medium stop everything at once: when it returns,
 * no byte of the connection moves any more in either direction. That is the promise on which the
 * home reuses memory. The events follow from the loop, when the medium has let go of everything.
 */
#ifndef FEATURED_TRANSPORT_CONNECTION_H
#define FEATURED_TRANSPORT_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "transport/handshake.h"
#include "transport/regions.h"
#include "transport/strangers.h"
#include "transport/transport.h"

struct connection;
struct endpoint;

struct endpoint_medium { /* what the medium does for this module */
    struct transport_ops ops;
    uint32_t strangers_max;
    /* The connection is closing: ends its links now, and brings about the rest from the loop. */
    void (*stop)(struct connection *conn);
    /* Nothing holds the endpoint any more: frees what is left, the endpoint itself last. */
    void (*free)(struct endpoint *endpoint);
};

/* One transport of this broker. */
struct endpoint {
    struct transport base;
    const struct endpoint_medium *medium;
    uv_loop_t *loop;
    struct transport_options options; /* cluster_key and hello point into the copies below */
    uint8_t cluster_key[AUTH_KEY_BYTES];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct transport_events events;
    void *owner;
    void (*on_destroyed)(void *owner);
    bool destroying;
    unsigned holds; /* by the owner until destroy, by connections, links and libuv's handles */
    struct regions regions;
    struct strangers strangers;
    uint64_t next_number; /* of a connection */
    uint32_t accepted_count;
    LIST_HEAD(, connection) connections;
};

struct connection {
    struct transport_conn handle; /* the owner's */
    struct endpoint *endpoint;
    LIST_ENTRY(connection) all;
    uint64_t id;     /* given by the answerer; names the connection to its bulk links */
    uint64_t number; /* of it here, never used again: region keys are made for it */
    bool accepted_here;
    bool announced; /* the owner knows it: `closed` must follow */
    bool up;        /* the owner may send and read */
    bool closing;
    int end_status; /* of the reads that were under way */
    char why[192];
    void *user;
    struct handshake_hello hello; /* the other side's */
    struct transport_info counters;
};

/* ---- the endpoint ---- */

/* -EINVAL: the hello is too long, or the options ask for no reads or empty chunks. Holds itself
 * once, until endpoint_destroy(). */
int endpoint_init(struct endpoint *endpoint, const struct endpoint_medium *medium,
                  const struct transport_setup *setup);
void endpoint_hold(struct endpoint *endpoint);
/* The last release, after endpoint_destroy(), frees the endpoint. */
void endpoint_release(struct endpoint *endpoint);
/* Nothing new is begun from here on: ends every connection. The medium then ends its strangers and
 * libuv's handles, and at last drops the endpoint's own hold by endpoint_release(). */
void endpoint_destroy(struct endpoint *endpoint, void (*on_destroyed)(void *owner));
/* What `free` of the medium ends with: wipes and frees `memory`, the struct around the endpoint,
 * and tells the owner. */
void endpoint_end(struct endpoint *endpoint, void *memory, size_t memory_bytes);
struct endpoint *endpoint_of(struct transport *t);
/* Gives memory of ours a number and a secret: regions_add(). */
int endpoint_add_region(struct endpoint *endpoint, void *base, uint64_t bytes,
                        uint32_t *region_out);

/* Operations of the table that are the same for each medium. */
int endpoint_region_key(struct transport_conn *handle, uint32_t region, void *out,
                        size_t out_bytes);
void endpoint_close(struct transport_conn *handle);

/* ---- a connection ---- */

struct connection *connection_of(struct transport_conn *handle);
void connection_init(struct connection *conn, struct endpoint *endpoint, bool accepted_here);
/* Of one that we dial for its owner. */
void connection_belongs_to(struct connection *conn, void *user);
void connection_deinit(struct connection *conn);
bool connection_is_usable(const struct connection *conn);

/* An accepted control link has proved itself. False: there are as many connections as may be. */
bool endpoint_has_room(const struct endpoint *endpoint);
/* Draws the number by which the asker's bulk links will name the connection. */
void connection_give_id(struct connection *conn);
/* The accepted connection of this id that is not closing, or NULL. */
struct connection *endpoint_find(const struct endpoint *endpoint, uint64_t id);

/* Offers an accepted connection to the owner, who may use it from within `accepted`. False: he does
 * not want it. He may also have closed it: look at `closing`. */
bool connection_offer(struct connection *conn);
/* A dialled connection is up. */
void connection_raise_up(struct connection *conn);
void connection_raise_read_done(struct connection *conn, void *read_user, int status);
void connection_raise_progress(struct connection *conn, void *read_user, uint64_t bytes_done,
                               uint64_t prefix_bytes);
/* The last event, if the owner ever heard of the connection. */
void connection_raise_closed(struct connection *conn);

/* Ends the connection: see above. The first reason stays. status: of its reads. */
void connection_fail(struct connection *conn, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same: the other side broke the protocol. */
void connection_fail_frame(struct connection *conn, const char *what);
/* The same: a region that a read uses has been removed. */
void connection_fail_region(struct connection *conn);

#endif
