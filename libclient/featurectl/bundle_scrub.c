/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's configuration names files with secrets and holds none itself. A key that it does not
 * know, or an old one, may: so every key whose name speaks of a secret loses its value unless it
 * ends with "_file", and comments, in which people keep old values, are left out.
 *
 * A secret shorter than SECRET_BYTES_MIN is not looked for: no secret of ours is so short, and a
 * word like "key" would be cut out of every line.
 */
#include "featurectl/bundle_scrub.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "featurectl/memory.h"
#include "proto/text.h"

#define SECRET_BYTES_MIN  8u
#define SECRET_FILE_BYTES (256u << 10) /* a private key with its chain has a few KiB */

/* ---- configuration ---- */

static bool scrub_speaks_of_secret(const char *key) {
    static const char *const words[] = {"secret", "password", "passwd",    "passphrase",
                                        "token",  "key",      "credential"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasestr(key, words[i]))
            return true;
    return false;
}

/* "secret_file = /etc/x" says where a secret is, which is no secret and worth knowing. */
static bool scrub_names_file(const char *key) {
    size_t length = strlen(key), suffix = strlen("_file");
    return length > suffix && strcmp(key + length - suffix, "_file") == 0;
}

/* A line taken apart: NULL when it is no KEY = VALUE. *line is changed. */
static char *scrub_split(char *line, char **value_out) {
    char *equals = strpbrk(line, "=:");
    if (!equals || *line == '[')
        return NULL;
    char *end = equals;
    while (end > line && strchr(" \t", end[-1]))
        end--;
    *end = '\0';
    *value_out = equals + 1 + strspn(equals + 1, " \t");
    return line + strspn(line, " \t");
}

/* "https://user:password@host" becomes "https://(removed)@host", each of several addresses. */
static char *scrub_addresses(const char *value) {
    char *clean = memory_copy("");
    while (*value) {
        const char *scheme = strstr(value, "://");
        const char *host = scheme ? scheme + strlen("://") : value + strlen(value);
        size_t authority = strcspn(host, "/, \t");
        const char *at = memrchr(host, '@', authority);
        char *longer =
            memory_print("%s%.*s%s", clean, (int)(host - value), value, at ? SCRUB_REMOVED : "");
        free(clean);
        clean = longer;
        value = at ? at : host;
    }
    return clean;
}

/* Comments begin a line, or stand behind a blank. */
static void scrub_drop_comment(char *line) {
    for (char *c = line; *c; c++)
        if (strchr("#;", *c) && (c == line || strchr(" \t", c[-1]))) {
            *c = '\0';
            break;
        }
    size_t length = strlen(line);
    while (length && strchr(" \t\r", line[length - 1]))
        line[--length] = '\0';
}

/* What is no section and no KEY = VALUE is removed as a whole: nobody knows what it is. */
static char *scrub_line(char *line) {
    char *value, *key;
    scrub_drop_comment(line);
    char *whole = memory_copy(line);
    key = scrub_split(line, &value);
    char *clean;
    if (!key) {
        clean = *whole == '[' || !*whole ? memory_copy(whole) : memory_copy(SCRUB_REMOVED);
    } else if (*value && scrub_speaks_of_secret(key) && !scrub_names_file(key)) {
        clean = memory_print("%s = " SCRUB_REMOVED, key);
    } else {
        char *addresses = scrub_addresses(value);
        clean = memory_print("%s = %s", key, addresses);
        free(addresses);
    }
    free(whole);
    return clean;
}

/* Empty lines go too. Sections and keys stay as they were written. */
char *scrub_config(const char *text) {
    char *copy = memory_copy(text), *rest = copy, *line, *clean = memory_copy("");
    while ((line = strsep(&rest, "\n"))) {
        char *shown = scrub_line(line);
        if (*shown) {
            char *longer = memory_print("%s%s\n", clean, shown);
            free(clean);
            clean = longer;
        }
        free(shown);
    }
    free(copy);
    return clean;
}

