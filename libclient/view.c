/* SPDX-License-Identifier: Apache-2.0
 *
 * The view of a lease, from grant to release. It needs a connection only to say that it ends; its
 * bytes stay mapped until then.
 */
#include "view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "limit.h"
#include "release.h"
#include "socket.h"

#define LOOK_NS (1000 * FC_NS_PER_MS) /* to find out whether a broker is there */

/* The ref of what came. The one that was asked with is shared when it has the specs; otherwise a
 * new one is made from the answer. What the answer does not say (home and incarnation of a sample
 * of this node) is that of the broker which answered. */
static const char *view_make_ref(const struct fc_request *request, const Fb__GetResult *result,
                                 const struct feature_ref *known, const char *sample_id,
                                 struct feature_ref **out) {
    if (known && known->spec) {
        *out = feature_ref_dup(known);
        return NULL;
    }
    const char *home = *result->home ? result->home : known ? known->home : request->node;
    uint64_t incarnation = result->incarnation ? result->incarnation
                           : known             ? known->incarnation
                                               : request->incarnation;
    if (layout_check_name(home))
        return "its home's name is not valid";
    struct feature_ref *ref = fc_ref_new(request->store->name, sample_id);
    if (!ref)
        return fc_wrong_memory;
    fc_ref_set_home(ref, result->generation, home, incarnation);
    const char *wrong = fc_ref_set_spec(ref, result->spec.data, result->spec.len);
    if (!wrong)
        wrong = fc_ref_set_checksums(ref, result->checksums.data, result->checksums.len);
    if (wrong)
        feature_ref_free(ref);
    else
        *out = ref;
    return wrong;
}

/* The broker is trusted to be no enemy, not to be free of faults: a wrong generation would be
 * silent corruption, and an extent outside the arena a crash. */
static const char *view_check_grant(const struct fc_request *request, const Fb__GetResult *result,
                                    const struct feature_ref *ref) {
    if (result->generation != ref->generation)
        return "it is another generation";
    if (result->extent_bytes < ref->layout.extent_bytes)
        return "its extent is too small for its tensors";
    if (!fc_mapping_holds(request->mapping, result->extent_offset, result->extent_bytes,
                          ref->layout.align_bytes))
        return "its extent lies outside the arena";
    return NULL;
}

/* On failure the lease is still the caller's to release: it alone knows whether the sample was
 * read. An answer that was refused is a fault of the broker (INTERNAL), unless there was no memory
 * for it. */
int fc_view_new(const struct fc_request *request, const Fb__GetResult *result,
                const struct feature_ref *known, const char *sample_id, struct feature_view **out) {
    struct feature_ref *ref = NULL;
    struct feature_view *view = malloc(sizeof *view);
    const char *wrong =
        view ? view_make_ref(request, result, known, sample_id, &ref) : fc_wrong_memory;
    if (!wrong)
        wrong = view_check_grant(request, result, ref);
    if (wrong) {
        feature_ref_free(ref);
        free(view);
        char what[LAYOUT_ID_BYTES_MAX + 64];
        snprintf(what, sizeof what, "get sample %s: the broker's answer was refused", sample_id);
        return fc_fail_wrong(FEATURE_E_INTERNAL, what, wrong);
    }
    fc_store_ref(request->store);
    *view = (struct feature_view){
        .store = request->store,
        .mapping = fc_mapping_ref(request->mapping),
        .ref = ref,
        .extent = request->mapping->base + result->extent_offset,
        .lease_hi = result->lease_hi,
        .lease_lo = result->lease_lo,
        .session = request->session,
        .incarnation = request->incarnation,
    };
    *out = view;
    return FEATURE_OK;
}

/* `begun` has checked a part of these very bytes while they arrived; the rest is checked now, in
 * this thread. */
int fc_view_verify(const struct feature_view *view, struct fc_verifier *begun) {
    const struct feature_ref *ref = view->ref;
    struct fc_verifier fresh;
    if (!ref->has_checksums)
        return FEATURE_OK;
    if (!begun) {
        fc_verifier_init(&fresh, ref, &(struct fc_origin){0});
        begun = &fresh;
    }
    if (fc_verifier_advance(begun, view->extent, ref->layout.extent_bytes))
        return FEATURE_OK;
    return fc_fail(FEATURE_E_CORRUPT,
                   "sample %s of store %s, generation %" PRIu64 ", home %s: tensor %s does not "
                   "match its checksum",
                   ref->sample_id, ref->store, ref->generation, ref->home,
                   ref->tensors[begun->tensor].name);
}

/* Epoch and incarnation go along: whether the release still matters is decided when it is sent,
 * perhaps on another connection. */
static struct fc_release view_release_of(const struct feature_view *view, bool consumed,
                                         bool corrupt) {
    return (struct fc_release){.lease_hi = view->lease_hi,
                               .lease_lo = view->lease_lo,
                               .lease_session = view->session,
                               .lease_incarnation = view->incarnation,
                               .consumed = consumed,
                               .corrupt = corrupt};
}

static void view_free_view(struct feature_view *view) {
    struct feature_store *store = view->store;
    feature_ref_free(view->ref);
    fc_mapping_unref(view->mapping);
    free(view);
    fc_store_unref(store);
}

void fc_view_end(struct feature_view *view, enum feature_release_how how) {
    struct fc_release release = view_release_of(view, how == FEATURE_RELEASE_CONSUMED, false);
    fc_release_say(view->store, &release, 1);
    view_free_view(view);
}

