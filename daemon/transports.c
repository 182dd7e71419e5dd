/* SPDX-License-Identifier: Apache-2.0
 *
 * RDMA needs a device with a routable address, and leave to pin the stores' memory: both are looked
 * at before the first peer is dialled, so that what is missing is said at start and not at the
 * first read.
 */
#include "transports.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "ops/log.h"
#include "transport/auto.h"
#include "transport/rdma/rdma.h"
#include "transport/tcp/tcp.h"

enum { BUFFERS_BYTES = 64 << 20 }; /* of messages; about 2 MiB per connection */

static uint64_t transports_pinned_bytes(const struct config *config) {
    const struct config_store *defaults = &config->store_defaults;
    uint64_t bytes = BUFFERS_BYTES;
    for (size_t i = 0; i < config->store_count; i++)
        bytes += config->stores[i].max_resident_bytes + config->stores[i].landing_bytes;
    if (config->store_count == 0) /* clients create them */
        bytes += defaults->max_resident_bytes + defaults->landing_bytes;
    return bytes;
}

/* CAP_IPC_LOCK goes beyond every limit. */
static bool transports_may_pin_anything(void) {
    enum { CAP_IPC_LOCK_BIT = 14 };
    char line[256];
    uint64_t capabilities = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "CapEff: %" SCNx64, &capabilities) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return capabilities & UINT64_C(1) << CAP_IPC_LOCK_BIT;
}

static int transports_check_memlock(const struct config *config, char *why, size_t why_bytes) {
    uint64_t need = transports_pinned_bytes(config);
    struct rlimit limit;
    char need_text[16], limit_text[16];
    if (transports_may_pin_anything() || getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return 0;
    limit.rlim_cur = limit.rlim_max; /* as far as we may go ourselves */
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= need)
        return 0;
    snprintf(why, why_bytes,
             "the limit of locked memory is %s, the stores need %s; set LimitMEMLOCK=infinity in "
             "the unit, or "
             "ulimit -l unlimited before the start",
             log_bytes(limit.rlim_cur, limit_text), log_bytes(need, need_text));
    return -EPERM;
}

static int transports_new_rdma(uv_loop_t *loop, const struct config *config,
                               const struct transport_options *options, struct transport_auto *both,
                               struct transport **out, char *why, size_t why_bytes) {
    struct rdma_options rdma = {
        .devices = config->rdma_devices,
        .registration_bytes = config->rdma_registration_bytes,
        .reads_in_flight_max = config->rdma_reads_in_flight,
        .stall_timeout_ms = config->rdma_stall_timeout_ms,
    };
    /* A peer without RDMA is found out before the peer itself is given up as silent. */
    struct transport_options own = *options;
    if (own.handshake_timeout_ms > config->peer_timeout_ms / 3)
        own.handshake_timeout_ms = config->peer_timeout_ms / 3;
    int r = transport_rdma_new(loop, &own, &rdma, transport_auto_events(),
                               transport_auto_rdma_owner(both), out, why, why_bytes);
    if (r < 0)
        return r;
    r = transports_check_memlock(config, why,
                                 why_bytes); /* where there is a device that would pin */
    if (r < 0) {
        (*out)->ops->destroy(*out, NULL);
        *out = NULL;
    }
    return r;
}

static int transports_new_tcp(uv_loop_t *loop, const struct config *config,
                              const struct transport_options *options, struct transport_auto *both,
                              struct transport **out) {
    /* A data address that is silent is given up before the peer itself is. */
    struct transport_options own = *options;
    own.data_timeout_ms = own.handshake_timeout_ms;
    if (own.data_timeout_ms > config->peer_timeout_ms / 3)
        own.data_timeout_ms = config->peer_timeout_ms / 3;
    return transport_tcp_new(loop, &own, transport_auto_events(), transport_auto_tcp_owner(both),
                             out);
}

static void transports_destroy_half(struct transport_auto *both, struct transport *t) {
    if (t != NULL)
        t->ops->destroy(t, NULL);
    transport_auto_free(both);
}

int transports_new(uv_loop_t *loop, const struct config *config,
                   const struct transport_options *options, const struct transport_events *events,
                   void *owner, struct transport **out, char *why, size_t why_bytes) {
    struct transport *rdma = NULL, *tcp = NULL;
    struct transport_auto *both;
    char missing[384] = "";
    bool required = config->require_rdma || config->transport == CONFIG_TRANSPORT_RDMA;
    int r = transport_auto_new(loop, events, owner, &both);
    if (r < 0)
        return r;
    if (config->transport != CONFIG_TRANSPORT_TCP)
        r = transports_new_rdma(loop, config, options, both, &rdma, missing, sizeof missing);
    if (r < 0 && required) {
        snprintf(why, why_bytes, "[peers] RDMA is required and cannot be had: %s", missing);
        transports_destroy_half(both, NULL);
        return r;
    }
    if (r < 0)
        log_info("node %s: peers over TCP alone: %s", config->node, missing);
    if (!required)
        r = transports_new_tcp(loop, config, options, both, &tcp);
    if (!required && r < 0) {
        transports_destroy_half(both, rdma);
        return r;
    }
    *out = transport_auto_join(both, rdma, tcp);
    return 0;
}
