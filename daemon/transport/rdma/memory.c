/* SPDX-License-Identifier: Apache-2.0
 *
 * A region is cut into segments of at most registration_bytes (and the device's max_mr_size); each
 * is registered with each device: REMOTE_READ for peers, LOCAL_WRITE so that our own reads can
 * land, never REMOTE_WRITE. ibv_reg_mr pins the pages and may take seconds, so it runs on libuv's
 * pool, one segment at a time; whoever needs one that is not there yet waits for it alone.
 *
 * A region removed while a segment of it is being registered leaves its registration to be undone
 * when the pool is through with it (registration->region is NULL then).
 */
#include "transport/rdma/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "ops/log.h"
#include "transport/rdma/device.h"
#include "transport/rdma/turn.h"

struct rdma_registration {
    uv_work_t work;
    struct rdma *rdma;
    struct rdma_device *device;
    struct rdma_region *region; /* NULL: removed meanwhile */
    uint32_t number, segment;
    uint8_t *base;
    uint64_t bytes;
    struct ibv_mr *mr;
    int error;
};

/* On the pool. LOCAL_WRITE is for our own reads that land here; REMOTE_READ for peers. A mapping
 * without the right to write (a kept arena that is read-only, say) cannot be registered at all:
 * ibv_reg_mr() wants to write to each page (EFAULT), also for REMOTE_READ alone. */
