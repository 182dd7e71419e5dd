/* SPDX-License-Identifier: Apache-2.0
 *
 * Each connection of the owner wraps one of a side (rdma or tcp): its `main` strand is that side's
 * user pointer, so every event finds its way up without a search. A dialled one starts with rdma;
 * its `closed` before `up` starts it again with tcp, unseen by the owner. From then on its `probe`
 * strand dials rdma now and then, to see whether it works; such a connection is closed as soon as
 * it is up. A region is one of each side; its key is both keys behind one another, and the reader's
 * side takes its own.
 */
#include "transport/auto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ops/log.h"
#include "transport/regions.h"

struct side {
    struct transport_auto *both;
    struct transport *t;
};

struct strand { /* of a side */
    struct auto_conn *conn;
    struct transport_conn *inner; /* NULL: not there */
};

struct auto_conn { /* the owner's struct transport_conn */
    struct side *side;
    struct strand main, probe;
    void *user;
    bool up, closing;
    char address[256], data_address[256]; /* to dial again; "" of an accepted one */
    char rdma_why[192];                   /* why it is not rdma */
    LIST_ENTRY(auto_conn) fallen;
    bool is_fallen; /* over tcp, and rdma is tried now and then */
    uint64_t retry_ms, wait_ms;
};

struct transport_auto {
    struct transport base;
    uv_loop_t *loop;
    struct transport_events events;
    void *owner;
    struct side rdma, tcp;
    uv_timer_t retry; /* runs while somebody has fallen back */
    LIST_HEAD(, auto_conn) fallen;
    struct auto_region {
        bool used;
        uint32_t rdma, tcp;
    } * regions;
    uint32_t region_count;
    unsigned parts_left; /* sides not destroyed yet, and the timer */
    void (*on_destroyed)(void *owner);
};

static struct transport_auto *auto_from_base(struct transport *t) {
    return (struct transport_auto *)t; /* base is its first member */
}

static struct auto_conn *auto_from_handle(struct transport_conn *conn) {
    return (struct auto_conn *)conn;
}

static struct auto_conn *auto_conn_new(struct side *side, void *user) {
    struct auto_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->side = side;
    conn->user = user;
    conn->main.conn = conn->probe.conn = conn;
    return conn;
}

/* Once nothing of it is left. */
static void auto_conn_release(struct auto_conn *conn) {
    if (conn->main.inner == NULL && conn->probe.inner == NULL)
        free(conn);
}

/* ---- trying rdma again ---- */

static void auto_stop_retrying(struct auto_conn *conn) {
    if (!conn->is_fallen)
        return;
    LIST_REMOVE(conn, fallen);
    conn->is_fallen = false;
    if (LIST_EMPTY(&conn->side->both->fallen))
        uv_timer_stop(&conn->side->both->retry);
}

static void auto_retry_later(struct auto_conn *conn) {
    uint64_t longer_ms = 2 * conn->wait_ms;
    conn->wait_ms = longer_ms < AUTO_RETRY_MAX_MS ? longer_ms : AUTO_RETRY_MAX_MS;
    conn->retry_ms = uv_now(conn->side->both->loop) + conn->wait_ms;
}

static void auto_on_retry(uv_timer_t *timer) {
    struct transport_auto *both = timer->data;
    struct transport *rdma = both->rdma.t;
    struct auto_conn *conn;
    LIST_FOREACH (conn, &both->fallen, fallen) {
        if (conn->probe.inner != NULL || uv_now(both->loop) < conn->retry_ms)
            continue;
        if (rdma->ops->connect(rdma, conn->address, conn->data_address, &conn->probe,
                               &conn->probe.inner) < 0)
            auto_retry_later(conn);
    }
}

static void auto_start_retrying(struct auto_conn *conn) {
    struct transport_auto *both = conn->side->both;
    if (both->events.better == NULL)
        return;
    conn->wait_ms = AUTO_RETRY_FIRST_MS;
    conn->retry_ms = uv_now(both->loop) + conn->wait_ms;
    conn->is_fallen = true;
    LIST_INSERT_HEAD(&both->fallen, conn, fallen);
    uv_timer_start(&both->retry, auto_on_retry, AUTO_RETRY_FIRST_MS, AUTO_RETRY_FIRST_MS);
}

