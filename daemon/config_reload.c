/* SPDX-License-Identifier: Apache-2.0
 *
 * What a changed file changes in a broker that runs.
 *
 * It goes by the table of keys: a key that is marked LIVE is taken over at once, any other is told
 * of as one that takes a restart, and keeps the value that is in force. Values are compared as
 * text, in the form in which they are told. So a new key needs no code here.
 *
 * running is the config that the broker uses, and is changed in place; wanted is what the file says
 * now.
 */
#include "config_reload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_table.h"

#define VALUE_BYTES 1100 /* etcd's endpoints are the longest */

struct reload {
    void (*tell)(void *context, const struct config_change *change);
    void *context;
    bool different;
};

/* `different` is what a reload says in the end: has anything changed at all? */
static void reload_tell(struct reload *reload, bool taken, const char *what, const char *from,
                        const char *to) {
    struct config_change change = {taken, what, from, to};
    reload->different = true;
    reload->tell(reload->context, &change);
}

/* title: "[stores]", "[store run0]". */
static void reload_field(struct reload *reload, const struct config_key *key, const char *title,
                         bool live, void *running, const void *wanted) {
    char what[256], from[VALUE_BYTES], to[VALUE_BYTES];
    config_value_format(&key->rule, running, from, sizeof from);
    config_value_format(&key->rule, wanted, to, sizeof to);
    if (strcmp(from, to) == 0)
        return;
    snprintf(what, sizeof what, "%s %s", title, key->name);
    if (live)
        memcpy(running, wanted, key->rule.field_bytes);
    reload_tell(reload, live, what, from, to);
}

/* Keys of peers and stores are compared with those of the same peer or store, below. */
static void reload_settings(struct reload *reload, struct config *running,
                            const struct config *wanted) {
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char title[32];
        if (key->section == SECTION_PEER || key->section == SECTION_STORE)
            continue;
        snprintf(title, sizeof title, "[%s]", config_section_words[key->section]);
        /* The defaults of stores are for those that are created from now on. */
        reload_field(reload, key, title, key->rule.live || config_key_is_of_store(key),
                     (char *)running + key->offset, (const char *)wanted + key->offset);
    }
}

/* ---- stores ---- */

static struct config_store *reload_find_store(const struct config *config, const char *name) {
    for (size_t i = 0; i < config->store_count; i++)
        if (strcmp(config->stores[i].name, name) == 0)
            return &config->stores[i];
    return NULL;
}

/* Most keys of a store are those of its memory and take a restart; the table says which do not. */
static void reload_store(struct reload *reload, struct config_store *running,
                         struct config_store *wanted) {
    char title[CONFIG_NAME_MAX + 16];
    snprintf(title, sizeof title, "[store %s]", running->name);
    for (size_t i = 0; i < config_key_count; i++)
        if (config_key_is_of_store(&config_keys[i]))
            reload_field(reload, &config_keys[i], title, config_keys[i].rule.live,
                         config_store_field(running, &config_keys[i]),
                         config_store_field(wanted, &config_keys[i]));
}

/* A store is added or removed by a restart, or by a client; a file that is read again does neither,
 * for removing one would throw away its samples. */
static void reload_stores(struct reload *reload, struct config *running,
                          const struct config *wanted) {
    char title[CONFIG_NAME_MAX + 16];
    for (size_t i = 0; i < running->store_count; i++) {
        struct config_store *now = &running->stores[i],
                            *then = reload_find_store(wanted, now->name);
        snprintf(title, sizeof title, "[store %s]", now->name);
        if (then)
            reload_store(reload, now, then);
        else
            reload_tell(reload, false, title, "there", "removed");
    }
    for (size_t i = 0; i < wanted->store_count; i++) {
        snprintf(title, sizeof title, "[store %s]", wanted->stores[i].name);
        if (!reload_find_store(running, wanted->stores[i].name))
            reload_tell(reload, false, title, "not there", "added");
    }
}

/* ---- peers ---- */

static struct config_peer *reload_find_peer(const struct config *config, const char *node) {
    for (size_t i = 0; i < config->peer_count; i++)
        if (strcmp(config->peers[i].node, node) == 0)
            return &config->peers[i];
    return NULL;
}

static void reload_peer(struct reload *reload, struct config_peer *running,
                        const struct config_peer *wanted) {
    char title[CONFIG_NAME_MAX + 16];
    snprintf(title, sizeof title, "[peer %s]", running->node);
    for (size_t i = 0; i < config_key_count; i++)
        if (config_keys[i].section == SECTION_PEER)
            reload_field(reload, &config_keys[i], title, config_keys[i].rule.live,
                         (char *)running + config_keys[i].offset,
                         (const char *)wanted + config_keys[i].offset);
}

/* False: out of memory. */
static bool reload_add_peer(struct config *running, const struct config_peer *wanted) {
    struct config_peer *peers =
        reallocarray(running->peers, running->peer_count + 1, sizeof *peers);
    if (!peers)
        return false;
    peers[running->peer_count++] = *wanted;
    running->peers = peers;
    return true;
}

/* A node that is added reads from here as soon as it has this one in its own file, and this one
 * from it after a reload. A broker that was started without a secret of the cluster has nothing to
 * prove itself with; and one that is removed may still hold leases here: both take a restart. */
static void reload_peers(struct reload *reload, struct config *running,
                         const struct config *wanted) {
    char title[CONFIG_NAME_MAX + 16];
    for (size_t i = 0; i < running->peer_count; i++) {
        struct config_peer *now = &running->peers[i];
        const struct config_peer *then = reload_find_peer(wanted, now->node);
        snprintf(title, sizeof title, "[peer %s]", now->node);
        if (then)
            reload_peer(reload, now, then);
        else
            reload_tell(reload, false, title, now->address, "removed");
    }
    for (size_t i = 0; i < wanted->peer_count; i++) {
        snprintf(title, sizeof title, "[peer %s]", wanted->peers[i].node);
        if (!reload_find_peer(running, wanted->peers[i].node))
            reload_tell(reload,
                        *running->cluster_secret_file &&
                            running->directory == CONFIG_DIRECTORY_STATIC &&
                            reload_add_peer(running, &wanted->peers[i]),
                        title, "not there", wanted->peers[i].address);
    }
}

/* True if the file says anything else than what is in force, taken or not. */
bool config_reload(struct config *running, const struct config *wanted,
                   void (*tell)(void *context, const struct config_change *change), void *context) {
    struct reload reload = {.tell = tell, .context = context};
    reload_settings(&reload, running, wanted);
    reload_stores(&reload, running, wanted);
    reload_peers(&reload, running, wanted);
    return reload.different;
}
