/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the RDMA transport share:
 *   transport_rdma.c  the transport: constructor, CM events, time, the table of operations
 *   rdma_device.c     devices: opened, their completion channels, lost, released
 *   rdma_rails.c      rails: found, listened on
 *   rdma_memory.c     regions: registered piece by piece on every device
 *   rdma_link.c       one QP: from CM request to its end, handshake
 *   rdma_routes.c     the other addresses of a node that is dialled
 *   rdma_stream.c     bytes over SEND/RECV with credits
 *   rdma_conn.c       one connection: its control link, from birth to `closed`
 *   rdma_conn_rails.c its bulk links: dialled, mended, counted
 *   rdma_control.c    frames on the control stream, both directions
 *   rdma_reader.c     our reads: cut into chunks, spread over the rails
 *
 * A rail is a port of a device with an address. Each QP carries one of two things: the control
 * stream, or READs; a responder answers in order, so bulk on the same QP would delay messages. A QP
 * may be read through only after the handshake on it has been proven.
 */
#ifndef FEATURED_PEER_RDMA_INTERNAL_H
#define FEATURED_PEER_RDMA_INTERNAL_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "transport/byte_queue.h"
#include "transport/handshake.h"
#include "transport/rdma/rdma.h"
#include "transport/rdma/wire.h"
#include "transport/regions.h"
#include "transport/transport.h"

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
    TAILQ_ENTRY(rdma_read) turn;
    struct transport_read ask;
    uint32_t local_region;
    struct rdma_opening *opening;
    uint64_t bytes_posted; /* from the front; what failed is in conn->again */
    uint64_t bytes_done;
    bool begun;
};
TAILQ_HEAD(rdma_reads, rdma_read);

struct rdma_conn { /* the owner's struct transport_conn */
    struct rdma *rdma;
    LIST_ENTRY(rdma_conn) all;
    uint64_t id;     /* given by the answerer; names the connection to its bulk links */
    uint64_t number; /* of it here, never used again: what region keys are for */
    bool accepted_here, announced, up, closing;
    bool rails_known, ready_sent;
    int end_status;
    char why[192];
    void *user;
    struct handshake_hello hello;
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
    uv_getaddrinfo_t resolve;
    struct sockaddr_storage targets[ROUTE_TARGETS_MAX]; /* where the control link is dialled */
    uint32_t target_count, targets_tried;

    /* reading */
    struct rdma_reads active, waiting;
    uint32_t active_count, waiting_count;
    struct rdma_chunks again; /* of rails that failed */
    TAILQ_HEAD(, rdma_opening) openings;
    uint32_t next_handle;

    LIST_HEAD(, rdma_serve) serves;

    struct transport_info counters;
};

struct rdma_paths { /* what is known of a node that is dialled at an address */
    LIST_ENTRY(rdma_paths) all;
    char address[64];
    struct sockaddr_storage rails[RAILS_MAX]; /* as it told them; family 0: none */
    uint32_t failures;
};

struct rdma {
    struct transport base;
    uv_loop_t *loop;
    struct transport_options options; /* cluster_key and hello point into the copies below */
    struct rdma_options rdma_options; /* devices points into the copy below */
    struct transport_events events;
    void *owner;
    void (*on_destroyed)(void *owner);
    bool destroying;
    uint8_t cluster_key[AUTH_KEY_BYTES];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    char devices_wanted[256];

    struct rdma_event_channel *channel;
    uv_poll_t cm;
    uv_timer_t tick, soon; /* deadlines; what an operation left to the loop */
    unsigned uv_refs;
    uint64_t scanned_ms;
    uint64_t stranger_logged_ms;
    uint32_t strangers_unlogged;

    struct rdma_device *devices[DEVICES_MAX];
    struct rdma_context_fds left[DEVICES_MAX]; /* librdmacm's, of released devices */
    uint32_t left_count;
    struct rdma_rail rails[RAILS_MAX];
    uint32_t rails_most; /* that there have been at once */
    bool listening;
    uint16_t listen_port;

    struct regions regions;
    uint64_t next_conn;
    /* number of the next connection */ /* keys and ranges; memory[i] belongs to region i */
    struct rdma_region **memory;
    uint32_t memory_count;
    struct rdma_registration *registering; /* on libuv's pool; one at a time */

    LIST_HEAD(, rdma_paths) routes;
    LIST_HEAD(, rdma_conn) conns;
    TAILQ_HEAD(rdma_links, rdma_link) links, closed_links;
    uint32_t accepted_count, stranger_count;
};

