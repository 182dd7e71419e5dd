/* SPDX-License-Identifier: Apache-2.0
 *
 * After https://curl.se/libcurl/c/multi-uv.html. libcurl says which sockets to watch for what and
 * when to call it at the latest; it is called then with the socket or with a time-out, and its list
 * of ended transfers is read afterwards, outside of it.
 *
 * `depth` counts the readers of that list on the stack, so that close() from a callback does not
 * free what they still use.
 */
#include "directory/etcd/multi.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

/* More than there are connections: one for each request under way, and the watch. */
#define SOCKETS_SPARE 32u

struct watched;

struct etcd_multi {
    CURLM *curl;
    uv_loop_t *loop;
    uv_timer_t timer;
    etcd_multi_fn ended;
    etcd_multi_soon_fn soon;
    void *owner;
    bool soon_due; /* the timer runs for etcd_multi_soon(), whatever libcurl wants of it */
    bool closed;
    unsigned depth;
    /* For when there is no memory to watch a socket: libcurl would give up all transfers then. */
    struct watched *spare[SOCKETS_SPARE];
    size_t spare_count;
};

struct watched {
    uv_poll_t poll;
    struct etcd_multi *multi;
    curl_socket_t socket;
};

static void multi_on_timer_closed(uv_handle_t *handle) {
    free(handle->data);
}

/* Not while a reader of the list is on the stack: it frees at its end. */
static void multi_free_if_closed(struct etcd_multi *multi) {
    if (!multi->closed || multi->depth)
        return;
    curl_multi_cleanup(multi->curl); /* still reports its sockets as removed */
    while (multi->spare_count)
        free(multi->spare[--multi->spare_count]);
    uv_close((uv_handle_t *)&multi->timer, multi_on_timer_closed);
}

/* The callback may add transfers, remove others, or close. So each message is read anew from
 * libcurl's list, and nothing of a message is used after its handle was removed. */
static void multi_read_ended(struct etcd_multi *multi) {
    int left;
    multi->depth++;
    for (CURLMsg *message;
         !multi->closed && (message = curl_multi_info_read(multi->curl, &left));) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        curl_multi_remove_handle(multi->curl, easy); /* message is gone with this */
        multi->ended(multi->owner, easy, code);
    }
    multi->depth--;
    multi_free_if_closed(multi);
}

static int multi_on_timeout(CURLM *curl, long timeout_ms, void *owner);

/* libcurl does not say again when it wants to be called if the timer has run early for us. */
static void multi_do_soon(struct etcd_multi *multi) {
    long timeout_ms;
    multi->soon_due = false;
    multi->depth++;
    while (!multi->closed && multi->soon(multi->owner))
        ;
    multi->depth--;
    if (!multi->closed && !multi->soon_due && curl_multi_timeout(multi->curl, &timeout_ms) == 0)
        multi_on_timeout(multi->curl, timeout_ms, multi);
    multi_free_if_closed(multi);
}

