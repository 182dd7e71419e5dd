/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the TCP transport share:
 *   transport_tcp.c          the transport: constructor, listener, regions, the table of operations
 *   transport_tcp_link.c     one socket: dialling, handshake, timeout, readiness, closing
 *   transport_tcp_conn.c     one connection: its two links from birth to `closed`
 *   transport_tcp_control.c  frames on the control socket, both directions
 *   transport_tcp_reader.c   our reads: requests and landing
 *   transport_tcp_server.c   the other side's reads: chunks out
 */
#ifndef FEATURED_PEER_TRANSPORT_TCP_INTERNAL_H
#define FEATURED_PEER_TRANSPORT_TCP_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <uv.h>

#include "transport/byte_queue.h"
#include "transport/handshake.h"
#include "transport/regions.h"
#include "transport/tcp/wire.h"
#include "transport/transport.h"

enum link_phase {
    LINK_CONNECTING,
    LINK_HANDSHAKE,
    LINK_OPEN,
    LINK_CLOSED, /* fd is closed; uv is still letting go of the handles */
};

struct tcp_link {
    struct tcp *tcp;
    struct tcp_conn *conn; /* NULL: accepted and not proven yet, then it is in tcp->strangers */
    enum link_phase phase;
    int fd;
    int events; /* what poll waits for */
    unsigned uv_refs;
    uv_poll_t poll;
    uv_timer_t timer;            /* handshake */
    uint32_t timeout_ms;         /* what it was set to */
    struct handshake *handshake; /* until LINK_OPEN */
    struct seal out, in;
    TAILQ_ENTRY(tcp_link) strangers;
};

struct tcp_read { /* ours: bytes of the other side's region land here */
    TAILQ_ENTRY(tcp_read) waiting;
    struct transport_read ask;
    uint64_t id, bytes_done;
    uint32_t local_region;
    uint8_t key[];
};

struct tcp_serve { /* the other side's: bytes of our region leave */
    TAILQ_ENTRY(tcp_serve) turn;
    uint64_t id, offset, bytes_left;
    uint32_t region;
    const uint8_t *next;
};

struct tcp_target {                  /* one of the two places that a connection is dialled at */
    char text[256];                  /* host:port; "" = there is none */
    struct addrinfo *addresses, *at; /* all of the name; the one in use or tried now */
};

struct tcp_conn { /* the owner's struct transport_conn */
    struct tcp *tcp;
    LIST_ENTRY(tcp_conn) all;
    uint64_t id;     /* given by the answerer; names the connection to its bulk socket */
    uint64_t number; /* of it here, never used again: what region keys are for */
    bool accepted_here;
    bool announced; /* the owner knows it: `closed` must follow */
    bool up;
    bool closing;
    int end_status; /* of the reads that were under way */
    char why[192];
    void *user;
    unsigned refs; /* links that libuv still holds, a name being resolved */
    struct tcp_link *control, *bulk;
    struct handshake_hello hello;

    /* dialling */
    struct tcp_target place, data; /* of messages, of bulk bytes if that is another */
    uv_getaddrinfo_t resolve;
    struct tcp_target *resolving;

    /* control */
    struct byte_queue received, unsent;

    /* bulk, landing: reads[i] has id = i + a multiple of reads_per_connection */
    struct tcp_read **reads;
    TAILQ_HEAD(, tcp_read) waiting;
    uint32_t reads_active, reads_waiting;
    uint64_t next_round;
    struct tcp_read *landing; /* the chunk coming in; NULL between chunks */
    uint32_t landing_left;
    uint8_t chunk_in[WIRE_CHUNK_HEADER_BYTES];
    size_t chunk_in_bytes;

    /* bulk, serving */
    TAILQ_HEAD(, tcp_serve) serves;
    uint32_t serve_count;
    struct tcp_serve *sending; /* the chunk going out; NULL between chunks */
    uint32_t sending_left;
    uint8_t chunk_out[WIRE_CHUNK_HEADER_BYTES];
    size_t chunk_out_sent;

    struct transport_info counters;
};

struct tcp {
    struct transport base;
    uv_loop_t *loop;
    struct transport_options options; /* cluster_key and hello point into the copies below */
    struct transport_events events;
    void *owner;
    void (*on_destroyed)(void *owner);
    uint8_t cluster_key[AUTH_KEY_BYTES];
    uint8_t hello[TRANSPORT_HELLO_BYTES_MAX];
    struct regions regions;
    uint64_t next_number; /* of a connection */

