/* SPDX-License-Identifier: Apache-2.0
 *
 * The list: `sides[0]` is the best transport, `sides[count - 1]` the one that works everywhere.
 *
 * A connection of the owner (struct auto_conn) wraps one connection of a side. Its `main` strand is
 * the user pointer of that inner connection, so each event finds its way up without a search. A
 * dialled connection begins with side 0. If the inner connection ends before it is up, auto_conn
 * dials the next side, and the owner does not notice.
 *
 *   dialling side 0 --closed--> dialling side 1 --closed--> ... --closed--> `closed` to the owner
 *        | up                        | up
 *        v                           v
 *   over side 0                 over side 1, in `fallen`: better sides are tried now and then
 *
 * A connection in `fallen` has a second strand, `probe`. From time to time the probe dials the
 * better sides, best first, to see whether one works; such a connection is closed as soon as it is
 * up, because the owner decides when to move (it may have reads under way). A probe that comes up
 * raises `better` once, and the connection leaves `fallen`.
 *
 * A region of the owner is one region of each side. The key that the owner sends to the other
 * broker is the key of the side that the connection is over, as it is: the other end of the
 * connection is, by necessity, over the same transport and can use it.
 */
#include "transport/auto.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ops/log.h"
#include "proto/container.h"

struct side {
    struct transport_auto *list;
    struct transport *t;
};

struct strand { /* of a side: the user pointer of one inner connection */
    struct auto_conn *conn;
    struct side *side;            /* that it is dialled or connected over */
    struct transport_conn *inner; /* NULL: not there */
};

struct auto_conn {
    struct transport_conn handle; /* the owner's */
    struct strand main, probe;
    void *user;
    bool up, closing;
    char address[256], data_address[256]; /* to dial again; "" of an accepted one */
    char why_not[192];                    /* "rdma: reason": why it is not over a better side */
    char why_not_now[192];                /* the same, of the round of probes under way */
    LIST_ENTRY(auto_conn) fallen;
    bool is_fallen; /* it is in the list `fallen` */
    uint64_t retry_ms, wait_ms;
};

struct auto_region {
    bool used;
    uint32_t of[AUTO_TRANSPORTS_MAX]; /* its number at each side */
};

struct transport_auto {
    struct transport base;
    uv_loop_t *loop;
    struct transport_events events;
    void *owner;
    struct side sides[AUTO_TRANSPORTS_MAX];
    size_t count;
    uv_timer_t retry; /* runs while `fallen` is not empty */
    LIST_HEAD(, auto_conn) fallen;
    struct auto_region *regions; /* the owner's number of a region is its index */
    uint32_t region_count;
    size_t parts_left; /* while it is being destroyed: the sides and the timer that still are */
    void (*on_destroyed)(void *owner);
};

static struct transport_auto *auto_from_base(struct transport *t) {
    return container_of(t, struct transport_auto, base);
}

static struct auto_conn *auto_from_handle(struct transport_conn *handle) {
    return container_of(handle, struct auto_conn, handle);
}

static const char *auto_name(const struct side *side) {
    return side->t->ops->name;
}

static struct side *auto_side_after(const struct side *side) {
    struct transport_auto *list = side->list;
    size_t next = (size_t)(side - list->sides) + 1;
    return next < list->count ? &list->sides[next] : NULL;
}

static struct auto_conn *auto_conn_new(struct side *side, void *user) {
    struct auto_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->handle.transport = &side->list->base;
    conn->user = user;
    conn->main = (struct strand){.conn = conn, .side = side};
    conn->probe = (struct strand){.conn = conn, .side = side};
    return conn;
}

/* Once nothing of it is left. The probe may end later than the connection that it was for. */
static void auto_conn_release(struct auto_conn *conn) {
    if (conn->main.inner == NULL && conn->probe.inner == NULL)
        free(conn);
}

static int auto_dial(struct strand *strand) {
    struct auto_conn *conn = strand->conn;
    struct transport *t = strand->side->t;
    return t->ops->connect(t, conn->address, conn->data_address, strand, &strand->inner);
}

