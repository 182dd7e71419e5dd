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
#include "proto/cleanup.h"
#include "transport/address.h"
#include "transport/lookup.h"
#include "transport/rdma/conn.h"
#include "transport/rdma/conn_rails.h"
#include "transport/rdma/control.h"
#include "transport/rdma/device.h"
#include "transport/rdma/link.h"
#include "transport/rdma/memory.h"
#include "transport/rdma/rails.h"
#include "transport/rdma/reader.h"
#include "transport/rdma/routes.h"
#include "transport/rdma/turn.h"

enum {
    CHUNK_BYTES_MAX = 1 << 30, /* the length of one READ is 31 bits on the wire */
    READS_IN_FLIGHT_MAX = 255, /* a byte in the CM's messages: initiator depth */
};

static struct rdma *rdma_from_base(struct transport *t) {
    return container_of(endpoint_of(t), struct rdma, base);
}

static struct rdma_conn *rdma_from_handle(struct transport_conn *handle) {
    return container_of(connection_of(handle), struct rdma_conn, base);
}

/* ---- what operations leave to the loop ---- */

/* Three rounds, in this order. Reads that were left to the loop are run first: they may close
 * links. Then closed links are freed; whoever held one has returned by now. Connections go last,
 * for their reads must be reported after the last completion that came before the end. */
static void rdma_on_soon(uv_timer_t *timer) {
    struct rdma *rdma = container_of(timer, struct rdma, soon);
    struct rdma_conn *conn, *next;
    struct rdma_link *link;
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = next) {
        next = rdma_next_conn(rdma, conn);
        if (connection_is_usable(&conn->base))
            rreader_run(conn);
    }
    while ((link = TAILQ_FIRST(&rdma->closed_links)) != NULL)
        rlink_free(link);
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = next) {
        next = rdma_next_conn(rdma, conn);
        if (conn->base.closing)
            rconn_end(conn);
    }
}

/* ---- time ---- */

/* A link that fails may end its connection, which closes links further on in the list, also the
 * next one: then the walk stops, and the rest is looked at 200 ms later. */