static void auto_on_probe_up(struct auto_conn *conn) {
    struct transport_auto *both = conn->side->both;
    both->rdma.t->ops->close(conn->probe.inner);
    if (!conn->is_fallen)
        return; /* it has ended meanwhile */
    auto_stop_retrying(conn);
    log_info("connection to %s is over tcp; rdma works now", conn->address);
    both->events.better(both->owner, conn->user);
}

static void auto_on_probe_closed(struct auto_conn *conn, const char *why) {
    conn->probe.inner = NULL;
    if (conn->is_fallen) {
        snprintf(conn->rdma_why, sizeof conn->rdma_why, "%s", why);
        auto_retry_later(conn);
    }
    auto_conn_release(conn);
}

static bool auto_is_probe(const struct strand *strand) {
    return strand == &strand->conn->probe;
}

/* ---- events of the sides ---- */

static void *auto_on_accepted(void *owner, struct transport_conn *inner, const void *hello,
                              size_t hello_bytes) {
    struct side *side = owner;
    struct transport_auto *both = side->both;
    struct auto_conn *conn = auto_conn_new(side, NULL);
    if (conn == NULL)
        return NULL;
    conn->main.inner = inner;
    conn->up = true;
    conn->user =
        both->events.accepted(both->owner, (struct transport_conn *)conn, hello, hello_bytes);
    if (conn->user == NULL) {
        free(conn);
        return NULL;
    }
    return &conn->main;
}

static void auto_on_up(void *owner, void *user, const void *hello, size_t hello_bytes) {
    struct transport_auto *both = ((struct side *)owner)->both;
    struct strand *strand = user;
    struct auto_conn *conn = strand->conn;
    if (auto_is_probe(strand)) {
        auto_on_probe_up(conn);
        return;
    }
    conn->up = true;
    if (conn->rdma_why[0] != '\0') {
        log_info("connection to %s is over tcp; rdma: %s", conn->address, conn->rdma_why);
        auto_start_retrying(conn);
    }
    both->events.up(both->owner, conn->user, hello, hello_bytes);
}

static void auto_on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct transport_auto *both = ((struct side *)owner)->both;
    struct strand *strand = user;
    if (!auto_is_probe(strand))
        both->events.message(both->owner, strand->conn->user, data, bytes);
}

static void auto_on_read_done(void *owner, void *user, void *read_user, int status) {
    struct transport_auto *both = ((struct side *)owner)->both;
    both->events.read_done(both->owner, ((struct strand *)user)->conn->user, read_user, status);
}

static void auto_on_read_progress(void *owner, void *user, void *read_user, uint64_t bytes_done,
                                  uint64_t prefix_bytes) {
    struct transport_auto *both = ((struct side *)owner)->both;
    both->events.read_progress(both->owner, ((struct strand *)user)->conn->user, read_user,
                               bytes_done, prefix_bytes);
}

/* RDMA did not come up: is the connection alive again, over TCP? */
static bool auto_fall_back(struct auto_conn *conn, const char *why) {
    struct transport_auto *both = conn->side->both;
    if (conn->up || conn->closing || conn->side != &both->rdma || both->tcp.t == NULL ||
        both->on_destroyed != NULL)
        return false;
    snprintf(conn->rdma_why, sizeof conn->rdma_why, "%s", why);
    conn->side = &both->tcp;
    return both->tcp.t->ops->connect(both->tcp.t, conn->address, conn->data_address, &conn->main,
                                     &conn->main.inner) == 0;
}

static void auto_on_closed(void *owner, void *user, const char *why) {
    struct transport_auto *both = ((struct side *)owner)->both;
    struct strand *strand = user;
    struct auto_conn *conn = strand->conn;
    if (auto_is_probe(strand)) {
        auto_on_probe_closed(conn, why);
        return;
    }
    if (auto_fall_back(conn, why))
        return;
    conn->main.inner = NULL;
    auto_stop_retrying(conn);
    if (conn->probe.inner != NULL)
        both->rdma.t->ops->close(conn->probe.inner);
    both->events.closed(both->owner, conn->user, why);
    auto_conn_release(conn);
}

static const struct transport_events side_events = {
    .accepted = auto_on_accepted,
    .up = auto_on_up,
    .message = auto_on_message,
    .read_done = auto_on_read_done,
    .read_progress = auto_on_read_progress,
    .closed = auto_on_closed,
};

/* ---- operations ---- */