/* Adds the reason why this side is not used to those of the sides before it; text: why_not or
 * why_not_now of a connection. */
static void auto_note_why_not(char text[192], const struct side *side, const char *why) {
    size_t used = strlen(text);
    snprintf(text + used, 192 - used, "%s%s: %s", used > 0 ? "; " : "", auto_name(side), why);
}

/* Dials this side or, as long as a side refuses at once, those after it; 0 or the last errno. */
static int auto_dial_from(struct auto_conn *conn, struct side *side) {
    int r = -ENOTCONN;
    for (; side != NULL; side = auto_side_after(side)) {
        conn->main.side = side;
        r = auto_dial(&conn->main);
        if (r == 0)
            return 0;
        auto_note_why_not(conn->why_not, side, strerror(-r));
    }
    return r;
}

/* ---- trying the better sides again ---- */

static void auto_stop_retrying(struct auto_conn *conn) {
    struct transport_auto *list = conn->main.side->list;
    if (!conn->is_fallen)
        return;
    LIST_REMOVE(conn, fallen);
    conn->is_fallen = false;
    if (LIST_EMPTY(&list->fallen))
        uv_timer_stop(&list->retry);
}

/* The pause doubles each time, so a cluster where one node has no RDMA is not dialled by all the
 * others every second for ever. */
static void auto_retry_later(struct auto_conn *conn) {
    uint64_t longer_ms = 2 * conn->wait_ms;
    conn->wait_ms = longer_ms < AUTO_RETRY_MAX_MS ? longer_ms : AUTO_RETRY_MAX_MS;
    conn->retry_ms = uv_now(conn->main.side->list->loop) + conn->wait_ms;
}

/* Dials the first of this side and those after it that takes the call, as long as it is better than
 * what the connection has. If none does, the round is over: its reasons are the ones to show now,
 * and the next round begins later. */
static void auto_probe_from(struct auto_conn *conn, struct side *side) {
    for (; side != NULL && side < conn->main.side; side = auto_side_after(side)) {
        conn->probe.side = side;
        int r = auto_dial(&conn->probe);
        if (r == 0)
            return;
        auto_note_why_not(conn->why_not_now, side, strerror(-r));
    }
    memcpy(conn->why_not, conn->why_not_now, sizeof conn->why_not);
    auto_retry_later(conn);
}

static void auto_on_retry(uv_timer_t *timer) {
    struct transport_auto *list = container_of(timer, struct transport_auto, retry);
    struct auto_conn *conn;
    LIST_FOREACH (conn, &list->fallen, fallen)
        if (conn->probe.inner == NULL && uv_now(list->loop) >= conn->retry_ms) {
            conn->why_not_now[0] = '\0';
            auto_probe_from(conn, &list->sides[0]);
        }
}

static void auto_start_retrying(struct auto_conn *conn) {
    struct transport_auto *list = conn->main.side->list;
    if (list->events.better == NULL) /* the owner would not move anyway */
        return;
    conn->wait_ms = AUTO_RETRY_FIRST_MS;
    conn->retry_ms = uv_now(list->loop) + conn->wait_ms;
    conn->is_fallen = true;
    LIST_INSERT_HEAD(&list->fallen, conn, fallen);
    uv_timer_start(&list->retry, auto_on_retry, AUTO_RETRY_FIRST_MS, AUTO_RETRY_FIRST_MS);
}

static void auto_on_probe_up(struct auto_conn *conn) {
    struct side *side = conn->probe.side;
    struct transport_auto *list = side->list;
    side->t->ops->close(conn->probe.inner);
    if (!conn->is_fallen)
        return; /* the connection has ended meanwhile */
    auto_stop_retrying(conn);
    log_info("connection to %s is over %s; %s works now", conn->address, auto_name(conn->main.side),
             auto_name(side));
    list->events.better(list->owner, conn->user);
}

/* A probe that was not up has failed: the next side is tried in the same round. One that was up has
 * been closed by us, and the connection is not in `fallen` any more. */
