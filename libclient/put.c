/* SPDX-License-Identifier: Apache-2.0
 *
 * Copying put. Samples up to the broker's inline limit travel in the message itself, as many to a
 * frame as fit; larger ones are copied straight into the arena. Items are put in their order, so
 * that of two with one sample_id the later supersedes the earlier.
 */
#include <string.h>

#include "checksum.h"
#include "clock.h"
#include "copy.h"
#include "cuda.h"
#include "error.h"
#include "pin.h"
#include "probe.h"
#include "reservation.h"
#include "sized.h"

#define FRAME_PARTS_MAX   512u /* tensors in a frame; sendmsg() takes 1024 parts */
#define FRAME_SPARE_BYTES 64u  /* header, and the message's own fields */
#define COPY_PIECE_BYTES  (16u << 20)
#define CUDA_PIECE_BYTES  (256u << 20) /* 5 to 10 ms over PCIe */
#define ITEM_SPARE_BYTES  64u          /* an item's tags and lengths */

struct putter {
    struct feature_store *store;
    struct fc_limits limits;
    bool checksums;
    bool waits; /* for room, until the deadline */
    uint64_t deadline_ns;
    struct fc_probe *probe; /* of feature_put_new(): whether a sample is there; else NULL */
    bool probing;           /* it has been begun */
    struct fc_first_error failure;
};

/* Consecutive inline items that travel in one frame. */
struct group {
    struct feature_put_item *items[FRAME_BATCH_ITEMS_MAX];
    struct feature_ref *refs[FRAME_BATCH_ITEMS_MAX];
    uint32_t count;
    uint32_t tensor_count;
    size_t frame_bytes;
};

/* Ends an item. The ref is the caller's from here on. */
static void put_settle(struct putter *putter, struct feature_put_item *item, int status,
                       struct feature_ref *ref) {
    item->status = status;
    item->ref = ref;
    fc_first_error_note(&putter->failure, status);
}

/* ---- large ---- */

/* Where an item's bytes come from. A sample may have some tensors on a GPU and others not. */
struct put_source {
    const struct iovec *data;
    void *stream;       /* of the GPU, that the sample names */
    const void *device; /* one of the tensors that are a GPU's; NULL = none is */
};

/* The room may be another sample's by now: nothing more is written, and the reservation is given
 * back by the caller. */
static int put_fail_late(const struct feature_reservation *reservation) {
    struct feature_store *store = reservation->store;
    return fc_fail(FEATURE_E_TIMEOUT,
                   "put sample %s: its bytes were not copied in time: a reservation of store %s "
                   "ends after max_reserve = %llu ms; put it again, or raise [stores] max_reserve",
                   reservation->ref->sample_id, store->name,
                   (unsigned long long)(fc_store_reserve_ns(store) / FC_NS_PER_MS));
}

/* Copies and makes the checksum in one pass over memory. False, and it has stopped: the
 * reservation may end while it copies, and its room be another's from then on. In pieces of 16 MiB
 * (a few ms), so that it never writes for long without looking at the clock. */
static bool put_copy_tensor(const struct putter *putter, struct feature_reservation *reservation,
                            uint32_t tensor, const struct iovec *data) {
    uint8_t *to = feature_reservation_data(reservation, tensor);
    const uint8_t *from = data->iov_base;
    struct fc_checksum_stream stream;
    fc_checksum_begin(&stream);
    for (size_t done = 0, piece; done < data->iov_len; done += piece) {
        if (fc_boot_ns() >= reservation->write_until_ns)
            return false;
        piece = data->iov_len - done < COPY_PIECE_BYTES ? data->iov_len - done : COPY_PIECE_BYTES;
        if (putter->checksums)
            fc_checksum_add_copy(&stream, to + done, from + done, piece);
        else
            fc_copy(to + done, from + done, piece);
    }
    reservation->ref->tensors[tensor].checksum = fc_checksum_end(&stream);
    return true;
}

/* Copies one tensor out of a GPU's memory, by the CUDA driver. The checksum is made of the copy in
 * the arena, because a GPU's memory cannot be read from here. False: the data are plain memory, and
 * nothing was done. */
