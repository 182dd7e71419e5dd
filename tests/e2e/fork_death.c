/* SPDX-License-Identifier: Apache-2.0
 *
 * Contract 6, "a forked child is not its parent: it holds nothing and keeps nothing alive", with
 * real brokers. A worker that must be alive while something is checked waits on its channel, whose
 * other end the test has.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB         1048576u
#define DEADLINE_MS 20000u

/* ---- a dead trainer with a living worker ---- */

/* What the trainer's worker does, who never calls the library. */
static _Noreturn void work(int channel) {
    char word[8];
    (void)channel_receive(channel, word, sizeof word, 120000);
    _exit(0);
}

struct holdings {
    struct feature *feature;
    struct feature_store *store;
    struct feature_view *view;
    struct feature_reservation *reservation;
};

static void hold(struct world *world, struct holdings *out) {
    struct payload payload;
    out->feature = cluster_connect(&world->cluster, 0);
    out->store = cluster_open(out->feature, "run", false);
    payload_init(&payload, "reserved", 1, MIB);
    CHECK_OK(feature_reserve(out->store, &payload.sample, 0, &out->reservation));
    CHECK_OK(feature_get(out->store, by_id("s1"), NULL, &out->view));
    payload_deinit(&payload);
}

static int train_with_forked_worker(int channel, void *context) {
    struct holdings holdings;
    hold(context, &holdings);
    if (fork() == 0)
        work(channel);
    channel_say(channel, "held");
    work(channel);
}

/* A child of which the library does not hear keeps a copy of the socket. */
static int train_with_cloned_worker(int channel, void *context) {
    struct holdings holdings;
    hold(context, &holdings);
    if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0)
        work(channel);
    channel_say(channel, "held");
    work(channel);
}

static void check_death(struct world *world, int (*train)(int channel, void *context)) {
    struct payload payload;
    struct process trainer;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    process_fork(&trainer, train, world);
    channel_expect(trainer.channel, "held", DEADLINE_MS);
    struct store_numbers held = world_home(world);
    CHECK(held.leases == 1 && held.reservations == 1,
          "%" PRIu64 " leases, %" PRIu64 " reservations", held.leases, held.reservations);
    process_signal(&trainer, SIGKILL);
    /* Not yet reaped, and the worker alive: its channel is open. */
    WAIT_UNTIL(world_home(world).leases + world_home(world).reservations == 0, DEADLINE_MS);
    CHECK(!channel_pending(trainer.channel, 0), "the worker did not outlive the trainer");
    CHECK(process_wait(&trainer, DEADLINE_MS, NULL), "the trainer was not killed");
    payload_check_get(&payload, world->consumer, by_id("s1"),
                      FEATURE_RELEASE_CONSUMED); /* returned */
    world_settle(world);
    payload_deinit(&payload);
}

static void a_killed_trainer_with_a_forked_worker(struct world *world) {
    check_death(world, train_with_forked_worker);
}
static void a_killed_trainer_with_a_cloned_worker(struct world *world) {
    check_death(world, train_with_cloned_worker);
}

Test(fork_death, a_killed_trainer_with_a_forked_worker_holds_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_killed_trainer_with_a_forked_worker);
}
Test(fork_death, a_killed_trainer_whose_worker_has_the_socket_holds_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", a_killed_trainer_with_a_cloned_worker);
}

/* ---- the main thread's end is not the process's ---- */

struct survivor {
    struct holdings holdings;
    int channel;
};

static void *go_on(void *context) {
    struct survivor *survivor = context;
    channel_say(survivor->channel, "held");
    channel_expect(survivor->channel, "check", DEADLINE_MS);
    CHECK_OK(feature_view_check(survivor->holdings.view));
    CHECK_OK(feature_commit(survivor->holdings.reservation, NULL));
    CHECK_OK(feature_release(survivor->holdings.view, FEATURE_RELEASE_CONSUMED));
    feature_disconnect(survivor->holdings.feature);
    channel_say(survivor->channel, "done");
    _exit(0); /* without a look for leaks: what the main thread's stack held would be one */
}

static int main_thread_ends(int channel, void *context) {
    static struct survivor survivor;
    pthread_t thread;
    survivor.channel = channel;
    hold(context, &survivor.holdings);
    CHECK(pthread_create(&thread, NULL, go_on, &survivor) == 0, "no thread");
    pthread_exit(NULL);
}

static void a_process_without_its_main_thread(struct world *world) {
    struct payload payload;
    struct process trainer;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    process_fork(&trainer, main_thread_ends, world);
    channel_expect(trainer.channel, "held", DEADLINE_MS);
    WAIT_UNTIL(check_fd_count(trainer.pid) == 0, DEADLINE_MS); /* of the leader: it has exited */
    channel_say(trainer.channel, "check");
    channel_expect(trainer.channel, "done", DEADLINE_MS);
    process_join(&trainer, DEADLINE_MS);
    CHECK_OK(feature_abort(world->producer, FEATURE_BY_ID("reserved"), 1, NULL));
    payload_deinit(&payload);
}

