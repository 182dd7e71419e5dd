/* SPDX-License-Identifier: Apache-2.0
 *
 * Get: one round trip for the leases of a request's keys; then the bytes are there. Checksums are
 * verified when the store's policy says so; what does not match is given back as corrupt, which
 * makes the broker drop its copy, and asked for once more.
 *
 * The bytes of a large sample from another node are checked while they land, as far as the broker
 * says they have, in the thread that waits for the answer. What was read before there was a lease
 * counts only if the answer grants those bytes: same connection, same transfer, same place.
 */
#include "get.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "copy.h"
#include "cuda.h"
#include "key.h"
#include "pin.h"
#include "release.h"
#include "sized.h"
#include "view.h"

#define DEADLINE_MS_DEFAULT 30000u
/* Room in the reply's frame for one item: its sentence or its spec, checksums, numbers. */
#define RESULT_BYTES      512u
#define RESULT_SPEC_BYTES (LAYOUT_SPEC_BYTES_MAX + 8 * LAYOUT_TENSORS_MAX + RESULT_BYTES)

/* A get that waits: its arrays, for as many keys as any request takes. They lie on the stack. */
struct get_room {
    struct feature_get_item *items[FRAME_BATCH_ITEMS_MAX];
    struct fc_verifier *early[FRAME_BATCH_ITEMS_MAX];
    Fb__GetItem messages[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
};

/* An item holds the fields of a key itself, so that it can grow without a key growing inside it. */
static struct feature_key get_key_of(const struct feature_get_item *item) {
    return (struct feature_key){
        .size = sizeof(struct feature_key), .ref = item->ref, .sample_id = item->sample_id};
}

/* Under the lock: it is set anew when the store is opened on another connection. */
static Fb__ChecksumPolicy get_policy_of(const struct feature_store *store) {
    struct feature *feature = store->feature;
    pthread_mutex_lock(&feature->hub.lock);
    Fb__ChecksumPolicy policy = store->checksum;
    pthread_mutex_unlock(&feature->hub.lock);
    return policy;
}

static bool get_is_to_verify(const struct feature_store *store, const Fb__GetResult *result) {
    Fb__ChecksumPolicy policy = get_policy_of(store);
    if (policy == FB__CHECKSUM_POLICY__NEVER)
        return false;
    /* A policy that this library does not know is kept as the strictest one that it does. */
    return policy != FB__CHECKSUM_POLICY__AFTER_NETWORK || result->over_network;
}

/* ---- checking what lands ---- */

/* Below FRAME_LANDED_BYTES_MIN the whole sample is checked in less time than the notices take. */
static bool get_can_verify_early(const struct feature_ref *ref) {
    return ref->spec && ref->has_checksums && ref->layout.extent_bytes >= FRAME_LANDED_BYTES_MIN;
}

/* Nothing is believed: the notice may name an item that was not asked for, or a place outside the
 * arena. If there is no memory for a verifier, the sample is checked after it has come. Another
 * transfer than before (the first one failed and was begun anew) starts from nothing. */
static void get_verify_landed(struct fc_get *get, const Fb__Landed *landed) {
    const struct fc_request *request = &get->request;
    if (landed->item >= get->count)
        return;
    const struct feature_ref *ref = get->items[landed->item]->ref;
    if (!ref || !get_can_verify_early(ref) ||
        !fc_mapping_holds(request->mapping, landed->extent_offset, ref->layout.extent_bytes,
                          ref->layout.align_bytes))
        return;
    struct fc_verifier **early = &get->early[landed->item];
    if (!*early && !(*early = fc_verifier_new(ref)))
        return;
    const struct fc_origin origin = {request->epoch, landed->transfer, landed->extent_offset};
    if (!fc_origin_is(&(*early)->origin, &origin))
        fc_verifier_init(*early, ref, &origin);
    fc_verifier_advance(*early, request->mapping->base + landed->extent_offset, landed->bytes);
}

/* transfer 0 in the answer: the bytes were there before this get, so what was seen to land was for
 * somebody else or is from before. */
static struct fc_verifier *get_verified_early(const struct fc_get *get, size_t index,
                                              const Fb__GetResult *result) {
    struct fc_verifier *early = get->early[index];
    const struct fc_origin granted = {get->request.epoch, result->transfer, result->extent_offset};
    return early && result->transfer && fc_origin_is(&early->origin, &granted) ? early : NULL;
}

/* Runs in the thread that waits for the answer, without the lock. Kinds of notices that came later
 * than this library are not looked at. */
static bool get_on_notice(void *context, const Fb__ClientNotice *notice) {
    struct fc_get *get = context;
    const struct feature_get_options *options = get->options;
    if (notice->note_case == FB__CLIENT_NOTICE__NOTE_PROGRESS && options->progress)
        options->progress(options->progress_context, notice->progress->bytes_done,
                          notice->progress->bytes_total);
    else if (notice->note_case == FB__CLIENT_NOTICE__NOTE_LANDED)
        get_verify_landed(get, notice->landed);
    return true;
}

/* ---- one request ---- */

int fc_get_read_options(const struct feature_get_options *theirs, struct feature_get_options *out) {
    int rc = fc_sized_read(out, sizeof *out, sizeof(size_t), theirs, "feature_get_options");
    if (!rc && !out->deadline_ms)
        out->deadline_ms = DEADLINE_MS_DEFAULT;
    return rc;
}

int fc_get_check_item(const struct feature_store *store, const struct feature_get_item *item) {
    return fc_key_check(store, get_key_of(item));
}

/* Two limits: how many items the broker takes at a time, and how much room their answers need in
 * one frame (8 KiB for each spec that has to come along). */
size_t fc_get_fit(struct feature_get_item *const *items, size_t count, struct fc_limits limits) {
    size_t fit = 0, bytes = 0;
    for (; fit < count && fit < limits.batch_items && fit < FRAME_BATCH_ITEMS_MAX; fit++) {
        const struct feature_ref *ref = items[fit]->ref;
        bytes += ref && ref->spec ? RESULT_BYTES : RESULT_SPEC_BYTES;
        if (fit && bytes > limits.frame_bytes)
            break;
    }
    return fit;
}

/* Fills in what is asked for. */
static void get_make_items(const struct fc_get *get) {
    for (size_t i = 0; i < get->count; i++) {
        struct feature_key key = get_key_of(get->items[i]);
        Fb__GetItem *message = get->pointers[i] = &get->messages[i];
        fb__get_item__init(message);
        message->sample_id = (char *)fc_key_sample_id(key);
        message->want_spec = !key.ref || !key.ref->spec;
        if (key.ref) {
            message->generation = key.ref->generation;
            message->home = (char *)key.ref->home;
            message->incarnation = key.ref->incarnation;
        }
    }
}

/* Only where a sample is large and its specs and checksums are known before the bytes come: the
 * broker then sends notices that cost it something. */
static bool get_wants_landed(const struct fc_get *get, const struct feature_store *store) {
    for (size_t i = 0; i < get->count; i++) {
        const struct feature_ref *ref = get->items[i]->ref;
        if (ref && get_can_verify_early(ref))
            return get_policy_of(store) != FB__CHECKSUM_POLICY__NEVER;
    }
    return false;
}

/* Sums that do not fit are cut to the longest time there is. */
static uint32_t get_add_ms(uint32_t one_ms, uint32_t other_ms) {
    uint32_t sum_ms;
    return __builtin_add_overflow(one_ms, other_ms, &sum_ms) ? UINT32_MAX : sum_ms;
}

uint64_t fc_get_bound_ns(const struct feature_get_options *options) {
    return get_add_ms(options->deadline_ms, options->wait_ms) * FC_NS_PER_MS;
}

/* The broker is told both times: deadline_ms is how long bytes may stand still, wait_ms how long a
 * sample may take to be put. Waiting for the answer is bounded by the sum of both; every notice
 * gives the deadline anew, so a transfer that moves is never cut off. */
void fc_get_make(struct fc_get *get, struct feature_store *store) {
    const struct feature_get_options *options = get->options;
    fb__get__init(&get->message);
    get_make_items(get);
    memset(get->early, 0, get->count * sizeof *get->early);
    get->message.items = get->pointers;
    get->message.n_items = get->count;
    get->message.deadline_ms = options->deadline_ms;
    get->message.wait_ms = options->wait_ms;
    get->message.want_landed = get_wants_landed(get, store);
    get->request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &get->message.handle,
                   .what = "get", .deadline_ns = fc_after_ns(fc_now_ns(), fc_get_bound_ns(options)),
                   .grace_ms = FC_GRACE_MS,
                   .patience_ms = get_add_ms(options->deadline_ms, FC_GRACE_MS),
                   .items = (uint32_t)get->count, .notice = get_on_notice, .notice_context = get,
                   .expected = FB__CLIENT_REPLY__RESULT_GET);
    get->request.message.op_case = FB__CLIENT_REQUEST__OP_GET;
    get->request.message.get = &get->message;
}

