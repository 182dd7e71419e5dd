/* SPDX-License-Identifier: Apache-2.0
 *
 * The transport: options, regions, the listener and the table of operations. Destroyed once it
 * holds no connection, no link, and libuv none of its handles (uv_refs); all of that happens on the
 * loop.
 */
#include "transport/tcp/tcp.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/log.h"
#include "transport/address.h"
#include "transport/tcp/tcp_internal.h"

enum {
    LISTEN_BACKLOG = 256,
    ACCEPTS_PER_TURN = 16,
    ACCEPT_PAUSE_MS = 100,        /* after EMFILE and its like */
    STRANGER_LOG_EVERY_MS = 1000, /* somebody knocking in a loop does not fill the journal */
};

static struct tcp *tcp_from_base(struct transport *t) {
    return (struct tcp *)t; /* base is its first member */
}

static struct tcp_conn *tcp_from_handle(struct transport_conn *conn) {
    return (struct tcp_conn *)conn;
}

/* ---- listening ---- */

void tcp_log_stranger(struct tcp *tcp, int fd, const char *why) {
    char local[TCP_ADDRESS_BYTES], remote[TCP_ADDRESS_BYTES];
    uint64_t now_ms = uv_now(tcp->loop);
    if (tcp->stranger_logged_ms != 0 && now_ms - tcp->stranger_logged_ms < STRANGER_LOG_EVERY_MS) {
        tcp->strangers_unlogged++;
        return;
    }
    tcp_address_of_socket(fd, local, remote);
    log_warning("peer listener %s: dropped %s before it proved itself: %s (%" PRIu32
                " more unreported)",
                local, remote, why, tcp->strangers_unlogged);
    tcp->stranger_logged_ms = now_ms;
    tcp->strangers_unlogged = 0;
}

static void tcp_on_listener(uv_poll_t *poll, int status, int events);

static void tcp_on_accept_pause_over(uv_timer_t *timer) {
    struct tcp *tcp = timer->data;
    uv_poll_start(&tcp->listener, UV_READABLE, tcp_on_listener);
}

static void tcp_pause_accepting(struct tcp *tcp, int error) {
    log_warning("peer listener: accept: %s; next try in %d ms", strerror(error), ACCEPT_PAUSE_MS);
    uv_poll_stop(&tcp->listener);
    uv_timer_start(&tcp->accept_pause, tcp_on_accept_pause_over, ACCEPT_PAUSE_MS, 0);
}

