/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices. Each has a context of ours beside the one that librdmacm holds, so that its end is in
 * our hands: a driver that cannot take a device away from its users (rdma_rxe) does not finish
 * removing it before every context on it is closed.
 *
 *   open --removal event, fatal event, not listed any more--> lost --nothing uses it--> released
 *
 * librdmacm keeps its own context open until another device appears, and has no call to close it.
 * So when ours is released, what the kernel sees of librdmacm's is closed too: its descriptors are
 * made to name /dev/null, and librdmacm closes those in its own time. (As of rdma-core 44:
 * librdmacm/cma.c, sync_devices_list and remove_cma_dev; it does not even look when no device is
 * left.)
 *
 * Completion channels are armed before they are drained (rlink_on_completions), so no completion is
 * missed.
 */
#include "transport/rdma/device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/log.h"
#include "transport/rdma/link.h"
#include "transport/rdma/memory.h"
#include "transport/rdma/turn.h"

static int device_set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

/* One channel per device for all its completion queues: one file descriptor for libuv, however many
 * peers there are. The context of a queue is its link (rqp_create). An event is acknowledged before
 * the queue is drained, because ibv_destroy_cq(), which draining may lead to, waits for all
 * acknowledgements. */
static void device_on_completions(uv_poll_t *poll, int status, int events) {
    struct rdma_device *device = poll->data;
    const struct verbs *lib = &device->rdma->lib;
    struct ibv_cq *cq;
    void *context;
    (void)status, (void)events;
    while (!device->lost && lib->ibv_get_cq_event(device->channel, &cq, &context) == 0) {
        lib->ibv_ack_cq_events(cq, 1);
        rlink_on_completions(context);
    }
}

/* Asynchronous events are logged, for they are rare and tell an administrator what a QP's failure
 * does not (a port that went down, say). Only a fatal one means that the device is of no use any
 * more; the failures of single QPs come as completions, too. */
static void device_on_fault(uv_poll_t *poll, int status, int events) {
    struct rdma_device *device = poll->data;
    const struct verbs *lib = &device->rdma->lib;
    struct ibv_async_event event;
    (void)status, (void)events;
    while (!device->lost && lib->ibv_get_async_event(device->verbs, &event) == 0) {
        enum ibv_event_type type = event.event_type;
        lib->ibv_ack_async_event(&event);
        log_warning("RDMA device %s: %s", device->name, lib->ibv_event_type_str(type));
        if (type == IBV_EVENT_DEVICE_FATAL)
            rdevice_lost(device, "it failed");
    }
}

/* The descriptors of verbs block by default, and a read without an event would stop the whole
 * daemon. */
static int device_watch(struct rdma_device *device, uv_poll_t *poll, int fd, uv_poll_cb callback) {
    int r = device_set_nonblocking(fd);
    if (r == 0)
        r = uv_poll_init(device->rdma->base.loop, poll, fd);
    if (r < 0)
        return r;
    poll->data = device;
    device->uv_refs++;
    endpoint_hold(&device->rdma->base);
    return uv_poll_start(poll, UV_READABLE, callback);
}

static void device_on_device_handle_closed(uv_handle_t *handle) {
    struct rdma_device *device = handle->data;
    struct rdma *rdma = device->rdma;
    if (--device->uv_refs == 0)
        free(device);
    endpoint_release(&rdma->base);
}

/* What ibverbs has is closed at once, in the reverse order of its making, because a driver that is
 * being removed waits for it. The struct stays until libuv has let go of the two poll handles in
 * it. */
static void device_close_device(struct rdma_device *device) {
    const struct verbs *lib = &device->rdma->lib;
    if (device->completions.data != NULL)
        uv_close((uv_handle_t *)&device->completions, device_on_device_handle_closed);
    if (device->faults.data != NULL)
        uv_close((uv_handle_t *)&device->faults, device_on_device_handle_closed);
    if (device->channel != NULL)
        lib->ibv_destroy_comp_channel(device->channel);
    if (device->pd != NULL)
        lib->ibv_dealloc_pd(device->pd);
    lib->ibv_close_device(device->verbs);
    if (device->uv_refs == 0)
        free(device);
}

static int device_open_device(struct rdma *rdma, struct ibv_device *found, uint32_t index,
                              struct rdma_device **out) {
    const struct verbs *lib = &rdma->lib;
    struct rdma_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return -ENOMEM;
    device->rdma = rdma;
    device->index = index;
    snprintf(device->name, sizeof device->name, "%s", lib->ibv_get_device_name(found));
    device->verbs = lib->ibv_open_device(found);
    if (device->verbs == NULL) {
        free(device);
        return -errno;
    }
    device->pd = lib->ibv_alloc_pd(device->verbs);
    device->channel = lib->ibv_create_comp_channel(device->verbs);
    int r = device->pd == NULL || device->channel == NULL ? -errno : 0;
    if (r == 0)
        r = -lib->ibv_query_device(device->verbs, &device->limits);
    if (r == 0)
        r = device_watch(device, &device->completions, device->channel->fd, device_on_completions);
    if (r == 0)
        r = device_watch(device, &device->faults, device->verbs->async_fd, device_on_fault);
    if (r < 0) {
        device_close_device(device);
        return r;
    }
    rdma->devices[index] = *out = device;
    return 0;
}