/* Nobody will read it, and the read does not count. */
static void get_return_lease(const struct fc_request *request, const Fb__GetResult *result) {
    struct fc_release release = {.lease_hi = result->lease_hi,
                                 .lease_lo = result->lease_lo,
                                 .lease_session = request->session,
                                 .lease_incarnation = request->incarnation};
    fc_release_leave(request->store, &release, 1);
}

/* From the broker's answer to a view. Whatever goes wrong after the lease was granted, it is given
 * back: as returned, or as corrupt, which makes the broker drop its copy so that the next get
 * reads from the home again. */
static int get_take_result(const struct fc_get *get, size_t index, const Fb__GetResult *result,
                           struct feature_view **out) {
    const struct fc_request *request = &get->request;
    struct feature_key key = get_key_of(get->items[index]);
    if (result->status != FB__STATUS__OK)
        return fc_fail_status(result->status, result->error, request->what);
    struct feature_view *view;
    int rc = fc_view_new(request, result, key.ref, fc_key_sample_id(key), &view);
    if (rc) {
        get_return_lease(request, result);
        return rc;
    }
    if (get_is_to_verify(request->store, result) &&
        (rc = fc_view_verify(view, get_verified_early(get, index, result)))) {
        fc_view_leave(view, true);
        return rc;
    }
    *out = view;
    return FEATURE_OK;
}

