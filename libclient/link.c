/* SPDX-License-Identifier: Apache-2.0
 *
 * A call is on link->calls from before its frame is sent until its owner leaves fc_link_call(); it
 * lives on the owner's stack. Invariants, under the lock:
 *  - at most one thread has the receive role (link->receiving); it alone touches link->packet and
 * reads fd;
 *  - while calls wait and nobody receives, one of them has been woken to take the role: whoever
 * gives it up wakes one that is really asleep, before it looks at notices too, which may take long;
 *  - a request_id is on link->calls, or on link->abandoned, or has been answered.
 * An abandoned get, reserve or store open stays known until its reply comes, so that what the
 * broker granted by it is handed back. A link that breaks needs none of this: the broker takes back
 * all of its session.
 */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "socket.h"

#define NOTICES_KEPT_MAX 256u
#define BODY_SMALL_BYTES 2048u
#define TELL_WAIT_NS     (1000 * FC_NS_PER_MS)

struct fc_notice {
    struct fc_notice *next;
    Fb__ClientNotice *message;
};

struct fc_call {
    struct fc_call *next;
    uint32_t request_id; /* 0 = listens to events */
    pthread_cond_t wake;
    uint64_t deadline_ns, patience_ns;
    bool waiting;              /* its owner sleeps on `wake` */
    struct fc_notice *notices; /* oldest first */
    unsigned notice_count;
    bool done;
    Fb__ClientReply *reply;
    int fd;
};

struct fc_abandoned {
    struct fc_abandoned *next;
    uint32_t request_id;
    uint32_t handle; /* of the store asked */
};

struct fc_link *fc_link_new(int fd, uint64_t epoch, pthread_mutex_t *lock) {
    struct fc_link *link = calloc(1, sizeof *link);
    if (!link) {
        close(fd);
        return NULL;
    }
    link->lock = lock;
    link->refs = 1;
    link->fd = fd;
    link->epoch = epoch;
    return link;
}

void fc_link_ref(struct fc_link *link) {
    link->refs++;
}

void fc_link_unref(struct fc_link *link) {
    if (--link->refs)
        return;
    while (link->abandoned) {
        struct fc_abandoned *entry = link->abandoned;
        link->abandoned = entry->next;
        free(entry);
    }
    close(link->fd);
    free(link);
}

void fc_link_break(struct fc_link *link, const char *why) {
    if (link->broken)
        return;
    link->broken = true;
    snprintf(link->why, sizeof link->why, "%s", why);
    /* Also wakes the thread that polls it; the descriptor itself closes with the last reference. */
    shutdown(link->fd, SHUT_RDWR);
    for (struct fc_call *call = link->calls; call; call = call->next)
        pthread_cond_signal(&call->wake);
}

/* ---- sending ---- */

/* One packet: header and body in one buffer, then the payload where the caller has it. */
static int send_frame(struct fc_link *link, enum frame_type type, uint32_t request_id,
                      const Fb__ClientRequest *request, struct iovec *parts, size_t part_count,
                      uint64_t deadline_ns) {
    size_t body_bytes = fb__client_request__get_packed_size(request);
    size_t payload_bytes = 0;
    for (size_t i = 1; i < part_count; i++)
        payload_bytes += parts[i].iov_len;
    if (FRAME_HEADER_BYTES + body_bytes + payload_bytes > FRAME_CLIENT_BYTES_MAX)
        return -EMSGSIZE;
    uint8_t small[FRAME_HEADER_BYTES + BODY_SMALL_BYTES];
    uint8_t *frame =
        body_bytes > BODY_SMALL_BYTES ? malloc(FRAME_HEADER_BYTES + body_bytes) : small;
    if (!frame)
        return -ENOMEM;
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = (uint8_t)type,
                                  .request_id = request_id,
                                  .body_bytes = (uint32_t)body_bytes,
                                  .payload_bytes = (uint32_t)payload_bytes};
    frame_encode(&header, frame);
    fb__client_request__pack(request, frame + FRAME_HEADER_BYTES);
    struct iovec only, *first = parts ? parts : &only;
    *first = (struct iovec){.iov_base = frame, .iov_len = FRAME_HEADER_BYTES + body_bytes};
    int rc = fc_socket_send(link->fd, first, parts ? part_count : 1, deadline_ns);
    if (frame != small)
        free(frame);
    return rc;
}

int fc_link_note(struct fc_link *link, const Fb__ClientRequest *request) {
    return send_frame(link, FRAME_NOTE, 0, request, NULL, 0, 0);
}

