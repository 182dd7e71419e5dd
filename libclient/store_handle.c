/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening, once per connection:
 *
 *   StoreOpen --> StoreOpened                                   (a store without a secret)
 *   StoreOpen --> StoreChallenge; StoreProve --> StoreOpened    (with one: both sides prove it)
 *
 * A client that was given a secret refuses a broker that does not prove it, be it by a wrong proof
 * or by not asking. The secret itself is forgotten at once; the key derived from it stays in locked
 * memory to open the store again.
 */
#include "store_handle.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "limit.h"
#include "pin.h"
#include "proto/auth.h"
#include "proto/layout.h"
#include "release.h"
#include "request.h"
#include "sized.h"

/* ---- opening on a link; all with the lock held, released while waiting ---- */

/* A request of the handshake itself. It does not go through request.c, which would open the store
 * first. */
static int store_handle_open_call(struct feature_store *store, struct fc_link *link,
                                  struct fc_exchange *x) {
    int rc = fc_link_call(link, x);
    if (rc == FEATURE_E_TIMEOUT)
        return fc_fail(rc, "open store %s: the broker did not answer in time", store->name);
    if (rc)
        return rc;
    if (x->reply->status == FB__STATUS__OK)
        return FEATURE_OK;
    return fc_fail_status(x->reply->status, x->reply->error, "open the store");
}

/* An opening that this process cannot use: the handle counts against its limit at the broker until
 * it is closed. */
static void store_handle_close_handle(struct fc_link *link, uint32_t handle) {
    Fb__StoreClose store_close = FB__STORE_CLOSE__INIT;
    store_close.handle = handle;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_CLOSE;
    request.store_close = &store_close;
    fc_link_tell(link, &request);
}

/* Answers the challenge in x->reply; x then holds the StoreOpened. The broker's proof is made with
 * the same nonces and another role, so it cannot be ours sent back. */
static int store_handle_prove(struct feature_store *store, struct fc_link *link,
                              const uint8_t *client_nonce, struct fc_exchange *x) {
    const ProtobufCBinaryData nonce = x->reply->store_challenge->server_nonce;
    uint8_t proof[AUTH_PROOF_BYTES], expected[AUTH_PROOF_BYTES];
    if (!store->key)
        return fc_fail(FEATURE_E_DENIED, "store %s wants a secret and none was given", store->name);
    if (nonce.len != AUTH_NONCE_BYTES)
        return fc_fail(FEATURE_E_INTERNAL, "store %s: a challenge of %zu bytes", store->name,
                       nonce.len);
    size_t name_bytes = strlen(store->name);
    auth_proof(store->key, AUTH_ROLE_ASKER, store->name, name_bytes, client_nonce, nonce.data,
               proof);
    auth_proof(store->key, AUTH_ROLE_ANSWERER, store->name, name_bytes, client_nonce, nonce.data,
               expected);
    fc_exchange_deinit(x);
    Fb__StoreProve store_prove = FB__STORE_PROVE__INIT;
    store_prove.store = store->name;
    store_prove.proof = (ProtobufCBinaryData){.data = proof, .len = sizeof proof};
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_PROVE;
    request.store_prove = &store_prove;
    x->request = &request;
    int rc = store_handle_open_call(store, link, x);
    x->request = NULL;
    if (rc || x->reply->result_case != FB__CLIENT_REPLY__RESULT_STORE_OPENED)
        return rc;
    const ProtobufCBinaryData theirs = x->reply->store_opened->server_proof;
    if (theirs.len == sizeof expected && auth_equal(theirs.data, expected, sizeof expected))
        return FEATURE_OK;
    store_handle_close_handle(link, x->reply->store_opened->handle);
    return fc_fail(FEATURE_E_DENIED,
                   "store %s: the broker did not prove that it knows the secret; do not trust it",
                   store->name);
}

/* A broker that opens a store without a challenge although we have a secret is refused too: it may
 * be an impostor who does not know it and hopes that we do not mind. */