static void auto_on_probe_closed(struct auto_conn *conn, const char *why) {
    conn->probe.inner = NULL;
    if (conn->is_fallen) {
        auto_note_why_not(conn->why_not_now, conn->probe.side, why);
        auto_probe_from(conn, auto_side_after(conn->probe.side));
    }
    auto_conn_release(conn);
}

static bool auto_is_probe(const struct strand *strand) {
    return strand == &strand->conn->probe;
}

/* ---- events of the sides ---- */

/* An accepted connection stays over the side that it came by. Whether a better one works is for the
 * side that dialled to find out. */
static void *auto_on_accepted(void *owner, struct transport_conn *inner, const void *hello,
                              size_t hello_bytes) {
    struct side *side = owner;
    struct transport_auto *list = side->list;
    struct auto_conn *conn = auto_conn_new(side, NULL);
    if (conn == NULL)
        return NULL;
    conn->main.inner = inner;
    conn->up = true;
    conn->user = list->events.accepted(list->owner, &conn->handle, hello, hello_bytes);
    if (conn->user == NULL) {
        free(conn);
        return NULL;
    }
    return &conn->main;
}

static void auto_on_up(void *owner, void *user, const void *hello, size_t hello_bytes) {
    struct transport_auto *list = ((struct side *)owner)->list;
    struct strand *strand = user;
    struct auto_conn *conn = strand->conn;
    if (auto_is_probe(strand)) {
        auto_on_probe_up(conn);
        return;
    }
    conn->up = true;
    if (strand->side != &list->sides[0]) {
        log_info("connection to %s is over %s; %s", conn->address, auto_name(strand->side),
                 conn->why_not);
        auto_start_retrying(conn);
    }
    list->events.up(list->owner, conn->user, hello, hello_bytes);
}

static void auto_on_message(void *owner, void *user, const void *data, size_t bytes) {
    struct transport_auto *list = ((struct side *)owner)->list;
    struct strand *strand = user;
    if (!auto_is_probe(strand)) /* the other broker may speak before it sees the probe's end */
        list->events.message(list->owner, strand->conn->user, data, bytes);
}

static void auto_on_read_done(void *owner, void *user, void *read_user, int status) {
    struct transport_auto *list = ((struct side *)owner)->list;
    list->events.read_done(list->owner, ((struct strand *)user)->conn->user, read_user, status);
}

static void auto_on_read_progress(void *owner, void *user, void *read_user, uint64_t bytes_done,
                                  uint64_t prefix_bytes) {
    struct transport_auto *list = ((struct side *)owner)->list;
    list->events.read_progress(list->owner, ((struct strand *)user)->conn->user, read_user,
                               bytes_done, prefix_bytes);
}

/* A side did not come up: is the connection on its way again, over a later one? */
static bool auto_fall_back(struct auto_conn *conn, const char *why) {
    const struct transport_auto *list = conn->main.side->list;
    struct side *next = auto_side_after(conn->main.side);
    if (conn->up || conn->closing || next == NULL || list->on_destroyed != NULL)
        return false;
    auto_note_why_not(conn->why_not, conn->main.side, why);
    return auto_dial_from(conn, next) == 0;
}

static void auto_on_closed(void *owner, void *user, const char *why) {
    struct transport_auto *list = ((struct side *)owner)->list;
    struct strand *strand = user;
    struct auto_conn *conn = strand->conn;
    if (auto_is_probe(strand)) {
        auto_on_probe_closed(conn, why);
        return;
    }
    if (auto_fall_back(conn, why))
        return;
    conn->main.inner = NULL;
    auto_stop_retrying(conn);
    if (conn->probe.inner != NULL)
        conn->probe.side->t->ops->close(conn->probe.inner);
    list->events.closed(list->owner, conn->user, why);
    auto_conn_release(conn);
}

static const struct transport_events side_events = {
    .accepted = auto_on_accepted,
    .up = auto_on_up,
    .message = auto_on_message,
    .read_done = auto_on_read_done,
    .read_progress = auto_on_read_progress,
    .closed = auto_on_closed,
};

/* ---- listening ---- */

/* A better side beside the last one, at the port that the last one got. It may not have the address
 * (an address that no RDMA rail has, say); then peers come over the sides after it. */
