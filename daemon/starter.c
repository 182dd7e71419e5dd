/* SPDX-License-Identifier: Apache-2.0
 *
 * A pidfd tells of the end of a whole process, however it ends, and of nothing else.
 * PR_SET_PDEATHSIG would tell of the end of the thread that started us, and a pipe would stay open
 * for as long as any forked child of that process has a copy of it.
 */
#include "starter.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The second look at our parent is for a process that ended before we had the pidfd: its number may
 * be another's by now. */
int starter_watch(pid_t pid, uv_loop_t *loop, struct death_watch *watch, void (*gone)(void *owner),
                  void *owner, char *why, size_t why_bytes) {
    if (pid == 0)
        return 0;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int result = pidfd < 0 ? -errno : 0;
    if (result == 0 && getppid() != pid) {
        close(pidfd);
        result = -ESRCH;
    }
    if (result == 0)
        result = death_watch_start(watch, loop, pidfd, gone, owner);
    if (result < 0)
        snprintf(why, why_bytes, "--end-with=%d: %s", (int)pid,
                 result == -ESRCH ? "this process is not the one that has started this broker, or "
                                    "has ended"
                                  : strerror(-result));
    return result;
}