static void rdma_on_tick(uv_timer_t *timer) {
    struct rdma *rdma = container_of(timer, struct rdma, tick);
    uint64_t now_ms = uv_now(rdma->base.loop);
    struct rdma_link *link, *next;
    struct rdma_conn *conn;
    rdevice_close_left(rdma);
    for (link = TAILQ_FIRST(&rdma->links); link != NULL; link = next) {
        next = TAILQ_NEXT(link, all);
        rlink_check_time(link, now_ms);
        if (next != NULL && next->phase == RLINK_CLOSED)
            break; /* a whole connection ended; the others are looked at in the next turn */
    }
    for (conn = rdma_next_conn(rdma, NULL); conn != NULL; conn = rdma_next_conn(rdma, conn))
        rconn_check_time(conn, now_ms);
    if (now_ms - rdma->scanned_ms >= rdma_scan_pause_ms(rdma)) {
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
    rdma->lib.rdma_ack_cm_event(event);
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

/* The channel does not block; the loop ends when it is empty. */
static void rdma_on_cm_readable(uv_poll_t *poll, int status, int events) {
    struct rdma *rdma = container_of(poll, struct rdma, cm);
    struct rdma_cm_event *event;
    (void)status, (void)events;
    while (!rdma->base.destroying && rdma->lib.rdma_get_cm_event(rdma->channel, &event) == 0)
        rdma_on_cm_event(rdma, event);
}

/* ---- operations ---- */

/* The address must be one of our rails', or any; we listen on every rail, on the same port. */
static int rdma_listen_at(struct rdma *rdma, const struct sockaddr *address) {
    struct rdma_rail *first = NULL;
    for (uint32_t i = RAILS_MAX; i-- > 0;)
        if (rdma->rails[i].device != NULL &&
            (address_is_any(address) ||
             address_same_host(address, (const struct sockaddr *)&rdma->rails[i].address)))
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

/* What was asked for is told back with the port that was got: with several rails there is no one
 * address to name. */
static int rdma_rt_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct rdma *rdma = rdma_from_base(t);
    struct address parsed;
    struct addrinfo *found;
    int r = address_parse(address, &parsed);
    if (r < 0)
        return r;
    if (rdma->listening)
        return -EALREADY;
    r = lookup_own(address, &found);
    if (r < 0)
        return r;
    r = rdma_listen_at(rdma, found->ai_addr);
    freeaddrinfo(found);
    if (r == 0)
        snprintf(bound_out, 64, strchr(parsed.host, ':') != NULL ? "[%.40s]:%u" : "%.40s:%u",
                 parsed.host[0] != '\0' ? parsed.host : "0.0.0.0", rdma->listen_port);
    return r;
}

/* The keys are handed out right away; what is behind them is registered in the background. */
static int rdma_rt_add_region(struct transport *t, void *base, uint64_t bytes,
                              uint32_t *region_out) {
    return rmemory_add(rdma_from_base(t), base, bytes, region_out);
}

static void rdma_rt_remove_region(struct transport *t, uint32_t region) {
    rmemory_remove(rdma_from_base(t), region);
}

/* Messages go over RDMA too: the whole connection is dialled at the data address. */
static int rdma_rt_connect(struct transport *t, const char *address, const char *data_address,
                           void *user, struct transport_conn **out) {
    struct rdma *rdma = rdma_from_base(t);
    struct rdma_conn *conn;
    if (rdma->base.destroying)
        return -ESHUTDOWN;
    int r = rconn_dial(rdma, data_address[0] != '\0' ? data_address : address, user, &conn);
    if (r == 0)
        *out = &conn->base.handle;
    return r;
}

static int rdma_rt_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct rdma_conn *conn = rdma_from_handle(handle);
    if (!connection_is_usable(&conn->base))
        return -ENOTCONN;
    return rcontrol_send(conn, RWIRE_MESSAGE, parts, part_count);
}

static int rdma_rt_read(struct transport_conn *handle, const struct transport_read *read) {
    return rreader_add(rdma_from_handle(handle), read);
}

static void rdma_rt_query(const struct transport_conn *handle, struct transport_info *out) {
    rconn_query(rdma_from_handle((struct transport_conn *)handle), out);
}

/* ---- birth and end ---- */

/* Their links are closed by now. A device with a registration under way is released when that is
 * through. */
static void rdma_close_devices(struct rdma *rdma) {
    for (uint32_t i = 0; i < DEVICES_MAX; i++)
        if (rdma->devices[i] != NULL)
            rdevice_lost(rdma->devices[i], "the transport is being destroyed");
}

static void rdma_on_handle_closed(uv_handle_t *handle) {
    struct rdma *rdma = handle->data;
    endpoint_release(&rdma->base);
}

static void rdma_on_soon_closed(uv_handle_t *handle) {
    struct rdma *rdma = container_of((uv_timer_t *)handle, struct rdma, soon);
    rdevice_close_left(rdma);
    rmemory_deinit(rdma);
    rroutes_free(rdma);
    rdma->lib.rdma_destroy_event_channel(rdma->channel);
    endpoint_end(&rdma->base, rdma, sizeof *rdma);
}

/* `soon` goes last: closed links and ended connections need it. */
static void rdma_free(struct endpoint *endpoint) {
    struct rdma *rdma = container_of(endpoint, struct rdma, base);
    uv_close((uv_handle_t *)&rdma->soon, rdma_on_soon_closed);
}

static void rdma_rt_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct rdma *rdma = rdma_from_base(t);
    struct rdma_link *link;
    endpoint_destroy(&rdma->base, on_destroyed);
    while ((link = TAILQ_FIRST(&rdma->links)) != NULL)
        rlink_close(link);
    rdma_close_devices(rdma);
    uv_close((uv_handle_t *)&rdma->tick, rdma_on_handle_closed);
    uv_close((uv_handle_t *)&rdma->cm, rdma_on_handle_closed);
    rdma_soon(rdma);
    endpoint_release(&rdma->base);
}

static const struct endpoint_medium rdma_medium = {
    .ops =
        {
            .name = "rdma",
            .listen = rdma_rt_listen,
            .add_region = rdma_rt_add_region,
            .remove_region = rdma_rt_remove_region,
            .region_key = endpoint_region_key,
            .connect = rdma_rt_connect,
            .send = rdma_rt_send,
            .read = rdma_rt_read,
            .close = endpoint_close,
            .query = rdma_rt_query,
            .destroy = rdma_rt_destroy,
        },
    .strangers_max = RDMA_STRANGERS_MAX,
    .stop = rconn_stop,
    .free = rdma_free,
};

