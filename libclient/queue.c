/* SPDX-License-Identifier: Apache-2.0
 *
 * An entry:
 *
 *    waiting --its turn, there is room--> sent --answered, refused, deadline--> ended
 *       ^                                  |
 *       +-------- the link broke ----------+
 *
 * and a request has ended when its last entry has; then it is on queue->ended until
 * feature_queue_next() gives it out.
 *
 * The descriptor is an epoll instance over three others. It is readable when one of them is:
 *  - the socket of the link that an answer is awaited on (it changes with every new connection; it
 *    is watched only while something is under way, so that answers to other calls do not wake
 *    anybody here, and for room only while the socket is full);
 *  - a timer, at the earliest deadline, or at the time of the next attempt to connect;
 *  - an eventfd, written to when something of this queue was moved on by a thread that is not in
 *    feature_queue_next(), and as long as a request that has ended was not given out.
 *
 * Invariant, whenever the lock is given up by the last thread that works on the queue
 * (queue->pumping is 0): whatever can be done at once has been done, or the eventfd is set; and
 * whatever can come has its descriptor watched or its time in the timer.
 *
 * Entries that wait have their turn one after the other: the first one's step is made, and the next
 * one's only if it was sent. How many may be sent at a time is bounded by what the broker allows a
 * session (see feature.h), of which calls that wait get a quarter.
 */
#include "queue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"
#include "limit.h"
#include "proto/container.h"
#include "receive.h"
#include "sized.h"

#define RECEIVED_AT_ONCE 64u /* packets, before what has ended is given out */
#define UNWATCHED_MS     10u /* between two looks where the kernel refuses to watch the socket */

TAILQ_HEAD(fc_entries, fc_entry);
TAILQ_HEAD(fc_requests, feature_request);

struct feature_queue {
    struct feature *feature; /* a reference */
    struct fc_watcher watcher;
    struct fc_inherited poll, timer, event;
    uint32_t requests_max; /* 0 = none of its own */

    struct fc_entries waiting, sent, woken;
    struct fc_requests all, ended;
    unsigned sent_count;
    unsigned pumping;        /* threads in queue_pump() */
    bool signalled;          /* the eventfd is set */
    struct fc_link *watched; /* a reference; NULL = none */
    uint32_t watched_events;
    uint64_t next_ns;  /* nothing is due before */
    uint64_t armed_ns; /* when the timer fires */
};

struct feature *fc_queue_feature(const struct feature_queue *queue) {
    return queue->feature;
}

/* ---- the descriptor ---- */

/* Nobody needs to be told while some thread works on the queue: it looks at everything before it
 * leaves. */
static void queue_signal(struct feature_queue *queue) {
    if (queue->signalled || queue->pumping)
        return;
    queue->signalled = true;
    (void)eventfd_write(queue->event.fd, 1);
}

static void queue_unsignal(struct feature_queue *queue) {
    eventfd_t count;
    if (!queue->signalled)
        return;
    queue->signalled = false;
    (void)eventfd_read(queue->event.fd, &count);
}

static void queue_note_time(struct feature_queue *queue, uint64_t ns) {
    if (ns < queue->next_ns)
        queue->next_ns = ns;
}

/* Setting it anew also takes back that it has fired. It may fire early, when what it was set for
 * has ended meanwhile: that costs one look, and saves setting it for each request. */
static void queue_set_timer(struct feature_queue *queue, uint64_t now_ns) {
    if (queue->armed_ns > now_ns && queue->armed_ns <= queue->next_ns)
        return;
    if (queue->armed_ns == queue->next_ns && queue->next_ns == FC_NEVER_NS)
        return;
    struct itimerspec at = {.it_value = {0}};
    if (queue->next_ns != FC_NEVER_NS)
        at.it_value = fc_timespec(queue->next_ns ? queue->next_ns : 1);
    (void)timerfd_settime(queue->timer.fd, TFD_TIMER_ABSTIME, &at, NULL);
    queue->armed_ns = queue->next_ns;
}

/* A link that was watched is taken out before it is let go of: its number may be another file's as
 * soon as it is closed. */
static void queue_unwatch(struct feature_queue *queue) {
    if (!queue->watched)
        return;
    (void)epoll_ctl(queue->poll.fd, EPOLL_CTL_DEL, queue->watched->socket.fd, NULL);
    fc_link_unref(queue->watched);
    queue->watched = NULL;
    queue->watched_events = 0;
}

