/* SPDX-License-Identifier: Apache-2.0
 *
 * A handle and its one connection at a time.
 *
 *    no link --attempt--> link (Hello answered) --EOF, error, nonsense--> broken --attempt--> ...
 *
 * At most one thread attempts (feature->connecting); the others wait on `changed`. Attempts back
 * off from 10 ms, doubling to 1 s, less up to half at random, so that the clients of a broker that
 * has restarted do not all come back in the same millisecond. Nothing happens in the background: a
 * handle that is not used does not reconnect.
 *
 * feature->lock guards everything of the handle: its link, its stores and their releases. It is
 * never held while a thread waits for the socket. Who holds a reference to a link may use it after
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
#include "release.h"
#include "sized.h"
#include "socket.h"
#include "store_handle.h"

#define SOCKET_PATH_DEFAULT        "/run/featured/featured.sock"
#define CONNECT_TIMEOUT_MS_DEFAULT 5000u
#define BACKOFF_MS_MIN             10u
#define BACKOFF_MS_MAX             1000u
#define DISCONNECT_MS              1000u
#define UNFORKED_BYTES             4096u /* one page; the kernel rounds up */

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
        return !pthread_mutex_trylock(&feature->lock);
    pthread_mutex_lock(&feature->lock);
    return true;
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
                                      .batch_items = FRAME_BATCH_ITEMS_MAX};
    if (!limits)
        return;
    link->limits.inline_bytes = limits->inline_bytes;
    if (limits->frame_bytes && limits->frame_bytes < link->limits.frame_bytes)
        link->limits.frame_bytes = limits->frame_bytes;
    if (limits->batch_items && limits->batch_items < link->limits.batch_items)
        link->limits.batch_items = limits->batch_items;
}

/* What the broker says of itself is kept with the link: it may be another broker next time, with
 * another incarnation, which means that all leases and rooms of before are void. */
