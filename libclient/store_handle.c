/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening, once per session:
 *
 *   StoreOpen --> StoreOpened                                   (a store without a secret)
 *   StoreOpen --> StoreChallenge; StoreProve --> StoreOpened    (with one: both sides prove it)
 *
 * A client that was given a secret refuses a broker that does not prove it, be it by a wrong proof
 * or by not asking. The secret itself is forgotten at once; the key derived from it stays in locked
 * memory to open the store again.
 */
#include "store_handle.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "flush.h"
#include "limit.h"
#include "pin.h"
#include "proto/auth.h"
#include "proto/layout.h"
#include "receive.h"
#include "release.h"
#include "sized.h"

#define CLOSE_MS 1000u /* to say releases that a lost connection has kept back */

/* ---- opening on a link; all with the lock held ---- */

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

/* The opening is nobody's own: whoever waits for the store looks when its answer has come. */
static void store_handle_on_answer(struct fc_call *call) {
    fc_hub_announce(call->link->hub);
}

/* FC_PENDING: it is on its way, or the socket is full and it is to be begun again. */
static int store_handle_send(struct feature_store *store, struct fc_link *link,
                             Fb__ClientRequest *request) {
    store->opening =
        (struct fc_call){.request = request,
                         .deadline_ns = fc_after_ns(fc_now_ns(), FC_ROUND_TRIP_MS * FC_NS_PER_MS),
                         .woken = store_handle_on_answer,
                         .descriptor = {.fd = -1}};
    int rc = fc_call_begin(&store->opening, link);
    store->opening.request = NULL;
    store->asked = rc == FEATURE_OK;
    return !rc || rc == -EAGAIN || rc == FC_LINK_LOST ? FC_PENDING : rc;
}

/* Answers the challenge in `reply`; a StoreOpened comes next. */
static int store_handle_prove(struct feature_store *store, struct fc_link *link,
                              const Fb__ClientReply *reply) {
    const ProtobufCBinaryData nonce = reply->store_challenge->server_nonce;
    uint8_t proof[AUTH_PROOF_BYTES];
    size_t name_bytes = strlen(store->name);
    if (!store->key)
        return fc_fail(FEATURE_E_DENIED, "store %s wants a secret and none was given", store->name);
    if (nonce.len != AUTH_NONCE_BYTES)
        return fc_fail(FEATURE_E_INTERNAL, "store %s: a challenge of %zu bytes", store->name,
                       nonce.len);
    auth_proof(store->key, AUTH_ROLE_ASKER, store->name, name_bytes, store->client_nonce,
               nonce.data, proof);
    auth_proof(store->key, AUTH_ROLE_ANSWERER, store->name, name_bytes, store->client_nonce,
               nonce.data, store->expected);
    Fb__StoreProve store_prove = FB__STORE_PROVE__INIT;
    store_prove.store = store->name;
    store_prove.proof = (ProtobufCBinaryData){.data = proof, .len = sizeof proof};
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_PROVE;
    request.store_prove = &store_prove;
    store->proving = true;
    return store_handle_send(store, link, &request);
}

/* The broker's proof is made with the same nonces and another role, so it cannot be ours sent back.
 * A broker that opens a store without a challenge although we have a secret is refused too: it may
 * be an impostor who does not know it and hopes that we do not mind. */
static int store_handle_check_proof(const struct feature_store *store, struct fc_link *link,
                                    const Fb__StoreOpened *opened) {
    const ProtobufCBinaryData theirs = opened->server_proof;
    if (store->proving ? theirs.len == sizeof store->expected &&
                             auth_equal(theirs.data, store->expected, sizeof store->expected)
                       : !store->key)
        return FEATURE_OK;
    store_handle_close_handle(link, opened->handle);
    if (!store->proving)
        return fc_fail(FEATURE_E_DENIED, "store %s has no secret, but one was given to open it",
                       store->name);
    return fc_fail(FEATURE_E_DENIED,
                   "store %s: the broker did not prove that it knows the secret; do not trust it",
                   store->name);
}

/* The nonce is kept with the store until the answer has come: the proofs of both sides are made of
 * it. A new one for each opening, so that no proof is good twice. */