/* The list is walked from the back, so that `free_index` ends up as the lowest free one. A lost
 * device of this name that is still being let go hides the new one: opening it now would give two
 * devices one name, and the completions of the old one would be taken for the new one's. The next
 * scan finds it. */
int rdevice_find(struct rdma *rdma, const char *name, struct rdma_device **out) {
    int count = 0, r = -ENODEV;
    uint32_t free_index = DEVICES_MAX;
    for (uint32_t i = DEVICES_MAX; i-- > 0;) {
        *out = rdma->devices[i];
        if (*out == NULL)
            free_index = i;
        else if (strcmp((*out)->name, name) == 0)
            return (*out)->lost ? -ENODEV : 0;
    }
    if (free_index == DEVICES_MAX)
        return -ENOSPC;
    struct ibv_device **list = rdma->lib.ibv_get_device_list(&count);
    for (int i = 0; i < count; i++)
        if (strcmp(rdma->lib.ibv_get_device_name(list[i]), name) == 0)
            r = device_open_device(rdma, list[i], free_index, out);
    if (list != NULL)
        rdma->lib.ibv_free_device_list(list);
    return r;
}

/* ---- its end ---- */

/* Which descriptors librdmacm has open on this device, and which file they name: see the top of
 * this file. The inode is kept, because a descriptor number means nothing once its owner has closed
 * it. */
void rdevice_note_librdmacm(struct rdma_device *device, const struct ibv_context *theirs) {
    struct stat file;
    if (fstat(theirs->cmd_fd, &file) == 0)
        device->librdmacm =
            (struct rdma_context_fds){theirs->cmd_fd, theirs->async_fd, file.st_dev, file.st_ino};
}

/* Unless librdmacm has closed them meanwhile: then the numbers may be somebody else's. */
static void device_close_context(const struct rdma_context_fds *fds) {
    struct stat file;
    if (fstat(fds->command, &file) < 0 || file.st_dev != fds->file_device ||
        file.st_ino != fds->file_inode)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    dup3(null, fds->async, O_CLOEXEC);
    dup3(null, fds->command, O_CLOEXEC);
    close(null);
}

void rdevice_close_left(struct rdma *rdma) {
    for (uint32_t i = 0; i < rdma->left_count; i++)
        device_close_context(&rdma->left[i]);
    rdma->left_count = 0;
}

/* Frees a lost device. A registration that is under way on libuv's pool uses the protection domain
 * of the device, so the device stays until that registration has ended; memory.c then calls this
 * function again. librdmacm's descriptors are left for
 * rdevice_close_left(), which runs in a later turn of the loop. */
void rdevice_release(struct rdma_device *device) {
    struct rdma *rdma = device->rdma;
    if (!device->lost || rdma->registering != NULL)
        return;
    if (device->librdmacm.file_inode != 0 && !rdma->base.destroying) {
        if (rdma->left_count == DEVICES_MAX)
            rdevice_close_left(rdma);
        rdma->left[rdma->left_count++] = device->librdmacm;
    }
    rdma->devices[device->index] = NULL;
    rmemory_drop_device(device);
    device_close_device(device);
}

static void device_drop_rail(struct rdma_rail *rail) {
    if (rail->listener != NULL)
        rail->device->rdma->lib.rdma_destroy_id(rail->listener);
    *rail = (struct rdma_rail){0};
}

/* Failing a link may end its whole connection, and with it links further on in the list: the walk
 * begins anew when the next one has gone. The rails go after the links, because a connection that
 * loses a link looks at the rails to say which one it was. Segments that waited only for this
 * device are announced: readers on the other rails need not wait any longer. */
void rdevice_lost(struct rdma_device *device, const char *why) {
    struct rdma *rdma = device->rdma;
    struct rdma_link *link, *next;
    if (device->lost)
        return;
    device->lost = true;
    if (!rdma->base.destroying)
        log_warning("RDMA device %s is gone: %s", device->name, why);
    for (link = TAILQ_FIRST(&rdma->links); link != NULL; link = next) {
        next = TAILQ_NEXT(link, all);
        if (link->device == device)
            rlink_fail(link, -ENODEV, "RDMA device %s is gone: %s", device->name, why);
        if (next != NULL && next->phase == RLINK_CLOSED)
            next = TAILQ_FIRST(&rdma->links); /* a whole connection ended with the link */
    }
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (rdma->rails[i].device == device)
            device_drop_rail(&rdma->rails[i]);
    if (!rdma->base.destroying)
        rmemory_announce(rdma);
    rdevice_release(device);
    rdma_watch_time(rdma);
}

/* A driver may go without a word to those who hold nothing on it but a context. */
void rdevice_check_listed(struct rdma *rdma) {
    int count = 0;
    struct ibv_device **list = rdma->lib.ibv_get_device_list(&count);
    if (list == NULL)
        return;
    for (uint32_t d = 0; d < DEVICES_MAX; d++) {
        struct rdma_device *device = rdma->devices[d];
        bool listed = device == NULL || device->lost;
        for (int i = 0; i < count && !listed; i++)
            listed = list[i] == device->verbs->device;
        if (!listed)
            rdevice_lost(device, "removed");
    }
    rdma->lib.ibv_free_device_list(list);
}
