/* SPDX-License-Identifier: Apache-2.0
 *
 * Refs to and from the messages and records that carry them.
 */
#include "node/ref.h"

#include <string.h>

/* The names come from a client or a peer, and go into buffers of fixed size: nothing is copied
 * before both have been checked. */
const char *ref_set(struct ref *ref, const char *sample_id, uint64_t generation, const char *home,
                    uint64_t incarnation) {
    if (layout_check_sample_id(sample_id) || (*home && layout_check_name(home)))
        return "the sample_id or the home of the ref is malformed";
    strcpy(ref->sample_id, sample_id); /* both have been checked: they fit */
    strcpy(ref->home, home);
    ref->generation = generation;
    ref->incarnation = incarnation;
    return NULL;
}

const char *ref_from_item(struct ref *ref, const Fb__RetireItem *item) {
    return ref_set(ref, item->sample_id, item->generation, item->home, item->incarnation);
}

/* The casts are safe: protobuf-c declares its strings without const, and packing changes nothing.
 */
void ref_to_item(const struct ref *ref, Fb__RetireItem *item) {
    fb__retire_item__init(item);
    item->sample_id = (char *)ref->sample_id;
    item->generation = ref->generation;
    item->home = (char *)ref->home;
    item->incarnation = ref->incarnation;
}

/* The id stays: it is what was looked for. */
void ref_locate(struct ref *ref, const struct directory_record *record) {
    strncpy(ref->home, record->home, sizeof ref->home - 1);
    ref->generation = record->generation;
    ref->incarnation = record->incarnation;
}

struct directory_record ref_record(const struct ref *ref, const char *store) {
    return (struct directory_record){.store = store,
                                     .sample_id = ref->sample_id,
                                     .home = ref->home,
                                     .generation = ref->generation,
                                     .incarnation = ref->incarnation};
}

bool ref_is_at(const struct ref *ref, const char *node) {
    return !*ref->home || !strcmp(ref->home, node);
}
