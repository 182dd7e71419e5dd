/* SPDX-License-Identifier: Apache-2.0
 *
 * The transport: CM events, time, what operations leave to the loop, and the table of operations.
 * Two timers: `soon` (0 ms) for events that must not be raised inside an operation; `tick` for
 * deadlines, often while somebody waits, seldom otherwise (rails that appear).
 *
 * Destroyed once it holds no connection, nothing is being registered and libuv holds none of its
 * handles.
 */
#include "transport/rdma/rdma.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "transport/address.h"
#include "transport/rdma/rdma_internal.h"

enum {
    TICK_MS = 200,
    SCAN_MS = 5000,
    SCAN_LOST_MS = 1000,          /* while there are fewer rails than there have been */
    STRANGER_LOG_EVERY_MS = 1000, /* somebody knocking in a loop does not fill the journal */
    CHUNK_BYTES_MAX = 1 << 30,
    READS_IN_FLIGHT_MAX = 255,
};

static struct rdma *rdma_from_base(struct transport *t) {
    return (struct rdma *)t; /* base is its first member */
}

static struct rdma_conn *rdma_from_handle(struct transport_conn *conn) {
    return (struct rdma_conn *)conn;
}

void rdma_log_stranger(struct rdma *rdma, const struct rdma_link *link, const char *why) {
    char host[INET6_ADDRSTRLEN] = "?";
    uint64_t now_ms = uv_now(rdma->loop);
    if (rdma->stranger_logged_ms != 0 &&
        now_ms - rdma->stranger_logged_ms < STRANGER_LOG_EVERY_MS) {
        rdma->strangers_unlogged++;
        return;
    }
    if (link->id != NULL)
        getnameinfo(rdma_get_peer_addr(link->id), sizeof(struct sockaddr_storage), host,
                    sizeof host, NULL, 0, NI_NUMERICHOST);
    log_warning("RDMA peer listener: dropped %s before it proved itself: %s (%" PRIu32
                " more unreported)",
                host, why, rdma->strangers_unlogged);
    rdma->stranger_logged_ms = now_ms;
    rdma->strangers_unlogged = 0;
}

/* ---- what operations leave to the loop ---- */

static void rdma_on_soon(uv_timer_t *timer) {
    struct rdma *rdma = timer->data;
    struct rdma_conn *conn, *next;
    struct rdma_link *link;
    for (conn = LIST_FIRST(&rdma->conns); conn != NULL; conn = next) {
        next = LIST_NEXT(conn, all);
        if (!conn->closing && conn->up)
            rreader_run(conn);
    }
    while ((link = TAILQ_FIRST(&rdma->closed_links)) != NULL)
        rlink_free(link);
    for (conn = LIST_FIRST(&rdma->conns); conn != NULL; conn = next) {
        next = LIST_NEXT(conn, all);
        if (conn->closing)
            rconn_end(conn);
    }
    rdma_maybe_destroyed(rdma);
}

void rdma_soon(struct rdma *rdma) {
    if (!uv_is_active((uv_handle_t *)&rdma->soon) && !uv_is_closing((uv_handle_t *)&rdma->soon))
        uv_timer_start(&rdma->soon, rdma_on_soon, 0, 0);
}

/* ---- time ---- */

static bool rdma_somebody_waits(const struct rdma *rdma) {
    const struct rdma_link *link;
    const struct rdma_conn *conn;
    if (rdma->left_count > 0)
        return true;
    TAILQ_FOREACH (link, &rdma->links, all)
        if (link->phase != RLINK_OPEN || link->posted_count > 0)
            return true;
    LIST_FOREACH (conn, &rdma->conns, all)
        if (!conn->up || conn->mend_ms != 0)
            return true;
    return false;
}

static uint64_t rdma_scan_ms(const struct rdma *rdma) {
    return rrails_count(rdma) < rdma->rails_most ? SCAN_LOST_MS : SCAN_MS;
}

static void rdma_on_tick(uv_timer_t *timer);

static void rdma_start_tick(struct rdma *rdma) {
    uint64_t wait_ms = rdma_somebody_waits(rdma) ? TICK_MS : rdma_scan_ms(rdma);
    uv_timer_start(&rdma->tick, rdma_on_tick, wait_ms, 0);
}

void rdma_watch_time(struct rdma *rdma) {
    if (!rdma->destroying && uv_timer_get_due_in(&rdma->tick) > TICK_MS)
        rdma_start_tick(rdma);
}