static void auto_listen_too(const struct side *side, const char *address, const char *bound) {
    char with_port[320], unused[64];
    snprintf(with_port, sizeof with_port, "%.*s%s", (int)(strrchr(address, ':') - address), address,
             strrchr(bound, ':'));
    int r = side->t->ops->listen(side->t, with_port, unused);
    if (r < 0)
        log_warning("%s is not offered to peers: cannot listen at %s: %s; give [peers] listen an "
                    "address that it has (of an RDMA rail, for rdma), or 0.0.0.0",
                    auto_name(side), with_port,
                    r == -EADDRNOTAVAIL ? "it has no such address" : strerror(-r));
}

/* The last side decides on the port, because it is the one that must work: a port that is free for
 * RDMA alone would be of no use. */
static int auto_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct transport_auto *list = auto_from_base(t);
    struct transport *last = list->sides[list->count - 1].t;
    int r = last->ops->listen(last, address, bound_out);
    for (size_t i = 0; r == 0 && i + 1 < list->count; i++)
        auto_listen_too(&list->sides[i], address, bound_out);
    return r;
}

/* ---- regions ---- */

static int auto_new_region(struct transport_auto *list, uint32_t *out) {
    for (uint32_t i = 0; i < list->region_count; i++)
        if (!list->regions[i].used) {
            *out = i;
            return 0;
        }
    struct auto_region *regions =
        reallocarray(list->regions, list->region_count + 1, sizeof *regions);
    if (regions == NULL)
        return -ENOMEM;
    list->regions = regions;
    *out = list->region_count++;
    regions[*out].used = false;
    return 0;
}

/* Takes it from the first `count` sides. */
static void auto_remove_from_sides(struct transport_auto *list, const struct auto_region *region,
                                   size_t count) {
    for (size_t i = 0; i < count; i++)
        list->sides[i].t->ops->remove_region(list->sides[i].t, region->of[i]);
}

/* All sides or none: a region that one side did not have could not be read over the connections of
 * that side. */
static int auto_add_region(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out) {
    struct transport_auto *list = auto_from_base(t);
    uint32_t number;
    int r = auto_new_region(list, &number);
    if (r < 0)
        return r;
    struct auto_region *region = &list->regions[number];
    for (size_t i = 0; i < list->count; i++) {
        struct transport *side = list->sides[i].t;
        r = side->ops->add_region(side, base, bytes, &region->of[i]);
        if (r < 0) {
            auto_remove_from_sides(list, region, i);
            return r;
        }
    }
    region->used = true;
    *region_out = number;
    return 0;
}

static void auto_remove_region(struct transport *t, uint32_t number) {
    struct transport_auto *list = auto_from_base(t);
    if (number >= list->region_count || !list->regions[number].used)
        return;
    /* Copied: connections that end because of this may add regions, which moves the array. */
    struct auto_region region = list->regions[number];
    list->regions[number].used = false;
    auto_remove_from_sides(list, &region, list->count);
}

static int auto_region_key(struct transport_conn *handle, uint32_t number, void *out,
                           size_t out_bytes) {
    const struct strand *main = &auto_from_handle(handle)->main;
    const struct transport_auto *list = main->side->list;
    if (number >= list->region_count || !list->regions[number].used)
        return -ENOENT;
    return main->side->t->ops->region_key(
        main->inner, list->regions[number].of[main->side - list->sides], out, out_bytes);
}

/* ---- connections ---- */

static int auto_connect(struct transport *t, const char *address, const char *data_address,
                        void *user, struct transport_conn **out) {
    struct transport_auto *list = auto_from_base(t);
    struct auto_conn *conn = auto_conn_new(&list->sides[0], user);
    if (conn == NULL)
        return -ENOMEM;
    snprintf(conn->address, sizeof conn->address, "%s", address);
    snprintf(conn->data_address, sizeof conn->data_address, "%s", data_address);
    int r = auto_dial_from(conn, &list->sides[0]);
    if (r < 0) {
        free(conn);
        return r;
    }
    *out = &conn->handle;
    return 0;
}

