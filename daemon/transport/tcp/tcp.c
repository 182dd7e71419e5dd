/* SPDX-License-Identifier: Apache-2.0
 *
 * The transport: the listener, regions and the table of operations. What holds it in memory after
 * destroy(): each connection, each link, and the two handles of libuv here (connection.h counts).
 */
#include "transport/tcp/tcp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/log.h"
#include "proto/cleanup.h"
#include "transport/address.h"
#include "transport/lookup.h"
#include "transport/tcp/conn.h"
#include "transport/tcp/control.h"
#include "transport/tcp/link.h"
#include "transport/tcp/reader.h"
#include "transport/tcp/server.h"

enum {
    /* Connections that the kernel completes before we accept them: as many as strangers may be. */
    LISTEN_BACKLOG = TCP_STRANGERS_MAX,
    ACCEPTS_PER_TURN = 16,
    /* After EMFILE and its like. The listener stays readable then, and without a pause the loop
     * would spin on an accept() that cannot succeed before somebody closes something. */
    ACCEPT_PAUSE_MS = 100,
};

static struct tcp *tcp_from_base(struct transport *t) {
    return container_of(endpoint_of(t), struct tcp, base);
}

static struct tcp_conn *tcp_from_handle(struct transport_conn *handle) {
    return container_of(connection_of(handle), struct tcp_conn, base);
}

/* ---- listening ---- */

static void tcp_on_listener(uv_poll_t *poll, int status, int events);

/* If nothing has been closed meanwhile, the next accept() fails and the pause begins again. */
static void tcp_on_accept_pause_over(uv_timer_t *timer) {
    struct tcp *tcp = container_of(timer, struct tcp, accept_pause);
    uv_poll_start(&tcp->listener, UV_READABLE, tcp_on_listener);
}

/* The descriptors that are missing are most likely held by clients of this daemon, and the
 * connections that stand go on. A log line per pause, which is ten a second at worst. */
static void tcp_pause_accepting(struct tcp *tcp, int error) {
    log_warning("peer listener: accept: %s; next try in %d ms", strerror(error), ACCEPT_PAUSE_MS);
    uv_poll_stop(&tcp->listener);
    uv_timer_start(&tcp->accept_pause, tcp_on_accept_pause_over, ACCEPT_PAUSE_MS, 0);
}

/* Other errors of accept4() are of the one connection that was accepted (ECONNABORTED, say), and
 * the next one may be all right. */
