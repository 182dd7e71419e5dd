/* SPDX-License-Identifier: Apache-2.0
 *
 * What this process lacks (descriptors, address space, room in the socket, time between two
 * signals) fails one call with a sentence that names the limit. It never ends the connection, on
 * which every lease of the handle hangs. A fake broker counts its connections.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/checks.h"
#include "unit/client_fixture.h"

#define FDS_MAX 64u

/* The handle with a lease, and what must still be true of both afterwards. */
struct leased {
    struct fixture *f;
    struct feature_ref *ref;
    struct feature_view *view;
};

static void leased_init(struct leased *l) {
    l->f = fixture_new();
    l->ref = put_two_tensors(l->f->store, "s", 5000, 1);
    OK(feature_get(l->f->store, FEATURE_BY_REF(l->ref), NULL, &l->view));
}

static void leased_check_and_free(struct leased *l) {
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(l->f->feature, &health));
    OK(feature_view_check(l->view));
    cr_expect_eq(l->f->broker.connections, 1, "the connection was lost");
    OK(feature_release(l->view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(l->ref);
    fixture_free(l->f);
}

/* ---- descriptors ---- */

/* Fills the table; the limit before, to be put back. */
static struct rlimit fill_table(void) {
    struct rlimit before;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit low = {.rlim_cur = FDS_MAX, .rlim_max = before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
        ;
    return before;
}

Test(client_local_error, a_full_descriptor_table_fails_the_open_alone) {
    struct leased l;
    struct feature_store *second;
    leased_init(&l);
    struct rlimit before = fill_table();
    for (int i = 0; i < 3; i++) {
        uint64_t begun_ms = check_now_ms();
        FAILS(FEATURE_E_FULL, feature_store_open(l.f->feature, FAKE_STORE, NULL, &second));
        SAYS("open files 64 of 64");
        SAYS("RLIMIT_NOFILE");
        SAYS(FAKE_STORE);
        cr_expect_lt(check_now_ms() - begun_ms, 5000, "it was tried again and again");
    }
    /* What was opened by that is closed again; everything else goes on. */
    cr_assert(fake_broker_await(&l.f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, 3));
    feature_ref_free(put_two_tensors(l.f->store, "t", 200000, 2));
    setrlimit(RLIMIT_NOFILE, &before);
    OK(feature_store_open(l.f->feature, FAKE_STORE, NULL, &second));
    feature_store_close(second);
    leased_check_and_free(&l);
}

Test(client_local_error, a_full_descriptor_table_fails_the_connect_at_once) {
    struct leased l;
    struct feature *feature;
    leased_init(&l);
    struct feature_options options = {
        .size = sizeof options, .socket_path = l.f->broker.path, .connect_timeout_ms = 60000};
    struct rlimit before = fill_table();
    FAILS(FEATURE_E_FULL, feature_connect(&options, &feature));
    SAYS("open files 64 of 64");
    setrlimit(RLIMIT_NOFILE, &before);
    leased_check_and_free(&l);
}

/* poll() refuses then, and a call must not fail for it. */
Test(client_local_error, a_descriptor_limit_of_zero_fails_no_request) {
    struct leased l;
    struct rlimit before;
    leased_init(&l);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    pthread_mutex_lock(&l.f->broker.lock); /* its thread polls too: not now */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 1};
    struct feature_view *view;
    FAILS(FEATURE_E_TIMEOUT, feature_get(l.f->store, FEATURE_BY_REF(l.ref), &options, &view));
    setrlimit(RLIMIT_NOFILE, &before);
    pthread_mutex_unlock(&l.f->broker.lock);
    leased_check_and_free(&l);
}

/* ---- address space ---- */

#ifndef __SANITIZE_ADDRESS__
/* To so much more than is mapped now; the limit before, to be put back. */
static void limit_address_space(uint64_t more_bytes, struct rlimit *before) {
    char text[64] = "";
    int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    cr_assert_gt(read(statm, text, sizeof text - 1), 0);
    close(statm);
    cr_assert_eq(getrlimit(RLIMIT_AS, before), 0);
    const struct rlimit low = {
        .rlim_cur = strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) + more_bytes,
        .rlim_max = before->rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_AS, &low), 0);
}

