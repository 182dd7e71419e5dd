/* SPDX-License-Identifier: Apache-2.0 */
#include "mapping.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "error.h"

/* ENOMEM is this process's own limit, of address space or of mappings: no memory is taken here. */
static int mapping_refused(uint64_t bytes, int error) {
    struct rlimit limit;
    if (error == ENOMEM && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return fc_fail(FEATURE_E_FULL,
                       "map the store's %llu MiB: the address space of this process is limited to "
                       "%llu MiB (RLIMIT_AS): ulimit -v unlimited, or a smaller store",
                       (unsigned long long)(bytes >> 20),
                       (unsigned long long)(limit.rlim_cur >> 20));
    if (error == ENOMEM)
        return fc_fail(FEATURE_E_FULL,
                       "map the store's %llu MiB: this process has as many mappings as it may, or "
                       "too little address space: see vm.max_map_count, vm.overcommit_memory",
                       (unsigned long long)(bytes >> 20));
    return fc_fail(FEATURE_E_INTERNAL, "map the arena's %llu bytes: %s", (unsigned long long)bytes,
                   strerror(error));
}

int fc_mapping_new(int fd, uint64_t bytes, bool write, struct fc_mapping **out) {
    struct stat file;
    if (fstat(fd, &file))
        return fc_fail(FEATURE_E_INTERNAL, "the arena's descriptor: %s", strerror(errno));
    if (!bytes || file.st_size < 0 || bytes > (uint64_t)file.st_size)
        return fc_fail(FEATURE_E_INTERNAL,
                       "the broker says the arena has %llu bytes, its file has %lld",
                       (unsigned long long)bytes, (long long)file.st_size);
    struct fc_mapping *mapping = malloc(sizeof *mapping);
    if (!mapping)
        return fc_fail_memory("map the arena");
    void *base = mmap(NULL, bytes, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        free(mapping);
        return mapping_refused(bytes, error);
    }
    *mapping = (struct fc_mapping){.refs = 1,
                                   .base = base,
                                   .bytes = bytes,
                                   .device = file.st_dev,
                                   .inode = file.st_ino,
                                   .write = write};
    *out = mapping;
    return FEATURE_OK;
}

bool fc_mapping_is(const struct fc_mapping *mapping, int fd, uint64_t bytes, bool write) {
    struct stat file;
    return !fstat(fd, &file) && mapping->device == file.st_dev && mapping->inode == file.st_ino &&
           mapping->bytes == bytes && mapping->write == write;
}

struct fc_mapping *fc_mapping_ref(struct fc_mapping *mapping) {
    atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
    return mapping;
}

void fc_mapping_unref(struct fc_mapping *mapping) {
    if (!mapping || atomic_fetch_sub_explicit(&mapping->refs, 1, memory_order_acq_rel) != 1)
        return;
    munmap(mapping->base, mapping->bytes);
    free(mapping);
}

bool fc_mapping_holds(const struct fc_mapping *mapping, uint64_t offset, uint64_t bytes,
                      uint32_t align_bytes) {
    return offset % align_bytes == 0 && offset <= mapping->bytes &&
           bytes <= mapping->bytes - offset;
}
