/* SPDX-License-Identifier: Apache-2.0
 *
 * The structs of the RDMA transport; what each file does for the others stands in its own header.
 * There are two halves:
 *
 *   upper  conn.c        one connection: its control link, from birth to `closed`
 *          conn_rails.c  its bulk links: dialled, mended, counted
 *          control.c     frames on the control stream, both directions
 *          reader.c      our reads: cut into chunks, spread over the rails
 *   lower  link.c        one QP: from the CM's request to its end, handshake
 *          qp.c          what ibverbs and the CM are told of a QP
 *          device.c      devices: opened, their completion channels, lost, released
 *          rails.c       rails: found, listened on
 *          memory.c      regions: registered piece by piece on every device
 *          stream.c      bytes over SEND/RECV with credits
 *          verbs.c       the two libraries, found at run time
 *   pure   pairing.c, routes.c, wire.c
 *
 * rdma.c puts the two together, and turn.c has the timers. The upper half calls the lower one; the
 * lower one tells the upper one by the table struct rdma_upper.
 *
 * A rail is a port of a device with an address. Each QP carries one of two things: the control
 * stream, or READs. A responder answers in order, so messages on a QP that carries READs would wait
 * behind megabytes. A QP may be read through only after the handshake on it has been proven.
 */
#ifndef FEATURED_TRANSPORT_RDMA_INTERNAL_H
#define FEATURED_TRANSPORT_RDMA_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "proto/container.h"
#include "transport/byte_queue.h"
#include "transport/connection.h"
#include "transport/handshake.h"
#include "transport/lookup.h"
#include "transport/rdma/rdma.h"
#include "transport/rdma/verbs.h"
#include "transport/rdma/wire.h"
#include "transport/read_queue.h"
#include "transport/strangers.h"

#define RAILS_MAX         RWIRE_RAILS_MAX
#define DEVICES_MAX       RWIRE_RAILS_MAX
#define DEVICE_NAME_BYTES 64u
#define ROUTE_TARGETS_MAX (RAILS_MAX + 1u)

struct rdma;
struct rdma_conn;

struct rdma_context_fds { /* of a verbs context, and which file `command` was */
    int command, async;
    dev_t file_device;
    ino_t file_inode; /* 0: none */
};

struct rdma_device {
    struct rdma *rdma;
    uint32_t index; /* in rdma->devices */
    char name[DEVICE_NAME_BYTES];
    struct ibv_context *verbs;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_device_attr limits;
    uv_poll_t completions, faults; /* of the channel, of the device's asynchronous events */
    unsigned uv_refs;
    bool lost;
    struct rdma_context_fds librdmacm; /* its own context of this device */
};

struct rdma_rail {
    struct rdma_device *device; /* NULL: no rail of this number */
    uint8_t port;
    uint32_t mtu_bytes;
    struct sockaddr_storage address; /* its port: where we listen, 0 if we do not */
    char text[INET6_ADDRSTRLEN];
    struct rdma_cm_id *listener;
};

struct rdma_stream {
    uint32_t slots, slot_bytes; /* of each direction, ours */
    uint32_t send_bytes_max;    /* what fits into a receive slot of theirs */
    uint8_t *memory;            /* receive slots, then send slots */
    struct ibv_mr *mr;
    uint32_t credits; /* receives posted by them for us */
    uint32_t owed;    /* receives posted by us that they do not know of yet */
    uint32_t sends_out;
    uint64_t sends; /* since the beginning: which slot is next */
    struct byte_queue received, unsent;
};

struct rdma_chunk { /* one RDMA READ */
    TAILQ_ENTRY(rdma_chunk) link;
    struct rdma_read *read;
    uint64_t offset;
    uint32_t bytes;
    uint64_t number; /* of its rail */
};
TAILQ_HEAD(rdma_chunks, rdma_chunk);

enum rlink_phase {
    RLINK_RESOLVING,
    RLINK_CONNECTING,
    RLINK_HANDSHAKE,
    RLINK_OPEN,
    RLINK_LINGER, /* a refusal is on its way out */
    RLINK_CLOSED, /* the QP is gone; the struct waits for the end of this turn of the loop */
};

struct rdma_link {
    TAILQ_ENTRY(rdma_link) all;
    struct rdma *rdma;
    struct stranger stranger;
    struct rdma_conn *conn; /* NULL: accepted and not proven yet, or lingering */
    enum rlink_phase phase;
    enum handshake_kind kind;
    bool accepted_here;
    uint64_t deadline_ms; /* of connecting, handshake or lingering */
    uint32_t rail;        /* ours */
    uint32_t their_rail;
    bool opened; /* has been RLINK_OPEN */
    struct rdma_device *device;
    struct rdma_cm_id *id;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct handshake *handshake; /* until RLINK_OPEN */
    struct rdma_stream stream;
    struct seal out, in;

    /* bulk */
    struct rdma_chunks posted; /* in order */
    uint32_t posted_count, posted_max;
    uint64_t posted_bytes, next_number, progress_ms;
};

struct rdma_segment { /* of a region of ours */
    uint8_t *base;
    uint64_t bytes;
    struct ibv_mr *mr[DEVICES_MAX];
};

