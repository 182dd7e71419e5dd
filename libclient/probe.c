/* SPDX-License-Identifier: Apache-2.0
 *
 * exists, stat, list and health: take no lease, change nothing.
 */
#include <string.h>

#include "error.h"
#include "key.h"
#include "limit.h"
#include "request.h"
#include "sized.h"

#define LIST_PAGE 256u

/* Words for people; they are part of the interface (feature.h) and stay as they are. A reason that
 * came later than this library is "unknown". */
static const char *probe_reason_words(Fb__Reason reason) {
    static const char *const words[] = {
        [FB__REASON__NONE] = "",
        [FB__REASON__CONSUMED] = "consumed",
        [FB__REASON__ACKED] = "acked",
        [FB__REASON__ABORTED] = "aborted",
        [FB__REASON__SUPERSEDED] = "superseded",
        [FB__REASON__MAX_HOLD] = "held too long",
        [FB__REASON__DROPPED] = "store dropped",
        [FB__REASON__CANCELLED] = "cancelled",
        [FB__REASON__PRODUCER_DIED] = "producer died",
        [FB__REASON__UNCACHED] = "copy no longer needed",
        [FB__REASON__FETCH_FAILED] = "fetch failed",
        [FB__REASON__RESERVE_ENDED] = "not committed in time",
    };
    return (size_t)reason < sizeof words / sizeof *words ? words[reason] : "unknown";
}

/* The id is cut if it is longer than any id may be. State and numbers are passed on as they came.
 */
static void probe_fill_sample(struct feature_info *out, const Fb__SampleInfo *info) {
    *out = (struct feature_info){
        .size = sizeof *out,
        .generation = info->generation,
        .state = (enum feature_state)info->state,
        .reason = probe_reason_words(info->reason),
        .extent_bytes = info->extent_bytes,
        .age_ms = info->age_ms,
        .leases = info->leases,
        .consumed = info->consumed,
        .readers = info->readers,
        .landing = info->landing,
    };
    strncpy(out->sample_id, info->sample_id, sizeof out->sample_id - 1);
}

/* ---- stat ---- */

/* The names in the answer are checked like those of any ref: this one may be stored and sent on. */
static int probe_make_ref(const struct fc_request *request, const Fb__StatResult *result,
                          struct feature_ref **out) {
    const char *home = *result->home ? result->home : request->node;
    const char *wrong = NULL;
    if (layout_check_sample_id(result->info->sample_id) || layout_check_name(home))
        return fc_request_nonsense(request);
    struct feature_ref *ref = fc_ref_new(request->store->name, result->info->sample_id);
    if (!ref)
        return fc_fail_memory("stat");
    fc_ref_set_home(ref, result->info->generation, home,
                    result->incarnation ? result->incarnation : request->incarnation);
    if (result->spec.len)
        wrong = fc_ref_set_spec(ref, result->spec.data, result->spec.len);
    if (!wrong)
        wrong = fc_ref_set_checksums(ref, result->checksums.data, result->checksums.len);
    if (wrong) {
        feature_ref_free(ref);
        return fc_fail_wrong(FEATURE_E_INTERNAL, "stat: the broker's answer was refused", wrong);
    }
    *out = ref;
    return FEATURE_OK;
}

/* Both outputs or none: *ref_out is set only once nothing can fail any more. */
static int probe_take_stat(const struct fc_request *request, struct feature_info *out,
                           struct feature_ref **ref_out) {
    if (request->reply->stat->n_items != 1)
        return fc_request_nonsense(request);
    const Fb__StatResult *result = request->reply->stat->items[0];
    struct feature_ref *ref = NULL;
    if (result->status != FB__STATUS__OK)
        return fc_fail_status(result->status, result->error, request->what);
    if (!result->info)
        return fc_request_nonsense(request);
    int rc = ref_out ? probe_make_ref(request, result, &ref) : FEATURE_OK;
    if (rc)
        return rc;
    if (ref_out)
        *ref_out = ref;
    struct feature_info known;
    probe_fill_sample(&known, result->info);
    fc_sized_write(out, &known, sizeof known);
    return FEATURE_OK;
}

/* A stat is one item, though the message could hold more: whoever asks for many wants
 * feature_list(). */
