/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker as a whole: sessions, the pump that moves everything on after each batch of events,
 * and its making and unmaking.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "requests/requests.h"

#define GC_SLOTS_PER_TURN 4096u
#define PUMP_ROUNDS_MAX   64u
/* Items ended and effects: some 5 ms together, however much fails or ends at one moment. */
#define WORK_PER_TURN     512u
#define EFFECTS_PER_STORE 128u
/* Deadlines that are carried out in one run, of which a turn has two. What costs most is to end an
 * item of a request, some 10 us. */
#define DUE_PER_RUN 256u

/* ---- making ---- */

/* For deadlines that only have to wake the loop: broker_pump() asks whoever is due in every turn.
 */
static void broker_on_wake(struct deadline *deadline, uint64_t now_ns) {
    (void)deadline, (void)now_ns;
}

/* Only takes note: collecting has its place in the turn, before the effects that it causes. */
static void broker_on_collect(struct deadline *collect, uint64_t now_ns) {
    (void)now_ns;
    container_of(collect, struct broker, collect)->collect_due = true;
}

/* What other folders keep with the broker is made here too, and freed in broker_free() in the
 * reverse order. */
int broker_new(const struct broker_options *options, struct broker **out) {
    struct broker *broker = calloc(1, sizeof *broker);
    if (!broker || bump_init(&broker->bump, BUMP_SPEC_BYTES) < 0) {
        free(broker);
        return -ENOMEM;
    }
    broker->options = *options;
    if (!broker->options.landed_grain_bytes)
        broker->options.landed_grain_bytes = LANDED_GRAIN_BYTES_DEFAULT;
    broker->config = options->config;
    broker->account.limit_bytes = options->config->max_resident_bytes;
    broker->limits = options->config->limits;
    accounts_init(broker);
    TAILQ_INIT(&broker->sessions);
    LIST_INIT(&broker->owners);
    TAILQ_INIT(&broker->leavings);
    deadline_init(&broker->collect, broker_on_collect);
    deadline_init(&broker->directory_due, broker_on_wake);
    broker->requests = requests_new();
    broker->exchange = broker->requests ? exchange_new(broker) : NULL;
    if (!broker->exchange) {
        requests_free(broker->requests);
        bump_deinit(&broker->bump);
        free(broker);
        return -ENOMEM;
    }
    *out = broker;
    return 0;
}

int broker_attach(struct broker *broker, uint64_t now_ns, char *why, size_t why_bytes) {
    broker->now_ns = now_ns;
    return kept_open(broker, now_ns, why, why_bytes);
}

uint64_t broker_incarnation(const struct broker *broker) {
    return broker->options.incarnation;
}

struct directory_kept *broker_directory_kept(const struct broker *broker) {
    return kept_directory(broker);
}

struct deadlines *broker_deadlines(struct broker *broker) {
    return &broker->deadlines;
}

void broker_connect(struct broker *broker, struct peers *peers, struct transport *transport,
                    struct directory *directory) {
    broker->peers = peers;
    broker->transport = transport;
    broker->directory = directory;
}

/* The secret itself is kept nowhere: a key is derived from it, bound to the name of the store, and
 * the buffers are overwritten. */
static int broker_open_configured(struct broker *broker, const struct config_store *config,
                                  char *why, size_t why_bytes) {
    uint8_t secret[4096], key[AUTH_KEY_BYTES];
    struct space *space;
    if (!*config->secret_file)
        return space_create(broker, config, NULL, &space, why, why_bytes);
    int secret_bytes =
        config_read_secret(config->secret_file, secret, sizeof secret, why, why_bytes);
    if (secret_bytes < 0)
        return secret_bytes;
    auth_store_key(config->name, secret, (size_t)secret_bytes, key);
    explicit_bzero(secret, sizeof secret);
    int result = space_create(broker, config, key, &space, why, why_bytes);
    explicit_bzero(key, sizeof key);
    return result;
}

