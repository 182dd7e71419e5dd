/* SPDX-License-Identifier: Apache-2.0
 *
 * Zero-copy put: reserve a room, write in place, commit.
 *
 *    fc_reserve() --> writable until write_until_ns --fc_commit()--> visible, as a ref
 *                                                   --feature_cancel(), or the session's end-->
 * gone
 *
 * The broker cannot take the mapping away. So a room that has ended may be another sample's, and
 * whoever still writes to it damages that: the library stops writing (write_until_ns) before the
 * broker ends the reservation.
 */
#include "reservation.h"

#include <stdlib.h>

#include "checksum.h"
#include "clock.h"
#include "cuda.h"
#include "error.h"
#include "limit.h"
#include "pin.h"
#include "request.h"

/* The broker counts from when it granted the room, which is somewhat before its answer is here: a
 * part of the bound is left unused. */
#define BOUND_MARGIN 8u

int fc_check_writable(const struct feature_store *store) {
    return store->write ? FEATURE_OK
                        : fc_fail(FEATURE_E_DENIED, "store %s was opened read-only", store->name);
}

static void reservation_free_reservation(struct feature_reservation *reservation) {
    struct feature_store *store = reservation->store;
    feature_ref_free(reservation->ref);
    fc_mapping_unref(reservation->mapping);
    free(reservation);
    fc_store_unref(store);
}

/* In the session that it came from; in any other it has gone already. A note: nobody waits for it.
 * Without a connection the broker learns of it when the handle comes back and does not name it. */
static void reservation_cancel(struct feature_store *store, uint64_t session, uint64_t token) {
    Fb__Cancel message = FB__CANCEL__INIT;
    message.n_reservations = 1;
    message.reservations = &token;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_CANCEL;
    request.cancel = &message;
    pthread_mutex_lock(&store->feature->hub.lock);
    struct fc_link *link = fc_connection_link(store->feature);
    fc_held_drop(&store->feature->hub.held, 0, token);
    if (link && link->session == session) {
        message.handle = store->handle;
        fc_link_tell(link, &request);
        fc_flusher_settle(store->feature);
    }
    pthread_mutex_unlock(&store->feature->hub.lock);
}

static void reservation_forget(struct feature_store *store, uint64_t token) {
    pthread_mutex_lock(&store->feature->hub.lock);
    fc_held_drop(&store->feature->hub.held, 0, token);
    pthread_mutex_unlock(&store->feature->hub.lock);
}

/* Takes the ref if it succeeds. The offset is checked against the mapping before anything is
 * written there. */
static int reservation_take_grant(const struct fc_request *request, const Fb__PutResult *grant,
                                  struct feature_ref *ref, struct feature_reservation **out) {
    if (grant->status != FB__STATUS__OK)
        return fc_fail_status(grant->status, grant->error, request->what);
    const struct layout *layout = &ref->layout;
    if (!fc_mapping_holds(request->mapping, grant->extent_offset, layout->extent_bytes,
                          layout->align_bytes))
        return fc_request_nonsense(request);
    struct feature_reservation *reservation = malloc(sizeof *reservation);
    if (!reservation)
        return fc_fail_memory("reserve");
    uint64_t bound_ns = fc_store_reserve_ns(request->store);
    fc_store_ref(request->store);
    *reservation = (struct feature_reservation){
        .store = request->store,
        .mapping = fc_mapping_ref(request->mapping),
        .ref = ref,
        .token = grant->reservation,
        .session = request->session,
        .extent = request->mapping->base + grant->extent_offset,
        .write_until_ns = fc_after_ns(fc_boot_ns(), bound_ns - bound_ns / BOUND_MARGIN),
    };
    *out = reservation;
    return FEATURE_OK;
}

/* Takes the ref if it succeeds. If the answer cannot be used although a room was granted, the room
 * is given back at once. */
int fc_reserve(struct feature_store *store, struct feature_ref *ref, bool waits,
               uint64_t deadline_ns, struct feature_reservation **out) {
    Fb__ReserveItem item = FB__RESERVE_ITEM__INIT, *items = &item;
    item.sample_id = ref->sample_id;
    item.spec = (ProtobufCBinaryData){.data = ref->packed_spec, .len = ref->packed_spec_bytes};
    Fb__Reserve reserve = FB__RESERVE__INIT;
    reserve.n_items = 1;
    reserve.items = &items;
    reserve.deadline_ms = waits ? fc_left_ms(deadline_ns) : 0;
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &reserve.handle,
                   .what = "reserve", .deadline_ns = deadline_ns,
                   .grace_ms = waits ? FC_GRACE_MS : 0, .expected = FB__CLIENT_REPLY__RESULT_PUT);
    request.message.op_case = FB__CLIENT_REQUEST__OP_RESERVE;
    request.message.reserve = &reserve;
    int rc = fc_request(&request);
    if (!rc && request.reply->put->n_items != 1)
        rc = fc_request_nonsense(&request);
    if (!rc) {
        const Fb__PutResult *grant = request.reply->put->items[0];
        rc = reservation_take_grant(&request, grant, ref, out);
        if (rc && grant->status == FB__STATUS__OK)
            reservation_cancel(store, request.session, grant->reservation);
    }
    fc_request_deinit(&request);
    return rc;
}