void fc_link_tell(struct fc_link *link, const Fb__ClientRequest *request) {
    fc_link_ref(link);
    pthread_mutex_unlock(link->lock);
    int rc =
        send_frame(link, FRAME_NOTE, 0, request, NULL, 0, fc_after_ns(fc_now_ns(), TELL_WAIT_NS));
    pthread_mutex_lock(link->lock);
    if (rc)
        fc_link_break(link,
                      rc == -ETIMEDOUT ? "the broker does not read its socket" : strerror(-rc));
    fc_link_unref(link);
}

/* ---- what came too late ---- */

static void release_late(struct fc_link *link, uint32_t handle, const Fb__GetReply *reply) {
    Fb__ReleaseItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Release release = FB__RELEASE__INIT;
    release.handle = handle;
    release.items = pointers;
    for (size_t i = 0; i < reply->n_items && release.n_items < FRAME_BATCH_ITEMS_MAX; i++) {
        if (reply->items[i]->status != FB__STATUS__OK)
            continue;
        Fb__ReleaseItem *item = pointers[release.n_items] = &items[release.n_items];
        fb__release_item__init(item);
        item->lease_hi = reply->items[i]->lease_hi;
        item->lease_lo = reply->items[i]->lease_lo;
        release.n_items++;
    }
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &release;
    if (release.n_items)
        fc_link_tell(link, &request);
}

static void cancel_late(struct fc_link *link, uint32_t handle, const Fb__PutReply *reply) {
    uint64_t reservations[FRAME_BATCH_ITEMS_MAX];
    Fb__Cancel cancel = FB__CANCEL__INIT;
    cancel.handle = handle;
    cancel.reservations = reservations;
    for (size_t i = 0; i < reply->n_items && cancel.n_reservations < FRAME_BATCH_ITEMS_MAX; i++)
        if (reply->items[i]->reservation)
            reservations[cancel.n_reservations++] = reply->items[i]->reservation;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_CANCEL;
    request.cancel = &cancel;
    if (cancel.n_reservations)
        fc_link_tell(link, &request);
}

static void close_late(struct fc_link *link, const Fb__StoreOpened *opened) {
    Fb__StoreClose close_store = FB__STORE_CLOSE__INIT;
    close_store.handle = opened->handle;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_CLOSE;
    request.store_close = &close_store;
    fc_link_tell(link, &request);
}

static void hand_back(struct fc_link *link, uint32_t handle, const Fb__ClientReply *reply) {
    switch (reply->result_case) {
    case FB__CLIENT_REPLY__RESULT_GET:
        release_late(link, handle, reply->get);
        break;
    case FB__CLIENT_REPLY__RESULT_PUT:
        cancel_late(link, handle, reply->put);
        break;
    case FB__CLIENT_REPLY__RESULT_STORE_OPENED:
        close_late(link, reply->store_opened);
        break;
    default:
        break;
    }
}

/* The store handle of requests whose reply grants something; false for all others. */
static bool grants(const Fb__ClientRequest *request, uint32_t *handle_out) {
    switch (request->op_case) {
    case FB__CLIENT_REQUEST__OP_GET:
        *handle_out = request->get->handle;
        return true;
    case FB__CLIENT_REQUEST__OP_RESERVE:
        *handle_out = request->reserve->handle;
        return true;
    case FB__CLIENT_REQUEST__OP_STORE_OPEN:
    case FB__CLIENT_REQUEST__OP_STORE_PROVE:
        *handle_out = 0;
        return true;
    default:
        return false;
    }
}

static void abandon(struct fc_link *link, uint32_t request_id, const Fb__ClientRequest *request) {
    uint32_t handle;
    if (!grants(request, &handle))
        return;
    struct fc_abandoned *entry = malloc(sizeof *entry);
    if (!entry) {
        fc_link_break(link, "out of memory");
        return;
    }
    *entry =
        (struct fc_abandoned){.next = link->abandoned, .request_id = request_id, .handle = handle};
    link->abandoned = entry;
}

static bool take_abandoned(struct fc_link *link, uint32_t request_id, uint32_t *handle_out) {
    for (struct fc_abandoned **at = &link->abandoned; *at; at = &(*at)->next) {
        struct fc_abandoned *entry = *at;
        if (entry->request_id != request_id)
            continue;
        *handle_out = entry->handle;
        *at = entry->next;
        free(entry);
        return true;
    }
    return false;
}

/* ---- receiving ---- */

static struct fc_call *find_call(struct fc_link *link, uint32_t request_id) {
    struct fc_call *call = link->calls;
    while (call && call->request_id != request_id)
        call = call->next;
    return call;
}