static void rdma_on_has_room(struct rdma_link *link) {
    rreader_run(link->conn);
}

static const struct rdma_upper rdma_upper = {
    .proven = rconn_adopt,
    .open = rconn_link_open,
    .received = rcontrol_received,
    .landed = rreader_on_landed,
    .has_room = rdma_on_has_room,
    .closed = rreader_rail_lost,
    .lost = rconn_link_lost,
    .segment_registered = rcontrol_announce,
    .region_failed = rcontrol_announce_failure,
    .region_going = rcontrol_region_removed,
    .rail_appeared = rrail_appeared,
};

/* The list of devices is the configuration's, which may be reloaded. */
static void rdma_copy_options(struct rdma *rdma, const struct rdma_options *options) {
    rdma->rdma_options = *options;
    snprintf(rdma->devices_wanted, sizeof rdma->devices_wanted, "%s",
             options->devices != NULL ? options->devices : "");
    rdma->rdma_options.devices = rdma->devices_wanted;
}

static int rdma_open_channel(struct rdma *rdma, char *why, size_t why_bytes) {
    /* The children of a process that pins memory must not get its pages copied away under it. */
    int r = -rdma->lib.ibv_fork_init();
    if (r < 0)
        log_warning("ibv_fork_init: %s; do not fork after memory is registered", strerror(-r));
    rdma->channel = rdma->lib.rdma_create_event_channel();
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

/* From here on libuv has pointers into the struct, so it can only be freed from the loop. */
static void rdma_init_handles(struct rdma *rdma) {
    uv_poll_init(rdma->base.loop, &rdma->cm, rdma->channel->fd);
    uv_timer_init(rdma->base.loop, &rdma->tick);
    uv_timer_init(rdma->base.loop, &rdma->soon);
    rdma->cm.data = rdma->tick.data = rdma;
    endpoint_hold(&rdma->base); /* cm */
    endpoint_hold(&rdma->base); /* tick */
    rdma->on_soon = rdma_on_soon;
    rdma->on_tick = rdma_on_tick;
    uv_poll_start(&rdma->cm, UV_READABLE, rdma_on_cm_readable);
    rdma_start_tick(rdma);
}

static bool rdma_options_are_good(const struct transport_options *options,
                                  const struct rdma_options *rdma) {
    return options->chunk_bytes <= CHUNK_BYTES_MAX && rdma->registration_bytes > 0 &&
           rdma->reads_in_flight_max > 0 && rdma->reads_in_flight_max <= READS_IN_FLIGHT_MAX;
}

/* A transport that finds no rail is of no use, and is destroyed again: from the loop, because its
 * handles are on it. */
int transport_rdma_new(const struct transport_setup *setup, const struct rdma_options *rdma_options,
                       struct transport **out, char *why, size_t why_bytes) {
    cleanup_free struct rdma *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        snprintf(why, why_bytes, "out of memory");
        return -ENOMEM;
    }
    int r = endpoint_init(&fresh->base, &rdma_medium, setup);
    if (r < 0 || !rdma_options_are_good(setup->options, rdma_options)) {
        snprintf(why, why_bytes, "bad options for the RDMA transport");
        return -EINVAL;
    }
    fresh->upper = &rdma_upper;
    LIST_INIT(&fresh->routes);
    TAILQ_INIT(&fresh->links);
    TAILQ_INIT(&fresh->closed_links);
    rdma_copy_options(fresh, rdma_options);
    r = verbs_load(&fresh->lib, VERBS_LIBIBVERBS, VERBS_LIBRDMACM, why, why_bytes);
    if (r == 0)
        r = rdma_open_channel(fresh, why, why_bytes);
    if (r < 0) {
        if (fresh->channel != NULL)
            fresh->lib.rdma_destroy_event_channel(fresh->channel);
        return r;
    }
    struct rdma *rdma = steal_pointer(&fresh); /* libuv holds it from here on */
    rdma_init_handles(rdma);
    if (rrails_scan(rdma, why, why_bytes) == 0) {
        rdma_rt_destroy(&rdma->base.base, NULL);
        return -ENODEV;
    }
    *out = &rdma->base.base;
    return 0;
}
