/* SPDX-License-Identifier: Apache-2.0
 *
 * A TCP forwarder on a libuv loop, to come between a client and its server: open, cut off, or
 * swallowing answers.
 */
#ifndef FEATURED_TESTS_TCP_PROXY_H
#define FEATURED_TESTS_TCP_PROXY_H

#include <stdint.h>
#include <uv.h>

struct tcp_proxy;

enum tcp_proxy_mode {
    TCP_PROXY_OPEN = 0,
    TCP_PROXY_CUT,  /* connections are closed, new ones refused */
    TCP_PROXY_MUTE, /* what the client sends arrives, what the server sends is dropped */
};

/* Listens on a free port of 127.0.0.1 and forwards to host:port. */
struct tcp_proxy *tcp_proxy_new(uv_loop_t *loop, const char *host, uint16_t port);
uint16_t tcp_proxy_port(const struct tcp_proxy *proxy);
void tcp_proxy_set(struct tcp_proxy *proxy, enum tcp_proxy_mode mode);
/* Closes the connections there are; new ones are forwarded as the mode says. */
void tcp_proxy_drop(struct tcp_proxy *proxy);
/* Freed when the loop has closed its handles. */
void tcp_proxy_free(struct tcp_proxy *proxy);

#endif
