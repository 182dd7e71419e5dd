/* SPDX-License-Identifier: Apache-2.0
 *
 * Another broker as the source of a fetch: its bytes are read over the link by which it granted the
 * lease. Over a newer link they must not be read: the home ends the leases of a link that is lost,
 * so the memory may hold another sample by then.
 */
#include "exchange/fetch.h"

static const char *source_peer_name(const struct source *source) {
    return peer_node(source->of);
}

static int source_peer_read(const struct source *source, const struct source_read *read,
                            uint64_t now_ns) {
    const struct peer_read asked = {.from = read->from,
                                    .local = read->local,
                                    .done = read->done,
                                    .progress = read->progress,
                                    .context = read->context};
    return peer_read(source->of, source->epoch, &asked, now_ns);
}

static const struct source_ops source_peer_ops = {.name = source_peer_name,
                                                  .read = source_peer_read};

struct source source_peer(struct peer *peer, uint64_t epoch) {
    return (struct source){
        .ops = &source_peer_ops, .of = peer, .number = peer_number(peer), .epoch = epoch};
}
