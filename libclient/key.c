/* SPDX-License-Identifier: Apache-2.0 */
#include "key.h"

#include <string.h>

#include "error.h"
#include "sized.h"

int fc_key_read(const struct feature_store *store, const struct feature_key *theirs,
                struct feature_key *out) {
    if (!theirs)
        return fc_fail(FEATURE_E_INVALID, "no key was given: it is NULL");
    int rc = fc_sized_read(out, sizeof *out, FC_SIZED_UNTIL(struct feature_key, sample_id), theirs,
                           "feature_key");
    return rc ? rc : fc_key_check(store, *out);
}

int fc_key_check(const struct feature_store *store, struct feature_key key) {
    if (!key.ref == !key.sample_id)
        return fc_fail(FEATURE_E_INVALID, "a key has either a ref or a sample_id, this one has %s",
                       key.ref ? "both" : "neither");
    if (key.ref && strcmp(key.ref->store, store->name))
        return fc_fail(FEATURE_E_INVALID, "the ref of sample %s is of store %s, not of store %s",
                       key.ref->sample_id, key.ref->store, store->name);
    const char *wrong = key.ref ? NULL : layout_check_sample_id(key.sample_id);
    return wrong ? fc_fail(FEATURE_E_INVALID, "sample_id '%.140s' %s", key.sample_id, wrong)
                 : FEATURE_OK;
}

void fc_key_fill(struct feature_key key, Fb__RetireItem *out) {
    fb__retire_item__init(out);
    out->sample_id = (char *)fc_key_sample_id(key);
    if (!key.ref)
        return;
    out->generation = key.ref->generation;
    out->home = (char *)key.ref->home;
    out->incarnation = key.ref->incarnation;
}
