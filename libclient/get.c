/* SPDX-License-Identifier: Apache-2.0
 *
 * Get: one round trip for the leases of a chunk of keys; then the bytes are there. Checksums are
 * verified when the store's policy says so; what does not match is given back as corrupt, which
 * makes the broker drop its copy, and asked for once more.
 *
 * The bytes of a large sample from another node are checked while they land, as far as the broker
 * says they have, in the thread that waits for the answer. What was read before there was a lease
 * counts only if the answer grants those bytes: same connection, same transfer, same place.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda.h"
#include "error.h"
#include "key.h"
#include "pin.h"
#include "release.h"
#include "sized.h"
#include "view.h"

#define DEADLINE_MS_DEFAULT 30000u
/* Room in the reply's frame for one item: its sentence or its spec, checksums, numbers. */
#define RESULT_BYTES      512u
#define RESULT_SPEC_BYTES (LAYOUT_SPEC_BYTES_MAX + 8 * LAYOUT_TENSORS_MAX + RESULT_BYTES)

struct getter {
    struct feature_store *store;
    struct fc_limits limits;
    struct feature_get_options options;
    struct fc_first_error failure;
};

/* One frame's worth of keys. */
struct chunk {
    struct getter *getter;
    struct feature_get_item *const *items;
    size_t count;
    struct fc_request *request;
    struct fc_verifier *early[FRAME_BATCH_ITEMS_MAX]; /* NULL: nothing of it was seen to land */
};

/* An item holds the fields of a key itself, so that it can grow without a key growing inside it. */
static struct feature_key get_key_of(const struct feature_get_item *item) {
    return (struct feature_key){
        .size = sizeof(struct feature_key), .ref = item->ref, .sample_id = item->sample_id};
}