static void rdma_on_tick(uv_timer_t *timer) {
    struct rdma *rdma = timer->data;
    uint64_t now_ms = uv_now(rdma->loop);
    struct rdma_link *link, *next;
    struct rdma_conn *conn;
    rdevice_close_left(rdma);
    for (link = TAILQ_FIRST(&rdma->links); link != NULL; link = next) {
        next = TAILQ_NEXT(link, all);
        rlink_check_time(link, now_ms);
        if (next != NULL && next->phase == RLINK_CLOSED)
            break; /* a whole connection ended; the others are looked at in the next turn */
    }
    LIST_FOREACH (conn, &rdma->conns, all)
        rconn_check_time(conn, now_ms);
    if (now_ms - rdma->scanned_ms >= rdma_scan_ms(rdma)) {
        rrails_scan(rdma, NULL, 0);
        rmemory_continue(rdma);
    }
    rdma_start_tick(rdma);
}

/* ---- CM events ---- */

static void rdma_on_cm_event(struct rdma *rdma, struct rdma_cm_event *event) {
    /* Acknowledged first: rdma_destroy_id waits for that. What is needed of it is copied. */
    struct rdma_cm_event copy = *event;
    uint8_t private_data[256];
    bool is_conn =
        copy.event == RDMA_CM_EVENT_CONNECT_REQUEST || copy.event == RDMA_CM_EVENT_CONNECT_RESPONSE;
    if (is_conn && copy.param.conn.private_data != NULL) {
        memcpy(private_data, copy.param.conn.private_data, copy.param.conn.private_data_len);
        copy.param.conn.private_data = private_data;
    }
    rdma_ack_cm_event(event);
    if (copy.event == RDMA_CM_EVENT_CONNECT_REQUEST)
        rlink_on_request(rdma, &copy);
    else if (copy.id->context != NULL)
        rlink_on_cm_event(copy.id->context, &copy);
    else if (copy.event == RDMA_CM_EVENT_DEVICE_REMOVAL) { /* of a listener */
        for (uint32_t i = 0; i < RAILS_MAX; i++)
            if (rdma->rails[i].listener == copy.id)
                rdevice_lost(rdma->rails[i].device, "removed");
    }
}

static void rdma_on_cm_readable(uv_poll_t *poll, int status, int events) {
    struct rdma *rdma = poll->data;
    struct rdma_cm_event *event;
    (void)status, (void)events;
    while (!rdma->destroying && rdma_get_cm_event(rdma->channel, &event) == 0)
        rdma_on_cm_event(rdma, event);
}

/* ---- operations ---- */

