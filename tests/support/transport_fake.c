/* SPDX-License-Identifier: Apache-2.0
 *
 * What events do. One goes to one side of a connection (`end`), or to a transport. A side's life:
 * joined to its other side when the dialler's CONNECT arrives; `ending` from the moment either side
 * closed it (nothing but END happens to it after that); `dead` once `closed` was raised; freed when
 * no event and no other side refers to it.
 *
 * Chunks carry no bytes: they are copied from the home's memory when they arrive, and not at all
 * when the home's side has ended, so that the simulator sees what a remote memory read would see.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/transport_fake_internal.h"

#define NS_PER_MS 1000000u

static struct end *from_handle(struct transport_conn *conn) {
    return (struct end *)conn;
}
/* ---- sides of connections ---- */

static struct end *end_new(struct fake *fake) {
    struct end *end = fake_must(calloc(1, sizeof *end));
    end->fake = fake;
    end->number = fake->next_end++;
    end->refs = 1;
    TAILQ_INIT(&end->asks);
    TAILQ_INIT(&end->serves);
    end->counters.transport = "fake";
    snprintf(end->counters.local, sizeof end->counters.local, "%s", fake->address);
    LIST_INSERT_HEAD(&fake->ends, end, all);
    return end;
}

static void join(struct end *a, struct end *b) {
    a->other = b;
    b->refs++;
    b->other = a;
    a->refs++;
    memcpy(a->counters.remote, b->counters.local, sizeof a->counters.remote);
    memcpy(b->counters.remote, a->counters.local, sizeof b->counters.remote);
}

__attribute__((format(printf, 3, 4))) static void end_fail(struct end *end, int status,
                                                           const char *format, ...) {
    va_list arguments;
    if (end->ending)
        return;
    end->ending = true;
    end->end_status = status;
    va_start(arguments, format);
    vsnprintf(end->why, sizeof end->why, format, arguments);
    va_end(arguments);
    if (end->other != NULL)
        fake_post_other(end, LANE_CONTROL, fake_to_other(end, FIN, 0));
    fake_post_own(end, END, 0);
}

static void report_asks(struct end *end) {
    struct ask *ask;
    while ((ask = TAILQ_FIRST(&end->asks)) != NULL) {
        void *read_user = ask->read.read_user;
        TAILQ_REMOVE(&end->asks, ask, all);
        free(ask);
        end->fake->events.read_done(end->fake->owner, end->user, read_user, end->end_status);
    }
}

static void on_end(struct end *end) {
    struct fake *fake = end->fake;
    struct serve *serve;
    while ((serve = TAILQ_FIRST(&end->serves)) != NULL) {
        TAILQ_REMOVE(&end->serves, serve, turn);
        free(serve);
    }
    report_asks(end);
    if (end->announced)
        fake->events.closed(fake->owner, end->user, end->why);
    end->dead = true;
    LIST_REMOVE(end, all);
    fake->accepted_count -= end->accepted_here;
    if (end->other != NULL)
        fake_end_unref(end->other);
    end->other = NULL;
    fake_end_unref(end);
}

/* ---- connecting ---- */

struct fake *fake_find_listener(struct fake_network *n, const char *address) {
    for (size_t i = 0; i < FAKE_ENDPOINTS_MAX; i++) {
        struct fake *fake = n->endpoints[i];
        if (fake != NULL && !fake->destroying && strcmp(fake->address, address) == 0)
            return fake;
    }
    return NULL;
}

static const char *check_secret(const struct fake *asker, const struct fake *answerer) {
    const uint8_t *a = asker->options.cluster_key, *b = answerer->options.cluster_key;
    if (a == NULL && b == NULL)
        return NULL;
    if (a == NULL)
        return "the other side requires a cluster secret, none is configured here";
    if (b == NULL)
        return "a cluster secret is configured here but not on the other side";
    return memcmp(a, b, AUTH_KEY_BYTES) == 0 ? NULL : "wrong cluster secret";
}

static struct event *answer(struct end *dialler, const struct fake *by, int status,
                            const char *why) {
    struct fake_network *n = dialler->fake->network;
    struct event *event = fake_event_new(dialler->fake, ANSWER, dialler, 0);
    event->status = status;
    event->why = why;
    event->from = by != NULL ? by->number : dialler->fake->number;
    fake_post(n, event, n->now_ns + fake_random_delay(n));
    return event;
}

