/* SPDX-License-Identifier: Apache-2.0
 *
 *    none --Hello, token and lock in the answer--> lasts --connection lost, Hello with its name-->
 *      |                                            ^ |        answered `resumed`: lasts
 *      |                                            | |        answered otherwise: a new session
 *      +--an answer without them--> ends with its connection, as with a broker before 0.11
 *
 * The lock is a descriptor whose open file description the broker has locked. It is mapped here
 * and closed; the mapping is then the last reference to it. So it is free as soon as this program
 * ends, be it by exit, by a signal or by exec(), and no forked child has a part in it
 * (MADV_DONTFORK). Unmapping it says that nobody will come back. Why that is so is told in
 * daemon/local/lasting.c.
 */
#include "session.h"

#include <string.h>
#include <sys/mman.h>

#include "connection.h"
#include "release.h"
#include "store_handle.h"

#define LOCK_BYTES    4096u
#define LEASES_A_NOTE ((size_t)256) /* so that a note is packed on the stack (link.c) */

void fc_session_greet(struct fc_session *session, Fb__Hello *hello) {
    hello->lasts = true;
    if (!session->lasts)
        return;
    hello->session_id = session->id;
    hello->token = (ProtobufCBinaryData){.data = session->token, .len = FC_TOKEN_BYTES};
}

void fc_session_leave(struct fc_session *session) {
    if (session->lock_page)
        munmap(session->lock_page, LOCK_BYTES);
    session->lock_page = NULL;
    session->lasts = false;
}

/* Nobody forks between mmap() and madvise(). */
static void *session_map_lock(int fd) {
    fc_fork_lock();
    void *page = mmap(NULL, LOCK_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED && madvise(page, LOCK_BYTES, MADV_DONTFORK)) {
        munmap(page, LOCK_BYTES);
        page = MAP_FAILED;
    }
    fc_fork_unlock();
    return page == MAP_FAILED ? NULL : page;
}

/* A session without its lock ends with its connection. That is no failure: it was so before there
 * were locks. */
void fc_session_take(struct feature *feature, struct fc_link *link, const Fb__HelloReply *hello,
                     struct fc_inherited *lock) {
    struct fc_session *session = &feature->session;
    bool same = hello->resumed && session->lasts && hello->session_id == session->id;
    if (!same) {
        fc_session_leave(session);
        fc_held_clear(&feature->hub.held);
        session->number = link->epoch;
        session->id = hello->session_id;
        if (hello->token.len == FC_TOKEN_BYTES && lock->fd >= 0)
            session->lock_page = session_map_lock(lock->fd);
        session->lasts = session->lock_page;
        if (session->lasts)
            memcpy(session->token, hello->token.data, FC_TOKEN_BYTES);
    }
    fc_fork_close(lock);
    link->session = session->number;
}

/* ---- coming back ---- */

/* Notes to be sent: the leases and reservations of one store, as many as fit, and on again. */
struct session_note {
    struct fc_link *link;
    Fb__HeldStore store, *stores[1];
    uint64_t leases[2 * LEASES_A_NOTE], reservations[LEASES_A_NOTE];
    bool lost; /* one of them could be neither sent nor kept */
};

static void session_note_begin(struct session_note *note, uint32_t handle) {
    note->stores[0] = &note->store;
    fb__held_store__init(&note->store);
    note->store.handle = handle;
    note->store.leases = note->leases;
    note->store.reservations = note->reservations;
}

static void session_note_send(struct session_note *note, bool complete) {
    Fb__Holds holds = FB__HOLDS__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    holds.n_stores = complete ? 0 : 1;
    holds.stores = note->stores;
    holds.complete = complete;
    request.op_case = FB__CLIENT_REQUEST__OP_HOLDS;
    request.holds = &holds;
    note->lost |= !fc_link_tell(note->link, &request);
    note->store.n_leases = note->store.n_reservations = 0;
}

static void session_note_add(struct session_note *note, uint64_t hi, uint64_t lo) {
    Fb__HeldStore *store = &note->store;
    if (hi) {
        note->leases[store->n_leases++] = hi;
        note->leases[store->n_leases++] = lo;
    } else {
        note->reservations[store->n_reservations++] = lo;
    }
    if (store->n_leases == 2 * LEASES_A_NOTE || store->n_reservations == LEASES_A_NOTE)
        session_note_send(note, false);
}

/* A lease whose release is not known to have arrived is still one: were it left out it would end as
 * returned, and its sample could be read by somebody else before `consumed` is said. */
static void session_say_store(const struct feature_store *store, struct session_note *note) {
    const struct fc_held *held = &store->feature->hub.held;
    session_note_begin(note, store->handle);
    for (size_t i = 0; i < held->place_count; i++)
        if (held->places[i].handle == store->handle)
            session_note_add(note, held->places[i].hi, held->places[i].lo);
    for (size_t i = 0; i < store->release_count; i++)
        if (store->releases[i].lease_session == store->session)
            session_note_add(note, store->releases[i].lease_hi, store->releases[i].lease_lo);
    session_note_send(note, false); /* also of a store of which nothing is held: it is open */
}

bool fc_session_say_holdings(struct feature *feature, struct fc_link *link) {
    struct session_note note = {.link = link};
    for (struct feature_store *store = feature->stores; store; store = store->next)
        if (store->session == link->session) {
            session_say_store(store, &note);
            fc_release_say_again(store);
        }
    session_note_begin(&note, 0);
    session_note_send(&note, true);
    return !note.lost;
}