static bool put_copy_from_device(struct fc_cuda_batch *batch,
                                 struct feature_reservation *reservation, uint32_t index,
                                 const struct iovec *data, int *rc_out) {
    uint8_t *to = feature_reservation_data(reservation, index);
    const uint8_t *from = data->iov_base;
    const char *name = reservation->ref->tensors[index].name;
    int rc = FEATURE_OK;
    for (size_t done = 0, piece; done < data->iov_len && !rc; done += piece) {
        piece = data->iov_len - done < CUDA_PIECE_BYTES ? data->iov_len - done : CUDA_PIECE_BYTES;
        if (done)
            rc = fc_cuda_batch_wait(batch);
        if (!rc && fc_boot_ns() >= reservation->write_until_ns)
            rc = put_fail_late(reservation);
        if (!rc && !fc_cuda_batch_from(batch, to + done, from + done, piece, name, &rc))
            return false;
    }
    *rc_out = rc;
    return data->iov_len > 0;
}

/* All tensors of a sample of which at least one is a GPU's. What is queued has been copied, or will
 * never be, when this returns. */
static int put_copy_with_devices(const struct putter *putter,
                                 struct feature_reservation *reservation, const struct iovec *data,
                                 void *stream) {
    struct feature_ref *ref = reservation->ref;
    struct fc_cuda_batch batch;
    bool from_device[LAYOUT_TENSORS_MAX] = {false};
    int rc = FEATURE_OK;
    fc_cuda_batch_begin(&batch, stream, "put", ref->sample_id);
    for (uint32_t i = 0; i < ref->layout.tensor_count && !rc; i++) {
        from_device[i] = put_copy_from_device(&batch, reservation, i, &data[i], &rc);
        if (!from_device[i] && !rc && !put_copy_tensor(putter, reservation, i, &data[i]))
            rc = put_fail_late(reservation);
    }
    int ended = fc_cuda_batch_end(&batch);
    if (rc || ended)
        return rc ? rc : ended;
    if (fc_boot_ns() >= reservation->write_until_ns)
        return put_fail_late(reservation);
    for (uint32_t i = 0; putter->checksums && i < ref->layout.tensor_count; i++)
        if (from_device[i])
            ref->tensors[i].checksum =
                fc_checksum(feature_reservation_data(reservation, i), data[i].iov_len);
    return FEATURE_OK;
}

/* Without a GPU in the sample no driver is asked about each tensor again: the plain way is what it
 * was before there were GPUs. FEATURE_OK, or what failed; the reservation stays the caller's. */
static int put_copy(const struct putter *putter, struct feature_reservation *reservation,
                    const struct put_source *source) {
    if (source->device)
        return put_copy_with_devices(putter, reservation, source->data, source->stream);
    for (uint32_t i = 0; i < reservation->ref->layout.tensor_count; i++)
        if (!put_copy_tensor(putter, reservation, i, &source->data[i]))
            return put_fail_late(reservation);
    return FEATURE_OK;
}

/* FEATURE_E_EXISTS for what is to be new and is not; waits for the answer. */
static int put_check_new(const struct putter *putter) {
    return putter->probing ? fc_probe_end(putter->probe) : FEATURE_OK;
}

/* What may be there already does not wait for room until it is known that it is not. The ref is
 * taken on success. */
static int put_reserve(const struct putter *putter, struct feature_ref *ref,
                       struct feature_reservation **out) {
    const bool waits = putter->waits && !putter->probing;
    int rc = fc_reserve(putter->store, ref, waits, putter->deadline_ns, out);
    if (!rc || !putter->probing)
        return rc;
    int found = put_check_new(putter);
    if (found || rc != FEATURE_E_FULL || !putter->waits)
        return found ? found : rc;
    return fc_reserve(putter->store, ref, true, putter->deadline_ns, out);
}

/* If it is known by now that a sample is there, nothing is copied: so it is for one of this node,
 * as the broker answered that before it granted the room. */