int broker_open_stores(struct broker *broker, char *why, size_t why_bytes) {
    for (size_t i = 0; i < broker->config->store_count; i++) {
        int result = broker_open_configured(broker, &broker->config->stores[i], why, why_bytes);
        if (result < 0)
            return result;
    }
    int result = spaces_recall(broker, why, why_bytes);
    if (result < 0)
        return result;
    exchange_recall(broker);
    if (kept_memory_restarts(broker->kept) && sessions_recall(broker) < 0) {
        snprintf(why, why_bytes, "no memory to recall the sessions of before");
        return -ENOMEM;
    }
    return 0;
}

/* Stores are freed between the two steps of the exchange: what is under way there names stores, and
 * leases on landing copies that end with a store name remote leases. */
void broker_free(struct broker *broker) {
    if (!broker)
        return;
    exchange_end(broker);
    spaces_leavings_free(broker);
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used)
            space_free(broker, &broker->spaces[i]);
    exchange_free(broker);
    requests_free(broker->requests);
    accounts_deinit(broker);
    kept_memory_free(broker->kept);
    bump_deinit(&broker->bump);
    free(broker);
}

/* From here on nothing is sent to peers; what was pending at them is forgotten, for it ends with
 * this node in any case. */
void broker_release_peers(struct broker *broker) {
    exchange_release_peers(broker);
    broker->transport = NULL; /* gone, and its regions with it */
}

/* ---- events of peers and the directory ---- */

const struct peers_events broker_peers_events = {
    .link_up = outbox_on_link_up,
    .asker_open = serve_open,
    .asker_request = serve_request,
    .asker_closed = serve_closed,
};

const struct directory_events broker_directory_events = {
    .node_up = members_on_up,
    .node_down = members_on_down,
    .fenced = members_on_fenced,
    .reconcile = reconcile,
    .name_taken = twin_on_name_taken,
};

/* ---- the pump ---- */

/* An effect is what the store could not do by itself: telling somebody who waited, removing a
 * record, or telling a home that a lease on its sample has ended. The tag of an effect is the
 * waiter that the store was given. */
static void broker_carry_out(struct broker *broker, struct space *space,
                             const struct store_effect *effect) {
    struct waiter *waiter = (struct waiter *)(uintptr_t)effect->tag;
    switch (effect->kind) {
    case STORE_EFFECT_PUT:
    case STORE_EFFECT_LAND:
    case STORE_EFFECT_GET:
        waiter->granted(waiter, effect);
        break;
    case STORE_EFFECT_RETIRED:
        publish_retired(broker, space, effect->sample_id, effect->generation, effect->reason);
        break;
    case STORE_EFFECT_LEASE_ENDED:
        outbox_release(broker, effect->cookie, effect->how == STORE_CONSUMED_BY_READER);
        break;
    }
}

static bool broker_has_worked_enough(const struct broker *broker) {
    return broker->turn_work >= WORK_PER_TURN;
}

/* A store that has much to do leaves the others some of the turn. */
static bool broker_pump_store(struct broker *broker, struct space *space) {
    struct store_effect effect;
    bool moved = false;
    for (uint32_t i = 0; i < EFFECTS_PER_STORE && !broker_has_worked_enough(broker); i++) {
        if (!store_next_effect(space->store, broker->now_ns, &effect))
            return moved;
        broker_carry_out(broker, space, &effect);
        broker->effects_done++;
        broker->turn_work++;
        moved = true;
    }
    return true; /* there may be more */
}

/* The store that comes first changes from turn to turn, so that the others are not always those
 * whose effects have to wait. */
static bool broker_pump_stores(struct broker *broker) {
    bool moved = false;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct space *space = &broker->spaces[(broker->first_space + i) % broker->space_end];
        if (space->used)
            moved |= broker_pump_store(broker, space);
    }
    return moved;
}

/* What one effect sets free may let another go on. Bounded: what is left when the turn has done its
 * part comes with the next one, which follows at once. A chain of effects, such as room that was
 * freed and lets a put on, which lets the next one on, is followed within the turn, up to the
 * bounds above. */
static void broker_pump_effects(struct broker *broker, uint64_t now_ns) {
    struct directory *directory = broker->directory;
    bool settled = false;
    for (uint32_t round = 0; round < PUMP_ROUNDS_MAX && !broker_has_worked_enough(broker);
         round++) {
        directory->ops->tick(directory, now_ns);
        if (!broker_pump_stores(broker) && directory->ops->next_deadline_ns(directory) > now_ns) {
            settled = true;
            break;
        }
    }
    broker->unfinished |= !settled;
    broker->first_space++;
}

