/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets for somebody who does not wait: started here, worked on by queue.c, and finished here.
 *
 *    feature_get_start() --> under way --all its parts have ended--> feature_get_finish() --> freed
 *                               ^                                        |
 *                               +---- a sample did not match its checksum, for the first time
 *
 * The keys are cut into parts, each of them one request to the broker (struct fc_get, as for a get
 * that waits). What the answers mean is looked at in feature_get_finish(), by the thread that calls
 * it and without the lock, since checking a large sample takes a while. A sample that does not
 * match is asked for once more, in a part of its own; the views of the others stay with the request
 * meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "get.h"
#include "key.h"
#include "limit.h"
#include "proto/container.h"
#include "queue.h"
#include "sized.h"
#include "view.h"

struct get_part {
    struct get_part *next;
    struct fc_entry entry;
    struct fc_get get;
};

struct get_request {
    struct feature_request base;
    struct feature_store *store; /* a reference */
    struct feature_get_options options;
    struct fc_first_error failure;
    struct get_part *parts; /* not looked at yet */
    size_t count;
    struct get_item {
        struct feature_get_item item; /* owns its key, and its view */
        bool again;                   /* it has been asked for once more */
    } items[];
};

static struct get_request *get_start_of(struct feature_request *request) {
    return container_of(request, struct get_request, base);
}

/* ---- parts ---- */

/* One block: the part, and behind it the arrays of its get. NULL when out of memory. */
static struct get_part *get_start_new_part(struct get_request *request,
                                           struct feature_get_item *const *items, size_t count) {
    struct get_part *part = calloc(1, sizeof *part);
    struct fc_get *get = part ? &part->get : NULL;
    if (!part)
        return NULL;
    get->options = &request->options;
    get->count = count;
    get->items = calloc(count, sizeof *get->items);
    get->early = calloc(count, sizeof *get->early);
    get->messages = calloc(count, sizeof *get->messages);
    get->pointers = calloc(count, sizeof *get->pointers);
    if (get->items && get->early && get->messages && get->pointers) {
        memcpy(get->items, items, count * sizeof *get->items);
        fc_get_make(get, request->store);
        part->entry.request = &get->request;
        part->entry.owner = &request->base;
        part->entry.bound_ns = fc_get_bound_ns(&request->options);
        return part;
    }
    free(get->items);
    free(get->early);
    free(get->messages);
    free(get->pointers);
    free(part);
    return NULL;
}

/* Whatever state it is in: an answer that was not looked at goes with it, but not the leases that
 * it grants, which fc_get_give_back() returns. */
static void get_start_free_part(struct get_part *part) {
    struct fc_get *get = &part->get;
    fc_get_deinit(get);
    free(get->items);
    free(get->early);
    free(get->messages);
    free(get->pointers);
    free(part);
}

/* ---- start ---- */

/* What the caller's item points to is copied. */
static int get_start_copy_key(struct feature_get_item *to, const struct feature_get_item *from) {
    *to = (struct feature_get_item){.size = sizeof *to};
    if (from->ref)
        to->ref = feature_ref_dup(from->ref);
    else
        to->sample_id = strdup(from->sample_id);
    return to->ref || to->sample_id ? FEATURE_OK : fc_fail_memory("start a get");
}

/* Frees the request with its keys, and the views that nobody has taken. */
static void get_start_free(struct get_request *request) {
    struct feature_store *store = request->store;
    const bool forked = fc_connection_forked(store->feature);
    for (size_t i = 0; i < request->count; i++) {
        struct feature_get_item *item = &request->items[i].item;
        if (item->view && !forked)
            fc_view_leave(item->view, false);
        else
            (void)feature_release(item->view, FEATURE_RELEASE_RETURNED); /* frees it */
        feature_ref_free((struct feature_ref *)item->ref);
        free((char *)item->sample_id);
    }
    while (request->parts) {
        struct get_part *part = request->parts;
        request->parts = part->next;
        get_start_free_part(part);
    }
    free(request);
    fc_store_unref(store);
}

