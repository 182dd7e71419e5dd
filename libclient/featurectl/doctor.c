/* SPDX-License-Identifier: Apache-2.0
 *
 * `doctor`: runs the checks in order; the socket's comes first because others use what it learnt.
 *
 * A check fills one finding: a verdict (ok, skip, warn, fail), what was found, and what to do
 * about it. It works as any user; what this user may not see is "skip" and never "ok". The files
 * of the kernel are parsed by the functions below, which the unit tests feed with texts.
 */
#include "featurectl/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "featurectl/units.h"

static const struct {
    const char *name;
    doctor_check_fn check;
} checks[] = {
    {"socket", doctor_check_socket},
    {"directory", doctor_check_directory},
    {"node names", doctor_check_twin},
    {"locked memory", doctor_check_memlock},
    {"open files", doctor_check_nofile},
    {"memory", doctor_check_memory},
    {"cgroup memory", doctor_check_cgroup},
    {"huge pages", doctor_check_hugepages},
    {"/dev/shm", doctor_check_shm},
    {"memfd", doctor_check_memfd},
    {"socket buffers", doctor_check_socket_buffers},
    {"tcp buffers", doctor_check_tcp_buffers},
    {"mappings", doctor_check_map_count},
    {"overcommit", doctor_check_overcommit},
    {"rdma", doctor_check_rdma},
    {"data addresses", doctor_check_data},
};

static const char *const verdict_words[] = {"ok", "skip", "warn", "fail"};

/* Advice is dropped when all is well, so that a check may pass it in any case. A second call
 * replaces the first.
 */
void doctor_say(struct doctor_finding *out, enum doctor_verdict verdict, const char *advice,
                const char *found, ...) {
    va_list arguments;
    va_start(arguments, found);
    vsnprintf(out->found, sizeof out->found, found, arguments);
    va_end(arguments);
    out->verdict = verdict;
    snprintf(out->advice, sizeof out->advice, "%s", advice && verdict != DOCTOR_OK ? advice : "");
}

/* Limits are those of the running broker. Without one those of this shell stand for what a
 * broker started from here would have. 0: neither can be known, and the finding says why.
 */
pid_t doctor_whose_limits(const struct doctor_broker *broker, struct doctor_finding *out) {
    if (broker->pid)
        return broker->pid;
    if (!broker->answers && !broker->unseen)
        return getpid();
    if (broker->answers)
        doctor_say(out, DOCTOR_SKIP, "run featurectl doctor where the broker runs",
                   "not checked: the broker's process is not visible here (another PID namespace)");
    else
        doctor_say(out, DOCTOR_SKIP, "run as root, or as a user whom the broker's socket lets in",
                   "not checked: uid %u has no way to the broker's socket", geteuid());
    return 0;
}

/* For files of /proc and /sys, which are short and whose size stat(2) does not tell. Cut at
 * `room`.
 */
bool doctor_read_file(const char *path, char *text, size_t room) {
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t bytes = fread(text, 1, room - 1, file);
    text[bytes] = '\0';
    fclose(file);
    return bytes > 0;
}

/* The number at `text`, behind blanks; NULL when there is none. */
static const char *doctor_parse_u64(const char *text, uint64_t *out) {
    char *end;
    text += strspn(text, " \t");
    if (*text < '0' || *text > '9')
        return NULL;
    *out = strtoumax(text, &end, 10);
    return end;
}

/* Behind `key` at the beginning of a line; NULL when there is no such line. */
static const char *doctor_find_line(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0)
            return line + length;
    }
    return NULL;
}

/* A line of /proc/PID/limits: name, soft limit, hard limit. The soft one is what holds. */
bool doctor_parse_limit(const char *limits, const char *name, uint64_t *out) {
    const char *value = doctor_find_line(limits, name);
    if (!value)
        return false;
    value += strspn(value, " ");
    if (strncmp(value, "unlimited", 9) == 0) {
        *out = UINT64_MAX;
        return true;
    }
    return doctor_parse_u64(value, out);
}

/* A line of /proc/meminfo, such as "MemAvailable: 12345 kB"; in KiB, or a plain number where it
 * has no unit.
 */
bool doctor_parse_meminfo(const char *meminfo, const char *key, uint64_t *out) {
    const char *value = doctor_find_line(meminfo, key);
    return value && *value == ':' && doctor_parse_u64(value + 1, out);
}

/* The index-th number of a line of numbers, such as those of /proc/sys/net/ipv4/tcp_rmem. */
bool doctor_parse_number(const char *text, unsigned index, uint64_t *out) {
    uint64_t value = 0;
    for (unsigned i = 0; i <= index && text; i++)
        text = doctor_parse_u64(text, &value);
    if (text)
        *out = value;
    return text;
}

/* What to do stands below the table for people: beside what was found it would not fit a line.
 *
 * All checks run, whatever the earlier ones found. "skip" makes a difference to the exit code
 * only where the broker itself was out of sight.
 */
static int doctor_run_doctor(struct context *context) {
    static const struct table_column columns[] = {
        {"check", "CHECK", TABLE_LEFT},
        {"verdict", "", TABLE_LEFT},
        {"found", "FOUND", TABLE_LEFT},
        {"advice", NULL, TABLE_LEFT},
    };
    struct doctor_broker broker = {0};
    struct table table;
    enum doctor_verdict worst = DOCTOR_OK;
    CONTEXT_TABLE(context, &table, columns);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        struct doctor_finding finding = {0};
        checks[i].check(context, &broker, &finding);
        table_text(&table, checks[i].name);
        table_text(&table, verdict_words[finding.verdict]);
        table_text(&table, finding.found);
        table_text(&table, finding.advice);
        table_end_row(&table);
        if (*finding.advice)
            table_note(&table, "%s: %s", checks[i].name, finding.advice);
        worst = finding.verdict > worst ? finding.verdict : worst;
    }
    table_finish(&table, TABLE_ROWS);
    context_disconnect(context);
    if (worst == DOCTOR_FAIL)
        return CTL_E_LOCAL;
    return broker.unseen ? CTL_E_UNCHECKED : FEATURE_OK;
}

const struct command command_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "check this machine: broker, limits, memory; says what to do",
    .details =
        "Limits are those of the running broker, or of this shell when none runs. Exit code 1: a "
        "check\nfails; 2: none does, but this user has no way to the broker (skip); 0: none does, "
        "warnings aside.",
    .offline = true,
    .run = doctor_run_doctor,
};
