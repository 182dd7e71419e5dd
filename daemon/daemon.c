/* SPDX-License-Identifier: Apache-2.0
 *
 * The composition root: builds everything in order, runs the loop, takes everything down in
 * reverse.
 *
 * All of it happens on one loop and one thread. I/O callbacks run in the loop's poll phase and hand
 * requests and messages to the broker; the check handle right behind it pumps the broker once for
 * all of them, so that answers and messages to peers go out in batches; the timer wakes the loop
 * for the broker's next deadline.
 *
 *   serving --SIGTERM--> draining --idle, time out or second signal--> closing --> stopped
 *   serving --SIGUSR2--> left, if somebody keeps the memory; else as with SIGTERM
 *
 * Leaving is what a crash is, on purpose: nothing is ended, given back or told, for the next broker
 * goes on with all of it. So there is no second way to take things down that would have to be as
 * right as the first.
 *
 * Draining: no new puts, no new clients; those that are there may finish. Closing: clients first,
 * then peers, then what both stand on, each when libuv has closed the handles of the one before.
 */
#include "daemon.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "broker.h"
#include "busy_poll.h"
#include "config_reload.h"
#include "daemon_etcd.h"
#include "directory/directory.h"
#include "directory/etcd/etcd.h"
#include "environment.h"
#include "local/listener.h"
#include "metrics_feed.h"
#include "ops/notify.h"
#include "peer/peer.h"
#include "prefault.h"
#include "secret_prints.h"
#include "starter.h"
#include "transports.h"

#define SIGNALS 4u

enum phase { PHASE_BUILDING, PHASE_SERVING, PHASE_DRAINING, PHASE_CLOSING };

struct daemon {
    struct config config; /* its lists are the caller's */
    struct daemon_options options;
    struct death_watch starter; /* options.end_with */
    uint8_t cluster_key[AUTH_KEY_BYTES];
    bool has_cluster_key;
    enum phase phase;
    uint64_t drain_until_ns;
    uv_loop_t loop;
    bool has_loop;
    uv_check_t check;
    uv_timer_t timer;
    uv_idle_t hot; /* while active the loop does not sleep: a request may come */
    uv_idle_t due; /* the same: there is more to do at once */
    struct busy_poll busy_poll;
    uv_signal_t signals[SIGNALS];
    bool left;            /* for another broker: all memory stays as it is */
    uint64_t incarnation; /* random, never 0 */
    struct secret_prints *secret_prints;
    int64_t room_for_arenas; /* bytes that the cgroup's memory limit leaves for more of them */
    struct prefault *prefault;
    struct broker *broker;
    struct peers *peers;
    struct transport *transport;
    struct directory *directory;
    struct listener *listener;
    struct metrics_feed *metrics; /* NULL: [ops] http is not set */
};

static uint64_t daemon_clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* ---- the loop ---- */

static void daemon_begin_closing(struct daemon *daemon);
static void daemon_on_timer(uv_timer_t *timer);

/* Only keeps the loop from sleeping: the next turn follows when the sockets have been looked at. */
static void daemon_on_due(uv_idle_t *due) {
    (void)due;
}

/* Sets what wakes the loop next. A timer of 0 ms would run again and again before any socket is
 * read; for what is due at once there is an idle handle, which makes the loop look at the sockets
 * without sleeping. Times are rounded up to ms: a timer that fires too early finds nothing due. */
static void daemon_schedule(struct daemon *daemon, uint64_t now_ns) {
    uint64_t next_ns = broker_next_deadline_ns(daemon->broker);
    if (daemon->phase == PHASE_DRAINING && daemon->drain_until_ns < next_ns)
        next_ns = daemon->drain_until_ns;
    if (next_ns <=
        now_ns) { /* a timer of 0 ms would run again and again before any socket is read */
        uv_timer_stop(&daemon->timer);
        uv_idle_start(&daemon->due, daemon_on_due);
        return;
    }
    uv_idle_stop(&daemon->due);
    if (next_ns == UINT64_MAX)
        uv_timer_stop(&daemon->timer);
    else
        uv_timer_start(&daemon->timer, daemon_on_timer, (next_ns - now_ns + 999999) / 1000000, 0);
}

static void daemon_on_hot(uv_idle_t *hot) {
    (void)hot;
    sched_yield(); /* whoever else wants this core goes first: perhaps the one we wait for */
}

