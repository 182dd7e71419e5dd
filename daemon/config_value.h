/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of one value in featured.conf, as the C value it stands for. Knows kinds, units and
 * ranges; knows no key, section or file. Blocks only for uid, gid and group names (getpwnam,
 * getgrnam).
 */
#ifndef FEATURED_CONFIG_VALUE_H
#define FEATURED_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_kind {
    CONFIG_BYTES = 0, /* uint64_t: 4096, 64KiB, 8 GiB */
    CONFIG_DURATION,  /* milliseconds: 250ms, 5s, 2min, 1h; 0 needs no unit */
    CONFIG_INTEGER,
    CONFIG_OCTAL,
    CONFIG_BOOL,    /* bool: on, off, yes, no, true, false */
    CONFIG_WORD,    /* uint32_t or enum: index into words */
    CONFIG_NAME,    /* char[]: a node's or store's name */
    CONFIG_PATH,    /* char[]: absolute */
    CONFIG_GROUP,   /* char[]: a group that exists */
    CONFIG_WORDS,   /* char[]: words of letters, digits, _ - . : with blanks and commas between */
    CONFIG_UIDS,    /* struct config_ids: numbers or user names, separated by blanks or commas */
    CONFIG_GIDS,    /* the same with groups */
    CONFIG_ADDRESS, /* char[]: host:port or [IPv6]:port */
    CONFIG_URLS,    /* char[]: http://host:port or https://, with blanks or commas between; or "" */
};

struct config_rule {
    enum config_kind kind;
    size_t field_bytes;
    uint64_t min, max; /* of the value, in bytes or milliseconds; of the port for CONFIG_ADDRESS */
    uint64_t multiple; /* CONFIG_BYTES: of this; 0 = any */
    bool empty;        /* char[]: "" is a value too */
    uint32_t later;    /* this value is known and not supported yet; 0 = none */
    const char *const *words; /* CONFIG_WORD: ends with NULL */
    bool live;                /* a running broker takes a new value */
};

/* Writes the value to field (field_bytes of it). False: field is untouched and why holds
 * "what is wrong; allowed: ...". */
bool config_value_parse(const struct config_rule *rule, const char *text, void *field, char *why,
                        size_t why_bytes);

/* The value at field as text that config_value_parse() takes; "(nothing)" for none. */
void config_value_format(const struct config_rule *rule, const void *field, char *out,
                         size_t out_bytes);

/* True if it stands for every address of this machine: 0.0.0.0 or [::]. */
bool config_address_is_any(const char *address);
/* True if only this machine reaches it: 127.0.0.1, [::1] and their like, or "localhost". */
bool config_address_is_loopback(const char *address);

#endif