Test(fork_death, a_process_lives_on_without_its_main_thread, .timeout = 120) {
    world_run(1, "[store run]\n", a_process_without_its_main_thread);
}

/* ---- what the child may do ---- */

/* Sockets and arenas among this process's descriptors; -1 = cannot be told. */
static int library_descriptors(void) {
    int found = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300], target[300] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        if (readlink(path, target, sizeof target - 1) > 0)
            found += !strncmp(target, "socket:", 7) || !strncmp(target, "/memfd:", 7);
    }
    closedir(directory);
    return found;
}

static bool is_writable(const void *address) {
    bool writable = false;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL, "no /proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        uintptr_t begin, end;
        char rights[5];
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, rights) == 3 &&
            (uintptr_t)address >= begin && (uintptr_t)address < end)
            writable = rights[1] == 'w';
    }
    fclose(maps);
    return writable;
}

static void refused(int status, const char *call) {
    CHECK(status == FEATURE_E_INVALID, "%s: %s", call, feature_strerror(status));
    CHECK_SAYS("fork");
}
#define REFUSED(call) refused(call, #call)

static bool stop_at_once(void *context, const struct feature_info *info) {
    (void)context, (void)info;
    return false;
}

static void check_refused(const struct holdings *held) {
    struct payload payload;
    struct feature_store *store;
    struct feature_view *view;
    struct feature_reservation *reservation;
    struct feature_info info = FEATURE_INFO_INIT;
    struct feature_health health = {.size = sizeof health};
    const struct feature_store_options options = {.size = sizeof options};
    const struct feature_key *key = by_id("s1");
    uint8_t room[2 * MIB];
    const struct iovec buffer = {room, sizeof room};
    payload_init(&payload, "child", 1, 1000);
    REFUSED(feature_store_open(held->feature, "run", NULL, &store));
    REFUSED(feature_store_create(held->feature, "new", &options));
    REFUSED(feature_store_drop(held->feature, "run"));
    REFUSED(feature_reserve(held->store, &payload.sample, 0, &reservation));
    REFUSED(payload_put(&payload, held->store, 0, NULL));
    REFUSED(feature_get(held->store, key, NULL, &view));
    REFUSED(feature_get_into(held->store, key, NULL, NULL, &buffer, 1, FEATURE_RELEASE_CONSUMED));
    REFUSED(feature_ack(held->store, key, 1, NULL));
    REFUSED(feature_abort(held->store, key, 1, NULL));
    REFUSED(feature_exists(held->store, key));
    REFUSED(feature_stat(held->store, key, &info, NULL));
    REFUSED(feature_list(held->store, NULL, stop_at_once, NULL));
    REFUSED(feature_gc(held->store, 0, NULL));
    REFUSED(feature_drain(held->feature, 1000));
    REFUSED(feature_health(held->feature, &health));
    REFUSED(feature_view_check(held->view));
    payload_deinit(&payload);
}

static struct holdings inherited; /* for the exit handler */

static void disconnect_at_exit(void) {
    feature_disconnect(inherited.feature);
}

struct child_case {
    struct world *world;
    struct holdings held;
};