static int auto_send(struct transport_conn *handle, const struct iovec *parts, int part_count) {
    struct strand *main = &auto_from_handle(handle)->main;
    return main->side->t->ops->send(main->inner, parts, part_count);
}

static int auto_read(struct transport_conn *handle, const struct transport_read *read) {
    struct strand *main = &auto_from_handle(handle)->main;
    return main->side->t->ops->read(main->inner, read);
}

static void auto_close(struct transport_conn *handle) {
    struct auto_conn *conn = auto_from_handle(handle);
    conn->closing = true; /* `closed` before `up` is not a reason to try the next side now */
    conn->main.side->t->ops->close(conn->main.inner);
}

static void auto_query(const struct transport_conn *handle, struct transport_info *out) {
    const struct auto_conn *conn = container_of(handle, struct auto_conn, handle);
    conn->main.side->t->ops->query(conn->main.inner, out);
    if (conn->why_not[0] != '\0')
        snprintf(out->detail, sizeof out->detail, "no %s", conn->why_not);
}

/* ---- birth and end ---- */

static void auto_nobody_to_tell(void *owner) {
    (void)owner;
}

static void auto_part_destroyed(struct transport_auto *list) {
    if (--list->parts_left > 0)
        return;
    void (*on_destroyed)(void *) = list->on_destroyed;
    void *whose = list->owner;
    free(list->regions);
    free(list);
    on_destroyed(whose);
}

static void auto_on_side_destroyed(void *owner) {
    auto_part_destroyed(((struct side *)owner)->list);
}

static void auto_on_timer_closed(uv_handle_t *handle) {
    auto_part_destroyed(container_of((uv_timer_t *)handle, struct transport_auto, retry));
}

static void auto_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct transport_auto *list = auto_from_base(t);
    size_t count = list->count;
    list->parts_left = count + 1;
    /* Also says that the list is being destroyed, so it is set even when nobody waits for it. */
    list->on_destroyed = on_destroyed != NULL ? on_destroyed : auto_nobody_to_tell;
    uv_close((uv_handle_t *)&list->retry, auto_on_timer_closed);
    for (size_t i = 0; i < count; i++)
        list->sides[i].t->ops->destroy(list->sides[i].t, auto_on_side_destroyed);
}

static const struct transport_ops auto_ops = {
    .name = "auto",
    .listen = auto_listen,
    .add_region = auto_add_region,
    .remove_region = auto_remove_region,
    .region_key = auto_region_key,
    .connect = auto_connect,
    .send = auto_send,
    .read = auto_read,
    .close = auto_close,
    .query = auto_query,
    .destroy = auto_destroy,
};

int transport_auto_new(uv_loop_t *loop, const struct transport_events *events, void *owner,
                       struct transport_auto **out) {
    struct transport_auto *list = calloc(1, sizeof *list);
    if (list == NULL)
        return -ENOMEM;
    list->base.ops = &auto_ops;
    list->loop = loop;
    LIST_INIT(&list->fallen);
    list->events = *events;
    list->owner = owner;
    for (size_t i = 0; i < AUTO_TRANSPORTS_MAX; i++)
        list->sides[i].list = list;
    *out = list;
    return 0;
}

const struct transport_events *transport_auto_events(void) {
    return &side_events;
}

void *transport_auto_owner(struct transport_auto *list) {
    assert(list->count < AUTO_TRANSPORTS_MAX);
    return &list->sides[list->count];
}

void transport_auto_add(struct transport_auto *list, struct transport *transport) {
    list->sides[list->count++].t = transport;
}

struct transport *transport_auto_finish(struct transport_auto *list) {
    assert(list->count > 0);
    uv_timer_init(list->loop, &list->retry);
    return &list->base;
}

/* Nobody has listened or dialled, so the sides end without a word to anybody. */
void transport_auto_abandon(struct transport_auto *list) {
    for (size_t i = 0; i < list->count; i++)
        list->sides[i].t->ops->destroy(list->sides[i].t, NULL);
    free(list->regions);
    free(list);
}