static int put_fill(const struct putter *putter, struct feature_reservation *reservation,
                    const struct put_source *source) {
    int rc = FEATURE_OK;
    if (putter->probing && fc_probe_has_answer(putter->probe))
        rc = put_check_new(putter);
    if (!rc)
        rc = put_copy(putter, reservation, source);
    return rc ? rc : put_check_new(putter);
}

/* Takes the ref. A room of its own for this one sample: reserve, copy, commit. */
static int put_large(struct putter *putter, const struct put_source *source,
                     struct feature_ref *ref, struct feature_ref **ref_out) {
    struct feature_reservation *reservation;
    if (source->device)
        fc_pin(putter->store, source->device);
    int rc = put_reserve(putter, ref, &reservation);
    if (rc) {
        feature_ref_free(ref);
        return rc;
    }
    ref->has_checksums = putter->checksums;
    rc = put_fill(putter, reservation, source);
    if (rc) {
        feature_cancel(reservation);
        return rc;
    }
    /* Copying is not interrupted: what is there by then is given one more moment. */
    uint64_t commit_ns = fc_now_ns();
    if (commit_ns < putter->deadline_ns)
        commit_ns = putter->deadline_ns;
    return fc_commit(reservation, fc_after_ns(commit_ns, FC_GRACE_MS * FC_NS_PER_MS), ref_out);
}

/* ---- inline ---- */

/* What an item takes of the frame: payload, spec, id, checksums, and the tags and lengths around
 * them (rounded up). */
static size_t put_inline_bytes(const struct feature_ref *ref) {
    return ref->layout.sum_bytes + ref->packed_spec_bytes + strlen(ref->sample_id) +
           sizeof(uint64_t) * ref->layout.tensor_count + ITEM_SPARE_BYTES;
}

static bool put_is_inline(const struct putter *putter, const struct feature_ref *ref) {
    return ref->layout.sum_bytes <= putter->limits.inline_bytes &&
           put_inline_bytes(ref) + FRAME_SPARE_BYTES <= putter->limits.frame_bytes;
}

/* Three limits: items that the broker takes at a time, parts that sendmsg() takes, bytes of a
 * frame. */
static bool put_group_takes(const struct putter *putter, const struct group *group,
                            const struct feature_ref *ref) {
    return group->count < putter->limits.batch_items &&
           group->tensor_count + ref->layout.tensor_count <= FRAME_PARTS_MAX &&
           group->frame_bytes + put_inline_bytes(ref) <= putter->limits.frame_bytes;
}

/* In a pass of its own: the kernel copies the bytes from where they are, not we. */
static void put_checksum_inline(struct feature_ref *ref, const struct iovec *data) {
    ref->has_checksums = true;
    for (uint32_t i = 0; i < ref->layout.tensor_count; i++)
        ref->tensors[i].checksum = fc_checksum(data[i].iov_base, data[i].iov_len);
}

/* Takes the ref; *out is it, now with generation and home, or NULL. The home is the broker that
 * has answered. A success without a generation is nonsense: a ref without one would mean "whatever
 * is current" to whoever gets it. */
static int put_settle_ref(const struct fc_request *request, const Fb__PutResult *result,
                          struct feature_ref *ref, struct feature_ref **out) {
    int status = FEATURE_OK;
    if (result->status != FB__STATUS__OK)
        status = fc_fail_status(result->status, result->error, "put");
    else if (!result->generation)
        status = fc_request_nonsense(request);
    *out = NULL;
    if (status) {
        feature_ref_free(ref);
        return status;
    }
    fc_ref_set_home(ref, result->generation, request->node, request->incarnation);
    *out = ref;
    return FEATURE_OK;
}

/* Each item's outcome from the frame's. Takes the refs. If the request failed as a whole, each
 * item has failed in that way; whether some were carried out is not known, and a repeat supersedes
 * them. */
static void put_settle_group(struct putter *putter, struct group *group,
                             const struct fc_request *request, int rc) {
    const Fb__PutReply *reply = rc ? NULL : request->reply->put;
    if (reply && reply->n_items != group->count) {
        rc = fc_request_nonsense(request);
        reply = NULL;
    }
    for (uint32_t i = 0; i < group->count; i++) {
        struct feature_ref *ref = NULL;
        int status = rc;
        if (reply)
            status = put_settle_ref(request, reply->items[i], group->refs[i], &ref);
        else
            feature_ref_free(group->refs[i]);
        put_settle(putter, group->items[i], status, ref);
    }
}

