/* SPDX-License-Identifier: Apache-2.0
 *
 * `rows` lists the transports that this daemon knows, best first. The node's own list has those of
 * them that its configuration asks for and its devices allow.
 *
 * RDMA needs a device with a routable address, and leave to pin the stores' memory: both are looked
 * at before the first peer is dialled, so that what is missing is said at start and not at the
 * first read.
 */
#include "transports.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "ops/log.h"
#include "proto/container.h"
#include "transport/auto.h"
#include "transport/rdma/rdma.h"
#include "transport/tcp/tcp.h"

/* For the messages of some 30 peers: a control link has 64 slots of 16 KiB in each direction, which
 * are 2 MiB. */
enum { BUFFERS_BYTES = 64 << 20 };

/* ---- memory that RDMA pins ---- */

static uint64_t transports_pinned_bytes(const struct config *config) {
    const struct config_store *defaults = &config->store_defaults;
    uint64_t bytes = BUFFERS_BYTES;
    for (size_t i = 0; i < config->store_count; i++)
        bytes += config->stores[i].max_resident_bytes + config->stores[i].landing_bytes;
    if (config->store_count == 0) /* clients create them */
        bytes += defaults->max_resident_bytes + defaults->landing_bytes;
    return bytes;
}

/* The limit of locked memory does not hold for a process with CAP_IPC_LOCK. The capability is read
 * from /proc, so that the daemon need not be linked with libcap for one bit. */
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

/* ---- the transports there are ---- */

/* A setup, and what the wrappers below need beside it. */
struct transports_setup {
    struct transport_setup common;
    const struct config *config;
};

static int transports_new_rdma(const struct transport_setup *common, struct transport **out,
                               char *why, size_t why_bytes) {
    const struct config *config = container_of(common, struct transports_setup, common)->config;
    struct rdma_options rdma = {
        .devices = config->rdma_devices,
        .registration_bytes = config->rdma_registration_bytes,
        .reads_in_flight_max = config->rdma_reads_in_flight,
        .stall_timeout_ms = config->rdma_stall_timeout_ms,
    };
    int r = transport_rdma_new(common, &rdma, out, why, why_bytes);
    if (r < 0)
        return r;
    /* Only now: without a device nothing is pinned, and the missing device is the better reason. */
    r = transports_check_memlock(config, why, why_bytes);
    if (r < 0)
        (*out)->ops->destroy(*out, NULL);
    return r;
}

/* Best first. A new transport is a row here; one that needs options of its own gets a wrapper. The
 * last one must work on every node: it is what two brokers speak that have nothing else in common.
 */
static const struct transports_row {
    const char *name;            /* for the log */
    enum config_transport alone; /* the setting that asks for this one and no other */
    transport_constructor create;
} rows[] = {
    {"RDMA", CONFIG_TRANSPORT_RDMA, transports_new_rdma},
    {"TCP", CONFIG_TRANSPORT_TCP, transport_tcp_new},
};
enum { ROWS = sizeof rows / sizeof *rows };
static_assert((int)ROWS <= (int)AUTO_TRANSPORTS_MAX, "each row needs a place in the list");

/* ---- the list of this node ---- */

/* The one transport that the configuration asks for; CONFIG_TRANSPORT_AUTO: as many as can be had.
 */
static enum config_transport transports_required(const struct config *config) {
    return config->require_rdma ? CONFIG_TRANSPORT_RDMA : config->transport;
}

/* A better transport that does not answer, and a data address that does not, are given up before
 * the peer itself would be given up as silent: each attempt gets its share of that time, and one
 * share is left for the transport that works. */
static struct transport_options transports_options(const struct config *config,
                                                   const struct transport_options *options,
                                                   bool is_last) {
    struct transport_options own = *options;
    uint32_t share_ms = config->peer_timeout_ms / (ROWS + 1);
    own.data_timeout_ms = own.handshake_timeout_ms;
    if (own.data_timeout_ms > share_ms)
        own.data_timeout_ms = share_ms;
    if (!is_last)
        own.handshake_timeout_ms = own.data_timeout_ms;
    return own;
}

/* Makes the transport of one row and adds it to the list. A better one that cannot be had is left
 * out with a word in the log, unless it is required. */
static int transports_add(struct transport_auto *list, const struct transports_row *row,
                          struct transports_setup *setup, char *why, size_t why_bytes) {
    const struct config *config = setup->config;
    struct transport *transport;
    char missing[384] = "";
    setup->common.events = transport_auto_events();
    setup->common.owner = transport_auto_owner(list);
    int r = row->create(&setup->common, &transport, missing, sizeof missing);
    if (r == 0) {
        transport_auto_add(list, transport);
        return 0;
    }
    bool is_last = row == &rows[ROWS - 1];
    if (transports_required(config) == CONFIG_TRANSPORT_AUTO && !is_last) {
        log_info("node %s: peers over %s alone: %s", config->node, rows[ROWS - 1].name, missing);
        return 0;
    }
    if (missing[0] != '\0')
        snprintf(why, why_bytes, "[peers] %s is required and cannot be had: %s", row->name,
                 missing);
    return r;
}

int transports_new(uv_loop_t *loop, const struct config *config,
                   const struct transport_options *options, const struct transport_events *events,
                   void *owner, struct transport **out, char *why, size_t why_bytes) {
    struct transports_setup setup = {.common = {.loop = loop}, .config = config};
    enum config_transport required = transports_required(config);
    struct transport_auto *list;
    int r = transport_auto_new(loop, events, owner, &list);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ROWS && r == 0; i++) {
        struct transport_options own = transports_options(config, options, i == ROWS - 1);
        setup.common.options = &own;
        if (required == CONFIG_TRANSPORT_AUTO || required == rows[i].alone)
            r = transports_add(list, &rows[i], &setup, why, why_bytes);
    }
    if (r < 0) {
        transport_auto_abandon(list);
        return r;
    }
    *out = transport_auto_finish(list);
    return 0;
}