static bool tcp_out_of_resources(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* At most ACCEPTS_PER_TURN, so that a flood of connections does not keep the loop from its peers.
 * The rest is still in the backlog, and the listener still readable, in the next turn. */
static void tcp_on_listener(uv_poll_t *poll, int status, int events) {
    struct tcp *tcp = container_of(poll, struct tcp, listener);
    (void)status, (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && !tcp->base.destroying; i++) {
        int fd = accept4(tcp->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            tcp_link_accept(tcp, fd);
        } else if (tcp_out_of_resources(errno)) {
            tcp_pause_accepting(tcp, errno);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

/* SO_REUSEADDR: a daemon that is restarted gets its port back at once, though connections of the
 * one before are still in TIME_WAIT. */
static int tcp_bind_socket(const struct addrinfo *address) {
    int on = 1;
    cleanup_close int fd =
        socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    return steal_descriptor(&fd);
}

static int tcp_bind_name(const char *address) {
    struct addrinfo *found;
    int r = lookup_own(address, &found);
    if (r < 0)
        return r;
    r = tcp_bind_socket(found);
    freeaddrinfo(found);
    return r;
}

/* The port is told back, because it may have been left to the kernel. */
static int tcp_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct tcp *tcp = tcp_from_base(t);
    if (tcp->listen_fd >= 0)
        return -EALREADY;
    int fd = tcp_bind_name(address);
    if (fd < 0)
        return fd;
    int r = uv_poll_init(tcp->base.loop, &tcp->listener, fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    tcp->listen_fd = fd;
    tcp->listener.data = tcp;
    endpoint_hold(&tcp->base);
    address_of_socket(fd, bound_out, NULL);
    return uv_poll_start(&tcp->listener, UV_READABLE, tcp_on_listener);
}

/* ---- regions ---- */

/* Nothing is done to the memory itself: the kernel copies to and from it. */
static int tcp_add_region(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out) {
    return endpoint_add_region(endpoint_of(t), base, bytes, region_out);
}

/* A chunk that is going out is read from the region, and one that comes in lands there: such a
 * connection ends, and with it the read, before the owner unmaps the memory. */
static void tcp_remove_region(struct transport *t, uint32_t region) {
    struct tcp *tcp = tcp_from_base(t);
    struct connection *base;
    regions_remove(&tcp->base.regions, region);
    LIST_FOREACH (base, &tcp->base.connections, all) {
        const struct tcp_conn *conn = container_of(base, struct tcp_conn, base);
        if (tcp_server_uses(conn, region) || read_queue_uses(&conn->reads, region))
            connection_fail_region(base);
    }
}

/* ---- connections ---- */

/* Names that cannot be resolved and hosts that cannot be reached come as `closed`; only what is
 * wrong with the call itself is told here. */
static int tcp_connect(struct transport *t, const char *address, const char *data_address,
                       void *user, struct transport_conn **out) {
    struct tcp *tcp = tcp_from_base(t);
    struct tcp_conn *conn;
    if (tcp->base.destroying)
        return -ESHUTDOWN;
    int r = tcp_conn_dial(tcp, address, data_address, user, &conn);
    if (r == 0)
        *out = &conn->base.handle;
    return r;
}

static int tcp_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct tcp_conn *conn = tcp_from_handle(handle);
    if (!connection_is_usable(&conn->base))
        return -ENOTCONN;
    return tcp_control_send(conn, WIRE_MESSAGE, parts, part_count);
}

static int tcp_read(struct transport_conn *handle, const struct transport_read *read) {
    return tcp_reader_add(tcp_from_handle(handle), read);
}

/* Without a secret the connection works all the same, so the words say so: it is the first thing to
 * look at when something is open that should not be. */
static void tcp_query(const struct transport_conn *handle, struct transport_info *out) {
    const struct tcp_conn *conn = tcp_from_handle((struct transport_conn *)handle);
    *out = conn->base.counters;
    out->reads_in_flight = read_queue_count(&conn->reads);
    out->send_queued_bytes = byte_queue_bytes(&conn->unsent);
    snprintf(out->detail, sizeof out->detail, "%s, serving %" PRIu32 " reads",
             conn->tcp->base.options.cluster_key != NULL ? "authenticated" : "no cluster secret",
             conn->serve_count);
}

/* ---- birth and end ---- */

/* Of the listener and of the pause. */
static void tcp_on_handle_closed(uv_handle_t *handle) {
    struct tcp *tcp = handle->data;
    endpoint_release(&tcp->base);
}

/* Connections first, then strangers, then the listener: nothing of this raises an event from in
 * here; libuv's callbacks bring the rest about. */
static void tcp_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct tcp *tcp = tcp_from_base(t);
    struct stranger *stranger;
    endpoint_destroy(&tcp->base, on_destroyed);
    while ((stranger = strangers_oldest(&tcp->base.strangers)) != NULL)
        tcp_link_close(container_of(stranger, struct tcp_link, stranger));
    uv_close((uv_handle_t *)&tcp->accept_pause, tcp_on_handle_closed);
    if (tcp->listen_fd >= 0) {
        uv_close((uv_handle_t *)&tcp->listener, tcp_on_handle_closed);
        close(tcp->listen_fd);
        tcp->listen_fd = -1;
    }
    endpoint_release(&tcp->base);
}

/* No connection, no link and no handle is left. */
static void tcp_free(struct endpoint *endpoint) {
    endpoint_end(endpoint, container_of(endpoint, struct tcp, base), sizeof(struct tcp));
}

static const struct endpoint_medium tcp_medium = {
    .ops =
        {
            .name = "tcp",
            .listen = tcp_listen,
            .add_region = tcp_add_region,
            .remove_region = tcp_remove_region,
            .region_key = endpoint_region_key,
            .connect = tcp_connect,
            .send = tcp_send,
            .read = tcp_read,
            .close = endpoint_close,
            .query = tcp_query,
            .destroy = tcp_destroy,
        },
    .strangers_max = TCP_STRANGERS_MAX,
    .stop = tcp_conn_stop,
    .free = tcp_free,
};

int transport_tcp_new(const struct transport_setup *setup, struct transport **out, char *why,
                      size_t why_bytes) {
    cleanup_free struct tcp *tcp = calloc(1, sizeof *tcp);
    if (tcp == NULL) {
        snprintf(why, why_bytes, "out of memory");
        return -ENOMEM;
    }
    int r = endpoint_init(&tcp->base, &tcp_medium, setup);
    if (r < 0 || setup->options->reads_per_connection > WIRE_READS_MAX) {
        snprintf(why, why_bytes, "bad options for the TCP transport");
        return -EINVAL;
    }
    tcp->link_events = &tcp_conn_link_events;
    tcp->listen_fd = -1;
    uv_timer_init(setup->loop, &tcp->accept_pause);
    tcp->accept_pause.data = tcp;
    endpoint_hold(&tcp->base);
    *out = &steal_pointer(&tcp)->base.base;
    return 0;
}
