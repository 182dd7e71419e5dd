/* SPDX-License-Identifier: Apache-2.0
 *
 * A session, here, is one connection of a client; what stays of it when the connection ends is in
 * lasting.h. It is OPEN, then CLOSED (session_close(): broker told, fd closed, out of the list),
 * then freed when libuv has let go of its handles. While the session is OPEN, each of these flags
 * may be set:
 *
 *   peer_gone  The client's end cannot take anything more. Output is thrown away, input is read
 *              to its end: a release sent just before the client exited still counts.
 *   dropped    The session is to be closed, and the log line is written. The broker may be on the
 *              stack (an answer overflows the queue while the broker handles a request), so closing
 *              is left to the next wake-up, which shutdown() brings about.
 *   paused     Too many answers are queued, or descriptors are on their way. Requests stay in the
 *              socket, so that a client that does not read can ask for nothing more. The kernel
 *              does not say when a client takes a descriptor: a timer asks whether the socket is
 *              empty.
 *   put_off    It had something to be read in a turn that had no time left for it.
 *
 * A refused session (session_refuse()) has no broker session: it lives until its first request has
 * been answered, or the time for Hello is over. The client learns so why it may not come in, which
 * a closed socket would not tell.
 *
 * Only a session's own poll, its own timer and sessions_close() close it; nothing touches it
 * afterwards.
 *
 * Fairness: a turn of the loop reads for TURN_READS_NS at most. A session whose socket comes up
 * after that is put off, and until those that were put off have been read the others wait. So all
 * are read in turn, however many there are and whatever they send. A paused session is not put off:
 * it may never be read again, and the others would wait for ever.
 */
#include "local/session_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "local/codec.h"
#include "local/open_files.h"
#include "local/packet.h"
#include "ops/log.h"
#include "proto/frame.h"

#define PACKETS_PER_WAKE_UP      16u
#define SESSION_READS_NS         1000000u /* of one session in one turn; one packet is always read */
#define TURN_READS_NS            10000000u /* of all of them */
#define SEND_QUEUE_BYTES_DEFAULT (4u << 20)
#define HELLO_TIMEOUT_MS_DEFAULT 5000u
#define REFUSED_MAX              64u
#define SOCKET_SEND_BYTES        (2 * (int)FRAME_CLIENT_BYTES_MAX)

enum receive_result { RECEIVE_MORE, RECEIVE_EMPTY, RECEIVE_ENDED };

/* CLOCK_BOOTTIME goes on while the machine is suspended, as do the deadlines that clients send. */
uint64_t session_clock_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const char *session_name(const struct session *session) {
    if (session->lasting)
        return session->set->backend->name(session->lasting->broker);
    return session->refusal ? "refused client" : "replaced connection";
}

/* shutdown() makes the socket readable, so that session_on_poll() comes and closes the session. */
void session_drop_quietly(struct session *session) {
    session->dropped = true;
    shutdown(session->fd, SHUT_RDWR);
}

void session_drop(struct session *session, const char *why) {
    if (session->dropped)
        return;
    log_limited(LOG_LEVEL_WARNING, session->uid, "%s: closed: %s", session_name(session), why);
    session_drop_quietly(session);
}

/* ---- closing ---- */

/* The owner may free the set from within closed(): nothing of it is touched afterwards. */
void sessions_check_closed(struct sessions *set) {
    void (*closed)(void *owner) = set->closed;
    if (!closed || set->unfreed > 0)
        return;
    set->closed = NULL;
    closed(set->closed_owner);
}

/* libuv calls back once for each handle, in a later turn. The last one frees the session. */
static void session_on_handle_closed(uv_handle_t *handle) {
    struct session *session = handle->data;
    if (--session->open_handles > 0)
        return;
    struct sessions *set = session->set;
    free(session->refusal);
    free(session);
    set->unfreed--;
    sessions_check_closed(set);
}

static void session_unlink(struct session *session) {
    if (session->next)
        session->next->previous = session->previous;
    if (session->previous)
        session->previous->next = session->next;
    else
        session->set->first = session->next;
}

/* The set counts those that were put off; a session that leaves in whatever way is taken off the
 * count. */
void session_forget_put_off(struct session *session) {
    session->set->put_off -= session->put_off;
    session->put_off = false;
}

/* What was queued for the client is thrown away, and its charges come back; the session of the
 * broker waits for its client, or ends with what it held. The connection is freed when libuv has
 * closed its handles. */