/* A key that is wrong by itself has a status at once and is not sent. */
static int get_start_copy_keys(struct get_request *request, const struct feature_get_item *items,
                               struct feature_get_item **to_send, size_t *to_send_out) {
    size_t count = 0;
    for (size_t i = 0; i < request->count; i++) {
        const struct feature_get_item *from = fc_sized_at(items, i);
        struct feature_get_item *item = &request->items[i].item;
        int status = fc_get_check_item(request->store, from);
        fc_first_error_note(&request->failure, status);
        item->size = sizeof *item;
        if (!status) {
            int rc = get_start_copy_key(item, from);
            if (rc)
                return rc;
            to_send[count++] = item;
        }
        item->status = status;
    }
    *to_send_out = count;
    return FEATURE_OK;
}

/* Cuts what is to be sent into parts, in order. */
static int get_start_make_parts(struct get_request *request, struct feature_get_item **to_send,
                                size_t count) {
    const struct fc_limits limits = fc_connection_limits(request->store->feature);
    struct get_part **end = &request->parts;
    for (size_t first = 0, fit; first < count; first += fit) {
        fit = fc_get_fit(to_send + first, count - first, limits);
        struct get_part *part = get_start_new_part(request, to_send + first, fit);
        if (!part)
            return fc_fail_memory("start a get");
        *end = part;
        end = &part->next;
    }
    return FEATURE_OK;
}

/* Everything that can fail for want of memory is done here, before the queue knows of the request.
 */
static int get_start_new(struct feature_store *store, const struct feature_get_item *items,
                         size_t count, const struct feature_get_options *options,
                         struct get_request **out) {
    size_t to_send_count = 0;
    struct get_request *request = calloc(1, sizeof *request + count * sizeof *request->items);
    struct feature_get_item **to_send = calloc(count, sizeof(struct feature_get_item *));
    if (!request || !to_send) {
        free(request);
        free(to_send);
        return fc_fail_memory("start a get");
    }
    fc_store_ref(store);
    request->store = store;
    request->options = *options;
    request->count = count;
    int rc = get_start_copy_keys(request, items, to_send, &to_send_count);
    if (!rc)
        rc = get_start_make_parts(request, to_send, to_send_count);
    free(to_send);
    if (rc)
        get_start_free(request);
    else
        *out = request;
    return rc;
}

static void get_start_cancel(struct feature_request *base);

int feature_get_start(struct feature_queue *queue, struct feature_store *store,
                      const struct feature_get_item *items, size_t count,
                      const struct feature_get_options *options, void *context,
                      struct feature_request **out) {
    struct feature_get_options known;
    struct get_request *request = NULL;
    FC_NEEDS(queue);
    FC_NEEDS(items);
    FC_NEEDS(out);
    if (!count)
        return fc_fail(FEATURE_E_INVALID, "%s: no key was given: count is 0", __func__);
    int rc = fc_store_check(store);
    if (!rc && store->feature != fc_queue_feature(queue))
        rc = fc_fail(FEATURE_E_INVALID, "%s: store %s is of another connection than the queue",
                     __func__, store->name);
    if (!rc)
        rc = fc_sized_check(items, count, sizeof *items,
                            FC_SIZED_UNTIL(struct feature_get_item, view), "feature_get_item");
    if (!rc)
        rc = fc_get_read_options(options, &known);
    if (!rc)
        rc = get_start_new(store, items, count, &known, &request);
    if (rc)
        return rc;
    request->base.context = context;
    request->base.cancel = get_start_cancel;
    pthread_mutex_lock(&store->feature->hub.lock);
    fc_queue_enter(queue, &request->base);
    for (struct get_part *part = request->parts; part; part = part->next)
        fc_queue_add(queue, &part->entry);
    *out = &request->base; /* before another thread can be given it */
    fc_queue_go(queue);
    fc_connection_unlock(store->feature);
    return FEATURE_OK;
}

/* ---- cancel ---- */

/* In a forked child only the memory is freed, and only if the lock can be had: the links, and what
 * is in flight on them, are the parent's. */
