/* SPDX-License-Identifier: Apache-2.0
 *
 * Does the configuration fit what this process may use? environment.h says why this is asked before
 * anything is built.
 *
 * Each judgement is a function of the configuration and of one limit, so that tests can ask about
 * limits that their machine does not have. Numbers of what a broker needs are measured; the
 * comments beside them say what they are made of.
 *
 * A limit that certainly is too small refuses the start. One that may be too small warns: whether
 * all stores will ever be full at once, or all sessions there, nobody knows.
 */
#include "environment.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "memory/arena.h"
#include "ops/log.h"

#define MiB (1ull << 20)
/* Measured: a broker without stores takes 32 MiB of address space and 2 MiB of memory; libuv's four
 * threads take 8 MiB of stack each. Buffers of sessions and peers come on top. */
#define BASE_BYTES         (128 * MiB)
#define BASE_ADDRESS_BYTES (96 * MiB)
/* Of the index: at most 1 KiB of memory per sample, taken when it is used, for samples of 64 KiB
 * and more; and 1556 bytes of address space (measured with 1048576 samples). */
#define INDEX_BYTES          1024ull
#define INDEX_ADDRESS_BYTES  1600ull
#define SAMPLE_BYTES_TYPICAL (64ull << 10)
/* Descriptors: a session's socket, its client's pidfd and the lock of its client's program, two of
 * each store's arena, two sockets of each peer in both directions, and what the loop, etcd and the
 * devices take. */
#define FILES_PER_SESSION 3ull
#define FILES_PER_STORE   2u
#define FILES_PER_PEER    4u
#define POOL_THREADS      4u /* of libuv, if UV_THREADPOOL_SIZE does not say otherwise */
#define FILES_BESIDE      64u

/* Of one store: what is at home here, and what lands from other nodes. */
static uint64_t environment_arena_of(const struct config_store *store) {
    return store->max_resident_bytes + store->landing_bytes;
}

static uint64_t environment_index_bytes(const struct config_store *store) {
    uint64_t samples = environment_arena_of(store) / SAMPLE_BYTES_TYPICAL;
    return INDEX_BYTES * (samples < store->max_samples ? samples : store->max_samples);
}

/* Stores that clients create at run time are not in the file and are not counted; each asks for
 * room when it is made (room_for_arenas in daemon.c). */
void environment_need(const struct config *config, struct environment_need *out) {
    *out = (struct environment_need){.overhead_bytes = BASE_BYTES,
                                     .address_bytes = BASE_ADDRESS_BYTES};
    for (size_t i = 0; i < config->store_count; i++) {
        const struct config_store *store = &config->stores[i];
        out->arena_bytes += environment_arena_of(store);
        out->overhead_bytes += environment_index_bytes(store);
        out->address_bytes +=
            environment_arena_of(store) + INDEX_ADDRESS_BYTES * store->max_samples;
    }
}

/* ---- memory ---- */

static const char how_to_fit[] =
    "raise it (systemd: MemoryMax=, Kubernetes: resources.limits.memory, docker: --memory) or "
    "lower max_resident_bytes and landing_bytes of the stores";

/* %.300s: the path of a control group can be very long, and the sentence must stay one. */
static void environment_say_memory(char *sentence, const struct cgroup_limit *limit,
                                   const struct environment_need *need, const char *what_then) {
    char limit_text[16], arenas[16], beside[16], all[16];
    snprintf(
        sentence, ENVIRONMENT_SENTENCE_BYTES,
        "memory limit: the cgroup of this process may use %s (%.300s); its stores need %s when "
        "they are full (max_resident_bytes + landing_bytes of each), the broker about %s "
        "besides, together %s%s%s",
        log_bytes(limit->bytes, limit_text), limit->file, log_bytes(need->arena_bytes, arenas),
        log_bytes(need->overhead_bytes, beside),
        log_bytes(need->arena_bytes + need->overhead_bytes, all), what_then,
        *what_then ? how_to_fit : "");
}

/* Huge pages come from a pool of their own, with a limit of their own, and a page that cannot be
 * had is SIGBUS at the first touch. */
