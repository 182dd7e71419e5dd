/* SPDX-License-Identifier: Apache-2.0
 *
 * gc and drain. A drain has two halves: what this process has still to say to its broker, which is
 * flushed first, and what the broker has still to say to others, which it waits for and counts.
 */
#include <inttypes.h>

#include "clock.h"
#include "error.h"
#include "flush.h"
#include "request.h"

/* freed_out counts samples. Those that somebody still reads are not freed, however old they are. */
int feature_gc(struct feature_store *store, uint64_t max_hold_ms, uint64_t *freed_out) {
    Fb__Gc gc = FB__GC__INIT;
    int rc = fc_store_check(store);
    if (rc)
        return rc;
    gc.max_hold_ms = max_hold_ms;
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &gc.handle, .what = "gc",
                   .expected = FB__CLIENT_REPLY__RESULT_ITEMS);
    request.message.op_case = FB__CLIENT_REQUEST__OP_GC;
    request.message.gc = &gc;
    rc = fc_request(&request);
    if (!rc && freed_out)
        *freed_out = request.reply->items->count;
    fc_request_deinit(&request);
    return rc;
}

/* Without a deadline it only asks: nothing is flushed and nobody waits. The sentence of a broker
 * that is not done names what is left and where it has to go. */
int feature_drain(struct feature *feature, uint32_t deadline_ms) {
    int rc = fc_connection_check(feature);
    if (rc)
        return rc;
    uint64_t deadline_ns = fc_deadline_ns(deadline_ms);
    if (deadline_ms)
        fc_flush_releases(feature, deadline_ns);
    Fb__Drain drain = FB__DRAIN__INIT;
    drain.deadline_ms = deadline_ms ? fc_left_ms(deadline_ns) : 0;
    struct fc_request request =
        FC_REQUEST(.feature = feature, .what = "drain", .deadline_ns = deadline_ns,
                   .grace_ms = deadline_ms ? FC_GRACE_MS : 0,
                   .expected = FB__CLIENT_REPLY__RESULT_DRAIN);
    request.message.op_case = FB__CLIENT_REQUEST__OP_DRAIN;
    request.message.drain = &drain;
    rc = fc_request(&request);
    if (!rc && request.reply->drain->release_pending)
        rc = *request.reply->drain->sentence
                 ? fc_fail(FEATURE_E_TIMEOUT, "%s", request.reply->drain->sentence)
                 : fc_fail(FEATURE_E_TIMEOUT, "drain: %" PRIu64 " releases are pending after %u ms",
                           request.reply->drain->release_pending, deadline_ms);
    fc_request_deinit(&request);
    return rc;
}
