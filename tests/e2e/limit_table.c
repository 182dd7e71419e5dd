/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of limits in docs/OPERATIONS.md, row by row: each limit is reached in a real broker
 * with small limits, by another user or node; what happens and what is said is what the row
 * promises, and a second user works on meanwhile without one failure. A limit without a row, or a
 * row without a way to reach it, fails the test.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "e2e/limit_attack.h"
#include "store/charges.h"
#include "support/checks.h"
#include "support/payload.h"
#include "support/world.h"

#define TABLE_PATH    "docs/OPERATIONS.md"
#define ATTACKER_UID  4242
#define NEIGHBOUR_UID 4243
#define ROWS_MAX      80u
#define OPS_MAX       20000u
#define OPS_MIN       1000u /* so that a p99 is more than the slowest one */

/* ---- the table ---- */

struct row {
    char limit[64], preset[64], status[16],
        sentence[400]; /* sentence: "..." with … for what differs */
};

static size_t cell(const char **line, char *out, size_t room) {
    const char *end = strstr(*line, " |");
    size_t length = end ? (size_t)(end - *line) : strlen(*line);
    CHECK(length < room, "a cell of %zu bytes: %s", length, *line);
    memcpy(out, *line, length);
    out[length] = '\0';
    *line = end ? end + (end[2] ? 3 : 2) : *line + length;
    return length;
}

/* "| `limit` | default | of what | STATUS "sentence" |" */
static bool read_row(const char *line, struct row *row) {
    char what[256], reached[512];
    if (strncmp(line, "| `max_", 7) && strncmp(line, "| `", 3))
        return false;
    line += 2;
    cell(&line, row->limit, sizeof row->limit);
    memmove(row->limit, row->limit + 1, strlen(row->limit));
    row->limit[strcspn(row->limit, "`")] = '\0';
    cell(&line, row->preset, sizeof row->preset);
    cell(&line, what, sizeof what);
    CHECK(*what, "%s: the table does not say of what", row->limit);
    cell(&line, reached, sizeof reached);
    snprintf(row->status, sizeof row->status, "%.*s", (int)strcspn(reached, " "), reached);
    const char *quote = strchr(reached, '"');
    snprintf(row->sentence, sizeof row->sentence, "%.*s", quote ? (int)strcspn(quote + 1, "\"") : 0,
             quote ? quote + 1 : "");
    return true;
}

static size_t read_table(struct row rows[ROWS_MAX]) {
    FILE *file = fopen(TABLE_PATH, "re");
    char line[2048];
    size_t count = 0;
    bool inside = false;
    CHECK(file, "no %s: run the tests from the root of the source tree", TABLE_PATH);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strncmp(line, "| limit | default |", 19))
            inside = true;
        else if (inside && *line != '|')
            break;
        else if (inside && count < ROWS_MAX)
            count += read_row(line, &rows[count]);
    }
    fclose(file);
    CHECK(count > 30, "%zu rows in %s", count, TABLE_PATH);
    return count;
}

static const struct row *find_row(const struct row *rows, size_t count, const char *limit) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(rows[i].limit, limit))
            return &rows[i];
    return NULL;
}

/* ---- the table and the configuration ---- */

Test(limit_table, limit_every_kind_of_charge_has_its_row) {
    struct row rows[ROWS_MAX];
    size_t count = read_table(rows);
    for (enum account_kind kind = 0; kind < ACCOUNT_KINDS; kind++)
        for (enum charge charge = 0; charge < CHARGES; charge++) {
            const char *key = charge_key(kind, charge);
            CHECK(!key || find_row(rows, count, key), "%s is not in the table", key);
        }
    for (size_t i = 0; i < limit_case_count; i++)
        CHECK(find_row(rows, count, limit_cases[i].limit), "%s is not in the table",
              limit_cases[i].limit);
}

/* With a key and the default of the table in it the configuration means what an empty one does. */
static bool is_default(const char *section, const char *key, const char *value) {
    char path[] = "/tmp/featured-limits-XXXXXX", why[2048];
    struct config expected, got;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && dprintf(fd, "[%s]\n%s = %s\n", section, key, value) > 0, "%s", path);
    close(fd);
    config_defaults(&expected);
    int result = config_load(path, &got, why, sizeof why);
    unlink(path);
    if (result < 0)
        return false;
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    bool same = !memcmp(&expected, &got, sizeof got);
    config_deinit(&got);
    return same;
}

