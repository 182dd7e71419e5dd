/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known of a put: whether it is on its way to the index, still pursues the older homes, is
 * done, and how long ago it was.
 */
#include "exchange/publish_set.h"

bool publish_was_done(const struct broker *broker, const struct space *space, uint64_t generation) {
    struct store_info info;
    if (publish_set_by_generation(broker->exchange->publishings, space, generation, NULL))
        return false;
    return store_stat(space->store, NULL, 0, generation, &info) &&
           (info.state == STORE_RESIDENT || info.reason == STORE_CONSUMED ||
            info.reason == STORE_MAX_HOLD);
}

bool publish_pursues(const struct broker *broker, const struct space *space, const char *sample_id,
                     uint64_t generation) {
    struct publishing *at = NULL;
    if (generation) {
        do
            at = publish_set_by_generation(broker->exchange->publishings, space, generation, at);
        while (at && at->clears);
        return at;
    }
    do
        at = publish_set_by_sample(broker->exchange->publishings, space, sample_id, at);
    while (at && !at->published);
    return at;
}

bool publish_is_on_the_way(const struct broker *broker, const struct space *space,
                           const char *sample_id) {
    struct publishing *at = NULL;
    do
        at = publish_set_by_sample(broker->exchange->publishings, space, sample_id, at);
    while (at && at->published);
    return at;
}

bool publish_is_of(const struct broker *broker, const struct space *space, uint64_t generation) {
    return publish_set_by_generation(broker->exchange->publishings, space, generation, NULL);
}

bool publish_keeps_record(struct broker *broker, const struct space *space, uint64_t generation) {
    struct publishing *oldest = NULL, *at = NULL;
    while ((at = publish_set_by_generation(broker->exchange->publishings, space, generation, at)))
        oldest = at;
    if (oldest)
        oldest->record_due = true;
    return oldest;
}

uint64_t publish_age_us(const struct broker *broker, const struct space *space,
                        uint64_t generation) {
    struct store_info info;
    uint64_t late_ns = 0;
    if (!store_stat(space->store, NULL, 0, generation, &info))
        return 0;
    for (size_t i = 0; i < LATE_KEPT; i++)
        if (broker->exchange->late[i].generation == generation)
            late_ns = broker->exchange->late[i].ns;
    return (broker->now_ns - info.since_ns + late_ns) / 1000;
}
