/* SPDX-License-Identifier: Apache-2.0
 *
 * Carries out requests, a client's or a peer's: stores, peers and the directory put together. Sees
 * decoded messages, never a socket; now_ns (CLOCK_BOOTTIME) is an argument; runs on the loop
 * thread; nothing blocks. With a fake transport, a fake directory and a made-up clock a whole
 * cluster runs in one process.
 */
#ifndef FEATURED_BROKER_BROKER_H
#define FEATURED_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client.pb-c.h"
#include "config.h"
#include "directory/directory.h"
#include "memory/arena.h"
#include "memory/keep.h"
#include "ops/metrics.h"
#include "peer/peer.h"
#include "store/charges.h"

struct broker;
struct broker_session;

#define BROKER_TOKEN_BYTES 16u /* of a session: 128 bits that nobody can guess */

/* ---- building it (daemon.c, simulators) ---- */

struct broker_options {
    const struct config *config; /* node name, limits, defaults; must outlive the broker */
    uint64_t incarnation;        /* of a broker that finds no memory of an earlier one */
    uint64_t (*clock_ns)(
        void *owner);            /* of this moment, for requests of peers; NULL: of the last pump */
    uint64_t unix_offset_ns;     /* wall clock minus now_ns, for the times in events */
    uint64_t landed_grain_bytes; /* between two Landed notices; 0 = 1 MiB */
    uint64_t memory_limit_bytes; /* arenas together take no more; 0 = no limit */
    struct keep *keep;           /* holds the memory while no broker runs; NULL: nothing is kept */
    /* A store's arena was made: prefault it in the background, if you like, and report the progress
     * with broker_prefaulted(). May be NULL. */
    void (*arena_ready)(void *owner, const char *store, const struct arena *arena);
    /* The arena is about to be unmapped: nobody may touch it from this return on. May be NULL. */
    void (*arena_gone)(void *owner, const struct arena *arena);
    void *owner;
};

int broker_new(const struct broker_options *options, struct broker **out);
/* Takes back what the keeper has of an earlier broker's memory, or begins anew. Once, right after
 * broker_new(). 0 or -errno with a sentence; then only broker_free() is left. */
int broker_attach(struct broker *broker, uint64_t now_ns, char *why, size_t why_bytes);
/* That of the memory that was attached, else the one in the options. After broker_attach(). */
uint64_t broker_incarnation(const struct broker *broker);
/* What its directory must know again after a crash, for the directory's constructor. After
 * broker_attach(). */
struct directory_kept *broker_directory_kept(const struct broker *broker);
/* The heap of all that is to happen at a time: for what is built around the broker, too. */
struct deadlines *broker_deadlines(struct broker *broker);
/* Hand these to peers_new(), the directory's constructor (owner: the broker) ... */
extern const struct peers_events broker_peers_events;
extern const struct directory_events broker_directory_events;
/* ... and tell the broker of them; transport may be NULL. Once, before anything else. */
void broker_connect(struct broker *broker, struct peers *peers, struct transport *transport,
                    struct directory *directory);
/* Makes the stores of the configuration, or attaches those that an earlier broker left, and makes
 * known again what there was between that one and other nodes. 0 or -errno with a sentence. */
int broker_open_stores(struct broker *broker, char *why, size_t why_bytes);
/* Forgets what is pending at peers; before peers_free(). */
void broker_release_peers(struct broker *broker);
/* All sessions and askers must be gone. */
void broker_free(struct broker *broker);

/* After every batch of events, and when broker_next_deadline_ns() passes: pulls effects, sends what
 * is due. */
void broker_pump(struct broker *broker, uint64_t now_ns);
uint64_t broker_next_deadline_ns(const struct broker *broker);

/* A turn of the loop has ended at now_ns: how long it took, and the pump of that. Shown by health;
 * a long one is warned of. */
void broker_turn_took(struct broker *broker, uint64_t now_ns, uint64_t turn_ns, uint64_t pump_ns);

/* A snapshot of all metrics, a bounded part with each call: true when it is whole. progress: {0} to
 * begin. Which metrics there are: exchange/metrics_table.c. */
struct metrics_progress {
    bool begun, done;
    uint32_t space;    /* the next one */
    struct peer *peer; /* the last one */
};
bool broker_measure(const struct broker *broker, struct metrics *metrics,
                    struct metrics_progress *progress);