int feature_stat(struct feature_store *store, const struct feature_key *key,
                 struct feature_info *out, struct feature_ref **ref_out) {
    struct feature_key known;
    FC_NEEDS(out);
    int rc = fc_store_check(store);
    if (!rc)
        rc = fc_sized_check_out(out, "feature_info");
    if (!rc)
        rc = fc_key_read(store, key, &known);
    if (rc)
        return rc;
    Fb__RetireItem item, *items = &item;
    fc_key_fill(known, &item);
    Fb__Stat stat = FB__STAT__INIT;
    stat.n_items = 1;
    stat.items = &items;
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &stat.handle,
                   .what = "stat", .expected = FB__CLIENT_REPLY__RESULT_STAT);
    request.message.op_case = FB__CLIENT_REQUEST__OP_STAT;
    request.message.stat = &stat;
    rc = fc_request(&request);
    if (!rc)
        rc = probe_take_stat(&request, out, ref_out);
    fc_request_deinit(&request);
    return rc;
}

/* A state that this library does not know is not RESIDENT. */
int feature_exists(struct feature_store *store, const struct feature_key *key) {
    struct feature_info info = FEATURE_INFO_INIT;
    int rc = feature_stat(store, key, &info, NULL);
    if (rc || info.state == FEATURE_STATE_RESIDENT)
        return rc;
    return fc_fail(FEATURE_E_NOT_FOUND, "sample %s is not resident%s%s", info.sample_id,
                   *info.reason ? ": " : "", info.reason);
}

/* ---- list ---- */

/* visit() runs without the lock, between requests: it may use the library. A broker that is asked
 * for the next page starts behind the last sample of this one, so samples that come and go
 * meanwhile are seen or not, but none twice. */
static int probe_list_page(struct feature_store *store, Fb__List *list,
                           bool (*visit)(void *context, const struct feature_info *info),
                           void *context, bool *more_out) {
    struct fc_request request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &list->handle,
                   .what = "list", .expected = FB__CLIENT_REPLY__RESULT_LIST);
    request.message.op_case = FB__CLIENT_REQUEST__OP_LIST;
    request.message.list = list;
    int rc = fc_request(&request);
    bool more = !rc;
    for (size_t i = 0; more && i < request.reply->list->n_samples; i++) {
        struct feature_info info;
        probe_fill_sample(&info, request.reply->list->samples[i]);
        more = visit(context, &info);
    }
    if (!rc) {
        list->cursor = request.reply->list->cursor;
        *more_out = more && list->cursor;
    }
    fc_request_deinit(&request);
    return rc;
}

int feature_list(struct feature_store *store, const char *prefix,
                 bool (*visit)(void *context, const struct feature_info *info), void *context) {
    Fb__List list = FB__LIST__INIT;
    FC_NEEDS(visit);
    int rc = fc_store_check(store);
    list.limit = LIST_PAGE;
    list.prefix = (char *)(prefix ? prefix : "");
    bool more = true;
    while (more && !rc)
        rc = probe_list_page(store, &list, visit, context, &more);
    return rc;
}

/* ---- health ---- */

/* The node's name is cut if it is longer than any may be; everything else is passed on as it came.
 */
static void probe_fill_health(struct feature_health *out, const Fb__HealthReply *reply) {
    *out = (struct feature_health){
        .size = sizeof *out,
        .incarnation = reply->incarnation,
        .uptime_ms = reply->uptime_ms,
        .resident_bytes = reply->resident_bytes,
        .max_resident_bytes = reply->max_resident_bytes,
        .sessions = reply->sessions,
        .leases = reply->leases,
        .release_pending = reply->release_pending,
        .draining = reply->draining,
    };
    strncpy(out->node, reply->node, sizeof out->node - 1);
}

int feature_health(struct feature *feature, struct feature_health *out) {
    FC_NEEDS(out);
    int rc = fc_sized_check_out(out, "feature_health");
    if (rc)
        return rc;
    Fb__Health health = FB__HEALTH__INIT;
    struct fc_request request = FC_REQUEST(.feature = feature, .what = "health",
                                           .expected = FB__CLIENT_REPLY__RESULT_HEALTH);
    request.message.op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    request.message.health = &health;
    rc = fc_request(&request);
    if (!rc) {
        struct feature_health known;
        probe_fill_health(&known, request.reply->health);
        fc_sized_write(out, &known, sizeof known);
    }
    fc_request_deinit(&request);
    return rc;
}
