/* SPDX-License-Identifier: Apache-2.0
 *
 * A handle and its one connection at a time.
 *
 *    none --connect(), Hello sent--> greeting --Hello answered--> works --EOF, error, nonsense-->
 *     ^                                 |                                  broken = none
 *     +---- after a back-off -----------+  refused, or not answered within HELLO_MS
 *
 * Whoever needs the connection moves it on by fc_connection_step(): it is nobody's own, and the
 * answer to Hello may be received by any thread that waits for something of this handle. Attempts
 * back off from 10 ms, doubling to 1 s, less up to half at random, so that the clients of a broker
 * that has restarted do not all come back in the same millisecond. Nothing happens in the
 * background: a handle that is not used does not reconnect.
 *
 * hub.lock guards everything of the handle: its link, its stores and their releases. It is never
 * held while a thread waits for the socket. Who holds a reference to a link may use it after
 * another thread has replaced it; the epoch tells which connection something came from.
 *
 * A child of fork() has a copy of all this and owns none of it. It may not take the lock as usual,
 * since the thread that held it at the fork does not exist in the child: see fc_connection_lock().
 */
#include "connection.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "fork.h"
#include "limit.h"
#include "proto/auth.h"
#include "proto/version.h"
#include "receive.h"
#include "socket.h"

#define SOCKET_PATH_DEFAULT "/run/featured/featured.sock"
#define BACKOFF_MS_MIN      10u
#define BACKOFF_MS_MAX      1000u
#define HELLO_MS            FC_ROUND_TRIP_MS
/* A broker of an earlier version does not say how many requests and items it allows a session.
 * These numbers are then assumed: they are below the defaults of every version. */
#define REQUESTS_DEFAULT 64u
#define ITEMS_DEFAULT    1024u
#define UNFORKED_BYTES   4096u /* one page; the kernel rounds up */

/* A page that the kernel wipes in a forked child (MADV_WIPEONFORK, Linux 4.14): reading true from
 * it means that this is the process that connected. Asking the kernel for our pid in every call
 * would cost more than the rest of the checks together. NULL: the kernel cannot do that, and
 * getpid() is asked. */
static bool *connection_map_unforked(void) {
    bool *page =
        mmap(NULL, UNFORKED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, UNFORKED_BYTES, MADV_WIPEONFORK) != 0) {
        munmap(page, UNFORKED_BYTES);
        return NULL;
    }
    *page = true;
    return page;
}

bool fc_connection_forked(const struct feature *feature) {
    return feature->unforked ? !*feature->unforked : getpid() != feature->pid;
}

/* In a forked child a lock that is taken stays taken: whoever holds it lives in the parent. The
 * child tries, and does without what needs the lock if it fails; it only frees its own copies. */
bool fc_connection_lock(struct feature *feature) {
    if (fc_connection_forked(feature))
        return !pthread_mutex_trylock(&feature->hub.lock);
    pthread_mutex_lock(&feature->hub.lock);
    return true;
}

/* The application's function may be slow or call the library again, so the lock must not be held.
 * The sentence is escaped as all are: it may quote what the broker has said. */
