/* SPDX-License-Identifier: Apache-2.0
 *
 * exists, stat, list and health: take no lease, change nothing.
 */
#include "probe.h"

#include <string.h>

#include "error.h"
#include "key.h"
#include "limit.h"
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
 * feature_list(). The key's strings are borrowed. */
static void probe_make(struct fc_probe *probe, struct feature_store *store, struct feature_key key,
                       const char *what) {
    fc_key_fill(key, &probe->item);
    probe->items = &probe->item;
    fb__stat__init(&probe->stat);
    probe->stat.n_items = 1;
    probe->stat.items = &probe->items;
    probe->request =
        FC_REQUEST(.feature = store->feature, .store = store, .handle = &probe->stat.handle,
                   .what = what, .expected = FB__CLIENT_REPLY__RESULT_STAT);
    probe->request.message.op_case = FB__CLIENT_REQUEST__OP_STAT;
    probe->request.message.stat = &probe->stat;
    probe->answered = false;
    probe->found = FEATURE_OK;
}

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
    struct fc_probe probe;
    probe_make(&probe, store, known, "stat");
    rc = fc_request(&probe.request);
    if (!rc)
        rc = probe_take_stat(&probe.request, out, ref_out);
    fc_request_deinit(&probe.request);
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

/* ---- asked now, answered later ---- */

/* What keeps the first step from sending it keeps it until fc_probe_end(), which steps again. */
void fc_probe_begin(struct fc_probe *probe, struct feature_store *store, const char *sample_id,
                    const char *what) {
    const struct feature_key key = {.size = sizeof key, .sample_id = sample_id};
    probe_make(probe, store, key, what);
    pthread_mutex_lock(&store->feature->hub.lock);
    (void)fc_request_step(&probe->request);
    fc_connection_unlock(store->feature);
}

bool fc_probe_has_answer(const struct fc_probe *probe) {
    struct feature *feature = probe->request.feature;
    pthread_mutex_lock(&feature->hub.lock);
    bool has = probe->answered || (probe->request.awaited == FC_AWAITS_ANSWER &&
                                   fc_call_is_over(&probe->request.call));
    pthread_mutex_unlock(&feature->hub.lock);
    return has;
}

static int probe_find(struct fc_probe *probe) {
    struct feature_info info = FEATURE_INFO_INIT;
    int rc = fc_request(&probe->request);
    if (!rc)
        rc = probe_take_stat(&probe->request, &info, NULL);
    if (rc)
        return rc == FEATURE_E_NOT_FOUND || rc == FEATURE_E_LOST ? FEATURE_OK : rc;
    if (info.state != FEATURE_STATE_RESIDENT)
        return FEATURE_OK;
    return fc_fail(FEATURE_E_EXISTS, "%s sample %s: it is there already, and stays as it is",
                   probe->request.what, info.sample_id);
}

int fc_probe_end(struct fc_probe *probe) {
    if (!probe->answered)
        probe->found = probe_find(probe);
    probe->answered = true;
    return probe->found;
}

void fc_probe_drop(struct fc_probe *probe) {
    struct feature *feature = probe->request.feature;
    pthread_mutex_lock(&feature->hub.lock);
    fc_request_abandon(&probe->request);
    fc_connection_unlock(feature);
    fc_request_deinit(&probe->request);
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