/* The thread that sends releases cannot be started: they are sent by the one that says them. */
Test(client_local_error, no_room_for_a_thread_delays_no_release) {
    struct leased l;
    struct feature_view *view;
    struct rlimit before;
    leased_init(&l);
    OK(feature_get(l.f->store, FEATURE_BY_REF(l.ref), NULL, &view));
    limit_address_space(1u << 20, &before); /* a thread's stack takes more */
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    cr_expect(fake_broker_await(&l.f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    setrlimit(RLIMIT_AS, &before);
    leased_check_and_free(&l);
}

Test(client_local_error, no_address_space_for_an_arena_fails_the_open_alone) {
    struct leased l;
    struct feature_store *second;
    struct feature_open_options read_only = {.size = sizeof read_only, .read_only = true};
    struct rlimit before;
    leased_init(&l);
    limit_address_space(FAKE_ARENA_BYTES / 2, &before);
    FAILS(FEATURE_E_FULL, feature_store_open(l.f->feature, FAKE_STORE, &read_only, &second));
    SAYS("16.0 MiB");
    SAYS("RLIMIT_AS");
    SAYS("ulimit -v");
    setrlimit(RLIMIT_AS, &before);
    cr_assert(fake_broker_await(&l.f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, 1));
    OK(feature_store_open(l.f->feature, FAKE_STORE, &read_only, &second));
    feature_store_close(second);
    leased_check_and_free(&l);
}
#endif

/* ---- the socket ---- */

/* The broker reads nothing for a while, and stores are closed meanwhile, each with a release to be
 * said: all of it waits, and arrives. */
Test(client_local_error, a_full_socket_delays_releases_and_closes) {
    enum { STORES = 40 };
    struct leased l;
    struct feature_store *stores[STORES];
    struct feature_view *views[STORES];
    leased_init(&l);
    for (int i = 0; i < STORES; i++) {
        OK(feature_store_open(l.f->feature, FAKE_STORE, NULL, &stores[i]));
        OK(feature_get(stores[i], FEATURE_BY_REF(l.ref), NULL, &views[i]));
    }
    pthread_mutex_lock(&l.f->broker.lock);
    for (int i = 0; i < STORES; i++) {
        OK(feature_release(views[i], FEATURE_RELEASE_RETURNED));
        feature_store_close(stores[i]);
    }
    pthread_mutex_unlock(&l.f->broker.lock);
    cr_assert(fake_broker_await(&l.f->broker, FB__CLIENT_REQUEST__OP_STORE_CLOSE, STORES));
    cr_expect_eq(fake_broker_count(&l.f->broker, FB__CLIENT_REQUEST__OP_RELEASE), STORES);
    leased_check_and_free(&l);
}

/* A request that was given up on is answered later: what it granted is handed back. */
static enum fake_verdict hold_gets(struct fake_broker *broker, const struct fake_request *request) {
    (void)broker;
    return request->message->op_case == FB__CLIENT_REQUEST__OP_GET ? FAKE_HOLD : FAKE_ANSWER;
}

Test(client_local_error, what_was_given_up_is_handed_back) {
    struct leased l;
    struct feature_view *view;
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = 1};
    struct feature_health health = {.size = sizeof health};
    leased_init(&l);
    l.f->broker.on_request = hold_gets;
    FAILS(FEATURE_E_TIMEOUT, feature_get(l.f->store, FEATURE_BY_REF(l.ref), &options, &view));
    l.f->broker.on_request = NULL;
    fake_broker_answer_held(&l.f->broker);
    OK(feature_health(l.f->feature, &health));
    cr_assert(fake_broker_await(&l.f->broker, FB__CLIENT_REQUEST__OP_RELEASE, 1));
    leased_check_and_free(&l);
}

Test(client_local_error, a_buffer_that_cannot_be_read_is_the_callers_fault) {
    struct leased l;
    struct two_tensors s;
    leased_init(&l);
    struct feature_store *unchecked;
    l.f->broker.checksum = FB__CHECKSUM_POLICY__NEVER; /* nobody but sendmsg() looks at it */
    OK(feature_store_open(l.f->feature, FAKE_STORE, NULL, &unchecked));
    two_tensors_init(&s, "bad", 100, 1);
    void *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(nothing, MAP_FAILED);
    s.data[0].iov_base = nothing;
    FAILS(FEATURE_E_INVALID, feature_put(unchecked, &s.sample, s.data, 1000, NULL));
    SAYS("cannot be read");
    munmap(nothing, 4096);
    two_tensors_deinit(&s);
    feature_store_close(unchecked);
    leased_check_and_free(&l);
}

/* ---- signals ---- */

static void nothing_to_do(int signal_number) {
    (void)signal_number;
}

Test(client_local_error, signals_interrupt_nothing) {
    struct leased l;
    struct sigaction action = {.sa_handler = nothing_to_do}; /* without SA_RESTART */
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL); /* not for the broker's thread */
    leased_init(&l);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    const struct itimerval often = {{.tv_usec = 200}, {.tv_usec = 200}};
    cr_assert_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; i < 300; i++) {
        struct feature_view *view;
        struct feature_store *store;
        OK(feature_get(l.f->store, FEATURE_BY_REF(l.ref), NULL, &view));
        OK(feature_release(view, FEATURE_RELEASE_RETURNED));
        OK(feature_store_open(l.f->feature, FAKE_STORE, NULL, &store));
        feature_store_close(store);
    }
    const struct itimerval never = {0};
    setitimer(ITIMER_REAL, &never, NULL);
    leased_check_and_free(&l);
}

/* ---- LOST is said of a broker that is gone ---- */

Test(client_local_error, a_lease_that_a_living_broker_ended_is_not_lost_with_it) {
    struct fixture *f = fixture_new();
    struct feature_ref *ref = put_two_tensors(f->store, "s", 5000, 1);
    struct feature_view *view;
    OK(feature_get(f->store, FEATURE_BY_REF(ref), NULL, &view));
    fake_broker_drop_sessions(&f->broker);
    FAILS(FEATURE_E_UNAVAILABLE, feature_view_check(view));
    SAYS("get it again");
    fake_broker_stop(&f->broker);
    FAILS(FEATURE_E_LOST, feature_view_check(view));
    fake_broker_start(&f->broker);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    fixture_free(f);
}