void fc_log(const struct feature *feature, enum feature_log_level level, const char *format, ...) {
    if (!feature->log)
        return;
    char sentence[FC_SENTENCE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    fc_sentence(sentence, format, arguments);
    va_end(arguments);
    feature->log(feature->log_context, level, sentence);
}

/* What has to be logged was kept until here. */
void fc_connection_unlock(struct feature *feature) {
    char lost[sizeof feature->lost];
    if (!*feature->lost) {
        pthread_mutex_unlock(&feature->hub.lock);
        return;
    }
    memcpy(lost, feature->lost, sizeof lost);
    *feature->lost = '\0';
    pthread_mutex_unlock(&feature->hub.lock);
    fc_log(feature, FEATURE_LOG_WARNING, "connection to %s lost: %s", feature->socket_path, lost);
}

int fc_connection_check(const struct feature *feature) {
    if (!feature)
        return fc_fail(FEATURE_E_INVALID, "no connection was given: the handle is NULL");
    if (!fc_connection_forked(feature))
        return FEATURE_OK;
    return fc_fail(FEATURE_E_INVALID,
                   "this handle was opened by process %d, of which this process (%d) is a fork: "
                   "a forked child holds nothing of its parent's; connect anew after fork()",
                   (int)feature->pid, (int)getpid());
}

/* The link if it is good for sending; NULL when it has broken or there is none. */
struct fc_link *fc_connection_link(const struct feature *feature) {
    return feature->link && !feature->link->broken ? feature->link : NULL;
}

/* ---- hello ---- */

/* Frames and batches are what this library can handle or what the broker says, whichever is less.
 * A broker from before Limits says nothing and takes the defaults. */
static void connection_note_limits(struct fc_link *link, const Fb__Limits *limits) {
    link->limits = (struct fc_limits){.frame_bytes = FRAME_CLIENT_BYTES_MAX,
                                      .inline_bytes = FRAME_INLINE_BYTES_MAX,
                                      .batch_items = FRAME_BATCH_ITEMS_MAX,
                                      .requests = REQUESTS_DEFAULT,
                                      .items = ITEMS_DEFAULT};
    if (!limits)
        return;
    link->limits.inline_bytes = limits->inline_bytes;
    if (limits->requests_in_flight)
        link->limits.requests = limits->requests_in_flight;
    if (limits->waits)
        link->limits.items = limits->waits;
    if (limits->frame_bytes && limits->frame_bytes < link->limits.frame_bytes)
        link->limits.frame_bytes = limits->frame_bytes;
    if (limits->batch_items && limits->batch_items < link->limits.batch_items)
        link->limits.batch_items = limits->batch_items;
}

/* What the broker says of itself is kept with the link: it may be another broker next time, with
 * another incarnation, which means that all leases and rooms of before are void. A broker that is
 * full may have room for a session that comes back in a moment: it is tried again. */
static int connection_take_hello(const struct feature *feature, struct fc_link *link,
                                 const Fb__ClientReply *reply) {
    if (reply->status == FB__STATUS__FULL && feature->session.lasts)
        return fc_fail_status(FB__STATUS__UNAVAILABLE, reply->error, "come back to the broker");
    if (reply->status != FB__STATUS__OK)
        return fc_fail_status(reply->status, reply->error, "greet the broker");
    const Fb__HelloReply *hello = reply->hello;
    if (reply->result_case != FB__CLIENT_REPLY__RESULT_HELLO)
        return fc_fail(FEATURE_E_UNSUPPORTED, "the broker's answer to the greeting is not one that "
                                              "this library (" FEATURED_VERSION ") understands");
    /* A range of one version: is the broker's choice among what we have offered? */
    if (!version_choose(VERSION_CLIENT, (struct version_range){hello->version, hello->version})) {
        char words[VERSION_WORDS_BYTES];
        return fc_fail(FEATURE_E_UNSUPPORTED,
                       "the broker (featured %s) chose version %u of the client protocol, this "
                       "library (" FEATURED_VERSION ") speaks %s",
                       hello->broker_version, hello->version, version_words(VERSION_CLIENT, words));
    }
    if (strlen(hello->node) >= sizeof link->node)
        return fc_fail(FEATURE_E_INTERNAL, "the broker's node name is too long");
    link->incarnation = hello->incarnation;
    link->admin = hello->admin;
    memcpy(link->node, hello->node, strlen(hello->node) + 1);
    connection_note_limits(link, hello->limits);
    return FEATURE_OK;
}

/* A broker that cannot see whether this process lives is given a pidfd; it then ends the session
 * with the process, even if a forked child keeps the socket open. Without one it has the socket to
 * go by, so a failure here is no failure of the connection. The fork lock is held while the
 * descriptor exists. */
static void connection_send_pidfd(struct fc_link *link) {
    uint8_t frame[FRAME_HEADER_BYTES + 64];
    Fb__Hello hello = FB__HELLO__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    hello.pidfd = true;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    size_t body_bytes = fb__client_request__pack(&request, frame + FRAME_HEADER_BYTES);
    struct frame_header header = {
        .version = FRAME_VERSION, .type = FRAME_NOTE, .body_bytes = (uint32_t)body_bytes};
    frame_encode(&header, frame);
    fc_fork_lock();
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd >= 0) {
        (void)fc_socket_send_with(link->socket.fd, frame, FRAME_HEADER_BYTES + body_bytes, pidfd);
        close(pidfd);
    }
    fc_fork_unlock();
}

/* The hello is nobody's own: whoever waits for the connection looks when its answer has come. */
static void connection_on_hello(struct fc_call *call) {
    fc_hub_announce(call->link->hub);
}

/* The versions that we understand are offered as a range (proto/version.h), in a frame that every
 * broker can read. A socket that was connected a moment ago has room for it. */
