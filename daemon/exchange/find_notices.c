/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client hears while the bytes of its get come in: how many have come, for a person who
 * watches, and which may be checked already, for the library. Both may be dropped on the way: the
 * answer alone grants anything.
 */
#include "exchange/find.h"

static void find_notify(const struct item *item, const Fb__ClientNotice *notice) {
    const struct broker_session *session = item->call->session;
    session->ops->notice(session->client, item->call->request_id, notice);
}

/* For a person who watches: so many bytes of so many. */
void find_send_progress(const struct item *item, const struct fetch_moved *moved) {
    Fb__Progress progress = FB__PROGRESS__INIT;
    progress.bytes_done = moved->bytes_done;
    progress.bytes_total = moved->to.bytes;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_PROGRESS;
    notice.progress = &progress;
    find_notify(item, &notice);
}

/* For the client library: it checks the sums of these bytes while the others are on their way. */
void find_send_landed(const struct item *item, const struct fetch_moved *moved) {
    Fb__Landed landed = FB__LANDED__INIT;
    landed.item = (uint32_t)item_index(item);
    landed.transfer = moved->transfer;
    landed.extent_offset = moved->to.offset;
    landed.bytes = moved->prefix_bytes;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_LANDED;
    notice.landed = &landed;
    find_notify(item, &notice);
}