struct rdma_region {
    uint64_t bytes;
    bool failed; /* cannot be registered: nobody reads it, nothing lands in it */
    uint32_t segment_count;
    struct rdma_segment *segments;
};

struct rdma_piece { /* of a region of theirs */
    uint64_t offset, address, bytes;
    uint32_t rkeys[RAILS_MAX];
};

struct rdma_opening { /* a region of theirs that we read */
    TAILQ_ENTRY(rdma_opening) link;
    uint32_t handle;
    bool answered, gone; /* gone: not for new reads */
    int status;
    uint32_t reads; /* that hold it */
    uint64_t bytes;
    struct rdma_piece *pieces; /* in order of their offsets */
    uint32_t piece_count;
    size_t key_bytes;
    uint8_t key[];
};

struct rdma_serve { /* a region of ours that they read */
    LIST_ENTRY(rdma_serve) link;
    uint32_t handle, region;
    uint32_t reads; /* under way, as far as they say */
};

struct rdma_read {
    struct queued_read base;
    struct rdma_opening *opening;
    uint64_t bytes_posted; /* from the front; what failed is in conn->again */
    bool begun;            /* the home has been told that it reads (BEGIN or OPEN) */
};

struct rdma_conn {
    struct connection base;
    struct rdma *rdma;
    bool rails_known, ready_sent;
    struct rdma_link *control;
    struct rdma_link *bulk[RAILS_MAX]; /* by our number of the rail */
    uint64_t deadline_ms;              /* of becoming up */
    struct sockaddr_storage their_rails[RAILS_MAX];
    char last_rail_failure[128];
    struct transport_rail_info
        rail_info[RAILS_MAX];       /* by our number of the rail; outlives its QP */
    uint64_t mend_ms, mend_wait_ms; /* when missing rails are dialled again; 0: no */

    /* dialling */
    char address[64];
    struct lookup lookup;
    struct sockaddr_storage targets[ROUTE_TARGETS_MAX]; /* where the control link is dialled */
    uint32_t target_count, targets_tried;

    /* reading */
    struct read_queue reads;
    struct rdma_chunks again; /* of rails that failed */
    TAILQ_HEAD(, rdma_opening) openings;
    uint32_t next_handle;

    LIST_HEAD(, rdma_serve) serves;
};

struct rdma_paths { /* what is known of a node that is dialled at an address */
    LIST_ENTRY(rdma_paths) all;
    char address[64];
    struct sockaddr_storage rails[RAILS_MAX]; /* as it told them; family 0: none */
    uint32_t failures;
};

/* What the lower half tells the upper one; rdma.c fills it in. */
struct rdma_upper {
    /* Of links. Somebody who dialled us has proved himself: accept or refuse his handshake, and
     * give the link its connection. */
    void (*proven)(struct rdma_link *link);
    /* All below: of links that have a connection. */
    void (*open)(struct rdma_link *link);
    void (*received)(struct rdma_link *link); /* a control link has bytes in its stream */
    /* The READ of this number, and all before it on the link, have landed. */
    void (*landed)(struct rdma_link *link, uint64_t number);
    void (*has_room)(struct rdma_link *link); /* a bulk link may take further READs */
    void (*closed)(struct rdma_link *link);   /* its QP is gone; what was posted will not land */
    /* It failed and has been closed. */
    void (*lost)(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why);

    /* Of regions of ours: a segment is registered with every device; the region cannot be
     * registered; it is going to be unregistered. */
    void (*segment_registered)(struct rdma *rdma, uint32_t region,
                               const struct rdma_segment *segment);
    void (*region_failed)(struct rdma *rdma, uint32_t region);
    void (*region_going)(struct rdma *rdma, uint32_t region);

    void (*rail_appeared)(struct rdma *rdma);
};

struct rdma {
    struct endpoint base;
    const struct rdma_upper *upper;
    struct rdma_options rdma_options; /* devices points into the copy below */
    char devices_wanted[256];

    struct verbs lib; /* libibverbs and librdmacm */
    struct rdma_event_channel *channel;
    uv_poll_t cm;

    /* turn.c */
    uv_timer_t tick, soon; /* deadlines; what an operation left to the loop */
    uv_timer_cb on_tick, on_soon;
    uint64_t scanned_ms;

    struct rdma_device *devices[DEVICES_MAX];
    struct rdma_context_fds left[DEVICES_MAX]; /* librdmacm's, of released devices */
    uint32_t left_count;
    struct rdma_rail rails[RAILS_MAX];
    uint32_t rails_most; /* that there have been at once */
    bool listening;
    uint16_t listen_port;

    struct rdma_region **memory; /* memory[i] belongs to region i of base.regions */
    uint32_t memory_count;
    struct rdma_registration *registering; /* on libuv's pool; one at a time */

    LIST_HEAD(, rdma_paths) routes;
    TAILQ_HEAD(rdma_links, rdma_link) links, closed_links;
};

/* Walks the connections: NULL to begin, NULL at the end. */
static inline struct rdma_conn *rdma_next_conn(const struct rdma *rdma, struct rdma_conn *conn) {
    struct connection *next =
        conn != NULL ? LIST_NEXT(&conn->base, all) : LIST_FIRST(&rdma->base.connections);
    return next != NULL ? container_of(next, struct rdma_conn, base) : NULL;
}

#endif