/* RDMA beside TCP, at the port that TCP got. An address that no rail has is served over TCP alone.
 */
static void auto_listen_rdma_too(struct transport_auto *both, const char *address,
                                 const char *bound) {
    char with_port[320], unused[64];
    snprintf(with_port, sizeof with_port, "%.*s%s", (int)(strrchr(address, ':') - address), address,
             strrchr(bound, ':'));
    int r = both->rdma.t->ops->listen(both->rdma.t, with_port, unused);
    if (r < 0)
        log_warning(
            "RDMA is not offered to peers: cannot listen at %s: %s; give [peers] listen the "
            "address of a rail, or 0.0.0.0",
            with_port, r == -EADDRNOTAVAIL ? "no rail has this address" : strerror(-r));
}

static int auto_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct transport_auto *both = auto_from_base(t);
    if (both->tcp.t == NULL)
        return both->rdma.t->ops->listen(both->rdma.t, address, bound_out);
    int r = both->tcp.t->ops->listen(both->tcp.t, address, bound_out);
    if (r == 0 && both->rdma.t != NULL)
        auto_listen_rdma_too(both, address, bound_out);
    return r;
}

static int auto_side_add_region(struct side *side, void *base, uint64_t bytes, uint32_t *out) {
    return side->t != NULL ? side->t->ops->add_region(side->t, base, bytes, out) : 0;
}

static void auto_side_remove_region(struct side *side, uint32_t region) {
    if (side->t != NULL)
        side->t->ops->remove_region(side->t, region);
}

static int auto_new_region(struct transport_auto *both, uint32_t *out) {
    for (uint32_t i = 0; i < both->region_count; i++)
        if (!both->regions[i].used) {
            *out = i;
            return 0;
        }
    struct auto_region *regions =
        reallocarray(both->regions, both->region_count + 1, sizeof *regions);
    if (regions == NULL)
        return -ENOMEM;
    both->regions = regions;
    *out = both->region_count++;
    regions[*out].used = false;
    return 0;
}

static int auto_add_region(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out) {
    struct transport_auto *both = auto_from_base(t);
    uint32_t number;
    int r = auto_new_region(both, &number);
    if (r < 0)
        return r;
    struct auto_region *region = &both->regions[number];
    r = auto_side_add_region(&both->tcp, base, bytes, &region->tcp);
    if (r < 0)
        return r;
    r = auto_side_add_region(&both->rdma, base, bytes, &region->rdma);
    if (r < 0) {
        auto_side_remove_region(&both->tcp, region->tcp);
        return r;
    }
    region->used = true;
    *region_out = number;
    return 0;
}

static void auto_remove_region(struct transport *t, uint32_t number) {
    struct transport_auto *both = auto_from_base(t);
    if (number >= both->region_count || !both->regions[number].used)
        return;
    struct auto_region region = both->regions[number];
    both->regions[number].used = false;
    auto_side_remove_region(&both->rdma, region.rdma);
    auto_side_remove_region(&both->tcp, region.tcp);
}

/* The half of the side that the connection is not over is zeros. */
static int auto_region_key(struct transport_conn *handle, uint32_t number, void *out,
                           size_t out_bytes) {
    const struct auto_conn *conn = auto_from_handle(handle);
    const struct transport_auto *both = conn->side->both;
    bool over_tcp = conn->side == &both->tcp;
    if (number >= both->region_count || !both->regions[number].used)
        return -ENOENT;
    if (out_bytes < 2ull * REGION_KEY_BYTES)
        return -EMSGSIZE;
    memset(out, 0, 2ull * REGION_KEY_BYTES);
    int r = conn->side->t->ops->region_key(
        conn->main.inner, over_tcp ? both->regions[number].tcp : both->regions[number].rdma,
        (uint8_t *)out + (over_tcp ? REGION_KEY_BYTES : 0), REGION_KEY_BYTES);
    return r < 0 ? r : (int)(2ull * REGION_KEY_BYTES);
}

static int auto_connect(struct transport *t, const char *address, const char *data_address,
                        void *user, struct transport_conn **out) {
    struct transport_auto *both = auto_from_base(t);
    struct auto_conn *conn = auto_conn_new(both->rdma.t != NULL ? &both->rdma : &both->tcp, user);
    if (conn == NULL)
        return -ENOMEM;
    snprintf(conn->address, sizeof conn->address, "%s", address);
    snprintf(conn->data_address, sizeof conn->data_address, "%s", data_address);
    int r = conn->side->t->ops->connect(conn->side->t, address, data_address, &conn->main,
                                        &conn->main.inner);
    if (r < 0) {
        free(conn);
        return r;
    }
    *out = (struct transport_conn *)conn;
    return 0;
}

