/* SPDX-License-Identifier: Apache-2.0
 *
 * Has a secret file changed since the start? A reload does not take a new secret, and says so.
 *
 * What is kept of a secret is a fingerprint, BLAKE2b keyed with a random number of this process's
 * own, which is of no use to anybody else.
 */
#include "secret_prints.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_BYTES_MAX 4096
#define PRINT_BYTES      16

struct secret_print {
    char what[CONFIG_NAME_MAX + 32]; /* "[store run0] secret_file" */
    char path[256];
    uint8_t print[PRINT_BYTES]; /* zeros: could not be read */
};

struct secret_prints {
    uint8_t key[crypto_generichash_KEYBYTES];
    size_t count;
    struct secret_print all[];
};

/* A file that cannot be read has a fingerprint of zeros. */
static int print_take(const struct secret_prints *prints, const char *path,
                      uint8_t out[PRINT_BYTES], char *why, size_t why_bytes) {
    uint8_t secret[SECRET_BYTES_MAX];
    int bytes = config_read_secret(path, secret, sizeof secret, why, why_bytes);
    memset(out, 0, PRINT_BYTES);
    if (bytes >= 0)
        crypto_generichash(out, PRINT_BYTES, secret, (size_t)bytes, prints->key,
                           sizeof prints->key);
    sodium_memzero(secret, sizeof secret);
    return bytes < 0 ? bytes : 0;
}

/* path "": there is no such secret. */
static void print_add(struct secret_prints *prints, const char *path, const char *section,
                      const char *name, const char *key) {
    struct secret_print *print = &prints->all[prints->count];
    char why[512];
    if (!*path)
        return;
    snprintf(print->what, sizeof print->what, "[%s%s] %s", section, name, key);
    snprintf(print->path, sizeof print->path, "%s", path);
    (void)print_take(prints, path, print->print, why, sizeof why); /* who needs it has said why */
    prints->count++;
}

/* One for each store that has a secret, and two of the node. */
int secret_prints_new(const struct config *config, struct secret_prints **out) {
    struct secret_prints *prints =
        calloc(1, sizeof *prints + (config->store_count + 2) * sizeof prints->all[0]);
    if (!prints)
        return -ENOMEM;
    randombytes_buf(prints->key, sizeof prints->key);
    print_add(prints, config->cluster_secret_file, "peers", "", "cluster_secret_file");
    print_add(prints, config->etcd_password_file, "directory", "", "password_file");
    for (size_t i = 0; i < config->store_count; i++)
        print_add(prints, config->stores[i].secret_file, "store ", config->stores[i].name,
                  "secret_file");
    *out = prints;
    return 0;
}

void secret_prints_free(struct secret_prints *prints) {
    free(prints);
}

/* The fingerprints are no secrets, so that memcmp() will do. */
bool secret_prints_compare(const struct secret_prints *prints,
                           void (*tell)(void *context, const char *what, const char *how),
                           void *context) {
    bool any = false;
    for (size_t i = 0; i < prints->count; i++) {
        const struct secret_print *print = &prints->all[i];
        uint8_t now[PRINT_BYTES];
        char why[512], what[sizeof print->what + sizeof print->path];
        int result = print_take(prints, print->path, now, why, sizeof why);
        if (result == 0 && memcmp(now, print->print, sizeof now) == 0)
            continue;
        snprintf(what, sizeof what, "%s %s", print->what, print->path);
        tell(context, what, result < 0 ? why : "has other content than at the start");
        any = true;
    }
    return any;
}
