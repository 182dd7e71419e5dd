/* SPDX-License-Identifier: Apache-2.0
 *
 * Is there memory for the arenas, and of the right kind. Arenas are sparse memfds: a machine may
 * promise more than it has, and pays when samples come.
 */
#include "featurectl/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "featurectl/units.h"
#include "host/cgroup.h"

#define PROBE_BYTES 4096

/* What the broker may still take beyond what it holds. */
static uint64_t doctor_memory_bytes_to_come(const struct doctor_broker *broker) {
    return broker->max_resident_bytes > broker->resident_bytes
               ? broker->max_resident_bytes - broker->resident_bytes
               : 0;
}

/* False: /proc is not mounted, or the kernel does not have that line. */
static bool doctor_memory_read_meminfo(const char *key, uint64_t *out) {
    char meminfo[8192];
    return doctor_read_file("/proc/meminfo", meminfo, sizeof meminfo) &&
           doctor_parse_meminfo(meminfo, key, out);
}

/* Arenas take memory only as samples come, so that a broker starts on a machine that cannot hold
 * what it promises.
 */
void doctor_check_memory(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out) {
    (void)context;
    uint64_t available_kib;
    char available[UNITS_ROOM], wanted[UNITS_ROOM];
    if (!doctor_memory_read_meminfo("MemAvailable", &available_kib)) {
        doctor_say(out, DOCTOR_WARN, "is /proc mounted?", "/proc/meminfo cannot be read");
        return;
    }
    units_bytes(available_kib * 1024, available);
    if (!broker->answers)
        doctor_say(out, DOCTOR_OK, NULL, "%s available", available);
    else
        doctor_say(out,
                   available_kib * 1024 >= doctor_memory_bytes_to_come(broker) ? DOCTOR_OK
                                                                               : DOCTOR_WARN,
                   "lower [memory] max_resident_bytes or free memory: the kernel may kill a broker "
                   "that finds none",
                   "%s available, the broker may still take %s", available,
                   units_bytes(doctor_memory_bytes_to_come(broker), wanted));
}

/* Of memory of the broker beside its stores. */
#define BROKER_BYTES (128ull << 20)

/* Of the broker's cgroup and all above it the smallest limit counts. memory.high slows
 * everything down where memory.max kills, so that the two have different advice.
 */
void doctor_check_cgroup(struct context *context, struct doctor_broker *broker,
                         struct doctor_finding *out) {
    (void)context;
    char proc[64], limit_text[UNITS_ROOM], wanted[UNITS_ROOM];
    struct cgroup_limits limits;
    pid_t pid = doctor_whose_limits(broker, out);
    if (!pid)
        return;
    snprintf(proc, sizeof proc, "/proc/%d/cgroup", (int)pid);
    if (access(proc, R_OK)) {
        doctor_say(out, DOCTOR_SKIP, "run as root", "not checked: %s cannot be read by uid %u",
                   proc, geteuid());
        return;
    }
    snprintf(proc, sizeof proc, "/proc/%d", (int)pid);
    cgroup_limits_read(proc, "", &limits);
    bool slow = limits.slow.bytes < limits.memory.bytes;
    const struct cgroup_limit *limit = slow ? &limits.slow : &limits.memory;
    if (limit->bytes == CGROUP_NO_LIMIT) {
        doctor_say(out, DOCTOR_OK, NULL, "no limit");
        return;
    }
    units_bytes(limit->bytes, limit_text);
    if (!broker->answers)
        doctor_say(out, DOCTOR_OK, NULL, "limit %s (%.300s)", limit_text, limit->file);
    else
        doctor_say(out,
                   limit->bytes >= broker->max_resident_bytes + BROKER_BYTES ? DOCTOR_OK
                                                                             : DOCTOR_WARN,
                   slow ? "beyond it everything slows down: raise MemoryHigh= of the unit above "
                          "[memory] max_resident_bytes + 128 MiB and the landing_bytes of every "
                          "store"
                        : "beyond it the kernel kills the broker: raise MemoryMax= of the unit "
                          "(container: its memory limit) above [memory] max_resident_bytes + 128 "
                          "MiB and the landing_bytes of every store",
                   "limit %s (%.300s), max_resident_bytes %s", limit_text, limit->file,
                   units_bytes(broker->max_resident_bytes, wanted));
}

/* Optional: without them the same memory takes more entries of the TLB. */
void doctor_check_hugepages(struct context *context, struct doctor_broker *broker,
                            struct doctor_finding *out) {
    (void)context;
    (void)broker;
    uint64_t total = 0, unused = 0, size_kib = 0;
    char size[UNITS_ROOM];
    doctor_memory_read_meminfo("HugePages_Total", &total);
    doctor_memory_read_meminfo("HugePages_Free", &unused);
    doctor_memory_read_meminfo("Hugepagesize", &size_kib);
    if (size_kib == 0)
        doctor_say(out, DOCTOR_WARN, "set [memory] hugepages = off", "this kernel has none");
    else
        doctor_say(out, total ? DOCTOR_OK : DOCTOR_WARN,
                   "optional, for [memory] hugepages: sysctl -w vm.nr_hugepages=N before the "
                   "broker starts",
                   "%" PRIu64 " of %s, %" PRIu64 " free", total, units_bytes(size_kib * 1024, size),
                   unused);
}

/* Arenas do not lie in /dev/shm, but what others have left there takes the same memory. */
void doctor_check_shm(struct context *context, struct doctor_broker *broker,
                      struct doctor_finding *out) {
    (void)context;
    (void)broker;
    struct statvfs about;
    char total[UNITS_ROOM], unused[UNITS_ROOM];
    if (statvfs("/dev/shm", &about) != 0) {
        doctor_say(out, DOCTOR_WARN, "mount a tmpfs there: other programs want it", "%s",
                   strerror(errno));
        return;
    }
    uint64_t total_bytes = about.f_blocks * about.f_frsize,
             free_bytes = about.f_bavail * about.f_frsize;
    doctor_say(out, free_bytes >= total_bytes / 10 ? DOCTOR_OK : DOCTOR_WARN,
               "clear it: arenas do not live there, but its files take the same memory",
               "%s, %s free (arenas are memfds and not bound by it)",
               units_bytes(total_bytes, total), units_bytes(free_bytes, unused));
}

/* Creates, sizes, seals and maps as the broker does. 0 or -errno. */
static int doctor_memory_probe_memfd(void) {
    int fd = memfd_create("featurectl-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    void *map = MAP_FAILED;
    if (ftruncate(fd, PROBE_BYTES) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        map = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int error = map == MAP_FAILED ? -errno : 0;
    if (map != MAP_FAILED)
        munmap(map, PROBE_BYTES);
    close(fd);
    return error;
}

/* Without sealed memfds no broker can start here: the one check of this file that can fail. */
void doctor_check_memfd(struct context *context, struct doctor_broker *broker,
                        struct doctor_finding *out) {
    (void)context;
    (void)broker;
    int error = doctor_memory_probe_memfd();
    doctor_say(out, error ? DOCTOR_FAIL : DOCTOR_OK,
               "a seccomp or container profile forbids memfd_create or sealing: allow it", "%s",
               error ? strerror(-error) : "sealed shared memory works");
}