static void accept_dialler(struct fake *fake, struct end *dialler) {
    struct end *end = end_new(fake);
    end->accepted_here = end->up = true;
    fake->accepted_count++;
    join(dialler, end);
    /* Before anything that the owner sends from within `accepted`. */
    struct event *yes = answer(dialler, fake, 0, NULL);
    end->lane_due_ns[LANE_CONTROL] = end->lane_due_ns[LANE_BULK] = yes->due_ns;
    end->user = fake->events.accepted(fake->owner, (struct transport_conn *)end,
                                      dialler->fake->hello, dialler->fake->options.hello_bytes);
    end->announced = end->user != NULL;
    if (end->announced)
        return;
    yes->status = -ECONNREFUSED;
    yes->why = "the other side refused this broker";
    end_fail(end, -ECONNREFUSED, "refused");
}

static void on_connect(struct fake_network *n, struct end *dialler) {
    struct fake *fake = fake_find_listener(n, dialler->address);
    if (dialler->ending)
        return;
    if (fake == NULL) {
        answer(dialler, NULL, -ECONNREFUSED, "connection refused");
        return;
    }
    const char *why = check_secret(dialler->fake, fake);
    if (why == NULL && fake->accepted_count >= fake->options.connections_max)
        why = "the other side has reached its limit of connections";
    if (why != NULL)
        answer(dialler, fake, -ECONNREFUSED, why);
    else
        accept_dialler(fake, dialler);
}

static void on_answer(struct end *end, const struct event *event) {
    struct fake *fake = end->fake;
    if (event->why != NULL) {
        end_fail(end, event->status, "connect to %s: %s", end->address, event->why);
        return;
    }
    /* The other side may have come and gone meanwhile; its FIN is on its way. */
    end->up = true;
    const struct fake *other = end->other->fake;
    bool gone = end->other->dead;
    fake->events.up(fake->owner, end->user, gone ? NULL : other->hello,
                    gone ? 0 : other->options.hello_bytes);
}

static void on_timeout(struct end *end) {
    if (!end->up)
        end_fail(end, -ETIMEDOUT, "handshake timed out after %" PRIu32 " ms",
                 end->fake->options.handshake_timeout_ms);
}

/* ---- reads ---- */

static void send_asks(struct end *end) {
    struct ask *ask;
    TAILQ_FOREACH (ask, &end->asks, all) {
        if (ask->sent)
            continue;
        if (end->asks_sent == end->fake->options.reads_per_connection)
            return;
        struct event *event = fake_to_other(end, READ, ask->read.key_bytes);
        memcpy(event->data, ask->key, ask->read.key_bytes);
        event->id = ask->id;
        event->offset = ask->read.remote_offset;
        event->bytes = ask->read.bytes;
        fake_post_other(end, LANE_CONTROL, event);
        ask->sent = true;
        end->asks_sent++;
    }
}

static void send_chunk(struct end *end) {
    struct serve *serve = TAILQ_FIRST(&end->serves);
    uint64_t bytes = end->fake->options.chunk_bytes;
    if (end->sending != NULL || end->ending || serve == NULL)
        return;
    struct event *event = fake_to_other(end, CHUNK, 0);
    event->id = serve->id;
    event->bytes = bytes < serve->bytes_left ? bytes : serve->bytes_left;
    event->source = serve->next;
    event->home = end;
    end->refs++;
    end->sending = serve;
    end->counters.read_bytes_out += event->bytes;
    serve->next += event->bytes;
    serve->bytes_left -= event->bytes;
    fake_post_other(end, LANE_BULK, event);
}

static void on_read(struct end *end, const struct event *event) {
    struct serve *serve = fake_must(calloc(1, sizeof *serve));
    uint8_t *at;
    int r = regions_resolve(&end->fake->regions, end->number, event->data, event->data_bytes,
                            event->offset, event->bytes, &serve->region, &at);
    if (r < 0) {
        struct event *failed = fake_to_other(end, READ_FAILED, 0);
        failed->id = event->id;
        failed->status = r;
        fake_post_other(end, LANE_CONTROL, failed);
        free(serve);
        return;
    }
    serve->id = event->id;
    serve->bytes_left = event->bytes;
    serve->next = at;
    TAILQ_INSERT_TAIL(&end->serves, serve, turn);
    send_chunk(end);
}

