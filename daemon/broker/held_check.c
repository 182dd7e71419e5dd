/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against what the index says: a generation that the index does not name has
 * been replaced by a put that did not live to tell us, and is retired. Checked
 *   - for another node that does not know what its put has replaced: it is told when that is done;
 *   - by ourselves when a node has died: all that we hold, a few at a time.
 *
 * A generation that is SEALED is on its way to the index: that it is not there yet proves nothing,
 * and who replaces it will name it.
 */
#include <stdlib.h>
#include <string.h>

#include "state.h"

#define OWN_IN_FLIGHT_MAX 64u
#define OWN_STEPS_MAX     1024u /* in one turn of the loop */
#define RETRY_NS          (1000 * NS_PER_MS)

struct held_check {
    TAILQ_ENTRY(held_check) link;
    struct broker *broker;
    struct asking *asking;   /* NULL: our own, or its connection is gone */
    struct account *charged; /* of the node that asks; NULL: our own */
    bool own;
    struct space *space;
    uint32_t request_id;
    uint64_t generation; /* what we held when it began */
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
};

static void walk_again(struct held_walk *walk, uint64_t at_ns) {
    walk->again = true;
    walk->next_ns = at_ns;
}

/* A record of ours that names another generation than the one held is on its way to be put right
 * (publish.c, reconcile.c). */
static bool is_in_flux(const struct held_check *check, const struct directory_record *record) {
    const struct broker *broker = check->broker;
    return record && record->generation != check->generation &&
           record->incarnation == broker->options.incarnation &&
           !strcmp(record->home, broker->config->node);
}

static void on_checked(void *context, enum directory_result result,
                       const struct directory_record *record, bool ask_peers) {
    (void)ask_peers;
    struct held_check *check = context;
    struct broker *broker = check->broker;
    bool known = (record && !is_in_flux(check, record)) || result == DIRECTORY_E_NOT_FOUND;
    bool named = record && record->generation == check->generation;
    bool retired;
    if (known && !named)
        store_retire(check->space->store, check->sample_id, (uint32_t)strlen(check->sample_id),
                     check->generation, STORE_SUPERSEDED, broker->now_ns, &retired);
    if (check->asking)
        serve_refuse(check->asking, check->request_id,
                     known ? FB__STATUS__OK : FB__STATUS__UNAVAILABLE,
                     known ? "" : "the directory cannot say now who holds it");
    if (check->own && !known)
        walk_again(&broker->held_walk, broker->now_ns + RETRY_NS);
    broker->held_walk.in_flight -= check->own;
    TAILQ_REMOVE(&broker->held_checks, check, link);
    check->space->uses--;
    if (check->charged)
        accounts_release(broker, check->charged, CHARGE_WAITS, 1);
    free(check);
}

/* asking NULL: on our own behalf. False: out of memory. */
static bool begin(struct broker *broker, struct asking *asking, uint32_t request_id,
                  struct space *space, const struct store_info *held) {
    struct held_check *check = calloc(1, sizeof *check);
    if (!check)
        return false;
    *check = (struct held_check){.broker = broker,
                                 .asking = asking,
                                 .charged = asking ? asking->account : NULL,
                                 .own = !asking,
                                 .space = space,
                                 .request_id = request_id,
                                 .generation = held->generation};
    strcpy(check->sample_id, held->sample_id);
    space->uses++;
    if (check->charged)
        account_add(check->charged, CHARGE_WAITS, 1);
    broker->held_walk.in_flight += check->own;
    TAILQ_INSERT_TAIL(&broker->held_checks, check, link);
    broker->directory->ops->locate(broker->directory, space->name, check->sample_id, on_checked,
                                   check);
    return true;
}

static bool holds(const struct space *space, const char *sample_id, struct store_info *info) {
    return !layout_check_sample_id(sample_id) &&
           store_stat(space->store, sample_id, (uint32_t)strlen(sample_id), 0, info) &&
           !info->landing && info->state == STORE_RESIDENT;
}

bool held_check_serve(struct asking *asking, uint32_t request_id, struct space *space,
                      const char *sample_id) {
    struct store_info info;
    if (publish_is_on_the_way(asking->broker, space, sample_id)) {
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE,
                     "a put of it is on its way to the index");
        return true;
    }
    if (!holds(space, sample_id, &info))
        return false;
    if (!begin(asking->broker, asking, request_id, space, &info))
        serve_refuse(asking, request_id, FB__STATUS__UNAVAILABLE, "the home is out of memory");
    return true;
}

void held_checks_forget(struct broker *broker, const struct asking *asking) {
    struct held_check *check;
    TAILQ_FOREACH (check, &broker->held_checks, link)
        if (check->asking == asking)
            check->asking = NULL;
}

/* ---- our own ---- */

void held_check_own(struct broker *broker, struct space *space, const char *sample_id) {
    struct store_info info;
    if (!publish_is_on_the_way(broker, space, sample_id) && holds(space, sample_id, &info) &&
        !begin(broker, NULL, 0, space, &info))
        walk_again(&broker->held_walk, broker->now_ns + RETRY_NS);
}

void held_check_all(struct broker *broker) {
    if (broker->directory->ops->index && !BROKER_PLANTED(PLANTED_DEATH_UNCHECKED))
        walk_again(&broker->held_walk, broker->now_ns);
}

bool held_checks_are_due(const struct broker *broker) {
    return broker->held_walk.walking || broker->held_walk.again;
}

/* False: all stores have been walked. */
static bool step(struct broker *broker, struct held_walk *walk) {
    if (walk->space >= broker->space_end)
        return false;
    struct store_info info;
    struct space *space = &broker->spaces[walk->space];
    if (!space->used || space->dropped || !store_list_next(space->store, &walk->cursor, &info)) {
        walk->space++;
        walk->cursor = 0;
        return true;
    }
    if (info.state == STORE_RESIDENT && !info.landing)
        held_check_own(broker, space, info.sample_id);
    return true;
}

void held_checks_pump(struct broker *broker, uint64_t now_ns) {
    struct held_walk *walk = &broker->held_walk;
    if (!walk->walking && walk->again && walk->next_ns <= now_ns)
        *walk = (struct held_walk){.walking = true, .in_flight = walk->in_flight};
    for (uint32_t i = 0; walk->walking && i < OWN_STEPS_MAX && walk->in_flight < OWN_IN_FLIGHT_MAX;
         i++)
        walk->walking = step(broker, walk);
}

uint64_t held_checks_next_deadline_ns(const struct broker *broker) {
    const struct held_walk *walk = &broker->held_walk;
    if (walk->walking)
        return walk->in_flight < OWN_IN_FLIGHT_MAX ? 0 : UINT64_MAX;
    return walk->again ? walk->next_ns : UINT64_MAX;
}