static enum environment_verdict environment_judge_huge_pages(const struct config *config,
                                                             const struct cgroup_limit *limit,
                                                             const struct environment_need *need,
                                                             char *sentence) {
    char limit_text[16], arenas[16];
    if (config->hugepages == ARENA_HUGEPAGES_OFF || need->arena_bytes <= limit->bytes)
        return ENVIRONMENT_FITS;
    snprintf(sentence, ENVIRONMENT_SENTENCE_BYTES,
             "memory limit: the cgroup of this process may use %s of huge pages (%.300s); the "
             "stores need %s: raise it, lower max_resident_bytes and landing_bytes of the stores, "
             "or set [memory] hugepages = off",
             log_bytes(limit->bytes, limit_text), limit->file,
             log_bytes(need->arena_bytes, arenas));
    return ENVIRONMENT_TOO_SMALL;
}

/* From the hardest limit to the softest: what kills, what may kill, what slows down. */
enum environment_verdict environment_judge_memory(const struct config *config,
                                                  const struct cgroup_limits *limits,
                                                  char *sentence) {
    struct environment_need need;
    *sentence = '\0';
    environment_need(config, &need);
    if (environment_judge_huge_pages(config, &limits->huge_pages, &need, sentence) !=
        ENVIRONMENT_FITS)
        return ENVIRONMENT_TOO_SMALL;
    if (config->hugepages == ARENA_HUGEPAGES_REQUIRE)
        need.arena_bytes = 0; /* huge pages are not charged to it */
    const uint64_t all_bytes = need.arena_bytes + need.overhead_bytes;
    if (need.arena_bytes > limits->memory.bytes && config->hugepages == ARENA_HUGEPAGES_OFF) {
        environment_say_memory(sentence, &limits->memory, &need,
                               ": the kernel would kill the broker as they fill; ");
        return ENVIRONMENT_TOO_SMALL;
    }
    if (all_bytes > limits->memory.bytes) {
        environment_say_memory(sentence, &limits->memory, &need,
                               ": the kernel may kill the broker when they are full; ");
        return ENVIRONMENT_TIGHT;
    }
    if (all_bytes > limits->slow.bytes) {
        environment_say_memory(sentence, &limits->slow, &need,
                               ": beyond it the kernel slows everything down (MemoryHigh=); ");
        return ENVIRONMENT_TIGHT;
    }
    if (limits->memory.bytes != CGROUP_NO_LIMIT)
        environment_say_memory(sentence, &limits->memory, &need, "");
    return ENVIRONMENT_FITS;
}

/* With huge pages the limit for small ones says nothing about arenas. */
uint64_t environment_memory_limit(const struct config *config) {
    struct cgroup_limits limits;
    cgroup_limits_read("/proc/self", "", &limits);
    return config->hugepages == ARENA_HUGEPAGES_OFF ? limits.memory.bytes : CGROUP_NO_LIMIT;
}

int64_t environment_room_for_arenas(const struct config *config) {
    struct environment_need need;
    uint64_t limit_bytes = environment_memory_limit(config);
    environment_need(config, &need);
    return limit_bytes > INT64_MAX ? INT64_MAX : (int64_t)(limit_bytes - need.overhead_bytes);
}

/* ---- limits of the process ---- */

enum environment_verdict environment_judge_address_space(const struct config *config,
                                                         uint64_t limit_bytes, char *sentence) {
    struct environment_need need;
    char limit_text[16], need_text[16];
    *sentence = '\0';
    environment_need(config, &need);
    if (need.address_bytes <= limit_bytes)
        return ENVIRONMENT_FITS;
    snprintf(sentence, ENVIRONMENT_SENTENCE_BYTES,
             "the limit of address space (RLIMIT_AS) is %s; the broker needs %s for its stores and "
             "their index: set LimitAS=infinity in the unit, or ulimit -v unlimited before the "
             "start, or lower max_resident_bytes, landing_bytes and max_samples of the stores",
             log_bytes(limit_bytes, limit_text), log_bytes(need.address_bytes, need_text));
    return ENVIRONMENT_TOO_SMALL;
}

/* Only a warning: sessions come and go, and one that finds no descriptor is refused with a
 * sentence. */
