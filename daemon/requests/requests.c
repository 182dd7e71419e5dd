/* SPDX-License-Identifier: Apache-2.0
 *
 * From a client's message to the kind of request that carries it out.
 *
 * The order of the checks here is part of the protocol: a message that is no request at all, or
 * comes before Hello, ends the session; one that this version does not know is answered
 * UNSUPPORTED, and the session goes on. Only then comes the limit on requests under way, which is
 * answered FULL: a client that has hit it may try again.
 */
#include <stdio.h>
#include <stdlib.h>

#include "requests/kinds.h"

#define REQUEST_KIND_ENTRY(op, kind) [FB__CLIENT_REQUEST__OP_##op] = &(kind),
static const struct request_kind *const kinds[] = {REQUEST_KINDS(REQUEST_KIND_ENTRY)};

bool requests_begin(struct request *request) {
    const Fb__ClientRequest *message = request->message;
    struct broker_session *session = request->session;
    size_t op = (size_t)message->op_case;
    request->kind = op < sizeof kinds / sizeof *kinds ? kinds[op] : NULL;
    /* The operation of a newer client: it lies in a field that this broker does not know. */
    const bool is_newer = !request->kind && message->base.n_unknown_fields;
    if (!request->kind && !is_newer)
        request->breach = "an empty request";
    else if (!session->greeted && (is_newer || !request->kind->is_greeting))
        request->breach = "a request before Hello";
    if (request->breach)
        return false;
    /* Releases ride on whatever is asked next. They come first, so that the request itself finds
     * what they have set free. */
    for (size_t i = 0; i < message->n_releases; i++)
        get_release_batch(session, message->releases[i]);
    struct charge_refusal full;
    if (is_newer)
        request_reply(request, FB__STATUS__UNSUPPORTED,
                      "this broker (featured " FEATURED_VERSION ") does not know that request");
    else if (!account_has_room(session->account, CHARGE_REQUESTS, 1, &full))
        request_refuse_full(request, &full, "wait for an answer first");
    else
        request->kind->begin(request);
    return !request->breach;
}

/* A handle is worth more than a name: it works on a store that was dropped and that the session
 * still has open, and needs no admin. */
struct space *request_space(const struct request *request, uint32_t handle, const char *name) {
    struct broker_session *session = request->session;
    struct attachment *attachment = session_attachment(session, handle);
    if (attachment)
        return attachment->space;
    struct space *space = session->admin ? space_find(session->broker, name) : NULL;
    char sentence[SENTENCE_BYTES];
    if (space)
        return space;
    if (session->admin && *name)
        snprintf(sentence, sizeof sentence, "store %.64s does not exist on node %s", name,
                 session->broker->config->node);
    else
        snprintf(
            sentence, sizeof sentence,
            "store %.64s: open it first (only admins may look into a store they have not opened)",
            name);
    request_reply(request, session->admin && *name ? FB__STATUS__NOT_FOUND : FB__STATUS__DENIED,
                  sentence);
    return NULL;
}

/* Lists only: the items in them are parts of calls, which belong to sessions. */
struct requests *requests_new(void) {
    struct requests *requests = calloc(1, sizeof *requests);
    if (!requests)
        return NULL;
    TAILQ_INIT(&requests->gc_asked);
    TAILQ_INIT(&requests->drains);
    return requests;
}

void requests_free(struct requests *requests) {
    free(requests);
}