/* ---- secrets ---- */

static void scrub_add(struct scrub *scrub, const char *secret, size_t bytes) {
    while (bytes && strchr(" \t\r\n", secret[bytes - 1]) && secret[bytes - 1])
        bytes--;
    if (bytes < SECRET_BYTES_MIN)
        return;
    /* As it is, and as logs and tables would show it. */
    size_t room = text_escape(NULL, 0, secret, bytes) + 1;
    char *shown = memory_grow(NULL, room, 1);
    text_escape(shown, room, secret, bytes);
    scrub->secrets = memory_grow(scrub->secrets, scrub->count + 1, sizeof *scrub->secrets);
    scrub->secrets[scrub->count++] = shown;
}

/* Lines are learnt one by one as well: a log may have one line of a key, or all of them on one
 * line.
 */
void scrub_learn(struct scrub *scrub, const char *secret, size_t bytes) {
    scrub_add(scrub, secret, bytes);
    for (const char *line = secret; line < secret + bytes;) {
        const char *end = memchr(line, '\n', (size_t)(secret + bytes - line));
        end = end ? end : secret + bytes;
        if (strncmp(line, "-----", 5) != 0) /* BEGIN and END of a key say nothing */
            scrub_add(scrub, line, (size_t)(end - line));
        line = end + 1;
    }
}

/* As much of it as any secret could have; a larger file is none. */
void scrub_learn_file(struct scrub *scrub, const char *path) {
    FILE *file = fopen(path, "re");
    if (!file)
        return; /* what this user cannot read, no command of his can have printed */
    char *content = memory_grow(NULL, SECRET_FILE_BYTES, 1);
    size_t bytes = fread(content, 1, SECRET_FILE_BYTES, file);
    scrub_learn(scrub, content, bytes);
    free(content);
    fclose(file);
}

/* Also values that stand in the configuration itself: scrub_config() removes them there, and a
 * log may have them again.
 */
void scrub_learn_config(struct scrub *scrub, const char *config) {
    char *copy = memory_copy(config), *rest = copy, *line, *value;
    while ((line = strsep(&rest, "\n"))) {
        scrub_drop_comment(line);
        char *key = scrub_split(line, &value);
        if (key && scrub_names_file(key) && scrub_speaks_of_secret(key))
            scrub_learn_file(scrub, value);
        else if (key && scrub_speaks_of_secret(key))
            scrub_learn(scrub, value, strlen(value));
    }
    free(copy);
}

/* What was put in place of one is not looked at again, in case a secret is part of those words. */
char *scrub_text(const struct scrub *scrub, const char *text, size_t bytes, size_t *bytes_out) {
    const size_t mark = strlen(SCRUB_REMOVED);
    char *clean = memory_grow(NULL, bytes + 1, 1);
    memcpy(clean, text, bytes);
    clean[bytes] = '\0';
    for (size_t i = 0; i < scrub->count; i++) {
        size_t length = strlen(scrub->secrets[i]), from = 0;
        char *found;
        while ((found = memmem(clean + from, bytes - from, scrub->secrets[i], length))) {
            size_t before = (size_t)(found - clean);
            clean = memory_grow(clean, bytes + mark + 1, 1);
            memmove(clean + before + mark, clean + before + length, bytes - before - length + 1);
            memcpy(clean + before, SCRUB_REMOVED, mark);
            bytes = bytes - length + mark;
            from = before + mark;
        }
    }
    *bytes_out = bytes;
    return clean;
}

/* Wiped, so that a core dump has none of them. */
void scrub_deinit(struct scrub *scrub) {
    for (size_t i = 0; i < scrub->count; i++) {
        explicit_bzero(scrub->secrets[i], strlen(scrub->secrets[i]));
        free(scrub->secrets[i]);
    }
    free(scrub->secrets);
    *scrub = (struct scrub){0};
}