    int listen_fd;
    unsigned uv_refs; /* of the listener's handles */
    uv_poll_t listener;
    uv_timer_t accept_pause;
    uint64_t stranger_logged_ms;
    uint32_t strangers_unlogged;

    TAILQ_HEAD(, tcp_link) strangers;
    uint32_t stranger_count, link_count, accepted_count;
    LIST_HEAD(, tcp_conn) conns;
    bool destroying;
};

/* ---- transport_tcp.c ---- */
void tcp_maybe_destroyed(struct tcp *tcp);
void tcp_log_stranger(struct tcp *tcp, int fd, const char *why);

/* ---- transport_tcp_link.c ---- */
/* An accepted socket of someone unproven; takes the fd, also on failure. */
int tcp_link_accept(struct tcp *tcp, int fd);
/* A later failure ends in tcp_conn_unreachable or tcp_conn_link_failed. 0 or -errno. */
int tcp_link_dial(struct tcp_conn *conn, enum handshake_kind kind, const struct addrinfo *to,
                  uint32_t timeout_ms, struct tcp_link **out);
/* Adds to or takes from what the socket is watched for. */
void tcp_link_watch(struct tcp_link *link, int events, bool on);
/* A stranger proved itself. */
void tcp_link_join(struct tcp_link *link, struct tcp_conn *conn);
/* Closes the fd now and lets go of the rest on the loop. */
void tcp_link_close(struct tcp_link *link);

/* ---- transport_tcp_conn.c ---- */
struct tcp_conn *tcp_conn_new(struct tcp *tcp, bool accepted_here);
int tcp_conn_dial(struct tcp *tcp, const char *address, const char *data_address, void *user,
                  struct tcp_conn **out);
/* connect() failed: tries the next address of the name, or ends. */
void tcp_conn_unreachable(struct tcp_conn *conn, struct tcp_link *link, int error);
/* An accepted link proved itself: accepts or refuses its handshake, and gives it its connection. */
void tcp_conn_adopt(struct tcp *tcp, struct tcp_link *link);
void tcp_conn_link_open(struct tcp_conn *conn, struct tcp_link *link);
/* A socket of it failed before it was open. True: it was being dialled at the data address, which
 * is given up; the bulk socket is dialled where messages go. */
bool tcp_conn_give_up_data(struct tcp_conn *conn, const struct tcp_link *link, const char *why);
void tcp_conn_unref(struct tcp_conn *conn);
/* May the owner send and read? */
bool tcp_conn_usable(const struct tcp_conn *conn);
/* Ends the connection: sockets close now, events follow from the loop. The first reason stays. */
void tcp_conn_fail(struct tcp_conn *conn, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same: the other side broke the protocol. */
void tcp_conn_fail_frame(struct tcp_conn *conn, const char *what);
/* The same for an errno of one of its sockets. */
void tcp_conn_fail_errno(struct tcp_conn *conn, const char *doing, int error);
/* What recv() said, errno as it left it: true when bytes came. False: nothing to do now, or the
 * connection has failed. */
bool tcp_conn_received(struct tcp_conn *conn, ssize_t got);

/* ---- transport_tcp_control.c ---- */
int tcp_control_send(struct tcp_conn *conn, enum wire_type type, const struct iovec *parts,
                     int part_count);
void tcp_control_ready(struct tcp_conn *conn, int events);

/* ---- transport_tcp_reader.c ---- */
int tcp_reader_add(struct tcp_conn *conn, const struct transport_read *ask);
void tcp_reader_refused(struct tcp_conn *conn, uint64_t id, int status);
void tcp_reader_ready(struct tcp_conn *conn);
bool tcp_reader_uses(const struct tcp_conn *conn, uint32_t region);
/* Reports every read that was under way or waiting as ended with the connection. */
void tcp_reader_end(struct tcp_conn *conn);

/* ---- transport_tcp_server.c ---- */
void tcp_server_add(struct tcp_conn *conn, const struct wire_read *read);
/* Sends at most a chunk's worth; watches for room when there is more. */
void tcp_server_send(struct tcp_conn *conn);
bool tcp_server_uses(const struct tcp_conn *conn, uint32_t region);
void tcp_server_end(struct tcp_conn *conn);

#endif