static bool rdma_same_host(const struct sockaddr *a, const struct sockaddr *b) {
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

static bool rdma_is_any(const struct sockaddr *address) {
    static const struct sockaddr_in any4 = {.sin_family = AF_INET};
    static const struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    return rdma_same_host(address, (const struct sockaddr *)&any4) ||
           rdma_same_host(address, (const struct sockaddr *)&any6);
}

/* The address must be one of our rails', or any; we listen on every rail, on the same port. */
static int rdma_listen_at(struct rdma *rdma, const struct sockaddr *address) {
    struct rdma_rail *first = NULL;
    for (uint32_t i = RAILS_MAX; i-- > 0;)
        if (rdma->rails[i].device != NULL &&
            (rdma_is_any(address) ||
             rdma_same_host(address, (const struct sockaddr *)&rdma->rails[i].address)))
            first = &rdma->rails[i];
    if (first == NULL)
        return rrails_count(rdma) > 0 ? -EADDRNOTAVAIL : -ENODEV;
    rdma->listen_port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    int r = rrails_listen(rdma, first);
    if (r < 0)
        return r;
    rdma->listening = true;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (rdma->rails[i].device != NULL && &rdma->rails[i] != first) {
            r = rrails_listen(rdma, &rdma->rails[i]);
            if (r < 0)
                log_warning("RDMA rail %" PRIu32 ": cannot listen at %s port %u: %s", i,
                            rdma->rails[i].text, rdma->listen_port, strerror(-r));
        }
    return 0;
}

static int rdma_rt_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct rdma *rdma = rdma_from_base(t);
    struct address parsed;
    struct addrinfo *found,
        hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int r = address_parse(address, &parsed);
    if (r < 0)
        return r;
    if (rdma->listening)
        return -EALREADY;
    if (getaddrinfo(parsed.host[0] == '\0' ? NULL : parsed.host, parsed.port, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    r = rdma_listen_at(rdma, found->ai_addr);
    freeaddrinfo(found);
    if (r == 0)
        snprintf(bound_out, 64, strchr(parsed.host, ':') != NULL ? "[%.40s]:%u" : "%.40s:%u",
                 parsed.host[0] != '\0' ? parsed.host : "0.0.0.0", rdma->listen_port);
    return r;
}

static int rdma_rt_add_region(struct transport *t, void *base, uint64_t bytes,
                              uint32_t *region_out) {
    return rmemory_add(rdma_from_base(t), base, bytes, region_out);
}

static void rdma_rt_remove_region(struct transport *t, uint32_t region) {
    rmemory_remove(rdma_from_base(t), region);
}

static int rdma_rt_region_key(struct transport_conn *handle, uint32_t region, void *out,
                              size_t out_bytes) {
    const struct rdma_conn *conn = rdma_from_handle(handle);
    return regions_key(&conn->rdma->regions, conn->number, region, out, out_bytes);
}

/* Messages go over RDMA too: the whole connection is dialled at the data address. */
static int rdma_rt_connect(struct transport *t, const char *address, const char *data_address,
                           void *user, struct transport_conn **out) {
    struct rdma *rdma = rdma_from_base(t);
    struct rdma_conn *conn;
    if (rdma->destroying)
        return -ESHUTDOWN;
    int r = rconn_dial(rdma, data_address[0] != '\0' ? data_address : address, user, &conn);
    if (r == 0)
        *out = (struct transport_conn *)conn;
    return r;
}

static int rdma_rt_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct rdma_conn *conn = rdma_from_handle(handle);
    if (!rconn_usable(conn))
        return -ENOTCONN;
    return rcontrol_send(conn, RWIRE_MESSAGE, parts, part_count);
}

static int rdma_rt_read(struct transport_conn *handle, const struct transport_read *read) {
    return rreader_add(rdma_from_handle(handle), read);
}

static void rdma_rt_close(struct transport_conn *handle) {
    rconn_fail(rdma_from_handle(handle), -ECANCELED, "%s", "");
}

static void rdma_rt_query(const struct transport_conn *handle, struct transport_info *out) {
    rconn_query((const struct rdma_conn *)handle, out);
}

/* ---- birth and end ---- */

static void rdma_close_devices(struct rdma *rdma) {
    for (uint32_t i = 0; i < DEVICES_MAX; i++)
        if (rdma->devices[i] != NULL)
            rdevice_lost(rdma->devices[i], "the transport is being destroyed");
}

static void rdma_on_handle_closed(uv_handle_t *handle) {
    struct rdma *rdma = handle->data;
    rdma->uv_refs--;
    rdma_maybe_destroyed(rdma);
}

void rdma_maybe_destroyed(struct rdma *rdma) {
    if (!rdma->destroying || !LIST_EMPTY(&rdma->conns) || rdma->registering != NULL ||
        !TAILQ_EMPTY(&rdma->links) || !TAILQ_EMPTY(&rdma->closed_links))
        return;
    if (!uv_is_closing((uv_handle_t *)&rdma->soon))
        uv_close((uv_handle_t *)&rdma->soon, rdma_on_handle_closed);
    if (rdma->uv_refs > 0)
        return;
    void (*on_destroyed)(void *) = rdma->on_destroyed;
    void *owner = rdma->owner;
    rdevice_close_left(rdma);
    rmemory_deinit(rdma);
    rroutes_free(rdma);
    rdma_destroy_event_channel(rdma->channel);
    explicit_bzero(rdma, sizeof *rdma);
    free(rdma);
    if (on_destroyed != NULL)
        on_destroyed(owner);
}

static void rdma_rt_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct rdma *rdma = rdma_from_base(t);
    struct rdma_conn *conn;
    struct rdma_link *link;
    rdma->destroying = true;
    rdma->on_destroyed = on_destroyed;
    LIST_FOREACH (conn, &rdma->conns, all)
        rconn_fail(conn, -ECANCELED, "%s", "");
    while ((link = TAILQ_FIRST(&rdma->links)) != NULL)
        rlink_close(link);
    rdma_close_devices(rdma);
    uv_close((uv_handle_t *)&rdma->tick, rdma_on_handle_closed);
    uv_close((uv_handle_t *)&rdma->cm, rdma_on_handle_closed);
    rdma_soon(rdma);
}