static void on_serve(struct end *end) {
    struct serve *served = end->sending;
    end->sending = NULL;
    TAILQ_REMOVE(&end->serves, served, turn);
    if (served->bytes_left > 0)
        TAILQ_INSERT_TAIL(&end->serves, served, turn);
    else
        free(served);
    send_chunk(end);
}

static void finish(struct end *end, struct ask *ask, int status) {
    struct fake *fake = end->fake;
    void *read_user = ask->read.read_user;
    TAILQ_REMOVE(&end->asks, ask, all);
    end->asks_sent--;
    free(ask);
    send_asks(end);
    fake->events.read_done(fake->owner, end->user, read_user, status);
}

static struct ask *find_ask(struct end *end, uint64_t id) {
    struct ask *ask;
    TAILQ_FOREACH (ask, &end->asks, all)
        if (ask->id == id)
            return ask;
    return fake_must(NULL); /* the fake never answers what was not asked */
}

static void on_chunk(struct end *end, const struct event *event) {
    struct fake *fake = end->fake;
    struct ask *ask = find_ask(end, event->id);
    if (event->home->ending)
        return;
    memcpy((uint8_t *)ask->read.local + ask->bytes_done, event->source, event->bytes);
    ask->bytes_done += event->bytes;
    end->counters.read_bytes_in += event->bytes;
    fake_post_own(event->home, SERVE, 0);
    if (ask->bytes_done == ask->read.bytes)
        finish(end, ask, 0);
    else
        fake->events.read_progress(fake->owner, end->user, ask->read.read_user, ask->bytes_done,
                                   ask->bytes_done);
}

static void on_message(struct end *end, const struct event *event) {
    struct fake *fake = end->fake;
    end->counters.message_bytes_in += event->data_bytes;
    if (end->other != NULL)
        end->other->queued_bytes -= event->data_bytes;
    fake->events.message(fake->owner, end->user, event->data, event->data_bytes);
}
static void forget(struct fake *fake) {
    void (*on_destroyed)(void *) = fake->on_destroyed;
    void *owner = fake->owner;
    fake->network->endpoints[fake->number] = NULL;
    regions_deinit(&fake->regions);
    free(fake);
    if (on_destroyed != NULL)
        on_destroyed(owner);
}

void fake_happen(struct fake_network *n, struct event *event) {
    switch (event->type) {
    case CONNECT:
        on_connect(n, event->end);
        break;
    case ANSWER:
        on_answer(event->end, event);
        break;
    case TIMEOUT:
        on_timeout(event->end);
        break;
    case MESSAGE:
        on_message(event->end, event);
        break;
    case READ:
        on_read(event->end, event);
        break;
    case READ_FAILED:
        finish(event->end, find_ask(event->end, event->id), event->status);
        break;
    case CHUNK:
        on_chunk(event->end, event);
        break;
    case SERVE:
        on_serve(event->end);
        break;
    case FIN:
        end_fail(event->end, -ECONNRESET, "the other side closed the connection");
        break;
    case END:
        on_end(event->end);
        break;
    case DESTROYED:
        forget(event->to);
        break;
    }
}

void fake_network_drop(struct transport_conn *conn) {
    struct end *end = from_handle(conn), *other = end->other;
    end_fail(end, -ECONNRESET, "connection reset");
    if (other != NULL && !other->dead)
        end_fail(other, -ECONNRESET, "connection reset");
}

static void drop_half(struct end *end) {
    if (end->ending)
        return;
    end->ending = true;
    end->end_status = -ECONNRESET;
    snprintf(end->why, sizeof end->why, "connection reset");
    fake_post_own(end, END, 0);
}

bool fake_network_drop_nth(struct transport *t, uint32_t number, bool half) {
    struct fake *fake = fake_from_base(t);
    uint32_t count = 0;
    struct end *end;
    LIST_FOREACH (end, &fake->ends, all)
        count++;
    if (count == 0)
        return false;
    end = LIST_FIRST(&fake->ends);
    for (number %= count; number > 0; number--)
        end = LIST_NEXT(end, all);
    if (half)
        drop_half(end);
    else
        fake_network_drop((struct transport_conn *)end);
    return true;
}