static int connection_say_hello(struct feature *feature, struct fc_link *link) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = VERSION_CLIENT.lowest;
    hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = feature->client_id;
    hello.client_name = feature->client_name;
    fc_session_greet(&feature->session, &hello);
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    feature->hello =
        (struct fc_call){.request = &request,
                         .deadline_ns = fc_after_ns(fc_now_ns(), HELLO_MS * FC_NS_PER_MS),
                         .woken = connection_on_hello};
    int rc = fc_call_begin(&feature->hello, link);
    feature->hello.request = NULL;
    if (rc == FC_LINK_LOST || rc == -EAGAIN)
        return fc_fail(FEATURE_E_UNAVAILABLE, "greet the broker at %s: %s", feature->socket_path,
                       rc == -EAGAIN ? "the socket is full" : link->why);
    return rc;
}

/* ---- attempts ---- */

/* A sentence for each way in which connect() fails. That nobody listens is the common one, and has
 * two causes that look alike: featured is not running, or it runs with another socket. */
static int connection_refuse_path(const struct feature *feature, int error) {
    char what[160];
    switch (error) {
    case EACCES:
    case EPERM:
        return fc_fail(FEATURE_E_DENIED, "no permission to connect to %s", feature->socket_path);
    case ENAMETOOLONG:
        return fc_fail(FEATURE_E_INVALID, "the socket path %s is too long", feature->socket_path);
    case EMFILE:
    case ENFILE:
        snprintf(what, sizeof what, "connect to %s", feature->socket_path);
        return fc_fail_descriptor(what, error);
    case ENOMEM:
    case ENOBUFS:
        return fc_fail_memory("connect");
    default:
        return fc_fail(FEATURE_E_UNAVAILABLE, "connect to %s: %s; is featured running?",
                       feature->socket_path, strerror(error));
    }
}

/* Doubling from BACKOFF_MS_MIN to BACKOFF_MS_MAX, less up to half of it at random. */
static void connection_back_off(struct feature *feature) {
    uint32_t ms = feature->backoff_ms ? feature->backoff_ms * 2 : BACKOFF_MS_MIN;
    feature->backoff_ms = ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX;
    uint32_t wait_ms = feature->backoff_ms - randombytes_uniform(feature->backoff_ms / 2);
    feature->retry_ns = fc_after_ns(fc_now_ns(), wait_ms * FC_NS_PER_MS);
}

/* Why it failed is kept for those who come before the next attempt. UNAVAILABLE may be otherwise
 * then; anything else (no permission, no version in common, no memory) would fail again at once and
 * is the answer to everybody who asks meanwhile. */
static int connection_failed(struct feature *feature, int rc) {
    snprintf(feature->why, sizeof feature->why, "%s", feature_last_error());
    feature->refusal = rc == FEATURE_E_UNAVAILABLE ? 0 : rc;
    connection_back_off(feature);
    fc_hub_announce(&feature->hub);
    return rc;
}

/* The old link is let go of first: calls that are still on it hold their own references, and see
 * that it has broken. */
static void connection_drop_link(struct feature *feature) {
    if (!feature->link)
        return;
    snprintf(feature->lost, sizeof feature->lost, "%s", feature->link->why);
    fc_link_unref(feature->link);
    feature->link = NULL;
}

/* connect() on such a socket does not wait. The fork lock is held from socket() until the
 * descriptor is on the list of fork.h. The epoch is counted even for an attempt that fails, so that
 * no two links ever have the same. */
static int connection_begin(struct feature *feature) {
    uint64_t epoch = ++feature->last_epoch;
    connection_drop_link(feature);
    fc_fork_lock();
    int fd = fc_socket_connect(feature->socket_path);
    struct fc_link *link = fd < 0 ? NULL : fc_link_new(fd, epoch, &feature->hub);
    fc_fork_unlock();
    feature->nobody = fd == -ECONNREFUSED || fd == -ENOENT;
    if (fd < 0)
        return connection_failed(feature, connection_refuse_path(feature, -fd));
    if (!link)
        return connection_failed(feature, fc_fail_memory("connect"));
    int rc = connection_say_hello(feature, link);
    if (rc) {
        fc_link_break(link, "no greeting");
        fc_link_unref(link);
        return connection_failed(feature, rc);
    }
    feature->greeting = link;
    return FC_PENDING;
}

/* Before any other thread sends on the link: what is said of the holdings comes first. */
static int connection_take_session(struct feature *feature, struct fc_link *link) {
    const Fb__HelloReply *hello = feature->hello.reply->hello;
    struct fc_inherited lock = {.fd = -1};
    if (feature->hello.descriptor.fd >= 0)
        fc_fork_move(&feature->hello.descriptor, &lock);
    fc_session_take(feature, link, hello, &lock);
    if (hello->resumed && !fc_session_say_holdings(feature, link))
        return fc_fail_memory("come back to the broker");
    return FEATURE_OK;
}

