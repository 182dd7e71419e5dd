/* SPDX-License-Identifier: Apache-2.0
 *
 * A rail is an IP address that librdmacm can bind to a device: that covers RoCE, InfiniBand (its
 * IPoIB address) and iWARP alike, and such a rail is routable by construction. One rail per port;
 * its number stays while it lives. Each device has a context of ours beside the one that librdmacm
 * holds, so that its end is in our hands: the kernel does not finish removing a device before every
 * context on it is closed.
 *
 * Completion channels are armed before they are drained (rlink_on_completions), so no completion is
 * missed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "rdma_internal.h"

/* ---- devices ---- */

static int set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static void on_completions(uv_poll_t *poll, int status, int events) {
    struct rdma_device *device = poll->data;
    struct ibv_cq *cq;
    void *context;
    (void)status, (void)events;
    while (!device->lost && ibv_get_cq_event(device->channel, &cq, &context) == 0) {
        ibv_ack_cq_events(cq, 1);
        rlink_on_completions(context);
    }
}

static void on_fault(uv_poll_t *poll, int status, int events) {
    struct rdma_device *device = poll->data;
    struct ibv_async_event event;
    (void)status, (void)events;
    while (!device->lost && ibv_get_async_event(device->verbs, &event) == 0) {
        enum ibv_event_type type = event.event_type;
        ibv_ack_async_event(&event);
        log_warning("RDMA device %s: %s", device->name, ibv_event_type_str(type));
        if (type == IBV_EVENT_DEVICE_FATAL)
            rdevice_lost(device, "it failed");
    }
}

static int watch(struct rdma_device *device, uv_poll_t *poll, int fd, uv_poll_cb callback) {
    int r = set_nonblocking(fd);
    if (r == 0)
        r = uv_poll_init(device->rdma->loop, poll, fd);
    if (r < 0)
        return r;
    poll->data = device;
    device->uv_refs++;
    device->rdma->uv_refs++;
    return uv_poll_start(poll, UV_READABLE, callback);
}

static void on_device_handle_closed(uv_handle_t *handle) {
    struct rdma_device *device = handle->data;
    struct rdma *rdma = device->rdma;
    rdma->uv_refs--;
    if (--device->uv_refs == 0)
        free(device);
    rdma_maybe_destroyed(rdma);
}

static void close_device(struct rdma_device *device) {
    if (device->completions.data != NULL)
        uv_close((uv_handle_t *)&device->completions, on_device_handle_closed);
    if (device->faults.data != NULL)
        uv_close((uv_handle_t *)&device->faults, on_device_handle_closed);
    if (device->channel != NULL)
        ibv_destroy_comp_channel(device->channel);
    if (device->pd != NULL)
        ibv_dealloc_pd(device->pd);
    ibv_close_device(device->verbs);
    if (device->uv_refs == 0)
        free(device);
}

static int open_device(struct rdma *rdma, struct ibv_device *found, uint32_t index,
                       struct rdma_device **out) {
    struct rdma_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return -ENOMEM;
    device->rdma = rdma;
    device->index = index;
    snprintf(device->name, sizeof device->name, "%s", ibv_get_device_name(found));
    device->verbs = ibv_open_device(found);
    if (device->verbs == NULL) {
        free(device);
        return -errno;
    }
    device->pd = ibv_alloc_pd(device->verbs);
    device->channel = ibv_create_comp_channel(device->verbs);
    int r = device->pd == NULL || device->channel == NULL ? -errno : 0;
    if (r == 0)
        r = -ibv_query_device(device->verbs, &device->limits);
    if (r == 0)
        r = watch(device, &device->completions, device->channel->fd, on_completions);
    if (r == 0)
        r = watch(device, &device->faults, device->verbs->async_fd, on_fault);
    if (r < 0) {
        close_device(device);
        return r;
    }
    rdma->devices[index] = *out = device;
    return 0;
}

static int find_device(struct rdma *rdma, const char *name, struct rdma_device **out) {
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
    struct ibv_device **list = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++)
        if (strcmp(ibv_get_device_name(list[i]), name) == 0)
            r = open_device(rdma, list[i], free_index, out);
    if (list != NULL)
        ibv_free_device_list(list);
    return r;
}