/* busy_poll.c decides; while the loop is hot an idle handle keeps it from sleeping. */
static void daemon_stay_hot_or_cool_down(struct daemon *daemon, uint64_t now_ns) {
    daemon->busy_poll.span_ns = daemon->config.busy_poll_us * 1000ull;
    if (busy_poll_turn(&daemon->busy_poll, broker_request_count(daemon->broker), now_ns))
        uv_idle_start(&daemon->hot, daemon_on_hot);
    else
        uv_idle_stop(&daemon->hot);
}

/* How long this turn has kept everybody waiting, and how much of that was the broker's own work:
 * featurectl status shows the longest. The loop has told the time when it woke up, in milliseconds;
 * both clocks are CLOCK_MONOTONIC. */
static void daemon_note_turn(struct daemon *daemon, uint64_t now_ns, uint64_t pumped_ns) {
    uint64_t ended_ns = uv_hrtime(), woken_ns = uv_now(&daemon->loop) * 1000000ull;
    broker_turn_took(daemon->broker, now_ns, ended_ns > woken_ns ? ended_ns - woken_ns : 0,
                     ended_ns - pumped_ns);
}

/* One turn of the broker: everything that has come in since the last one is worked off, then it is
 * decided when to wake up next. */
static void daemon_turn(struct daemon *daemon) {
    uint64_t now_ns = daemon_clock_ns(CLOCK_BOOTTIME);
    if (daemon->phase == PHASE_CLOSING)
        return;
    uint64_t pumped_ns = uv_hrtime();
    broker_pump(daemon->broker, now_ns);
    daemon_note_turn(daemon, now_ns, pumped_ns);
    if (daemon->phase == PHASE_DRAINING &&
        (broker_is_idle(daemon->broker) || now_ns >= daemon->drain_until_ns)) {
        daemon_begin_closing(daemon);
        return;
    }
    daemon_schedule(daemon, now_ns);
    daemon_stay_hot_or_cool_down(daemon, now_ns);
}

/* Right after the poll phase: all that the sockets had has been handed to the broker. */
static void daemon_on_check(uv_check_t *check) {
    daemon_turn(check->data);
}

static void daemon_on_timer(uv_timer_t *timer) {
    daemon_turn(timer->data);
}

/* ---- configuration ---- */

/* What is kept is a key made of the secret, not the secret. */
static int daemon_read_cluster_key(struct daemon *daemon, char *why, size_t why_bytes) {
    uint8_t secret[4096];
    if (!*daemon->config.cluster_secret_file)
        return 0;
    int secret_bytes = config_read_secret(daemon->config.cluster_secret_file, secret, sizeof secret,
                                          why, why_bytes);
    if (secret_bytes < 0)
        return secret_bytes;
    auth_key("cluster", secret, (size_t)secret_bytes, daemon->cluster_key);
    sodium_memzero(secret, sizeof secret);
    daemon->has_cluster_key = true;
    return 0;
}

/* Called for each key whose value in the file differs from the one in force: logs a line, whether
 * the new value is used from now on or only after a restart. */
static void daemon_on_change(void *context, const struct config_change *change) {
    (void)context;
    if (change->taken)
        log_info("reload: %s: %s -> %s: taken", change->what, change->from, change->to);
    else
        log_warning("reload: %s: %s -> %s: takes a restart, the old one stays in force",
                    change->what, change->from, change->to);
}

static void daemon_on_secret_change(void *context, const char *what, const char *how) {
    (void)context;
    log_warning("reload: %s: %s: takes a restart, the old secret stays in force", what, how);
}

static void daemon_say_of_next_start(bool warning, const char *sentence) {
    if (warning)
        log_warning("reload: at the next start: %s", sentence);
}

/* Of a [peer] that a reload has added. config_reload() adds them with directory = static alone. */
static void daemon_know_peer(struct daemon *daemon, const struct config_peer *peer) {
    const struct directory_peer known = {peer->node, peer->address, peer->data_address};
    if (directory_static_know(daemon->directory, &known) < 0)
        log_error("reload: [peer %s]: out of memory; it is known after a restart", peer->node);
}

/* On SIGHUP. A file with a mistake changes nothing. Secrets are not read again, but a secret that
 * has changed is told of, or its owner would wonder why the new one is refused. The limits of the
 * process are judged as for a start with the new file, for that is when a new quota counts. */