static void queue_watch_link(struct feature_queue *queue, struct fc_link *link, uint32_t events) {
    if (queue->watched != link)
        queue_unwatch(queue);
    if (!link || (queue->watched == link && queue->watched_events == events))
        return;
    struct epoll_event event = {.events = events};
    int op = queue->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (!queue->watched)
        fc_link_ref(link);
    queue->watched = link;
    queue->watched_events = events;
    if (!epoll_ctl(queue->poll.fd, op, link->socket.fd, &event))
        return;
    queue_unwatch(queue);
    queue_note_time(queue, fc_after_ns(fc_now_ns(), UNWATCHED_MS * FC_NS_PER_MS));
}

/* What is awaited, and from where. */
static void queue_watch(struct feature_queue *queue) {
    const struct fc_entry *first = TAILQ_FIRST(&queue->waiting);
    struct fc_link *link = fc_connection_link(queue->feature);
    uint32_t events = EPOLLIN;
    if (!first && TAILQ_EMPTY(&queue->sent))
        link = NULL;
    else if (!link)
        link = queue->feature->greeting;
    if (first && first->request->awaited == FC_AWAITS_ROOM)
        events |= EPOLLOUT;
    queue_watch_link(queue, link, events);
    if (first && first->request->begun_ns)
        queue_note_time(queue, fc_request_next_ns(first->request));
}

/* ---- entries ---- */

static void queue_place(struct feature_queue *queue, struct fc_entry *entry, int place) {
    if (entry->place == FC_ENTRY_WAITS)
        TAILQ_REMOVE(&queue->waiting, entry, link);
    if (entry->place == FC_ENTRY_SENT) {
        TAILQ_REMOVE(&queue->sent, entry, link);
        queue->sent_count--;
    }
    /* One that waits again is older than those that have not been sent yet. */
    if (place == FC_ENTRY_WAITS)
        TAILQ_INSERT_HEAD(&queue->waiting, entry, link);
    if (place == FC_ENTRY_SENT) {
        TAILQ_INSERT_TAIL(&queue->sent, entry, link);
        queue->sent_count++;
    }
    entry->place = place;
}

/* It is being looked at, or has ended: what woke it is dealt with. */
static void queue_unwake(struct feature_queue *queue, struct fc_entry *entry) {
    if (entry->woken)
        TAILQ_REMOVE(&queue->woken, entry, woken_link);
    entry->woken = false;
}

static void queue_end(struct feature_queue *queue, struct fc_entry *entry, int rc) {
    struct feature_request *owner = entry->owner;
    queue_place(queue, entry, FC_ENTRY_OUT);
    queue_unwake(queue, entry);
    fc_first_error_note(&entry->outcome, rc);
    if (--owner->open)
        return;
    owner->ended = owner->listed = true;
    TAILQ_INSERT_TAIL(&queue->ended, owner, among_ended);
}

/* The deadline begins with the first step. */
static void queue_begin_clock(struct feature_queue *queue, struct fc_entry *entry) {
    if (entry->request->deadline_ns)
        return;
    entry->request->deadline_ns = fc_after_ns(fc_now_ns(), entry->bound_ns);
    queue_note_time(queue, entry->request->deadline_ns);
}

/* Where the entry belongs after a step follows from what it awaits: an answer, or its turn. */
static void queue_step(struct feature_queue *queue, struct fc_entry *entry) {
    queue_begin_clock(queue, entry);
    int rc = fc_request_step(entry->request);
    bool sent = entry->request->awaited == FC_AWAITS_ANSWER;
    if (rc != FC_PENDING)
        queue_end(queue, entry, rc);
    else if (sent != (entry->place == FC_ENTRY_SENT))
        queue_place(queue, entry, sent ? FC_ENTRY_SENT : FC_ENTRY_WAITS);
    if (rc == FC_PENDING)
        queue_note_time(queue, fc_request_next_ns(entry->request));
}

/* The call of an entry has something to look at. Called from anywhere, with the lock held. */
static void queue_on_woken(struct fc_call *call) {
    struct fc_entry *entry = container_of(call, struct fc_request, call)->owner;
    struct feature_queue *queue = entry->owner->queue;
    if (!entry->woken)
        TAILQ_INSERT_TAIL(&queue->woken, entry, woken_link);
    entry->woken = true;
    queue_signal(queue);
}

