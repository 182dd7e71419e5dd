/* SPDX-License-Identifier: Apache-2.0
 *
 * Touches the memory of stores in advance, on libuv's pool, slice by slice. The kernel clears each
 * page at its first touch (20 us of each 4 KiB page at the 0.2 GB/s measured), which a put would
 * otherwise have to wait for.
 *
 * A queue of arenas; the first one's next slice is `running` on the pool or about to be. The mutex
 * guards only `touching`, which is true from the moment a slice is handed to the pool until it is
 * done, so that prefault_remove() can wait for it.
 */
#include "prefault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ops/log.h"

/* At the 0.2 GB/s of a first touch this is about 80 ms, the longest that prefault_remove() can
 * wait. */
#define SLICE_BYTES (16ull << 20)

struct job {
    TAILQ_ENTRY(job) link;
    const struct arena *arena;
    char name[80];
    uint64_t done_bytes;
};

struct prefault {
    uv_loop_t *loop;
    prefault_progress_fn progress;
    void *owner;
    TAILQ_HEAD(, job) jobs;
    uv_work_t work;
    bool running, freeing;
    uv_mutex_t mutex;
    uv_cond_t idle;
    bool touching;
    struct arena slice_arena; /* of the slice under way: copied, for the pool thread */
    const struct arena *slice_of;
    uint64_t slice_offset, slice_bytes;
    int result;
};

static void prefault_start(struct prefault *prefault);

/* On the pool's thread. It uses a copy of the arena's struct and reads nothing that the loop may
 * change. */
static void prefault_touch(uv_work_t *work) {
    struct prefault *prefault = work->data;
    prefault->result =
        arena_prefault(&prefault->slice_arena, prefault->slice_offset, prefault->slice_bytes);
    uv_mutex_lock(&prefault->mutex);
    prefault->touching = false;
    uv_cond_signal(&prefault->idle);
    uv_mutex_unlock(&prefault->mutex);
}

/* All touched, or given up, or the arena is going. */
static void prefault_finish_job(struct prefault *prefault, struct job *job) {
    TAILQ_REMOVE(&prefault->jobs, job, link);
    free(job);
}

/* Back on the loop's thread. A slice of an arena that was removed while it was touched tells
 * nobody. */
static void prefault_touched(uv_work_t *work, int status) {
    struct prefault *prefault = work->data;
    struct job *job = TAILQ_FIRST(&prefault->jobs);
    prefault->running = false;
    if (prefault->freeing) {
        free(prefault);
        return;
    }
    bool ours =
        job && job->arena == prefault->slice_of && status == 0; /* else it was removed meanwhile */
    if (ours && prefault->result < 0) {
        log_warning(
            "store %s: prefault stopped at %llu MiB: %s; first puts into the rest will be slow",
            job->name, (unsigned long long)(job->done_bytes >> 20), strerror(-prefault->result));
        prefault_finish_job(prefault, job);
    } else if (ours) {
        job->done_bytes += prefault->slice_bytes;
        prefault->progress(prefault->owner, job->arena, job->done_bytes);
        if (job->done_bytes == job->arena->bytes)
            prefault_finish_job(prefault, job);
    }
    prefault_start(prefault);
}

/* One slice at a time, for all arenas together: the pool has four threads, and others need them. */
static void prefault_start(struct prefault *prefault) {
    struct job *job = TAILQ_FIRST(&prefault->jobs);
    if (!job || prefault->running)
        return;
    uint64_t left_bytes = job->arena->bytes - job->done_bytes;
    prefault->slice_arena = *job->arena;
    prefault->slice_of = job->arena;
    prefault->slice_offset = job->done_bytes;
    prefault->slice_bytes = left_bytes < SLICE_BYTES ? left_bytes : SLICE_BYTES;
    prefault->touching = prefault->running = true;
    prefault->work.data = prefault;
    if (uv_queue_work(prefault->loop, &prefault->work, prefault_touch, prefault_touched) < 0)
        prefault->touching = prefault->running = false;
}

int prefault_new(uv_loop_t *loop, prefault_progress_fn progress, void *owner,
                 struct prefault **out) {
    struct prefault *prefault = calloc(1, sizeof *prefault);
    if (!prefault)
        return -ENOMEM;
    prefault->loop = loop;
    prefault->progress = progress;
    prefault->owner = owner;
    TAILQ_INIT(&prefault->jobs);
    uv_mutex_init(&prefault->mutex);
    uv_cond_init(&prefault->idle);
    *out = prefault;
    return 0;
}

/* Not prefaulted is slower at first, and nothing worse; so lack of memory is a warning. */
void prefault_add(struct prefault *prefault, const char *name, const struct arena *arena) {
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        log_warning("store %s: not prefaulted: out of memory", name);
        return;
    }
    job->arena = arena;
    strncpy(job->name, name, sizeof job->name - 1);
    TAILQ_INSERT_TAIL(&prefault->jobs, job, link);
    prefault_start(prefault);
}

/* The caller unmaps the arena after this, so that no thread may be inside it: a slice that is under
 * way is waited for. slice_of NULL tells prefault_touched() that nobody wants to hear of it any
 * more. */
void prefault_remove(struct prefault *prefault, const struct arena *arena) {
    struct job *job, *next;
    for (job = TAILQ_FIRST(&prefault->jobs); job; job = next) {
        next = TAILQ_NEXT(job, link);
        if (job->arena == arena)
            prefault_finish_job(prefault, job);
    }
    uv_mutex_lock(&prefault->mutex);
    while (prefault->slice_of == arena && prefault->touching)
        uv_cond_wait(&prefault->idle, &prefault->mutex);
    prefault->slice_of = NULL;
    uv_mutex_unlock(&prefault->mutex);
}

/* The pool's thread may still be at work: it cannot be stopped, and its callback frees the rest. */
void prefault_free(struct prefault *prefault) {
    if (!prefault)
        return;
    while (!TAILQ_EMPTY(&prefault->jobs))
        prefault_finish_job(prefault, TAILQ_FIRST(&prefault->jobs));
    prefault->freeing = true;
    if (!prefault->running)
        free(prefault); /* else prefault_touched() frees it */
}