static void multi_on_timer(uv_timer_t *timer) {
    struct etcd_multi *multi = timer->data;
    int running;
    if (multi->soon_due) {
        multi_do_soon(multi);
        return;
    }
    curl_multi_socket_action(multi->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    multi_read_ended(multi);
}

void etcd_multi_soon(struct etcd_multi *multi) {
    multi->soon_due = true;
    uv_timer_start(&multi->timer, multi_on_timer, 0, 0);
}

static void multi_on_poll(uv_poll_t *poll, int status, int events) {
    const struct watched *watched = poll->data;
    struct etcd_multi *multi = watched->multi;
    /* After an error there may still be something to read that says why, such as a TLS alert. */
    int flags = status < 0 ? CURL_CSELECT_IN | CURL_CSELECT_OUT : 0, running;
    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    curl_multi_socket_action(multi->curl, watched->socket, flags, &running);
    multi_read_ended(multi); /* watched may be gone */
}

static void multi_on_watched_closed(uv_handle_t *handle) {
    free(handle->data);
}

static void multi_refill(struct etcd_multi *multi) {
    while (multi->spare_count < SOCKETS_SPARE) {
        struct watched *watched = malloc(sizeof *watched);
        if (!watched)
            return;
        multi->spare[multi->spare_count++] = watched;
    }
}

static struct watched *multi_take(struct etcd_multi *multi) {
    struct watched *watched = malloc(sizeof *watched);
    if (!watched && multi->spare_count)
        watched = multi->spare[--multi->spare_count];
    if (watched)
        *watched = (struct watched){.multi = multi};
    return watched;
}

/* libcurl gives the pointer back with each later call for this socket (curl_multi_assign). */
static struct watched *multi_watch(struct etcd_multi *multi, curl_socket_t socket) {
    multi_refill(multi);
    struct watched *watched = multi_take(multi);
    if (!watched)
        return NULL;
    watched->socket = socket;
    watched->poll.data = watched;
    if (uv_poll_init_socket(multi->loop, &watched->poll, socket) < 0) {
        free(watched);
        return NULL;
    }
    curl_multi_assign(multi->curl, socket, watched);
    return watched;
}

/* The descriptor is libcurl's and is closed right after REMOVE. uv_close() stops watching it at
 * once; only the memory of the handle is given back later. */
static int multi_on_socket(CURL *easy, curl_socket_t socket, int what, void *owner,
                           void *assigned) {
    struct etcd_multi *multi = owner;
    struct watched *watched = assigned;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watched)
            uv_close((uv_handle_t *)&watched->poll, multi_on_watched_closed);
        curl_multi_assign(multi->curl, socket, NULL);
        return 0;
    }
    if (!watched && !(watched = multi_watch(multi, socket)))
        return -1;
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&watched->poll, events, multi_on_poll) < 0 ? -1 : 0;
}

/* Called from inside libcurl, which must not be called back from here: also with 0 ms the timer
 * fires with the next turn of the loop. */
static int multi_on_timeout(CURLM *curl, long timeout_ms, void *owner) {
    struct etcd_multi *multi = owner;
    (void)curl;
    if (multi->soon_due)
        return 0; /* multi_do_soon() asks for the time-out again */
    if (timeout_ms < 0)
        uv_timer_stop(&multi->timer);
    else
        uv_timer_start(&multi->timer, multi_on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

/* Without pipelining and multiplexing no two requests share a connection at one time, so that an
 * answer that is late does not hold up the others. */
int etcd_multi_new(uv_loop_t *loop, etcd_multi_fn ended, etcd_multi_soon_fn soon, void *owner,
                   struct etcd_multi **out) {
    struct etcd_multi *multi = calloc(1, sizeof *multi);
    if (!multi)
        return -ENOMEM;
    multi->loop = loop;
    multi->ended = ended;
    multi->soon = soon;
    multi->owner = owner;
    multi->curl = curl_multi_init();
    if (!multi->curl) {
        free(multi);
        return -ENOMEM;
    }
    multi_refill(multi);
    uv_timer_init(loop, &multi->timer);
    multi->timer.data = multi;
    curl_multi_setopt(multi->curl, CURLMOPT_SOCKETFUNCTION, multi_on_socket);
    curl_multi_setopt(multi->curl, CURLMOPT_SOCKETDATA, multi);
    curl_multi_setopt(multi->curl, CURLMOPT_TIMERFUNCTION, multi_on_timeout);
    curl_multi_setopt(multi->curl, CURLMOPT_TIMERDATA, multi);
    curl_multi_setopt(multi->curl, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    *out = multi;
    return 0;
}

int etcd_multi_add(struct etcd_multi *multi, CURL *easy) {
    return curl_multi_add_handle(multi->curl, easy) == CURLM_OK ? 0 : -ENOMEM;
}

void etcd_multi_remove(struct etcd_multi *multi, CURL *easy) {
    curl_multi_remove_handle(multi->curl, easy);
}

void etcd_multi_close(struct etcd_multi *multi) {
    multi->closed = true;
    multi_free_if_closed(multi);
}
