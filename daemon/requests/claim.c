/* SPDX-License-Identifier: Apache-2.0
 *
 * A client that comes back to its session says what it holds.
 *
 *   resumed --claim_begin()--> claiming --Holds--> ... --Holds, complete--> the rest has ended
 *
 * An answer may have been on its way when the connection broke: the lease, the room or the open
 * store that it granted belongs to the session, and nobody knows of it. So whatever the client does
 * not name ends here. Nothing else of the session is carried out in between, because the client
 * sends these notes before anything else; what is granted later is not looked at.
 *
 * A client that says nothing of the kind keeps everything, within its limits.
 */
#include "requests/kinds.h"

void claim_begin(struct broker_session *session) {
    session->claiming = true;
    for (uint32_t i = 0; i < session->attachment_count; i++) {
        struct attachment *attachment = &session->attachments[i];
        attachment->claimed = false;
        if (attachment->space)
            store_claim_begin(attachment->space->store, attachment->holder);
    }
}

static void claim_store(struct broker_session *session, const Fb__HeldStore *held) {
    struct attachment *attachment = session_attachment(session, held->handle);
    if (!attachment)
        return;
    struct store *store = attachment->space->store;
    attachment->claimed = true;
    for (size_t i = 0; i + 1 < held->n_leases; i += 2)
        store_claim_lease(store, attachment->holder, held->leases[i], held->leases[i + 1]);
    for (size_t i = 0; i < held->n_reservations; i++)
        store_claim_reservation(store, attachment->holder, held->reservations[i]);
}

/* A handle that the client does not know of: the answer that opened the store was lost. */
static void claim_end(struct broker_session *session) {
    uint32_t ended = 0, closed = 0;
    session->claiming = false;
    for (uint32_t i = 0; i < session->attachment_count; i++) {
        struct attachment *attachment = &session->attachments[i];
        if (!attachment->space)
            continue;
        if (attachment->claimed) {
            ended += store_claim_end(attachment->space->store, attachment->holder,
                                     session->broker->now_ns);
        } else {
            session_detach(session, attachment);
            closed++;
        }
    }
    log_debug("%s: came back; %u leases and reservations and %u handles that it had not heard of "
              "ended",
              session->name, ended, closed);
}

static void claim_holds(struct request *request) {
    struct broker_session *session = request->session;
    const Fb__Holds *holds = request->message->holds;
    if (!session->claiming) {
        request->breach = "Holds, though it has not come back to a session";
        return;
    }
    for (size_t i = 0; i < holds->n_stores; i++)
        claim_store(session, holds->stores[i]);
    if (holds->complete)
        claim_end(session);
    request_reply(request, FB__STATUS__OK, NULL);
}

const struct request_kind holds_kind = {.begin = claim_holds};
