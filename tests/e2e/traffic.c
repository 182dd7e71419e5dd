/* SPDX-License-Identifier: Apache-2.0
 *
 * A round of one worker, about one sample: put here, get elsewhere by ref and by id, re-put
 * elsewhere, see the old one gone, abort at a third node, see all gone. An operation that was
 * refused leaves it open what is true of its sample: the round ends there and the sample is aborted
 * once the faults are over.
 */
#include "e2e/traffic.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "support/checks.h"

#define PUT_MS    500u
#define GET_MS    500u
#define SETTLE_MS 90000u
#define BYTES     3000u
#define BATCH     100u

struct traffic_round {
    struct traffic_worker *worker;
    uint32_t number;
    struct payload payloads[2];
    struct feature_ref *refs[2];
};

/* ---- one operation ---- */

static void violation(struct traffic_worker *worker, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void violation(struct traffic_worker *worker, const char *format, ...) {
    char what[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    fprintf(stderr, "traffic of node %c: violation: %s\n", 'a' + (int)worker->node, what);
    worker->violations++;
}

static bool may_refuse(const struct traffic_worker *worker, int status) {
    return status == FEATURE_E_UNAVAILABLE || status == FEATURE_E_TIMEOUT ||
           (status == FEATURE_E_LOST && worker->traffic->homes_may_die);
}

/* True when it was done. allowed: a further status that is an answer, not a refusal. */
static bool settled(struct traffic_worker *worker, const char *what, const char *sample_id,
                    int status, int allowed) {
    worker->operations++;
    if (status == FEATURE_OK || status == allowed)
        return true;
    worker->refused++;
    if (!may_refuse(worker, status))
        violation(worker, "%s %s: %s: %s", what, sample_id, feature_strerror(status),
                  feature_last_error());
    return false;
}

static uint32_t nodes_of(const struct traffic_round *round) {
    return round->worker->traffic->world->cluster.count;
}

static struct feature_store *store_at(const struct traffic_round *round, uint32_t distance) {
    return round->worker->stores[(round->worker->node + distance) % nodes_of(round)];
}

static bool put(struct traffic_round *round, uint32_t distance, uint32_t which) {
    struct traffic_worker *worker = round->worker;
    const struct payload *payload = &round->payloads[which];
    uint64_t begun_ms = check_now_ms();
    int status = payload_put(payload, store_at(round, distance), PUT_MS, &round->refs[which]);
    if (status == FEATURE_OK && distance == 0)
        worker->put_ms = begun_ms;
    return settled(worker, "put", payload->sample_id, status, FEATURE_OK);
}

/* What is current must be got, bit for bit, or the get be refused. */
static bool get_current(struct traffic_round *round, uint32_t distance,
                        const struct feature_key *key, uint32_t which) {
    const struct payload *payload = &round->payloads[which];
    struct feature_get_options options = {.size = sizeof options, .deadline_ms = GET_MS};
    struct feature_view *view = NULL;
    int status = feature_get(store_at(round, distance), key, &options, &view);
    const char *why = view != NULL ? payload_difference(payload, view) : NULL;
    if (why != NULL)
        violation(round->worker, "get %s: %s", payload->sample_id, why);
    feature_release(view, FEATURE_RELEASE_RETURNED);
    return settled(round->worker, "get of what is current,", payload->sample_id, status,
                   FEATURE_OK);
}

/* What was superseded or aborted must not be got by anybody. */
static void get_gone(struct traffic_round *round, const struct feature_key *key, const char *what) {
    struct traffic_worker *worker = round->worker;
    for (uint32_t distance = 0; distance < nodes_of(round); distance++) {
        int status = world_try_get(store_at(round, distance), key, GET_MS);
        if (status == FEATURE_OK)
            violation(worker, "node %c still gives %s, which was %s",
                      'a' + (int)((worker->node + distance) % nodes_of(round)),
                      round->payloads[0].sample_id, what);
        else
            settled(worker, "get of what is gone,", round->payloads[0].sample_id, status,
                    FEATURE_E_NOT_FOUND);
    }
}

/* ---- a round ---- */

static bool play(struct traffic_round *round) {
    const char *sample_id = round->payloads[0].sample_id;
    const struct feature_key *key = by_id(sample_id);
    if (!put(round, 0, 0) || !get_current(round, 1, by_ref(round->refs[0]), 0) ||
        !get_current(round, 2, key, 0) || !put(round, 1, 1))
        return false;
    get_gone(round, by_ref(round->refs[0]), "superseded");
    if (!get_current(round, 0, by_ref(round->refs[1]), 1) || !get_current(round, 2, key, 1) ||
        !settled(round->worker, "abort", sample_id, feature_abort(store_at(round, 2), key, 1, NULL),
                 FEATURE_OK))
        return false;
    get_gone(round, key, "aborted");
    get_gone(round, by_ref(round->refs[1]), "aborted");
    return true;
}

static void name(const struct traffic_worker *worker, uint32_t number, char out[32]) {
    snprintf(out, 32, "traffic %c %u", 'a' + (int)worker->node, number);
}

static void *run_worker(void *context) {
    struct traffic_worker *worker = context;
    for (uint32_t number = 0; !worker->traffic->stop && number < TRAFFIC_ROUNDS_MAX; number++) {
        struct traffic_round round = {.worker = worker, .number = number};
        char sample_id[32];
        name(worker, number, sample_id);
        for (uint32_t i = 0; i < 2; i++)
            payload_init(&round.payloads[i], sample_id, number * 2 + i, BYTES);
        bool round_was_whole = play(&round);
        if (round_was_whole)
            worker->done[number / 64] |= 1ull << number % 64;
        worker->rounds = number + 1;
        for (uint32_t i = 0; i < 2; i++) {
            payload_deinit(&round.payloads[i]);
            feature_ref_free(round.refs[i]);
        }
        check_pause(round_was_whole ? 2 : 20);
    }
    return NULL;
}

void traffic_start(struct traffic *traffic, struct index_world *world) {
    memset(traffic, 0, sizeof *traffic);
    traffic->world = world;
    traffic->homes_may_die = world->cluster.lease_ttl_ms <= CLUSTER_TTL_SHORT_MS;
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        struct traffic_worker *worker = &traffic->workers[i];
        worker->traffic = traffic;
        worker->node = i;
        for (uint32_t node = 0; node < world->cluster.count; node++) {
            worker->features[node] = cluster_connect(&world->cluster, node);
            worker->stores[node] = cluster_open(worker->features[node], "run", false);
        }
        CHECK(pthread_create(&worker->thread, NULL, run_worker, worker) == 0, "no thread");
    }
}

/* ---- what the test sees ---- */

uint64_t traffic_await_put(struct traffic *traffic, uint32_t node) {
    uint64_t begin_ms = check_now_ms();
    WAIT_UNTIL(traffic->workers[node].put_ms > begin_ms, SETTLE_MS);
    return check_now_ms() - begin_ms;
}

uint64_t traffic_await_all(struct traffic *traffic) {
    uint64_t begin_ms = check_now_ms();
    for (uint32_t i = 0; i < traffic->world->cluster.count; i++)
        WAIT_UNTIL(traffic->workers[i].put_ms > begin_ms, SETTLE_MS);
    return check_now_ms() - begin_ms;
}

/* Until no put is on its way any more: one that was given up (TIMEOUT) may land for as long as the
 * directory has not answered its broker. Asked over the connections that put, so that their brokers
 * have read those puts before. */
static void await_rest(struct traffic_worker *worker) {
    for (uint32_t node = 0; node < worker->traffic->world->cluster.count; node++)
        WAIT_UNTIL(feature_drain(worker->features[node], GET_MS) == FEATURE_OK, SETTLE_MS);
}

/* Aborts what was left open. */
static void clean_up(struct traffic_worker *worker) {
    char sample_ids[BATCH][32];
    struct feature_key keys[BATCH];
    size_t open = 0;
    for (uint32_t number = 0; number < worker->rounds; number++) {
        if (!(worker->done[number / 64] >> number % 64 & 1)) {
            name(worker, number, sample_ids[open]);
            keys[open] = *by_id(sample_ids[open]);
            open++;
        }
        bool full = open == BATCH || (open > 0 && number + 1 == worker->rounds);
        if (full)
            WAIT_UNTIL(feature_abort(worker->stores[worker->node], keys, open, NULL) == FEATURE_OK,
                       SETTLE_MS);
        open = full ? 0 : open;
    }
}

struct left {
    uint64_t count;
    char first[256]; /* one of them, in words */
    const char *node;
};

static bool note_left(void *context, const struct feature_info *info) {
    struct left *left = context;
    if (left->count++ == 0)
        snprintf(left->first, sizeof left->first,
                 "node %s: %s, generation %" PRIu64 ", state %d, %u leases, age %" PRIu64 " ms",
                 left->node, info->sample_id, info->generation, (int)info->state, info->leases,
                 info->age_ms);
    return true;
}

static struct left left_over(struct index_world *world) {
    struct left left = {.count = cluster_etcd_count(&world->cluster, "samples/run/traffic")};
    if (left.count > 0)
        snprintf(left.first, sizeof left.first, "a record in etcd");
    for (uint32_t i = 0; i < world->cluster.count; i++) {
        left.node = world->cluster.nodes[i].name;
        CHECK_OK(feature_list(world->run[i], "traffic", note_left, &left));
    }
    return left;
}

void traffic_stop(struct traffic *traffic, const char *what, uint64_t recovered_ms) {
    uint64_t operations = 0, refused = 0, violations = 0;
    uint32_t nodes = traffic->world->cluster.count;
    traffic->stop = true;
    for (uint32_t i = 0; i < nodes; i++) {
        pthread_join(traffic->workers[i].thread, NULL);
        operations += traffic->workers[i].operations;
        refused += traffic->workers[i].refused;
        violations += traffic->workers[i].violations;
    }
    for (uint32_t i = 0; i < nodes; i++)
        await_rest(&traffic->workers[i]);
    for (uint32_t i = 0; i < nodes; i++)
        clean_up(&traffic->workers[i]);
    uint64_t end_ms = check_now_ms() + SETTLE_MS;
    struct left left;
    while ((left = left_over(traffic->world)).count != 0) /* copies, records: gone in a moment */
        CHECK(check_now_ms() < end_ms, "%" PRIu64 " samples are left: %s", left.count, left.first);
    for (uint32_t i = 0; i < nodes; i++)
        for (uint32_t node = 0; node < nodes; node++)
            feature_disconnect(traffic->workers[i].features[node]);
    fprintf(stderr,
            "index: %s: recovered in %" PRIu64 " ms; %" PRIu64 " of %" PRIu64
            " operations refused; violations = %" PRIu64 "\n",
            what, recovered_ms, refused, operations, violations);
    CHECK(violations == 0, "%" PRIu64 " violations", violations);
}