/* The hello has ended. A broker that does not answer is UNAVAILABLE rather than TIMEOUT: the
 * caller's own request has not been made yet. */
static int connection_end_greeting(struct feature *feature) {
    struct fc_link *link = feature->greeting;
    feature->greeting = NULL;
    int rc = fc_call_end(&feature->hello);
    if (rc == FC_LINK_LOST)
        rc = fc_fail(FEATURE_E_UNAVAILABLE, "greet the broker at %s: %s", feature->socket_path,
                     link->why);
    else if (rc == FEATURE_E_TIMEOUT)
        rc = fc_fail(FEATURE_E_UNAVAILABLE, "the broker at %s does not answer",
                     feature->socket_path);
    else if (!rc)
        rc = connection_take_hello(feature, link, feature->hello.reply);
    if (!rc)
        rc = connection_take_session(feature, link);
    if (!rc && feature->hello.reply->hello->pidfd_wanted)
        connection_send_pidfd(link);
    fc_call_deinit(&feature->hello);
    if (rc) {
        fc_link_break(link, "no greeting");
        fc_link_unref(link);
        return connection_failed(feature, rc);
    }
    feature->link = link;
    feature->limits = link->limits;
    feature->backoff_ms = 0;
    feature->retry_ns = 0;
    feature->refusal = 0;
    fc_hub_announce(&feature->hub);
    return FEATURE_OK;
}

/* FEATURE_E_UNAVAILABLE of an attempt is tried again after the back-off, however often the caller
 * wants to wait for it. */
int fc_connection_step(struct feature *feature) {
    int rc;
    if (feature->closed)
        return fc_fail(FEATURE_E_UNAVAILABLE, "the connection to %s was closed",
                       feature->socket_path);
    if (fc_connection_link(feature))
        return FEATURE_OK;
    if (feature->greeting)
        rc = fc_call_is_over(&feature->hello) ? connection_end_greeting(feature) : FC_PENDING;
    else if (fc_now_ns() >= feature->retry_ns)
        rc = connection_begin(feature);
    else
        rc = feature->refusal ? fc_fail(feature->refusal, "%s", feature->why) : FC_PENDING;
    return rc == FEATURE_E_UNAVAILABLE ? FC_PENDING : rc;
}

/* Either the broker answers the hello, or the time of the next attempt comes, or another thread has
 * moved it on. That a connection was lost is logged before it is waited for another one. */
void fc_connection_wait(struct feature *feature, uint64_t deadline_ns) {
    if (*feature->lost) {
        fc_connection_unlock(feature);
        pthread_mutex_lock(&feature->hub.lock);
        return;
    }
    uint64_t next_ns = fc_connection_next_ns(feature);
    uint64_t until_ns = next_ns < deadline_ns ? next_ns : deadline_ns;
    struct timespec until = fc_timespec(until_ns);
    if (feature->greeting)
        fc_receive_look(feature->greeting, until_ns);
    else
        pthread_cond_clockwait(&feature->hub.changed, &feature->hub.lock, CLOCK_MONOTONIC, &until);
}

uint64_t fc_connection_next_ns(const struct feature *feature) {
    return feature->greeting ? feature->hello.deadline_ns : feature->retry_ns;
}

int fc_connection_give_up(const struct feature *feature) {
    if (feature->greeting)
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "no connection to the broker: the broker at %s does not answer",
                       feature->socket_path);
    return fc_fail(FEATURE_E_UNAVAILABLE, "no connection to the broker: %s",
                   *feature->why ? feature->why : "it was lost");
}

int fc_connection_ready(struct feature *feature, uint64_t deadline_ns) {
    int rc;
    while ((rc = fc_connection_step(feature)) == FC_PENDING) {
        if (!fc_left_ns(deadline_ns))
            return fc_connection_give_up(feature);
        fc_connection_wait(feature, deadline_ns);
    }
    return rc;
}

/* For feature_view_check(): is the broker known to be gone? Only if an attempt just now, or one
 * within its back-off, has found nobody at the socket. A broker that is slow or full is not gone.
 */
bool fc_connection_gone(struct feature *feature, uint64_t deadline_ns) {
    while (fc_connection_step(feature) == FC_PENDING && feature->greeting &&
           fc_left_ns(deadline_ns))
        fc_connection_wait(feature, deadline_ns);
    return !fc_connection_link(feature) && !feature->greeting && feature->nobody;
}