/* ---- transport_rdma.c ---- */
/* What must not happen inside an operation happens at the next turn of the loop. */
void rdma_soon(struct rdma *rdma);
/* There is a deadline to watch again. */
void rdma_watch_time(struct rdma *rdma);
void rdma_maybe_destroyed(struct rdma *rdma);
void rdma_log_stranger(struct rdma *rdma, const struct rdma_link *link, const char *why);

/* ---- rdma_rails.c ---- */
/* Looks for rails that have appeared. How many there are now; `why`, if not NULL, says why there
 * are none. */
uint32_t rrails_scan(struct rdma *rdma, char *why, size_t why_bytes);
uint32_t rrails_count(const struct rdma *rdma);
/* The rail that a resolved or incoming id uses; -1: none of ours. */
int rrails_of_id(const struct rdma *rdma, const struct rdma_cm_id *id);
int rrails_listen(struct rdma *rdma, struct rdma_rail *rail);

/* ---- rdma_device.c ---- */
/* Opens it if need be. 0, -ENODEV (also while a lost one of that name is still being let go), ...
 */
int rdevice_find(struct rdma *rdma, const char *name, struct rdma_device **out);
/* The context that librdmacm has on the device. */
void rdevice_note_librdmacm(struct rdma_device *device, const struct ibv_context *theirs);
/* The device has gone or is going: everything of ours on it ends now. */
void rdevice_lost(struct rdma_device *device, const char *why);
/* Those that the system no longer lists are lost. */
void rdevice_check_listed(struct rdma *rdma);
/* Frees a lost device if nothing on libuv's pool uses it. */
void rdevice_release(struct rdma_device *device);
/* Closes what librdmacm still has open of released devices. Not in the turn of the loop in which
 * they were lost: librdmacm has its own to clean up first. */
void rdevice_close_left(struct rdma *rdma);

/* ---- rdma_memory.c ---- */
int rmemory_add(struct rdma *rdma, void *base, uint64_t bytes, uint32_t *region_out);
void rmemory_remove(struct rdma *rdma, uint32_t region);
/* Registers what is not registered yet, in the background. */
void rmemory_continue(struct rdma *rdma);
void rmemory_drop_device(struct rdma_device *device);
/* Of the region: the piece around an address, registered with the device; NULL: not yet. */
const struct rdma_segment *rmemory_at(const struct rdma *rdma, uint32_t region, const void *at,
                                      const struct rdma_device *device);
/* Is the segment registered with every device? */
bool rmemory_whole(const struct rdma *rdma, const struct rdma_segment *segment);
/* There is a device less: what waited for it alone is now registered everywhere. */
void rmemory_announce(struct rdma *rdma);
void rmemory_deinit(struct rdma *rdma);

/* ---- rdma_link.c ---- */
/* Dials; from: one of our rails, or NULL for whichever leads there. 0 or -errno. */
int rlink_dial(struct rdma_conn *conn, enum handshake_kind kind, const struct rdma_rail *from,
               const struct sockaddr_storage *to, struct rdma_link **out);
/* A CM event of this link; of a listener: a new one. */
void rlink_on_cm_event(struct rdma_link *link, const struct rdma_cm_event *event);
void rlink_on_request(struct rdma *rdma, const struct rdma_cm_event *event);
/* Drains the completion queue. */
void rlink_on_completions(struct rdma_link *link);
/* Destroys the QP now: from here on it moves no byte in either direction. */
void rlink_close(struct rdma_link *link);
/* Of a closed one. */
void rlink_free(struct rdma_link *link);
/* Ends once what has been queued is out, or after a moment. */
void rlink_linger(struct rdma_link *link);
/* Something went wrong on this QP. */
void rlink_fail(struct rdma_link *link, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void rlink_check_time(struct rdma_link *link, uint64_t now_ms);

/* ---- rdma_stream.c ---- */
int rstream_init(struct rdma_stream *stream, struct ibv_pd *pd, uint32_t slots,
                 uint32_t slot_bytes);
/* The QP is gone: lets go of the device. What has come in stays until rstream_deinit. */
void rstream_stop(struct rdma_stream *stream);
void rstream_deinit(struct rdma_stream *stream);
/* Posts every receive; the QP is in INIT. */
int rstream_start(struct rdma_link *link);
/* Queues bytes behind what is queued. 0 or -ENOMEM. */
int rstream_write(struct rdma_link *link, const struct iovec *parts, int count);
/* Sends what credits and slots allow. */
void rstream_flush(struct rdma_link *link);
/* Bytes of a receive have come in: they are in stream.received, the slot is posted again. */
void rstream_on_receive(struct rdma_link *link, const struct ibv_wc *wc);
void rstream_on_sent(struct rdma_link *link);

/* ---- rdma_conn.c ---- */
int rconn_dial(struct rdma *rdma, const char *address, void *user, struct rdma_conn **out);
/* An accepted link proved itself: accepts or refuses its handshake, and gives it its connection. */
void rconn_adopt(struct rdma_link *link);
void rconn_link_open(struct rdma_link *link);
/* A link of this connection has failed and been closed. */
void rconn_link_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why);
void rconn_on_ready(struct rdma_conn *conn);
void rconn_on_accepted(struct rdma_conn *conn);
bool rconn_usable(const struct rdma_conn *conn);
/* Ends the connection: its QPs are destroyed now, events follow from the loop. The first reason
 * stays. */
