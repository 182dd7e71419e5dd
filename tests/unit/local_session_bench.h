/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions over real sockets, with a stub in the broker's place that says which answers go where.
 * There is one bench at a time: its parts are global, for a Criterion test runs in a process of its
 * own.
 */
#ifndef FEATURED_TESTS_LOCAL_SESSION_BENCH_H
#define FEATURED_TESTS_LOCAL_SESSION_BENCH_H

#include <uv.h>

#include "local/codec.h"
#include "local/listener.h"
#include "local/session.h"

struct broker_session {
    struct broker *broker;
    const struct broker_client_ops *ops;
    void *client;
    char name[32];
    struct account account;
};

struct broker {
    bool full;      /* no more sessions */
    int fd;         /* rides on the answer to Health */
    uint32_t flood; /* answers of flood_bytes to `victim` for each Nodes */
    size_t flood_bytes;
    uint32_t notices;    /* to whoever sends a Drain */
    uint32_t release_ms; /* a Release takes so long */
    struct broker_session *victim, *last_opened;
    uint32_t opened, closed, requests, releases, turns;
    uint64_t last_now_ns;
    bool charged; /* sessions have accounts */
    struct charge_limits limits;
    struct account user;
};

extern uv_loop_t session_bench_loop;
extern struct sessions session_bench_sessions;
extern struct broker session_bench_broker;
extern const struct session_backend session_bench_backend; /* the stub */

void session_bench_set_up(void);
void session_bench_tear_down(void); /* asserts that nothing is left */

/* For sessions_options.after_turn; owner is the struct broker. */
void session_bench_count_turn(void *owner, uint64_t now_ns);

/* The client's end of a new session. */
int session_bench_connect(void);
void session_bench_send_frame(int client, enum frame_type type, Fb__ClientRequest__OpCase op,
                              uint32_t request_id, uint32_t payload_bytes);
/* Bytes of the next packet (0 = closed), its descriptor in *fd_out. Turns the loop until one is
 * there. */
size_t session_bench_receive(int client, struct frame_header *header, int *fd_out);
void session_bench_expect_closed(int client);
void session_bench_expect_answer(int client, uint32_t request_id);
void session_bench_expect_alive(int client);
/* Turns the loop until the counter has got so far. */
void session_bench_run_until(const uint32_t *counter, uint32_t at_least);

#endif