Test(limit_table, limit_the_tables_defaults_are_those_of_the_broker) {
    static const char *const sections[] = {"local", "stores", "peers"};
    struct row rows[ROWS_MAX];
    size_t count = read_table(rows), keys = 0;
    for (size_t i = 0; i < count; i++) {
        const char *key = rows[i].limit, *end = strchr(key, ']');
        if ((strchr(key, ' ') && !end) || !strcmp(key, "strangers") || strchr(rows[i].preset, ' '))
            continue;
        bool found = false;
        for (size_t s = 0; s < 3; s++)
            found |= is_default(sections[s], end ? end + 2 : key, rows[i].preset);
        CHECK(found, "%s = %s is not the default", key, rows[i].preset);
        keys++;
    }
    CHECK(keys > 30, "%zu keys", keys);
}

/* ---- the other user ---- */

struct report {
    uint64_t ops;
    uint64_t p99_us;
};

static void become(uid_t uid) {
    CHECK(setgroups(0, NULL) == 0 && setgid(uid) == 0 && setuid(uid) == 0, "%s", strerror(errno));
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* which a new uid clears */
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct report summary(uint64_t *us, uint64_t ops) {
    uint64_t kept = ops < OPS_MAX ? ops : OPS_MAX;
    qsort(us, kept, sizeof *us, by_value);
    return (struct report){ops, us[kept * 99 / 100]};
}

struct neighbour {
    const struct cluster *cluster;
    bool reads_only;
};

static void work(struct feature_store *store, const struct payload *payload, bool reads_only) {
    if (!reads_only)
        CHECK_OK(payload_put(payload, store, 5000, NULL));
    payload_check_get(payload, store, by_id(payload->sample_id),
                      reads_only ? FEATURE_RELEASE_RETURNED : FEATURE_RELEASE_CONSUMED);
}

/* So many operations at least, and on until the other end says something. */
static struct report work_until(int channel, struct feature_store *store,
                                const struct payload *payload, bool reads_only) {
    static uint64_t us[OPS_MAX];
    uint64_t ops = 0;
    for (; ops < OPS_MIN || (channel >= 0 && !channel_pending(channel, 0)); ops++) {
        uint64_t begin_us = check_now_us();
        work(store, payload, reads_only);
        us[ops % OPS_MAX] = check_now_us() - begin_us;
    }
    return summary(us, ops);
}

static int live_beside(int channel, void *context) {
    const struct neighbour *neighbour = context;
    struct payload payload;
    become(NEIGHBOUR_UID);
    struct feature *feature = cluster_connect(neighbour->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "neighbour", 1, 2000);
    if (neighbour->reads_only)
        CHECK_OK(payload_put(&payload, store, 5000, NULL));
    struct report report = work_until(-1, store, &payload, neighbour->reads_only);
    channel_send(channel, &report, sizeof report);
    report = work_until(channel, store, &payload, neighbour->reads_only);
    channel_expect(channel, "end", 20000); /* one that ends with a word unread loses its own */
    channel_send(channel, &report, sizeof report);
    if (neighbour->reads_only)
        CHECK_OK(feature_abort(store, FEATURE_BY_ID("neighbour"), 1, NULL));
    payload_deinit(&payload);
    feature_disconnect(feature);
    return 0;
}

/* ---- one row ---- */

struct attacker {
    const struct limit_case *limit;
    struct attack attack;
};

static int take_all(int channel, void *context) {
    struct attacker *attacker = context;
    char end[8];
    if (!attacker->limit->as_root)
        become(ATTACKER_UID);
    attacker->limit->reach(&attacker->attack);
    channel_send(channel, &attacker->attack, sizeof attacker->attack);
    channel_receive(channel, end, sizeof end, 60000); /* what it holds it holds until then */
    return 0;
}

/* Every piece between … occurs, in this order. */
static bool says(const char *text, const char *sentence) {
    char piece[400];
    while (text && *sentence) {
        const char *dots = strstr(sentence, "…");
        size_t length = dots ? (size_t)(dots - sentence) : strlen(sentence);
        snprintf(piece, sizeof piece, "%.*s", (int)length, sentence);
        text = strstr(text, piece);
        text = text ? text + length : NULL;
        sentence += length + (dots ? strlen("…") : 0);
    }
    return text;
}

static bool log_says(const struct cluster *cluster, const char *sentence) {
    FILE *file = fopen(cluster->nodes[0].log_path, "re");
    char line[1024];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file))
        found = says(line, sentence);
    if (file)
        fclose(file);
    return found;
}

