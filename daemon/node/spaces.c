/* SPDX-License-Identifier: Apache-2.0
 *
 * The stores of this node: arena, index block and settings together.
 *
 *   unused --space_create()--> used --space_drop()--> dropped --space_reap()--> unused
 *
 * A dropped store refuses everything new. It is freed when its last lease, ask and attachment is
 * gone, and when all its effects have been carried out: one that is queued may be the end of a
 * lease that a home waits for, the record of a sample, or the answer to a peer. Whatever may be
 * much work, such as retiring all samples or giving the memory back to the kernel, is done in
 * parts, a part in each turn of the loop, so that nobody waits long meanwhile. A store of the same
 * name can be created before that: it takes another slot, and the dropped one is not found by its
 * name any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node/node.h"

#define PAGE_BYTES 4096ull

/* In one turn of the loop. */
#define DROP_SLOTS      4096u
#define LEAVE_HOLDINGS  1024u
#define GIVE_BACK_BYTES (32ull << 20)

/* A holder whose session or connection is gone. */
struct leaving {
    TAILQ_ENTRY(leaving) link;
    struct space *space;
    struct account *account;
    uint32_t holder;
};

/* By name, as requests of peers and records of the index name stores; sessions use handles. */
struct space *space_find(struct broker *broker, const char *name) {
    for (uint32_t i = 0; i < broker->space_end; i++) {
        struct space *space = &broker->spaces[i];
        if (space->used && !space->dropped && !strcmp(space->name, name))
            return space;
    }
    return NULL;
}

/* Slots up to this one count from now on, used or not. */
static struct space *spaces_slot(struct broker *broker, uint32_t slot) {
    for (; broker->space_end <= slot; broker->space_end++)
        broker->spaces[broker->space_end].index = broker->space_end;
    return &broker->spaces[slot];
}

/* Slots are found by going through them: there are 256 at most, and stores are made rarely. Dropped
 * stores count as used until they are freed, for their memory is still there. */
static struct space *spaces_unused_slot(struct broker *broker) {
    uint32_t used = 0;
    struct space *slot = NULL;
    for (uint32_t i = 0; i < broker->space_end; i++) {
        if (broker->spaces[i].used)
            used++;
        else if (!slot && !space_kept_in_slot(broker, i))
            slot = &broker->spaces[i];
    }
    if (used >= broker->config->max_stores)
        return NULL;
    uint32_t next = broker->space_end;
    while (!slot && next < SPACES_MAX && space_kept_in_slot(broker, next))
        next++;
    return slot || next == SPACES_MAX ? slot : spaces_slot(broker, next);
}