/* A producer that is slower than max_reserve loses its room; the operator should see that in the
 * log of the node, not only in the producer's. */
static void broker_log_ended_reservations(struct space *space) {
    uint64_t ended = store_reserves_ended(space->store);
    char bound[32];
    if (ended != space->reserves_ended_logged)
        log_warning("store %s: %llu reservations ended after max_reserve = %s without a commit",
                    space->name, (unsigned long long)(ended - space->reserves_ended_logged),
                    log_duration(space->settings.max_reserve_ms, bound));
    space->reserves_ended_logged = ended;
}

static void broker_log_gc(struct space *space) {
    if (space->gc_freed)
        log_info("store %s: gc freed %llu samples older than %llu ms", space->name,
                 (unsigned long long)space->gc_freed,
                 (unsigned long long)space->settings.max_hold_ms);
    space->gc_freed = 0;
}

/* True: the pass through this store is not at its end. The budget is shared by the stores: a turn
 * looks at some 4096 slots however many stores there are. */
static bool broker_collect_space(struct broker *broker, struct space *space, uint32_t budget) {
    broker_log_ended_reservations(space);
    if (!space->settings.max_hold_ms || requests_have_gc(broker))
        return false;
    space->gc_freed +=
        store_gc(space->store, space->settings.max_hold_ms * NS_PER_MS, broker->now_ns, budget);
    if (store_gc_goes_on(space->store))
        return true;
    broker_log_gc(space);
    return false;
}

/* True when it was time for it: dropped stores may be freed too, once their effects are out. *more:
 * it has done its part of a turn, and there is more. */
static bool broker_collect(struct broker *broker, bool *more) {
    if (!broker->collect_due)
        return false;
    broker->collect_due = false;
    broker->collected_ns = broker->now_ns;
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used)
            *more |= broker_collect_space(broker, &broker->spaces[i],
                                          GC_SLOTS_PER_TURN / broker->space_end + 1);
    return true;
}

/* Without max_hold, dropped stores and ended reservations nothing has to be done at intervals, and
 * an idle node does not wake for it. */
static bool broker_has_to_collect(const struct space *space) {
    return space->settings.max_hold_ms || space->dropped ||
           store_reserves_ended(space->store) != space->reserves_ended_logged;
}

/* Stores and the directory keep deadlines of their own, and their state has changed in this turn:
 * each of them is represented in the heap by one deadline, which is set anew here. */
static void broker_schedule(struct broker *broker) {
    const struct directory *directory = broker->directory;
    bool collects = false;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct space *space = &broker->spaces[i];
        if (!space->used)
            continue;
        uint64_t due_ns = store_next_deadline_ns(space->store);
        deadlines_set_or_clear(&broker->deadlines, &space->store_due, due_ns);
        collects |= broker_has_to_collect(space);
    }
    deadlines_set_or_clear(&broker->deadlines, &broker->directory_due,
                           directory->ops->next_deadline_ns(directory));
    if (collects && !broker->collect.queued)
        deadlines_set(&broker->deadlines, &broker->collect,
                      broker->collected_ns + broker->config->gc_interval_ms * NS_PER_MS);
}

/* One turn. What is due comes first, for it sets free what the effects of the stores then carry on;
 * the deadlines that the turn itself has set for now come last, so that releases, for example,
 * leave in one message with the others of the turn. */
void broker_pump(struct broker *broker, uint64_t now_ns) {
    broker->now_ns = now_ns;
    if (!broker->started_ns)
        broker->started_ns = now_ns;
    broker->turn_work = 0;
    broker->unfinished = false;
    peers_begin_turn(broker->peers, now_ns);
    deadlines_run(&broker->deadlines, now_ns, DUE_PER_RUN);
    bool more = false, collected = broker_collect(broker, &more);
    broker->unfinished |= spaces_leave_on(broker);
    broker_pump_effects(broker, now_ns);
    broker->unfinished |= requests_gc_on(broker);
    if (collected) {
        more |= spaces_reap(broker, serve_leave_space);
        broker->unfinished |= more;
        if (more)
            deadlines_set(&broker->deadlines, &broker->collect, now_ns);
    }
    keep_flush(broker->options.keep);
    twin_pump(broker);
    deadlines_run(&broker->deadlines, now_ns, DUE_PER_RUN);
    requests_check_drains(broker);
    requests_pump_events(broker);
    broker_schedule(broker);
    broker->unfinished |= broker->collect_due; /* by a store that was dropped in this turn */
}

