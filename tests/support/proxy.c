/* SPDX-License-Identifier: Apache-2.0
 *
 * One poll loop. A pair is two sockets and one buffer for each direction; a direction moves when it
 * is not held: read when its buffer is empty, write when it is not. An end of stream travels like
 * bytes. A fd with nothing to wait for is left out of the poll: a closed socket would wake it for
 * ever.
 */
#include "support/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/checks.h"

#define PAIRS_MAX    128u
#define BUFFER_BYTES 65536u
#define ANSWER_MS    10000u

enum { CLIENT, SERVER };

struct flow { /* from one end to the other */
    char *bytes;
    size_t begin, end;
    bool ended, passed_on; /* the sender has ended; so was the receiver told */
};
struct pair {
    int fds[2];           /* -1: no such pair; SERVER: connects when to-server flows */
    struct flow flows[2]; /* by who sends */
};
struct forwarder {
    int listener, channel;
    struct sockaddr_in server;
    enum proxy_hold hold;
    struct pair pairs[PAIRS_MAX];
};

/* ---- pairs ---- */

static void pair_close(struct pair *pair) {
    for (int side = 0; side < 2; side++) {
        if (pair->fds[side] >= 0)
            close(pair->fds[side]);
        pair->fds[side] = -1;
        free(pair->flows[side].bytes);
        pair->flows[side] = (struct flow){0};
    }
}

static void pair_reset(struct pair *pair) {
    static const struct linger at_once = {.l_onoff = 1};
    for (int side = 0; side < 2; side++)
        setsockopt(pair->fds[side], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    pair_close(pair);
}

static void send_at_once(int fd) {
    static const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void pair_open(struct forwarder *forwarder) {
    struct pair *pair = forwarder->pairs;
    while (pair->fds[CLIENT] >= 0)
        pair++;
    pair->fds[CLIENT] = accept4(forwarder->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (pair->fds[CLIENT] < 0)
        return;
    send_at_once(pair->fds[CLIENT]);
    for (int side = 0; side < 2; side++) {
        pair->flows[side].bytes = malloc(BUFFER_BYTES);
        CHECK(pair->flows[side].bytes != NULL, "out of memory");
    }
}

static void pair_connect(const struct forwarder *forwarder, struct pair *pair) {
    pair->fds[SERVER] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(pair->fds[SERVER] >= 0, "%s", strerror(errno));
    send_at_once(pair->fds[SERVER]);
    int result = connect(pair->fds[SERVER], (const struct sockaddr *)&forwarder->server,
                         sizeof forwarder->server);
    if (result < 0 && errno != EINPROGRESS)
        pair_reset(pair);
}

static bool is_held(const struct forwarder *forwarder, int sender) {
    return forwarder->hold & (sender == CLIENT ? PROXY_HOLD_TO_SERVER : PROXY_HOLD_TO_CLIENT);
}

static bool would_block(void) {
    return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
}

/* False: the connection is broken. */
static bool take(struct flow *flow, int from) {
    ssize_t got = recv(from, flow->bytes, BUFFER_BYTES, 0);
    flow->ended = got == 0;
    flow->begin = 0;
    flow->end = got > 0 ? (size_t)got : 0;
    return got >= 0 || would_block();
}

static bool give(struct flow *flow, int to) {
    ssize_t sent = 0;
    if (flow->begin < flow->end)
        sent = send(to, flow->bytes + flow->begin, flow->end - flow->begin, MSG_NOSIGNAL);
    if (sent < 0)
        return would_block();
    flow->begin += (size_t)sent;
    if (flow->begin == flow->end && flow->ended && !flow->passed_on) {
        flow->passed_on = true;
        shutdown(to, SHUT_WR);
    }
    return true;
}

static void pair_move(const struct forwarder *forwarder, struct pair *pair) {
    for (int sender = 0; sender < 2 && pair->fds[CLIENT] >= 0; sender++) {
        struct flow *flow = &pair->flows[sender];
        if (is_held(forwarder, sender))
            continue;
        if (pair->fds[SERVER] < 0) {
            if (sender == CLIENT)
                pair_connect(forwarder, pair);
            continue;
        }
        if ((flow->begin == flow->end && !flow->ended && !take(flow, pair->fds[sender])) ||
            !give(flow, pair->fds[!sender]))
            pair_reset(pair);
    }
    if (pair->flows[CLIENT].passed_on && pair->flows[SERVER].passed_on)
        pair_close(pair);
}

/* What to wait for at one end. */
static struct pollfd interest(const struct forwarder *forwarder, const struct pair *pair,
                              int side) {
    struct pollfd out = {.fd = pair->fds[side]};
    const struct flow *in = &pair->flows[side], *from_other = &pair->flows[!side];
    bool connected = pair->fds[SERVER] >= 0;
    if (connected && !is_held(forwarder, side) && in->begin == in->end && !in->ended)
        out.events |= POLLIN;
    if (connected && !is_held(forwarder, !side) && from_other->begin < from_other->end)
        out.events |= POLLOUT;
    if (!out.events)
        out.fd = -1;
    return out;
}

/* ---- orders ---- */

static void cut_all(struct forwarder *forwarder) {
    for (uint32_t i = 0; i < PAIRS_MAX; i++)
        if (forwarder->pairs[i].fds[CLIENT] >= 0)
            pair_reset(&forwarder->pairs[i]);
}

static bool obey(struct forwarder *forwarder) {
    char order[8] = "";
    if (channel_receive(forwarder->channel, order, sizeof order - 1, 0) == 0)
        return false;
    if (order[0] == 'x')
        cut_all(forwarder);
    else
        forwarder->hold = (enum proxy_hold)(order[0] - '0');
    channel_say(forwarder->channel, "done");
    return true;
}

static int listen_somewhere(int channel) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t own_bytes = sizeof own;
    char text[32];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&own, own_bytes) == 0 && listen(fd, 64) == 0 &&
              getsockname(fd, (struct sockaddr *)&own, &own_bytes) == 0,
          "%s", strerror(errno));
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(own.sin_port));
    channel_say(channel, text);
    return fd;
}

