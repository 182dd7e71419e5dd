/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of keys (config_keys.c). config.c reads files by it, config_reload.c compares by it.
 */
#ifndef FEATURED_CONFIG_TABLE_H
#define FEATURED_CONFIG_TABLE_H

#include "config.h"
#include "config_value.h"

enum section {
    SECTION_NODE = 0,
    SECTION_LOCAL,
    SECTION_MEMORY,
    SECTION_STORES,
    SECTION_PEERS,
    SECTION_RDMA,
    SECTION_DIRECTORY,
    SECTION_DAEMON,
    SECTION_OPS,
    SECTION_PEER,  /* [peer NAME] */
    SECTION_STORE, /* [store NAME] */
    SECTION_COUNT,
    SECTION_NONE = SECTION_COUNT,
};
extern const char *const config_section_words[SECTION_COUNT];

struct config_key {
    enum section section;
    const char *name;
    size_t offset; /* into struct config; into struct config_peer for [peer NAME] */
    struct config_rule rule;
    const char *preset; /* the value when the key is not given; NULL: see config_defaults() */
};
#define CONFIG_KEYS_MAX 128u /* room in what is kept per key while a file is read */
extern const struct config_key config_keys[];
extern const size_t config_key_count;

/* A key of [stores], or of [store NAME] alone: a field of struct config_store. */
bool config_key_is_of_store(const struct config_key *key);
void *config_store_field(struct config_store *store, const struct config_key *key);

#endif
