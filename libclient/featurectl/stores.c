/* SPDX-License-Identifier: Apache-2.0
 *
 * `stores`, `store create`, `store drop`.
 *
 * The columns and stores_print_store() go together: a cell is filled for each column, in the
 * same order. Columns with a title are for people and come first. The others are only in the
 * JSON that --json prints.
 *
 * Creating a store that is there with the same settings is a success, and so is dropping one
 * that is not there. So a script may run twice.
 */
#include <sodium.h>
#include <stdlib.h>

#include "featurectl/each_store.h"
#include "featurectl/memory.h"
#include "featurectl/secret.h"
#include "featurectl/units.h"
#include "featurectl/words.h"

/* What tells at a glance how a store is doing has a title; the rest is for programs. */
static const struct table_column store_columns[] = {
    {"store", "STORE", TABLE_LEFT},
    {"policy", "POLICY", TABLE_LEFT},
    {"readers", "READERS", TABLE_RIGHT | TABLE_WIDE},
    {"checksum", "CHECKSUM", TABLE_LEFT | TABLE_WIDE},
    {"secret", "SECRET", TABLE_LEFT | TABLE_WIDE},
    {"resident_bytes", "USED", TABLE_RIGHT},
    {"max_resident_bytes", "LIMIT", TABLE_RIGHT},
    {"landing_used_bytes", "LANDING", TABLE_RIGHT | TABLE_IF_ANY},
    {"planned", "PLANNED", TABLE_RIGHT | TABLE_WIDE},
    {"resident", "RESIDENT", TABLE_RIGHT},
    {"retired", "RETIRED", TABLE_RIGHT | TABLE_IF_ANY},
    {"leases", "LEASES", TABLE_RIGHT},
    {"put_waiters", "PUTS WAITING", TABLE_RIGHT | TABLE_IF_ANY},
    {"max_hold_ms", "MAX HOLD", TABLE_RIGHT | TABLE_WIDE},
    {"reserver", "RESERVED BY", TABLE_LEFT | TABLE_WIDE},
    {"first_waiter", "FIRST IN LINE", TABLE_LEFT | TABLE_WIDE},
    {"reserved_bytes", NULL, TABLE_LEFT},
    {"retired_bytes", NULL, TABLE_LEFT},
    {"first_bytes", NULL, TABLE_LEFT},
    {"max_reserve_ms", NULL, TABLE_LEFT},
    {"max_wait_ms", NULL, TABLE_LEFT},
    {"max_pass_ms", NULL, TABLE_LEFT},
    {"get_waiters", NULL, TABLE_LEFT},
    {"reservations", NULL, TABLE_LEFT},
    {"landing", NULL, TABLE_LEFT},
    {"landing_bytes", NULL, TABLE_LEFT},
    {"free_largest_bytes", NULL, TABLE_LEFT},
    {"max_samples", NULL, TABLE_LEFT},
    {"puts", NULL, TABLE_LEFT},
    {"gets", NULL, TABLE_LEFT},
    {"frees", NULL, TABLE_LEFT},
    {"arena_bytes", NULL, TABLE_LEFT},
    {"prefaulted_bytes", NULL, TABLE_LEFT},
    {"hugepages", NULL, TABLE_LEFT},
    {"holders", NULL, TABLE_LEFT},
    {"max_holders", NULL, TABLE_LEFT},
    {"max_leases", NULL, TABLE_LEFT},
    {"max_waiters", NULL, TABLE_LEFT},
};

/* 0 means that nothing is ever too old. People read "never"; programs get the 0. */
static void stores_print_max_hold(struct table *table, uint64_t max_hold_ms) {
    char text[UNITS_ROOM];
    table_cell(table, json_integer((json_int_t)max_hold_ms),
               max_hold_ms ? units_duration(max_hold_ms, text) : "never");
}

/* "session 12 pid 4312 uid 1000 train.py for 12s", or nothing. */
static void stores_print_person(struct table *table, const Fb__LeaseInfo *person) {
    char age[UNITS_ROOM];
    if (!person) {
        table_text(table, NULL);
        return;
    }
    json_t *value = json_pack("{s:s, s:I, s:I}", "holder", person->holder, "session_id",
                              (json_int_t)person->session_id, "age_ms", (json_int_t)person->age_ms);
    char *text = memory_print("%s for %s", person->holder, units_duration(person->age_ms, age));
    table_cell(table, value, text);
    free(text);
}