static void session_close(struct session *session, uint64_t now_ns) {
    session_unlink(session);
    session_forget_put_off(session);
    session_forget_unread(session);
    if (session->lasting)
        lasting_disconnect(session->lasting, now_ns);
    session->lasting = NULL;
    session->set->refused -= session->refusal != NULL;
    uv_close((uv_handle_t *)&session->poll, session_on_handle_closed);
    uv_close((uv_handle_t *)&session->hello_timer, session_on_handle_closed);
    close(session->fd);
}

/* served: the broker was entered for this session, so that it may have effects to be carried out.
 */
void session_end_turn(const struct sessions *set, bool served, uint64_t now_ns) {
    if (served && set->options.after_turn)
        set->options.after_turn(set->options.owner, now_ns);
}

/* ---- the client's death ---- */

/* The process that connected is dead. Whoever else has a copy of the socket, a forked child for
 * example, is nobody's session. What the client sent before it died is still read, then
 * session_on_poll() finds the end, which shutdown() has made. */
void session_on_death(struct session *session) {
    session->peer_gone = true;
    shutdown(session->fd, SHUT_RDWR);
}

/* Takes pidfd. One of the last descriptors is not spent on watching: it is kept for clients and
 * peers, and without a watch the session still ends with its socket. */
static void session_watch(struct session *session, int pidfd) {
    int error = -EMFILE;
    if (open_files_is_kept(pidfd))
        close(pidfd);
    else
        error = lasting_watch(session->lasting, pidfd);
    if (error)
        log_limited(LOG_LEVEL_WARNING, session->uid,
                    "%s: the death of its process cannot be watched: %s; if a forked child "
                    "outlives it, its leases end with the child",
                    session_name(session), strerror(-error));
}

/* Where the kernel names the process that connected, it is watched from here on. ENOPROTOOPT: the
 * kernel is too old and the client is in another pid namespace, so that its pid means nothing here;
 * then the client is asked for a pidfd of its own in the answer to its Hello. */
static void session_watch_peer(struct session *session) {
    const struct sessions_options *options = &session->set->options;
    int pidfd = (options->peer_pidfd ? options->peer_pidfd : death_peer_pidfd)(
        session->fd, session->lasting->credentials.pid);
    if (pidfd >= 0) {
        session_watch(session, pidfd);
    } else if (pidfd == -ESRCH) {
        session->lasting->dead = true;
        session_on_death(session);
    } else if (pidfd == -ENOPROTOOPT) {
        session->pidfd_wanted = true;
    } else {
        log_limited(LOG_LEVEL_WARNING, session->uid,
                    "%s: no descriptor to watch its process with: %s; if a forked child outlives "
                    "it, its leases end with the child",
                    session_name(session), strerror(-pidfd));
    }
}

/* Takes fd, which may be -1: a client that could not make one goes unwatched. A descriptor that is
 * no pidfd of that process is refused, for polling it would run what the client chose, a FUSE file
 * for example. */
static void session_take_pidfd(struct session *session, int fd) {
    session->pidfd_wanted = false;
    if (fd >= 0 && death_is_pidfd(fd, session->lasting->credentials.pid)) {
        session_watch(session, fd);
        if (lasting_may_wait(session->lasting) && lasting_keep(session->lasting))
            session_drop(session, "whoever keeps the broker's memory cannot take its session");
    } else if (fd >= 0) {
        close(fd);
        session_drop(session, "sent a descriptor that is no pidfd of its process");
    }
}

/* ---- what the broker says ---- */

/* The broker does not know how the death of a client is watched: what the answer says of that is
 * filled in here. With this answer the client is greeted, and the time for Hello is over. */
static void session_on_hello_reply(struct session *session, uint32_t request_id,
                                   const Fb__ClientReply *reply) {
    Fb__HelloReply hello = *reply->hello;
    Fb__ClientReply whole = *reply;
    hello.pidfd_wanted = session->pidfd_wanted;
    int keep_error, lock_fd = session_make_lasting(session, &hello, &keep_error);
    if (keep_error) {
        close(lock_fd);
        session_refuse_unkept(session, request_id, keep_error);
        return;
    }
    whole.hello = &hello;
    uint8_t *packet = session->set->packet_out;
    size_t too_large_bytes;
    size_t bytes = codec_encode_reply(request_id, &whole, packet, &too_large_bytes);
    session_send(session, packet, bytes, lock_fd);
    if (lock_fd >= 0)
        close(lock_fd);
    session->greeted = true;
    uv_timer_stop(&session->hello_timer);
}

/* fd: a descriptor that goes along with the answer, the broker's; an answer that is too large is
 * replaced by a refusal, and a refusal takes no descriptor along. */