/* Under the lock: it is set anew when the store is opened on another connection. */
static Fb__ChecksumPolicy get_policy_of(const struct feature_store *store) {
    struct feature *feature = store->feature;
    pthread_mutex_lock(&feature->lock);
    Fb__ChecksumPolicy policy = store->checksum;
    pthread_mutex_unlock(&feature->lock);
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
static void get_verify_landed(struct chunk *chunk, const Fb__Landed *landed) {
    const struct fc_request *request = chunk->request;
    if (landed->item >= chunk->count)
        return;
    const struct feature_ref *ref = chunk->items[landed->item]->ref;
    if (!ref || !get_can_verify_early(ref) ||
        !fc_mapping_holds(request->mapping, landed->extent_offset, ref->layout.extent_bytes,
                          ref->layout.align_bytes))
        return;
    struct fc_verifier **early = &chunk->early[landed->item];
    if (!*early && !(*early = fc_verifier_new(ref)))
        return;
    const struct fc_origin origin = {request->epoch, landed->transfer, landed->extent_offset};
    if (!fc_origin_is(&(*early)->origin, &origin))
        fc_verifier_init(*early, ref, &origin);
    fc_verifier_advance(*early, request->mapping->base + landed->extent_offset, landed->bytes);
}

/* transfer 0 in the answer: the bytes were there before this get, so what was seen to land was for
 * somebody else or is from before. */
static struct fc_verifier *get_verified_early(const struct chunk *chunk, size_t index,
                                              const Fb__GetResult *result) {
    struct fc_verifier *early = chunk->early[index];
    const struct fc_origin granted = {chunk->request->epoch, result->transfer,
                                      result->extent_offset};
    return early && result->transfer && fc_origin_is(&early->origin, &granted) ? early : NULL;
}

/* Runs in the thread that waits for the answer, without the lock. Kinds of notices that came later
 * than this library are not looked at. */
static bool get_on_notice(void *context, const Fb__ClientNotice *notice) {
    struct chunk *chunk = context;
    const struct feature_get_options *options = &chunk->getter->options;
    if (notice->note_case == FB__CLIENT_NOTICE__NOTE_PROGRESS && options->progress)
        options->progress(options->progress_context, notice->progress->bytes_done,
                          notice->progress->bytes_total);
    else if (notice->note_case == FB__CLIENT_NOTICE__NOTE_LANDED)
        get_verify_landed(chunk, notice->landed);
    return true;
}

/* ---- one request ---- */

/* From the broker's answer to a view. Whatever goes wrong after the lease was granted, it is given
 * back: as returned, or as corrupt, which makes the broker drop its copy so that the next get
 * reads from the home again. */
static int get_take_result(const struct chunk *chunk, size_t index, const Fb__GetResult *result,
                           struct feature_view **out) {
    const struct fc_request *request = chunk->request;
    struct feature_key key = get_key_of(chunk->items[index]);
    if (result->status != FB__STATUS__OK)
        return fc_fail_status(result->status, result->error, request->what);
    struct feature_view *view;
    int rc = fc_view_new(request, result, key.ref, fc_key_sample_id(key), &view);
    if (rc) {
        struct fc_release release = {.lease_hi = result->lease_hi,
                                     .lease_lo = result->lease_lo,
                                     .lease_epoch = request->epoch,
                                     .lease_incarnation = request->incarnation};
        fc_release_say(request->store, &release, 1);
        return rc;
    }
    if (get_is_to_verify(request->store, result) &&
        (rc = fc_view_verify(view, get_verified_early(chunk, index, result)))) {
        fc_view_end(view, FEATURE_RELEASE_RETURNED, true);
        return rc;
    }
    *out = view;
    return FEATURE_OK;
}

/* Fills in what is asked for; messages: one for each item. */
static void get_make_items(const struct chunk *chunk, Fb__GetItem *messages,
                           Fb__GetItem **pointers) {
    for (size_t i = 0; i < chunk->count; i++) {
        struct feature_key key = get_key_of(chunk->items[i]);
        pointers[i] = &messages[i];
        fb__get_item__init(&messages[i]);
        messages[i].sample_id = (char *)fc_key_sample_id(key);
        messages[i].want_spec = !key.ref || !key.ref->spec;
        if (key.ref) {
            messages[i].generation = key.ref->generation;
            messages[i].home = (char *)key.ref->home;
            messages[i].incarnation = key.ref->incarnation;
        }
    }
}

/* Only where a sample is large and its specs and checksums are known before the bytes come: the
 * broker then sends notices that cost it something. */
static bool get_wants_landed(const struct chunk *chunk) {
    for (size_t i = 0; i < chunk->count; i++) {
        const struct feature_ref *ref = chunk->items[i]->ref;
        if (ref && get_can_verify_early(ref))
            return get_policy_of(chunk->getter->store) != FB__CHECKSUM_POLICY__NEVER;
    }
    return false;
}

/* A corrupt item is not noted as a failure yet: it is asked for once more. */
static void get_take_results(const struct chunk *chunk, int rc) {
    const Fb__ClientReply *reply = chunk->request->reply;
    for (size_t i = 0; i < chunk->count; i++) {
        struct feature_get_item *item = chunk->items[i];
        item->status = rc ? rc : get_take_result(chunk, i, reply->get->items[i], &item->view);
        if (item->status != FEATURE_E_CORRUPT)
            fc_first_error_note(&chunk->getter->failure, item->status);
    }
}

/* The broker is told both times: deadline_ms is how long bytes may stand still, wait_ms how long a
 * sample may take to be put. Waiting for the answer is bounded by the sum of both; every notice
 * gives the deadline anew, so a transfer that moves is never cut off. Sums that do not fit are cut
 * to the longest time there is. */
static void get_chunk(struct getter *getter, struct feature_get_item *const *items, size_t count) {
    Fb__GetItem messages[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Get get = FB__GET__INIT;
    struct chunk chunk = {.getter = getter, .items = items, .count = count};
    get_make_items(&chunk, messages, pointers);
    get.items = pointers;
    get.n_items = count;
    get.deadline_ms = getter->options.deadline_ms;
    get.wait_ms = getter->options.wait_ms;
    get.want_landed = get_wants_landed(&chunk);
    uint32_t bound_ms, patience_ms;
    if (__builtin_add_overflow(get.deadline_ms, get.wait_ms, &bound_ms))
        bound_ms = UINT32_MAX;
    if (__builtin_add_overflow(get.deadline_ms, FC_GRACE_MS, &patience_ms))
        patience_ms = UINT32_MAX;
    struct fc_request request =
        FC_REQUEST(.feature = getter->store->feature, .store = getter->store, .handle = &get.handle,
                   .what = "get", .deadline_ns = fc_deadline_ns(bound_ms), .grace_ms = FC_GRACE_MS,
                   .patience_ms = patience_ms, .notice = get_on_notice, .notice_context = &chunk,
                   .expected = FB__CLIENT_REPLY__RESULT_GET);
    request.message.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.message.get = &get;
    chunk.request = &request;
    int rc = fc_request(&request);
    if (!rc && request.reply->get->n_items != count)
        rc = fc_request_nonsense(&request);
    get_take_results(&chunk, rc);
    for (size_t i = 0; i < count; i++)
        free(chunk.early[i]);
    fc_request_deinit(&request);
}

/* Once more, and each by itself: the others of the chunk have their leases already. */
static void get_verified(struct getter *getter, struct feature_get_item *const *items,
                         size_t count) {
    if (!count)
        return;
    get_chunk(getter, items, count);
    for (size_t i = 0; i < count; i++) {
        if (items[i]->status != FEATURE_E_CORRUPT)
            continue;
        get_chunk(getter, &items[i], 1);
        fc_first_error_note(&getter->failure, items[i]->status);
    }
}

static size_t get_result_bytes(const struct feature_get_item *item) {
    return item->ref && item->ref->spec ? RESULT_BYTES : RESULT_SPEC_BYTES;
}

/* Items that are wrong by themselves fail here and are not sent. The others are cut into requests
 * by two limits: how many items the broker takes at a time, and how much room their answers need
 * in one frame (8 KiB for each spec that has to come along). */
static void get_all(struct getter *getter, struct feature_get_item *items, size_t count) {
    struct feature_get_item *chunk[FRAME_BATCH_ITEMS_MAX];
    size_t chunk_count = 0, chunk_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct feature_get_item *item = fc_sized_at(items, i);
        item->view = NULL;
        item->status = fc_key_check(getter->store, get_key_of(item));
        fc_first_error_note(&getter->failure, item->status);
        if (item->status)
            continue;
        size_t bytes = get_result_bytes(item);
        if (chunk_count == getter->limits.batch_items ||
            chunk_bytes + bytes > getter->limits.frame_bytes) {
            get_verified(getter, chunk, chunk_count);
            chunk_count = chunk_bytes = 0;
        }
        chunk[chunk_count++] = item;
        chunk_bytes += bytes;
    }
    get_verified(getter, chunk, chunk_count);
}

int feature_get_batch(struct feature_store *store, struct feature_get_item *items, size_t count,
                      const struct feature_get_options *options) {
    struct getter getter = {.store = store};
    FC_NEEDS(items || !count);
    int rc = fc_sized_check(items, count, sizeof *items,
                            FC_SIZED_UNTIL(struct feature_get_item, view), "feature_get_item");
    if (rc)
        return rc; /* where an item ends is not known: nothing can be written to it */
    rc = fc_store_check(store);
    if (!rc)
        rc = fc_sized_read(&getter.options, sizeof getter.options, sizeof(size_t), options,
                           "feature_get_options");
    if (rc) {
        for (size_t i = 0; i < count; i++) {
            struct feature_get_item *item = fc_sized_at(items, i);
            item->status = rc;
            item->view = NULL;
        }
        return rc;
    }
    if (!getter.options.deadline_ms)
        getter.options.deadline_ms = DEADLINE_MS_DEFAULT;
    getter.limits = fc_connection_limits(store->feature);
    get_all(&getter, items, count);
    return fc_first_error_raise(&getter.failure);
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
        memcpy(buffer->iov_base, data, tensor->bytes);
    return rc;
}

/* Which tensors go to which buffers: by name, by index, or all in order. */
struct get_wanted {
    const char *const *names;
    const uint32_t *tensors;
    const struct iovec *buffers;
    uint32_t count;
};

static int get_find_wanted(const struct feature_view *view, const struct get_wanted *wanted,
                           uint32_t i) {
    if (wanted->names)
        return feature_view_find(view, wanted->names[i]);
    uint32_t index = wanted->tensors ? wanted->tensors[i] : i;
    return index < view->ref->layout.tensor_count ? (int)index : -1;
}

/* To a GPU on `stream`. Its copies have ended when this returns, whatever it returns. */
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
    fc_view_end(view, rc ? FEATURE_RELEASE_RETURNED : how, false);
    return rc;
}
