/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena of a store in this process: one mapping for all handles that have the store open with
 * the same access, counted. Views and reservations hold a reference each, so the bytes stay mapped
 * after the store has been closed and after the broker is gone.
 *
 * A mapping for writing is entered into the list of fork.h: in a forked child it becomes read-
 * only, as the rooms in it are the parent's. The descriptor is closed once it is mapped; the
 * kernel keeps the memory alive by the mapping.
 */
#include "mapping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "error.h"
#include "limit.h"

int fc_mapping_new(const char *name, int fd, uint64_t bytes, bool write, struct fc_mapping **out) {
    struct stat file;
    char what[96];
    snprintf(what, sizeof what, "open store %s", name);
    if (fstat(fd, &file))
        return fc_fail(FEATURE_E_INTERNAL, "%s: the arena's descriptor: %s", what, strerror(errno));
    /* A mapping that reaches beyond the end of the file kills the process by SIGBUS at the first
     * access there. So the size that the broker has told is compared with the file's before it is
     * used. */
    if (!bytes || file.st_size < 0 || bytes > (uint64_t)file.st_size)
        return fc_fail(FEATURE_E_INTERNAL,
                       "%s: the broker says the arena has %llu bytes, its file has %lld", what,
                       (unsigned long long)bytes, (long long)file.st_size);
    struct fc_mapping *mapping = malloc(sizeof *mapping);
    if (!mapping)
        return fc_fail_memory(what);
    /* Nobody forks between mmap() and fc_fork_enter(): a child made in between would have the
     * arena writable and not know of it. */
    fc_fork_lock();
    void *base = mmap(NULL, bytes, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    int error = errno;
    *mapping = (struct fc_mapping){.refs = 1,
                                   .base = base,
                                   .bytes = bytes,
                                   .device = file.st_dev,
                                   .inode = file.st_ino,
                                   .write = write,
                                   .inherited = {.fd = -1, .base = base, .bytes = bytes}};
    if (base != MAP_FAILED && write)
        fc_fork_enter(&mapping->inherited);
    fc_fork_unlock();
    if (base == MAP_FAILED) {
        free(mapping);
        return fc_fail_map(what, bytes, error);
    }
    *out = mapping;
    return FEATURE_OK;
}

/* Another StoreOpen of the same store brings another descriptor of the same file: device and inode
 * tell. After the broker has restarted it is another file, even under the same name. */
bool fc_mapping_is(const struct fc_mapping *mapping, int fd, uint64_t bytes, bool write) {
    struct stat file;
    return !fstat(fd, &file) && mapping->device == file.st_dev && mapping->inode == file.st_ino &&
           mapping->bytes == bytes && mapping->write == write;
}

struct fc_mapping *fc_mapping_ref(struct fc_mapping *mapping) {
    atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
    return mapping;
}

/* Off the list of fork.h and unmapped in one step: a child that is forked in between would protect
 * an address range that may be somebody else's by then. */
void fc_mapping_unref(struct fc_mapping *mapping) {
    if (!mapping || atomic_fetch_sub_explicit(&mapping->refs, 1, memory_order_acq_rel) != 1)
        return;
    fc_cuda_unregister(&mapping->cuda);
    fc_fork_lock();
    fc_fork_leave(&mapping->inherited);
    munmap(mapping->base, mapping->bytes);
    fc_fork_unlock();
    free(mapping);
}

/* offset and bytes come from the broker. The subtraction cannot wrap, where offset + bytes could.
 */
bool fc_mapping_holds(const struct fc_mapping *mapping, uint64_t offset, uint64_t bytes,
                      uint32_t align_bytes) {
    return offset % align_bytes == 0 && offset <= mapping->bytes &&
           bytes <= mapping->bytes - offset;
}