/* A corrupt item is not noted as a failure yet: it is asked for once more. */
void fc_get_take(const struct fc_get *get, int rc, struct fc_first_error *failure) {
    const Fb__ClientReply *reply = get->request.reply;
    if (!rc && reply->get->n_items != get->count)
        rc = fc_request_nonsense(&get->request);
    for (size_t i = 0; i < get->count; i++) {
        struct feature_get_item *item = get->items[i];
        item->view = NULL;
        item->status = rc ? rc : get_take_result(get, i, reply->get->items[i], &item->view);
        if (item->status != FEATURE_E_CORRUPT)
            fc_first_error_note(failure, item->status);
    }
}

/* The answer was never looked at, so there are no views: the leases in it are returned as they are.
 * What they were granted on may have ended meanwhile; release.c sorts that out. */
void fc_get_give_back(const struct fc_get *get) {
    const Fb__ClientReply *reply = get->request.reply;
    for (size_t i = 0; reply && reply->get && i < reply->get->n_items; i++)
        if (reply->get->items[i]->status == FB__STATUS__OK)
            get_return_lease(&get->request, reply->get->items[i]);
}

void fc_get_deinit(struct fc_get *get) {
    for (size_t i = 0; i < get->count; i++)
        free(get->early[i]);
    fc_request_deinit(&get->request);
}

/* ---- gets that wait ---- */

/* One request, from the message to the views, with nothing left behind. */
static void get_run(struct fc_get *get, struct feature_store *store,
                    struct fc_first_error *failure) {
    fc_get_make(get, store);
    fc_get_take(get, fc_request(&get->request), failure);
    fc_get_deinit(get);
}

/* What was corrupt is asked for once more, and each by itself: the others of the request have their
 * leases already. */