/* Something that is nobody's own has moved on: a connection, a store, room at the broker. */
static void queue_on_look(struct fc_watcher *watcher) {
    struct feature_queue *queue = container_of(watcher, struct feature_queue, watcher);
    if (!TAILQ_EMPTY(&queue->waiting))
        queue_signal(queue);
}

void fc_queue_enter(struct feature_queue *queue, struct feature_request *request) {
    request->queue = queue;
    request->ended = request->listed = true; /* until there is an entry */
    TAILQ_INSERT_TAIL(&queue->all, request, among_all);
    TAILQ_INSERT_TAIL(&queue->ended, request, among_ended);
}

bool fc_queue_take(struct feature_request *request) {
    struct feature_queue *queue = request->queue;
    if (request->listed)
        TAILQ_REMOVE(&queue->ended, request, among_ended);
    request->listed = false;
    return request->ended;
}

void fc_queue_add(struct feature_queue *queue, struct fc_entry *entry) {
    entry->request->deadline_ns = 0;
    entry->request->owner = entry;
    entry->request->woken = queue_on_woken;
    (void)fc_queue_take(entry->owner);
    entry->owner->open++;
    entry->owner->ended = false;
    entry->place = FC_ENTRY_WAITS;
    TAILQ_INSERT_TAIL(&queue->waiting, entry, link);
}

void fc_queue_drop(struct fc_entry *entry) {
    struct feature_queue *queue = entry->owner->queue;
    if (entry->busy || entry->place == FC_ENTRY_OUT)
        return;
    fc_request_abandon(entry->request);
    queue_place(queue, entry, FC_ENTRY_OUT);
    queue_unwake(queue, entry);
    entry->owner->open--;
}

bool fc_queue_leave(struct feature_request *request) {
    struct feature_queue *queue = request->queue;
    (void)fc_queue_take(request);
    request->dropped = true;
    if (request->busy)
        return false;
    TAILQ_REMOVE(&queue->all, request, among_all);
    return true;
}

/* ---- what there is to do ---- */

/* The lock is given up while something is received. Another thread may have the receive role; then
 * it hands on what is there. */
static void queue_receive(struct feature_queue *queue) {
    struct fc_link *link = queue->watched;
    int error = 0;
    if (!link)
        return;
    fc_link_ref(link);
    for (unsigned i = 0; i < RECEIVED_AT_ONCE && !link->broken && !link->receiving; i++) {
        if (TAILQ_EMPTY(&queue->sent) && TAILQ_EMPTY(&queue->waiting))
            break;
        /* The one thing that was asked has been answered: there is no use in another look. */
        if (i && queue->sent_count == 1 && TAILQ_EMPTY(&queue->waiting) &&
            TAILQ_FIRST(&queue->sent)->request->call.done)
            break;
        if (!fc_receive_one(link, 0, &error))
            break;
    }
    fc_receive_offer(link);
    if (error && queue->sent_count) { /* one of ours fails for it, as a call that waits would */
        struct fc_call *call = &TAILQ_FIRST(&queue->sent)->request->call;
        call->receive_error = error;
        queue_on_woken(call);
    }
    fc_link_unref(link);
}

/* The notices of one entry, in this thread and without the lock. Meanwhile nobody steps it, and a
 * cancel is put off until here. False: the entry is gone. */
static bool queue_show(struct feature_queue *queue, struct fc_entry *entry) {
    struct feature_request *owner = entry->owner;
    entry->busy = true;
    owner->busy++;
    (void)fc_call_show(&entry->request->call);
    entry->busy = false;
    owner->busy--;
    if (!owner->dropped)
        return true;
    if (!owner->busy) {
        pthread_mutex_unlock(&queue->feature->hub.lock);
        owner->cancel(owner);
        pthread_mutex_lock(&queue->feature->hub.lock);
    }
    return false;
}

/* One that another thread is busy with is left to it: it finds that it was woken. */
static struct fc_entry *queue_find_woken(const struct feature_queue *queue) {
    struct fc_entry *entry = TAILQ_FIRST(&queue->woken);
    while (entry && entry->busy)
        entry = TAILQ_NEXT(entry, woken_link);
    return entry;
}

static void queue_step_woken(struct feature_queue *queue) {
    struct fc_entry *entry;
    while ((entry = queue_find_woken(queue)) != NULL) {
        queue_unwake(queue, entry);
        if (!entry->request->call.notices || queue_show(queue, entry))
            queue_step(queue, entry);
    }
}

