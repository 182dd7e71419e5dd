/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating and dropping stores: for admins, and without opening them.
 */
#include <sodium.h>

#include "error.h"
#include "proto/auth.h"
#include "request.h"
#include "sized.h"

/* Zero asks for the broker's default; only `readers` has one of its own here, since zero readers
 * would mean a sample that nobody can consume. */
static void store_create_fill_settings(Fb__StoreSettings *settings,
                                       const struct feature_store_options *options) {
    settings->policy = (Fb__Policy)options->policy;
    settings->readers = options->readers ? options->readers : 1;
    settings->max_resident_bytes = options->max_resident_bytes;
    settings->landing_bytes = options->landing_bytes;
    settings->max_hold_ms = options->max_hold_ms;
    settings->checksum = (Fb__ChecksumPolicy)options->checksum;
    settings->max_samples = options->max_samples;
}

/* The broker gets the key that is derived from the secret, over a socket that only this machine
 * has; the secret itself stays here. The copy on the stack is wiped. */
int feature_store_create(struct feature *feature, const char *name,
                         const struct feature_store_options *options) {
    struct feature_store_options known;
    FC_NEEDS(name);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = fc_sized_read(&known, sizeof known, sizeof(size_t), options, "feature_store_options");
    if (!rc)
        rc = fc_store_check_name(name);
    if (!rc)
        rc = fc_store_check_secret(known.secret, known.secret_bytes);
    if (rc)
        return rc;
    uint8_t key[AUTH_KEY_BYTES];
    Fb__StoreSettings settings = FB__STORE_SETTINGS__INIT;
    Fb__StoreCreate create = FB__STORE_CREATE__INIT;
    store_create_fill_settings(&settings, &known);
    create.store = (char *)name;
    create.settings = &settings;
    create.op_id = fc_connection_op_ids(feature, 1);
    if (known.secret) {
        auth_store_key(name, known.secret, known.secret_bytes, key);
        create.key = (ProtobufCBinaryData){.data = key, .len = sizeof key};
    }
    struct fc_request request = FC_REQUEST(.feature = feature, .what = "create a store");
    request.message.op_case = FB__CLIENT_REQUEST__OP_STORE_CREATE;
    request.message.store_create = &create;
    rc = fc_request(&request);
    fc_request_deinit(&request);
    sodium_memzero(key, sizeof key);
    return rc;
}

/* The broker carries it out once, however often it is asked: it knows the operation by its id. */
int feature_store_drop(struct feature *feature, const char *name) {
    FC_NEEDS(name);
    int rc = fc_connection_check(feature);
    if (!rc)
        rc = fc_store_check_name(name);
    if (rc)
        return rc;
    Fb__StoreDrop drop = FB__STORE_DROP__INIT;
    drop.store = (char *)name;
    drop.op_id = fc_connection_op_ids(feature, 1);
    struct fc_request request = FC_REQUEST(.feature = feature, .what = "drop a store");
    request.message.op_case = FB__CLIENT_REQUEST__OP_STORE_DROP;
    request.message.store_drop = &drop;
    rc = fc_request(&request);
    fc_request_deinit(&request);
    return rc;
}