static int connection_take_hello(struct fc_link *link, const Fb__ClientReply *reply) {
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
    link->session_id = hello->session_id;
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

/* With the lock held; released meanwhile. The versions that we understand are offered as a range
 * (proto/version.h), in a frame that every broker can read. A broker that does not answer is
 * UNAVAILABLE rather than TIMEOUT: the caller's own request has not been made yet. */
static int connection_say_hello(struct feature *feature, struct fc_link *link,
                                uint64_t deadline_ns) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = VERSION_CLIENT.lowest;
    hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = feature->client_id;
    hello.client_name = feature->client_name;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    struct fc_exchange exchange = {.request = &request, .deadline_ns = deadline_ns};
    int rc = fc_link_call(link, &exchange);
    if (rc == FC_LINK_LOST)
        return fc_fail(FEATURE_E_UNAVAILABLE, "greet the broker at %s: %s", feature->socket_path,
                       link->why);
    if (rc == FEATURE_E_TIMEOUT)
        return fc_fail(FEATURE_E_UNAVAILABLE, "the broker at %s does not answer",
                       feature->socket_path);
    if (rc)
        return rc;
    rc = connection_take_hello(link, exchange.reply);
    if (!rc && exchange.reply->hello->pidfd_wanted)
        connection_send_pidfd(link);
    fc_exchange_deinit(&exchange);
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

/* With the lock held and `connecting` ours; the lock is released while it blocks. The fork lock is
 * held from socket() until the descriptor is on the list of fork.h. FEATURE_OK: *out is greeted
 * and the caller's. The epoch is counted even for an attempt that fails, so that no two links ever
 * have the same. */
static int connection_attempt(struct feature *feature, uint64_t deadline_ns, struct fc_link **out) {
    uint64_t epoch = ++feature->last_epoch;
    pthread_mutex_unlock(&feature->lock);
    fc_fork_lock();
    int fd = fc_socket_connect(feature->socket_path);
    struct fc_link *link = fd < 0 ? NULL : fc_link_new(fd, epoch, &feature->lock);
    fc_fork_unlock();
    int rc = fd < 0 ? connection_refuse_path(feature, -fd) : FEATURE_OK;
    pthread_mutex_lock(&feature->lock);
    feature->nobody = fd == -ECONNREFUSED || fd == -ENOENT;
    if (rc)
        return rc;
    if (!link)
        return fc_fail_memory("connect");
    rc = connection_say_hello(feature, link, deadline_ns);
    if (rc) {
        fc_link_break(link, "no greeting");
        fc_link_unref(link);
        return rc;
    }
    *out = link;
    return FEATURE_OK;
}

/* Doubling from BACKOFF_MS_MIN to BACKOFF_MS_MAX, less up to half of it at random. */
static void connection_back_off(struct feature *feature) {
    uint32_t ms = feature->backoff_ms ? feature->backoff_ms * 2 : BACKOFF_MS_MIN;
    feature->backoff_ms = ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX;
    uint32_t wait_ms = feature->backoff_ms - randombytes_uniform(feature->backoff_ms / 2);
    feature->retry_ns = fc_after_ns(fc_now_ns(), wait_ms * FC_NS_PER_MS);
}

/* With the lock held; released while it blocks and to log. The old link is let go of first:
 * threads that still wait on it hold their own references, and see that it has broken. Why it
 * failed is kept (feature->why), for those who only waited for this attempt. */
static int connection_connect_once(struct feature *feature, uint64_t deadline_ns) {
    char lost[sizeof feature->link->why] = "";
    struct fc_link *link = NULL;
    feature->connecting = true;
    if (feature->link) {
        memcpy(lost, feature->link->why, sizeof lost);
        fc_link_unref(feature->link);
        feature->link = NULL;
    }
    int rc = connection_attempt(feature, deadline_ns, &link);
    feature->connecting = false;
    if (!rc) {
        feature->link = link;
        feature->limits = link->limits;
        feature->backoff_ms = 0;
        feature->retry_ns = 0;
    } else {
        snprintf(feature->why, sizeof feature->why, "%s", feature_last_error());
        connection_back_off(feature);
    }
    pthread_cond_broadcast(&feature->changed);
    if (*lost) {
        pthread_mutex_unlock(&feature->lock);
        fc_log(feature, FEATURE_LOG_WARNING, "connection to %s lost: %s", feature->socket_path,
               lost);
        pthread_mutex_lock(&feature->lock);
    }
    return rc;
}

/* One of the waiting threads attempts, the others sleep until it is done or their own deadline
 * passes. FEATURE_E_UNAVAILABLE of an attempt is tried again until the deadline; anything else (no
 * permission, no version in common, no memory) would fail again at once and is the answer. */
int fc_connection_ready(struct feature *feature, uint64_t deadline_ns) {
    for (;;) {
        if (feature->closed)
            return fc_fail(FEATURE_E_UNAVAILABLE, "the connection to %s was closed",
                           feature->socket_path);
        if (fc_connection_link(feature))
            return FEATURE_OK;
        uint64_t now_ns = fc_now_ns();
        if (now_ns >= deadline_ns)
            return fc_fail(FEATURE_E_UNAVAILABLE, "no connection to the broker: %s",
                           *feature->why ? feature->why : "it was lost");
        if (!feature->connecting && now_ns >= feature->retry_ns) {
            int rc = connection_connect_once(feature, deadline_ns);
            if (rc && rc != FEATURE_E_UNAVAILABLE)
                return rc;
            continue;
        }
        uint64_t until_ns = feature->connecting || deadline_ns < feature->retry_ns
                                ? deadline_ns
                                : feature->retry_ns;
        struct timespec until = fc_timespec(until_ns);
        pthread_cond_clockwait(&feature->changed, &feature->lock, CLOCK_MONOTONIC, &until);
    }
}

/* For feature_view_check(): is the broker known to be gone? Only if an attempt just now, or one
 * within its back-off, has found nobody at the socket. A broker that is slow or full is not gone.
 */
bool fc_connection_gone(struct feature *feature, uint64_t deadline_ns) {
    if (fc_connection_link(feature) || feature->connecting)
        return false;
    if (!feature->closed && fc_now_ns() >= feature->retry_ns)
        (void)connection_connect_once(feature, deadline_ns);
    return !fc_connection_link(feature) && feature->nobody;
}

/* Something was kept because the socket was full: the flusher sends it when nobody else does. */
void fc_connection_settle(struct feature *feature) {
    struct fc_link *link = fc_connection_link(feature);
    if (link && link->untold)
        (void)fc_flusher_wake(feature);
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
        pthread_cond_destroy(&feature->changed);
        pthread_mutex_destroy(&feature->lock);
    }
    if (feature->unforked)
        munmap(feature->unforked, UNFORKED_BYTES);
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
    pthread_mutex_lock(&feature->lock);
    struct fc_limits limits = feature->limits;
    pthread_mutex_unlock(&feature->lock);
    return limits;
}

