/* SPDX-License-Identifier: Apache-2.0
 *
 * A key names what a call acts on: a ref (one generation at one home), or a sample_id (whatever
 * generation is current). Both go into the same message; by id the generation is 0 and the home is
 * empty.
 */
#include "key.h"

#include <string.h>

#include "error.h"
#include "sized.h"

/* From here on the library uses its own copy: a key of an older program may end early, and the
 * caller may reuse its struct as soon as the call has returned. */
int fc_key_read(const struct feature_store *store, const struct feature_key *theirs,
                struct feature_key *out) {
    if (!theirs)
        return fc_fail(FEATURE_E_INVALID, "no key was given: it is NULL");
    int rc = fc_sized_read(out, sizeof *out, FC_SIZED_UNTIL(struct feature_key, sample_id), theirs,
                           "feature_key");
    return rc ? rc : fc_key_check(store, *out);
}

/* A ref of another store is refused here. The broker would look for its generation in the wrong
 * store and say NOT_FOUND, which reads as if the sample were gone. */
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

/* The message borrows the strings: protobuf-c has `char *` where it reads only. */
void fc_key_fill(struct feature_key key, Fb__RetireItem *out) {
    fb__retire_item__init(out);
    out->sample_id = (char *)fc_key_sample_id(key);
    if (!key.ref)
        return;
    out->generation = key.ref->generation;
    out->home = (char *)key.ref->home;
    out->incarnation = key.ref->incarnation;
}
