/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a connection, and sending on it.
 *
 *    works --end of the socket, nonsense, or closed by us--> broken
 *
 * Only what the broker does breaks a link: an end of the socket, or a packet that is no frame. A
 * limit of this process (descriptors, memory, room in the socket) fails the call that met it: to
 * break the link would make every other call begin again.
 *
 * Nothing here waits but fc_link_await_room(). A frame that the socket does not take and that must
 * not be lost (releases, cancels, closes) is kept, in order, and goes before the next request or
 * with the flusher's tick. The order matters: a StoreClose must not overtake the release of a view
 * of that store.
 */
#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "call.h"
#include "socket.h"

/* A note of FRAME_BATCH_ITEMS_MAX releases fits: what ends leases needs no memory. */
#define BODY_SMALL_BYTES 8192u

struct fc_link *fc_link_new(int fd, uint64_t epoch, struct fc_hub *hub) {
    struct fc_link *link = calloc(1, sizeof *link);
    if (!link || bump_init(&link->spare, LINK_SPARE_BYTES)) {
        free(link);
        close(fd);
        return NULL;
    }
    link->hub = hub;
    link->refs = 1;
    link->socket.fd = fd;
    link->arriving.fd = -1;
    link->epoch = epoch;
    fc_fork_enter(&link->socket);
    return link;
}

void fc_link_ref(struct fc_link *link) {
    link->refs++;
}

/* What was kept to be sent, and what was to be handed back, went with the session; or the handle
 * does not name it when it comes back, and it ends then (session.c). */
void fc_link_unref(struct fc_link *link) {
    if (!link || --link->refs)
        return;
    while (link->abandoned) {
        struct fc_abandoned *entry = link->abandoned;
        link->abandoned = entry->next;
        free(entry);
    }
    while (link->untold) {
        struct fc_untold *untold = link->untold;
        link->untold = untold->next;
        free(untold);
    }
    fc_fork_close(&link->socket);
    bump_deinit(&link->spare);
    free(link);
}

/* From here on nothing is sent or received, and every call in flight ends with FC_LINK_LOST. What
 * the broker had granted by answers that did not come ends when the handle comes back, or with the
 * session. */
void fc_link_break(struct fc_link *link, const char *why) {
    if (link->broken)
        return;
    link->broken = true;
    snprintf(link->why, sizeof link->why, "%s", why);
    /* Also wakes the thread that polls it; the descriptor itself closes with the last reference. */
    shutdown(link->socket.fd, SHUT_RDWR);
    for (struct fc_call *call = link->calls; call; call = call->next)
        if (call->woken)
            call->woken(call);
        else
            pthread_cond_signal(&call->wake);
    fc_hub_announce(link->hub);
}

/* ---- sending ---- */

/* The payload is never copied: it goes out from where the caller has it, behind header and body.
 * parts[0] was left free by the caller for those two. A body that is small, which is nearly every
 * one, is packed on the stack, so that a release can be sent when malloc() fails. */
int fc_link_send(struct fc_link *link, enum frame_type type, uint32_t request_id,
                 const Fb__ClientRequest *request, struct iovec *parts, size_t part_count) {
    size_t body_bytes = fb__client_request__get_packed_size(request);
    size_t payload_bytes = 0;
    for (size_t i = 1; i < part_count; i++)
        payload_bytes += parts[i].iov_len;
    if (FRAME_HEADER_BYTES + body_bytes + payload_bytes > FRAME_CLIENT_BYTES_MAX)
        return -EMSGSIZE;
    uint8_t small[FRAME_HEADER_BYTES + BODY_SMALL_BYTES];
    uint8_t *frame =
        body_bytes > BODY_SMALL_BYTES ? malloc(FRAME_HEADER_BYTES + body_bytes) : small;
    if (!frame)
        return -ENOMEM;
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = (uint8_t)type,
                                  .request_id = request_id,
                                  .body_bytes = (uint32_t)body_bytes,
                                  .payload_bytes = (uint32_t)payload_bytes};
    frame_encode(&header, frame);
    fb__client_request__pack(request, frame + FRAME_HEADER_BYTES);
    struct iovec only, *first = parts ? parts : &only;
    *first = (struct iovec){.iov_base = frame, .iov_len = FRAME_HEADER_BYTES + body_bytes};
    int rc = fc_socket_send(link->socket.fd, first, parts ? part_count : 1, 0);
    if (frame != small)
        free(frame);
    return rc;
}

int fc_link_await_room(struct fc_link *link, uint64_t deadline_ns) {
    fc_link_ref(link); /* another thread may replace it meanwhile */
    pthread_mutex_unlock(&link->hub->lock);
    int rc = fc_socket_await_room(link->socket.fd, deadline_ns);
    pthread_mutex_lock(&link->hub->lock);
    fc_link_unref(link);
    return rc;
}

/* A note that cannot be sent now has not been sent at all: a packet goes whole or not at all. So
 * the caller may keep it and try again. */
int fc_link_note(struct fc_link *link, const Fb__ClientRequest *request) {
    int rc = fc_link_send(link, FRAME_NOTE, 0, request, NULL, 0);
    if (rc && !fc_socket_is_lost(-rc))
        return -EAGAIN;
    if (rc)
        fc_link_break(link, strerror(-rc));
    return 0;
}

/* Packed at once, as the request borrows memory of its caller. Without memory to keep it in, what
 * it would have ended ends with the session, or when the handle has lost its connection and comes
 * back. */
static bool link_keep(struct fc_link *link, const Fb__ClientRequest *request) {
    size_t body_bytes = fb__client_request__get_packed_size(request);
    struct fc_untold *untold = malloc(sizeof *untold + FRAME_HEADER_BYTES + body_bytes);
    struct fc_untold **end = &link->untold;
    if (!untold)
        return false;
    struct frame_header header = {
        .version = FRAME_VERSION, .type = FRAME_NOTE, .body_bytes = (uint32_t)body_bytes};
    untold->next = NULL;
    untold->bytes = FRAME_HEADER_BYTES + body_bytes;
    frame_encode(&header, untold->frame);
    fb__client_request__pack(request, untold->frame + FRAME_HEADER_BYTES);
    while (*end)
        end = &(*end)->next;
    *end = untold;
    return true;
}

/* What is kept goes first. If that does not get through, this one is kept behind it. */
bool fc_link_tell(struct fc_link *link, const Fb__ClientRequest *request) {
    if (link->broken)
        return true;
    if (fc_link_tell_kept(link) || fc_link_note(link, request))
        return link_keep(link, request);
    return true;
}

int fc_link_tell_kept(struct fc_link *link) {
    while (link->untold && !link->broken) {
        struct fc_untold *untold = link->untold;
        const struct iovec part = {.iov_base = untold->frame, .iov_len = untold->bytes};
        int rc = fc_socket_send(link->socket.fd, &part, 1, 0);
        if (rc && !fc_socket_is_lost(-rc))
            return -EAGAIN;
        if (rc)
            fc_link_break(link, "the broker closed it");
        link->untold = untold->next;
        free(untold);
    }
    return 0;
}
