/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernel settings. Where the kernel has no such file (a container's own network namespace lacks
 * some) there is nothing to judge and the finding says so.
 *
 * Numbers that are compared with are named above the checks, each with its reason. These
 * settings are per machine or per network namespace, so that they are read where featurectl
 * runs.
 */
#include "featurectl/doctor.h"

#include <inttypes.h>

#include "featurectl/units.h"
#include "proto/frame.h"

#define TCP_BUFFER_WANTED (4u << 20) /* 10 Gbit/s x 3 ms */
#define MAP_COUNT_WANTED  65530u     /* the kernel's default */

/* index: which number of the line; tcp_wmem has three (least, default, most). */
static bool doctor_kernel_read_number(const char *path, unsigned index, uint64_t *out) {
    char text[256];
    return doctor_read_file(path, text, sizeof text) && doctor_parse_number(text, index, out);
}

/* "ok", for nothing is known to be wrong. */
static void doctor_kernel_say_absent(struct doctor_finding *out, const char *setting) {
    doctor_say(out, DOCTOR_OK, NULL, "%s is not visible here", setting);
}

/* The only one here that fails: with less, a frame of the client protocol cannot be sent at all. */
void doctor_check_socket_buffers(struct context *context, struct doctor_broker *broker,
                                 struct doctor_finding *out) {
    (void)context;
    (void)broker;
    uint64_t bytes;
    char text[UNITS_ROOM];
    if (!doctor_kernel_read_number("/proc/sys/net/core/wmem_default", 0, &bytes)) {
        doctor_kernel_say_absent(out, "net.core.wmem_default");
        return;
    }
    /* A frame is one datagram; the kernel's own bookkeeping for it comes on top. */
    doctor_say(
        out, bytes >= FRAME_CLIENT_BYTES_MAX + FRAME_CLIENT_BYTES_MAX / 2 ? DOCTOR_OK : DOCTOR_FAIL,
        "sysctl -w net.core.wmem_default=212992: frames of 128 KiB do not fit",
        "net.core.wmem_default %s", units_bytes(bytes, text));
}

/* The most that the kernel grows a buffer to. Over a fast link the window must hold bandwidth x
 * round trip.
 */
void doctor_check_tcp_buffers(struct context *context, struct doctor_broker *broker,
                              struct doctor_finding *out) {
    (void)context;
    (void)broker;
    uint64_t send_bytes, receive_bytes;
    char send[UNITS_ROOM], receive[UNITS_ROOM];
    if (!doctor_kernel_read_number("/proc/sys/net/ipv4/tcp_wmem", 2, &send_bytes) ||
        !doctor_kernel_read_number("/proc/sys/net/ipv4/tcp_rmem", 2, &receive_bytes)) {
        doctor_kernel_say_absent(out, "net.ipv4.tcp_wmem");
        return;
    }
    bool enough = send_bytes >= TCP_BUFFER_WANTED && receive_bytes >= TCP_BUFFER_WANTED;
    doctor_say(out, enough ? DOCTOR_OK : DOCTOR_WARN,
               "for fast links: sysctl -w net.ipv4.tcp_wmem='4096 65536 16777216' "
               "net.ipv4.tcp_rmem='4096 131072 16777216'",
               "tcp_wmem up to %s, tcp_rmem up to %s", units_bytes(send_bytes, send),
               units_bytes(receive_bytes, receive));
}

/* Each store and each large buffer is a mapping. Some images lower the kernel default. */
void doctor_check_map_count(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out) {
    (void)context;
    (void)broker;
    uint64_t count;
    if (!doctor_kernel_read_number("/proc/sys/vm/max_map_count", 0, &count))
        doctor_kernel_say_absent(out, "vm.max_map_count");
    else
        doctor_say(out, count >= MAP_COUNT_WANTED ? DOCTOR_OK : DOCTOR_WARN,
                   "sysctl -w vm.max_map_count=65530", "vm.max_map_count %" PRIu64, count);
}

/* Mode 2 counts every promised byte: arenas, which are sparse, are refused although they would
 * fit.
 */
void doctor_check_overcommit(struct context *context, struct doctor_broker *broker,
                             struct doctor_finding *out) {
    (void)context;
    (void)broker;
    uint64_t mode;
    if (!doctor_kernel_read_number("/proc/sys/vm/overcommit_memory", 0, &mode))
        doctor_kernel_say_absent(out, "vm.overcommit_memory");
    else
        doctor_say(out, mode == 2 ? DOCTOR_WARN : DOCTOR_OK,
                   "strict accounting may refuse large arenas: sysctl -w vm.overcommit_memory=0",
                   "vm.overcommit_memory %" PRIu64, mode);
}
