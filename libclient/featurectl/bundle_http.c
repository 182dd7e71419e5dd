/* SPDX-License-Identifier: Apache-2.0
 *
 * connect -> send the question -> skip the header -> the body, until the server closes
 *
 * The question is HTTP/1.0 (RFC 1945), to which a server answers without chunks and then closes: a
 * client library would be one more dependency for one question to our own broker.
 */
#include "featurectl/bundle_http.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "featurectl/memory.h"
#include "featurectl/output_file.h"

#define STEP_S 2

/* Sections and keys as the broker itself reads them: "[ops]", then "http = ..." somewhere below. */
char *bundle_config_value(const char *config, const char *section, const char *key) {
    char *copy = memory_copy(config), *rest = copy, *line, *found = NULL;
    bool inside = false;
    size_t section_bytes = strlen(section), key_bytes = strlen(key);
    while ((line = strsep(&rest, "\n"))) {
        line += strspn(line, " \t");
        if (*line == '[')
            inside =
                strncmp(line + 1, section, section_bytes) == 0 && line[section_bytes + 1] == ']';
        if (!inside || strncmp(line, key, key_bytes) != 0)
            continue;
        char *value = line + key_bytes + strspn(line + key_bytes, " \t");
        if (*value != '=')
            continue;
        value += 1 + strspn(value + 1, " \t");
        value[strcspn(value, " \t\r;#")] = '\0';
        free(found);
        found = *value ? memory_copy(value) : NULL;
    }
    free(copy);
    return found;
}

/* A server that listens on every address is asked on the loopback one. */
static int bundle_http_resolve(const char *address, struct addrinfo **out) {
    char *host = memory_copy(address), *port = strrchr(host, ':'), *name = host;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int error = EAI_NONAME;
    if (port) {
        *port++ = '\0';
        if (*name == '[') {
            name[strcspn(name, "]")] = '\0';
            name++;
        }
        if (!*name || strcmp(name, "0.0.0.0") == 0 || strcmp(name, "*") == 0)
            name = "127.0.0.1";
        error = getaddrinfo(strcmp(name, "::") == 0 ? "::1" : name, port, &hints, out);
    }
    free(host);
    return error ? -EADDRNOTAVAIL : 0;
}

/* A connected socket, or -errno. */
static int bundle_http_connect(const char *address) {
    struct addrinfo *list;
    const struct timeval step = {.tv_sec = STEP_S};
    int fd = bundle_http_resolve(address, &list);
    if (fd < 0)
        return fd;
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? -errno : 0;
    /* The first also bounds connect(2), on Linux. */
    if (!error && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &step, sizeof step) != 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof step) != 0 ||
                   connect(fd, list->ai_addr, list->ai_addrlen) != 0))
        error = -errno;
    freeaddrinfo(list);
    if (error && fd >= 0)
        close(fd);
    return error ? error : fd;
}

/* "HTTP/1.1 200 OK" -> 200; 0 for what is no such line. */
static int bundle_http_status(const char *line) {
    const char *blank = strncmp(line, "HTTP/", 5) == 0 ? strchr(line, ' ') : NULL;
    return blank ? atoi(blank + 1) : 0;
}

/* 0 or -errno. *status_out: of the answer. */
static int bundle_http_read(int fd, FILE *out, int *status_out) {
    FILE *in = fdopen(dup(fd), "r");
    char *line = NULL, buffer[8192];
    size_t room = 0, got;
    ssize_t bytes;
    int error = in ? 0 : -errno;
    *status_out = 0;
    if (in && getline(&line, &room, in) > 0)
        *status_out = bundle_http_status(line);
    while (in && (bytes = getline(&line, &room, in)) > 0 && strspn(line, "\r\n") != (size_t)bytes)
        ;
    while (in && *status_out == 200 && (got = fread(buffer, 1, sizeof buffer, in)) > 0)
        fwrite(buffer, 1, got, out);
    if (in && ferror(in))
        error = errno ? -errno : -EIO;
    free(line);
    if (in)
        fclose(in);
    return error;
}

int bundle_http_get(const char *address, const char *path, const char *token, FILE *out, char *why,
                    size_t why_bytes) {
    int status = 0, fd = bundle_http_connect(address), error = fd < 0 ? fd : 0;
    char *question = memory_print("GET %s HTTP/1.0\r\nHost: %s\r\n%s%s%s\r\n", path, address,
                                  token ? "Authorization: Bearer " : "", token ? token : "",
                                  token ? "\r\n" : "");
    if (!error)
        error = output_write_all(fd, question, strlen(question), NULL, NULL);
    if (!error)
        error = bundle_http_read(fd, out, &status);
    explicit_bzero(question, strlen(question));
    free(question);
    if (fd >= 0)
        close(fd);
    if (!error && status == 200)
        return 0;
    if (error)
        snprintf(why, why_bytes, "http://%s%s: %s", address, path, strerror(-error));
    else
        snprintf(why, why_bytes, "http://%s%s answers with status %d", address, path, status);
    return error ? error : -EPROTO;
}