/* Whose time has come: looked for only when the earliest time has. */
static void queue_expire(struct feature_queue *queue, uint64_t now_ns) {
    struct fc_entry *entry, *next;
    if (now_ns < queue->next_ns)
        return;
    queue->next_ns = FC_NEVER_NS;
    for (entry = TAILQ_FIRST(&queue->sent); entry; entry = next) {
        next = TAILQ_NEXT(entry, link);
        if (entry->request->call.deadline_ns <= now_ns && !entry->busy)
            queue_step(queue, entry);
        else
            queue_note_time(queue, entry->request->call.deadline_ns);
    }
    for (entry = TAILQ_FIRST(&queue->waiting); entry; entry = next) {
        next = TAILQ_NEXT(entry, link);
        if (entry->request->deadline_ns && entry->request->deadline_ns <= now_ns)
            queue_step(queue, entry);
        else if (entry->request->deadline_ns)
            queue_note_time(queue, entry->request->deadline_ns);
    }
}

/* Three quarters of what a session may have, and at least one. */
static bool queue_is_within(uint32_t used, uint32_t more, uint32_t limit) {
    return !used || (uint64_t)used + more <= (uint64_t)limit * 3 / 4;
}

/* While there is no link it is the connecting that has to be moved on. */
static bool queue_has_room(const struct feature_queue *queue, const struct fc_entry *entry) {
    struct fc_link *link = fc_connection_link(queue->feature);
    if (queue->requests_max && queue->sent_count >= queue->requests_max)
        return false;
    if (!link || (queue_is_within(link->requests, 1, link->limits.requests) &&
                  queue_is_within(link->items, entry->request->items, link->limits.items)))
        return true;
    link->stalled = true;
    return false;
}

/* Those that wait behind one that cannot be sent for want of a connection: their deadline begins,
 * too. */
static void queue_begin_clocks(struct feature_queue *queue) {
    struct fc_entry *entry;
    TAILQ_FOREACH (entry, &queue->waiting, link)
        queue_begin_clock(queue, entry);
}

/* In order, and no further than the first that cannot be sent: whatever keeps that one (a
 * connection, a full socket, room at the broker) keeps those behind it, too. Only one whose store
 * is being opened may keep others that could go, for a round trip. */
static void queue_send(struct feature_queue *queue) {
    struct fc_entry *entry;
    while ((entry = TAILQ_FIRST(&queue->waiting)) != NULL && queue_has_room(queue, entry)) {
        queue_step(queue, entry);
        if (entry == TAILQ_FIRST(&queue->waiting)) {
            if (entry->request->awaited == FC_AWAITS_CONNECTION)
                queue_begin_clocks(queue);
            break;
        }
    }
}

/* Everything that can be done now, so that the descriptor is right when the lock is given up. */
static void queue_pump(struct feature_queue *queue) {
    uint64_t now_ns;
    queue->pumping++;
    queue_receive(queue);
    do {
        queue_step_woken(queue);
        now_ns = fc_now_ns();
        queue_expire(queue, now_ns);
        queue_send(queue);
    } while (queue_find_woken(queue));
    queue_watch(queue);
    queue_set_timer(queue, now_ns);
    queue->pumping--;
}

/* What was woken or has ended on the way is left to the thread that polls the descriptor: what
 * follows from it may take long, and the caller is only starting something. */
void fc_queue_go(struct feature_queue *queue) {
    queue_send(queue);
    queue_watch(queue);
    queue_set_timer(queue, fc_now_ns());
    if (!TAILQ_EMPTY(&queue->ended) || !TAILQ_EMPTY(&queue->woken))
        queue_signal(queue);
}

/* ---- the application's side ---- */

/* What has ended is given out before anything new is received: a thread that asks again and again
 * gets all that has come in at most RECEIVED_AT_ONCE packets before it looks at the socket again.
 */
struct feature_request *feature_queue_next(struct feature_queue *queue) {
    if (!queue || fc_connection_check(queue->feature))
        return NULL;
    pthread_mutex_lock(&queue->feature->hub.lock);
    if (TAILQ_EMPTY(&queue->ended))
        queue_pump(queue);
    struct feature_request *request = TAILQ_FIRST(&queue->ended);
    if (request)
        (void)fc_queue_take(request);
    if (TAILQ_EMPTY(&queue->ended))
        queue_unsignal(queue);
    else
        queue_signal(queue);
    fc_connection_unlock(queue->feature);
    return request;
}

