/* SPDX-License-Identifier: Apache-2.0
 *
 * Carries out requests, a client's or a peer's: stores, peers and the directory put together. Sees decoded
 * messages, never a socket; now_ns (CLOCK_BOOTTIME) is an argument; runs on the loop thread; nothing blocks.
 * With a fake transport, a fake directory and a made-up clock a whole cluster runs in one process.
 */
#ifndef FEATURED_BROKER_BROKER_H
#define FEATURED_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client.pb-c.h"

struct broker;
struct broker_session;

struct broker_client_ops {
    /* The one answer to a request. fd: to be passed along (not consumed, caller keeps it), or -1. reply is
     * valid during the call only. Must not call back into the broker. */
    void (*reply)(void *client, uint32_t request_id, const Fb__ClientReply *reply, int fd);
    /* Progress of a get (request_id) or an event (request_id 0). May be dropped when the client is slow. */
    void (*notice)(void *client, uint32_t request_id, const Fb__ClientNotice *notice);
};

struct broker_credentials {
    uid_t uid;
    gid_t gid;
    pid_t pid;
};

/* A connected client, not yet greeted. client: handed to the ops. NULL when max_sessions is reached. */
struct broker_session *broker_session_open(struct broker *broker, const struct broker_client_ops *ops,
                                           void *client, const struct broker_credentials *credentials);
/* Carries out one request; `reply` follows exactly once per request (during this call or later) unless the
 * session closes first or wants_reply is false. request and payload are valid during the call only. Returns
 * false when the request breaks the protocol (no Hello first, empty op, ...): the caller then closes the
 * session, and *why names the reason. */
bool broker_session_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                            const Fb__ClientRequest *request, const uint8_t *payload, size_t payload_bytes,
                            uint64_t now_ns, const char **why);
/* Leases end as returned, reservations are cancelled, queued requests vanish without an answer. */
void broker_session_close(struct broker_session *session, uint64_t now_ns);
/* For log lines: "session 12 pid 4312 uid 1000 trainer". */
const char *broker_session_name(const struct broker_session *session);
uint64_t broker_session_id(const struct broker_session *session);

#endif