/* Everything is refused, then given back, then the child connects anew; it ends through exit(). */
static int behave_as_a_child(int channel, void *context) {
    const struct child_case *given = context;
    struct payload payload;
    (void)channel;
    CHECK(library_descriptors() <= 1, "%d descriptors came along", library_descriptors());
    const void *bytes = feature_reservation_data(given->held.reservation, 0);
    CHECK(bytes && !is_writable(bytes), "the child can write into its parent's room");
    CHECK(feature_view_data(given->held.view, 0) != NULL, "a view is not to be read");
    inherited = given->held;
    check_refused(&given->held);
    REFUSED(feature_commit(given->held.reservation, NULL));
    REFUSED(feature_release(given->held.view, FEATURE_RELEASE_CONSUMED));
    feature_store_close(given->held.store);
    CHECK(atexit(disconnect_at_exit) == 0, "no exit handler");

    struct feature *own = cluster_connect(&given->world->cluster, 0);
    struct feature_store *store = cluster_open(own, "run", false);
    payload_init(&payload, "own", 3, MIB);
    CHECK_OK(payload_put(&payload, store, 5000, NULL));
    payload_check_get(&payload, store, by_id("own"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    feature_disconnect(own);
    exit(0);
}

static void a_child_is_refused(struct world *world) {
    struct payload payload;
    struct process child;
    struct child_case given = {.world = world};
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    hold(world, &given.held);
    process_fork(&child, behave_as_a_child, &given);
    process_join(&child, 60000);

    struct store_numbers held = world_home(world);
    CHECK(held.leases == 1 && held.reservations == 1,
          "%" PRIu64 " leases, %" PRIu64 " reservations", held.leases, held.reservations);
    CHECK_OK(feature_view_check(given.held.view));
    CHECK(is_writable(feature_reservation_data(given.held.reservation, 0)), "the parent cannot");
    feature_cancel(given.held.reservation);
    CHECK_OK(feature_release(given.held.view, FEATURE_RELEASE_RETURNED));
    feature_disconnect(given.held.feature);
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
}

Test(fork_death, a_child_is_refused_and_gives_back_nothing_of_its_parents, .timeout = 120) {
    world_run(1, "[store run]\n", a_child_is_refused);
}

/* ---- fork in the middle of everything ---- */

#define THREADS  8u
#define CHILDREN 40u

struct busy {
    struct world *world;
    struct feature *shared;
    struct feature_store *shared_store;
    atomic_bool stop;
    atomic_uint rounds;
    uint32_t next;
};

/* Stores on a handle of its own, samples on one that all share: every lock is busy. */
static void *be_busy(void *context) {
    struct busy *busy = context;
    struct feature *own = cluster_connect(&busy->world->cluster, 0);
    struct payload payload;
    char id[32];
    snprintf(id, sizeof id, "busy%u", atomic_fetch_add(&busy->rounds, 1));
    payload_init(&payload, id, 7, 200000);
    while (!busy->stop) {
        struct feature_store *store = cluster_open(own, "run", false);
        CHECK_OK(payload_put(&payload, busy->shared_store, 20000, NULL));
        payload_check_get(&payload, store, by_id(id), FEATURE_RELEASE_CONSUMED);
        feature_store_close(store);
        atomic_fetch_add(&busy->rounds, 1);
    }
    payload_deinit(&payload);
    feature_disconnect(own);
    return NULL;
}

static int use_and_leave(int channel, void *context) {
    const struct busy *busy = context;
    struct payload payload;
    (void)channel;
    REFUSED(feature_exists(busy->shared_store, by_id("s1")));
    feature_store_close(busy->shared_store);
    feature_disconnect(busy->shared);
    struct feature *own = cluster_connect(&busy->world->cluster, 0);
    struct feature_store *store = cluster_open(own, "run", false);
    payload_init(&payload, "child", 3, 100000);
    CHECK_OK(payload_put(&payload, store, 20000, NULL));
    payload_check_get(&payload, store, by_id("child"), FEATURE_RELEASE_CONSUMED);
    feature_disconnect(own);
    return 0;
}

static int own_descriptors; /* of the test framework */

static void fork_while_busy(struct world *world) {
    struct busy busy = {.world = world};
    pthread_t threads[THREADS];
    busy.shared = cluster_connect(&world->cluster, 0);
    busy.shared_store = cluster_open(busy.shared, "run", false);
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, be_busy, &busy) == 0, "no thread");
    WAIT_UNTIL(busy.rounds > 2 * THREADS, 60000);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        /* Plain fork(): process_fork() would close what came along. */
        pid_t pid = fork();
        if (pid == 0) {
            int came = library_descriptors() - own_descriptors;
            CHECK(came == 0, "%d descriptors came along", came);
            _exit(use_and_leave(-1, &busy));
        }
        int status = 0;
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "no child");
        CHECK(status == 0, "child %u ended with wait status 0x%x", i, status);
    }
    busy.stop = true;
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    feature_disconnect(busy.shared);
}

Test(fork_death, a_fork_while_eight_threads_are_busy, .timeout = 240) {
    own_descriptors = library_descriptors();
    world_run(1, "[store run]\n", fork_while_busy);
}

/* ---- programs ---- */

static void programs_inherit_nothing(struct world *world) {
    struct payload payload;
    struct holdings held;
    payload_init(&payload, "s1", 2, MIB);
    CHECK_OK(payload_put(&payload, world->producer, 0, NULL));
    hold(world, &held);
    /* Exit status 0: no descriptor of it is a socket or a memfd. */
    const char *const argv[] = {"/bin/sh", "-c", "! ls -l /proc/self/fd | grep -E 'socket:|memfd:'",
                                NULL};
    pid_t pid;
    int status;
    CHECK(posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)argv, environ) == 0, "no program");
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "wait status 0x%x", status);
    CHECK_OK(feature_view_check(held.view));
    CHECK(is_writable(feature_reservation_data(held.reservation, 0)), "the parent cannot write");
    CHECK_OK(feature_commit(held.reservation, NULL));
    CHECK_OK(feature_release(held.view, FEATURE_RELEASE_CONSUMED));
    CHECK_OK(feature_abort(held.store, FEATURE_BY_ID("reserved"), 1, NULL));
    feature_disconnect(held.feature);
    payload_deinit(&payload);
}

Test(fork_death, a_spawned_program_inherits_nothing, .timeout = 120) {
    world_run(1, "[store run]\n", programs_inherit_nothing);
}