/* `moved`: it was answered in another session than it was reserved in, as a repeat. If the broker
 * then refuses it, the first one had not arrived, and the room went with the old session. */
static int reservation_take_commit(const struct fc_request *request,
                                   struct feature_reservation *reservation,
                                   struct feature_ref **ref_out) {
    const Fb__PutReply *reply = request->reply->put;
    if (reply->n_items != 1)
        return fc_request_nonsense(request);
    const Fb__PutResult *result = reply->items[0];
    bool moved = request->session != reservation->session;
    if (result->status != FB__STATUS__OK && moved)
        return fc_fail(FEATURE_E_UNAVAILABLE,
                       "commit sample %s: the session was lost before it was carried out, and "
                       "the room with it; put it again",
                       reservation->ref->sample_id);
    if (result->status != FB__STATUS__OK)
        return fc_fail_status(result->status, result->error, request->what);
    if (!result->generation)
        return fc_request_nonsense(request);
    if (!ref_out)
        return FEATURE_OK;
    fc_ref_set_home(reservation->ref, result->generation, request->node, request->incarnation);
    *ref_out = feature_ref_dup(reservation->ref);
    return FEATURE_OK;
}

/* Takes the reservation, also on failure. session_wanted: a commit is first sent in the session
 * that granted the room, for in any other there is no such room. */
int fc_commit(struct feature_reservation *reservation, uint64_t deadline_ns,
              struct feature_ref **ref_out) {
    struct feature_store *store = reservation->store;
    uint8_t checksums[8 * LAYOUT_TENSORS_MAX];
    Fb__CommitItem item = FB__COMMIT_ITEM__INIT, *items = &item;
    item.reservation = reservation->token;
    item.checksums = (ProtobufCBinaryData){
        .data = checksums, .len = fc_ref_get_checksums(reservation->ref, checksums)};
    Fb__Commit commit = FB__COMMIT__INIT;
    commit.n_items = 1;
    commit.items = &items;
    commit.op_id = fc_connection_op_ids(store->feature, 1);
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &commit.handle,
                   .what = "commit", .session_wanted = reservation->session,
                   .deadline_ns = deadline_ns, .expected = FB__CLIENT_REPLY__RESULT_PUT);
    request.message.op_case = FB__CLIENT_REQUEST__OP_COMMIT;
    request.message.commit = &commit;
    int rc = fc_request(&request);
    if (!rc)
        rc = reservation_take_commit(&request, reservation, ref_out);
    /* No room stays behind whatever refused it: cancelling what was committed or is gone has no
     * effect. */
    if (rc)
        reservation_cancel(store, reservation->session, reservation->token);
    else
        reservation_forget(store, reservation->token);
    fc_request_deinit(&request);
    reservation_free_reservation(reservation);
    return rc;
}

int feature_reserve(struct feature_store *store, const struct feature_sample *sample,
                    uint32_t deadline_ms, struct feature_reservation **out) {
    struct feature_ref *ref;
    FC_NEEDS(out);
    int rc = fc_store_check(store);
    if (!rc)
        rc = fc_check_writable(store);
    if (!rc)
        rc = fc_ref_from_sample(store->name, sample, &ref);
    if (rc)
        return rc;
    rc = fc_reserve(store, ref, deadline_ms, fc_deadline_ns(deadline_ms), out);
    if (rc) {
        feature_ref_free(ref);
        return rc;
    }
    (*out)->cuda_stream = fc_ref_stream_of(sample);
    if ((*out)->cuda_stream)
        fc_pin(store, NULL);
    return FEATURE_OK;
}

void *feature_reservation_data(const struct feature_reservation *reservation, uint32_t tensor) {
    if (!reservation)
        return NULL;
    const struct layout *layout = &reservation->ref->layout;
    return tensor < layout->tensor_count ? reservation->extent + layout->offset_bytes[tensor]
                                         : NULL;
}

/* The checksums are made of what lies in the mapping now. What the caller writes there afterwards
 * is found by whoever verifies. */
int feature_commit(struct feature_reservation *reservation, struct feature_ref **ref_out) {
    FC_NEEDS(reservation);
    struct feature_ref *ref = reservation->ref;
    int rc = fc_connection_check(reservation->store->feature);
    if (rc) {
        reservation_free_reservation(reservation);
        return rc;
    }
    rc = fc_cuda_wait(reservation->cuda_stream, "commit", ref->sample_id);
    if (rc) {
        feature_cancel(reservation);
        return rc;
    }
    ref->has_checksums = fc_store_checksums(reservation->store);
    for (uint32_t i = 0; ref->has_checksums && i < ref->layout.tensor_count; i++)
        ref->tensors[i].checksum =
            fc_checksum(feature_reservation_data(reservation, i), ref->tensors[i].bytes);
    return fc_commit(reservation, fc_deadline_ns(0), ref_out);
}

void feature_cancel(struct feature_reservation *reservation) {
    if (!reservation)
        return;
    if (!fc_connection_forked(reservation->store->feature))
        reservation_cancel(reservation->store, reservation->session, reservation->token);
    reservation_free_reservation(reservation);
}
