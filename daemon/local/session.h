/* SPDX-License-Identifier: Apache-2.0
 *
 * Connected clients: packets in, broker requests out, and the answers back, descriptors included.
 * Knows the socket and the frame; knows nothing of what a request means.
 *
 * A session is that of the process that connected, and ends with it, even if a forked child has
 * its socket too (death.h). A client that says so in Hello comes back to it when its connection
 * breaks (lasting.h); without that it ends with its connection.
 *
 * A client that breaks the protocol or says no Hello in time loses its session, with one log line,
 * and nobody else notices. One that does not read its answers is not listened to until it does: it
 * costs no more than the answers to what it has asked by then, and few descriptors.
 *
 * Circle: session.c, lasting.c, session_back.c, session_send.c: what is read decides what is sent,
 * and what is sent and not taken decides whether more is read, and whether the session goes on. A
 * connection that ends leaves its session to lasting.c, and a process that dies ends its
 * connection.
 */
#ifndef FEATURED_LOCAL_SESSION_H
#define FEATURED_LOCAL_SESSION_H

#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "broker.h"
#include "proto/bump.h"

/* What a session asks of the broker: broker.h as a table, so that a session can be tested without
 * one. */
struct session_backend {
    struct broker_session *(*open)(struct broker *broker, const struct broker_client_ops *ops,
                                   void *client, const struct broker_credentials *credentials,
                                   char *why, size_t why_bytes);
    bool (*request)(struct broker_session *session, uint32_t request_id, bool wants_reply,
                    const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                    uint64_t now_ns, const char **why);
    void (*close)(struct broker_session *session, uint64_t now_ns);
    const char *(*name)(const struct broker_session *session);
    /* NULL, all of these: no session outlives its connection. */
    bool (*park)(struct broker_session *session, uint64_t now_ns);
    struct broker_session *(*claimed)(struct broker *broker, const Fb__Hello *hello,
                                      const struct broker_credentials *credentials);
    void (*resume)(struct broker_session *session, const struct broker_client_ops *ops,
                   void *client);
    int (*keep)(struct broker_session *session, int pidfd, int lock_fd);
    struct broker_session *(*recalled)(struct broker *broker,
                                       struct broker_credentials *credentials, int *pidfd_out,
                                       int *lock_fd_out);
    /* May it have one of the last descriptors? NULL: nobody may. */
    bool (*admin)(const struct broker *broker, uid_t uid);
    /* What the client does not read is charged here; NULL: send_queue_bytes is all that bounds it.
     */
    struct account *(*account)(const struct broker_session *session);
};

struct sessions_options {
    /* Kept for a client that is slow to read and has no account; 0 = 4 MiB. */
    uint64_t send_queue_bytes;
    uint32_t hello_timeout_ms; /* from connect to an accepted Hello; 0 = 5000 */
    /* Called once after each wake-up in which the broker was entered; may be NULL. It may close
     * sessions and listeners. */
    void (*after_turn)(void *owner, uint64_t now_ns);
    void *owner;
    int (*peer_pidfd)(int socket_fd, pid_t pid); /* NULL = death_peer_pidfd() */
};

struct session;

/* All sessions of one daemon and what they share: one buffer each way, one bump. */
struct sessions {
    uv_loop_t *loop;
    struct broker *broker;
    const struct session_backend *backend;
    struct sessions_options options;
    struct session *first;        /* open ones */
    LIST_HEAD(, lasting) lasting; /* what outlives connections: see lasting.h */
    uv_timer_t look_timer;        /* whether the programs of parked sessions are there */
    bool has_look_timer;
    uint32_t look_ms; /* until it looks again */
    bool closing;     /* nothing is parked any more */
    /* Those with descriptors that their clients have not taken, looked at by the timer. */
    LIST_HEAD(, session) unread;
    uv_timer_t unread_timer;
    bool has_unread_timer;
    uint32_t unread_ms; /* until it looks again */
    uint32_t refused;   /* of the open ones: see session_refuse() */
    uint32_t unfreed;   /* open ones, parked ones, and those whose handles are still closing */
    uint32_t put_off;   /* of the open ones: those that came too late in a turn of the loop */
    bool put_off_first; /* the turn under way is theirs */
    uint64_t turn, turn_begun_ns; /* the turn under way: what uv_now() says in it, and since when */
    struct bump bump;
    uint8_t *packet_in, *packet_out; /* FRAME_CLIENT_BYTES_MAX each */
    void (*closed)(void *owner);
    void *closed_owner;
};

/* backend and options are copied by pointer and by value. 0 or -ENOMEM. */
int sessions_init(struct sessions *set, uv_loop_t *loop, struct broker *broker,
                  const struct session_backend *backend, const struct sessions_options *options);
/* Closes every session; closed(owner) once their handles are gone, possibly before this returns. No
 * session_new() from here on. */
void sessions_close(struct sessions *set, void (*closed)(void *owner), void *owner);
/* After `closed`. */
void sessions_deinit(struct sessions *set);

/* Takes over the sessions that an earlier broker left; before the first session_new(). */
void sessions_take_recalled(struct sessions *set);

/* Takes over a connected, non-blocking SOCK_SEQPACKET socket. On failure the caller still owns fd:
 * -EBUSY when the broker admits no more, with its sentence in why; -ENOMEM, ... */
int session_new(struct sessions *set, int fd, const struct broker_credentials *credentials,
                char *why, size_t why_bytes);

/* Takes over the socket of a client that may not come in: its first request is answered with this
 * status and sentence (copied), then it is closed; the broker never hears of it. On failure the
 * caller still owns fd: -EBUSY when too many are being refused at once, -ENOMEM, ... */
int session_refuse(struct sessions *set, int fd, uid_t uid, Fb__Status status,
                   const char *sentence);

#endif
