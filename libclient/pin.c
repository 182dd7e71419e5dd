/* SPDX-License-Identifier: Apache-2.0
 *
 * Registration of an arena takes the driver about a second for 10 GiB, so a thread of its own does
 * it, which ends afterwards. Copies meanwhile are as correct, and slower.
 *
 *    NONE --fc_pin()--> BUSY --the thread--> DONE
 *                                        --> REFUSED --the next fc_pin() logs why--> TOLD
 *
 * One registration for the whole arena, not one for each piece: CUDA refuses a copy that begins in
 * one registered range and ends in another. The thread holds a reference to the mapping. So if all
 * others let go of it meanwhile, it is unregistered and unmapped by the thread.
 */
#include "pin.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda.h"
#include "error.h"

struct pin_task {
    struct fc_mapping *mapping; /* a reference */
    void *context;
};

static void *pin_run(void *argument) {
    struct pin_task *task = argument;
    struct fc_mapping *mapping = task->mapping;
    int rc = fc_cuda_register(&mapping->cuda, task->context, mapping->base, mapping->bytes,
                              mapping->write);
    if (rc)
        snprintf(mapping->pin_failure, sizeof mapping->pin_failure, "%s", feature_last_error());
    atomic_store_explicit(&mapping->pin, rc ? FC_PIN_REFUSED : FC_PIN_DONE, memory_order_release);
    fc_mapping_unref(mapping);
    free(task);
    return NULL;
}

/* Signals stay with the application's threads. Without a thread the arena stays unregistered. */
static bool pin_start(struct fc_mapping *mapping, void *context) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    struct pin_task *task = malloc(sizeof *task);
    if (!task)
        return false;
    *task = (struct pin_task){.mapping = fc_mapping_ref(mapping), .context = context};
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = !pthread_create(&thread, &attributes, pin_run, task);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!started) {
        fc_mapping_unref(mapping);
        free(task);
    }
    return started;
}

static struct fc_mapping *pin_mapping_of(struct feature_store *store) {
    pthread_mutex_lock(&store->feature->hub.lock);
    struct fc_mapping *mapping = store->mapping ? fc_mapping_ref(store->mapping) : NULL;
    pthread_mutex_unlock(&store->feature->hub.lock);
    return mapping;
}

/* Not with the lock held: the application's function may call back. */
static void pin_tell(const struct feature_store *store, const struct fc_mapping *mapping) {
    const struct feature *feature = store->feature;
    char sentence[512];
    if (!feature->log)
        return;
    snprintf(
        sentence, sizeof sentence,
        "store %s: its arena could not be registered with CUDA, so copies to and from GPUs are "
        "slower: %s",
        store->name, mapping->pin_failure);
    feature->log(feature->log_context, FEATURE_LOG_WARNING, sentence);
}

void fc_pin(struct feature_store *store, const void *device) {
    void *context = store->cuda_unpinned ? NULL : fc_cuda_context(device);
    struct fc_mapping *mapping = context ? pin_mapping_of(store) : NULL;
    if (!mapping)
        return;
    int state = FC_PIN_NONE;
    if (atomic_compare_exchange_strong(&mapping->pin, &state, FC_PIN_BUSY)) {
        if (!pin_start(mapping, context))
            atomic_store(&mapping->pin, FC_PIN_NONE);
    } else if (state == FC_PIN_REFUSED &&
               atomic_compare_exchange_strong(&mapping->pin, &state, FC_PIN_TOLD)) {
        pin_tell(store, mapping);
    }
    fc_mapping_unref(mapping);
}
