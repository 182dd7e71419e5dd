/* SPDX-License-Identifier: Apache-2.0
 *
 * Each endpoint is asked by a client of its own, all at once, for one transaction: it compares what
 * never holds, would then write what a broker writes, and reads instead what a broker reads. etcd
 * checks permission and room for both branches before it looks at the compare.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "directory/etcd/certificates.h"
#include "directory/etcd/endpoints.h"
#include "directory/etcd/etcd.h"
#include "directory/etcd/gateway.h"
#include "directory/etcd/record.h"
#include "directory/etcd/words.h"

#define PATIENCE_MS 2000u

struct trial {
    const char *endpoint;
    struct etcd *etcd;
    bool done, other; /* other: by http in place of https, or the other way round */
    enum etcd_result result;
    char why[ETCD_WHY_BYTES];
};

static void check_on_answer(void *context, enum etcd_result result,
                            const struct etcd_answer *answer, const char *why) {
    struct trial *trial = context;
    (void)answer;
    trial->done = true;
    trial->result = result;
    snprintf(trial->why, sizeof trial->why, "%s", why ? why : "");
}

/* "create_revision < 0" never holds, so etcd carries out the branch that reads; still it checks the
 * user's rights for both branches, and its space for the one that writes. This asks for every right
 * that a broker needs, and writes nothing. */
static void check_ask(struct trial *trial, const char *cluster, const char *node) {
    char self[ETCD_KEY_BYTES], sample[ETCD_KEY_BYTES], counter[ETCD_KEY_BYTES];
    char nodes[ETCD_KEY_BYTES], nodes_end[ETCD_KEY_BYTES];
    char samples[ETCD_KEY_BYTES], samples_end[ETCD_KEY_BYTES];
    etcd_node_key(self, cluster, node);
    etcd_sample_key(sample, cluster, "check", "check");
    etcd_generation_key(counter, cluster);
    etcd_range_of(nodes, nodes_end, cluster, "nodes");
    etcd_range_of(samples, samples_end, cluster, "samples");
    struct etcd_compare never = {
        .key = self, .target = ETCD_CREATE_REVISION, .relation = ETCD_LESS, .revision = 0};
    struct etcd_op writes[] = {{.kind = ETCD_PUT, .key = self, .value = ""},
                               {.kind = ETCD_PUT, .key = sample, .value = ""},
                               {.kind = ETCD_PUT, .key = counter, .value = ""}};
    struct etcd_op reads[] = {
        {.kind = ETCD_RANGE, .key = nodes, .range_end = nodes_end, .limit = 1},
        {.kind = ETCD_RANGE, .key = samples, .range_end = samples_end, .limit = 1}};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &never,
                                   .compare_count = 1,
                                   .success = writes,
                                   .success_count = 3,
                                   .failure = reads,
                                   .failure_count = 2};
    trial->etcd->ops->ask(trial->etcd, &request, PATIENCE_MS, check_on_answer, trial);
}

static bool check_all_done(const struct trial *trials, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!trials[i].done)
            return false;
    return true;
}

/* An endpoint that is no etcd at all (a web server, a proxy) gives an answer of another form. It is
 * an error like a refusal: waiting will not help. */
static bool check_refuses(const struct trial *trial) {
    return trial->result == ETCD_E_REFUSED || strstr(trial->why, "does not answer as") ||
           strstr(trial->why, " refuses:");
}

static bool check_hangs_up(const struct trial *trial) {
    return trial->result != ETCD_OK && strstr(trial->why, ETCD_HANGS_UP);
}

/* The first refusal ends it, because it is an error and one sentence is enough. An endpoint that
 * does not answer is a warning only: a member of etcd may be down while a configuration is checked.
 */
static int check_judge(const struct trial *trials, size_t count, char *why, size_t why_bytes,
                       char *warning, size_t warning_bytes) {
    for (size_t i = 0; i < count; i++) {
        if (trials[i].result == ETCD_OK)
            continue;
        bool refused = check_refuses(&trials[i]) || trials[i].other;
        snprintf(refused ? why : warning, refused ? why_bytes : warning_bytes, "[directory] %s",
                 trials[i].why);
        if (refused)
            return -EACCES;
    }
    return 0;
}

/* The first of them that cannot be asked ends it: then the rest has no client. */
static int check_try_all(uv_loop_t *loop, const struct etcd_client_options *options,
                         const char *cluster, const char *node, struct trial *trials, size_t count,
                         char *why, size_t why_bytes) {
    struct etcd_client_options one = *options;
    for (size_t i = 0; i < count; i++) {
        one.endpoints = trials[i].endpoint;
        int result = etcd_client_new(loop, &one, &trials[i].etcd, why, why_bytes);
        if (result < 0)
            return result;
        check_ask(&trials[i], cluster, node);
    }
    while (!check_all_done(trials, count) && uv_run(loop, UV_RUN_ONCE))
        ;
    return 0;
}

/* Whoever hangs up on http and answers https, or the other way round, is named wrongly in the
 * configuration; whoever hangs up on both is not there. */
static void check_try_other(uv_loop_t *loop, const struct etcd_client_options *options,
                            const char *cluster, const char *node, struct trial *trial) {
    char other[ETCD_URL_BYTES + 1], why[ETCD_WHY_BYTES];
    const char *endpoint = trial->endpoint;
    bool secure = strncmp(endpoint, "https", 5) == 0;
    struct etcd_client_options one = *options;
    struct trial second = {0};
    snprintf(other, sizeof other, "http%s%s", secure ? "" : "s", strstr(endpoint, "://"));
    one.endpoints = other;
    if (etcd_client_new(loop, &one, &second.etcd, why, sizeof why) < 0)
        return;
    check_ask(&second, cluster, node);
    while (!second.done && uv_run(loop, UV_RUN_ONCE))
        ;
    trial->other = second.result == ETCD_OK || check_refuses(&second);
    second.etcd->ops->destroy(second.etcd, 0);
}

/* The loop runs once more at the end, until it is empty: closing a client of libcurl's takes some
 * turns of the loop, and their memory would otherwise leak. */
int etcd_check(const struct etcd_client_options *options, const char *cluster, const char *node,
               char *why, size_t why_bytes, char *warning, size_t warning_bytes) {
    struct trial trials[ETCD_ENDPOINTS_MAX] = {0};
    char endpoints[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES];
    uv_loop_t loop;
    int result = etcd_certificates_check(options, why, why_bytes);
    if (result < 0 ||
        (result = etcd_endpoints_parse(options->endpoints, endpoints, why, why_bytes)) < 0)
        return result;
    size_t count = (size_t)result;
    for (size_t i = 0; i < count; i++)
        trials[i].endpoint = endpoints[i];
    if ((result = uv_loop_init(&loop)) < 0)
        return result;
    result = check_try_all(&loop, options, cluster, node, trials, count, why, why_bytes);
    for (size_t i = 0; i < count && !result; i++)
        if (check_hangs_up(&trials[i]))
            check_try_other(&loop, options, cluster, node, &trials[i]);
    if (!result)
        result = check_judge(trials, count, why, why_bytes, warning, warning_bytes);
    for (size_t i = 0; i < count; i++)
        if (trials[i].etcd)
            trials[i].etcd->ops->destroy(trials[i].etcd, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return result;
}
