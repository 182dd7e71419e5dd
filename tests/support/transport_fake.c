/* SPDX-License-Identifier: Apache-2.0
 *
 * One heap of events, ordered by (due, number). An event goes to one side of a connection (`end`),
 * or to a transport. A side's life: joined to its other side at the dialler's CONNECT; `ending`
 * from the moment either side closed it (nothing but END reaches its owner after that); `dead` once
 * `closed` was raised; freed when no event and no other side refers to it.
 *
 * Chunks carry no bytes: they are copied from the home's memory when they arrive, and not at all
 * when the home's side has ended, so that the simulator sees what a remote memory read would see.
 */
#include "transport_fake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "transport_regions.h"

#define NS_PER_MS 1000000u

enum event_type {
    CONNECT, /* to whoever listens there then; carries the dialler's side */
    ANSWER,  /* to a CONNECT; why: refused */
    TIMEOUT, /* own: of the handshake */
    MESSAGE,
    READ,
    READ_FAILED,
    CHUNK,
    SERVE, /* own: the last chunk has arrived */
    FIN,
    END,       /* own: report what is left, and `closed` */
    DESTROYED, /* own, of a transport */
};

enum lane { LANE_CONTROL, LANE_BULK, LANES };

struct event {
    uint64_t due_ns, number;
    enum event_type type;
    uint32_t from;         /* endpoint, to find a cut; an own event's own number */
    struct fake *to;       /* valid while `end` is not dead; NULL: a CONNECT, or nobody any more */
    struct end *end;       /* the receiver's; of a CONNECT the dialler's; NULL: DESTROYED */
    struct end *home;      /* CHUNK */
    const uint8_t *source; /* CHUNK */
    const char *why;       /* ANSWER */
    uint64_t id, offset, bytes;
    int status;
    size_t data_bytes;
    uint8_t data[]; /* message or key */
};

struct ask { /* a read of ours */
    TAILQ_ENTRY(ask) all;
    struct transport_read read;
    uint64_t id, bytes_done;
    bool sent;
    uint8_t key[];
};

struct serve { /* a read of the other side's */
    TAILQ_ENTRY(serve) turn;
    uint64_t id, offset, bytes_left;
    uint32_t region;
    const uint8_t *next;
};

struct end { /* the owner's struct transport_conn */
    struct fake *fake;
    struct end *other; /* holds a reference */
    LIST_ENTRY(end) all;
    unsigned refs;
    bool accepted_here, announced, up, ending, dead, chunk_under_way;
    void *user;
    char address[64];
    char why[128];
    int end_status;
    uint64_t lane_due_ns[LANES];
    uint64_t next_id, queued_bytes;
    uint32_t asks_sent;
    TAILQ_HEAD(, ask) asks;
    TAILQ_HEAD(serve_list, serve) serves;
    struct transport_info counters;
};

struct fake {
    struct transport base;
    struct fake_network *network;
    struct transport_options options;
    struct transport_events events;
    void *owner;
    void (*on_destroyed)(void *owner);
    uint8_t cluster_key[AUTH_KEY_BYTES], hello[TRANSPORT_HELLO_BYTES_MAX];
    struct regions regions;
    char address[64];
    uint32_t number, accepted_count;
    bool frozen, destroying;
    LIST_HEAD(, end) ends;
};

struct fake_network {
    uint64_t random, delay_ns_min, delay_ns_max, now_ns, next_number;
    uint32_t next_port;
    struct event **heap, **held; /* held: kept back by a cut or a freeze, in order of arrival */
    size_t heap_count, heap_capacity, held_count, held_capacity;
    struct fake *endpoints[FAKE_ENDPOINTS_MAX];
    uint64_t cut[FAKE_ENDPOINTS_MAX]; /* by sender; a bit per receiver */
};

static void *must(void *memory) {
    if (memory == NULL)
        abort(); /* a test's machine without memory has no history worth keeping */
    return memory;
}

static struct fake *from_base(struct transport *t) {
    return (struct fake *)t;
}

static struct end *from_handle(struct transport_conn *conn) {
    return (struct end *)conn;
}

/* ---- the heap ---- */

