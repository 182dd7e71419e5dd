/* SPDX-License-Identifier: Apache-2.0
 *
 * Two timers. `soon` (0 ms) is for events that must not be raised inside an operation of the owner.
 * `tick` is for deadlines: one that is looked at five times a second while somebody waits (a
 * handshake, a READ, a rail that is to be dialled again), and seldom otherwise, so that an idle
 * daemon sleeps. A timer per link would be exact, but nothing here needs to be: the deadlines are
 * seconds long.
 */
#include "transport/rdma/turn.h"

enum {
    TICK_MS = 200,
    SCAN_MS = 5000,
    /* While there are fewer rails than there have been: somebody is likely to be mending one. */
    SCAN_LOST_MS = 1000,
};

void rdma_soon(struct rdma *rdma) {
    if (!uv_is_active((uv_handle_t *)&rdma->soon) && !uv_is_closing((uv_handle_t *)&rdma->soon))
        uv_timer_start(&rdma->soon, rdma->on_soon, 0, 0);
}

static bool turn_somebody_waits(const struct rdma *rdma) {
    const struct rdma_link *link;
    struct rdma_conn *conn;
    if (rdma->left_count > 0)
        return true;
    TAILQ_FOREACH (link, &rdma->links, all)
        if (link->phase != RLINK_OPEN || link->posted_count > 0)
            return true;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn))
        if (!conn->base.up || conn->mend_ms != 0)
            return true;
    return false;
}

uint64_t rdma_scan_pause_ms(const struct rdma *rdma) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        count += rdma->rails[i].device != NULL;
    return count < rdma->rails_most ? SCAN_LOST_MS : SCAN_MS;
}

void rdma_start_tick(struct rdma *rdma) {
    uint64_t wait_ms = turn_somebody_waits(rdma) ? TICK_MS : rdma_scan_pause_ms(rdma);
    uv_timer_start(&rdma->tick, rdma->on_tick, wait_ms, 0);
}

void rdma_watch_time(struct rdma *rdma) {
    if (!rdma->base.destroying && uv_timer_get_due_in(&rdma->tick) > TICK_MS)
        rdma_start_tick(rdma);
}
