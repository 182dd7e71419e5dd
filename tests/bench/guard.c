/* SPDX-License-Identifier: Apache-2.0
 *
 * Two processes: the guard, which only waits, and the one that measures. Everything started below
 * is tied to its parent by PR_SET_PDEATHSIG; the guard is their sub-reaper, so that once it has
 * reaped all of them none is left. Only then is the directory removed.
 */
#include "bench/guard.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

static int make_directory(char *directory, size_t directory_bytes) {
    const char *parent = getenv("TMPDIR");
    snprintf(directory, directory_bytes, "%s/feature-bench.XXXXXX",
             parent != NULL && strlen(parent) < 64 ? parent : "/tmp");
    if (mkdtemp(directory) == NULL)
        return bench_fail("mkdtemp %s: %s", directory, strerror(errno));
    return 0;
}

/* Waits for `child` or a signal to stop; then for all that is left. */
static int wait_for(pid_t child, const sigset_t *signals) {
    int status = -1;
    while (waitpid(child, &status, WNOHANG) == 0) {
        const int number = sigwaitinfo(signals, NULL);
        if (number > 0 && number != SIGCHLD)
            kill(child, SIGKILL);
    }
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int guard_run(char *directory, size_t directory_bytes, int (*measure)(void *context),
              void *context) {
    sigset_t signals, before;
    sigemptyset(&signals);
    for (const int *s = (const int[]){SIGCHLD, SIGINT, SIGTERM, SIGHUP, 0}; *s != 0; s++)
        sigaddset(&signals, *s);
    sigprocmask(SIG_BLOCK, &signals, &before);
    if (make_directory(directory, directory_bytes) != 0)
        return 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const pid_t guard = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        _exit(getppid() == guard ? measure(context) : 1);
    }
    const int result =
        child > 0 ? wait_for(child, &signals) : -bench_fail("fork: %s", strerror(errno));
    nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return result;
}