void rdevice_release(struct rdma_device *device) {
    if (!device->lost || device->rdma->registering != NULL)
        return;
    device->rdma->devices[device->index] = NULL;
    rmemory_drop_device(device);
    close_device(device);
}

static void drop_rail(struct rdma_rail *rail) {
    if (rail->listener != NULL)
        rdma_destroy_id(rail->listener);
    *rail = (struct rdma_rail){0};
}

void rdevice_lost(struct rdma_device *device, const char *why) {
    struct rdma *rdma = device->rdma;
    struct rdma_link *link, *next;
    if (device->lost)
        return;
    device->lost = true;
    if (!rdma->destroying)
        log_warning("RDMA device %s is gone: %s", device->name, why);
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (rdma->rails[i].device == device)
            drop_rail(&rdma->rails[i]);
    for (link = TAILQ_FIRST(&rdma->links); link != NULL; link = next) {
        next = TAILQ_NEXT(link, all);
        if (link->device == device)
            rlink_fail(link, -ENODEV, "RDMA device %s is gone: %s", device->name, why);
        if (next != NULL && next->phase == RLINK_CLOSED)
            next = TAILQ_FIRST(&rdma->links); /* a whole connection ended with the link */
    }
    rdevice_release(device);
}

/* ---- rails ---- */

uint32_t rrails_count(const struct rdma *rdma) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        count += rdma->rails[i].device != NULL;
    return count;
}

static int rail_of_port(const struct rdma *rdma, const char *device, uint8_t port) {
    for (uint32_t i = 0; i < RAILS_MAX; i++)
        if (rdma->rails[i].device != NULL && rdma->rails[i].port == port &&
            strcmp(rdma->rails[i].device->name, device) == 0)
            return (int)i;
    return -1;
}

int rrails_of_id(const struct rdma *rdma, const struct rdma_cm_id *id) {
    if (id->verbs == NULL)
        return -1;
    return rail_of_port(rdma, ibv_get_device_name(id->verbs->device), id->port_num);
}

/* "mlx5_0, mlx5_1:1": is this port one of them? */
static bool wanted(const struct rdma *rdma, const char *device, uint8_t port) {
    char list[sizeof rdma->devices_wanted], with_port[DEVICE_NAME_BYTES + 8], *rest = NULL;
    if (rdma->devices_wanted[0] == '\0')
        return true;
    snprintf(list, sizeof list, "%s", rdma->devices_wanted);
    snprintf(with_port, sizeof with_port, "%s:%u", device, port);
    for (char *word = strtok_r(list, ", ", &rest); word != NULL; word = strtok_r(NULL, ", ", &rest))
        if (strcmp(word, device) == 0 || strcmp(word, with_port) == 0)
            return true;
    return false;
}

static uint32_t bytes_of_mtu(enum ibv_mtu mtu) {
    return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0;
}

static void add_rail(struct rdma *rdma, const char *name, uint8_t port,
                     const struct sockaddr_storage *address) {
    struct rdma_device *device;
    struct ibv_port_attr attributes;
    uint32_t index = 0;
    while (index < RAILS_MAX && rdma->rails[index].device != NULL)
        index++;
    if (index == RAILS_MAX)
        return;
    int r = find_device(rdma, name, &device);
    if (r < 0) {
        log_warning("RDMA device %s cannot be opened: %s", name, strerror(-r));
        return;
    }
    if (ibv_query_port(device->verbs, port, &attributes) != 0 ||
        attributes.state != IBV_PORT_ACTIVE)
        return;
    struct rdma_rail *rail = &rdma->rails[index];
    rail->port = port;
    rail->device = device;
    rail->address = *address;
    rail->mtu_bytes = bytes_of_mtu(attributes.active_mtu);
    getnameinfo((const struct sockaddr *)address, sizeof *address, rail->text, sizeof rail->text,
                NULL, 0, NI_NUMERICHOST);
    log_info("RDMA rail %" PRIu32 ": %s port %u at %s, MTU %" PRIu32, index, device->name, port,
             rail->text, rail->mtu_bytes);
    if (rdma->listening && rrails_listen(rdma, rail) < 0)
        log_warning("RDMA rail %" PRIu32 ": cannot listen at %s port %u: %s", index, rail->text,
                    rdma->listen_port, strerror(errno));
}