static void session_on_reply(void *client, uint32_t request_id, const Fb__ClientReply *reply,
                             int fd) {
    struct session *session = client;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_HELLO) {
        session_on_hello_reply(session, request_id, reply);
        return;
    }
    uint8_t *packet = session->set->packet_out;
    size_t too_large_bytes;
    size_t bytes = codec_encode_reply(request_id, reply, packet, &too_large_bytes);
    if (too_large_bytes)
        log_limited(LOG_LEVEL_ERROR, session->uid,
                    "%s: an answer of %zu bytes was refused, a frame holds %u",
                    session_name(session), too_large_bytes, FRAME_CLIENT_BYTES_MAX);
    session_send(session, packet, bytes, too_large_bytes ? -1 : fd);
}

/* Notices may be lost: a client asks again when it needs to know. So they never wait in the queue,
 * where they could push out answers, and a full socket is no reason to end the session. */
static void session_on_notice(void *client, uint32_t request_id, const Fb__ClientNotice *notice) {
    struct session *session = client;
    if (session->dropped || session->peer_gone || send_queue_front(&session->queue))
        return;
    uint8_t *packet = session->set->packet_out;
    size_t bytes = codec_encode_notice(request_id, notice, packet);
    if (bytes == 0)
        return;
    int error = session_transmit(session, packet, bytes, -1);
    if (error && error != -EAGAIN)
        session_drop_unsent(session, error);
}

const struct broker_client_ops session_client_ops = {.reply = session_on_reply,
                                                     .notice = session_on_notice};

/* ---- receiving ---- */

void session_answer_refusal(struct session *session, uint32_t request_id, Fb__Status status,
                            const char *sentence) {
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.status = status;
    reply.error = (char *)sentence;
    session_on_reply(session, request_id, &reply, -1);
    session_drop_quietly(session);
}

/* Takes fd, which came with the packet, or -1. The clock is read for each packet: it may have been
 * sent while the one before it was handled, and its deadline counts from then.
 *
 * The first packet after Hello that carries a pidfd, when one was asked for, is the only one that
 * may bring a descriptor. */
static void session_handle_packet(struct session *session, size_t bytes, int fd) {
    struct sessions *set = session->set;
    struct codec_request decoded;
    uint64_t now_ns = session_clock_now_ns();
    const char *wrong = codec_decode_request(set->packet_in, bytes, &set->bump, &decoded);
    bool brings_pidfd = !wrong && session->greeted && session->pidfd_wanted &&
                        decoded.request->op_case == FB__CLIENT_REQUEST__OP_HELLO &&
                        decoded.request->hello->pidfd;
    if (brings_pidfd) {
        session_take_pidfd(session, fd);
        return;
    }
    if (fd >= 0) {
        close(fd);
        wrong = "sent a descriptor where none is wanted";
    }
    if (wrong) {
        session_drop(session, wrong);
        return;
    }
    if (session->refusal) {
        session_answer_refusal(session, decoded.request_id, session->refusal->status,
                               session->refusal->sentence);
        return;
    }
    if (!session->greeted && decoded.request->op_case == FB__CLIENT_REQUEST__OP_HELLO)
        session_come_back(session, decoded.request->hello, now_ns);
    const char *why = "broke the protocol";
    if (!set->backend->request(session->lasting->broker, decoded.request_id, decoded.wants_reply,
                               decoded.request, decoded.payload, decoded.payload_bytes, now_ns,
                               &why))
        session_drop(session, why);
}

/* Whatever is wrong with one packet ends the session: the frame of a SOCK_SEQPACKET is the packet,
 * so that a client that sends nonsense will go on to do so. */
static enum receive_result session_receive_one(struct session *session) {
    int fd;
    ssize_t bytes = packet_receive(session->fd, session->set->packet_in, FRAME_CLIENT_BYTES_MAX,
                                   session->pidfd_wanted, &fd);
    if (bytes == -EAGAIN)
        return RECEIVE_EMPTY;
    if (bytes == 0)
        return RECEIVE_ENDED;
    if (bytes == -EPROTO)
        session_drop(session, "sent a descriptor or other control data");
    else if (bytes == -EMSGSIZE)
        session_drop(session, "packet larger than the limit of a frame");
    else if (bytes < 0)
        session_drop(session, strerror((int)-bytes));
    else
        session_handle_packet(session, (size_t)bytes, fd);
    return session->dropped ? RECEIVE_ENDED : RECEIVE_MORE;
}