/* NULL: it takes puts and serves gets; else why not, for a sentence that begins "node a: ". */
#define BROKER_WHY_BYTES 768u
const char *broker_is_ready(const struct broker *broker, char out[BROKER_WHY_BYTES]);

/* From here on no new puts; gets and releases go on. */
void broker_begin_drain(struct broker *broker);
/* No lease, reservation or pending release is left. */
bool broker_is_idle(const struct broker *broker);
/* For the log: "2 leases, 1 reservation, 0 releases pending". */
void broker_describe_load(const struct broker *broker, char *out, size_t out_bytes);
/* Requests of clients and peers so far. */
uint64_t broker_request_count(const struct broker *broker);
void broker_prefaulted(struct broker *broker, const struct arena *arena, uint64_t bytes);
/* Takes over what may change at run time: session limits, allow-lists, store policies, max_hold. */
void broker_reconfigure(struct broker *broker, const struct config *config);

/* ---- clients ---- */

struct broker_client_ops {
    /* The one answer to a request. fd: to be passed along (not consumed, caller keeps it), or -1.
     * reply is valid during the call only. Must not call back into the broker. */
    void (*reply)(void *client, uint32_t request_id, const Fb__ClientReply *reply, int fd);
    /* Progress of a get (request_id) or an event (request_id 0). May be dropped when the client is
     * slow. */
    void (*notice)(void *client, uint32_t request_id, const Fb__ClientNotice *notice);
};

struct broker_credentials {
    uid_t uid;
    gid_t gid;
    pid_t pid;
};

/* Root, the broker's own user and admin_uids. */
bool broker_is_admin(const struct broker *broker, uid_t uid);
/* A connected client, not yet greeted. client: handed to the ops. NULL when it may not come in now,
 * with a sentence that names the limit, or when memory is short. One that is over a limit comes in
 * all the same while its user has sessions that it may be coming back to; its Hello is refused when
 * it does not. */
struct broker_session *broker_session_open(struct broker *broker,
                                           const struct broker_client_ops *ops, void *client,
                                           const struct broker_credentials *credentials, char *why,
                                           size_t why_bytes);
/* Carries out one request; `reply` follows exactly once per request (during this call or later)
 * unless the session closes first or wants_reply is false. request and payload are valid during the
 * call only. Returns false when the request breaks the protocol (no Hello first, empty op, ...):
 * the caller then closes the session, and *why names the reason. */
bool broker_session_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                            const Fb__ClientRequest *request, const uint8_t *payload,
                            size_t payload_bytes, uint64_t now_ns, const char **why);
/* Its connection is gone, and its client may come back: requests under way vanish without an
 * answer, what it holds stays. False, and nothing is done, when its client cannot come back: it is
 * to be closed. */
bool broker_session_park(struct broker_session *session, uint64_t now_ns);
/* The session, parked or connected, that this Hello names, if its token is right and it is that
 * user's. NULL: there is none, and no difference is made between the reasons. */
struct broker_session *broker_session_claimed(struct broker *broker, const Fb__Hello *hello,
                                              const struct broker_credentials *credentials);
/* A parked session has a client again, which is about to say Hello. */
void broker_session_resume(struct broker_session *session, const struct broker_client_ops *ops,
                           void *client);
/* Before its client is told that it can come back: the next broker is to know the session, too.
 * pidfd, lock_fd: by which it tells that the client is dead; the caller's. 0, also when nobody
 * keeps the broker's memory; -EAGAIN: its keeper is behind, try again later; else -errno. */
int broker_session_keep(struct broker_session *session, int pidfd, int lock_fd);
/* After broker_open_stores(), until NULL: a session that an earlier broker left, parked. The
 * descriptors are the caller's; -errno where the keeper does not have them: then it is to be
 * closed.
 */
struct broker_session *broker_session_recalled(struct broker *broker,
                                               struct broker_credentials *credentials,
                                               int *pidfd_out, int *lock_fd_out);
/* Leases end as returned, reservations are cancelled, queued requests vanish without an answer. */
void broker_session_close(struct broker_session *session, uint64_t now_ns);
/* For log lines: "session 12 pid 4312 uid 1000 trainer". */
const char *broker_session_name(const struct broker_session *session);
/* To charge what is kept for it outside the broker. */
struct account *broker_session_account(const struct broker_session *session);
uint64_t broker_session_id(const struct broker_session *session);

#endif