static bool tcp_out_of_resources(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void tcp_on_listener(uv_poll_t *poll, int status, int events) {
    struct tcp *tcp = poll->data;
    (void)status, (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN && !tcp->destroying; i++) {
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

static int tcp_bind_socket(const struct addrinfo *address) {
    int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* A host name here is one of this machine's own, looked up at start: it may block. */
static int tcp_bind_name(const char *address) {
    struct tcp_address parsed;
    struct addrinfo *found,
        hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int r = tcp_address_parse(address, &parsed);
    if (r < 0)
        return r;
    if (getaddrinfo(parsed.host[0] == '\0' ? NULL : parsed.host, parsed.port, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    r = tcp_bind_socket(found);
    freeaddrinfo(found);
    return r;
}

static int tcp_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct tcp *tcp = tcp_from_base(t);
    if (tcp->listen_fd >= 0)
        return -EALREADY;
    int fd = tcp_bind_name(address);
    if (fd < 0)
        return fd;
    int r = uv_poll_init(tcp->loop, &tcp->listener, fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    tcp->listen_fd = fd;
    tcp->listener.data = tcp;
    tcp->uv_refs++;
    tcp_address_of_socket(fd, bound_out, NULL);
    return uv_poll_start(&tcp->listener, UV_READABLE, tcp_on_listener);
}

/* ---- regions ---- */

static int tcp_add_region(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out) {
    uint8_t random[AUTH_NONCE_BYTES];
    uint64_t secret;
    auth_nonce(random);
    memcpy(&secret, random, sizeof secret);
    return regions_add(&tcp_from_base(t)->regions, base, bytes, secret, region_out);
}

static void tcp_remove_region(struct transport *t, uint32_t region) {
    struct tcp *tcp = tcp_from_base(t);
    struct tcp_conn *conn;
    regions_remove(&tcp->regions, region);
    LIST_FOREACH (conn, &tcp->conns, all)
        if (!conn->closing && (tcp_server_uses(conn, region) || tcp_reader_uses(conn, region)))
            tcp_conn_fail(conn, -ECONNABORTED, "memory was unregistered under a read");
}

static int tcp_region_key(struct transport_conn *handle, uint32_t region, void *out,
                          size_t out_bytes) {
    const struct tcp_conn *conn = tcp_from_handle(handle);
    return regions_key(&conn->tcp->regions, conn->number, region, out, out_bytes);
}

/* ---- connections ---- */

static int tcp_connect(struct transport *t, const char *address, const char *data_address,
                       void *user, struct transport_conn **out) {
    struct tcp *tcp = tcp_from_base(t);
    struct tcp_conn *conn;
    if (tcp->destroying)
        return -ESHUTDOWN;
    int r = tcp_conn_dial(tcp, address, data_address, user, &conn);
    if (r == 0)
        *out = (struct transport_conn *)conn;
    return r;
}

static int tcp_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct tcp_conn *conn = tcp_from_handle(handle);
    if (!tcp_conn_usable(conn))
        return -ENOTCONN;
    return tcp_control_send(conn, WIRE_MESSAGE, parts, part_count);
}

static int tcp_read(struct transport_conn *handle, const struct transport_read *read) {
    return tcp_reader_add(tcp_from_handle(handle), read);
}

static void tcp_close(struct transport_conn *handle) {
    tcp_conn_fail(tcp_from_handle(handle), -ECANCELED, "%s", "");
}

static void tcp_query(const struct transport_conn *handle, struct transport_info *out) {
    const struct tcp_conn *conn = (const struct tcp_conn *)handle;
    *out = conn->counters;
    out->reads_in_flight = conn->reads_active + conn->reads_waiting;
    out->send_queued_bytes = byte_queue_bytes(&conn->unsent);
    snprintf(out->detail, sizeof out->detail, "%s, serving %" PRIu32 " reads",
             conn->tcp->options.cluster_key != NULL ? "authenticated" : "no cluster secret",
             conn->serve_count);
}

/* ---- birth and end ---- */

void tcp_maybe_destroyed(struct tcp *tcp) {
    if (!tcp->destroying || tcp->uv_refs > 0 || tcp->link_count > 0 || !LIST_EMPTY(&tcp->conns))
        return;
    void (*on_destroyed)(void *) = tcp->on_destroyed;
    void *owner = tcp->owner;
    regions_deinit(&tcp->regions);
    explicit_bzero(tcp, sizeof *tcp);
    free(tcp);
    if (on_destroyed != NULL)
        on_destroyed(owner);
}

static void tcp_on_handle_closed(uv_handle_t *handle) {
    struct tcp *tcp = handle->data;
    tcp->uv_refs--;
    tcp_maybe_destroyed(tcp);
}

static void tcp_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct tcp *tcp = tcp_from_base(t);
    struct tcp_conn *conn;
    struct tcp_link *link;
    tcp->destroying = true;
    tcp->on_destroyed = on_destroyed;
    LIST_FOREACH (conn, &tcp->conns, all)
        tcp_conn_fail(conn, -ECANCELED, "%s", "");
    while ((link = TAILQ_FIRST(&tcp->strangers)) != NULL)
        tcp_link_close(link);
    uv_close((uv_handle_t *)&tcp->accept_pause, tcp_on_handle_closed);
    if (tcp->listen_fd < 0)
        return;
    uv_close((uv_handle_t *)&tcp->listener, tcp_on_handle_closed);
    close(tcp->listen_fd);
    tcp->listen_fd = -1;
}

static const struct transport_ops tcp_ops = {
    .name = "tcp",
    .listen = tcp_listen,
    .add_region = tcp_add_region,
    .remove_region = tcp_remove_region,
    .region_key = tcp_region_key,
    .connect = tcp_connect,
    .send = tcp_send,
    .read = tcp_read,
    .close = tcp_close,
    .query = tcp_query,
    .destroy = tcp_destroy,
};

static void tcp_copy_options(struct tcp *tcp, const struct transport_options *options) {
    tcp->options = *options;
    if (options->cluster_key != NULL) {
        memcpy(tcp->cluster_key, options->cluster_key, sizeof tcp->cluster_key);
        tcp->options.cluster_key = tcp->cluster_key;
    }
    if (options->hello_bytes > 0)
        memcpy(tcp->hello, options->hello, options->hello_bytes);
    tcp->options.hello = tcp->hello;
    if (options->data_timeout_ms == 0)
        tcp->options.data_timeout_ms = options->handshake_timeout_ms;
}

int transport_tcp_new(const struct transport_setup *setup, struct transport **out, char *why,
                      size_t why_bytes) {
    const struct transport_options *options = setup->options;
    if (options->hello_bytes > TRANSPORT_HELLO_BYTES_MAX || options->chunk_bytes == 0 ||
        options->reads_per_connection == 0 || options->reads_per_connection > WIRE_READS_MAX) {
        snprintf(why, why_bytes, "bad options for the TCP transport");
        return -EINVAL;
    }
    struct tcp *tcp = calloc(1, sizeof *tcp);
    if (tcp == NULL) {
        snprintf(why, why_bytes, "out of memory");
        return -ENOMEM;
    }
    tcp->base.ops = &tcp_ops;
    tcp->loop = setup->loop;
    tcp->events = *setup->events;
    tcp->owner = setup->owner;
    tcp->listen_fd = -1;
    tcp_copy_options(tcp, options);
    TAILQ_INIT(&tcp->strangers);
    LIST_INIT(&tcp->conns);
    uv_timer_init(setup->loop, &tcp->accept_pause);
    tcp->accept_pause.data = tcp;
    tcp->uv_refs = 1;
    *out = &tcp->base;
    return 0;
}
