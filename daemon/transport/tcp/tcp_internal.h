/* SPDX-License-Identifier: Apache-2.0
 *
 * The structs of the TCP transport; what each file does for the others stands in its own header:
 *
 *   tcp.c      the transport: constructor, listener, regions, the table of operations
 *   conn.c     one connection: its two links from birth to `closed`
 *   control.c  frames on the control socket, both directions
 *   reader.c   our reads: requests and landing
 *   server.c   the other side's reads: chunks out
 *   link.c     one socket: dialling, handshake, timeout, readiness, closing
 *   wire.c     what stands on the sockets
 *
 * link.c knows nothing of what a connection is made of: it tells conn.c by the table
 * struct tcp_link_events.
 */
#ifndef FEATURED_TRANSPORT_TCP_INTERNAL_H
#define FEATURED_TRANSPORT_TCP_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "proto/container.h"
#include "transport/byte_queue.h"
#include "transport/connection.h"
#include "transport/handshake.h"
#include "transport/lookup.h"
#include "transport/read_queue.h"
#include "transport/strangers.h"
#include "transport/tcp/wire.h"

struct tcp_link;

struct tcp_link_events { /* of links; all but `proven` of links that have a connection */
    /* Somebody who dialled us has proved himself: accept or refuse his handshake, and give the link
     * its connection. */
    void (*proven)(struct tcp_link *link);
    void (*open)(struct tcp_link *link);
    /* connect() failed, with this errno. */
    void (*unreachable)(struct tcp_link *link, int error);
    /* It failed before it was open; why: one sentence. */
    void (*failed)(struct tcp_link *link, int status, const char *why);
    /* The kernel says that the socket is in error, before or after it was open. */
    void (*broken)(struct tcp_link *link, int error);
    /* An open one can be read or written, or was watched for its end, which has come. */
    void (*ready)(struct tcp_link *link, int events);
    /* libuv has let go of a closed one. */
    void (*gone)(struct tcp_link *link);
};

enum link_phase {
    LINK_CONNECTING,
    LINK_HANDSHAKE,
    LINK_OPEN,
    LINK_CLOSED, /* fd is closed; uv is still letting go of the handles */
};

struct tcp_link {
    struct tcp *tcp;
    struct tcp_conn *conn; /* NULL: accepted and not proven yet */
    struct stranger stranger;
    enum link_phase phase;
    int fd;
    int events; /* what poll waits for */
    unsigned uv_refs;
    uv_poll_t poll;
    bool polled;                 /* poll is initialised */
    uv_timer_t timer;            /* handshake */
    uint32_t timeout_ms;         /* what it was set to */
    struct handshake *handshake; /* until LINK_OPEN */
    struct seal out, in;
};

struct tcp_read { /* ours: bytes of the other side's region land here */
    struct queued_read base;
    uint64_t id;
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

struct tcp_conn {
    struct connection base;
    struct tcp *tcp;
    bool open;     /* both sockets are through their handshakes */
    unsigned refs; /* links that libuv still holds, a name being resolved */
    struct tcp_link *control, *bulk;

    /* dialling */
    struct tcp_target place, data; /* of messages, of bulk bytes if that is another */
    struct lookup lookup;
    struct tcp_target *looked_up;

    /* control */
    struct byte_queue received, unsent;

    /* bulk, landing */
    struct read_queue reads;
    struct tcp_read **slots;  /* active reads: slots[i] has id = i + n * reads_per_connection */
    uint64_t next_round;      /* n of the next one, so no id is ever used again */
    struct tcp_read *landing; /* whose chunk is coming in; NULL between chunks */
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
};

struct tcp {
    struct endpoint base;
    const struct tcp_link_events *link_events;
    int listen_fd; /* -1: does not listen */
    uv_poll_t listener;
    uv_timer_t accept_pause;
};

#endif
