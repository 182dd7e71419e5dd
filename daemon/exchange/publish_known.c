/* SPDX-License-Identifier: Apache-2.0
 *
 * What others want to know of a put: whether it is on its way to the index, still pursues older
 * homes, is over, and how long ago it was. Each is one look into the set of cluster/.
 */
#include "exchange/publish.h"

/* A put is over when it was answered. What is resident and not under way was answered; what readers
 * consumed, or what stood for max_hold, was resident before. */
bool publish_was_done(const struct broker *broker, const struct space *space, uint64_t generation) {
    struct store_info info;
    if (publish_is_of(broker, space, generation))
        return false;
    return store_stat(space->store, NULL, 0, generation, &info) &&
           (info.state == STORE_RESIDENT || info.reason == STORE_CONSUMED ||
            info.reason == STORE_MAX_HOLD);
}

/* Of one generation only its own put counts: a repair of its record has nothing to answer. Of a
 * sample any put or end counts, for each of them asks other nodes. */
bool publish_pursues(const struct broker *broker, const struct space *space, const char *sample_id,
                     uint64_t generation) {
    const struct supersede_set *set = broker->exchange->publishings;
    return generation ? supersede_of_generation(set, space->index, generation, SUPERSEDE_PUTS)
                      : supersede_of_sample(set, space->index, sample_id, SUPERSEDE_IN_THE_INDEX);
}

bool publish_is_on_the_way(const struct broker *broker, const struct space *space,
                           const char *sample_id) {
    return supersede_of_sample(broker->exchange->publishings, space->index, sample_id,
                               SUPERSEDE_ON_THE_WAY);
}

bool publish_is_of(const struct broker *broker, const struct space *space, uint64_t generation) {
    return supersede_of_generation(broker->exchange->publishings, space->index, generation,
                                   SUPERSEDE_ANY);
}

bool publish_keeps_record(struct broker *broker, const struct space *space, uint64_t generation) {
    return supersede_defer_removal(broker->exchange->publishings, space->index, generation);
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
