/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature: the handle, and the present link to the broker, made anew with back-off by
 * whichever call needs it. One lock (hub.lock) guards it, its link and its stores.
 *
 * What has to wait for something is written as steps: fc_connection_step() does what can be done
 * without waiting and says FC_PENDING when something has to come first. Who may wait calls
 * fc_connection_wait() in between; a queue, which may not, steps again when its descriptor says so.
 *
 * Circle: connection.c, flusher.c, release.c, session.c: a new connection goes on with the session,
 * which has releases said again, which wakes the flusher, which connects while there is something
 * to say.
 */
#ifndef FEATURED_LIBCLIENT_CONNECTION_H
#define FEATURED_LIBCLIENT_CONNECTION_H

#include <stdatomic.h>
#include <sys/types.h>

#include "call.h"
#include "feature.h"
#include "flusher.h"
#include "hub.h"
#include "session.h"

#define FC_ROUND_TRIP_MS 10000u /* bound of a request without a deadline */
/* The broker answers at the deadline it was told; this long afterwards its answer may still come.
 * Documented in feature.h. */
#define FC_GRACE_MS 500u

struct feature {
    atomic_uint refs; /* the application's, and one for each store and queue */
    pid_t pid;        /* that connected; in a forked child everything is refused */
    bool *
        unforked; /* a page that fork() wipes, true in the process that connected; NULL = ask pid */
    char *socket_path, *client_name;
    feature_log_fn log;
    void *log_context;
    feature_interrupted_fn interrupted; /* NULL = calls are not interrupted */
    void *interrupted_context;
    uint64_t client_id; /* scopes op_ids, kept over reconnects */
    atomic_uint_fast64_t next_op_id;

    struct fc_hub hub;
    struct fc_link *link;     /* may be broken: fc_connection_step() replaces it */
    struct fc_link *greeting; /* NULL, or one that has not answered our Hello yet: */
    struct fc_call hello;     /* in flight on it */
    uint64_t last_epoch;
    struct fc_session session;
    struct fc_limits limits; /* the last connection's */
    bool closed;
    uint64_t retry_ns; /* no attempt before */
    uint32_t backoff_ms;
    int refusal;            /* of the last attempt, when trying again would not help; else 0 */
    char why[256];          /* the last attempt failed */
    bool nobody;            /* and nobody was there */
    char lost[128];         /* why a link was lost, to be logged; "" = nothing to log */
    uint64_t release_count; /* notes and rides sent; see release.c */
    struct fc_flusher flusher;
    struct feature_store *stores;
};

/* Makes a handle without a connection; feature_connect() connects it next (handle.c). FEATURE_OK,
 * or FEATURE_E_FULL when there is no memory for it. */
int fc_connection_new(const struct feature_options *options, struct feature **out);
bool fc_connection_forked(const struct feature *feature);
/* Takes the lock. In a forked child false, without it, when a thread of the parent had it at the
 * fork: then it is held for ever and what it guards is to be left alone. */
bool fc_connection_lock(struct feature *feature);
/* Gives the lock up, and calls the application's log function for what has to be logged. */
void fc_connection_unlock(struct feature *feature);
/* FEATURE_OK, or FEATURE_E_INVALID with a sentence: no handle, or one of the process of which this
 * one is a fork. */
int fc_connection_check(const struct feature *feature);

/* With the lock held. FEATURE_OK: feature->link works as far as is known. FC_PENDING: a connection
 * is being made, or it is too early to try again. Else a failure with a sentence. Does not wait. */
int fc_connection_step(struct feature *feature);
/* With the lock held, returns with it held: after FC_PENDING, until it is worth another step or
 * deadline_ns. */
void fc_connection_wait(struct feature *feature, uint64_t deadline_ns);
/* With the lock held: when a step is worth while although nothing has come. */
uint64_t fc_connection_next_ns(const struct feature *feature);
/* With the lock held: FEATURE_E_UNAVAILABLE with a sentence that says why there is no connection.
 */
int fc_connection_give_up(const struct feature *feature);
/* With the lock held, returns with it held: steps and waits until FEATURE_OK, a failure, or
 * deadline_ns. */
int fc_connection_ready(struct feature *feature, uint64_t deadline_ns);
/* With the lock held, returns with it held: true if there is no link and nobody at the socket.
 * Makes one attempt to connect to find out, until deadline_ns, unless it is too soon for another.
 */
bool fc_connection_gone(struct feature *feature, uint64_t deadline_ns);
/* The link if it is not known to be broken, else NULL. With the lock held. */
struct fc_link *fc_connection_link(const struct feature *feature);
/* With the lock held: no more connections; those who wait fail. */
void fc_connection_close(struct feature *feature);
/* In a forked child, with the lock held: forgets the links, whose session is the parent's. */
void fc_connection_forget(struct feature *feature);

void fc_connection_ref(struct feature *feature);
void fc_connection_unref(struct feature *feature);
/* First of `count` operation ids, never 0. */
uint64_t fc_connection_op_ids(struct feature *feature, uint32_t count);
struct fc_limits fc_connection_limits(struct feature *feature);
/* Not with the lock held: the application's function may call back. */
void fc_log(const struct feature *feature, enum feature_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
