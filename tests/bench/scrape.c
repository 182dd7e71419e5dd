/* SPDX-License-Identifier: Apache-2.0
 *
 * What it costs to watch a large node: one with 256 stores, 64 peers (none of which can be reached)
 * and a million resident samples. How long a scrape of /metrics takes, and whether gets notice it.
 *
 * scrape_lag is what a scrape adds to the waiting of others: how long the loop copies numbers in
 * one turn. Gets are timed while nobody scrapes and while a thread scrapes ten times a second,
 * which is 150 times as often as Prometheus does.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/brokers.h"
#include "bench/rounds.h"

#define STORES       256u
#define PEERS        64u
#define BATCH        256u
#define SAMPLES      1000000u
#define ANSWER_BYTES (16u << 20)
#define PAUSE_MS     100

struct scene {
    struct brokers brokers;
    struct feature *feature;
    struct feature_store *stores[STORES];
    uint16_t port;
    char *answer;
    size_t answer_bytes;
};

/* ---- a node as large as it gets ---- */

static int start(struct scene *scene, const struct bench *bench) {
    static char settings[7000];
    int at = snprintf(settings, sizeof settings,
                      "[memory]\nmax_resident_bytes = 2GiB\nprefault = on\n"
                      "[stores]\npolicy = retain\nmax_resident_bytes = 2MiB\n"
                      "landing_bytes = 4KiB\nmax_samples = 8192\nmax_stores = 256\n");
    for (unsigned i = 0; i < STORES; i++)
        at += snprintf(settings + at, sizeof settings - (size_t)at, "[store s%u]\n", i);
    for (unsigned i = 0; i < PEERS; i++)
        at += snprintf(settings + at, sizeof settings - (size_t)at,
                       "[peer p%u]\naddress = 127.0.0.1:1\n", i);
    snprintf(settings + at, sizeof settings - (size_t)at, "[ops]\nhttp = 127.0.0.1:0\n");
    return brokers_start(&scene->brokers, bench, 1, settings);
}

/* The broker took a free port, and its log says which. */
static int find_port(struct scene *scene) {
    char line[1024];
    unsigned port = 0;
    FILE *log = fopen(scene->brokers.list[0].log_path, "re");
    while (log != NULL && port == 0 && fgets(line, sizeof line, log) != NULL) {
        const char *url = strstr(line, "metrics at http://127.0.0.1:");
        if (url != NULL)
            sscanf(url, "metrics at http://127.0.0.1:%u/", &port);
    }
    if (log != NULL)
        fclose(log);
    scene->port = (uint16_t)port;
    return port != 0 ? 0 : bench_fail("the log does not say where metrics are");
}

static int fill_store(struct scene *scene, unsigned number, unsigned count) {
    static const char zeros[64];
    static const struct feature_tensor tensor = {.size = sizeof(struct feature_tensor),
                                                 .name = "x",
                                                 .dtype = FEATURE_DTYPE_U8,
                                                 .rank = 1,
                                                 .shape = {sizeof zeros}};
    const struct iovec data = {(void *)(uintptr_t)zeros, sizeof zeros};
    char name[16], ids[BATCH][16];
    snprintf(name, sizeof name, "s%u", number);
    if (broker_open_store(scene->feature, name, &scene->stores[number]) != 0)
        return -1;
    for (unsigned first = 0; first < count; first += BATCH) {
        struct feature_sample samples[BATCH];
        struct feature_put_item items[BATCH];
        const unsigned batch = count - first < BATCH ? count - first : BATCH;
        for (unsigned i = 0; i < batch; i++) {
            snprintf(ids[i], sizeof ids[i], "%u", first + i);
            samples[i] = (struct feature_sample){.size = sizeof samples[i],
                                                 .sample_id = ids[i],
                                                 .tensors = &tensor,
                                                 .tensor_count = 1};
            items[i] = (struct feature_put_item){
                .size = sizeof items[i], .sample = &samples[i], .data = &data};
        }
        const int status = feature_put_batch(scene->stores[number], items, batch, 0);
        for (unsigned i = 0; i < batch; i++)
            feature_ref_free(items[i].ref);
        if (status != FEATURE_OK)
            return bench_fail_feature("filling", status);
    }
    return 0;
}

/* ---- scraping ---- */

/* The answer, head included, until the broker closes. Thread-safe for one caller at a time. */
static int scrape(void *context) {
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                                  "Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    struct scene *scene = context;
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(scene->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ssize_t got = 0;
    scene->answer_bytes = 0;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1)
        while ((got = recv(fd, scene->answer + scene->answer_bytes,
                           ANSWER_BYTES - 1 - scene->answer_bytes, 0)) > 0)
            scene->answer_bytes += (size_t)got;
    if (fd >= 0)
        close(fd);
    scene->answer[scene->answer_bytes] = '\0';
    if (scene->answer_bytes < 6 || strcmp(scene->answer + scene->answer_bytes - 6, "# EOF\n") != 0)
        return bench_fail("a scrape ended after %zu bytes", scene->answer_bytes);
    return 0;
}

/* Turns of the loop so far. */
static int turns(struct scene *scene, uint64_t *out) {
    static const char name[] = "\nfeatured_loop_turn_seconds_count ";
    if (scrape(scene) != 0)
        return -1;
    const char *at = strstr(scene->answer, name);
    if (at == NULL)
        return bench_fail("the metrics say nothing of turns");
    *out = strtoull(at + sizeof name - 1, NULL, 10);
    return 0;
}