/* The client_id names this handle to the broker, over all its connections: by (client_id, op_id) a
 * repeated operation is known again. It is random, as there is nobody who could give numbers to
 * all processes. */
static int connection_new_feature(const struct feature_options *options, struct feature **out) {
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
    randombytes_buf(&feature->client_id, sizeof feature->client_id);
    /* 31 random bits above 32 zero ones, and never 0, as op_id 0 is not remembered. No run of puts
     * makes the number wrap, and a handle that got the same client_id by chance would not meet the
     * operations of this one. */
    /* 31 random bits above 32 zero ones and never 0: no run of puts makes it wrap. */
    feature->next_op_id = ((uint64_t)(randombytes_random() >> 1) << 32) + 1;
    pthread_mutex_init(&feature->lock, NULL);
    pthread_cond_init(&feature->changed, NULL);
    *out = feature;
    return FEATURE_OK;
}

/* libsodium chooses its code for this processor once, and the handlers of fork() are registered
 * once; both are done at the first connect, and may fail. Then one connection is made, or the last
 * failure is told. */
int feature_connect(const struct feature_options *options, struct feature **out) {
    FC_NEEDS(out);
    struct feature_options known;
    struct feature *feature = NULL;
    int rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_options");
    if (rc)
        return rc;
    if (auth_init())
        return fc_fail(FEATURE_E_INTERNAL, "libsodium could not be initialised");
    if (fc_fork_init())
        return fc_fail_memory("connect");
    rc = connection_new_feature(&known, &feature);
    if (rc)
        return rc;
    uint32_t ms = known.connect_timeout_ms ? known.connect_timeout_ms : CONNECT_TIMEOUT_MS_DEFAULT;
    pthread_mutex_lock(&feature->lock);
    rc = fc_connection_ready(feature, fc_after_ns(fc_now_ns(), ms * FC_NS_PER_MS));
    pthread_mutex_unlock(&feature->lock);
    if (rc) {
        fc_connection_unref(feature);
        return rc;
    }
    *out = feature;
    return FEATURE_OK;
}

/* Those who wait are woken and fail: the connection was closed. */
static void connection_end_link(struct feature *feature) {
    pthread_mutex_lock(&feature->lock);
    feature->closed = true;
    if (feature->link) {
        fc_link_break(feature->link, "disconnected");
        fc_link_unref(feature->link);
        feature->link = NULL;
    }
    pthread_cond_broadcast(&feature->changed);
    pthread_mutex_unlock(&feature->lock);
}

/* First the flusher, so that nobody else sends; then what is still to be said, for at most
 * DISCONNECT_MS; then the link. Stores that are still open are closed. Views and reservations hold
 * references, so the struct lives until the last of them is gone. */
void feature_disconnect(struct feature *feature) {
    if (!feature)
        return;
    if (!fc_connection_forked(feature)) {
        fc_flusher_stop(feature);
        fc_release_flush(feature, fc_after_ns(fc_now_ns(), DISCONNECT_MS * FC_NS_PER_MS));
        connection_end_link(feature);
    } else if (fc_connection_lock(feature)) {
        /* The session is the parent's; our copy of its descriptor is closed (fork.h). */
        if (feature->link)
            feature->link->refs = 1;
        if (feature->link)
            fc_link_unref(feature->link);
        feature->link = NULL;
        feature->closed = true;
        pthread_mutex_unlock(&feature->lock);
    }
    fc_store_close_all(feature);
    fc_connection_unref(feature);
}