static void get_run_verified(struct fc_get *get, struct feature_store *store,
                             struct fc_first_error *failure) {
    const size_t count = get->count;
    struct feature_get_item **items = get->items;
    get_run(get, store, failure);
    for (size_t i = 0; i < count; i++) {
        if (items[i]->status != FEATURE_E_CORRUPT)
            continue;
        get->items = &items[i];
        get->count = 1;
        get_run(get, store, failure);
        fc_first_error_note(failure, items[i]->status);
    }
}

/* Items that are wrong by themselves fail here and are not sent. The others are gathered until no
 * more can fit, and cut into requests. */
static void get_all(struct feature_store *store, struct feature_get_item *items, size_t count,
                    const struct feature_get_options *options, struct fc_first_error *failure) {
    struct get_room room;
    const struct fc_limits limits = fc_connection_limits(store->feature);
    size_t gathered = 0;
    for (size_t i = 0; i < count || gathered;) {
        while (i < count && gathered < FRAME_BATCH_ITEMS_MAX) {
            struct feature_get_item *item = fc_sized_at(items, i++);
            item->view = NULL;
            item->status = fc_get_check_item(store, item);
            fc_first_error_note(failure, item->status);
            if (!item->status)
                room.items[gathered++] = item;
        }
        size_t fit = fc_get_fit(room.items, gathered, limits);
        if (!fit)
            continue;
        struct fc_get get = {.options = options,
                             .items = room.items,
                             .count = fit,
                             .early = room.early,
                             .messages = room.messages,
                             .pointers = room.pointers};
        get_run_verified(&get, store, failure);
        gathered -= fit;
        memmove(room.items, room.items + fit, gathered * sizeof *room.items);
    }
}

int feature_get_batch(struct feature_store *store, struct feature_get_item *items, size_t count,
                      const struct feature_get_options *options) {
    struct feature_get_options known;
    struct fc_first_error failure = {.error = FEATURE_OK};
    FC_NEEDS(items || !count);
    int rc = fc_sized_check(items, count, sizeof *items,
                            FC_SIZED_UNTIL(struct feature_get_item, view), "feature_get_item");
    if (rc)
        return rc; /* where an item ends is not known: nothing can be written to it */
    rc = fc_store_check(store);
    if (!rc)
        rc = fc_get_read_options(options, &known);
    if (rc) {
        for (size_t i = 0; i < count; i++) {
            struct feature_get_item *item = fc_sized_at(items, i);
            item->status = rc;
            item->view = NULL;
        }
        return rc;
    }
    get_all(store, items, count, &known, &failure);
    return fc_first_error_raise(&failure);
}

int feature_get(struct feature_store *store, const struct feature_key *key,
                const struct feature_get_options *options, struct feature_view **out) {
    struct feature_key known;
    FC_NEEDS(out);
    int rc = fc_store_check(store);
    if (!rc)
        rc = fc_key_read(store, key, &known);
    if (rc)
        return rc;
    struct feature_get_item item = {
        .size = sizeof item, .ref = known.ref, .sample_id = known.sample_id};
    rc = feature_get_batch(store, &item, 1, options);
    if (!rc)
        *out = item.view;
    return rc;
}

/* ---- copying ---- */

/* index < 0: there is no tensor of that name. Without a name the place in the list was asked for.
 */
static int get_copy_tensor(const struct feature_view *view, int index, const char *name,
                           const struct iovec *buffer, struct fc_cuda_batch *batch) {
    const struct feature_tensor *tensor =
        index < 0 ? NULL : feature_ref_tensor(view->ref, (uint32_t)index);
    if (!tensor)
        return fc_fail(FEATURE_E_INVALID, "sample %s has no tensor %s", view->ref->sample_id, name);
    if (buffer->iov_len < tensor->bytes)
        return fc_fail(
            FEATURE_E_INVALID, "sample %s: tensor %s has %llu bytes, there is room for %zu",
            view->ref->sample_id, tensor->name, (unsigned long long)tensor->bytes, buffer->iov_len);
    const void *data = feature_view_data(view, (uint32_t)index);
    int rc = FEATURE_OK;
    if (tensor->bytes &&
        !fc_cuda_batch_to(batch, buffer->iov_base, data, tensor->bytes, tensor->name, &rc))
        fc_copy(buffer->iov_base, data, tensor->bytes);
    return rc;
}