static int store_handle_ask(struct feature_store *store, struct fc_link *link,
                            struct fc_exchange *x) {
    uint8_t client_nonce[AUTH_NONCE_BYTES];
    auth_nonce(client_nonce);
    Fb__StoreOpen store_open = FB__STORE_OPEN__INIT;
    store_open.store = store->name;
    store_open.client_nonce =
        (ProtobufCBinaryData){.data = client_nonce, .len = sizeof client_nonce};
    store_open.write = store->write;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &store_open;
    x->request = &request;
    int rc = store_handle_open_call(store, link, x);
    if (rc)
        return rc;
    if (x->reply->result_case == FB__CLIENT_REPLY__RESULT_STORE_CHALLENGE)
        return store_handle_prove(store, link, client_nonce, x);
    if (x->reply->result_case != FB__CLIENT_REPLY__RESULT_STORE_OPENED || !store->key)
        return FEATURE_OK;
    store_handle_close_handle(link, x->reply->store_opened->handle);
    return fc_fail(FEATURE_E_DENIED, "store %s has no secret, but one was given to open it",
                   store->name);
}

/* Address space is what may be short: a store is mapped once, however many handles have it open. */
static int store_handle_share_mapping(struct feature_store *store, int fd, uint64_t bytes,
                                      struct fc_mapping **out) {
    for (struct feature_store *other = store->feature->stores; other; other = other->next)
        if (other->mapping && fc_mapping_is(other->mapping, fd, bytes, store->write)) {
            *out = fc_mapping_ref(other->mapping);
            return FEATURE_OK;
        }
    return fc_mapping_new(store->name, fd, bytes, store->write, out);
}

/* Once everything has been checked the store changes over to the new connection, all at one moment
 * (the lock is held): mapping, handle, epoch and settings belong together. */
static int store_handle_take_opened(struct feature_store *store, struct fc_link *link,
                                    struct fc_exchange *x) {
    const Fb__StoreOpened *opened = x->reply->result_case == FB__CLIENT_REPLY__RESULT_STORE_OPENED
                                        ? x->reply->store_opened
                                        : NULL;
    if (opened && x->descriptor_lost) {
        char what[96];
        snprintf(what, sizeof what, "open store %s", store->name);
        store_handle_close_handle(link, opened->handle);
        return fc_fail_descriptor(what, 0);
    }
    if (!opened || x->descriptor.fd < 0)
        return fc_fail(FEATURE_E_INTERNAL, "open store %s: the broker's answer has no arena",
                       store->name);
    if (opened->write != store->write) {
        store_handle_close_handle(link, opened->handle);
        return fc_fail(FEATURE_E_INTERNAL, "open store %s: opened with other access than asked",
                       store->name);
    }
    struct fc_mapping *mapping;
    int rc = store_handle_share_mapping(store, x->descriptor.fd, opened->arena_bytes, &mapping);
    if (rc) {
        store_handle_close_handle(link, opened->handle);
        return rc;
    }
    fc_mapping_unref(store->mapping);
    store->mapping = mapping;
    store->handle = opened->handle;
    store->epoch = link->epoch;
    if (opened->settings) {
        store->checksum = opened->settings->checksum;
        store->max_reserve_ms = opened->settings->max_reserve_ms;
    }
    return FEATURE_OK;
}

/* The link is held by a reference: another thread may replace it while we wait. `opening` keeps
 * others from opening the same handle twice. */
static int store_handle_open_once(struct feature_store *store, uint64_t deadline_ns) {
    struct fc_link *link = store->feature->link;
    struct fc_exchange exchange = {.deadline_ns = deadline_ns, .descriptor = {.fd = -1}};
    fc_link_ref(link);
    store->opening = true;
    int rc = store_handle_ask(store, link, &exchange);
    if (!rc)
        rc = store_handle_take_opened(store, link, &exchange);
    if (!rc)
        fc_release_reopened(store, link->epoch, link->incarnation);
    fc_exchange_deinit(&exchange);
    store->opening = false;
    pthread_cond_broadcast(&store->feature->changed);
    fc_link_unref(link);
    return rc;
}

/* After a new connection each store is opened anew by the first request that needs it; others wait
 * for that one. FC_LINK_LOST: the connection broke meanwhile, so it begins again with connecting.
 */
int fc_store_ready(struct feature_store *store, uint64_t deadline_ns) {
    struct feature *feature = store->feature;
    for (;;) {
        int rc = fc_connection_ready(feature, deadline_ns);
        if (rc)
            return rc;
        if (store->epoch == feature->link->epoch)
            return FEATURE_OK;
        if (!store->opening) {
            rc = store_handle_open_once(store, deadline_ns);
            if (rc && rc != FC_LINK_LOST)
                return rc;
            continue;
        }
        if (!fc_left_ns(deadline_ns))
            return fc_fail(FEATURE_E_TIMEOUT, "store %s is being opened by another thread",
                           store->name);
        struct timespec until = fc_timespec(deadline_ns);
        pthread_cond_clockwait(&feature->changed, &feature->lock, CLOCK_MONOTONIC, &until);
    }
}

