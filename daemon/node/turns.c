/* SPDX-License-Identifier: Apache-2.0
 *
 * How long the turns of the loop take: everybody waits while one lasts, peers included. The longest
 * of the last minute is kept in parts of ten seconds.
 */
#include "node/node.h"

#define PART_NS         (10ull * 1000 * 1000 * 1000)
#define WARN_ABOVE_NS   (500 * NS_PER_MS)
#define WARN_APART_NS   (10ull * 1000 * 1000 * 1000)
#define NS_PER_MS_FLOAT 1e6

/* A part that is found with another number is of a minute ago or more: it begins anew. */
static struct turns_part *turns_part(struct turns *turns, uint64_t now_ns) {
    uint64_t number = now_ns / PART_NS + 1;
    struct turns_part *part = &turns->parts[number % TURNS_PARTS];
    if (part->number != number)
        *part = (struct turns_part){.number = number};
    return part;
}

/* Says what the turn did, for that is what tells a slow disk or a huge batch from a machine that is
 * overloaded. */
static void turns_warn(struct broker *broker, uint64_t turn_ns, uint64_t pump_ns) {
    const struct turns *turns = &broker->turns;
    log_warning(
        "node %s: one turn of the loop took %.0f ms, and everybody waited: %.0f ms for what "
        "came from clients, peers and etcd (%llu requests), %.0f ms for what was due (%llu "
        "requests' items ended, %llu effects of stores); %llu such turns since the last "
        "warning",
        broker->config->node, (double)turn_ns / NS_PER_MS_FLOAT,
        (double)(turn_ns - pump_ns) / NS_PER_MS_FLOAT,
        (unsigned long long)(broker->request_count - turns->requests_before),
        (double)pump_ns / NS_PER_MS_FLOAT,
        (unsigned long long)(broker->items_ended - turns->items_before),
        (unsigned long long)(broker->effects_done - turns->effects_before),
        (unsigned long long)turns->unwarned);
}

/* Told by the loop after each turn. Warnings come ten seconds apart at most: a node that is
 * overloaded should not spend its time on its log as well. */
void broker_turn_took(struct broker *broker, uint64_t now_ns, uint64_t turn_ns, uint64_t pump_ns) {
    struct turns *turns = &broker->turns;
    struct turns_part *part = turns_part(turns, now_ns);
    histogram_add(&broker->counts.turns, turn_ns);
    if (turn_ns > part->longest_ns)
        part->longest_ns = turn_ns;
    if (turn_ns > turns->longest_ns)
        turns->longest_ns = turn_ns;
    if (turn_ns > WARN_ABOVE_NS) {
        turns->unwarned++;
        if (now_ns >= turns->warn_from_ns) {
            turns_warn(broker, turn_ns, pump_ns);
            turns->warn_from_ns = now_ns + WARN_APART_NS;
            turns->unwarned = 0;
        }
    }
    turns->requests_before = broker->request_count;
    turns->items_before = broker->items_ended;
    turns->effects_before = broker->effects_done;
}

/* Parts that are older than the last minute do not count, even if nothing has come since that would
 * have replaced them. */
uint64_t turns_recent_ns(const struct broker *broker) {
    uint64_t longest_ns = 0, number = broker->now_ns / PART_NS + 1;
    for (uint32_t i = 0; i < TURNS_PARTS; i++) {
        const struct turns_part *part = &broker->turns.parts[i];
        if (part->number + TURNS_PARTS > number && part->longest_ns > longest_ns)
            longest_ns = part->longest_ns;
    }
    return longest_ns;
}
