/* SPDX-License-Identifier: Apache-2.0
 *
 * A pair of streams per connection; what comes in at one goes out at the other. Either end's end,
 * or a cut, closes both. The proxy is freed when its last handle is.
 */
#include "conformance/tcp_proxy.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "support/checks.h"

struct pair {
    TAILQ_ENTRY(pair) link;
    struct tcp_proxy *proxy;
    uv_tcp_t client, server;
    uv_connect_t connect;
    bool closing;
    int handles;
};

struct tcp_proxy {
    uv_loop_t *loop;
    uv_tcp_t *listener; /* NULL while cut: connections are refused */
    uint16_t port;
    struct sockaddr_in server;
    enum tcp_proxy_mode mode;
    TAILQ_HEAD(, pair) pairs;
    uint32_t handles;
};

struct write {
    uv_write_t request;
    char bytes[];
};

static void handle_gone(struct tcp_proxy *proxy) {
    if (--proxy->handles > 0)
        return;
    free(proxy);
}

static void on_pair_closed(uv_handle_t *handle) {
    struct pair *pair = handle->data;
    struct tcp_proxy *proxy = pair->proxy;
    if (--pair->handles == 0)
        free(pair);
    handle_gone(proxy);
}

static void pair_close(struct pair *pair) {
    if (pair->closing)
        return;
    pair->closing = true;
    TAILQ_REMOVE(&pair->proxy->pairs, pair, link);
    uv_close((uv_handle_t *)&pair->client, on_pair_closed);
    uv_close((uv_handle_t *)&pair->server, on_pair_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    *buffer = uv_buf_init(malloc(suggested), (unsigned)suggested);
}

static void on_written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

static void forward(uv_stream_t *to, const char *bytes, size_t count) {
    struct write *write = malloc(sizeof *write + count);
    memcpy(write->bytes, bytes, count);
    uv_buf_t buffer = uv_buf_init(write->bytes, (unsigned)count);
    if (uv_write(&write->request, to, &buffer, 1, on_written) < 0)
        free(write);
}

static void on_read(uv_stream_t *from, ssize_t count, const uv_buf_t *buffer) {
    struct pair *pair = from->data;
    bool is_client = from == (uv_stream_t *)&pair->client;
    if (count < 0)
        pair_close(pair);
    else if (count > 0 && (is_client || pair->proxy->mode == TCP_PROXY_OPEN))
        forward((uv_stream_t *)(is_client ? &pair->server : &pair->client), buffer->base,
                (size_t)count);
    free(buffer->base);
}

static void on_connect(uv_connect_t *connect, int status) {
    struct pair *pair = connect->data;
    if (pair->closing)
        return;
    if (status < 0) {
        pair_close(pair);
        return;
    }
    uv_tcp_nodelay(&pair->server, 1);
    uv_tcp_nodelay(&pair->client, 1);
    uv_read_start((uv_stream_t *)&pair->client, on_alloc, on_read);
    uv_read_start((uv_stream_t *)&pair->server, on_alloc, on_read);
}

static void on_connection(uv_stream_t *listener, int status) {
    struct tcp_proxy *proxy = listener->data;
    CHECK(status == 0, "listen: %s", uv_strerror(status));
    struct pair *pair = calloc(1, sizeof *pair);
    pair->proxy = proxy;
    pair->handles = 2;
    proxy->handles += 2;
    uv_tcp_init(proxy->loop, &pair->client);
    uv_tcp_init(proxy->loop, &pair->server);
    pair->client.data = pair->server.data = pair->connect.data = pair;
    TAILQ_INSERT_TAIL(&proxy->pairs, pair, link);
    if (uv_accept(listener, (uv_stream_t *)&pair->client) < 0 ||
        uv_tcp_connect(&pair->connect, &pair->server, (struct sockaddr *)&proxy->server,
                       on_connect) < 0)
        pair_close(pair);
}

static void on_listener_closed(uv_handle_t *handle) {
    handle_gone(handle->data);
    free(handle);
}

static void stop_listening(struct tcp_proxy *proxy) {
    if (proxy->listener != NULL)
        uv_close((uv_handle_t *)proxy->listener, on_listener_closed);
    proxy->listener = NULL;
}

static void start_listening(struct tcp_proxy *proxy) {
    struct sockaddr_in own;
    int bytes = sizeof own;
    if (proxy->listener != NULL)
        return;
    proxy->listener = malloc(sizeof *proxy->listener);
    proxy->handles++;
    uv_ip4_addr("127.0.0.1", proxy->port, &own);
    uv_tcp_init(proxy->loop, proxy->listener);
    proxy->listener->data = proxy;
    int result = uv_tcp_bind(proxy->listener, (struct sockaddr *)&own, 0);
    if (result == 0)
        result = uv_listen((uv_stream_t *)proxy->listener, 64, on_connection);
    CHECK(result == 0, "port %u: %s", proxy->port, uv_strerror(result));
    uv_tcp_getsockname(proxy->listener, (struct sockaddr *)&own, &bytes);
    proxy->port = ntohs(own.sin_port);
}

struct tcp_proxy *tcp_proxy_new(uv_loop_t *loop, const char *host, uint16_t port) {
    struct tcp_proxy *proxy = calloc(1, sizeof *proxy);
    proxy->loop = loop;
    proxy->handles = 1; /* the owner's */
    TAILQ_INIT(&proxy->pairs);
    uv_ip4_addr(host, port, &proxy->server);
    start_listening(proxy);
    return proxy;
}

uint16_t tcp_proxy_port(const struct tcp_proxy *proxy) {
    return proxy->port;
}

void tcp_proxy_drop(struct tcp_proxy *proxy) {
    while (!TAILQ_EMPTY(&proxy->pairs))
        pair_close(TAILQ_FIRST(&proxy->pairs));
}

void tcp_proxy_set(struct tcp_proxy *proxy, enum tcp_proxy_mode mode) {
    proxy->mode = mode;
    if (mode != TCP_PROXY_CUT) {
        start_listening(proxy);
        return;
    }
    stop_listening(proxy);
    tcp_proxy_drop(proxy);
}

void tcp_proxy_free(struct tcp_proxy *proxy) {
    tcp_proxy_drop(proxy);
    stop_listening(proxy);
    handle_gone(proxy);
}
