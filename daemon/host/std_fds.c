/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors 0, 1 and 2 are open, whatever started us. If one were closed, the next file or socket
 * that is opened would get its number, and a line meant for stderr would go into it.
 */
#include "host/std_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void std_fds_open(void) {
    static const int modes[] = {
        [STDIN_FILENO] = O_RDONLY, [STDOUT_FILENO] = O_RDONLY, [STDERR_FILENO] = O_WRONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", modes[fd]); /* the lowest free number: this one. Inherited. */
}