/* For a thread that must not wait: what the socket does not take at once goes later. */
void fc_view_leave(struct feature_view *view, bool corrupt) {
    struct fc_release release = view_release_of(view, false, corrupt);
    fc_release_leave(view->store, &release, 1);
    view_free_view(view);
}

const struct feature_ref *feature_view_ref(const struct feature_view *view) {
    return view ? view->ref : NULL;
}

const void *feature_view_data(const struct feature_view *view, uint32_t tensor) {
    if (!view)
        return NULL;
    const struct layout *layout = &view->ref->layout;
    return tensor < layout->tensor_count ? view->extent + layout->offset_bytes[tensor] : NULL;
}

/* By name among at most 64: a loop is faster than a table would be to make. */
int feature_view_find(const struct feature_view *view, const char *tensor_name) {
    for (uint32_t i = 0; view && tensor_name && i < view->ref->layout.tensor_count; i++)
        if (!strcmp(view->ref->tensors[i].name, tensor_name))
            return (int)i;
    return -1;
}

/* The session that granted the lease has ended. LOST is said only where its broker is known, or has
 * every appearance, to be gone; then nobody can replace the bytes. If the broker lives, it has
 * taken the lease back, and the bytes may become another sample's at any moment. */
static int view_lease_ended(const struct feature_view *view, bool nobody) {
    const struct feature *feature = view->store->feature;
    const struct fc_link *link = fc_connection_link(feature);
    const char *sample_id = view->ref->sample_id;
    if (nobody)
        return fc_fail(FEATURE_E_LOST,
                       "the lease on sample %s ended with the connection that granted it, and its "
                       "broker is not there: %s",
                       sample_id, feature->why);
    if (link && link->incarnation != view->incarnation)
        return fc_fail(FEATURE_E_LOST,
                       "the lease on sample %s ended with the broker that granted it, which has "
                       "been replaced by another",
                       sample_id);
    return fc_fail(
        FEATURE_E_UNAVAILABLE,
        "the lease on sample %s ended with the connection that granted it%s%s; its bytes "
        "may be replaced: get it again",
        sample_id, link ? ", though its broker lives" : ": no answer from its broker: ",
        link ? "" : feature->why);
}

/* With the lock held. A lease is its session's. As long as no broker has answered that the session
 * is over, it holds: either the broker comes back with its memory, and with the session, or it has
 * lost its memory, and then nobody writes there. A session that ends with its connection (a broker
 * before 0.11, or no lock to be had) is over with it. */
static int view_check_lease(const struct feature_view *view) {
    struct feature *feature = view->store->feature;
    const struct fc_link *link = fc_connection_link(feature);
    if (link && fc_socket_ended(link->socket.fd)) {
        fc_link_break(feature->link, "the broker closed it");
        link = NULL;
    }
    if (feature->closed)
        return fc_fail(FEATURE_E_LOST,
                       "the lease on sample %s ended with the session that granted it: it was "
                       "closed by this process",
                       view->ref->sample_id);
    if (link && link->session == view->session)
        return FEATURE_OK;
    bool nobody = fc_connection_gone(feature, fc_after_ns(fc_now_ns(), LOOK_NS));
    link = fc_connection_link(feature);
    if (link ? link->session == view->session
             : feature->session.lasts && feature->session.number == view->session)
        return FEATURE_OK;
    return view_lease_ended(view, nobody);
}

int feature_view_check(const struct feature_view *view) {
    FC_NEEDS(view);
    struct feature *feature = view->store->feature;
    int rc = fc_connection_check(feature);
    if (rc)
        return rc;
    pthread_mutex_lock(&feature->hub.lock);
    rc = view_check_lease(view);
    fc_connection_unlock(feature);
    return rc;
}

int fc_view_check_how(enum feature_release_how how, const char *function) {
    if (how == FEATURE_RELEASE_RETURNED || how == FEATURE_RELEASE_CONSUMED)
        return FEATURE_OK;
    return fc_fail(FEATURE_E_INVALID, "%s: how is %d, neither returned nor consumed", function,
                   (int)how);
}

int feature_release(struct feature_view *view, enum feature_release_how how) {
    return feature_release_batch(&view, 1, how);
}

/* Views of one store in one go, as many as stand in a row: a Release names one handle. */
static size_t view_release_run(struct feature_view **views, size_t count,
                               enum feature_release_how how) {
    struct fc_release releases[FRAME_BATCH_ITEMS_MAX];
    struct feature_store *store = views[0]->store;
    size_t run = 0;
    while (run < count && run < FRAME_BATCH_ITEMS_MAX && views[run] && views[run]->store == store) {
        releases[run] = view_release_of(views[run], how == FEATURE_RELEASE_CONSUMED, false);
        run++;
    }
    fc_release_say(store, releases, run);
    return run;
}

/* In a forked child a view is freed and nothing is said: the lease is the parent's. */
int feature_release_batch(struct feature_view **views, size_t count, enum feature_release_how how) {
    int rc = FEATURE_OK;
    FC_NEEDS(views || !count);
    rc = fc_view_check_how(how, __func__);
    if (rc)
        return rc;
    for (size_t first = 0, run; first < count; first += run) {
        run = 1;
        if (!views[first])
            continue;
        int forked = fc_connection_check(views[first]->store->feature);
        if (forked)
            rc = forked;
        else
            run = view_release_run(views + first, count - first, how);
        for (size_t i = first; i < first + run; i++)
            view_free_view(views[i]);
    }
    return rc;
}