static void deliver_reply(struct fc_link *link, uint32_t request_id, Fb__ClientReply *reply,
                          int fd) {
    struct fc_call *call = request_id ? find_call(link, request_id) : NULL;
    if (call && !call->done) {
        call->reply = reply;
        call->fd = fd;
        call->done = true;
        pthread_cond_signal(&call->wake);
        return;
    }
    uint32_t handle;
    if (take_abandoned(link, request_id, &handle))
        hand_back(link, handle, reply);
    fb__client_reply__free_unpacked(reply, NULL);
    if (fd >= 0)
        close(fd);
}

static void deliver_notice(struct fc_link *link, uint32_t request_id, Fb__ClientNotice *message) {
    struct fc_call *call = find_call(link, request_id);
    struct fc_notice *notice = NULL;
    if (call) {
        call->deadline_ns = fc_after_ns(fc_now_ns(), call->patience_ns);
        if (call->notice_count < NOTICES_KEPT_MAX)
            notice = malloc(sizeof *notice);
    }
    if (!notice) {
        fb__client_notice__free_unpacked(message, NULL);
        return;
    }
    *notice = (struct fc_notice){.message = message};
    struct fc_notice **end = &call->notices;
    while (*end)
        end = &(*end)->next;
    *end = notice;
    call->notice_count++;
    pthread_cond_signal(&call->wake);
}

/* Decodes the packet outside the lock and hands it on. NULL, or what is wrong with it. */
static const char *dispatch(struct fc_link *link, size_t bytes, int fd) {
    struct frame_header header;
    const char *wrong = frame_open(link->packet, bytes, FRAME_CLIENT_BYTES_MAX, &header);
    if (wrong)
        return wrong;
    const uint8_t *body = link->packet + FRAME_HEADER_BYTES;
    if (header.type == FRAME_REPLY) {
        Fb__ClientReply *reply = fb__client_reply__unpack(NULL, header.body_bytes, body);
        if (!reply)
            return "a reply that does not decode";
        pthread_mutex_lock(link->lock);
        deliver_reply(link, header.request_id, reply, fd);
        pthread_mutex_unlock(link->lock);
        return NULL;
    }
    if (header.type != FRAME_NOTICE || fd >= 0)
        return "a frame that only clients may send";
    Fb__ClientNotice *notice = fb__client_notice__unpack(NULL, header.body_bytes, body);
    if (!notice)
        return "a notice that does not decode";
    pthread_mutex_lock(link->lock);
    deliver_notice(link, header.request_id, notice);
    pthread_mutex_unlock(link->lock);
    return NULL;
}

/* With the role, without the lock. NULL, or why the connection is to end. */
static const char *receive_one(struct fc_link *link, uint64_t deadline_ns) {
    int fd;
    ssize_t bytes =
        fc_socket_receive(link->fd, link->packet, sizeof link->packet, deadline_ns, &fd);
    if (bytes == -EAGAIN)
        return NULL;
    if (bytes <= 0)
        return bytes ? strerror((int)-bytes) : "the broker closed it";
    const char *wrong = dispatch(link, (size_t)bytes, fd);
    if (wrong && fd >= 0)
        close(fd);
    return wrong;
}

/* ---- waiting ---- */

static void receive_as_leader(struct fc_link *link, const struct fc_call *call) {
    uint64_t deadline_ns = call->deadline_ns;
    link->receiving = true;
    pthread_mutex_unlock(link->lock);
    const char *wrong = receive_one(link, deadline_ns);
    pthread_mutex_lock(link->lock);
    link->receiving = false;
    if (wrong)
        fc_link_break(link, wrong);
}

static void wait_as_follower(struct fc_link *link, struct fc_call *call) {
    call->waiting = true;
    if (call->deadline_ns == FC_NEVER_NS) {
        pthread_cond_wait(&call->wake, link->lock);
    } else {
        struct timespec deadline = fc_timespec(call->deadline_ns);
        pthread_cond_clockwait(&call->wake, link->lock, CLOCK_MONOTONIC, &deadline);
    }
    call->waiting = false;
}

static void offer_role(struct fc_link *link) {
    struct fc_call *call = link->calls;
    while (call && !call->waiting)
        call = call->next;
    if (call && !link->receiving)
        pthread_cond_signal(&call->wake);
}

/* Hands queued notices to the owner's function, in its thread and without the lock. False: it has
 * enough. */
static bool show_notices(struct fc_link *link, struct fc_call *call, const struct fc_exchange *x) {
    bool more = true;
    if (call->notices)
        offer_role(link);
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        call->notice_count--;
        pthread_mutex_unlock(link->lock);
        if (more && x->notice)
            more = x->notice(x->notice_context, notice->message);
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
        pthread_mutex_lock(link->lock);
    }
    return more;
}