/* CPU time of the loop's thread alone, which is the first of its process. */
static int loop_cpu_ns(const struct broker *broker, uint64_t *out) {
    char path[64];
    unsigned long long ns = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)broker->pid, (int)broker->pid);
    FILE *file = fopen(path, "re");
    const int read = file != NULL ? fscanf(file, "%llu", &ns) : 0;
    if (file != NULL)
        fclose(file);
    *out = ns;
    return read == 1 ? 0 : bench_fail("%s: %s", path, strerror(errno));
}

struct scraper {
    struct scene *scene;
    atomic_bool stop;
    int failed;
};

static void *scrape_on_and_on(void *context) {
    struct scraper *scraper = context;
    while (!atomic_load(&scraper->stop) && scraper->failed == 0) {
        scraper->failed = scrape(scraper->scene);
        poll(NULL, 0, PAUSE_MS);
    }
    return NULL;
}

/* ---- figures ---- */

static int get_one(void *context) {
    const struct scene *scene = context;
    static unsigned turn;
    const struct feature_get_options options = {.size = sizeof options};
    struct feature_view *view;
    char id[16];
    snprintf(id, sizeof id, "%u", turn % 64);
    const int status =
        feature_get(scene->stores[turn++ % STORES], FEATURE_BY_ID(id), &options, &view);
    if (status != FEATURE_OK)
        return bench_fail_feature("get", status);
    feature_release(view, FEATURE_RELEASE_RETURNED);
    return 0;
}

static int measure_scrape(struct bench *bench, struct scene *scene) {
    struct rounds_op op = {.run = scrape, .context = scene};
    char what[160];
    const int result = rounds_run(&op, 1, (struct rounds_plan){1, bench->quick ? 5 : 100, 2});
    snprintf(what, sizeof what, "%s%.1f MB of /metrics: 256 stores, 64 peers, 1,000,000 residents",
             bench->quick ? "SMOKE TEST " : "", (double)scene->answer_bytes / 1e6);
    if (result == 0)
        bench_report(bench,
                     &(struct bench_figure){"scrape", "ms", samples_median(&op.samples) / 1e6, 20,
                                            BENCH_AT_MOST, 1.0, what});
    rounds_deinit(&op, 1);
    return result;
}

/* Nobody else asks for anything, so that all turns are those in which numbers are copied (and some
 * in which peers are dialled). What a turn takes is what somebody else's request may have to wait.
 */
static int measure_lag(struct bench *bench, struct scene *scene) {
    const unsigned scrapes = bench->quick ? 5 : 200;
    const struct broker *broker = &scene->brokers.list[0];
    uint64_t turns_before, turns_after, cpu_before_ns, cpu_after_ns;
    int result = turns(scene, &turns_before);
    if (result == 0)
        result = loop_cpu_ns(broker, &cpu_before_ns);
    for (unsigned i = 0; i < scrapes && result == 0; i++)
        result = scrape(scene);
    if (result == 0)
        result = loop_cpu_ns(broker, &cpu_after_ns);
    if (result != 0 || turns(scene, &turns_after) != 0)
        return -1;
    const double turn_count = (double)(turns_after - turns_before);
    const double cpu_us = (double)(cpu_after_ns - cpu_before_ns) / 1e3;
    char what[160];
    snprintf(what, sizeof what,
             "CPU time of the loop for each of the %.0f turns that a scrape takes; 1 ms is allowed",
             turn_count / (scrapes + 1));
    bench_report(bench, &(struct bench_figure){"scrape_lag", "us", cpu_us / turn_count, 1000,
                                               BENCH_AT_MOST, 1.0, what});
    return 0;
}

static int measure_gets(struct bench *bench, struct scene *scene) {
    const struct rounds_plan plan = {1, bench->quick ? 2000 : 50000, 100};
    struct rounds_op quiet = {.run = get_one, .context = scene}, watched = quiet;
    struct scraper scraper = {.scene = scene};
    pthread_t thread;
    int result = rounds_run(&quiet, 1, plan);
    if (result == 0) {
        if (pthread_create(&thread, NULL, scrape_on_and_on, &scraper) != 0)
            return bench_fail("no thread");
        result = rounds_run(&watched, 1, plan);
        atomic_store(&scraper.stop, true);
        pthread_join(thread, NULL);
        result = result != 0 ? result : scraper.failed;
    }
    if (result == 0)
        bench_report(bench, &(struct bench_figure){
                                "scrape_get", "us", samples_median(&watched.samples) / 1e3,
                                samples_median(&quiet.samples) / 1e3, BENCH_AT_MOST, 1.25,
                                "get + release, p50, while /metrics is scraped "
                                "ten times a second, over not at all"});
    rounds_deinit(&quiet, 1);
    rounds_deinit(&watched, 1);
    return result;
}

int bench_scrape(struct bench *bench) {
    static struct scene scene;
    scene.answer = malloc(ANSWER_BYTES);
    if (scene.answer == NULL)
        return bench_fail("no memory for an answer");
    if (start(&scene, bench) != 0)
        return -1;
    int result = broker_connect(&scene.brokers.list[0], &scene.feature);
    for (unsigned i = 0; i < STORES && result == 0; i++)
        result = fill_store(&scene, i, bench->quick ? BATCH : SAMPLES / STORES);
    if (result == 0)
        result = find_port(&scene);
    if (result == 0)
        result = measure_scrape(bench, &scene);
    if (result == 0)
        result = measure_lag(bench, &scene);
    if (result == 0)
        result = measure_gets(bench, &scene);
    feature_disconnect(scene.feature);
    brokers_stop(&scene.brokers);
    free(scene.answer);
    return result;
}
