/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses as text and as the kernel has them: "host:port" and "[v6]:port". Pure.
 */
#ifndef FEATURED_TRANSPORT_ADDRESS_H
#define FEATURED_TRANSPORT_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#define ADDRESS_BYTES 64u /* of a numeric address as text */

struct address {
    char host[256];
    char port[6]; /* decimal, 0 to 65535 */
};

/* 0, or -EINVAL. An empty host is every local address. */
int address_parse(const char *text, struct address *out);
/* "10.0.0.1:7400" or "[fd00::1]:7400"; "?" for what is neither IPv4 nor IPv6. */
void address_format(const struct sockaddr *address, char out[ADDRESS_BYTES]);
/* Both ends of a connected socket (remote may be NULL: a listening one); "?" when there is none. */
void address_of_socket(int fd, char local[ADDRESS_BYTES], char remote[ADDRESS_BYTES]);
/* Are they the same but for the port? */
bool address_same_host(const struct sockaddr *a, const struct sockaddr *b);
/* Is it 0.0.0.0 or ::, every local address? */
bool address_is_any(const struct sockaddr *address);

#endif