static void daemon_reload(struct daemon *daemon) {
    struct config wanted;
    char why[ENVIRONMENT_SENTENCE_BYTES];
    if (config_load(daemon->options.config_path, &wanted, why, sizeof why) < 0) {
        log_error("reload: %s; the old configuration stays", why);
        return;
    }
    enum log_level before = daemon->config.log_level;
    size_t peers_before = daemon->config.peer_count;
    bool different = config_reload(&daemon->config, &wanted, daemon_on_change, NULL);
    different |= secret_prints_compare(daemon->secret_prints, daemon_on_secret_change, NULL);
    if (different && environment_check(&wanted, daemon_say_of_next_start, why, sizeof why) < 0)
        daemon_say_of_next_start(true, why);
    config_deinit(&wanted);
    if (daemon->config.log_level != before) /* else --verbose stays as it is */
        log_set_level(daemon->config.log_level);
    broker_reconfigure(daemon->broker, &daemon->config);
    for (size_t i = peers_before; i < daemon->config.peer_count; i++)
        daemon_know_peer(daemon, &daemon->config.peers[i]);
    log_info("reload: %s%s", daemon->options.config_path, different ? "" : ": nothing has changed");
}

/* ---- signals ---- */

/* The listener goes first, so that nobody comes in while the others leave. */
static void daemon_begin_draining(struct daemon *daemon) {
    char load[128];
    broker_describe_load(daemon->broker, load, sizeof load);
    log_info("node %s: stopping: no new puts; waiting up to %u ms for %s", daemon->config.node,
             daemon->config.drain_timeout_ms, load);
    notify_manager("STOPPING=1");
    daemon->phase = PHASE_DRAINING;
    daemon->drain_until_ns =
        daemon_clock_ns(CLOCK_BOOTTIME) + daemon->config.drain_timeout_ms * 1000000ull;
    listener_stop_accepting(daemon->listener);
    broker_begin_drain(daemon->broker);
}

/* On SIGUSR2, which our unit has as its RestartKillSignal: systemd sends SIGTERM for a stop and
 * this for a restart, so that nobody has to be asked which of the two it is. */
static void daemon_leave(struct daemon *daemon) {
    char load[128];
    broker_describe_load(daemon->broker, load, sizeof load);
    log_info("node %s: leaving for the next broker, with its memory in place and %s",
             daemon->config.node, load);
    daemon->left = true;
    uv_stop(&daemon->loop);
}

/* A second SIGTERM means "at once". */
static void daemon_on_signal(uv_signal_t *handle, int number) {
    struct daemon *daemon = handle->data;
    if (number == SIGHUP && daemon->options.config_path)
        daemon_reload(daemon);
    else if (number == SIGUSR2 && daemon->options.keep) {
        if (daemon->phase == PHASE_SERVING) /* a stop that has begun stays a stop */
            daemon_leave(daemon);
    } else if (daemon->phase == PHASE_SERVING)
        daemon_begin_draining(daemon);
    else if (daemon->phase == PHASE_DRAINING)
        daemon_begin_closing(daemon);
}

/* ---- closing ---- */