static int forward(int channel, void *context) {
    static struct forwarder forwarder;
    struct pollfd fds[2 + 2 * PAIRS_MAX];
    forwarder = (struct forwarder){.channel = channel, .server = *(struct sockaddr_in *)context};
    for (uint32_t i = 0; i < PAIRS_MAX; i++)
        forwarder.pairs[i].fds[CLIENT] = forwarder.pairs[i].fds[SERVER] = -1;
    forwarder.listener = listen_somewhere(channel);
    for (;;) {
        bool room = false;
        for (uint32_t i = 0; i < PAIRS_MAX; i++) {
            room |= forwarder.pairs[i].fds[CLIENT] < 0;
            fds[2 + 2 * i] = interest(&forwarder, &forwarder.pairs[i], CLIENT);
            fds[3 + 2 * i] = interest(&forwarder, &forwarder.pairs[i], SERVER);
        }
        fds[0] = (struct pollfd){.fd = channel, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = room ? forwarder.listener : -1, .events = POLLIN};
        poll(fds, 2 + 2 * PAIRS_MAX, -1);
        if (fds[0].revents && !obey(&forwarder))
            return 0;
        if (fds[1].revents)
            pair_open(&forwarder);
        for (uint32_t i = 0; i < PAIRS_MAX; i++)
            if (forwarder.pairs[i].fds[CLIENT] >= 0)
                pair_move(&forwarder, &forwarder.pairs[i]);
    }
}

/* ---- the test's side ---- */

void proxy_start(struct proxy *proxy, const char *server) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[32];
    uint16_t port;
    *proxy = (struct proxy){0};
    CHECK(sscanf(server, "%31[0-9.]:%hu", host, &port) == 2 &&
              inet_pton(AF_INET, host, &address.sin_addr) == 1,
          "%s is no address", server);
    address.sin_port = htons(port);
    process_fork(&proxy->process, forward, &address);
    channel_receive(proxy->process.channel, proxy->address, sizeof proxy->address - 1, ANSWER_MS);
}

void proxy_stop(struct proxy *proxy) {
    process_kill(&proxy->process);
}

static void order(struct proxy *proxy, char what) {
    channel_send(proxy->process.channel, &what, 1);
    channel_expect(proxy->process.channel, "done", ANSWER_MS);
}

void proxy_hold(struct proxy *proxy, enum proxy_hold hold) {
    order(proxy, (char)('0' + (int)hold));
}

void proxy_cut(struct proxy *proxy) {
    order(proxy, 'x');
}