/* An arena is mapped in whole pages. */
static uint64_t spaces_page_round(uint64_t bytes) {
    return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

/* So many of something for each sample a store may have, within what is worth having at all.
 * Tombstones and replays are remembered in proportion to how many samples there can be; the bounds
 * keep that from being useless for a small store or gigabytes for a large one. */
static uint32_t spaces_for_each_sample(uint32_t max_samples, uint32_t each, uint32_t least,
                                       uint32_t most) {
    uint64_t wanted = (uint64_t)max_samples * each;
    return wanted < least ? least : wanted > most ? most : (uint32_t)wanted;
}

static uint32_t spaces_at_most(uint64_t wanted, uint32_t most) {
    return wanted < most ? (uint32_t)wanted : most;
}

/* Beyond these numbers the index block of a store would take gigabytes of address space. They are
 * far above what a node is known to need: a million holders, eight million leases. */
#define HOLDERS_MAX (1u << 20)
#define LEASES_MAX  (1u << 23)
#define WAITERS_MAX (1u << 20)

/* Twice what one user or one peer may take, so that neither keeps the others out. */
static uint32_t spaces_for_two(const struct charge_limits *limits, enum charge charge,
                               uint32_t most) {
    uint64_t user = limits->of[ACCOUNT_USER][charge], peer = limits->of[ACCOUNT_PEER][charge];
    uint64_t larger = user > peer ? user : peer;
    return larger > most / 2 ? most : (uint32_t)(2 * larger);
}

/* One holder for each handle that a session may open, and one for each connection of a peer: so a
 * holder is never what is missing, as long as the limits are not raised while the store is there.
 */
static uint32_t spaces_holders_of(const struct config *config) {
    const struct charge_limits *limits = &config->limits;
    uint64_t handles = limits->of[ACCOUNT_SESSION][CHARGE_HANDLES];
    uint64_t peers = limits->of[ACCOUNT_PEER][CHARGE_CONNECTIONS];
    if (handles > HOLDERS_MAX || peers > HOLDERS_MAX)
        return HOLDERS_MAX;
    return spaces_at_most(config->max_sessions * handles + CONFIG_PEERS_MAX * peers, HOLDERS_MAX);
}

/* What a whole store can hold. Slots cost memory once they are used. */
static struct store_options spaces_store_options_of(struct broker *broker,
                                                    const struct config_store *config) {
    struct store_options options = {
        .max_resident_bytes = spaces_page_round(config->max_resident_bytes),
        .landing_bytes = spaces_page_round(config->landing_bytes),
        .max_samples = config->max_samples,
        .max_tombstones = spaces_for_each_sample(config->max_samples, 16, 1024, 65536),
        .max_leases = spaces_for_two(&broker->limits, CHARGE_LEASES, LEASES_MAX),
        .max_ended_leases = spaces_for_each_sample(config->max_samples, 64, 65536, 262144),
        .max_holders = spaces_holders_of(broker->config),
        .max_waiters = spaces_for_two(&broker->limits, CHARGE_WAITS, WAITERS_MAX),
        .max_replays = spaces_for_each_sample(config->max_samples, 16, 4096, 65536),
        .max_events = 4096,
        .policy = (enum store_policy)config->policy,
        .readers = config->readers,
        .max_hold_ns = config->max_hold_ms * NS_PER_MS,
        .account = &broker->account,
    };
    randombytes_buf(&options.seed, sizeof options.seed);
    return options;
}

/* A file, so that it can outlive the broker; without a keeper anonymous memory does (-1). */
static int spaces_make_block_file(const struct broker *broker, const struct space *space) {
    char name[80];
    if (!broker->options.keep)
        return -1;
    snprintf(name, sizeof name, "featured-index:%s", space->name);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && (ftruncate(fd, (off_t)space->block_bytes) < 0 ||
                    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* MAP_NORESERVE: the block is address space at first, and takes memory only as samples come. fd -1:
 * of this process alone. */
static int spaces_map_block(struct space *space, int fd, char *why, size_t why_bytes) {
    int flags = MAP_NORESERVE | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    space->block = mmap(NULL, space->block_bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (space->block != MAP_FAILED)
        return 0;
    space->block = NULL;
    snprintf(why, why_bytes, "store %s: no memory for an index of %zu bytes; lower max_samples",
             space->name, space->block_bytes);
    return -ENOMEM;
}

/* A reservation cannot outlive max_hold: a sample would be too old the moment it is committed. So
 * the smaller of max_reserve and max_hold is told to clients; the store keeps both apart. */
void space_set_bounds(struct space *space, const struct config_store *config) {
    uint64_t reserve_ms = config->max_reserve_ms, hold_ms = config->max_hold_ms;
    bool hold_counts = hold_ms && (!reserve_ms || hold_ms < reserve_ms);
    space->settings.max_reserve_ms = hold_counts ? hold_ms : reserve_ms;
    space->settings.max_wait_ms = config->max_wait_ms;
    space->settings.max_pass_ms = config->max_pass_ms;
    store_set_bounds(space->store, config->max_reserve_ms * NS_PER_MS,
                     config->max_pass_ms * NS_PER_MS);
}

uint64_t space_cut_wait_ns(const struct space *space, uint64_t asked_ns, bool *cut) {
    uint64_t max_ns = space->settings.max_wait_ms * NS_PER_MS;
    *cut = max_ns && asked_ns > max_ns;
    return *cut ? max_ns : asked_ns;
}

static void spaces_fill_settings(struct space *space, const struct config_store *config,
                                 const struct store_options *options) {
    fb__store_settings__init(&space->settings);
    space->settings.policy = (Fb__Policy)config->policy;
    space->settings.checksum = (Fb__ChecksumPolicy)config->checksum;
    space->settings.readers = config->readers;
    space->settings.max_resident_bytes = options->max_resident_bytes;
    space->settings.landing_bytes = options->landing_bytes;
    space->settings.max_hold_ms = config->max_hold_ms;
    space->settings.max_samples = config->max_samples;
    space_set_bounds(space, config);
}

/* Beside the arena: the index, and its file where somebody keeps it. */
static int spaces_make_index(struct broker *broker, struct space *space,
                             const struct store_options *options, char *why, size_t why_bytes) {
    int fd = spaces_make_block_file(broker, space);
    if (fd < 0 && broker->options.keep) {
        snprintf(why, why_bytes, "store %s: no file for its index: %s", space->name,
                 strerror(errno));
        return -errno;
    }
    int result = spaces_map_block(space, fd, why, why_bytes);
    if (result == 0) {
        space->store = store_init(space->block, space->block_bytes, options);
        result = space_keep_commit(broker, space, fd, why, why_bytes);
        if (result < 0)
            munmap(space->block, space->block_bytes);
    }
    if (fd >= 0)
        close(fd);
    return result;
}

/* A sentence with a success is a warning, for example that there are no huge pages: the store
 * works, more slowly. */
static int spaces_make_memory(struct broker *broker, struct space *space,
                              const struct config_store *config,
                              const struct store_options *options, char *why, size_t why_bytes) {
    char arena_name[80];
    snprintf(arena_name, sizeof arena_name, "featured:%s", space->name);
    why[0] = '\0';
    if (!space_keep_begin(broker, space, config, options)) {
        snprintf(why, why_bytes, "store %s: there is no record for one more store", space->name);
        return -ENOSPC;
    }
    int result =
        arena_init(&space->arena, arena_name, options->max_resident_bytes + options->landing_bytes,
                   (enum arena_hugepages)broker->config->hugepages, why, why_bytes);
    if (result == 0) {
        if (*why)
            log_warning("store %s: %s", space->name, why);
        result = spaces_make_index(broker, space, options, why, why_bytes);
        if (result < 0)
            arena_deinit(&space->arena);
    }
    if (result < 0 && space->kept)
        space_keep_end(broker, space);
    return result;
}

/* What an earlier broker left. Whatever is wrong with it, it stays as it is. */
static int spaces_attach_memory(struct broker *broker, struct space *space,
                                const struct store_options *options, char *why, size_t why_bytes) {
    char wrong[256];
    int fd, result = space_kept_take(broker, space, &fd, why, why_bytes);
    if (result < 0)
        return result;
    result = spaces_map_block(space, fd, why, why_bytes);
    close(fd);
    if (result == 0) {
        enum store_attached attached =
            store_attach(space->block, space->block_bytes, options, broker->now_ns, &space->store,
                         wrong, sizeof wrong);
        if (attached == STORE_ATTACHED)
            return 0;
        snprintf(why, why_bytes, "store %s cannot be attached: %s; nothing was changed",
                 space->name, attached == STORE_ATTACH_EMPTY ? "its index is empty" : wrong);
        munmap(space->block, space->block_bytes);
        result = -EBADMSG;
    }
    arena_deinit(&space->arena);
    return result;
}

/* The sizes are those that the memory was made with. */
static void spaces_take_sizes(const struct space *space, const struct kept_store *record,
                              struct store_options *options) {
    if (options->max_resident_bytes != record->max_resident_bytes ||
        options->landing_bytes != record->landing_bytes ||
        options->max_samples != record->max_samples)
        log_warning("store %s: keeps the sizes that it was made with, for its samples are there: "
                    "other max_resident_bytes, landing_bytes and max_samples are for a new one",
                    space->name);
    options->max_resident_bytes = record->max_resident_bytes;
    options->landing_bytes = record->landing_bytes;
    options->max_samples = record->max_samples;
    options->max_tombstones = record->max_tombstones;
    options->max_leases = record->max_leases;
    options->max_ended_leases = record->max_ended_leases;
    options->max_holders = record->max_holders;
    options->max_waiters = record->max_waiters;
    options->max_replays = record->max_replays;
    options->max_events = record->max_events;
}

/* Beyond the memory limit of the cgroup the kernel would kill the broker as its stores fill. */
static bool spaces_is_within_memory_limit(const struct broker *broker, const struct space *space,
                                          uint64_t arena_bytes, char *why, size_t why_bytes) {
    uint64_t limit_bytes = broker->options.memory_limit_bytes, used_bytes = 0;
    char asked[16], others[16], limit[16];
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used)
            used_bytes += broker->spaces[i].arena.bytes;
    if (!limit_bytes || (used_bytes <= limit_bytes && arena_bytes <= limit_bytes - used_bytes))
        return true;
    snprintf(why, why_bytes,
             "store %s: %s (max_resident_bytes + landing_bytes), with the %s of the stores that "
             "are there, are more than the memory limit of the broker's cgroup, %s: make it "
             "smaller, drop another, or raise the limit",
             space->name, log_bytes(arena_bytes, asked), log_bytes(used_bytes, others),
             log_bytes(limit_bytes, limit));
    return false;
}

/* It only has to wake the loop: the pump asks every store for its effects, and a store carries out
 * what is due before it answers. Each store has one deadline in the heap of the broker, for the
 * earliest of its own. Nothing is done here: it is enough that the loop wakes, for the pump asks
 * every store in every turn. */
static void spaces_on_store_due(struct deadline *due, uint64_t now_ns) {
    (void)due, (void)now_ns;
}

int space_create(struct broker *broker, const struct config_store *config, const uint8_t *key,
                 struct space **out, char *why, size_t why_bytes) {
    uint32_t record_index = 0;
    const struct kept_store *record = space_kept_find(broker, config->name, &record_index);
    struct space *space = record ? spaces_slot(broker, record->slot) : spaces_unused_slot(broker);
    if (!space) {
        snprintf(why, why_bytes,
                 "store %s: this node has max_stores = %u stores already; drop one or raise it",
                 config->name, broker->config->max_stores);
        return -ENOSPC;
    }
    uint32_t index = space->index;
    *space = (struct space){
        .index = index, .allow_uids = config->allow_uids, .writer_uids = config->writer_uids};
    if ((space->has_secret = key != NULL))
        memcpy(space->key, key, AUTH_KEY_BYTES);
    deadline_init(&space->store_due, spaces_on_store_due);
    snprintf(space->name, sizeof space->name, "%s", config->name);
    struct store_options options = spaces_store_options_of(broker, config);
    if (record)
        spaces_take_sizes(space, record, &options);
    if (!spaces_is_within_memory_limit(
            broker, space, options.max_resident_bytes + options.landing_bytes, why, why_bytes))
        return -ENOSPC;
    const char *wrong = "";
    space->kept = record ? record_index + 1 : 0;
    space->block_bytes = store_block_bytes(&options, &wrong);
    if (!space->block_bytes) {
        snprintf(why, why_bytes, "store %s: %s", space->name, wrong);
        return -EINVAL;
    }
    int result = record ? spaces_attach_memory(broker, space, &options, why, why_bytes)
                        : spaces_make_memory(broker, space, config, &options, why, why_bytes);
    if (result < 0)
        return result;
    spaces_fill_settings(space, config, &options);
    if (broker->transport)
        space->has_region = !broker->transport->ops->add_region(
            broker->transport, space->arena.base, space->arena.bytes, &space->region);
    space->used = true;
    if (broker->options.arena_ready)
        broker->options.arena_ready(broker->options.owner, space->name, &space->arena);
    char resident[16], landing[16];
    log_info("store %s: %s for its samples, %s to land others', %s", space->name,
             log_bytes(options.max_resident_bytes, resident),
             log_bytes(options.landing_bytes, landing),
             space->has_secret ? "with a secret" : "no secret");
    *out = space;
    return 0;
}

/* Sessions that are half-way through opening it must not succeed: the challenge is forgotten. Those
 * that have it open keep it until they close it, and get NOT_FOUND for whatever they ask. */
void space_drop(struct broker *broker, struct space *space, uint64_t now_ns) {
    space->dropped = true;
    space_keep_dropped(broker, space);
    space->drop_walked = store_drop_some(space->store, &space->drop_cursor, DROP_SLOTS, now_ns);
    deadlines_set(&broker->deadlines, &broker->collect, now_ns);
    log_info("store %s: dropped", space->name);
    struct broker_session *session;
    TAILQ_FOREACH (session, &broker->sessions, link)
        if (session->challenge.space == space)
            session->challenge.space = NULL;
}

/* Nobody but us touches its memory from here on. In this order: the transport must not read the
 * memory any more, and no thread may be prefaulting it, before it is unmapped. */
static void space_detach(struct broker *broker, struct space *space) {
    if (space->detached)
        return;
    space->detached = true;
    if (space->has_region && broker->transport)
        broker->transport->ops->remove_region(broker->transport, space->region);
    if (broker->options.arena_gone)
        broker->options.arena_gone(broker->options.owner, &space->arena);
}

/* The creator is charged for a store for as long as it takes memory, dropped or not. */
void space_free(struct broker *broker, struct space *space) {
    space_detach(broker, space);
    store_deinit(space->store);
    munmap(space->block, space->block_bytes);
    arena_deinit(&space->arena);
    sodium_memzero(space->key, sizeof space->key);
    if (space->creator)
        accounts_release(broker, space->creator, CHARGE_STORES, 1);
    space->creator = NULL;
    deadlines_clear(&broker->deadlines, &space->store_due);
    if (space->dropped) /* else the next broker has it */
        space_keep_end(broker, space);
    space->used = false;
}

/* True: there is more to do at once. The order matters: nothing may be given back to the kernel
 * while somebody could still read it, and nothing can come to hold the store again once it has
 * neither uses nor holders. */
static bool space_reap(struct broker *broker, struct space *space, space_leave_fn *leave) {
    struct store_totals totals;
    if (!space->drop_walked)
        space->drop_walked =
            store_drop_some(space->store, &space->drop_cursor, DROP_SLOTS, broker->now_ns);
    if (!space->drop_walked)
        return true;
    if (space->uses || store_has_effect(space->store))
        return false;
    leave(broker, space);
    store_totals(space->store, &totals);
    if (totals.leases || totals.holders || store_has_effect(space->store))
        return false;
    space_detach(broker, space);
    if (!arena_give_back(&space->arena, &space->given_back_bytes, GIVE_BACK_BYTES))
        return true;
    space_free(broker, space);
    return false;
}

/* Several may be at their end in one turn; each does its part. */
bool spaces_reap(struct broker *broker, space_leave_fn *leave) {
    bool more = false;
    for (uint32_t i = 0; i < broker->space_end; i++)
        if (broker->spaces[i].used && broker->spaces[i].dropped)
            more |= space_reap(broker, &broker->spaces[i], leave);
    return more;
}

/* ---- those who are gone ---- */

bool space_leave(struct broker *broker, struct space *space, uint32_t holder,
                 struct account *account) {
    if (store_holder_close_some(space->store, holder, LEAVE_HOLDINGS, broker->now_ns))
        return true;
    struct leaving *leaving = calloc(1, sizeof *leaving);
    if (!leaving) { /* it takes a long turn, but nothing is kept for ever */
        store_holder_close(space->store, holder, broker->now_ns);
        return true;
    }
    *leaving = (struct leaving){.space = space, .account = account, .holder = holder};
    accounts_keep(account);
    TAILQ_INSERT_TAIL(&broker->leavings, leaving, link);
    return false;
}

/* The account was kept for as long as something under it had to end. */
static void spaces_leaving_free(struct broker *broker, struct leaving *leaving) {
    TAILQ_REMOVE(&broker->leavings, leaving, link);
    accounts_unhold(broker, leaving->account);
    free(leaving);
}

/* One holder a turn: the next turn follows at once while there are more. */
bool spaces_leave_on(struct broker *broker) {
    struct leaving *leaving = TAILQ_FIRST(&broker->leavings);
    if (leaving && store_holder_close_some(leaving->space->store, leaving->holder, LEAVE_HOLDINGS,
                                           broker->now_ns))
        spaces_leaving_free(broker, leaving);
    return !TAILQ_EMPTY(&broker->leavings);
}

/* The broker ends: there are no more turns, so all is given back at once. */
void spaces_leavings_free(struct broker *broker) {
    struct leaving *leaving;
    while ((leaving = TAILQ_FIRST(&broker->leavings))) {
        store_holder_close(leaving->space->store, leaving->holder, broker->now_ns);
        spaces_leaving_free(broker, leaving);
    }
}