/* The two who explain why a put waits, in a sentence each: they would be the widest columns. */
static void stores_note_people(struct table *table, const Fb__StoreInfo *store) {
    char age[UNITS_ROOM], bytes[UNITS_ROOM];
    if (store->reserver)
        table_note(table, "%s: %s has reserved most (%s in all), for %s", store->store,
                   store->reserver->holder, units_bytes(store->reserved_bytes, bytes),
                   units_duration(store->reserver->age_ms, age));
    if (store->first_waiter)
        table_note(table, "%s: %s is first in line (for %s), for %s", store->store,
                   store->first_waiter->holder, units_bytes(store->first_bytes, bytes),
                   units_duration(store->first_waiter->age_ms, age));
}

/* One row. A broker that sends no settings (none does today) is shown with those that an empty
 * message has, so that a missing part cannot crash this program.
 */
static void stores_print_store(struct table *table, const Fb__StoreInfo *store) {
    char word[WORDS_ROOM];
    const Fb__StoreSettings none = FB__STORE_SETTINGS__INIT;
    const Fb__StoreSettings *settings = store->settings ? store->settings : &none;
    table_text(table, store->store);
    table_text(table, words_enum(&fb__policy__descriptor, (int)settings->policy, word));
    table_count(table, settings->readers);
    table_text(table, words_enum(&fb__checksum_policy__descriptor, (int)settings->checksum, word));
    table_flag(table, store->secret);
    table_bytes(table, store->resident_bytes);
    table_bytes(table, settings->max_resident_bytes);
    table_bytes(table, store->landing_used_bytes);
    table_count(table, store->planned);
    table_count(table, store->resident);
    table_count(table, store->retired);
    table_count(table, store->leases);
    table_count(table, store->put_waiters);
    stores_print_max_hold(table, settings->max_hold_ms);
    stores_print_person(table, store->reserver);
    stores_print_person(table, store->first_waiter);
    table_bytes(table, store->reserved_bytes);
    table_bytes(table, store->retired_bytes);
    table_bytes(table, store->first_bytes);
    table_duration(table, settings->max_reserve_ms);
    table_duration(table, settings->max_wait_ms);
    table_duration(table, settings->max_pass_ms);
    table_count(table, store->get_waiters);
    table_count(table, store->reservations);
    table_count(table, store->landing);
    table_bytes(table, settings->landing_bytes);
    table_bytes(table, store->free_largest_bytes);
    table_count(table, settings->max_samples);
    table_count(table, store->puts);
    table_count(table, store->gets);
    table_count(table, store->frees);
    table_bytes(table, store->arena_bytes);
    table_bytes(table, store->prefaulted_bytes);
    table_flag(table, store->hugepages);
    table_count(table, store->holders);
    table_count(table, store->max_holders);
    table_count(table, store->max_leases);
    table_count(table, store->max_waiters);
    table_end_row(table);
}

/* All stores come in one answer; the broker has at most 256. */
static int stores_run_stores(struct context *context) {
    Fb__ClientReply *reply;
    int status = each_store_fetch(context, &reply);
    if (status)
        return status;
    struct table table;
    CONTEXT_WIDE_TABLE(context, &table, store_columns);
    for (size_t i = 0; i < reply->stores->n_stores; i++) {
        stores_print_store(&table, reply->stores->stores[i]);
        if (!table.wide)
            stores_note_people(&table, reply->stores->stores[i]);
    }
    table_finish(&table, TABLE_ROWS);
    context_free_reply(reply);
    return FEATURE_OK;
}

/* Prints one field: what was done, and to which store, such as "created run0". */
static int stores_print_done(struct context *context, const char *key, const char *store) {
    const struct table_column columns[] = {{key, key, TABLE_LEFT}};
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    table_text(&table, store);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    return FEATURE_OK;
}

