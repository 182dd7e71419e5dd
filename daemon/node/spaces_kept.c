/* SPDX-License-Identifier: Apache-2.0
 *
 * What of a store outlives the broker: a record in the node's memory (struct kept_store), and two
 * descriptors with the keeper, the arena "a.N" and the index "i.N", N being the slot of the store.
 *
 *   a store is made:    record taken -> memory made -> "a.N", "i.N" with the keeper -> LIVES
 *   a store is dropped: DROPPED -> its samples retired, its memory given back -> record freed
 *
 * So a descriptor without a record that lives belongs to a store of which nobody was told, and is
 * dropped at the next start. A store that was being dropped is given up then: whoever still reads
 * there has the arena mapped, and keeps its bytes, for nobody writes there any more.
 *
 * What is in the record fixes the layout of the memory. A configuration with other sizes is for a
 * new store of that name; policy, readers and times are taken from it at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node/node.h"

#define PATIENCE_MS 5000u

static struct kept_table *spaces_table(const struct broker *broker) {
    return kept_table(broker->kept, KEPT_STORES);
}

static void spaces_drop_keys(const struct broker *broker, uint32_t slot) {
    char key[KEEP_NAME_BYTES_MAX + 1];
    keep_name(key, 'i', slot);
    keep_drop(broker->options.keep, key);
    keep_name(key, 'a', slot);
    keep_drop(broker->options.keep, key);
}

/* ---- while it lives ---- */

bool space_keep_begin(struct broker *broker, struct space *space, const struct config_store *config,
                      const struct store_options *options) {
    uint32_t index;
    struct kept_store *record = kept_take(spaces_table(broker), &index);
    if (!record)
        return false;
    *record = (struct kept_store){.slot = space->index,
                                  .has_secret = space->has_secret,
                                  .policy = config->policy,
                                  .checksum = config->checksum,
                                  .readers = config->readers,
                                  .max_samples = options->max_samples,
                                  .max_tombstones = options->max_tombstones,
                                  .max_leases = options->max_leases,
                                  .max_ended_leases = options->max_ended_leases,
                                  .max_holders = options->max_holders,
                                  .max_waiters = options->max_waiters,
                                  .max_replays = options->max_replays,
                                  .max_events = options->max_events,
                                  .max_resident_bytes = options->max_resident_bytes,
                                  .landing_bytes = options->landing_bytes,
                                  .max_hold_ms = config->max_hold_ms,
                                  .max_reserve_ms = config->max_reserve_ms,
                                  .max_wait_ms = config->max_wait_ms,
                                  .max_pass_ms = config->max_pass_ms,
                                  .allow_uids = config->allow_uids,
                                  .writer_uids = config->writer_uids};
    memcpy(record->key, space->key, sizeof record->key);
    snprintf(record->name, sizeof record->name, "%s", space->name);
    space->kept = index + 1;
    return true;
}

/* At a start the keeper gets two descriptors for each store in one go, and it may be slower than we
 * are. Once the first turn has begun there are clients, and nobody waits for the keeper. */
static int spaces_put(struct broker *broker, const char *key, int fd) {
    int result = keep_put(broker->options.keep, key, fd);
    for (unsigned i = 0; result == -EAGAIN && !broker->started_ns && i < PATIENCE_MS; i++) {
        poll(NULL, 0, 1);
        result = keep_put(broker->options.keep, key, fd);
    }
    return result;
}

int space_keep_commit(struct broker *broker, struct space *space, int block_fd, char *why,
                      size_t why_bytes) {
    struct kept_store *record = kept_record(spaces_table(broker), space->kept - 1);
    char key[KEEP_NAME_BYTES_MAX + 1];
    record->arena_bytes = space->arena.bytes;
    record->block_bytes = space->block_bytes;
    record->hugepages = space->arena.hugepages;
    keep_name(key, 'a', space->index);
    int result = spaces_put(broker, key, space->arena.fd);
    keep_name(key, 'i', space->index);
    if (!result)
        result = spaces_put(broker, key, block_fd);
    if (result) {
        snprintf(why, why_bytes, "store %s: its memory could not be given to its keeper: %s",
                 space->name,
                 result == -EAGAIN   ? "it is busy; try again"
                 : result == -ENOSPC ? "it holds as many descriptors as it may "
                                       "(FileDescriptorStoreMax= of the unit, RLIMIT_NOFILE of "
                                       "featured --supervise)"
                                     : strerror(-result));
        space_keep_end(broker, space);
        return result;
    }
    kept_commit(spaces_table(broker), space->kept - 1, KEPT_STORE_LIVES);
    return 0;
}

void space_set_creator(struct broker *broker, struct space *space, struct account *user) {
    space->creator = user;
    account_add(user, CHARGE_STORES, 1);
    struct kept_store *record = kept_record(spaces_table(broker), space->kept - 1);
    record->creator_uid = (uint32_t)user->number;
    record->has_creator = true;
}

