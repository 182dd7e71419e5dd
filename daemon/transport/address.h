/* SPDX-License-Identifier: Apache-2.0
 *
 * "host:port" and "[v6]:port", from and to sockets.
 */
#ifndef FEATURED_PEER_TRANSPORT_TCP_ADDRESS_H
#define FEATURED_PEER_TRANSPORT_TCP_ADDRESS_H

#define TCP_ADDRESS_BYTES 64u

struct tcp_address {
    char host[256];
    char port[6]; /* decimal, 0 to 65535 */
};

/* 0, or -EINVAL. An empty host is every local address. */
int tcp_address_parse(const char *text, struct tcp_address *out);
/* Both ends of a connected socket (remote may be NULL: a listening one); "?" when there is none. */
void tcp_address_of_socket(int fd, char local[TCP_ADDRESS_BYTES], char remote[TCP_ADDRESS_BYTES]);

#endif