/* At most `budget` packets, and for not much longer than span_ns, so that one busy client cannot
 * keep the loop from the others. It stops, too, when the answers that are queued by now are enough;
 * a client that is gone takes none, and is read to its end. */
static enum receive_result session_receive(struct session *session, uint32_t budget,
                                           uint64_t span_ns) {
    enum receive_result result = RECEIVE_MORE;
    uint64_t begun_ns = session_clock_now_ns();
    while (result == RECEIVE_MORE && budget-- > 0) {
        if (!session->peer_gone && !session_may_ask(session)) {
            session_listen(session);
            return RECEIVE_EMPTY;
        }
        result = session_receive_one(session);
        if (session_clock_now_ns() - begun_ns > span_ns)
            break;
    }
    return result;
}

/* Is it to be left for the next turn? A new turn is noticed by uv_now(), which changes only between
 * turns. If sessions were put off in the last one, this turn is theirs first (put_off_first). */
static bool session_put_off(struct session *session, uint64_t now_ns) {
    struct sessions *set = session->set;
    uint64_t turn = uv_now(set->loop);
    if (turn != set->turn) {
        set->turn = turn;
        set->turn_begun_ns = now_ns;
        set->put_off_first = set->put_off > 0;
    }
    bool late = now_ns - set->turn_begun_ns > TURN_READS_NS;
    bool others_first = set->put_off_first && !session->put_off;
    if (late || others_first) {
        set->put_off += late && !session->put_off;
        session->put_off |= late;
        return true;
    }
    session_forget_put_off(session);
    return false;
}

/* status < 0: libuv polls no more after EPOLLERR, for the client left answers unread. What it sent
 * is read, then the session ends. A client that is gone is read to its end in this call, however
 * long that takes: it cannot send any more. */
void session_on_poll(uv_poll_t *poll, int status, int events) {
    struct session *session = poll->data;
    struct sessions *set = session->set;
    if (events & UV_WRITABLE)
        session_flush(session);
    if (events == UV_WRITABLE && !session->dropped)
        return;
    bool gone = status < 0 || events & UV_DISCONNECT; /* the latter is watched for while paused */
    session->peer_gone |= gone;
    bool served = session->lasting != NULL;
    uint32_t budget = gone ? UINT32_MAX : PACKETS_PER_WAKE_UP;
    uint64_t span_ns = gone ? UINT64_MAX : SESSION_READS_NS;
    uint64_t now_ns = session_clock_now_ns();
    bool waits_its_turn = !gone && !session->dropped && !session->paused;
    if (waits_its_turn && session_put_off(session, now_ns))
        return;
    bool ended = session->dropped || session_receive(session, budget, span_ns) == RECEIVE_ENDED;
    now_ns = session_clock_now_ns();
    if (ended || gone) {
        log_debug("%s: disconnected", session_name(session));
        session_close(session, now_ns);
    }
    session_end_turn(set, served, now_ns);
}

/* Nobody may hold a socket for nothing: whoever has not said Hello by now loses it. */
static void session_on_hello_timeout(uv_timer_t *timer) {
    struct session *session = timer->data;
    struct sessions *set = session->set;
    bool served = session->lasting != NULL;
    uint64_t now_ns = session_clock_now_ns();
    char why[64];
    snprintf(why, sizeof why, "no Hello within %u ms", set->options.hello_timeout_ms);
    session_drop(session, why);
    session_close(session, now_ns);
    session_end_turn(set, served, now_ns);
}

/* ---- opening ---- */

static void session_link(struct session *session) {
    struct sessions *set = session->set;
    session->next = set->first;
    if (session->next)
        session->next->previous = session;
    set->first = session;
}

static void session_start(struct session *session) {
    struct sessions *set = session->set;
    session_link(session);
    session->open_handles = 2;
    session->hello_timer.data = session;
    uv_timer_init(set->loop, &session->hello_timer);
    uv_timer_start(&session->hello_timer, session_on_hello_timeout, set->options.hello_timeout_ms,
                   0);
    uv_poll_start(&session->poll, UV_READABLE, session_on_poll);
    /* Two full frames, as far as net.core.wmem_max permits; less only means more queueing. */
    setsockopt(session->fd, SOL_SOCKET, SO_SNDBUF, &(int){SOCKET_SEND_BYTES}, sizeof(int));
}

/* What all sessions need, whether they are refused or not. Nothing runs yet: session_abandon() or
 * session_start() follows. unfreed counts it from here on, because the poll handle must be closed
 * by libuv in any case. */
