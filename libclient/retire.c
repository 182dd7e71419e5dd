/* SPDX-License-Identifier: Apache-2.0
 *
 * Ack and abort: the same message under two names.
 */
#include "error.h"
#include "key.h"
#include "request.h"

static int retire_chunk(struct feature_store *store, bool ack, const struct feature_key *keys,
                        size_t count, struct fc_first_error *failure) {
    Fb__RetireItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__Retire retire = FB__RETIRE__INIT;
    for (size_t i = 0; i < count; i++) {
        pointers[i] = &items[i];
        fc_key_fill(keys[i], &items[i]);
    }
    retire.items = pointers;
    retire.n_items = count;
    retire.op_id = fc_connection_op_ids(store->feature, (uint32_t)count);
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &retire.handle,
                   .what = ack ? "ack" : "abort", .expected = FB__CLIENT_REPLY__RESULT_ITEMS);
    request.message.op_case = ack ? FB__CLIENT_REQUEST__OP_ACK : FB__CLIENT_REQUEST__OP_ABORT;
    request.message.ack = &retire; /* the same place as .abort */
    int rc = fc_request(&request);
    if (!rc && request.reply->items->n_items != count)
        rc = fc_request_nonsense(&request);
    for (size_t i = 0; !rc && i < count; i++) {
        const Fb__ItemResult *result = request.reply->items->items[i];
        if (result->status != FB__STATUS__OK)
            fc_first_error_note(failure,
                                fc_fail_status(result->status, result->error, request.what));
    }
    fc_request_deinit(&request);
    return rc;
}

/* Every key is acted on, whatever becomes of the others, unless the broker is out of reach. */
static int retire_all(struct feature_store *store, bool ack, const struct feature_key *keys,
                      size_t count) {
    struct fc_first_error failure = {.error = FEATURE_OK};
    if (!keys && count)
        return fc_fail(FEATURE_E_INVALID, "%s: %zu keys, and the list of keys is NULL",
                       ack ? "ack" : "abort", count);
    int rc = fc_store_check(store);
    for (size_t i = 0; !rc && i < count; i++)
        rc = fc_key_check(store, keys[i]);
    if (rc)
        return rc;
    size_t chunk_max = fc_connection_limits(store->feature).batch_items;
    for (size_t done = 0, chunk; done < count; done += chunk) {
        chunk = count - done < chunk_max ? count - done : chunk_max;
        rc = retire_chunk(store, ack, keys + done, chunk, &failure);
        if (rc)
            return rc;
    }
    return fc_first_error_raise(&failure);
}

int feature_ack(struct feature_store *store, const struct feature_key *keys, size_t count) {
    return retire_all(store, true, keys, count);
}

int feature_abort(struct feature_store *store, const struct feature_key *keys, size_t count) {
    return retire_all(store, false, keys, count);
}