static bool earlier(const struct event *a, const struct event *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

static void append(struct event ***array, size_t *count, size_t *capacity, struct event *event) {
    if (*count == *capacity) {
        *capacity = *capacity * 2 + 64;
        *array = must(reallocarray(*array, *capacity, sizeof(struct event *)));
    }
    (*array)[(*count)++] = event;
}

static void heap_push(struct fake_network *n, struct event *event) {
    append(&n->heap, &n->heap_count, &n->heap_capacity, event);
    size_t at = n->heap_count - 1;
    while (at > 0 && earlier(event, n->heap[(at - 1) / 2])) {
        n->heap[at] = n->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    n->heap[at] = event;
}

static struct event *heap_pop(struct fake_network *n) {
    struct event *first = n->heap[0], *last = n->heap[--n->heap_count];
    size_t at = 0, child;
    while ((child = at * 2 + 1) < n->heap_count) {
        if (child + 1 < n->heap_count && earlier(n->heap[child + 1], n->heap[child]))
            child++;
        if (!earlier(n->heap[child], last))
            break;
        n->heap[at] = n->heap[child];
        at = child;
    }
    n->heap[at] = last;
    return first;
}

/* ---- events ---- */

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(struct fake_network *n) {
    uint64_t z = n->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t random_delay(struct fake_network *n) {
    uint64_t span = n->delay_ns_max - n->delay_ns_min;
    return n->delay_ns_min + (span > 0 ? next_random(n) % (span + 1) : 0);
}

static struct event *event_new(struct fake *fake, enum event_type type, struct end *end,
                               size_t data_bytes) {
    struct event *event = must(calloc(1, sizeof *event + data_bytes));
    event->type = type;
    event->to = fake;
    event->end = end;
    event->data_bytes = data_bytes;
    if (end != NULL)
        end->refs++;
    return event;
}

static void end_unref(struct end *end) {
    if (--end->refs == 0)
        free(end);
}

static void event_free(struct event *event) {
    if (event->end != NULL)
        end_unref(event->end);
    if (event->home != NULL)
        end_unref(event->home);
    free(event);
}

static void post(struct fake_network *n, struct event *event, uint64_t due_ns) {
    event->due_ns = due_ns;
    event->number = n->next_number++;
    heap_push(n, event);
}

static void post_own(struct end *end, enum event_type type, uint64_t delay_ns) {
    struct fake_network *n = end->fake->network;
    struct event *event = event_new(end->fake, type, end, 0);
    event->from = end->fake->number;
    post(n, event, n->now_ns + delay_ns);
}

/* To the other side, behind what went before on the same lane. */
static void post_other(struct end *end, enum lane lane, struct event *event) {
    struct fake_network *n = end->fake->network;
    uint64_t due_ns = n->now_ns + random_delay(n);
    if (due_ns < end->lane_due_ns[lane])
        due_ns = end->lane_due_ns[lane];
    end->lane_due_ns[lane] = due_ns;
    event->from = end->fake->number;
    post(n, event, due_ns);
}

static struct event *to_other(struct end *end, enum event_type type, size_t data_bytes) {
    /* A dead side's transport may be gone; what is sent to it will not happen. */
    struct fake *fake = end->other->dead ? NULL : end->other->fake;
    return event_new(fake, type, end->other, data_bytes);
}

/* ---- sides of connections ---- */

static struct end *end_new(struct fake *fake) {
    struct end *end = must(calloc(1, sizeof *end));
    end->fake = fake;
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
        post_other(end, LANE_CONTROL, to_other(end, FIN, 0));
    post_own(end, END, 0);
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
        end_unref(end->other);
    end->other = NULL;
    end_unref(end);
}

/* ---- connecting ---- */

static struct fake *find_listener(struct fake_network *n, const char *address) {
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
    struct event *event = event_new(dialler->fake, ANSWER, dialler, 0);
    event->status = status;
    event->why = why;
    event->from = by != NULL ? by->number : dialler->fake->number;
    post(n, event, n->now_ns + random_delay(n));
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
    struct fake *fake = find_listener(n, dialler->address);
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
    TAILQ_FOREACH(ask, &end->asks, all) {
        if (ask->sent)
            continue;
        if (end->asks_sent == end->fake->options.reads_per_connection)
            return;
        struct event *event = to_other(end, READ, ask->read.key_bytes);
        memcpy(event->data, ask->key, ask->read.key_bytes);
        event->id = ask->id;
        event->offset = ask->read.remote_offset;
        event->bytes = ask->read.bytes;
        post_other(end, LANE_CONTROL, event);
        ask->sent = true;
        end->asks_sent++;
    }
}

static void send_chunk(struct end *end) {
    struct serve *serve = TAILQ_FIRST(&end->serves);
    uint64_t bytes = end->fake->options.chunk_bytes;
    if (end->chunk_under_way || end->ending || serve == NULL)
        return;
    struct event *event = to_other(end, CHUNK, 0);
    event->id = serve->id;
    event->bytes = bytes < serve->bytes_left ? bytes : serve->bytes_left;
    event->source = serve->next;
    event->home = end;
    end->refs++;
    end->chunk_under_way = true;
    end->counters.read_bytes_out += event->bytes;
    serve->next += event->bytes;
    serve->bytes_left -= event->bytes;
    TAILQ_REMOVE(&end->serves, serve, turn);
    TAILQ_INSERT_TAIL(&end->serves, serve, turn);
    post_other(end, LANE_BULK, event);
}

static void on_read(struct end *end, const struct event *event) {
    struct serve *serve = must(calloc(1, sizeof *serve));
    uint8_t *at;
    int r = regions_resolve(&end->fake->regions, event->data, event->data_bytes, event->offset,
                            event->bytes, &serve->region, &at);
    if (r < 0) {
        struct event *failed = to_other(end, READ_FAILED, 0);
        failed->id = event->id;
        failed->status = r;
        post_other(end, LANE_CONTROL, failed);
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
    struct serve *last = TAILQ_LAST(&end->serves, serve_list);
    end->chunk_under_way = false;
    if (last != NULL && last->bytes_left == 0) {
        TAILQ_REMOVE(&end->serves, last, turn);
        free(last);
    }
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
    TAILQ_FOREACH(ask, &end->asks, all)
    if (ask->id == id)
        return ask;
    return must(NULL); /* the fake never answers what was not asked */
}

static void on_chunk(struct end *end, const struct event *event) {
    struct fake *fake = end->fake;
    struct ask *ask = find_ask(end, event->id);
    if (event->home->ending)
        return;
    memcpy((uint8_t *)ask->read.local + ask->bytes_done, event->source, event->bytes);
    ask->bytes_done += event->bytes;
    end->counters.read_bytes_in += event->bytes;
    post_own(event->home, SERVE, 0);
    if (ask->bytes_done == ask->read.bytes)
        finish(end, ask, 0);
    else
        fake->events.read_progress(fake->owner, end->user, ask->read.read_user, ask->bytes_done);
}

static void on_message(struct end *end, const struct event *event) {
    struct fake *fake = end->fake;
    end->counters.message_bytes_in += event->data_bytes;
    if (end->other != NULL)
        end->other->queued_bytes -= event->data_bytes;
    fake->events.message(fake->owner, end->user, event->data, event->data_bytes);
}

/* ---- the clock ---- */

static bool is_void(const struct event *event) {
    const struct end *end = event->end;
    if (end == NULL)
        return false;
    if (event->type == TIMEOUT && end->up)
        return true;
    return event->type == END ? false : end->dead || (end->ending && event->type != CONNECT);
}

static bool is_blocked(const struct fake_network *n, const struct event *event) {
    const struct fake *to = event->to;
    if (event->type == CONNECT)
        to = find_listener((struct fake_network *)n, event->end->address);
    return to != NULL && (to->frozen || n->cut[event->from] >> to->number & 1);
}

/* Takes void and blocked events off the top of the heap. */
uint64_t fake_network_next_ns(struct fake_network *n) {
    while (n->heap_count > 0) {
        struct event *first = n->heap[0];
        bool gone = is_void(first);
        if (!gone && !is_blocked(n, first))
            return first->due_ns;
        heap_pop(n);
        if (gone)
            event_free(first);
        else
            append(&n->held, &n->held_count, &n->held_capacity, first);
    }
    return UINT64_MAX;
}

static void release_held(struct fake_network *n) {
    struct event **held = n->held;
    size_t count = n->held_count;
    n->held = NULL;
    n->held_count = n->held_capacity = 0;
    for (size_t i = 0; i < count; i++)
        post(n, held[i], n->now_ns);
    free(held);
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

static void happen(struct fake_network *n, struct event *event) {
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

bool fake_network_step(struct fake_network *n) {
    uint64_t due_ns = fake_network_next_ns(n);
    if (due_ns == UINT64_MAX)
        return false;
    struct event *event = heap_pop(n);
    if (due_ns > n->now_ns)
        n->now_ns = due_ns;
    happen(n, event);
    event_free(event);
    return true;
}

uint64_t fake_network_now_ns(const struct fake_network *n) {
    return n->now_ns;
}

void fake_network_advance(struct fake_network *n, uint64_t now_ns) {
    uint64_t next_ns = fake_network_next_ns(n);
    now_ns = now_ns < next_ns ? now_ns : next_ns;
    if (now_ns > n->now_ns)
        n->now_ns = now_ns;
}

/* ---- faults ---- */

void fake_network_cut(struct transport *from, struct transport *to, bool cut) {
    struct fake_network *n = from_base(from)->network;
    uint64_t bit = UINT64_C(1) << from_base(to)->number, *bits = &n->cut[from_base(from)->number];
    *bits = cut ? *bits | bit : *bits & ~bit;
    release_held(n);
}

void fake_network_freeze(struct transport *t, bool frozen) {
    from_base(t)->frozen = frozen;
    release_held(from_base(t)->network);
}

void fake_network_drop(struct transport_conn *conn) {
    struct end *end = from_handle(conn), *other = end->other;
    end_fail(end, -ECONNRESET, "connection reset");
    if (other != NULL && !other->dead)
        end_fail(other, -ECONNRESET, "connection reset");
}

/* ---- operations ---- */

static int fake_listen(struct transport *t, const char *address, char bound_out[64]) {
    struct fake *fake = from_base(t);
    const char *colon = strrchr(address, ':');
    if (colon == NULL || strlen(address) >= sizeof fake->address)
        return -EINVAL;
    if (find_listener(fake->network, address) != NULL)
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
    struct fake *fake = from_base(t);
    return regions_add(&fake->regions, base, bytes, next_random(fake->network), region_out);
}

static bool uses_region(const struct end *end, uint32_t region) {
    const struct serve *serve;
    const struct ask *ask;
    uint32_t landing;
    TAILQ_FOREACH(serve, &end->serves, turn)
    if (serve->region == region)
        return true;
    TAILQ_FOREACH(ask, &end->asks, all)
    if (regions_find(&end->fake->regions, ask->read.local, ask->read.bytes, &landing) < 0 ||
        landing == region)
        return true;
    return false;
}

static void fake_remove_region(struct transport *t, uint32_t region) {
    struct fake *fake = from_base(t);
    struct end *end;
    LIST_FOREACH(end, &fake->ends, all)
    if (uses_region(end, region))
        end_fail(end, -ECONNABORTED, "memory was unregistered under a read");
    regions_remove(&fake->regions, region);
}

static int fake_region_key(struct transport *t, uint32_t region, void *out, size_t out_bytes) {
    return regions_key(&from_base(t)->regions, region, out, out_bytes);
}

static int fake_connect(struct transport *t, const char *address, void *user,
                        struct transport_conn **out) {
    struct fake *fake = from_base(t);
    struct fake_network *n = fake->network;
    if (fake->destroying)
        return -ESHUTDOWN;
    if (strrchr(address, ':') == NULL || strlen(address) >= sizeof fake->address)
        return -EINVAL;
    struct end *end = end_new(fake);
    end->user = user;
    end->announced = true;
    snprintf(end->address, sizeof end->address, "%s", address);
    struct event *event = event_new(NULL, CONNECT, end, 0);
    event->from = fake->number;
    post(n, event, n->now_ns + random_delay(n));
    post_own(end, TIMEOUT, (uint64_t)fake->options.handshake_timeout_ms * NS_PER_MS);
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
    struct event *event = to_other(end, MESSAGE, bytes);
    for (size_t i = 0, at = 0; i < (size_t)part_count; at += parts[i++].iov_len)
        if (parts[i].iov_len > 0)
            memcpy(event->data + at, parts[i].iov_base, parts[i].iov_len);
    end->queued_bytes += bytes;
    end->counters.message_bytes_out += bytes;
    post_other(end, LANE_CONTROL, event);
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
    struct ask *ask = must(calloc(1, sizeof *ask + read->key_bytes));
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
    TAILQ_FOREACH(ask, &end->asks, all)
    out->reads_in_flight++;
}

static void fake_destroy(struct transport *t, void (*on_destroyed)(void *owner)) {
    struct fake *fake = from_base(t);
    struct end *end;
    fake->destroying = true;
    fake->on_destroyed = on_destroyed;
    LIST_FOREACH(end, &fake->ends, all)
    end_fail(end, -ECANCELED, "%s", "");
    /* Behind every END posted so far. */
    struct event *event = event_new(fake, DESTROYED, NULL, 0);
    event->from = fake->number;
    post(fake->network, event, fake->network->now_ns);
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

/* ---- birth and end ---- */

struct fake_network *fake_network_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max) {
    struct fake_network *n = calloc(1, sizeof *n);
    if (n == NULL)
        return NULL;
    n->random = seed;
    n->delay_ns_min = delay_ns_min;
    n->delay_ns_max = delay_ns_max;
    return n;
}

void fake_network_free(struct fake_network *n) {
    release_held(n);
    while (n->heap_count > 0)
        event_free(heap_pop(n));
    free(n->heap);
    free(n->held);
    free(n);
}

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
    struct fake *fake = must(calloc(1, sizeof *fake));
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