enum environment_verdict environment_judge_files(const struct config *config, uint64_t limit,
                                                 char *sentence) {
    uint64_t need = FILES_PER_SESSION * config->max_sessions +
                    (uint64_t)FILES_PER_STORE * config->max_stores +
                    FILES_PER_PEER * config->peer_count + FILES_BESIDE;
    *sentence = '\0';
    if (need <= limit)
        return ENVIRONMENT_FITS;
    snprintf(sentence, ENVIRONMENT_SENTENCE_BYTES,
             "the limit of open files (RLIMIT_NOFILE) is %" PRIu64
             "; [local] max_sessions = %" PRIu32 " and [stores] max_stores = %" PRIu32
             " may take %" PRIu64 ": clients will be refused before max_sessions is reached; "
             "set LimitNOFILE=%" PRIu64 " in the unit, or ulimit -n before the start",
             limit, config->max_sessions, config->max_stores, need, need);
    return ENVIRONMENT_TIGHT;
}

/* RLIMIT_FSIZE holds for memfds, too: an arena that is larger cannot be made. */
enum environment_verdict environment_judge_file_size(const struct config *config,
                                                     uint64_t limit_bytes, char *sentence) {
    char limit_text[16], need_text[16];
    *sentence = '\0';
    for (size_t i = 0; i < config->store_count; i++) {
        const struct config_store *store = &config->stores[i];
        if (environment_arena_of(store) <= limit_bytes)
            continue;
        snprintf(sentence, ENVIRONMENT_SENTENCE_BYTES,
                 "the limit of the size of files (RLIMIT_FSIZE) is %s; it holds for shared memory "
                 "too, and store %s needs %s: set LimitFSIZE=infinity in the unit, or ulimit -f "
                 "unlimited before the start",
                 log_bytes(limit_bytes, limit_text), store->name,
                 log_bytes(environment_arena_of(store), need_text));
        return ENVIRONMENT_TOO_SMALL;
    }
    return ENVIRONMENT_FITS;
}

/* libuv's pool aborts the process when it gets no thread, and does so at its first use, long after
 * the start. So as many threads as it has are tried out, all at the same time. */
static void *environment_thread_wait(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

static enum environment_verdict environment_try_threads(char *sentence) {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[POOL_THREADS];
    uint32_t count = 0;
    int error = 0;
    *sentence = '\0';
    pthread_mutex_lock(&gate);
    while (count < POOL_THREADS && error == 0) {
        error = pthread_create(&threads[count], NULL, environment_thread_wait, &gate);
        count += error == 0;
    }
    pthread_mutex_unlock(&gate);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    if (error == 0)
        return ENVIRONMENT_FITS;
    snprintf(sentence, ENVIRONMENT_SENTENCE_BYTES,
             "%" PRIu32 " of %u threads can be had (%s): raise TasksMax= of the unit, the pids "
             "limit of the container, or ulimit -u and ulimit -v",
             count, POOL_THREADS, strerror(error));
    return ENVIRONMENT_TOO_SMALL;
}

static uint64_t environment_limit_of(int resource) {
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

/* The soft limit is 1024 for the sake of programs that use select(); we do not. */
static void environment_raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit); /* if not, the judgement below says what is missing */
    }
}

/* All judgements are made, and all that is worth knowing is said, before the first one that is too
 * small refuses: whoever has to raise limits raises them all at once. */
int environment_check(const struct config *config, void (*say)(bool warning, const char *sentence),
                      char *why, size_t why_bytes) {
    char sentences[5][ENVIRONMENT_SENTENCE_BYTES];
    struct cgroup_limits limits;
    environment_raise_file_limit();
    cgroup_limits_read("/proc/self", "", &limits);
    const enum environment_verdict verdicts[5] = {
        environment_judge_memory(config, &limits, sentences[0]),
        environment_judge_address_space(config, environment_limit_of(RLIMIT_AS), sentences[1]),
        environment_judge_files(config, environment_limit_of(RLIMIT_NOFILE), sentences[2]),
        environment_judge_file_size(config, environment_limit_of(RLIMIT_FSIZE), sentences[3]),
        environment_try_threads(sentences[4]),
    };
    int result = 0;
    for (size_t i = 0; i < 5; i++) {
        if (verdicts[i] != ENVIRONMENT_TOO_SMALL && *sentences[i])
            say(verdicts[i] == ENVIRONMENT_TIGHT, sentences[i]);
        if (verdicts[i] == ENVIRONMENT_TOO_SMALL && result == 0) {
            snprintf(why, why_bytes, "%s", sentences[i]);
            result = -ENOMEM;
        }
    }
    return result;
}