/* A setting that is not given is sent as 0, which asks the broker for its default. The secret is
 * read here and goes no further than the library, which derives a key from it; it is wiped
 * before this function returns, also when the broker refuses.
 */
static int stores_run_store_create(struct context *context) {
    const struct options *o = &context->options;
    const char *name = o->arguments[0];
    uint8_t secret[SECRET_BYTES_MAX];
    struct feature_store_options settings = {
        .size = sizeof settings,
        .policy = (enum feature_policy)options_number(o, "policy", FEATURE_POLICY_ON_RELEASE),
        .readers = (uint32_t)options_number(o, "readers", 0),
        .max_resident_bytes = options_number(o, "max-resident-bytes", 0),
        .landing_bytes = options_number(o, "landing-bytes", 0),
        .max_hold_ms = options_number(o, "max-hold", 0),
        .checksum =
            (enum feature_checksum)options_number(o, "checksum", FEATURE_CHECKSUM_AFTER_NETWORK),
        .max_samples = (uint32_t)options_number(o, "max-samples", 0),
    };
    const char *path = options_text(o, "secret-file", NULL);
    if (path) {
        char why[256];
        ssize_t bytes = secret_read(path, secret, why, sizeof why);
        if (bytes < 0)
            return context_refuse(context, CTL_E_LOCAL, path, "%s", why);
        settings.secret = secret;
        settings.secret_bytes = (size_t)bytes;
    }
    int status = feature_store_create(context->feature, name, &settings);
    sodium_memzero(secret, sizeof secret);
    return status ? context_fail(context, status, name)
                  : stores_print_done(context, "created", name);
}

/* Readers that hold leases keep their bytes; the memory is free when the last of them lets go. */
static int stores_run_store_drop(struct context *context) {
    const char *name = context->options.arguments[0];
    int status = feature_store_drop(context->feature, name);
    return status ? context_fail(context, status, name)
                  : stores_print_done(context, "dropped", name);
}

static const struct option_spec store_options[] = {OPTION_WIDE, {0}};

const struct command command_stores = {
    .name = "stores",
    .arguments = "",
    .summary = "every store: memory used, samples, leases, who waits",
    .options = store_options,
    .run = stores_run_stores,
};

/* In the order of enum feature_policy and enum feature_checksum: the place of a word is its
 * number.
 */
static const char *const policies[] = {"on-release", "on-ack", "retain", NULL};
static const char *const checksums[] = {"after-network", "always", "never", NULL};

static const struct option_spec create_options[] = {
    {.name = "policy",
     .kind = OPTION_CHOICE,
     .argument = "POLICY",
     .choices = policies,
     .help = "when a sample is freed (default on-release)"},
    {.name = "readers",
     .kind = OPTION_COUNT,
     .argument = "N",
     .help = "on-release: consumed releases that free a sample (default 1)"},
    {.name = "max-resident-bytes",
     .kind = OPTION_BYTES,
     .argument = "SIZE",
     .help = "memory for samples put here (default: the broker's)"},
    {.name = "landing-bytes",
     .kind = OPTION_BYTES,
     .argument = "SIZE",
     .help = "memory for reading other nodes' samples (default: the broker's)"},
    {.name = "max-hold",
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "free unleased samples older than that (default: never)"},
    {.name = "checksum",
     .kind = OPTION_CHOICE,
     .argument = "WHEN",
     .choices = checksums,
     .help = "when readers verify (default after-network)"},
    {.name = "max-samples",
     .kind = OPTION_COUNT,
     .argument = "N",
     .help = "samples at a time (default: the broker's)"},
    OPTION_SECRET_FILE,
    {0},
};

const struct command command_store_create = {
    .name = "store create",
    .arguments = "NAME",
    .summary = "make a store; the same settings again are no error",
    .options = create_options,
    .arguments_min = 1,
    .arguments_max = 1,
    .run = stores_run_store_create,
};

const struct command command_store_drop = {
    .name = "store drop",
    .arguments = "NAME",
    .summary = "retire all of a store and remove it; leased bytes stay until released",
    .arguments_min = 1,
    .arguments_max = 1,
    .run = stores_run_store_drop,
};