static void check_outcome(const struct row *row, const struct limit_case *limit,
                          const struct attack *attack, const struct cluster *cluster) {
    CHECK(!strcmp(row->status, attack->status), "%s: %s (%s), the table says %s", row->limit,
          attack->status, attack->sentence, row->status);
    if (limit->in_log)
        WAIT_UNTIL(log_says(cluster, row->sentence), 10000);
    else
        CHECK(says(attack->sentence, row->sentence), "%s: \"%s\", the table says \"%s\"",
              row->limit, attack->sentence, row->sentence);
}

/* Root, an admin, gets in and sees who it is. */
static void check_admin(const struct cluster *cluster) {
    struct feature *feature = cluster_connect(cluster, 0);
    feature_disconnect(feature);
}

static void start(struct cluster *cluster, const struct limit_case *limit) {
    char ini[1024];
    snprintf(ini, sizeof ini,
             "[store run]\n[store small]\nmax_resident_bytes = 64KiB\nlanding_bytes = 0\n"
             "[local]\nsocket_mode = 0666\n%s",
             limit->ini);
    cluster_start(cluster, &(struct cluster_options){.nodes = limit->nodes ? limit->nodes : 1,
                                                     .ini = ini,
                                                     .unconnected = limit->unconnected});
    CHECK(chmod(cluster->directory, 0711) == 0, "%s", strerror(errno));
    const struct rlimit files = {limit->open_files, limit->open_files};
    CHECK(!limit->open_files ||
              prlimit(cluster->nodes[0].process.pid, RLIMIT_NOFILE, &files, NULL) == 0,
          "%s", strerror(errno));
}

/* One that has died says with which status. */
static struct report hear(struct process *neighbour, const struct row *row) {
    struct report report = {0};
    if (channel_receive(neighbour->channel, &report, sizeof report, 60000) == sizeof report)
        return report;
    process_join(neighbour, 20000);
    CHECK(false, "%s: the other user said nothing", row->limit);
    return report;
}

static void reach(const struct row *row, const struct limit_case *limit) {
    struct cluster cluster;
    struct process neighbour, attacker;
    start(&cluster, limit);
    process_fork(&neighbour, live_beside,
                 &(struct neighbour){&cluster, .reads_only = limit->others_cannot});
    struct report alone = hear(&neighbour, row);
    struct attacker taker = {.limit = limit, .attack = {.cluster = &cluster}};
    process_fork(&attacker, take_all, &taker);
    CHECK(channel_receive(attacker.channel, &taker.attack, sizeof taker.attack, 120000) ==
              sizeof taker.attack,
          "%s: the limit was not reached", row->limit);
    taker.attack.cluster = &cluster;
    check_outcome(row, limit, &taker.attack, &cluster);
    if (!strcmp(row->limit, "admin_sessions") || limit->open_files)
        check_admin(&cluster);
    channel_say(neighbour.channel, "end");
    struct report beside = hear(&neighbour, row);
    process_join(&neighbour, 20000);
    channel_say(attacker.channel, "end");
    process_join(&attacker, 20000);
    printf("%-36s p99 %6llu us beside, %6llu us alone, %5.1f times (%llu operations)\n", row->limit,
           (unsigned long long)beside.p99_us, (unsigned long long)alone.p99_us,
           (double)beside.p99_us / (double)alone.p99_us, (unsigned long long)beside.ops);
    fflush(stdout);
    cluster_stop(&cluster);
}

static const struct limit_case *find_case(const char *limit) {
    for (size_t i = 0; i < limit_case_count; i++)
        if (!strcmp(limit_cases[i].limit, limit))
            return &limit_cases[i];
    return NULL;
}

/* $LIMIT_ROW: that one alone. */
Test(limit_table, limit_every_row_is_reached_beside_another_user, .timeout = 600) {
    struct row rows[ROWS_MAX];
    size_t count = read_table(rows);
    const char *only = getenv("LIMIT_ROW");
    if (geteuid() != 0)
        cr_skip_test("it takes root to be two other users");
    for (size_t i = 0; i < count; i++) {
        const struct limit_case *limit = find_case(rows[i].limit);
        CHECK(limit, "no way to reach %s is known", rows[i].limit);
        if (!only || !strcmp(only, rows[i].limit))
            reach(&rows[i], limit);
    }
}