/* ---- life ---- */

int fc_store_check(const struct feature_store *store) {
    if (!store)
        return fc_fail(FEATURE_E_INVALID, "no store was given: the handle is NULL");
    return fc_connection_check(store->feature);
}

void fc_store_ref(struct feature_store *store) {
    atomic_fetch_add_explicit(&store->refs, 1, memory_order_relaxed);
}

static void store_handle_unlink_store(struct feature_store *store) {
    struct feature_store **at = &store->feature->stores;
    while (*at != store)
        at = &(*at)->next;
    *at = store->next;
}

/* First the releases, then the close: the broker ends all leases of a handle when it is closed, as
 * returned, and a consumed one would not count. */
static void store_handle_close_at_broker(struct feature_store *store) {
    struct fc_link *link = fc_connection_link(store->feature);
    if (!link || store->epoch != link->epoch)
        return;
    fc_release_tell(store);
    store_handle_close_handle(link, store->handle);
    fc_connection_settle(store->feature);
}

/* The last reference may be that of a view which is released long after the store was closed. In a
 * forked child nothing is said to the broker, and if the lock cannot be had, nothing is freed. */
void fc_store_unref(struct feature_store *store) {
    if (atomic_fetch_sub_explicit(&store->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct feature *feature = store->feature;
    bool forked = fc_connection_forked(feature);
    if (!fc_connection_lock(feature))
        return;
    store_handle_unlink_store(store);
    if (!forked)
        store_handle_close_at_broker(store);
    pthread_mutex_unlock(&feature->lock);
    fc_mapping_unref(store->mapping);
    sodium_free(store->key);
    free(store->releases);
    free(store);
    fc_connection_unref(feature);
}

/* The handle is not yet in the feature's list. Its key lies in memory of sodium_malloc(): locked,
 * so that it is not swapped out, with guard pages around it, and wiped when it is freed. */
static int store_handle_new_store(struct feature *feature, const char *name,
                                  const struct feature_open_options *options,
                                  struct feature_store **out) {
    struct feature_store *store = calloc(1, sizeof *store);
    if (!store)
        return fc_fail_memory("open a store");
    store->refs = 1;
    store->feature = feature;
    memcpy(store->name, name, strlen(name) + 1);
    store->write = !options->read_only;
    store->cuda_unpinned = options->cuda_unpinned;
    store->open = true;
    if (options->secret) {
        store->key = sodium_malloc(AUTH_KEY_BYTES);
        if (!store->key) {
            free(store);
            return fc_fail_memory("open a store");
        }
        auth_store_key(name, options->secret, options->secret_bytes, store->key);
    }
    fc_connection_ref(feature);
    *out = store;
    return FEATURE_OK;
}

static int store_handle_check_name(const char *name) {
    const char *wrong = layout_check_name(name);
    return wrong ? fc_fail(FEATURE_E_INVALID, "store name '%.80s' %s", name, wrong) : FEATURE_OK;
}

/* A length without a secret is a mistake of the caller, who believes that the store is protected.
 */
static int store_handle_check_secret(const void *secret, size_t secret_bytes) {
    if (!secret && secret_bytes)
        return fc_fail(FEATURE_E_INVALID, "the secret is NULL, and has a length of %zu bytes",
                       secret_bytes);
    return FEATURE_OK;
}

/* The handle is in the list before it is opened: fc_store_ready() looks there for a mapping to
 * share, and another thread's disconnect finds and closes it. */
int feature_store_open(struct feature *feature, const char *name,
                       const struct feature_open_options *options, struct feature_store **out) {
    struct feature_open_options known;
    struct feature_store *store = NULL;
    FC_NEEDS(name);
    FC_NEEDS(out);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_open_options");
    if (!rc)
        rc = store_handle_check_name(name);
    if (!rc)
        rc = store_handle_check_secret(known.secret, known.secret_bytes);
    if (!rc)
        rc = store_handle_new_store(feature, name, &known, &store);
    if (rc)
        return rc;
    pthread_mutex_lock(&feature->lock);
    store->next = feature->stores;
    feature->stores = store;
    rc = fc_store_ready(store, fc_after_ns(fc_now_ns(), FC_ROUND_TRIP_MS * FC_NS_PER_MS));
    pthread_mutex_unlock(&feature->lock);
    if (rc) {
        fc_store_unref(store);
        return rc;
    }
    fc_pin(store, NULL);
    *out = store;
    return FEATURE_OK;
}

/* Views and reservations of it stay good: each holds a reference, and the last one ends it. */
void feature_store_close(struct feature_store *store) {
    if (!store)
        return;
    store->open = false;
    fc_store_unref(store);
}

/* One at a time and from the beginning: closing a store takes the lock, and changes the list. */
static struct feature_store *store_handle_find_open(struct feature *feature) {
    if (!fc_connection_lock(feature))
        return NULL;
    struct feature_store *store = feature->stores;
    while (store && !store->open)
        store = store->next;
    pthread_mutex_unlock(&feature->lock);
    return store;
}

void fc_store_close_all(struct feature *feature) {
    for (struct feature_store *store; (store = store_handle_find_open(feature));)
        feature_store_close(store);
}

/* Whether puts into this store make checksums. The policy says when they are compared; `never`
 * makes none. */
bool fc_store_checksums(struct feature_store *store) {
    pthread_mutex_lock(&store->feature->lock);
    bool checksums = store->checksum != FB__CHECKSUM_POLICY__NEVER;
    pthread_mutex_unlock(&store->feature->lock);
    return checksums;
}

/* 0 from the broker means that a reservation never ends by itself. */
uint64_t fc_store_reserve_ns(struct feature_store *store) {
    pthread_mutex_lock(&store->feature->lock);
    uint64_t max_ms = store->max_reserve_ms;
    pthread_mutex_unlock(&store->feature->lock);
    return max_ms && max_ms < FC_NEVER_NS / FC_NS_PER_MS ? max_ms * FC_NS_PER_MS : FC_NEVER_NS;
}

/* ---- create and drop ---- */

/* Zero asks for the broker's default; only `readers` has one of its own here, since zero readers
 * would mean a sample that nobody can consume. */
static void store_handle_fill_settings(Fb__StoreSettings *settings,
                                       const struct feature_store_options *options) {
    settings->policy = (Fb__Policy)options->policy;
    settings->readers = options->readers ? options->readers : 1;
    settings->max_resident_bytes = options->max_resident_bytes;
    settings->landing_bytes = options->landing_bytes;
    settings->max_hold_ms = options->max_hold_ms;
    settings->checksum = (Fb__ChecksumPolicy)options->checksum;
    settings->max_samples = options->max_samples;
}

/* The broker gets the key that is derived from the secret, over a socket that only this machine
 * has; the secret itself stays here. The copy on the stack is wiped. */
int feature_store_create(struct feature *feature, const char *name,
                         const struct feature_store_options *options) {
    struct feature_store_options known;
    FC_NEEDS(name);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_store_options");
    if (!rc)
        rc = store_handle_check_name(name);
    if (!rc)
        rc = store_handle_check_secret(known.secret, known.secret_bytes);
    if (rc)
        return rc;
    uint8_t key[AUTH_KEY_BYTES];
    Fb__StoreSettings settings = FB__STORE_SETTINGS__INIT;
    Fb__StoreCreate create = FB__STORE_CREATE__INIT;
    store_handle_fill_settings(&settings, &known);
    create.store = (char *)name;
    create.settings = &settings;
    create.op_id = fc_connection_op_ids(feature, 1);
    if (known.secret) {
        auth_store_key(name, known.secret, known.secret_bytes, key);
        create.key = (ProtobufCBinaryData){.data = key, .len = sizeof key};
    }
    struct fc_request request = FC_REQUEST(.feature = feature, .what = "create a store");
    request.message.op_case = FB__CLIENT_REQUEST__OP_STORE_CREATE;
    request.message.store_create = &create;
    rc = fc_request(&request);
    fc_request_deinit(&request);
    sodium_memzero(key, sizeof key);
    return rc;
}

int feature_store_drop(struct feature *feature, const char *name) {
    FC_NEEDS(name);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = store_handle_check_name(name);
    if (rc)
        return rc;
    Fb__StoreDrop drop = FB__STORE_DROP__INIT;
    drop.store = (char *)name;
    drop.op_id = fc_connection_op_ids(feature, 1);
    struct fc_request request = FC_REQUEST(.feature = feature, .what = "drop a store");
    request.message.op_case = FB__CLIENT_REQUEST__OP_STORE_DROP;
    request.message.store_drop = &drop;
    rc = fc_request(&request);
    fc_request_deinit(&request);
    return rc;
}
