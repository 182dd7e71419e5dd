/* SPDX-License-Identifier: Apache-2.0
 *
 * Is a secret file private? It is opened first and judged then: the facts are those of the open
 * file, not of a name that may point to another file a moment later.
 */
#include "host/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { GROUPS_MAX = 1024, MODE_GROUP_WRITE = 0020, MODE_GROUP_READ = 0040, MODE_OTHERS = 0007 };

/* A group of this process may read the file: that is how a secret is given to several services. */
static bool secret_is_our_group(gid_t group) {
    gid_t groups[GROUPS_MAX];
    int count = getgroups(GROUPS_MAX, groups);
    if (group == getegid())
        return true;
    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return false;
}

bool secret_file_is_private(const struct stat *facts, char *why, size_t why_bytes) {
    const char *wrong = NULL;
    if (facts->st_uid != 0 && facts->st_uid != geteuid())
        wrong = "another user owns it";
    else if (facts->st_mode & MODE_OTHERS)
        wrong = "everybody can get at it";
    else if (facts->st_mode & MODE_GROUP_WRITE)
        wrong = "its group can change it";
    else if (facts->st_mode & MODE_GROUP_READ && !secret_is_our_group(facts->st_gid))
        wrong = "a group that is none of ours can read it";
    if (wrong)
        snprintf(why, why_bytes,
                 "owner %u, group %u, mode %04o: %s; allowed: owner %u or root, mode 0600 or 0400, "
                 "and 0640 or 0440 with a group of this process (such as %u); do: chmod 600",
                 facts->st_uid, facts->st_gid, (unsigned)(facts->st_mode & 07777), wrong, geteuid(),
                 getegid());
    return !wrong;
}

/* O_NONBLOCK: the name may be that of a pipe, on which open() would wait for a writer. */
int secret_file_open(const char *path, char *why, size_t why_bytes) {
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &facts) < 0) {
        int error = errno;
        snprintf(why, why_bytes, "cannot be opened: %s", strerror(error));
        if (fd >= 0)
            close(fd);
        return -error;
    }
    if (!S_ISREG(facts.st_mode))
        snprintf(why, why_bytes, "not a regular file");
    else if (secret_file_is_private(&facts, why, why_bytes))
        return fd;
    close(fd);
    return -EACCES;
}