/* One frame with all that has been collected. The payload is sent from where the caller has it:
 * each tensor is a part of sendmsg(), nothing is copied in this process. */
static void put_group(struct putter *putter, struct group *group) {
    Fb__PutItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    uint8_t checksums[8 * FRAME_PARTS_MAX], *checksums_end = checksums;
    struct iovec parts[1 + FRAME_PARTS_MAX];
    size_t part_count = 1;
    Fb__Put put = FB__PUT__INIT;
    if (!group->count)
        return;
    for (uint32_t i = 0; i < group->count; i++) {
        struct feature_ref *ref = group->refs[i];
        size_t tensors = ref->layout.tensor_count;
        pointers[i] = &items[i];
        fb__put_item__init(&items[i]);
        items[i].sample_id = ref->sample_id;
        items[i].spec =
            (ProtobufCBinaryData){.data = ref->packed_spec, .len = ref->packed_spec_bytes};
        items[i].checksums = (ProtobufCBinaryData){.data = checksums_end,
                                                   .len = fc_ref_get_checksums(ref, checksums_end)};
        items[i].bytes = (uint32_t)ref->layout.sum_bytes;
        checksums_end += items[i].checksums.len;
        memcpy(parts + part_count, group->items[i]->data, tensors * sizeof *parts);
        part_count += tensors;
    }
    put.items = pointers;
    put.n_items = group->count;
    put.deadline_ms = putter->waits ? fc_left_ms(putter->deadline_ns) : 0;
    put.op_id = fc_connection_op_ids(putter->store->feature, group->count);
    struct fc_request request =
        FC_REQUEST(.feature = putter->store->feature, .store = putter->store, .handle = &put.handle,
                   .what = "put", .deadline_ns = putter->deadline_ns,
                   .grace_ms = putter->waits ? FC_GRACE_MS : 0, .parts = parts,
                   .part_count = part_count, .expected = FB__CLIENT_REPLY__RESULT_PUT);
    request.message.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.message.put = &put;
    put_settle_group(putter, group, &request, fc_request(&request));
    fc_request_deinit(&request);
    group->count = 0;
}

/* ---- items ---- */

/* The broker would copy what it is told to. A buffer that is shorter than its tensor must be found
 * here, where the caller's sizes are known. */
static int put_check_data(const struct feature_ref *ref, const struct iovec *data) {
    for (uint32_t i = 0; i < ref->layout.tensor_count; i++) {
        const struct feature_tensor *tensor = &ref->tensors[i];
        if (!data || data[i].iov_len != tensor->bytes || (tensor->bytes && !data[i].iov_base))
            return fc_fail(FEATURE_E_INVALID,
                           "sample %s: %zu bytes were given for tensor %s, its shape needs %llu",
                           ref->sample_id, data ? data[i].iov_len : 0, tensor->name,
                           (unsigned long long)tensor->bytes);
    }
    return FEATURE_OK;
}

static int put_make_ref(const struct putter *putter, const struct feature_put_item *item,
                        struct feature_ref **out) {
    int rc = fc_ref_from_sample(putter->store->name, item->sample, out);
    if (rc)
        return rc;
    rc = put_check_data(*out, item->data);
    if (rc)
        feature_ref_free(*out);
    return rc;
}

/* What was queued on the stream is done before the data are looked at, and before room is taken in
 * the arena: nobody waits for that room while a GPU computes. Frees the ref on failure. */
static int put_make_source(const struct feature_put_item *item, struct feature_ref *ref,
                           struct put_source *out) {
    out->data = item->data;
    out->stream = fc_ref_stream_of(item->sample);
    out->device = fc_cuda_first(item->data, ref->layout.tensor_count);
    int rc = fc_cuda_wait(out->stream, "put", ref->sample_id);
    if (rc)
        feature_ref_free(ref);
    return rc;
}