static const struct transport_ops rdma_ops = {
    .name = "rdma",
    .listen = rdma_rt_listen,
    .add_region = rdma_rt_add_region,
    .remove_region = rdma_rt_remove_region,
    .region_key = rdma_rt_region_key,
    .connect = rdma_rt_connect,
    .send = rdma_rt_send,
    .read = rdma_rt_read,
    .close = rdma_rt_close,
    .query = rdma_rt_query,
    .destroy = rdma_rt_destroy,
};

static void rdma_copy_options(struct rdma *rdma, const struct transport_options *options,
                              const struct rdma_options *rdma_options) {
    rdma->options = *options;
    rdma->rdma_options = *rdma_options;
    snprintf(rdma->devices_wanted, sizeof rdma->devices_wanted, "%s",
             rdma_options->devices != NULL ? rdma_options->devices : "");
    rdma->rdma_options.devices = rdma->devices_wanted;
    if (options->cluster_key != NULL) {
        memcpy(rdma->cluster_key, options->cluster_key, sizeof rdma->cluster_key);
        rdma->options.cluster_key = rdma->cluster_key;
    }
    if (options->hello_bytes > 0)
        memcpy(rdma->hello, options->hello, options->hello_bytes);
    rdma->options.hello = rdma->hello;
}

static int rdma_open_channel(struct rdma *rdma, char *why, size_t why_bytes) {
    /* The children of a process that pins memory must not get its pages copied away under it. */
    int r = -ibv_fork_init();
    if (r < 0)
        log_warning("ibv_fork_init: %s; do not fork after memory is registered", strerror(-r));
    rdma->channel = rdma_create_event_channel();
    if (rdma->channel == NULL) {
        snprintf(why, why_bytes,
                 "no RDMA on this machine (%s): load the modules of its device and rdma_ucm, or "
                 "give the "
                 "process access to /dev/infiniband/rdma_cm",
                 strerror(errno));
        return -ENODEV;
    }
    int fd = rdma->channel->fd, flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

static void rdma_init_handles(struct rdma *rdma) {
    uv_poll_init(rdma->loop, &rdma->cm, rdma->channel->fd);
    uv_timer_init(rdma->loop, &rdma->tick);
    uv_timer_init(rdma->loop, &rdma->soon);
    rdma->cm.data = rdma->tick.data = rdma->soon.data = rdma;
    rdma->uv_refs = 3;
    uv_poll_start(&rdma->cm, UV_READABLE, rdma_on_cm_readable);
    rdma_start_tick(rdma);
}

int transport_rdma_new(const struct transport_setup *setup, const struct rdma_options *rdma_options,
                       struct transport **out, char *why, size_t why_bytes) {
    const struct transport_options *options = setup->options;
    if (options->hello_bytes > TRANSPORT_HELLO_BYTES_MAX || options->chunk_bytes == 0 ||
        options->chunk_bytes > CHUNK_BYTES_MAX || options->reads_per_connection == 0 ||
        rdma_options->registration_bytes == 0 || rdma_options->reads_in_flight_max == 0 ||
        rdma_options->reads_in_flight_max > READS_IN_FLIGHT_MAX) {
        snprintf(why, why_bytes, "bad options for the RDMA transport");
        return -EINVAL;
    }
    struct rdma *rdma = calloc(1, sizeof *rdma);
    if (rdma == NULL)
        return -ENOMEM;
    rdma->base.ops = &rdma_ops;
    rdma->loop = setup->loop;
    rdma->events = *setup->events;
    rdma->owner = setup->owner;
    LIST_INIT(&rdma->routes);
    LIST_INIT(&rdma->conns);
    TAILQ_INIT(&rdma->links);
    TAILQ_INIT(&rdma->closed_links);
    rdma_copy_options(rdma, options, rdma_options);
    int r = rdma_open_channel(rdma, why, why_bytes);
    if (r < 0) {
        if (rdma->channel != NULL)
            rdma_destroy_event_channel(rdma->channel);
        free(rdma);
        return r;
    }
    rdma_init_handles(rdma);
    if (rrails_scan(rdma, why, why_bytes) == 0) {
        rdma_rt_destroy(&rdma->base, NULL);
        return -ENODEV;
    }
    *out = &rdma->base;
    return 0;
}