static int auto_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct auto_conn *conn = auto_from_handle(handle);
    return conn->side->t->ops->send(conn->main.inner, parts, part_count);
}

static int auto_read(struct transport_conn *handle, const struct transport_read *read) {
    struct auto_conn *conn = auto_from_handle(handle);
    struct transport_read own = *read;
    if (read->key_bytes == 2ull * REGION_KEY_BYTES) {
        own.key_bytes = REGION_KEY_BYTES;
        if (conn->side == &conn->side->both->tcp)
            own.key = (const uint8_t *)read->key + REGION_KEY_BYTES;
    }
    return conn->side->t->ops->read(conn->main.inner, &own);
}

static void auto_close(struct transport_conn *handle) {
    struct auto_conn *conn = auto_from_handle(handle);
    conn->closing = true;
    conn->side->t->ops->close(conn->main.inner);
}

static void auto_query(const struct transport_conn *handle, struct transport_info *out) {
    const struct auto_conn *conn = (const struct auto_conn *)handle;
    conn->side->t->ops->query(conn->main.inner, out);
    if (conn->rdma_why[0] != '\0')
        snprintf(out->detail, sizeof out->detail, "no rdma: %s", conn->rdma_why);
}

/* ---- birth and end ---- */

void transport_auto_free(struct transport_auto *both) {
    if (both == NULL)
        return;
    free(both->regions);
    free(both);
}

static void auto_nobody_to_tell(void *owner) {
    (void)owner;
}

static void auto_part_destroyed(struct transport_auto *both) {
    if (--both->parts_left > 0)
        return;
    void (*on_destroyed)(void *) = both->on_destroyed;
    void *whose = both->owner;
    transport_auto_free(both);
    on_destroyed(whose);
}

static void auto_on_side_destroyed(void *owner) {
    auto_part_destroyed(((struct side *)owner)->both);
}

static void auto_on_timer_closed(uv_handle_t *handle) {
    auto_part_destroyed(handle->data);
}

static void auto_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct transport_auto *both = auto_from_base(t);
    struct transport *rdma = both->rdma.t, *tcp = both->tcp.t;
    both->parts_left = 1 + (rdma != NULL) + (tcp != NULL);
    both->on_destroyed = on_destroyed != NULL ? on_destroyed : auto_nobody_to_tell;
    uv_close((uv_handle_t *)&both->retry, auto_on_timer_closed);
    if (rdma != NULL)
        rdma->ops->destroy(rdma, auto_on_side_destroyed);
    if (tcp != NULL)
        tcp->ops->destroy(tcp, auto_on_side_destroyed);
}

static const struct transport_ops auto_ops = {
    .name = "auto",
    .listen = auto_listen,
    .add_region = auto_add_region,
    .remove_region = auto_remove_region,
    .region_key = auto_region_key,
    .connect = auto_connect,
    .send = auto_send,
    .read = auto_read,
    .close = auto_close,
    .query = auto_query,
    .destroy = auto_destroy,
};

int transport_auto_new(uv_loop_t *loop, const struct transport_events *events, void *owner,
                       struct transport_auto **out) {
    struct transport_auto *both = calloc(1, sizeof *both);
    if (both == NULL)
        return -ENOMEM;
    both->base.ops = &auto_ops;
    both->loop = loop;
    LIST_INIT(&both->fallen);
    both->events = *events;
    both->owner = owner;
    both->rdma.both = both->tcp.both = both;
    *out = both;
    return 0;
}

const struct transport_events *transport_auto_events(void) {
    return &side_events;
}

void *transport_auto_rdma_owner(struct transport_auto *both) {
    return &both->rdma;
}

void *transport_auto_tcp_owner(struct transport_auto *both) {
    return &both->tcp;
}

struct transport *transport_auto_join(struct transport_auto *both, struct transport *rdma,
                                      struct transport *tcp) {
    both->rdma.t = rdma;
    both->tcp.t = tcp;
    uv_timer_init(both->loop, &both->retry);
    both->retry.data = both;
    return &both->base;
}