/* An address of one of our interfaces: is there a device behind it? */
static void try_address(struct rdma *rdma, const struct sockaddr_storage *address) {
    struct rdma_cm_id *id;
    if (rdma_create_id(rdma->channel, &id, NULL, RDMA_PS_TCP) < 0)
        return;
    if (rdma_bind_addr(id, (struct sockaddr *)address) == 0 && id->verbs != NULL) {
        char name[DEVICE_NAME_BYTES];
        uint8_t port = id->port_num;
        snprintf(name, sizeof name, "%s", ibv_get_device_name(id->verbs->device));
        if (wanted(rdma, name, port) && rail_of_port(rdma, name, port) < 0)
            add_rail(rdma, name, port, address);
    }
    rdma_destroy_id(id);
}

static bool is_routable(const struct ifaddrs *found, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (found->ifa_addr == NULL || !(found->ifa_flags & IFF_UP) || found->ifa_flags & IFF_LOOPBACK)
        return false;
    if (found->ifa_addr->sa_family == AF_INET) {
        memcpy(out, found->ifa_addr, sizeof(struct sockaddr_in));
        return true;
    }
    if (found->ifa_addr->sa_family != AF_INET6)
        return false;
    memcpy(out, found->ifa_addr, sizeof(struct sockaddr_in6));
    return !IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)out)->sin6_addr);
}

static void say_why_none(const struct rdma *rdma, char *why, size_t why_bytes) {
    char names[128] = "";
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                 ibv_get_device_name(list[i]));
    }
    if (list != NULL)
        ibv_free_device_list(list);
    if (count == 0)
        snprintf(
            why, why_bytes,
            "no RDMA device on this machine; load its driver and ib_uverbs, rdma_ucm (Soft-RoCE: "
            "rdma link add rxe0 type rxe netdev INTERFACE)");
    else if (rdma->devices_wanted[0] != '\0')
        snprintf(why, why_bytes,
                 "none of [rdma] devices = %s has an active port with a routable address; this "
                 "machine has "
                 "%s",
                 rdma->devices_wanted, names);
    else
        snprintf(why, why_bytes,
                 "RDMA device %s has no usable GID: no active port with a routable IP address; "
                 "bring its "
                 "interface up and give it one",
                 names);
}

uint32_t rrails_scan(struct rdma *rdma, char *why, size_t why_bytes) {
    struct ifaddrs *found = NULL;
    struct sockaddr_storage address;
    rdma->scanned_ms = uv_now(rdma->loop);
    if (getifaddrs(&found) < 0)
        found = NULL;
    for (const struct ifaddrs *at = found; at != NULL; at = at->ifa_next)
        if (is_routable(at, &address))
            try_address(rdma, &address);
    freeifaddrs(found);
    uint32_t count = rrails_count(rdma);
    if (count == 0 && why != NULL)
        say_why_none(rdma, why, why_bytes);
    return count;
}

/* ---- listening ---- */

static void set_port(struct sockaddr_storage *address, uint16_t port) {
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

int rrails_listen(struct rdma *rdma, struct rdma_rail *rail) {
    enum { BACKLOG = 128 };
    set_port(&rail->address, rdma->listen_port);
    if (rdma_create_id(rdma->channel, &rail->listener, NULL, RDMA_PS_TCP) < 0) {
        rail->listener = NULL;
        return -errno;
    }
    if (rdma_bind_addr(rail->listener, (struct sockaddr *)&rail->address) < 0 ||
        rdma_listen(rail->listener, BACKLOG) < 0) {
        int error = errno;
        rdma_destroy_id(rail->listener);
        rail->listener = NULL;
        set_port(&rail->address, 0);
        return -error;
    }
    rdma->listen_port = ntohs(rdma_get_src_port(rail->listener));
    set_port(&rail->address, rdma->listen_port);
    return 0;
}