/* Which tensors go to which buffers: by name, by index, or all in order. */
struct get_wanted {
    const char *const *names;
    const uint32_t *tensors;
    const struct iovec *buffers;
    uint32_t count;
};

/* The index of what goes to buffer i, or -1: the sample has no such tensor. A caller that asks by
 * name gets a sentence with the name. */
static int get_find_wanted(const struct feature_view *view, const struct get_wanted *wanted,
                           uint32_t i) {
    if (wanted->names)
        return feature_view_find(view, wanted->names[i]);
    uint32_t index = wanted->tensors ? wanted->tensors[i] : i;
    return index < view->ref->layout.tensor_count ? (int)index : -1;
}

/* The arena is registered with the driver when the first buffer of a GPU is seen. To a GPU on
 * `stream`; a named stream is waited for first, since plain buffers may be written by it too
 * (pinned memory). Its copies have ended when this returns, whatever it returns. */
static int get_copy_tensors(const struct feature_view *view, const struct get_wanted *wanted,
                            void *stream) {
    const uint32_t count = wanted->count;
    if (!wanted->names && !wanted->tensors && count != view->ref->layout.tensor_count)
        return fc_fail(FEATURE_E_INVALID, "sample %s has %u tensors, there are %u buffers",
                       view->ref->sample_id, view->ref->layout.tensor_count, count);
    const void *device = fc_cuda_first(wanted->buffers, count);
    if (device)
        fc_pin(view->store, device);
    struct fc_cuda_batch batch;
    int rc = fc_cuda_wait(stream, "get", view->ref->sample_id);
    fc_cuda_batch_begin(&batch, stream, "get", view->ref->sample_id);
    for (uint32_t i = 0; i < count && !rc; i++)
        rc = get_copy_tensor(view, get_find_wanted(view, wanted, i),
                             wanted->names ? wanted->names[i] : "of that index",
                             &wanted->buffers[i], &batch);
    int ended = fc_cuda_batch_end(&batch);
    return rc ? rc : ended;
}

/* Before the view is looked at: a NULL would be written to. */
static int get_check_buffers(const struct get_wanted *wanted) {
    for (uint32_t i = 0; i < wanted->count; i++)
        if (!wanted->buffers[i].iov_base && wanted->buffers[i].iov_len)
            return fc_fail(FEATURE_E_INVALID, "buffers[%u].iov_base is NULL", i);
    return FEATURE_OK;
}

int feature_view_copy(const struct feature_view *view, const uint32_t *tensors,
                      const struct iovec *buffers, uint32_t count, void *cuda_stream) {
    const struct get_wanted wanted = {.tensors = tensors, .buffers = buffers, .count = count};
    FC_NEEDS(view);
    FC_NEEDS(buffers || !count);
    int rc = get_check_buffers(&wanted);
    return rc ? rc : get_copy_tensors(view, &wanted, cuda_stream);
}

/* The field came after the first version of the struct: an older program's has not got it. */
static void *get_stream_of(const struct feature_get_options *options) {
    return options && options->size >= FC_SIZED_UNTIL(struct feature_get_options, cuda_stream)
               ? options->cuda_stream
               : NULL;
}

/* Consumed is only said when everything was copied: if a buffer is too small the caller has not
 * read the sample, and it must stay readable. */
int feature_get_into(struct feature_store *store, const struct feature_key *key,
                     const struct feature_get_options *options, const char *const *names,
                     const struct iovec *buffers, uint32_t count, enum feature_release_how how) {
    struct feature_view *view;
    FC_NEEDS(buffers || !count);
    int rc = fc_view_check_how(how, __func__);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < count; i++) {
        FC_NEEDS(!names || names[i]);
        FC_NEEDS(buffers[i].iov_base || !buffers[i].iov_len);
    }
    rc = feature_get(store, key, options, &view);
    if (rc)
        return rc;
    const struct get_wanted wanted = {.names = names, .buffers = buffers, .count = count};
    rc = get_copy_tensors(view, &wanted, get_stream_of(options));
    fc_view_end(view, rc ? FEATURE_RELEASE_RETURNED : how);
    return rc;
}
