/* SPDX-License-Identifier: Apache-2.0
 *
 * Tells the service manager (systemd, or whoever speaks its protocol) how we are: one datagram to
 * the socket that $NOTIFY_SOCKET names, see sd_notify(3). No variable: nobody wants to know.
 * Implemented here because libsystemd would be a dependency for thirty lines.
 */
#include "ops/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ops/log.h"

void notify_manager(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (*path == '@') /* the abstract namespace, see unix(7) */
        address.sun_path[0] = '\0';
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 1}; /* a manager that has stopped stops not us */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, bytes) < 0)
        log_warning("notify: the service manager was not told %s: %s", state, strerror(errno));
    if (fd >= 0)
        close(fd);
}
