/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. How many readers a sample waits for is a setting of its store, and so are policy and
 * checksums: a store that is made here has those of the store that was exported. One that is there
 * already keeps its own.
 */
#include "featurectl/restore.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/each_store.h"
#include "featurectl/export_dir.h"
#include "featurectl/manifest.h"
#include "featurectl/memory.h"

/* The keys with their quotes, colons and commas. */
#define MORE_KEYS_BYTES 64u

/* The secret is not part of an export: it is the one of --secret-file, or the new store has
 * none.
 */
static int restore_make_store(struct context *context, const char *name,
                              struct export_settings *settings) {
    uint8_t secret[SECRET_BYTES_MAX];
    int status = context_read_secret(context, secret, &settings->options.secret_bytes);
    if (status)
        return status;
    settings->options.secret = settings->options.secret_bytes ? secret : NULL;
    status = feature_store_create(context->feature, name, &settings->options);
    sodium_memzero(secret, sizeof secret);
    return status ? context_fail(context, status, name) : FEATURE_OK;
}

/* NULL: this node has no such store. */
static const Fb__StoreSettings *restore_find(const Fb__StoresReply *stores, const char *name) {
    for (size_t i = 0; i < stores->n_stores; i++)
        if (strcmp(stores->stores[i]->store, name) == 0)
            return stores->stores[i]->settings;
    return NULL;
}

/* Sizes may differ without a word, for the other node may be smaller. Policy and readers decide
 * how long a sample lives, so that another one is told.
 */
static int restore_store(struct context *context, const char *name,
                         struct export_settings *settings) {
    Fb__ClientReply *reply;
    int status = each_store_fetch(context, &reply);
    if (status)
        return status;
    const Fb__StoreSettings *here = restore_find(reply->stores, name);
    if (!here)
        status = restore_make_store(context, name, settings);
    else if (here->policy != (Fb__Policy)settings->options.policy ||
             here->readers != settings->options.readers)
        context_warn(context, name,
                     "has another policy or other readers than store %s had when it was exported; "
                     "the samples will live by those of %s",
                     settings->store, name);
    context_free_reply(reply);
    return status;
}

/* One line that is damaged costs its own sample, as in every manifest. */
static void restore_say_line(void *user, size_t line, const char *why) {
    char *object = memory_print(EXPORT_MANIFEST ":%zu", line);
    context_warn(user, object, "%s", why);
    free(object);
}

/* Reads the manifest first and makes the store afterwards. A damaged directory is refused before
 * anything was made. */
int restore_begin(struct context *context, const char *directory, const char *store_name,
                  struct targets *out) {
    struct export_settings settings;
    char why[512];
    *out = (struct targets){0};
    int error = export_settings_read(directory, &settings, why, sizeof why);
    if (error == -ENOENT)
        return FEATURE_OK;
    if (error)
        return context_refuse(context, CTL_E_LOCAL, directory, "%s", why);
    char *path = export_path(directory, EXPORT_MANIFEST);
    int status = manifest_read(out, path, NULL, restore_say_line, context, why, sizeof why);
    if (status)
        context_refuse(context, status, path, "%s", why);
    free(path);
    return status ? status : restore_store(context, store_name, &settings);
}

/* A ref that cannot be encoded is null; the sample is there all the same. */
json_t *restore_more(const struct feature_ref *was) {
    char *uri = refs_to_uri(was), *base64 = refs_to_base64(was);
    json_t *more = json_pack("{s:s?, s:s?}", "old_uri", uri, "old_ref", base64);
    free(uri);
    free(base64);
    return more;
}

/* Base64 and URIs have no character that JSON would write longer. */
size_t restore_more_bytes(const struct feature_ref *was) {
    char *uri = refs_to_uri(was), *base64 = refs_to_base64(was);
    size_t bytes = MORE_KEYS_BYTES + (uri ? strlen(uri) : 0) + (base64 ? strlen(base64) : 0);
    free(uri);
    free(base64);
    return bytes;
}