static int session_prepare(struct sessions *set, int fd, struct session **out) {
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return -ENOMEM;
    session->set = set;
    session->fd = fd;
    int error = uv_poll_init(set->loop, &session->poll, fd);
    if (error) {
        free(session);
        return error;
    }
    session->poll.data = session;
    set->unfreed++;
    send_queue_init(&session->queue, set->options.send_queue_bytes);
    *out = session;
    return 0;
}

/* The caller keeps the descriptor; only the memory and the handle go. */
static void session_abandon(struct session *session) {
    session->open_handles = 1;
    uv_close((uv_handle_t *)&session->poll, session_on_handle_closed);
}

/* A client with an account is bounded by what its user may have unread (account_has_room()), so the
 * queue's own limit is lifted for it. */
int session_new(struct sessions *set, int fd, const struct broker_credentials *credentials,
                char *why, size_t why_bytes) {
    struct session *session;
    int error = session_prepare(set, fd, &session);
    if (error)
        return error;
    session->uid = credentials->uid;
    struct broker_session *opened =
        set->backend->open(set->broker, &session_client_ops, session, credentials, why, why_bytes);
    if (!opened) {
        session_abandon(session);
        return -EBUSY;
    }
    session->lasting = lasting_new(set, opened, session, credentials);
    if (!session->lasting) {
        set->backend->close(opened, session_clock_now_ns());
        session_abandon(session);
        return -ENOMEM;
    }
    session->account = set->backend->account ? set->backend->account(opened) : NULL;
    if (session->account)
        session->queue.limit_bytes = UINT64_MAX;
    session_start(session);
    session_watch_peer(session);
    return 0;
}

/* REFUSED_MAX bounds what strangers can cost: beyond it the socket is closed without a word. */
int session_refuse(struct sessions *set, int fd, uid_t uid, Fb__Status status,
                   const char *sentence) {
    struct session *session;
    int error = set->refused < REFUSED_MAX ? session_prepare(set, fd, &session) : -EBUSY;
    if (error)
        return error;
    session->uid = uid;
    session->refusal = calloc(1, sizeof *session->refusal);
    if (!session->refusal) {
        session_abandon(session);
        return -ENOMEM;
    }
    session->refusal->status = status;
    snprintf(session->refusal->sentence, sizeof session->refusal->sentence, "%s", sentence);
    set->refused++;
    session_start(session);
    return 0;
}

/* ---- the set ---- */

/* On failure sessions_deinit() frees what there is: free(NULL) does nothing, and a bump of zeros is
 * empty. */
int sessions_init(struct sessions *set, uv_loop_t *loop, struct broker *broker,
                  const struct session_backend *backend, const struct sessions_options *options) {
    *set =
        (struct sessions){.loop = loop, .broker = broker, .backend = backend, .options = *options};
    if (set->options.send_queue_bytes == 0)
        set->options.send_queue_bytes = SEND_QUEUE_BYTES_DEFAULT;
    if (set->options.hello_timeout_ms == 0)
        set->options.hello_timeout_ms = HELLO_TIMEOUT_MS_DEFAULT;
    set->packet_in = malloc(FRAME_CLIENT_BYTES_MAX);
    set->packet_out = malloc(FRAME_CLIENT_BYTES_MAX);
    int error = bump_init(&set->bump, BUMP_REQUEST_BYTES);
    if (!error && set->packet_in && set->packet_out)
        return 0;
    sessions_deinit(set);
    return -ENOMEM;
}

static void session_on_timer_closed(uv_handle_t *timer) {
    struct sessions *set = timer->data;
    set->unfreed--;
    sessions_check_closed(set);
}

/* Each session takes one turn of the loop to be freed; closed() is called when the last one is, or
 * at once if there is none. */
void sessions_close(struct sessions *set, void (*closed)(void *owner), void *owner) {
    set->closed = closed;
    set->closed_owner = owner;
    set->closing = true;
    uint64_t now_ns = session_clock_now_ns();
    while (set->first)
        session_close(set->first, now_ns);
    while (!LIST_EMPTY(&set->lasting))
        lasting_end(LIST_FIRST(&set->lasting), now_ns);
    if (set->has_unread_timer)
        uv_close((uv_handle_t *)&set->unread_timer, session_on_timer_closed);
    if (set->has_look_timer)
        uv_close((uv_handle_t *)&set->look_timer, session_on_timer_closed);
    set->has_unread_timer = set->has_look_timer = false;
    sessions_check_closed(set);
}

void sessions_deinit(struct sessions *set) {
    free(set->packet_in);
    free(set->packet_out);
    bump_deinit(&set->bump);
    *set = (struct sessions){0};
}
