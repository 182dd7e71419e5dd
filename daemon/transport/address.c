/* SPDX-License-Identifier: Apache-2.0
 *
 * Text to parts and back. The last colon separates the port, so that an IPv6 address without
 * brackets is refused by its port rather than taken apart in a wrong place.
 */
#include "transport/address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_MAX = 65535, PORT_DIGITS_MAX = 5 };

/* Digits only: strtoul() would also take a sign and blanks. */
static int address_parse_port(const char *text, char out[6]) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > PORT_DIGITS_MAX || text[digits] != '\0' ||
        strtoul(text, NULL, 10) > PORT_MAX)
        return -EINVAL;
    memcpy(out, text, digits + 1);
    return 0;
}

int address_parse(const char *text, struct address *out) {
    const char *colon = strrchr(text, ':'), *host = text;
    if (colon == NULL)
        return -EINVAL;
    size_t host_bytes = (size_t)(colon - text);
    if (host_bytes >= 2 && host[0] == '[' && host[host_bytes - 1] == ']') {
        host++;
        host_bytes -= 2;
    }
    if (host_bytes >= sizeof out->host)
        return -EINVAL;
    memcpy(out->host, host, host_bytes);
    out->host[host_bytes] = '\0';
    return address_parse_port(colon + 1, out->port);
}

void address_format(const struct sockaddr *address, char out[ADDRESS_BYTES]) {
    /* getnameinfo takes a length that fits the family and refuses a larger family's address. */
    socklen_t bytes =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    char host[48], port[8];
    snprintf(out, ADDRESS_BYTES, "?");
    if (getnameinfo(address, bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(out, ADDRESS_BYTES, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
                 port);
}

/* A socket that is no longer connected has no remote address; that is an answer, not an error. */
void address_of_socket(int fd, char local[ADDRESS_BYTES], char remote[ADDRESS_BYTES]) {
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t bytes = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &bytes);
    address_format((struct sockaddr *)&address, local);
    if (remote == NULL)
        return;
    address = (struct sockaddr_storage){.ss_family = AF_UNSPEC};
    bytes = sizeof address;
    getpeername(fd, (struct sockaddr *)&address, &bytes);
    address_format((struct sockaddr *)&address, remote);
}

/* Ports are left out: the same node listens at one port and dials from another. */
bool address_same_host(const struct sockaddr *a, const struct sockaddr *b) {
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)a)->sin_addr,
                      &((const struct sockaddr_in *)b)->sin_addr, sizeof(struct in_addr)) == 0;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

bool address_is_any(const struct sockaddr *address) {
    static const struct sockaddr_in any4 = {.sin_family = AF_INET};
    static const struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    return address_same_host(address, (const struct sockaddr *)&any4) ||
           address_same_host(address, (const struct sockaddr *)&any6);
}