/* A large sample, or one of a GPU, goes by itself, but not before those that were collected in
 * front of it: of two puts with one sample_id the later must win. */
static void put_item(struct putter *putter, struct group *group, struct feature_put_item *item) {
    struct feature_ref *ref, *done = NULL;
    struct put_source source;
    int rc = put_make_ref(putter, item, &ref);
    if (!rc)
        rc = put_make_source(item, ref, &source);
    if (rc) {
        put_settle(putter, item, rc, NULL);
        return;
    }
    if (putter->probe)
        fc_probe_begin(putter->probe, putter->store, ref->sample_id, "put");
    putter->probing = putter->probe != NULL;
    if (source.device || !put_is_inline(putter, ref)) {
        put_group(putter, group);
        rc = put_large(putter, &source, ref, &done);
        put_settle(putter, item, rc, done);
        return;
    }
    if (putter->checksums)
        put_checksum_inline(ref, item->data);
    rc = put_check_new(putter);
    if (rc) {
        feature_ref_free(ref);
        put_settle(putter, item, rc, NULL);
        return;
    }
    if (group->count && !put_group_takes(putter, group, ref))
        put_group(putter, group);
    if (!group->count) {
        group->tensor_count = 0;
        group->frame_bytes = FRAME_SPARE_BYTES;
    }
    group->items[group->count] = item;
    group->refs[group->count++] = ref;
    group->tensor_count += ref->layout.tensor_count;
    group->frame_bytes += put_inline_bytes(ref);
}

/* One deadline for all: a later item has what the earlier ones have left of it. */
static int put_all(struct feature_store *store, struct feature_put_item *items, size_t count,
                   uint32_t deadline_ms, struct fc_probe *probe) {
    int rc = fc_store_check(store);
    if (!rc)
        rc = fc_check_writable(store);
    struct putter putter = {.store = store, .waits = deadline_ms, .probe = probe};
    struct group group;
    group.count = 0;
    if (!rc) {
        putter.limits = fc_connection_limits(store->feature);
        putter.checksums = fc_store_checksums(store);
        putter.deadline_ns = fc_deadline_ns(deadline_ms);
    }
    (void)fc_request_was_interrupted();
    for (size_t i = 0; i < count; i++) {
        if (!rc && fc_request_was_interrupted())
            rc = fc_fail(FEATURE_E_TIMEOUT, "put: interrupted");
        if (rc)
            put_settle(&putter, fc_sized_at(items, i), rc, NULL);
        else
            put_item(&putter, &group, fc_sized_at(items, i));
    }
    put_group(&putter, &group);
    if (putter.probing)
        fc_probe_drop(probe);
    return fc_first_error_raise(&putter.failure);
}

int feature_put_batch(struct feature_store *store, struct feature_put_item *items, size_t count,
                      uint32_t deadline_ms) {
    FC_NEEDS(items || !count);
    int rc = fc_sized_check(items, count, sizeof *items,
                            FC_SIZED_UNTIL(struct feature_put_item, ref), "feature_put_item");
    if (rc)
        return rc; /* where an item ends is not known: nothing can be written to it */
    return put_all(store, items, count, deadline_ms, NULL);
}

static int put_one(struct feature_store *store, const struct feature_sample *sample,
                   const struct iovec *data, uint32_t deadline_ms, struct fc_probe *probe,
                   struct feature_ref **ref_out) {
    struct feature_put_item item = {.size = sizeof item, .sample = sample, .data = data};
    int rc = put_all(store, &item, 1, deadline_ms, probe);
    if (!rc && ref_out)
        *ref_out = item.ref;
    else
        feature_ref_free(item.ref);
    return rc;
}

int feature_put(struct feature_store *store, const struct feature_sample *sample,
                const struct iovec *data, uint32_t deadline_ms, struct feature_ref **ref_out) {
    return put_one(store, sample, data, deadline_ms, NULL, ref_out);
}

int feature_put_new(struct feature_store *store, const struct feature_sample *sample,
                    const struct iovec *data, uint32_t deadline_ms, struct feature_ref **ref_out) {
    struct fc_probe probe;
    return put_one(store, sample, data, deadline_ms, &probe, ref_out);
}