int feature_queue_fd(const struct feature_queue *queue) {
    return queue ? queue->poll.fd : -1;
}

void *feature_request_context(const struct feature_request *request) {
    return request ? request->context : NULL;
}

void feature_request_cancel(struct feature_request *request) {
    if (request)
        request->cancel(request);
}

/* ---- life ---- */

static void queue_close_descriptors(struct feature_queue *queue) {
    fc_fork_close(&queue->poll);
    fc_fork_close(&queue->timer);
    fc_fork_close(&queue->event);
}

static int queue_add_descriptor(const struct feature_queue *queue, int fd) {
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(queue->poll.fd, EPOLL_CTL_ADD, fd, &event) ? errno : 0;
}

/* A forked child is to have none of them: the fork lock is held until they are on the list of
 * fork.h. 0 or an errno. */
static int queue_open_descriptors(struct feature_queue *queue) {
    int error = 0;
    fc_fork_lock();
    queue->poll.fd = epoll_create1(EPOLL_CLOEXEC);
    error = queue->poll.fd < 0 ? errno : 0;
    queue->timer.fd = error ? -1 : timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    error = !error && queue->timer.fd < 0 ? errno : error;
    queue->event.fd = error ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    error = !error && queue->event.fd < 0 ? errno : error;
    struct fc_inherited *opened[] = {&queue->poll, &queue->timer, &queue->event};
    for (size_t i = 0; i < 3; i++)
        if (opened[i]->fd >= 0)
            fc_fork_enter(opened[i]);
    fc_fork_unlock();
    if (!error)
        error = queue_add_descriptor(queue, queue->timer.fd);
    if (!error)
        error = queue_add_descriptor(queue, queue->event.fd);
    if (error)
        queue_close_descriptors(queue);
    return error;
}

int feature_queue_open(struct feature *feature, const struct feature_queue_options *options,
                       struct feature_queue **out) {
    struct feature_queue_options known;
    FC_NEEDS(out);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_queue_options");
    if (rc)
        return rc;
    struct feature_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return fc_fail_memory("open a queue");
    int error = queue_open_descriptors(queue);
    if (error) {
        free(queue);
        return error == ENOMEM ? fc_fail_memory("open a queue")
                               : fc_fail_descriptor("open a queue", error);
    }
    TAILQ_INIT(&queue->waiting);
    TAILQ_INIT(&queue->sent);
    TAILQ_INIT(&queue->woken);
    TAILQ_INIT(&queue->all);
    TAILQ_INIT(&queue->ended);
    queue->feature = feature;
    queue->requests_max = known.requests_max;
    queue->next_ns = queue->armed_ns = FC_NEVER_NS;
    queue->watcher.look = queue_on_look;
    fc_connection_ref(feature);
    pthread_mutex_lock(&feature->hub.lock);
    queue->watcher.next = feature->hub.watchers;
    feature->hub.watchers = &queue->watcher;
    pthread_mutex_unlock(&feature->hub.lock);
    *out = queue;
    return FEATURE_OK;
}

static void queue_unlink(struct feature_queue *queue) {
    struct fc_watcher **at = &queue->feature->hub.watchers;
    while (*at != &queue->watcher)
        at = &(*at)->next;
    *at = queue->watcher.next;
}

/* Requests first: each takes itself off the list. In a forked child the link is the parent's, and
 * is left alone; if another thread of the parent had the lock at the fork, so is everything else.
 */
void feature_queue_close(struct feature_queue *queue) {
    if (!queue)
        return;
    struct feature *feature = queue->feature;
    bool forked = fc_connection_forked(feature);
    struct feature_request *request;
    if (forked && !fc_connection_lock(feature))
        return;
    if (forked)
        pthread_mutex_unlock(&feature->hub.lock);
    while ((request = TAILQ_FIRST(&queue->all)) != NULL)
        request->cancel(request);
    if (!fc_connection_lock(feature))
        return;
    queue_unlink(queue);
    if (!forked)
        queue_unwatch(queue);
    pthread_mutex_unlock(&feature->hub.lock);
    queue_close_descriptors(queue);
    free(queue);
    fc_connection_unref(feature);
}