void space_keep_dropped(struct broker *broker, const struct space *space) {
    kept_commit(spaces_table(broker), space->kept - 1, KEPT_STORE_DROPPED);
}

void space_keep_end(struct broker *broker, struct space *space) {
    kept_free(spaces_table(broker), space->kept - 1);
    space->kept = 0;
    spaces_drop_keys(broker, space->index);
}

/* ---- after a restart ---- */

const struct kept_store *space_kept_find(const struct broker *broker, const char *name,
                                         uint32_t *index_out) {
    const struct kept_table *table = spaces_table(broker);
    uint32_t cursor = 0;
    while (kept_walk(table, &cursor, index_out)) {
        const struct kept_store *record = kept_record(table, *index_out);
        if (kept_word(table, *index_out) == KEPT_STORE_LIVES && record->slot < SPACES_MAX &&
            !broker->spaces[record->slot].used && !strcmp(record->name, name))
            return record;
    }
    return NULL;
}

bool space_kept_in_slot(const struct broker *broker, uint32_t slot) {
    const struct kept_table *table = spaces_table(broker);
    uint32_t cursor = 0, index;
    while (kept_walk(table, &cursor, &index))
        if (((const struct kept_store *)kept_record(table, index))->slot == slot)
            return true;
    return false;
}

int space_kept_take(struct broker *broker, struct space *space, int *block_fd_out, char *why,
                    size_t why_bytes) {
    const struct kept_store *record = kept_record(spaces_table(broker), space->kept - 1);
    char key[KEEP_NAME_BYTES_MAX + 1], wrong[256];
    keep_name(key, 'a', space->index);
    int arena_fd = keep_take(broker->options.keep, key);
    keep_name(key, 'i', space->index);
    *block_fd_out = keep_take(broker->options.keep, key);
    int result = arena_fd < 0        ? arena_fd
                 : *block_fd_out < 0 ? *block_fd_out
                                     : arena_attach(&space->arena, arena_fd, record->arena_bytes,
                                                    record->hugepages, wrong, sizeof wrong);
    if (result == 0)
        return 0;
    snprintf(why, why_bytes,
             "store %s cannot be attached: %s; nothing was changed; to give it up, stop featured "
             "and its keeper, then start anew",
             space->name,
             arena_fd < 0 || *block_fd_out < 0 ? "the keeper does not have its memory" : wrong);
    if (arena_fd >= 0)
        close(arena_fd);
    if (*block_fd_out >= 0)
        close(*block_fd_out);
    return result;
}

static int spaces_recall_one(struct broker *broker, const struct kept_store *record, char *why,
                             size_t why_bytes) {
    struct config_store config = {.policy = record->policy,
                                  .checksum = record->checksum,
                                  .readers = record->readers,
                                  .max_samples = record->max_samples,
                                  .max_resident_bytes = record->max_resident_bytes,
                                  .landing_bytes = record->landing_bytes,
                                  .max_hold_ms = record->max_hold_ms,
                                  .max_reserve_ms = record->max_reserve_ms,
                                  .max_wait_ms = record->max_wait_ms,
                                  .max_pass_ms = record->max_pass_ms,
                                  .allow_uids = record->allow_uids,
                                  .writer_uids = record->writer_uids};
    struct account *user = record->has_creator ? accounts_user(broker, record->creator_uid) : NULL;
    struct space *space;
    snprintf(config.name, sizeof config.name, "%s", record->name);
    int result = record->has_creator && !user
                     ? -ENOMEM
                     : space_create(broker, &config, record->has_secret ? record->key : NULL,
                                    &space, why, why_bytes);
    if (result == 0 && user)
        space_set_creator(broker, space, user);
    if (user)
        accounts_unhold(broker, user);
    return result;
}

/* What is left of a store that never lived, or was being dropped. */
static void spaces_drop_strays(const struct broker *broker) {
    size_t cursor = 0;
    const char *name;
    while ((name = keep_next(broker->options.keep, &cursor))) {
        unsigned slot;
        char kind;
        if (sscanf(name, "%c.%u", &kind, &slot) == 2 && (kind == 'a' || kind == 'i') &&
            !space_kept_in_slot(broker, slot))
            keep_drop(broker->options.keep, name);
    }
}

int spaces_recall(struct broker *broker, char *why, size_t why_bytes) {
    struct kept_table *table = spaces_table(broker);
    uint32_t cursor = 0, index;
    while (kept_walk(table, &cursor, &index)) {
        const struct kept_store *record = kept_record(table, index);
        if (kept_word(table, index) != KEPT_STORE_LIVES || record->slot >= SPACES_MAX) {
            kept_free(table, index);
            continue;
        }
        int result = broker->spaces[record->slot].used
                         ? 0
                         : spaces_recall_one(broker, record, why, why_bytes);
        if (result < 0)
            return result;
    }
    spaces_drop_strays(broker);
    return 0;
}
