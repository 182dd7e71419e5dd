/* SPDX-License-Identifier: Apache-2.0
 *
 * What quick.h says. Paths are decided by this process's user and environment; nothing here is
 * kept.
 */
#include "quick.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cgroup.h"
#include "proto/layout.h"

#define KiB              1024ull
#define MiB              (1024ull * KiB)
#define GiB              (1024ull * MiB)
#define PATH_BYTES       108 /* of a Unix socket, with the zero byte: sockaddr_un.sun_path */
#define DRAIN_TIMEOUT_MS 2000u

/* A store gets a quarter of what is free, all stores together a half: room for two full ones beside
 * the programs that use them. No more than 8 GiB a store, which is the default of a service too. */
#define STORE_SHARE     4u
#define NODE_SHARE      2u
#define STORE_BYTES_MIN (16 * MiB)
#define STORE_BYTES_MAX (8 * GiB)

/* ---- the socket ---- */

static int quick_too_long(const char *path, char *why, size_t why_bytes) {
    snprintf(why, why_bytes,
             "--quick: the path of the socket, %s, is longer than %d bytes; give a shorter one: "
             "--quick=PATH",
             path, PATH_BYTES - 1);
    return -ENAMETOOLONG;
}

static int quick_take_asked(const char *asked, char out[PATH_BYTES], char *why, size_t why_bytes) {
    char path[8192], here[4096] = "";
    if (*asked != '/' && getcwd(here, sizeof here) == NULL)
        return -errno;
    int used = snprintf(path, sizeof path, "%s%s%s", here, *here ? "/" : "", asked);
    if (used >= PATH_BYTES)
        return quick_too_long(path, why, why_bytes);
    memcpy(out, path, (size_t)used + 1);
    return 0;
}

/* A directory, no link, that belongs to this user and that nobody else may write to. */
static bool quick_is_own_directory(const char *path) {
    struct stat facts;
    return lstat(path, &facts) == 0 && S_ISDIR(facts.st_mode) && facts.st_uid == geteuid() &&
           !(facts.st_mode & (S_IWGRP | S_IWOTH));
}

static int quick_make_directory(const char *directory, char *why, size_t why_bytes) {
    if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
        int error = errno;
        snprintf(why, why_bytes,
                 "--quick: the directory %s for the socket cannot be made: %s; give a path: "
                 "--quick=PATH",
                 directory, strerror(error));
        return -error;
    }
    if (quick_is_own_directory(directory))
        return 0;
    snprintf(why, why_bytes,
             "--quick: %s is no directory that belongs to uid %u and that only this user may write "
             "to, so the socket in it could be another user's; remove it, or give a path: "
             "--quick=PATH",
             directory, geteuid());
    return -EPERM;
}

int quick_socket_path(const char *asked, char out[PATH_BYTES], char *why, size_t why_bytes) {
    char directory[4096];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int used;
    if (asked != NULL)
        return quick_take_asked(asked, out, why, why_bytes);
    /* Under sudo the variable may still name the directory of another user. */
    if (runtime != NULL && *runtime == '/' && quick_is_own_directory(runtime))
        used = snprintf(directory, sizeof directory, "%s/featured", runtime);
    else
        used = snprintf(directory, sizeof directory, "/tmp/featured-%u", geteuid());
    if ((size_t)used + sizeof "/featured.sock" > PATH_BYTES)
        return quick_too_long(directory, why, why_bytes);
    int r = quick_make_directory(directory, why, why_bytes);
    if (r == 0)
        snprintf(out, PATH_BYTES, "%.90s/featured.sock", directory);
    return r;
}

/* ---- memory ---- */

/* MemAvailable of /proc/meminfo: free memory and what the kernel could give up at once (proc(5)).
 */
uint64_t quick_available_bytes(void) {
    char line[256];
    uint64_t available_kib = 0;
    struct cgroup_limits limits;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %" SCNu64, &available_kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    cgroup_limits_read("/proc/self", "", &limits);
    uint64_t bytes = available_kib * KiB;
    return limits.memory.bytes < bytes ? limits.memory.bytes : bytes;
}

static uint64_t quick_store_bytes(uint64_t available_bytes) {
    uint64_t bytes = available_bytes / STORE_SHARE / (2 * MiB) * (2 * MiB);
    if (bytes < STORE_BYTES_MIN)
        return STORE_BYTES_MIN;
    return bytes < STORE_BYTES_MAX ? bytes : STORE_BYTES_MAX;
}

/* ---- all of it ---- */

/* A host name that is no node name (one with a _ at its end is, one of 65 bytes is not) must not
 * keep anybody from trying featured. */
void quick_set_defaults(struct config *config, const char *socket_path, uint64_t available_bytes) {
    uint64_t node_bytes = available_bytes / NODE_SHARE / (2 * MiB) * (2 * MiB);
    if (layout_check_name(config->node) != NULL)
        snprintf(config->node, sizeof config->node, "local");
    snprintf(config->socket_path, sizeof config->socket_path, "%s", socket_path);
    config->socket_mode = 0600;
    config->store_defaults.max_resident_bytes = quick_store_bytes(available_bytes);
    config->store_defaults.landing_bytes = 0;
    config->max_resident_bytes = node_bytes > STORE_BYTES_MIN ? node_bytes : STORE_BYTES_MIN;
    config->prefault = false;
    config->drain_timeout_ms = DRAIN_TIMEOUT_MS;
}

void quick_say_how_to_connect(const struct config *config) {
    char store[16], node[16];
    printf("featured %s runs on this machine alone: up to %s of samples in a store, %s in all.\n"
           "Programs connect with\n"
           "    export FEATURED_SOCKET=%s\n"
           "or, in Python,\n"
           "    import feature_broker as fb\n"
           "    client = fb.connect(\"%s\")\n"
           "To see what it holds:\n"
           "    featurectl --socket %s status\n"
           "Ctrl-C stops it; its samples go with it.\n",
           FEATURED_VERSION, log_bytes(config->store_defaults.max_resident_bytes, store),
           log_bytes(config->max_resident_bytes, node), config->socket_path, config->socket_path,
           config->socket_path);
    fflush(stdout);
}
