/* SPDX-License-Identifier: Apache-2.0
 *
 * Each endpoint is asked by a client of its own, all at once, for one transaction: it compares what
 * never holds, would then write what a broker writes, and reads instead what a broker reads. etcd
 * checks permission and room for both branches before it looks at the compare.
 */
#include "etcd_check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "etcd_certificates.h"
#include "etcd_record.h"
#include "etcd_words.h"

#define PATIENCE_MS 2000u

struct trial {
    struct etcd *etcd;
    bool done, other; /* other: by http in place of https, or the other way round */
    enum etcd_result result;
    char why[ETCD_WHY_BYTES];
};

static void on_answer(void *context, enum etcd_result result, const struct etcd_answer *answer,
                      const char *why) {
    struct trial *trial = context;
    (void)answer;
    trial->done = true;
    trial->result = result;
    snprintf(trial->why, sizeof trial->why, "%s", why ? why : "");
}

static void ask(struct trial *trial, const char *cluster, const char *node) {
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
    trial->etcd->ops->ask(trial->etcd, &request, PATIENCE_MS, on_answer, trial);
}

/* The next endpoint of the list; false: there are no more. */
static bool next_endpoint(const char **text, char out[ETCD_URL_BYTES]) {
    *text += strspn(*text, ", \t");
    size_t bytes = strcspn(*text, ", \t");
    snprintf(out, ETCD_URL_BYTES, "%.*s", (int)bytes, *text);
    *text += bytes;
    return bytes > 0;
}

static bool all_done(const struct trial *trials, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!trials[i].done)
            return false;
    return true;
}

/* What is no answer of etcd's is as good as a refusal. */
static bool refuses(const struct trial *trial) {
    return trial->result == ETCD_E_REFUSED || strstr(trial->why, "does not answer as") ||
           strstr(trial->why, " refuses:");
}

static bool hangs_up(const struct trial *trial) {
    return trial->result != ETCD_OK && strstr(trial->why, ETCD_HANGS_UP);
}

static int judge(const struct trial *trials, size_t count, char *why, size_t why_bytes,
                 char *warning, size_t warning_bytes) {
    for (size_t i = 0; i < count; i++) {
        if (trials[i].result == ETCD_OK)
            continue;
        bool refused = refuses(&trials[i]) || trials[i].other;
        snprintf(refused ? why : warning, refused ? why_bytes : warning_bytes, "[directory] %s",
                 trials[i].why);
        if (refused)
            return -EACCES;
    }
    return 0;
}

static int try_all(uv_loop_t *loop, const struct etcd_client_options *options, const char *cluster,
                   const char *node, struct trial *trials, size_t *count, char *why,
                   size_t why_bytes) {
    char endpoint[ETCD_URL_BYTES];
    struct etcd_client_options one = *options;
    one.endpoints = endpoint;
    for (const char *text = options->endpoints;
         *count < ETCD_ENDPOINTS_MAX && next_endpoint(&text, endpoint);) {
        int result = etcd_client_new(loop, &one, &trials[*count].etcd, why, why_bytes);
        if (result < 0)
            return result;
        ask(&trials[(*count)++], cluster, node);
    }
    while (!all_done(trials, *count) && uv_run(loop, UV_RUN_ONCE))
        ;
    return 0;
}

/* Whoever hangs up on http and answers https, or the other way round, is named wrongly in the
 * configuration; whoever hangs up on both is not there. */
static void try_other(uv_loop_t *loop, const struct etcd_client_options *options,
                      const char *cluster, const char *node, const char *endpoint,
                      struct trial *trial) {
    char other[ETCD_URL_BYTES + 1], why[ETCD_WHY_BYTES];
    bool secure = strncmp(endpoint, "https", 5) == 0;
    struct etcd_client_options one = *options;
    struct trial second = {0};
    snprintf(other, sizeof other, "http%s%s", secure ? "" : "s", strstr(endpoint, "://"));
    one.endpoints = other;
    if (etcd_client_new(loop, &one, &second.etcd, why, sizeof why) < 0)
        return;
    ask(&second, cluster, node);
    while (!second.done && uv_run(loop, UV_RUN_ONCE))
        ;
    trial->other = second.result == ETCD_OK || refuses(&second);
    second.etcd->ops->destroy(second.etcd, 0);
}

static void try_others(uv_loop_t *loop, const struct etcd_client_options *options,
                       const char *cluster, const char *node, struct trial *trials, size_t count) {
    char endpoint[ETCD_URL_BYTES];
    const char *text = options->endpoints;
    for (size_t i = 0; i < count && next_endpoint(&text, endpoint); i++)
        if (hangs_up(&trials[i]))
            try_other(loop, options, cluster, node, endpoint, &trials[i]);
}

int etcd_check(const struct etcd_client_options *options, const char *cluster, const char *node,
               char *why, size_t why_bytes, char *warning, size_t warning_bytes) {
    struct trial trials[ETCD_ENDPOINTS_MAX] = {0};
    size_t count = 0;
    uv_loop_t loop;
    int result = etcd_certificates_check(options, why, why_bytes);
    if (result < 0)
        return result;
    if ((result = uv_loop_init(&loop)) < 0)
        return result;
    result = try_all(&loop, options, cluster, node, trials, &count, why, why_bytes);
    if (!result)
        try_others(&loop, options, cluster, node, trials, count);
    if (!result)
        result = judge(trials, count, why, why_bytes, warning, warning_bytes);
    for (size_t i = 0; i < count; i++)
        trials[i].etcd->ops->destroy(trials[i].etcd, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return result;
}