static void memory_register_segment(uv_work_t *work) {
    struct rdma_registration *job = work->data;
    job->mr = job->rdma->lib.ibv_reg_mr(job->device->pd, job->base, job->bytes,
                                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    job->error = job->mr == NULL ? errno : 0;
}

/* The usual cause is the limit of locked memory, so it is named with the remedy. Readers of the
 * region get -ENOMEM, and the owner goes on over another way (transport = auto) or fails with this
 * in the log. */
static void memory_log_failure(const struct rdma_registration *job) {
    char bytes[16], limit[16];
    struct rlimit memlock = {0, 0};
    getrlimit(RLIMIT_MEMLOCK, &memlock);
    log_bytes(job->region->bytes, bytes);
    if (memlock.rlim_cur == RLIM_INFINITY)
        log_error("RDMA device %s: cannot register %s of memory: %s", job->device->name, bytes,
                  strerror(job->error));
    else
        log_error(
            "RDMA device %s: cannot register %s of memory: %s; the limit of locked memory is %s: "
            "raise it (ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit)",
            job->device->name, bytes, strerror(job->error), log_bytes(memlock.rlim_cur, limit));
}

/* A segment is told to readers when it is registered with every device, not with the first: a
 * reader that knew only one rail's key would put all of the read on that rail. */
static void memory_take_result(struct rdma_registration *job) {
    struct rdma *rdma = job->rdma;
    struct rdma_region *region = job->region;
    struct rdma_segment *segment = &region->segments[job->segment];
    if (job->mr == NULL) {
        memory_log_failure(job);
        region->failed = true;
        rdma->upper->region_failed(rdma, job->number);
    } else {
        segment->mr[job->device->index] = job->mr;
        if (rmemory_whole(rdma, segment))
            rdma->upper->segment_registered(rdma, job->number, segment);
    }
    rdma_soon(rdma); /* reads that waited for this segment of ours go on */
}

/* Back on the loop. Much may have happened since the segment was handed to the pool: the region
 * removed, the device lost, the transport destroyed. In all of these the fresh registration is
 * undone, as if it had never been. */
static void memory_on_registered(uv_work_t *work, int status) {
    struct rdma_registration *job = work->data;
    struct rdma *rdma = job->rdma;
    rdma->registering = NULL;
    if (status == 0 && job->region != NULL && !job->device->lost && !rdma->base.destroying)
        memory_take_result(job);
    else if (job->mr != NULL)
        rdma->lib.ibv_dereg_mr(job->mr);
    for (uint32_t d = 0; d < DEVICES_MAX; d++)
        if (rdma->devices[d] != NULL)
            rdevice_release(rdma->devices[d]);
    free(job);
    rmemory_continue(rdma);
    endpoint_release(&rdma->base);
}

/* The next segment that some device does not know yet. Segment after segment, and for each one
 * device after device, so that the front of a region is readable over all rails first. */
static bool memory_find_next(struct rdma *rdma, struct rdma_registration *job) {
    for (uint32_t number = 0; number < rdma->memory_count; number++) {
        struct rdma_region *region = rdma->memory[number];
        if (region == NULL || region->failed)
            continue;
        for (uint32_t i = 0; i < region->segment_count; i++)
            for (uint32_t d = 0; d < DEVICES_MAX; d++) {
                struct rdma_device *device = rdma->devices[d];
                if (device == NULL || device->lost || region->segments[i].mr[d] != NULL)
                    continue;
                job->region = region;
                job->device = device;
                job->number = number;
                job->segment = i;
                job->base = region->segments[i].base;
                job->bytes = region->segments[i].bytes;
                return true;
            }
    }
    return false;
}

/* One at a time: several would contend for the lock of the one address space that they pin pages
 * of, and libuv's pool is shared with name lookups and prefaulting. */
void rmemory_continue(struct rdma *rdma) {
    if (rdma->registering != NULL || rdma->base.destroying)
        return;
    struct rdma_registration *job = calloc(1, sizeof *job);
    if (job == NULL)
        return; /* the next scan of the rails tries again */
    job->rdma = rdma;
    job->work.data = job;
    if (!memory_find_next(rdma, job) ||
        uv_queue_work(rdma->base.loop, &job->work, memory_register_segment, memory_on_registered) <
            0)
        free(job);
    else {
        rdma->registering = job;
        endpoint_hold(&rdma->base);
    }
}

/* max_mr_size of some devices is a few GiB; all devices cut a region at the same places, so that
 * one offset means one segment everywhere. */
static uint64_t memory_piece_bytes(const struct rdma *rdma) {
    uint64_t bytes = rdma->rdma_options.registration_bytes;
    for (uint32_t d = 0; d < DEVICES_MAX; d++)
        if (rdma->devices[d] != NULL && rdma->devices[d]->limits.max_mr_size < bytes)
            bytes = rdma->devices[d]->limits.max_mr_size;
    return bytes;
}

/* A terabyte in pieces of 1 GiB is a thousand segments. The array is made at once, so that no
 * allocation can fail later, in the middle of the registration. */
static struct rdma_region *memory_region_new(const struct rdma *rdma, uint8_t *base,
                                             uint64_t bytes) {
    uint64_t piece = memory_piece_bytes(rdma), count = (bytes - 1) / piece + 1;
    struct rdma_region *region = calloc(1, sizeof *region);
    struct rdma_segment *segments = count <= UINT32_MAX ? calloc(count, sizeof(*segments)) : NULL;
    if (region == NULL || segments == NULL) {
        free(region);
        free(segments);
        return NULL;
    }
    for (uint64_t i = 0; i < count; i++) {
        segments[i].base = base + i * piece;
        segments[i].bytes = bytes - i * piece < piece ? bytes - i * piece : piece;
    }
    *region = (struct rdma_region){
        .bytes = bytes, .segment_count = (uint32_t)count, .segments = segments};
    return region;
}

/* Returns at once: registration goes on in the background, and a read of a piece waits for it
 * (reader_aim). */
int rmemory_add(struct rdma *rdma, void *base, uint64_t bytes, uint32_t *region_out) {
    uint32_t number;
    int r = endpoint_add_region(&rdma->base, base, bytes, &number);
    if (r < 0)
        return r;
    if (number >= rdma->memory_count) {
        struct rdma_region **memory = reallocarray(rdma->memory, number + 1, sizeof(*memory));
        if (memory == NULL) {
            regions_remove(&rdma->base.regions, number);
            return -ENOMEM;
        }
        rdma->memory = memory;
        memory[number] = NULL;
        rdma->memory_count = number + 1;
    }
    rdma->memory[number] = memory_region_new(rdma, base, bytes);
    if (rdma->memory[number] == NULL) {
        regions_remove(&rdma->base.regions, number);
        return -ENOMEM;
    }
    rmemory_continue(rdma);
    *region_out = number;
    return 0;
}

/* Deregistration stops a remote reader at once. By now nobody should be reading: rmemory_remove()
 * has told or ended those who did. */
static void memory_drop_region(struct rdma *rdma, uint32_t number) {
    struct rdma_region *region = rdma->memory[number];
    rdma->memory[number] = NULL;
    if (rdma->registering != NULL && rdma->registering->region == region)
        rdma->registering->region = NULL;
    for (uint32_t i = 0; i < region->segment_count; i++)
        for (uint32_t d = 0; d < DEVICES_MAX; d++)
            if (region->segments[i].mr[d] != NULL)
                rdma->lib.ibv_dereg_mr(region->segments[i].mr[d]);
    free(region->segments);
    free(region);
}

/* First the readers, then the key, then the registrations. If the registrations went first, an
 * honest reader would see its QP fail with an access error, which ends its connection and all its
 * other reads. */
void rmemory_remove(struct rdma *rdma, uint32_t number) {
    if (number >= rdma->memory_count || rdma->memory[number] == NULL)
        return;
    rdma->upper->region_going(rdma, number);
    regions_remove(&rdma->base.regions, number);
    memory_drop_region(rdma, number);
}

void rmemory_drop_device(struct rdma_device *device) {
    struct rdma *rdma = device->rdma;
    for (uint32_t number = 0; number < rdma->memory_count; number++) {
        struct rdma_region *region = rdma->memory[number];
        for (uint32_t i = 0; region != NULL && i < region->segment_count; i++) {
            struct ibv_mr **mr = &region->segments[i].mr[device->index];
            if (*mr != NULL)
                rdma->lib.ibv_dereg_mr(*mr);
            *mr = NULL;
        }
    }
}

/* All segments but the last have the same size, so the segment of an address is a division. */
const struct rdma_segment *rmemory_at(const struct rdma *rdma, uint32_t number, const void *at,
                                      const struct rdma_device *device) {
    const struct rdma_region *region = rdma->memory[number];
    const uint8_t *address = at;
    uint64_t piece = region->segments[0].bytes;
    const struct rdma_segment *segment =
        &region->segments[(uint64_t)(address - region->segments[0].base) / piece];
    return segment->mr[device->index] != NULL ? segment : NULL;
}

/* With no device at all it is not whole, for there would be nothing to tell. */
bool rmemory_whole(const struct rdma *rdma, const struct rdma_segment *segment) {
    uint32_t registered = 0;
    for (uint32_t d = 0; d < DEVICES_MAX; d++) {
        const struct rdma_device *device = rdma->devices[d];
        if (device == NULL || device->lost)
            continue;
        if (segment->mr[d] == NULL)
            return false;
        registered++;
    }
    return registered > 0;
}

void rmemory_announce(struct rdma *rdma) {
    for (uint32_t number = 0; number < rdma->memory_count; number++) {
        const struct rdma_region *region = rdma->memory[number];
        for (uint32_t i = 0; region != NULL && i < region->segment_count; i++)
            if (rmemory_whole(rdma, &region->segments[i]))
                rdma->upper->segment_registered(rdma, number, &region->segments[i]);
    }
}

void rmemory_deinit(struct rdma *rdma) {
    for (uint32_t number = 0; number < rdma->memory_count; number++)
        if (rdma->memory[number] != NULL)
            memory_drop_region(rdma, number);
    free(rdma->memory);
}
