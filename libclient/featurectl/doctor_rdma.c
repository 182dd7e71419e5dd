/* SPDX-License-Identifier: Apache-2.0
 *
 * RDMA devices as sysfs shows them: a port can be used when it is active and has a GID that is
 * neither zero nor link-local. The daemon's own word on it is in its log; this works without one.
 */
#include "featurectl/doctor.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEVICES "/sys/class/infiniband"
enum { PORTS_MAX = 16, GIDS_MAX = 64 };

/* A GID is written as eight groups of four digits. fe80: is link-local: it reaches no other
 * network.
 */
bool doctor_gid_is_routable(const char *gid) {
    static const char zero[] = "0000:0000:0000:0000:0000:0000:0000:0000";
    return strlen(gid) >= sizeof zero - 1 && strncmp(gid, zero, sizeof zero - 1) != 0 &&
           strncmp(gid, "fe80:", 5) != 0;
}

/* The table of GIDs has holes; entries that are not there cannot be read, and are passed over. */
static bool doctor_rdma_has_routable_gid(const char *device, int port) {
    char path[384], text[64];
    for (int i = 0; i < GIDS_MAX; i++) {
        snprintf(path, sizeof path, DEVICES "/%.64s/ports/%d/gids/%d", device, port, i);
        if (doctor_read_file(path, text, sizeof text) && doctor_gid_is_routable(text))
            return true;
    }
    return false;
}

/* One good port is enough. Ports are counted from 1. */
static bool doctor_rdma_is_usable(const char *device) {
    char path[384], text[64];
    for (int port = 1; port <= PORTS_MAX; port++) {
        snprintf(path, sizeof path, DEVICES "/%.64s/ports/%d/state", device, port);
        if (doctor_read_file(path, text, sizeof text) && strstr(text, "ACTIVE") != NULL &&
            doctor_rdma_has_routable_gid(device, port))
            return true;
    }
    return false;
}

/* Names of the devices, usable ones and others; how many there are. */
static unsigned doctor_rdma_list_devices(char *usable, char *others, size_t room) {
    unsigned count = 0;
    DIR *directory = opendir(DEVICES);
    const struct dirent *entry;
    usable[0] = others[0] = '\0';
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        char *list = doctor_rdma_is_usable(entry->d_name) ? usable : others;
        size_t used = strlen(list);
        snprintf(list + used, room - used, "%s%.64s", used > 0 ? ", " : "", entry->d_name);
        count++;
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

/* Never a failure: without RDMA everything works over TCP, only slower. */
void doctor_check_rdma(struct context *context, struct doctor_broker *broker,
                       struct doctor_finding *out) {
    char usable[200], others[200];
    (void)context;
    (void)broker;
    if (doctor_rdma_list_devices(usable, others, sizeof usable) == 0)
        doctor_say(out, DOCTOR_OK, NULL, "no RDMA device; peers are reached over TCP");
    else if (usable[0] == '\0')
        doctor_say(
            out, DOCTOR_WARN,
            "bring its interface up and give it an IP address, or peers are reached over TCP",
            "%s: no active port with a routable GID", others);
    else if (access("/dev/infiniband/rdma_cm", F_OK) < 0)
        doctor_say(out, DOCTOR_WARN, "modprobe rdma_ucm (in a container: give it /dev/infiniband)",
                   "%s usable, but /dev/infiniband/rdma_cm is missing", usable);
    else
        doctor_say(out, DOCTOR_OK, NULL, "usable: %s%s%s", usable,
                   others[0] != '\0' ? "; no routable GID or not active: " : "", others);
}