/* ---- life ---- */

void fc_connection_ref(struct feature *feature) {
    atomic_fetch_add_explicit(&feature->refs, 1, memory_order_relaxed);
}

void fc_connection_unref(struct feature *feature) {
    if (atomic_fetch_sub_explicit(&feature->refs, 1, memory_order_acq_rel) != 1)
        return;
    /* Another thread of the parent may have held them at the fork: then they are never destroyed.
     */
    if (!fc_connection_forked(feature)) {
        pthread_cond_destroy(&feature->hub.changed);
        pthread_mutex_destroy(&feature->hub.lock);
    }
    if (feature->unforked)
        munmap(feature->unforked, UNFORKED_BYTES);
    fc_held_deinit(&feature->hub.held);
    free(feature->socket_path);
    free(feature->client_name);
    free(feature);
}

/* Consecutive numbers for the items of one request. They name its operations for as long as the
 * broker remembers them, so that a repeat on a new connection is recognised. */
uint64_t fc_connection_op_ids(struct feature *feature, uint32_t count) {
    return atomic_fetch_add_explicit(&feature->next_op_id, count, memory_order_relaxed);
}

struct fc_limits fc_connection_limits(struct feature *feature) {
    pthread_mutex_lock(&feature->hub.lock);
    struct fc_limits limits = feature->limits;
    pthread_mutex_unlock(&feature->hub.lock);
    return limits;
}

/* The client_id names this handle to the broker, over all its connections: by (client_id, op_id) a
 * repeated operation is known again. It is random, as there is nobody who could give numbers to
 * all processes. */
int fc_connection_new(const struct feature_options *options, struct feature **out) {
    const char *path = options->socket_path ? options->socket_path : getenv("FEATURED_SOCKET");
    const char *name = options->client_name ? options->client_name : program_invocation_short_name;
    struct feature *feature = calloc(1, sizeof *feature);
    if (!feature)
        return fc_fail_memory("connect");
    feature->socket_path = strdup(path && *path ? path : SOCKET_PATH_DEFAULT);
    feature->client_name = strdup(name);
    if (!feature->socket_path || !feature->client_name) {
        free(feature->socket_path);
        free(feature->client_name);
        free(feature);
        return fc_fail_memory("connect");
    }
    feature->refs = 1;
    feature->pid = getpid();
    feature->unforked = connection_map_unforked();
    feature->log = options->log;
    feature->log_context = options->log_context;
    feature->interrupted = options->interrupted;
    feature->interrupted_context = options->interrupted_context;
    randombytes_buf(&feature->client_id, sizeof feature->client_id);
    /* 31 random bits above 32 zero ones, and never 0, as op_id 0 is not remembered. No run of puts
     * makes the number wrap, and a handle that got the same client_id by chance would not meet the
     * operations of this one. */
    feature->next_op_id = ((uint64_t)(randombytes_random() >> 1) << 32) + 1;
    pthread_mutex_init(&feature->hub.lock, NULL);
    pthread_cond_init(&feature->hub.changed, NULL);
    *out = feature;
    return FEATURE_OK;
}

/* ---- end ---- */

/* A hello in flight ends with its link. */
static void connection_drop_greeting(struct feature *feature) {
    struct fc_link *link = feature->greeting;
    if (!link)
        return;
    feature->greeting = NULL;
    fc_link_break(link, "disconnected");
    (void)fc_call_end(&feature->hello);
    fc_call_deinit(&feature->hello);
    fc_link_unref(link);
}

/* Those who wait are woken and fail: the connection was closed. */
void fc_connection_close(struct feature *feature) {
    feature->closed = true;
    connection_drop_greeting(feature);
    fc_session_leave(&feature->session); /* before its connection ends: then both end together */
    if (feature->link)
        fc_link_break(feature->link, "disconnected");
    fc_link_unref(feature->link);
    feature->link = NULL;
    fc_hub_announce(&feature->hub);
}

/* Our copies of their descriptors are closed already (fork.h). The calls on them are of threads
 * that this process does not have, so their references count for nothing. */
void fc_connection_forget(struct feature *feature) {
    struct fc_link *links[] = {feature->link, feature->greeting};
    for (size_t i = 0; i < 2; i++)
        if (links[i]) {
            links[i]->refs = 1;
            fc_link_unref(links[i]);
        }
    feature->link = feature->greeting = NULL;
    feature->session.lock_page = NULL; /* the child has no copy of the mapping */
    feature->closed = true;
}