/* Those of the loop itself. The loop ends when the last handle has been closed. */
static void daemon_close_handles(struct daemon *daemon) {
    uv_close((uv_handle_t *)&daemon->check, NULL);
    uv_close((uv_handle_t *)&daemon->timer, NULL);
    uv_close((uv_handle_t *)&daemon->hot, NULL);
    uv_close((uv_handle_t *)&daemon->due, NULL);
    for (size_t i = 0; i < SIGNALS; i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    death_watch_stop(&daemon->starter, NULL);
}

/* The transport has gone with the peers. The broker must let go of them before they are freed, and
 * the directory is destroyed before the broker, to which it tells events. */
static void daemon_on_peers_closed(void *owner) {
    struct daemon *daemon = owner;
    daemon->transport = NULL;
    broker_release_peers(daemon->broker);
    peers_free(daemon->peers);
    daemon->directory->ops->destroy(daemon->directory);
    broker_free(daemon->broker);
    prefault_free(daemon->prefault);
    daemon_close_handles(daemon);
}

static void daemon_on_listener_gone(void *owner) {
    struct daemon *daemon = owner;
    peers_close(daemon->peers, daemon_on_peers_closed, daemon);
}

/* listener_close() calls back when the last session is freed; the peers follow then. */
static void daemon_begin_closing(struct daemon *daemon) {
    char load[128];
    broker_describe_load(daemon->broker, load, sizeof load);
    log_info("node %s: closing with %s", daemon->config.node, load);
    daemon->phase = PHASE_CLOSING;
    metrics_feed_stop(daemon->metrics);
    listener_close(daemon->listener, daemon_on_listener_gone, daemon);
}

/* ---- building ---- */

static void daemon_on_prefault(void *owner, const struct arena *arena, uint64_t bytes) {
    struct daemon *daemon = owner;
    if (daemon->phase != PHASE_CLOSING)
        broker_prefaulted(daemon->broker, arena, bytes);
}

/* What of an arena counts against the limit of the control group's memory: huge pages do not. */
static int64_t daemon_limited_bytes(const struct arena *arena) {
    return arena->hugepages ? 0 : (int64_t)arena->bytes;
}

/* Touching memory in advance is of use only if it fits: beyond the limit of the control group the
 * kernel would kill the broker before it has served anybody. */
static void daemon_on_arena_ready(void *owner, const char *store, const struct arena *arena) {
    struct daemon *daemon = owner;
    daemon->room_for_arenas -= daemon_limited_bytes(arena);
    if (daemon->config.prefault && daemon->room_for_arenas >= 0)
        prefault_add(daemon->prefault, store, arena);
    else if (daemon->config.prefault)
        log_warning("store %s: its memory is not touched in advance: with that of the other stores "
                    "it might not fit into the memory limit of this process's cgroup",
                    store);
}

static void daemon_on_arena_gone(void *owner, const struct arena *arena) {
    struct daemon *daemon = owner;
    prefault_remove(daemon->prefault, arena);
    daemon->room_for_arenas += daemon_limited_bytes(arena);
}

static uint64_t daemon_on_clock(void *context) {
    (void)context;
    return daemon_clock_ns(CLOCK_BOOTTIME);
}

/* SIGTERM and SIGINT stop, SIGHUP reads the file again if there is one, SIGUSR2 leaves. */
static int daemon_build_loop(struct daemon *daemon) {
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
    int result = uv_loop_init(&daemon->loop);
    if (result < 0)
        return result;
    daemon->has_loop = true;
    uv_check_init(&daemon->loop, &daemon->check);
    uv_timer_init(&daemon->loop, &daemon->timer);
    uv_idle_init(&daemon->loop, &daemon->hot);
    uv_idle_init(&daemon->loop, &daemon->due);
    daemon->check.data = daemon->timer.data = daemon;
    uv_check_start(&daemon->check, daemon_on_check);
    for (size_t i = 0; i < SIGNALS; i++) {
        uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        uv_signal_start(&daemon->signals[i], daemon_on_signal, numbers[i]);
    }
    return prefault_new(&daemon->loop, daemon_on_prefault, daemon, &daemon->prefault);
}

/* The broker, its peers and the transport know each other, so that they are made in this order and
 * connected afterwards. Without peers, and without a directory that may name some, there is no
 * transport. */
static int daemon_build_broker(struct daemon *daemon, char *why, size_t why_bytes) {
    randombytes_buf(&daemon->incarnation, sizeof daemon->incarnation);
    daemon->incarnation += !daemon->incarnation;
    struct broker_options options = {
        .config = &daemon->config,
        .incarnation = daemon->incarnation,
        .clock_ns = daemon_on_clock,
        .unix_offset_ns = daemon_clock_ns(CLOCK_REALTIME) - daemon_clock_ns(CLOCK_BOOTTIME),
        .arena_ready = daemon_on_arena_ready,
        .arena_gone = daemon_on_arena_gone,
        .memory_limit_bytes = environment_memory_limit(&daemon->config),
        .keep = daemon->options.keep,
        .owner = daemon,
    };
    struct peers_options peers = {
        .node = daemon->config.node,
        .ping_interval_ns = daemon->config.ping_interval_ms * 1000000ull,
        .timeout_ns = daemon->config.peer_timeout_ms * 1000000ull,
        .reconnect_max_ns = daemon->config.reconnect_max_ms * 1000000ull,
        .clock_ns = daemon_on_clock,
    };
    int result = broker_new(&options, &daemon->broker);
    if (result < 0)
        return result;
    if ((result = broker_attach(daemon->broker, daemon_clock_ns(CLOCK_BOOTTIME), why, why_bytes)) <
        0)
        return result;
    peers.incarnation = daemon->incarnation = broker_incarnation(daemon->broker);
    peers.deadlines = broker_deadlines(daemon->broker);
    if ((result = peers_new(&peers, &broker_peers_events, daemon->broker, &daemon->peers)) < 0)
        return result;
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct transport_options transport = {
        .cluster_key = daemon->has_cluster_key ? daemon->cluster_key : NULL,
        .hello = hello,
        .hello_bytes = peers_hello(&peers, hello),
        .chunk_bytes = (uint32_t)daemon->config.chunk_bytes,
        .reads_per_connection = daemon->config.reads_per_peer,
        .handshake_timeout_ms = daemon->config.handshake_timeout_ms,
        .send_queue_bytes = daemon->config.limits.of[ACCOUNT_PEER][CHARGE_UNREAD_BYTES],
        .connections_max = daemon->config.max_connections,
    };
    if (*daemon->config.listen || daemon->config.peer_count ||
        daemon->config.directory == CONFIG_DIRECTORY_ETCD)
        result = transports_new(&daemon->loop, &daemon->config, &transport, &peers_transport_events,
                                daemon->peers, &daemon->transport, why, why_bytes);
    peers_set_transport(daemon->peers, daemon->transport);
    return result;
}

/* The list of peers is copied by the directory. */
static int daemon_build_directory_static(struct daemon *daemon) {
    const struct config *config = &daemon->config;
    struct directory_peer *peers = calloc(config->peer_count + 1, sizeof *peers);
    if (!peers)
        return -ENOMEM;
    for (size_t i = 0; i < config->peer_count; i++)
        peers[i] = (struct directory_peer){config->peers[i].node, config->peers[i].address,
                                           config->peers[i].data_address};
    int result = directory_static_new(config->node, peers, config->peer_count,
                                      daemon_clock_ns(CLOCK_REALTIME) / 1000000,
                                      &broker_directory_events, daemon->broker, &daemon->directory);
    free(peers);
    if (result == 0)
        directory_static_keep(daemon->directory, broker_directory_kept(daemon->broker));
    return result;
}

/* Which one is a matter of [directory] kind; all that follows sees the interface alone. */
static int daemon_build_directory(struct daemon *daemon, char *why, size_t why_bytes) {
    if (daemon->config.directory == CONFIG_DIRECTORY_ETCD)
        return daemon_etcd_new(
            &daemon->config, daemon->incarnation,
            (int64_t)(daemon_clock_ns(CLOCK_REALTIME) - daemon_clock_ns(CLOCK_BOOTTIME)),
            &daemon->loop, daemon->broker, &daemon->directory, why, why_bytes);
    return daemon_build_directory_static(daemon);
}

/* "port 0" gets a free port: `bound` is what the other nodes are told, unless [peers] advertise
 * says otherwise. */
static int daemon_listen_for_peers(struct daemon *daemon, char *why, size_t why_bytes) {
    const struct config *config = &daemon->config;
    char bound[64];
    if (!*daemon->config.listen)
        return 0;
    int result = peers_listen(daemon->peers, daemon->config.listen, bound);
    if (result < 0)
        snprintf(why, why_bytes,
                 "cannot listen for peers at %s: %s; set [peers] listen to an address of this "
                 "machine and a port that is free",
                 daemon->config.listen, strerror(-result));
    else
        log_info("node %s: listening for peers at %s", daemon->config.node, bound);
    if (result >= 0 && config->directory == CONFIG_DIRECTORY_ETCD)
        directory_etcd_set_address(daemon->directory,
                                   *config->advertise ? config->advertise : bound,
                                   config->data_address);
    return result;
}

/* Clients may connect from here on, so all that answers them is built before: daemon_build() calls
 * this last. */
static int daemon_listen_for_clients(struct daemon *daemon, char *why, size_t why_bytes) {
    struct listener_options options = {
        .socket_path = daemon->config.socket_path,
        .socket_mode = daemon->config.socket_mode,
        .socket_group = daemon->config.socket_group,
        .allow_uids = &daemon->config.allow_uids,
        .allow_gids = &daemon->config.allow_gids,
        .sessions = {.hello_timeout_ms = daemon->config.hello_timeout_ms},
    };
    return listener_new(&daemon->loop, &options, daemon->broker, &daemon->listener, why, why_bytes);
}

static void daemon_on_starter_gone(void *owner) {
    struct daemon *daemon = owner;
    log_info("node %s: process %d, which started this broker, has ended", daemon->config.node,
             (int)daemon->options.end_with);
    if (daemon->phase != PHASE_CLOSING)
        daemon_begin_closing(daemon);
}

/* Stores are opened before anybody can ask for them, and clients are let in last: whoever connects
 * finds a broker that is ready, and systemd is told READY only after that. */
static int daemon_build(struct daemon *daemon, char *why, size_t why_bytes) {
    int result = daemon_read_cluster_key(daemon, why, why_bytes);
    if (result < 0 || (result = secret_prints_new(&daemon->config, &daemon->secret_prints)) < 0 ||
        (result = daemon_build_loop(daemon)) < 0 ||
        (result = starter_watch(daemon->options.end_with, &daemon->loop, &daemon->starter,
                                daemon_on_starter_gone, daemon, why, why_bytes)) < 0 ||
        (result = daemon_build_broker(daemon, why, why_bytes)) < 0 ||
        (result = daemon_build_directory(daemon, why, why_bytes)) < 0)
        return result;
    broker_connect(daemon->broker, daemon->peers, daemon->transport, daemon->directory);
    if ((result = broker_open_stores(daemon->broker, why, why_bytes)) < 0 ||
        (result = daemon_listen_for_peers(daemon, why, why_bytes)) < 0 ||
        (result = daemon->directory->ops->start(daemon->directory)) < 0 ||
        (result = metrics_feed_new(&daemon->loop, &daemon->config, daemon->broker, &daemon->metrics,
                                   why, why_bytes)) < 0)
        return result;
    return daemon_listen_for_clients(daemon, why, why_bytes);
}

/* Takes down what daemon_build() had made when it failed. Once there is a directory the usual way
 * of closing works; before that, what there is has to be taken down by hand. The loop runs until
 * all handles are closed. */
static void daemon_unbuild(struct daemon *daemon) {
    daemon->phase = PHASE_CLOSING;
    if (!daemon->has_loop)
        return;
    metrics_feed_stop(daemon->metrics);
    if (daemon->directory) {
        daemon_on_listener_gone(daemon);
    } else {
        if (daemon->transport)
            daemon->transport->ops->destroy(daemon->transport, NULL);
        peers_free(daemon->peers);
        broker_free(daemon->broker);
        prefault_free(daemon->prefault);
        daemon_close_handles(daemon);
    }
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
}

/* config's list of stores stays the caller's; all else is copied, for a reload changes it. */
int daemon_new(const struct config *config, const struct daemon_options *options,
               struct daemon **out, char *why, size_t why_bytes) {
    struct daemon *daemon = calloc(1, sizeof *daemon);
    if (!daemon)
        return -ENOMEM;
    daemon->config = *config;
    daemon->config.peers = calloc(config->peer_count + 1, sizeof *config->peers);
    if (!daemon->config.peers) {
        free(daemon);
        return -ENOMEM;
    }
    if (config->peer_count)
        memcpy(daemon->config.peers, config->peers, config->peer_count * sizeof *config->peers);
    daemon->options = *options;
    daemon->room_for_arenas = environment_room_for_arenas(config);
    int result = daemon_build(daemon, why, why_bytes);
    if (result < 0) {
        daemon_unbuild(daemon);
        daemon_free(daemon);
        return result;
    }
    daemon->phase = PHASE_SERVING;
    *out = daemon;
    return 0;
}

/* The first turn is run by hand: what the stores and the directory began while they were built may
 * be due already, and nothing has woken the loop. */
int daemon_run(struct daemon *daemon) {
    log_info("node %s: featured " FEATURED_VERSION " serves clients at %s", daemon->config.node,
             daemon->config.socket_path);
    notify_manager("READY=1");
    daemon_turn(daemon);
    int result = uv_run(&daemon->loop, UV_RUN_DEFAULT);
    return daemon->left ? DAEMON_LEFT : result < 0 ? result : 0;
}

/* The cluster's key is wiped; the loop has closed all of its handles by now. */
void daemon_free(struct daemon *daemon) {
    if (!daemon)
        return;
    if (daemon->has_loop)
        uv_loop_close(&daemon->loop);
    metrics_feed_free(daemon->metrics);
    secret_prints_free(daemon->secret_prints);
    sodium_memzero(daemon->cluster_key, sizeof daemon->cluster_key);
    free(daemon->config.peers);
    free(daemon);
}
