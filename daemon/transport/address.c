/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/address.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { PORT_MAX = 65535, PORT_DIGITS_MAX = 5 };

static int address_parse_port(const char *text, char out[6]) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > PORT_DIGITS_MAX || text[digits] != '\0' ||
        strtoul(text, NULL, 10) > PORT_MAX)
        return -EINVAL;
    memcpy(out, text, digits + 1);
    return 0;
}

int tcp_address_parse(const char *text, struct tcp_address *out) {
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

typedef int (*name_function)(int fd, struct sockaddr *address, socklen_t *bytes);

static void address_format_end(int fd, name_function name, char out[TCP_ADDRESS_BYTES]) {
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    char host[48], port[8];
    snprintf(out, TCP_ADDRESS_BYTES, "?");
    if (name(fd, (struct sockaddr *)&address, &bytes) < 0 ||
        getnameinfo((struct sockaddr *)&address, bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    snprintf(out, TCP_ADDRESS_BYTES, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
             port);
}

static int address_local_name(int fd, struct sockaddr *address, socklen_t *bytes) {
    return getsockname(fd, address, bytes);
}

static int address_remote_name(int fd, struct sockaddr *address, socklen_t *bytes) {
    return getpeername(fd, address, bytes);
}

void tcp_address_of_socket(int fd, char local[TCP_ADDRESS_BYTES], char remote[TCP_ADDRESS_BYTES]) {
    address_format_end(fd, address_local_name, local);
    if (remote != NULL)
        address_format_end(fd, address_remote_name, remote);
}
