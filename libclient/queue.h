/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature_queue inside: requests under way for somebody who does not wait, and the one
 * descriptor that tells when there is something to do. Knows nothing of gets: what a request asks
 * for, and what becomes of its answer, is its owner's.
 */
#ifndef FEATURED_LIBCLIENT_QUEUE_H
#define FEATURED_LIBCLIENT_QUEUE_H

#include <sys/queue.h>

#include "error.h"
#include "request.h"

struct feature_queue;

/* What the application holds. Embedded in its owner's struct. */
struct feature_request {
    struct feature_queue *queue;
    void *context; /* the application's */
    /* Frees it, in whatever state it is. Without the lock. */
    void (*cancel)(struct feature_request *request);

    /* only for queue.c, under the lock: */
    TAILQ_ENTRY(feature_request) among_all, among_ended;
    unsigned open; /* entries that have not ended */
    unsigned busy; /* threads that show notices of it, without the lock */
    bool ended;    /* none is open: it is on queue->ended, or has been given out */
    bool listed;   /* it is on queue->ended */
    bool dropped;  /* to be cancelled once no thread is busy with it */
};

/* One request to the broker, of a feature_request that may have several. */
struct fc_entry {
    struct fc_request *request;
    struct feature_request *owner;
    uint64_t bound_ns; /* the deadline, from when its turn has come */
    /* Once it has ended: how; with its sentence. */
    struct fc_first_error outcome;

    /* only for queue.c, under the lock: */
    TAILQ_ENTRY(fc_entry) link; /* of queue->waiting or queue->sent */
    TAILQ_ENTRY(fc_entry) woken_link;
    enum { FC_ENTRY_OUT, FC_ENTRY_WAITS, FC_ENTRY_SENT } place;
    bool woken; /* its call has something to look at: it is on queue->woken */
    bool busy;  /* some thread shows its notices, without the lock */
};

/* All with the lock held. */

/* Belongs to `queue` from now on. It has ended until an entry is added. */
void fc_queue_enter(struct feature_queue *queue, struct feature_request *request);
/* Starts an entry of a request: entry->request has been made, owner and bound_ns are set, all else
 * is zero. It is sent when its turn comes, and again on another connection. */
void fc_queue_add(struct feature_queue *queue, struct fc_entry *entry);
/* After entries were added: sends what may be sent, and sees to the descriptor. Does not wait. */
void fc_queue_go(struct feature_queue *queue);
/* False: it has not ended. Else the caller works on it: it is not given out any more, unless
 * entries are added and end. */
bool fc_queue_take(struct feature_request *request);
/* Forgets an entry, whether it has ended or not; what it is granted later is handed back. Not one
 * that a thread is busy with. */
void fc_queue_drop(struct fc_entry *entry);
/* The request is no longer the queue's, and may be freed. False: some thread is busy with it, and
 * calls request->cancel() when it no longer is. */
bool fc_queue_leave(struct feature_request *request);

/* The handle that it was opened on. */
struct feature *fc_queue_feature(const struct feature_queue *queue);

#endif