void fake_network_kill(struct transport *t, bool silent) {
    struct fake *fake = fake_from_base(t);
    struct end *end;
    fake->destroying = fake->killed = true;
    while ((end = LIST_FIRST(&fake->ends)) != NULL) {
        if (!end->ending && end->other != NULL && !silent)
            fake_post_other(end, LANE_CONTROL, fake_to_other(end, FIN, 0));
        if (!end->ending)
            end->end_status = -ECANCELED;
        end->ending = true;
        on_end(end);
    }
}

/* ---- operations ---- */

static int fake_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct fake *fake = fake_from_base(t);
    const char *colon = strrchr(address, ':');
    if (colon == NULL || strlen(address) >= sizeof fake->address)
        return -EINVAL;
    if (fake_find_listener(fake->network, address) != NULL)
        return -EADDRINUSE;
    if (strcmp(colon, ":0") == 0)
        snprintf(fake->address, sizeof fake->address, "%.*s:%" PRIu32, (int)(colon - address),
                 address, ++fake->network->next_port);
    else
        snprintf(fake->address, sizeof fake->address, "%s", address);
    memcpy(bound_out, fake->address, sizeof fake->address);
    return 0;
}

static int fake_add_region(struct transport *t, void *base, uint64_t bytes, uint32_t *region_out) {
    struct fake *fake = fake_from_base(t);
    return regions_add(&fake->regions, base, bytes, fake_random(fake->network), region_out);
}

static bool uses_region(const struct end *end, uint32_t region) {
    const struct serve *serve;
    const struct ask *ask;
    uint32_t landing;
    TAILQ_FOREACH (serve, &end->serves, turn)
        if (serve->region == region)
            return true;
    TAILQ_FOREACH (ask, &end->asks, all)
        if (regions_find(&end->fake->regions, ask->read.local, ask->read.bytes, &landing) < 0 ||
            landing == region)
            return true;
    return false;
}

static void fake_remove_region(struct transport *t, uint32_t region) {
    struct fake *fake = fake_from_base(t);
    struct end *end;
    LIST_FOREACH (end, &fake->ends, all)
        if (uses_region(end, region))
            end_fail(end, -ECONNABORTED, "memory was unregistered under a read");
    regions_remove(&fake->regions, region);
}

static int fake_region_key(struct transport_conn *conn, uint32_t region, void *out,
                           size_t out_bytes) {
    const struct end *end = from_handle(conn);
    return regions_key(&end->fake->regions, end->number, region, out, out_bytes);
}

static int fake_connect(struct transport *t, const char *address, const char *data_address,
                        void *user, struct transport_conn **out) {
    (void)data_address; /* one way for everything */
    struct fake *fake = fake_from_base(t);
    struct fake_network *n = fake->network;
    if (fake->destroying)
        return -ESHUTDOWN;
    if (strrchr(address, ':') == NULL || strlen(address) >= sizeof fake->address)
        return -EINVAL;
    struct end *end = end_new(fake);
    end->user = user;
    end->announced = true;
    snprintf(end->address, sizeof end->address, "%s", address);
    struct event *event = fake_event_new(NULL, CONNECT, end, 0);
    event->from = fake->number;
    fake_post(n, event, n->now_ns + fake_random_delay(n));
    fake_post_own(end, TIMEOUT, (uint64_t)fake->options.handshake_timeout_ms * NS_PER_MS);
    *out = (struct transport_conn *)end;
    return 0;
}

static int fake_send(struct transport_conn *conn, const struct iovec *parts, int part_count) {
    struct end *end = from_handle(conn);
    size_t bytes = 0;
    if (!end->up || end->ending)
        return -ENOTCONN;
    if (part_count < 0 || part_count > (int)TRANSPORT_PARTS_MAX)
        return -EMSGSIZE;
    for (int i = 0; i < part_count; i++) {
        if (parts[i].iov_len > TRANSPORT_MESSAGE_BYTES_MAX - bytes)
            return -EMSGSIZE;
        bytes += parts[i].iov_len;
    }
    if (end->queued_bytes > 0 && end->queued_bytes + bytes > end->fake->options.send_queue_bytes)
        return -ENOBUFS;
    struct event *event = fake_to_other(end, MESSAGE, bytes);
    for (size_t i = 0, at = 0; i < (size_t)part_count; at += parts[i++].iov_len)
        if (parts[i].iov_len > 0)
            memcpy(event->data + at, parts[i].iov_base, parts[i].iov_len);
    end->queued_bytes += bytes;
    end->counters.message_bytes_out += bytes;
    fake_post_other(end, LANE_CONTROL, event);
    return 0;
}