/* Until done, broken, the deadline, or the owner has had enough (true). */
static bool wait_for(struct fc_link *link, struct fc_call *call, const struct fc_exchange *x) {
    for (;;) {
        if (!show_notices(link, call, x))
            return true;
        if (call->done || link->broken)
            return false;
        if (call->notices)
            continue;
        if (call->deadline_ns != FC_NEVER_NS && !fc_left_ns(call->deadline_ns))
            return false;
        if (link->receiving)
            wait_as_follower(link, call);
        else
            receive_as_leader(link, call);
    }
}

static void add_call(struct fc_link *link, struct fc_call *call, const struct fc_exchange *x) {
    *call = (struct fc_call){.next = link->calls,
                             .deadline_ns = x->deadline_ns,
                             .patience_ns = x->patience_ns,
                             .fd = -1};
    pthread_cond_init(&call->wake, NULL);
    link->calls = call;
    fc_link_ref(link);
}

static void remove_call(struct fc_link *link, struct fc_call *call) {
    struct fc_call **at = &link->calls;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    while (call->notices) {
        struct fc_notice *notice = call->notices;
        call->notices = notice->next;
        fb__client_notice__free_unpacked(notice->message, NULL);
        free(notice);
    }
    pthread_cond_destroy(&call->wake);
    offer_role(link);
    fc_link_unref(link);
}

static int send_now(struct fc_link *link, const struct fc_call *call, const struct fc_exchange *x,
                    uint64_t deadline_ns) {
    return send_frame(link, FRAME_REQUEST, call->request_id, x->request, x->parts, x->part_count,
                      deadline_ns);
}

/* First without waiting and under the lock, so that it is well defined what was sent before it. A
 * full socket is waited for without the lock. FEATURE_OK when it is on its way. */
static int send_request(struct fc_link *link, const struct fc_call *call,
                        const struct fc_exchange *x) {
    int rc = send_now(link, call, x, 0);
    if (!rc && x->rode)
        x->rode(x->rode_context);
    if (rc == -EAGAIN) {
        x->request->n_releases = 0;
        pthread_mutex_unlock(link->lock);
        rc = send_now(link, call, x, x->deadline_ns);
        pthread_mutex_lock(link->lock);
    }
    switch (rc) {
    case 0:
        return FEATURE_OK;
    case -ETIMEDOUT:
        return fc_fail(FEATURE_E_TIMEOUT, "the broker does not read its socket");
    case -EMSGSIZE:
        return fc_fail(FEATURE_E_INVALID, "the request is larger than a frame of %u bytes",
                       FRAME_CLIENT_BYTES_MAX);
    case -ENOMEM:
        return fc_fail_memory("send a request");
    default:
        fc_link_break(link, strerror(-rc));
        return FC_LINK_LOST;
    }
}

int fc_link_call(struct fc_link *link, struct fc_exchange *exchange) {
    struct fc_call call;
    exchange->reply = NULL;
    exchange->fd = -1;
    if (link->broken)
        return FC_LINK_LOST;
    add_call(link, &call, exchange);
    call.request_id = ++link->last_request_id ? link->last_request_id : ++link->last_request_id;
    int rc = send_request(link, &call, exchange);
    if (!rc) {
        wait_for(link, &call, exchange);
        if (!call.done && link->broken) {
            rc = FC_LINK_LOST;
        } else if (!call.done) {
            abandon(link, call.request_id, exchange->request);
            rc = fc_fail(FEATURE_E_TIMEOUT, "the broker did not answer in time");
        }
    }
    exchange->reply = call.reply;
    exchange->fd = call.fd;
    remove_call(link, &call);
    return rc;
}

int fc_link_listen(struct fc_link *link, struct fc_exchange *exchange) {
    struct fc_call events;
    struct fc_exchange subscribe = *exchange;
    subscribe.deadline_ns = fc_after_ns(fc_now_ns(), 10000 * FC_NS_PER_MS);
    /* First the ear, then the request: no event falls between the two. */
    add_call(link, &events, exchange);
    int rc = fc_link_call(link, &subscribe);
    exchange->reply = subscribe.reply;
    exchange->fd = subscribe.fd;
    if (!rc && subscribe.reply->status == FB__STATUS__OK) {
        bool enough = wait_for(link, &events, exchange);
        if (!enough)
            rc = link->broken ? FC_LINK_LOST
                              : fc_fail(FEATURE_E_TIMEOUT, "no event came in that time");
    }
    remove_call(link, &events);
    return rc;
}
