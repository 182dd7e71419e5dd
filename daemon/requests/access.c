/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what: greeting, opening a store by challenge-response, creating and dropping stores.
 *
 *   StoreOpen -> (no secret) StoreOpened
 *   StoreOpen -> StoreChallenge, StoreProve -> StoreOpened with our own proof
 *
 * A session touches only stores it has opened; it gets the fd of those arenas alone, read-only
 * unless it may put. An unknown store and a wrong secret look the same but for the sentence.
 *
 * The secret is a file on both sides; what the broker keeps is a key derived from it and the name
 * of the store. Both sides prove that they have it, each with a nonce of the other: a client that
 * was led to a false broker learns so before it writes anything there.
 *
 * Whoever may create and drop stores is an admin: root, the user of the broker itself, and the uids
 * that the configuration lists. That does not make samples readable: an admin has to prove the
 * secret too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/frame.h"
#include "proto/version.h"
#include "requests/kinds.h"

/* Lists of uids are short and read from the configuration: no need for more than going through
 * them. */
static bool access_listed(const struct config_ids *list, uint32_t id) {
    for (uint32_t i = 0; i < list->count; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}

/* An empty list allows everybody who could connect to the socket at all. */
static bool access_is_allowed(const struct config_ids *list, const struct broker_session *session) {
    return !list->count || session->admin || access_listed(list, session->credentials.uid);
}

/* Every refusal here is worth a line: it is either a mistake in a configuration or an attempt. */
static void access_deny(const struct request *request, const char *store, const char *what) {
    const struct broker_session *session = request->session;
    char sentence[SENTENCE_BYTES];
    snprintf(sentence, sizeof sentence, "store %s: %s", store, what);
    log_limited(LOG_LEVEL_WARNING, session->credentials.uid, "%s: denied: %s", session->name,
                sentence);
    request_reply(request, FB__STATUS__DENIED, sentence);
}

/* ---- greeting ---- */

/* The name comes from the client and goes into logs: whatever could end a line or a word there is
 * replaced. */
static void access_describe_session(struct broker_session *session, const char *client_name) {
    char *clean = session->client_name;
    size_t n = 0;
    for (const char *s = client_name; *s && n + 1 < sizeof session->client_name; s++)
        clean[n++] = (*s > ' ' && *s < 0x7f) ? *s : '_';
    clean[n] = '\0';
    session_rename(session);
}

/* Told so that a client can keep within them; they are enforced all the same. */
static void access_fill_limits(const struct config *config, Fb__Limits *limits) {
    fb__limits__init(limits);
    limits->frame_bytes = FRAME_CLIENT_BYTES_MAX;
    limits->inline_bytes = FRAME_INLINE_BYTES_MAX;
    limits->batch_items = FRAME_BATCH_ITEMS_MAX;
    const uint64_t *of = config->limits.of[ACCOUNT_SESSION];
    limits->leases = (uint32_t)of[CHARGE_LEASES];
    limits->reservations = (uint32_t)of[CHARGE_RESERVATIONS];
    limits->queued_bytes = of[CHARGE_QUEUED_BYTES];
    limits->requests_in_flight = (uint32_t)of[CHARGE_REQUESTS];
    limits->handles = (uint32_t)of[CHARGE_HANDLES];
    limits->waits = (uint32_t)of[CHARGE_WAITS];
}

/* The first request of a session, and the only one that is understood before the two have agreed on
 * a version. A client of an earlier or later protocol can read the refusal all the same, because
 * the form of Hello and of an answer with a sentence never changes. */
static void access_hello(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Hello *hello = request->message->hello;
    if (session->greeted || !request->wants_reply) {
        request->breach = "a second Hello, or one that wants no answer";
        return;
    }
    const struct version_range theirs = {hello->version_min, hello->version_max};
    const uint32_t version = version_choose(VERSION_CLIENT, theirs);
    if (!version) {
        char sentence[SENTENCE_BYTES], our_words[VERSION_WORDS_BYTES];
        char their_words[VERSION_WORDS_BYTES];
        snprintf(sentence, sizeof sentence,
                 "this broker (featured " FEATURED_VERSION
                 ") speaks %s of the client protocol, the "
                 "client %s: install a libfeature and a featured that have one in common",
                 version_words(VERSION_CLIENT, our_words), version_words(theirs, their_words));
        log_limited(LOG_LEVEL_WARNING, session->credentials.uid, "%s: refused: %s", session->name,
                    sentence);
        request_reply(request, FB__STATUS__UNSUPPORTED, sentence);
        return;
    }
    char full[SENTENCE_BYTES];
    if (!session_admit(session, full, sizeof full)) {
        log_limited(LOG_LEVEL_WARNING, session->credentials.uid, "%s: refused: %s", session->name,
                    full);
        request_reply(request, FB__STATUS__FULL, full);
        return;
    }
    session->greeted = true;
    session->lasts = hello->lasts;
    session->client_id = hello->client_id;
    access_describe_session(session, hello->client_name);
    log_debug("%s: %s", session->name, session->resumed ? "has come back" : "connected");
    Fb__Limits limits;
    access_fill_limits(session->broker->config, &limits);
    Fb__HelloReply result = FB__HELLO_REPLY__INIT;
    result.version = version;
    result.session_id = session->owner.id;
    result.node = (char *)session->broker->config->node;
    result.incarnation = session->broker->options.incarnation;
    result.broker_version = (char *)FEATURED_VERSION;
    result.limits = &limits;
    result.admin = session->admin;
    if (session->lasts)
        result.token = (ProtobufCBinaryData){sizeof session->token, session->token};
    result.resumed = session->resumed;
    if (session->resumed)
        claim_begin(session);
    session->resumed = false;
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_HELLO;
    reply.hello = &result;
    request_send(request, &reply, -1);
}

/* ---- opening ---- */

/* Index of a free attachment, -1 = no memory. */
static int access_free_attachment(struct broker_session *session) {
    uint32_t index = 0;
    while (index < session->attachment_count && session->attachments[index].space)
        index++;
    if (index < session->attachment_count)
        return (int)index;
    struct attachment *grown = realloc(session->attachments, (index + 1) * sizeof *grown);
    if (!grown)
        return -1;
    session->attachments = grown;
    session->attachments[session->attachment_count++] = (struct attachment){0};
    return (int)index;
}

/* Index of a new attachment, or -1 with a sentence. */
static int access_attach(struct broker_session *session, struct space *space, bool write,
                         char why[SENTENCE_BYTES]) {
    struct charge_refusal full;
    uint32_t holder;
    if (!account_has_room(session->account, CHARGE_HANDLES, 1, &full)) {
        account_sentence(why, SENTENCE_BYTES, &full);
        return -1;
    }
    int index = access_free_attachment(session);
    if (index < 0) {
        snprintf(why, SENTENCE_BYTES, "the broker is out of memory");
        return -1;
    }
    if (store_holder_open(space->store, session->owner.id, session->account, &holder) != STORE_OK) {
        snprintf(why, SENTENCE_BYTES,
                 "as many handles of it are open as max_sessions and max_handles_per_session "
                 "allowed when it was made");
        return -1;
    }
    account_add(session->account, CHARGE_HANDLES, 1);
    session->attachments[index] =
        (struct attachment){.space = space, .holder = holder, .write = write};
    if (!session_keep_attachment(session, (uint32_t)index)) {
        session_detach(session, &session->attachments[index]);
        snprintf(why, SENTENCE_BYTES, "the node's memory has no place for another open store");
        return -1;
    }
    return index;
}

/* The descriptor goes along with the answer. That for readers was opened read-only, so that they
 * cannot map the arena for writing whatever they do. */
static void access_opened(const struct request *request, struct space *space, bool write,
                          const uint8_t *proof) {
    struct broker_session *session = request->session;
    char why[SENTENCE_BYTES];
    int index = access_attach(session, space, write, why);
    if (index < 0) {
        char sentence[SENTENCE_BYTES + 96];
        snprintf(sentence, sizeof sentence, "store %s: %s: close one", space->name, why);
        request_reply(request, FB__STATUS__FULL, sentence);
        return;
    }
    Fb__StoreOpened result = FB__STORE_OPENED__INIT;
    result.handle = (uint32_t)index + 1;
    result.arena_bytes = space->arena.bytes;
    result.write = write;
    result.settings = &space->settings;
    if (proof)
        result.server_proof = (ProtobufCBinaryData){AUTH_PROOF_BYTES, (uint8_t *)proof};
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_OPENED;
    reply.store_opened = &result;
    request_send(request, &reply, write ? space->arena.fd : space->arena.fd_readonly);
}

/* The order of the checks is what a client learns: that the store is there, that its uid may open
 * it, that it may write there. The secret comes last, and is proved with a challenge: it never
 * crosses the socket. */
static void access_store_open(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__StoreOpen *open = request->message->store_open;
    if (!request->wants_reply || open->client_nonce.len != AUTH_NONCE_BYTES) {
        request->breach = "a StoreOpen without a nonce of 32 bytes, or that wants no answer";
        return;
    }
    struct space *space = space_find(session->broker, open->store);
    if (!space) {
        char sentence[SENTENCE_BYTES];
        snprintf(sentence, sizeof sentence,
                 "store %.64s does not exist on node %s: add [store] to its configuration or run "
                 "featurectl store create",
                 open->store, session->broker->config->node);
        request_reply(request, FB__STATUS__NOT_FOUND, sentence);
    } else if (!access_is_allowed(&space->allow_uids, session)) {
        access_deny(request, space->name, "your uid is not in its allow_uids");
    } else if (open->write && !access_is_allowed(&space->writer_uids, session)) {
        access_deny(request, space->name, "your uid is not in its writer_uids: open it read-only");
    } else if (!space->has_secret) {
        access_opened(request, space, open->write, NULL);
    } else {
        struct challenge *challenge = &session->challenge;
        *challenge = (struct challenge){.space = space, .write = open->write};
        memcpy(challenge->client_nonce, open->client_nonce.data, AUTH_NONCE_BYTES);
        auth_nonce(challenge->server_nonce);
        Fb__StoreChallenge result = FB__STORE_CHALLENGE__INIT;
        result.server_nonce = (ProtobufCBinaryData){AUTH_NONCE_BYTES, challenge->server_nonce};
        Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
        reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_CHALLENGE;
        reply.store_challenge = &result;
        request_send(request, &reply, -1);
    }
}

/* Comparing in constant time (auth_equal()), so that the time of a refusal tells nothing about how
 * much of the proof was right. A challenge is used up by the first try, right or wrong. */
static void access_store_prove(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__StoreProve *prove = request->message->store_prove;
    struct challenge challenge = session->challenge;
    session->challenge = (struct challenge){0}; /* one try per challenge */
    if (!request->wants_reply || !challenge.space || strcmp(challenge.space->name, prove->store)) {
        request->breach = "a StoreProve that answers no StoreChallenge";
        return;
    }
    struct space *space = challenge.space;
    uint8_t expected[AUTH_PROOF_BYTES];
    auth_proof(space->key, AUTH_ROLE_ASKER, space->name, strlen(space->name),
               challenge.client_nonce, challenge.server_nonce, expected);
    if (prove->proof.len != AUTH_PROOF_BYTES ||
        !auth_equal(prove->proof.data, expected, AUTH_PROOF_BYTES)) {
        access_deny(request, space->name, "wrong secret");
        return;
    }
    uint8_t ours[AUTH_PROOF_BYTES];
    auth_proof(space->key, AUTH_ROLE_ANSWERER, space->name, strlen(space->name),
               challenge.client_nonce, challenge.server_nonce, ours);
    access_opened(request, space, challenge.write, ours);
}

/* The handle may be the last thing that keeps a dropped store: it can be freed then. */
static void access_store_close(struct request *request) {
    struct broker_session *session = request->session;
    struct attachment *attachment =
        session_attachment(session, request->message->store_close->handle);
    if (attachment) {
        /* Requests that wait on it end with it. */
        struct call *call, *next;
        for (call = TAILQ_FIRST(&session->calls); call; call = next) {
            next = TAILQ_NEXT(call, link);
            /* Ending the last item would free the call under our hands: it is held open like one
             * that is still being begun, and call_begun() lets go. */
            call->open++;
            for (uint32_t i = 0; call->space == attachment->space && i < call->count; i++)
                if (!call_item(call, i)->done)
                    item_done(call_item(call, i), FB__STATUS__UNAVAILABLE,
                              "store %s was closed by this session", call->space->name);
            call_begun(call);
        }
        session_detach(session, attachment);
    }
    request_reply(request, FB__STATUS__OK, NULL);
}

/* ---- creating and dropping ---- */

/* Zero in a setting asks for the broker's default. The settings of a store that is created at run
 * time come from three places: the request, and where that says 0 the [store] defaults of the
 * configuration, which have built-in values where nothing is written. A secret file is never taken
 * over from the defaults: the key comes with the request, made from the secret on the client's
 * side. */
static void access_settle(const struct config_store *defaults, const char *name,
                          const Fb__StoreSettings *asked, struct config_store *out) {
    *out = *defaults;
    snprintf(out->name, sizeof out->name, "%s", name);
    out->secret_file[0] = '\0';
    out->policy = asked->policy;
    out->checksum = asked->checksum;
    if (asked->readers)
        out->readers = asked->readers;
    if (asked->max_resident_bytes)
        out->max_resident_bytes = asked->max_resident_bytes;
    if (asked->landing_bytes)
        out->landing_bytes = asked->landing_bytes;
    if (asked->max_hold_ms)
        out->max_hold_ms = asked->max_hold_ms;
    if (asked->max_samples)
        out->max_samples = asked->max_samples;
}

/* Creating a store again with the same settings is a success, so that a script can be run twice.
 * Sizes are compared as they were rounded to pages. */
static bool access_same_store(const struct space *space, const struct config_store *wanted,
                              const Fb__StoreCreate *create) {
    const Fb__StoreSettings *has = &space->settings;
    bool same_key = create->key.len ? space->has_secret &&
                                          auth_equal(space->key, create->key.data, AUTH_KEY_BYTES)
                                    : !space->has_secret;
    return same_key && has->policy == wanted->policy && has->checksum == wanted->checksum &&
           has->readers == wanted->readers &&
           has->max_resident_bytes == ((wanted->max_resident_bytes + 4095) & ~4095ull) &&
           has->landing_bytes == ((wanted->landing_bytes + 4095) & ~4095ull) &&
           has->max_hold_ms == wanted->max_hold_ms && has->max_samples == wanted->max_samples;
}

/* The user is charged, not the session: the store outlives the session, and a user who reconnects
 * has still made it. */
static Fb__Status access_create(struct broker_session *session, const Fb__StoreCreate *asked,
                                char sentence[SENTENCE_BYTES]) {
    struct broker *broker = session->broker;
    const char *wrong = layout_check_name(asked->store);
    if (wrong || !asked->settings || (asked->key.len && asked->key.len != AUTH_KEY_BYTES)) {
        snprintf(sentence, SENTENCE_BYTES, "store %.64s: its name or settings are wrong%s%s",
                 asked->store, wrong ? ": the name " : "", wrong ? wrong : "");
        return FB__STATUS__INVALID;
    }
    if (asked->settings->policy > FB__POLICY__RETAIN ||
        asked->settings->checksum > FB__CHECKSUM_POLICY__NEVER) {
        snprintf(sentence, SENTENCE_BYTES,
                 "store %.64s: this broker (featured " FEATURED_VERSION
                 ") does not know policy %d with checksum %d",
                 asked->store, (int)asked->settings->policy, (int)asked->settings->checksum);
        return FB__STATUS__UNSUPPORTED;
    }
    struct config_store wanted;
    access_settle(&broker->config->store_defaults, asked->store, asked->settings, &wanted);
    struct space *space = space_find(broker, asked->store);
    if (space && access_same_store(space, &wanted, asked))
        return FB__STATUS__OK;
    if (space) {
        snprintf(
            sentence, SENTENCE_BYTES,
            "store %s exists with other settings: drop it first, or create it with the same ones",
            space->name);
        return FB__STATUS__EXISTS;
    }
    struct account *user = session->account->parent;
    struct charge_refusal full;
    if (!account_has_room(user, CHARGE_STORES, 1, &full)) {
        account_sentence(sentence, SENTENCE_BYTES, &full);
        return FB__STATUS__FULL;
    }
    int result = space_create(broker, &wanted, asked->key.len ? asked->key.data : NULL, &space,
                              sentence, SENTENCE_BYTES);
    if (!result) {
        space_set_creator(broker, space, user);
    }
    return !result ? FB__STATUS__OK : result == -EINVAL ? FB__STATUS__INVALID : FB__STATUS__FULL;
}

static void access_store_create(struct request *request) {
    struct broker_session *session = request->session;
    char sentence[SENTENCE_BYTES] = "";
    if (!session->admin) {
        access_deny(request, request->message->store_create->store,
                    "only root, the broker's own user and admin_uids may create stores");
        return;
    }
    Fb__Status status = access_create(session, request->message->store_create, sentence);
    request_reply(request, status, status == FB__STATUS__OK ? "" : sentence);
}

/* Dropping a store that is not there is a success: absent is what was asked for. */
static void access_store_drop(struct request *request) {
    struct broker_session *session = request->session;
    const char *name = request->message->store_drop->store;
    if (!session->admin) {
        access_deny(request, name,
                    "only root, the broker's own user and admin_uids may drop stores");
        return;
    }
    struct space *space = space_find(session->broker, name);
    if (space)
        space_drop(session->broker, space, session->broker->now_ns);
    request_reply(request, FB__STATUS__OK, NULL);
}

const struct request_kind hello_kind = {.begin = access_hello, .is_greeting = true};
const struct request_kind store_open_kind = {.begin = access_store_open};
const struct request_kind store_prove_kind = {.begin = access_store_prove};
const struct request_kind store_create_kind = {.begin = access_store_create};
const struct request_kind store_drop_kind = {.begin = access_store_drop};
const struct request_kind store_close_kind = {.begin = access_store_close};
