/* SPDX-License-Identifier: Apache-2.0
 *
 * A rail is an IP address that librdmacm can bind to a device: that covers RoCE, InfiniBand (its
 * IPoIB address) and iWARP alike, and such a rail is routable by construction. One rail per port;
 * its number stays while it lives.
 */
#include "transport/rdma/rails.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/log.h"
#include "transport/rdma/device.h"

/* A rail's number is its place in the array and stays while it lives: peers know rkeys by that
 * number. */
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
    return rail_of_port(rdma, rdma->lib.ibv_get_device_name(id->verbs->device), id->port_num);
}

/* "mlx5_0, mlx5_1:1": is this port one of them? Without a list every port will do. */
static bool rails_wanted(const struct rdma *rdma, const char *device, uint8_t port) {
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

/* The enumeration counts 256, 512, 1024, 2048, 4096 from 1 on. */
static uint32_t rails_bytes_of_mtu(enum ibv_mtu mtu) {
    return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0;
}

/* The function knows the struct as it was before fields were added behind `flags`; none of those is
 * used here. (A cast is also how the macro of verbs.h, which verbs.h of ours undoes, calls it.) */
static int rails_query_port(const struct rdma_device *device, uint8_t port,
                            struct ibv_port_attr *out) {
    *out = (struct ibv_port_attr){0};
    return device->rdma->lib.ibv_query_port(device->verbs, port,
                                            (struct _compat_ibv_port_attr *)out);
}

/* A port that is not active is no rail yet; a later scan looks again. The device is opened with the
 * first of its ports. If we listen already, the new rail listens at the same port as the others,
 * because peers know one port per node. */
static void rails_add_rail(struct rdma *rdma, const struct rdma_cm_id *id,
                           const struct sockaddr_storage *address) {
    const char *name = rdma->lib.ibv_get_device_name(id->verbs->device);
    uint8_t port = id->port_num;
    struct rdma_device *device;
    struct ibv_port_attr attributes;
    uint32_t index = 0;
    while (index < RAILS_MAX && rdma->rails[index].device != NULL)
        index++;
    if (index == RAILS_MAX)
        return;
    int r = rdevice_find(rdma, name, &device);
    if (r < 0) {
        log_warning("RDMA device %s cannot be opened: %s", name, strerror(-r));
        return;
    }
    if (rails_query_port(device, port, &attributes) != 0 || attributes.state != IBV_PORT_ACTIVE)
        return;
    rdevice_note_librdmacm(device, id->verbs);
    struct rdma_rail *rail = &rdma->rails[index];
    rail->port = port;
    rail->device = device;
    rail->address = *address;
    rail->mtu_bytes = rails_bytes_of_mtu(attributes.active_mtu);
    getnameinfo((const struct sockaddr *)address, sizeof *address, rail->text, sizeof rail->text,
                NULL, 0, NI_NUMERICHOST);
    log_info("RDMA rail %" PRIu32 ": %s port %u at %s, MTU %" PRIu32, index, device->name, port,
             rail->text, rail->mtu_bytes);
    if (rdma->listening && rrails_listen(rdma, rail) < 0)
        log_warning("RDMA rail %" PRIu32 ": cannot listen at %s port %u: %s", index, rail->text,
                    rdma->listen_port, strerror(errno));
}

/* An address of one of our interfaces: is there a device behind it? Binding an id to the address is
 * how librdmacm is asked that. It works for every kind of device, and unlike a walk over GID tables
 * it needs no knowledge of how each kind maps addresses to GIDs. */
static void rails_try_address(struct rdma *rdma, const struct sockaddr_storage *address) {
    struct rdma_cm_id *id;
    if (rdma->lib.rdma_create_id(rdma->channel, &id, NULL, RDMA_PS_TCP) < 0)
        return;
    if (rdma->lib.rdma_bind_addr(id, (struct sockaddr *)address) == 0 && id->verbs != NULL) {
        const char *name = rdma->lib.ibv_get_device_name(id->verbs->device);
        if (rails_wanted(rdma, name, id->port_num) && rail_of_port(rdma, name, id->port_num) < 0)
            rails_add_rail(rdma, id, address);
    }
    rdma->lib.rdma_destroy_id(id);
}

/* Link-local addresses would need a scope that the other node cannot know. */
static bool rails_is_routable(const struct ifaddrs *found, struct sockaddr_storage *out) {
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

/* Three causes, three remedies: no driver, a list that names nothing usable, a port without an
 * address. An administrator gets the one that fits, with the names of what is there. */
static void rails_say_why_none(const struct rdma *rdma, char *why, size_t why_bytes) {
    char names[128] = "";
    int count = 0;
    struct ibv_device **list = rdma->lib.ibv_get_device_list(&count);
    for (int i = 0; i < count; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                 rdma->lib.ibv_get_device_name(list[i]));
    }
    if (list != NULL)
        rdma->lib.ibv_free_device_list(list);
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

/* Rails are looked for again and again (every 5 s, every second while one is missing), because no
 * event tells of all the ways in which one can appear: a driver that is loaded, an interface that
 * comes up, an address that is set. */
uint32_t rrails_scan(struct rdma *rdma, char *why, size_t why_bytes) {
    struct ifaddrs *found = NULL;
    struct sockaddr_storage address;
    rdma->scanned_ms = uv_now(rdma->base.loop);
    rdevice_check_listed(rdma);
    uint32_t before = rrails_count(rdma);
    if (getifaddrs(&found) < 0)
        found = NULL;
    for (const struct ifaddrs *at = found; at != NULL; at = at->ifa_next)
        if (rails_is_routable(at, &address))
            rails_try_address(rdma, &address);
    freeifaddrs(found);
    uint32_t count = rrails_count(rdma);
    if (count > before)
        rdma->upper->rail_appeared(rdma);
    if (count > rdma->rails_most)
        rdma->rails_most = count;
    if (count == 0 && why != NULL)
        rails_say_why_none(rdma, why, why_bytes);
    return count;
}

/* ---- listening ---- */

static void rails_set_port(struct sockaddr_storage *address, uint16_t port) {
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

/* The first rail that listens may get its port from the kernel (listen_port 0); the others follow
 * it. A rail that cannot listen is still used for dialling. */
int rrails_listen(struct rdma *rdma, struct rdma_rail *rail) {
    enum { BACKLOG = 128 };
    rails_set_port(&rail->address, rdma->listen_port);
    if (rdma->lib.rdma_create_id(rdma->channel, &rail->listener, NULL, RDMA_PS_TCP) < 0) {
        rail->listener = NULL;
        return -errno;
    }
    if (rdma->lib.rdma_bind_addr(rail->listener, (struct sockaddr *)&rail->address) < 0 ||
        rdma->lib.rdma_listen(rail->listener, BACKLOG) < 0) {
        int error = errno;
        rdma->lib.rdma_destroy_id(rail->listener);
        rail->listener = NULL;
        rails_set_port(&rail->address, 0);
        return -error;
    }
    rdma->listen_port = ntohs(rdma->lib.rdma_get_src_port(rail->listener));
    rails_set_port(&rail->address, rdma->listen_port);
    return 0;
}