static int store_handle_ask(struct feature_store *store, struct fc_link *link) {
    Fb__StoreOpen store_open = FB__STORE_OPEN__INIT;
    auth_nonce(store->client_nonce);
    store_open.store = store->name;
    store_open.client_nonce =
        (ProtobufCBinaryData){.data = store->client_nonce, .len = sizeof store->client_nonce};
    store_open.write = store->write;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &store_open;
    store->proving = false;
    return store_handle_send(store, link, &request);
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

/* Once everything has been checked the store changes over to the new session, all at one moment
 * (the lock is held): mapping, handle, session and settings belong together. */
static int store_handle_take_opened(struct feature_store *store, struct fc_link *link,
                                    const struct fc_call *call) {
    const Fb__StoreOpened *opened = call->reply->store_opened;
    if (call->descriptor_lost) {
        char what[96];
        snprintf(what, sizeof what, "open store %s", store->name);
        store_handle_close_handle(link, opened->handle);
        return fc_fail_descriptor(what, 0);
    }
    if (call->descriptor.fd < 0)
        return fc_fail(FEATURE_E_INTERNAL, "open store %s: the broker's answer has no arena",
                       store->name);
    if (opened->write != store->write) {
        store_handle_close_handle(link, opened->handle);
        return fc_fail(FEATURE_E_INTERNAL, "open store %s: opened with other access than asked",
                       store->name);
    }
    struct fc_mapping *mapping;
    int rc = store_handle_share_mapping(store, call->descriptor.fd, opened->arena_bytes, &mapping);
    if (rc) {
        store_handle_close_handle(link, opened->handle);
        return rc;
    }
    fc_mapping_unref(store->mapping);
    store->mapping = mapping;
    store->handle = opened->handle;
    store->session = link->session;
    if (opened->settings) {
        store->checksum = opened->settings->checksum;
        store->max_reserve_ms = opened->settings->max_reserve_ms;
    }
    fc_release_reopened(store, link->session, link->incarnation);
    return FEATURE_OK;
}

/* What the answer means: a challenge is answered, an opened store is taken, anything else fails. */
static int store_handle_take_answer(struct feature_store *store, struct fc_link *link,
                                    const struct fc_call *call) {
    const Fb__ClientReply *reply = call->reply;
    if (reply->status != FB__STATUS__OK)
        return fc_fail_status(reply->status, reply->error, "open the store");
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_STORE_CHALLENGE && !store->proving)
        return store_handle_prove(store, link, reply);
    if (reply->result_case != FB__CLIENT_REPLY__RESULT_STORE_OPENED)
        return fc_fail(FEATURE_E_INTERNAL, "open store %s: the broker's answer has no arena",
                       store->name);
    int rc = store_handle_check_proof(store, link, reply->store_opened);
    return rc ? rc : store_handle_take_opened(store, link, call);
}

/* The call is moved off the store first, as the next one (the proof) takes its place there. */
static int store_handle_end_call(struct feature_store *store) {
    struct fc_link *link = store->opening.link;
    struct fc_call call = {.descriptor = {.fd = -1}};
    fc_link_ref(link);
    int rc = fc_call_end(&store->opening);
    store->asked = false;
    call.reply = store->opening.reply;
    call.descriptor_lost = store->opening.descriptor_lost;
    if (store->opening.descriptor.fd >= 0)
        fc_fork_move(&store->opening.descriptor, &call.descriptor);
    if (rc == FC_LINK_LOST || (!rc && link->broken))
        rc = FC_PENDING; /* one that was opened is not named when the handle comes back: it ends */
    else if (rc == FEATURE_E_TIMEOUT)
        rc = fc_fail(rc, "open store %s: the broker did not answer in time", store->name);
    else if (!rc)
        rc = store_handle_take_answer(store, link, &call);
    fc_call_deinit(&call);
    fc_link_unref(link);
    fc_hub_announce(&store->feature->hub);
    return rc;
}

/* In a new session each store is opened anew by the first request that needs it; others wait
 * for that one. A link that breaks meanwhile means to begin again with connecting. */
int fc_store_step(struct feature_store *store) {
    struct feature *feature = store->feature;
    for (;;) {
        int rc = fc_connection_step(feature);
        if (rc && !store->asked)
            return rc;
        if (!rc && store->session == feature->link->session)
            return FEATURE_OK;
        if (store->asked && !fc_call_is_over(&store->opening))
            return FC_PENDING;
        bool asked = store->asked;
        rc = asked ? store_handle_end_call(store) : store_handle_ask(store, feature->link);
        bool again = !rc || (rc == FC_PENDING && (asked || feature->link->broken));
        if (store->asked || !again)
            return rc;
    }
}