uint64_t broker_next_deadline_ns(const struct broker *broker) {
    return broker->unfinished ? 0 : deadlines_next_ns(&broker->deadlines);
}

/* ---- steering by the daemon ---- */

void broker_begin_drain(struct broker *broker) {
    broker->draining = true;
}

/* An effect that is queued is work that is not done: the end of a lease that a home waits for, for
 * example. */
static bool broker_has_effects(const struct broker *broker) {
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used && store_has_effect(broker->spaces[i].store))
            return true;
    return false;
}

static void broker_add_totals(const struct broker *broker, struct store_totals *sum) {
    *sum = (struct store_totals){0};
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct store_totals totals;
        if (!broker->spaces[i].used)
            continue;
        store_totals(broker->spaces[i].store, &totals);
        sum->leases += totals.leases;
        sum->reservations += totals.reservations;
    }
}

/* What a broker that is to stop waits for: nobody holds anything here, and others know all they
 * should. */
bool broker_is_idle(const struct broker *broker) {
    struct store_totals sum;
    broker_add_totals(broker, &sum);
    return !sum.leases && !sum.reservations && !outbox_pending(broker) &&
           !broker_has_effects(broker) && !broker->directory->ops->pending(broker->directory);
}

void broker_describe_load(const struct broker *broker, char *out, size_t out_bytes) {
    struct store_totals sum;
    broker_add_totals(broker, &sum);
    snprintf(out, out_bytes,
             "%llu leases, %llu reservations, %llu releases pending, %llu records that the "
             "directory has not confirmed",
             (unsigned long long)sum.leases, (unsigned long long)sum.reservations,
             (unsigned long long)outbox_pending(broker),
             (unsigned long long)broker->directory->ops->pending(broker->directory));
}

uint64_t broker_request_count(const struct broker *broker) {
    return broker->request_count;
}

void broker_prefaulted(struct broker *broker, const struct arena *arena, uint64_t bytes) {
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used && &broker->spaces[i].arena == arena)
            broker->spaces[i].prefaulted_bytes = bytes;
}

/* Only what can change while samples are there. Sizes of stores cannot: clients have mapped them.
 */
void broker_reconfigure(struct broker *broker, const struct config *config) {
    broker->config = config;
    broker->options.config = config;
    broker->account.limit_bytes = config->max_resident_bytes;
    broker->limits = config->limits;
    for (size_t i = 0; i < config->store_count; i++) {
        const struct config_store *store = &config->stores[i];
        struct space *space = space_find(broker, store->name);
        if (!space)
            continue;
        space->allow_uids = store->allow_uids;
        space->writer_uids = store->writer_uids;
        space->settings.policy = (Fb__Policy)store->policy;
        space->settings.readers = store->readers;
        space->settings.max_hold_ms = store->max_hold_ms;
        space_set_bounds(space, store);
        store_set_policy(space->store, (enum store_policy)store->policy, store->readers,
                         store->max_hold_ms * NS_PER_MS);
    }
    sweep_reconfigured(broker);
}

/* ---- requests ---- */

/* now_ns comes from the caller, whose clock may lag behind that of the last turn: the time of the
 * broker never goes back. */
bool broker_session_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                            const Fb__ClientRequest *message, const uint8_t *payload,
                            size_t payload_bytes, uint64_t now_ns, const char **why) {
    struct broker *broker = session->broker;
    struct request request = {.session = session,
                              .request_id = request_id,
                              .wants_reply = wants_reply,
                              .message = message,
                              .payload = payload,
                              .payload_bytes = payload_bytes};
    broker->now_ns = now_ns > broker->now_ns ? now_ns : broker->now_ns;
    broker->request_count++;
    session->last_ns = broker->now_ns;
    bool proper = requests_begin(&request);
    *why = request.breach;
    return proper;
}
