/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature: the present link to the broker, made anew with back-off by whichever call needs
 * it. One lock guards it, its link and its stores; `changed` is broadcast when one of them moves
 * on.
 */
#ifndef FEATURED_LIBCLIENT_CONNECTION_H
#define FEATURED_LIBCLIENT_CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "feature.h"
#include "flusher.h"
#include "link.h"

#define FC_ROUND_TRIP_MS 10000u /* bound of a request without a deadline */
/* The broker answers at the deadline it was told; this long afterwards its answer may still come.
 * Documented in feature.h. */
#define FC_GRACE_MS 500u

struct feature {
    atomic_uint refs; /* the application's, and one for each store */
    pid_t pid;        /* that connected; in a forked child everything is refused */
    bool *
        unforked; /* a page that fork() wipes, true in the process that connected; NULL = ask pid */
    char *socket_path, *client_name;
    feature_log_fn log;
    void *log_context;
    uint64_t client_id; /* scopes op_ids, kept over reconnects */
    atomic_uint_fast64_t next_op_id;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fc_link *link; /* may be broken: fc_connection_ready() replaces it */
    uint64_t last_epoch;
    struct fc_limits limits; /* the last connection's */
    bool connecting, closed;
    uint64_t retry_ns; /* no attempt before */
    uint32_t backoff_ms;
    char why[256];          /* the last attempt failed */
    bool nobody;            /* and nobody was there */
    uint64_t release_count; /* notes and rides sent; see release.c */
    struct fc_flusher flusher;
    struct feature_store *stores;
};

bool fc_connection_forked(const struct feature *feature);
/* Takes the lock. In a forked child false, without it, when a thread of the parent had it at the
 * fork: then it is held for ever and what it guards is to be left alone. */
bool fc_connection_lock(struct feature *feature);
/* FEATURE_OK, or FEATURE_E_INVALID with a sentence: no handle, or one of the process of which this
 * one is a fork. */
int fc_connection_check(const struct feature *feature);
/* With the lock held, returns with it held. FEATURE_OK: feature->link works as far as is known.
 * Connects when it does not, until deadline_ns. */
int fc_connection_ready(struct feature *feature, uint64_t deadline_ns);
/* With the lock held: the flusher sends what the socket did not take. */
void fc_connection_settle(struct feature *feature);
/* With the lock held, returns with it held: true if there is no link and nobody at the socket.
 * Makes one attempt to connect to find out, until deadline_ns, unless it is too soon for another.
 */
bool fc_connection_gone(struct feature *feature, uint64_t deadline_ns);
/* The link if it is not known to be broken, else NULL. With the lock held. */
struct fc_link *fc_connection_link(const struct feature *feature);
void fc_connection_ref(struct feature *feature);
void fc_connection_unref(struct feature *feature);
/* First of `count` operation ids, never 0. */
uint64_t fc_connection_op_ids(struct feature *feature, uint32_t count);
struct fc_limits fc_connection_limits(struct feature *feature);
/* Not with the lock held: the application's function may call back. */
void fc_log(const struct feature *feature, enum feature_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