/* Not asked although there is a connection: the socket is full. */
void fc_store_wait(struct feature_store *store, uint64_t deadline_ns) {
    struct feature *feature = store->feature;
    struct fc_link *link = fc_connection_link(feature);
    if (store->asked) {
        uint64_t until_ns = store->opening.deadline_ns;
        fc_receive_look(store->opening.link, until_ns < deadline_ns ? until_ns : deadline_ns);
    } else if (link) {
        (void)fc_link_await_room(link, deadline_ns);
    } else {
        fc_connection_wait(feature, deadline_ns);
    }
}

/* Two causes that a person would look for in different places: nobody at the socket, or a broker
 * that is there and does not answer. */
int fc_store_give_up(const struct feature_store *store) {
    if (!fc_connection_link(store->feature))
        return fc_connection_give_up(store->feature);
    return fc_fail(FEATURE_E_TIMEOUT, "open store %s: the broker did not answer in time",
                   store->name);
}

/* While the opening is in flight that is its own deadline; while the socket is full nothing is due,
 * and its becoming writable is what is waited for. */
uint64_t fc_store_next_ns(const struct feature_store *store) {
    if (store->asked)
        return store->opening.deadline_ns;
    return fc_connection_link(store->feature) ? FC_NEVER_NS : fc_connection_next_ns(store->feature);
}

/* For those who may wait: steps, and sleeps between them. */
int fc_store_ready(struct feature_store *store, uint64_t deadline_ns) {
    int rc;
    while ((rc = fc_store_step(store)) == FC_PENDING) {
        if (!fc_left_ns(deadline_ns))
            return fc_store_give_up(store);
        fc_store_wait(store, deadline_ns);
    }
    return rc;
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
    if (!link || store->session != link->session)
        return;
    fc_release_tell(store);
    store_handle_close_handle(link, store->handle);
    fc_flusher_settle(store->feature);
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
    if (!forked && store->asked) { /* what comes of it is handed back */
        (void)fc_call_end(&store->opening);
        fc_call_deinit(&store->opening);
    }
    pthread_mutex_unlock(&feature->hub.lock);
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

int fc_store_check_name(const char *name) {
    const char *wrong = layout_check_name(name);
    return wrong ? fc_fail(FEATURE_E_INVALID, "store name '%.80s' %s", name, wrong) : FEATURE_OK;
}

/* A length without a secret is a mistake of the caller, who believes that the store is protected.
 */
int fc_store_check_secret(const void *secret, size_t secret_bytes) {
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
        rc = fc_store_check_name(name);
    if (!rc)
        rc = fc_store_check_secret(known.secret, known.secret_bytes);
    if (!rc)
        rc = store_handle_new_store(feature, name, &known, &store);
    if (rc)
        return rc;
    pthread_mutex_lock(&feature->hub.lock);
    store->next = feature->stores;
    feature->stores = store;
    rc = fc_store_ready(store, fc_after_ns(fc_now_ns(), FC_ROUND_TRIP_MS * FC_NS_PER_MS));
    fc_connection_unlock(feature);
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
    if (!fc_connection_forked(store->feature))
        fc_flush_before_close(store, fc_after_ns(fc_now_ns(), CLOSE_MS * FC_NS_PER_MS));
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
    pthread_mutex_unlock(&feature->hub.lock);
    return store;
}

void fc_store_close_all(struct feature *feature) {
    for (struct feature_store *store; (store = store_handle_find_open(feature));)
        feature_store_close(store);
}

/* Whether puts into this store make checksums. The policy says when they are compared; `never`
 * makes none. */
bool fc_store_checksums(struct feature_store *store) {
    pthread_mutex_lock(&store->feature->hub.lock);
    bool checksums = store->checksum != FB__CHECKSUM_POLICY__NEVER;
    pthread_mutex_unlock(&store->feature->hub.lock);
    return checksums;
}

/* 0 from the broker means that a reservation never ends by itself. */
uint64_t fc_store_reserve_ns(struct feature_store *store) {
    pthread_mutex_lock(&store->feature->hub.lock);
    uint64_t max_ms = store->max_reserve_ms;
    pthread_mutex_unlock(&store->feature->hub.lock);
    return max_ms && max_ms < FC_NEVER_NS / FC_NS_PER_MS ? max_ms * FC_NS_PER_MS : FC_NEVER_NS;
}