void rconn_fail(struct rdma_conn *conn, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reports the end of a connection that rconn_fail has ended, and frees it. */
void rconn_end(struct rdma_conn *conn);
void rconn_check_time(struct rdma_conn *conn, uint64_t now_ms);
void rconn_query(const struct rdma_conn *conn, struct transport_info *out);

/* ---- rdma_conn_rails.c ---- */
uint32_t rconn_rails_up(const struct rdma_conn *conn);
void rconn_on_rails(struct rdma_conn *conn, const uint8_t *body, size_t bytes);
/* Tells the asker where bulk links are accepted. */
void rrail_send_list(struct rdma_conn *conn);
/* There is a rail more on this node: connections may use it. */
void rrail_appeared(struct rdma *rdma);
void rrail_open(struct rdma_link *link);
void rrail_lost(struct rdma_conn *conn, struct rdma_link *link, int status, const char *why);
/* If rails are missing, they will be dialled soon. */
void rrail_plan_mending(struct rdma_conn *conn);
void rrail_check_time(struct rdma_conn *conn, uint64_t now_ms);
void rrail_query(const struct rdma_conn *conn, struct transport_info *out);

/* ---- rdma_routes.c ---- */
/* A node dialled at this address has told its rails. */
void rroute_learn(struct rdma *rdma, const char *address,
                  const struct sockaddr_storage rails[RAILS_MAX]);
/* Where to dial it, in this order; resolved: the address itself. How many. */
uint32_t rroute_targets(struct rdma *rdma, const char *address,
                        const struct sockaddr_storage *resolved,
                        struct sockaddr_storage out[ROUTE_TARGETS_MAX]);
/* The first of those targets did not work, or no longer does. */
void rroute_failed(struct rdma *rdma, const char *address);
void rroutes_free(struct rdma *rdma);

/* ---- rdma_control.c ---- */
int rcontrol_send(struct rdma_conn *conn, enum rwire_type type, const struct iovec *parts,
                  int part_count);
void rcontrol_received(struct rdma_conn *conn);
/* A piece of a region of ours has been registered with every device. */
void rcontrol_announce(struct rdma *rdma, uint32_t region, const struct rdma_segment *segment);
/* The same of every piece, for an asker that has a rail more. */
void rcontrol_announce_all(struct rdma_conn *conn);
/* A region of ours could not be registered. */
void rcontrol_announce_failure(struct rdma *rdma, uint32_t region);
/* The region is going: tells or ends those who read it. */
void rcontrol_region_removed(struct rdma *rdma, uint32_t region);
void rcontrol_end(struct rdma_conn *conn);

/* ---- rdma_reader.c ---- */
int rreader_add(struct rdma_conn *conn, const struct transport_read *ask);
/* Posts what the rails have room for. */
void rreader_post(struct rdma_conn *conn);
/* The same, after reporting reads that were refused. From the loop only. */
void rreader_run(struct rdma_conn *conn);
void rreader_on_opened(struct rdma_conn *conn, uint32_t handle, int status, uint64_t bytes);
void rreader_on_segment(struct rdma_conn *conn, const struct rwire_segment *segment);
void rreader_on_gone(struct rdma_conn *conn, uint32_t handle);
/* The READ with this number, and all before it on the rail, have landed. */
void rreader_on_landed(struct rdma_link *link, uint64_t number);
/* The rail is gone: what was posted there is posted on the others. */
void rreader_rail_lost(struct rdma_link *link);
/* Their memory is no longer read through their rail of this number, until they tell its keys again.
 */
void rreader_forget_keys(struct rdma_conn *conn, uint32_t their_rail);
bool rreader_uses(const struct rdma_conn *conn, uint32_t region);
/* Reports every read as ended with the connection. */
void rreader_end(struct rdma_conn *conn);

#endif