static int fake_read(struct transport_conn *conn, const struct transport_read *read) {
    struct end *end = from_handle(conn);
    uint32_t landing;
    if (!end->up || end->ending)
        return -ENOTCONN;
    if (read->key_bytes == 0 || read->key_bytes > TRANSPORT_KEY_BYTES_MAX)
        return -EINVAL;
    int r = regions_find(&end->fake->regions, read->local, read->bytes, &landing);
    if (r < 0)
        return r;
    struct ask *ask = fake_must(calloc(1, sizeof *ask + read->key_bytes));
    ask->read = *read;
    memcpy(ask->key, read->key, read->key_bytes);
    ask->id = end->next_id++;
    TAILQ_INSERT_TAIL(&end->asks, ask, all);
    send_asks(end);
    return 0;
}

static void fake_close(struct transport_conn *conn) {
    end_fail(from_handle(conn), -ECANCELED, "%s", "");
}

static void fake_query(const struct transport_conn *conn, struct transport_info *out) {
    const struct end *end = (const struct end *)conn;
    const struct ask *ask;
    *out = end->counters;
    out->send_queued_bytes = end->queued_bytes;
    TAILQ_FOREACH (ask, &end->asks, all)
        out->reads_in_flight++;
}

static void fake_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct fake *fake = fake_from_base(t);
    struct end *end;
    fake->destroying = true;
    fake->on_destroyed = on_destroyed;
    LIST_FOREACH (end, &fake->ends, all)
        end_fail(end, -ECANCELED, "%s", "");
    if (fake->killed) {
        forget(fake);
        return;
    }
    /* Behind every END posted so far. */
    struct event *event = fake_event_new(fake, DESTROYED, NULL, 0);
    event->from = fake->number;
    fake_post(fake->network, event, fake->network->now_ns);
}

static const struct transport_ops fake_ops = {
    .name = "fake",
    .listen = fake_listen,
    .add_region = fake_add_region,
    .remove_region = fake_remove_region,
    .region_key = fake_region_key,
    .connect = fake_connect,
    .send = fake_send,
    .read = fake_read,
    .close = fake_close,
    .query = fake_query,
    .destroy = fake_destroy,
};
static int find_number(const struct fake_network *n, uint32_t *number_out) {
    for (uint32_t i = 0; i < FAKE_ENDPOINTS_MAX; i++)
        if (n->endpoints[i] == NULL) {
            *number_out = i;
            return 0;
        }
    return -ENOSPC;
}

int fake_transport_new(struct fake_network *n, const struct transport_options *options,
                       const struct transport_events *events, void *owner, struct transport **out) {
    uint32_t number;
    if (options->hello_bytes > TRANSPORT_HELLO_BYTES_MAX || options->chunk_bytes == 0 ||
        options->reads_per_connection == 0)
        return -EINVAL;
    int r = find_number(n, &number);
    if (r < 0)
        return r;
    struct fake *fake = fake_must(calloc(1, sizeof *fake));
    fake->base.ops = &fake_ops;
    fake->network = n;
    fake->options = *options;
    fake->events = *events;
    fake->owner = owner;
    fake->number = number;
    if (options->cluster_key != NULL)
        fake->options.cluster_key = memcpy(fake->cluster_key, options->cluster_key, AUTH_KEY_BYTES);
    if (options->hello_bytes > 0)
        memcpy(fake->hello, options->hello, options->hello_bytes);
    LIST_INIT(&fake->ends);
    n->endpoints[number] = fake;
    n->cut[number] = 0;
    for (size_t i = 0; i < FAKE_ENDPOINTS_MAX; i++)
        n->cut[i] &= ~(UINT64_C(1) << number);
    *out = &fake->base;
    return 0;
}