static void get_start_cancel(struct feature_request *base) {
    struct get_request *request = get_start_of(base);
    struct feature *feature = request->store->feature;
    const bool forked = fc_connection_forked(feature);
    if (!fc_connection_lock(feature))
        return;
    for (struct get_part *part = request->parts; part && !forked; part = part->next)
        fc_queue_drop(&part->entry);
    bool free_now = fc_queue_leave(base);
    fc_connection_unlock(feature);
    if (!free_now)
        return;
    for (struct get_part *part = request->parts; part && !forked; part = part->next)
        if (!part->entry.outcome.error)
            fc_get_give_back(&part->get);
    get_start_free(request);
}

/* ---- finish ---- */

/* Looks at what has come. The parts are freed one by one, as each may hold a large answer. What is
 * corrupt for the second time has failed. */
static void get_start_take_parts(struct get_request *request) {
    while (request->parts) {
        struct get_part *part = request->parts;
        struct feature_get_item *first = part->get.items[0];
        request->parts = part->next;
        fc_get_take(&part->get, fc_first_error_raise(&part->entry.outcome), &request->failure);
        if (container_of(first, struct get_item, item)->again)
            fc_first_error_note(&request->failure, first->status);
        get_start_free_part(part);
    }
}

/* Those that are corrupt, for the first time, each in a part of its own. True: there are some. */
static bool get_start_ask_again(struct get_request *request) {
    for (size_t i = 0; i < request->count; i++) {
        struct feature_get_item *item = &request->items[i].item;
        struct get_part *part = NULL;
        if (item->status != FEATURE_E_CORRUPT || request->items[i].again)
            continue;
        part = get_start_new_part(request, &item, 1);
        if (!part) {
            item->status = fc_fail_memory("get once more what was corrupt");
            fc_first_error_note(&request->failure, item->status);
            continue;
        }
        request->items[i].again = true;
        part->next = request->parts;
        request->parts = part;
    }
    return request->parts;
}

/* The queue is given the new parts, and the request is under way again as if it had just been
 * started. Its deadline begins anew, as that of a get that waits does. */
static void get_start_again(struct get_request *request) {
    struct feature_queue *queue = request->base.queue;
    pthread_mutex_lock(&request->store->feature->hub.lock);
    for (struct get_part *part = request->parts; part; part = part->next)
        fc_queue_add(queue, &part->entry);
    fc_queue_go(queue);
    fc_connection_unlock(request->store->feature);
}

/* The views become the caller's. */
static void get_start_hand_over(struct get_request *request, struct feature_get_item *items) {
    for (size_t i = 0; i < request->count; i++) {
        struct feature_get_item *to = fc_sized_at(items, i), *from = &request->items[i].item;
        to->status = from->status;
        to->view = from->view;
        from->view = NULL;
    }
}

/* Arguments are checked before anything is taken, so that a mistake of the caller loses no view.
 * The sentence of a failure is raised last, as freeing may leave another one behind. */
int feature_get_finish(struct feature_request *base, struct feature_get_item *items, size_t count) {
    FC_NEEDS(base);
    FC_NEEDS(items);
    struct get_request *request = get_start_of(base);
    struct feature *feature = request->store->feature;
    int rc = fc_connection_check(feature);
    if (!rc && count != request->count)
        rc = fc_fail(FEATURE_E_INVALID, "%s: %zu keys were started, there are %zu items", __func__,
                     request->count, count);
    if (!rc)
        rc = fc_sized_check(items, count, sizeof *items,
                            FC_SIZED_UNTIL(struct feature_get_item, view), "feature_get_item");
    if (rc)
        return rc;
    pthread_mutex_lock(&feature->hub.lock);
    bool ended = fc_queue_take(base);
    pthread_mutex_unlock(&feature->hub.lock);
    if (!ended)
        return FEATURE_PENDING;
    get_start_take_parts(request);
    if (get_start_ask_again(request)) {
        get_start_again(request);
        return FEATURE_PENDING;
    }
    const struct fc_first_error failure = request->failure;
    get_start_hand_over(request, items);
    pthread_mutex_lock(&feature->hub.lock);
    (void)fc_queue_leave(base);
    pthread_mutex_unlock(&feature->hub.lock);
    get_start_free(request);
    return fc_first_error_raise(&failure);
}
