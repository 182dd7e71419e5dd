/* SPDX-License-Identifier: Apache-2.0
 *
 * `bundle`: what somebody who looks into a fault asks for, in one tar file.
 *
 * what is it about (socket, pid, configuration) -> learn what is secret -> for each part: collect
 * it, remove secrets, add it -> README last, for it says what is missing and why
 *
 * It works without a broker, as far as it goes: a broker that does not start is what bundles are
 * made for. Parts are other commands, run as they are with --json; so a new column is in the next
 * bundle by itself. No part may be larger than PART_BYTES_MAX: of logs the end is taken, of lists
 * the beginning.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "featurectl/bundle_http.h"
#include "featurectl/bundle_scrub.h"
#include "featurectl/bundle_tar.h"
#include "featurectl/doctor.h"
#include "featurectl/memory.h"
#include "featurectl/output_file.h"

#define PART_BYTES_MAX (4u << 20)
#define LOG_LINES      "20000"
#define EVENTS_FOR     "2s"
#define EVENTS_COUNT   "10000"
#define CONFIG_DEFAULT "/etc/featured/featured.conf"

struct bundle {
    struct context *context;
    struct output_file file;
    const char *path;
    struct scrub scrub;
    char *notes; /* what is missing, a line each */
    time_t now;
    size_t part_count;
    bool failed; /* the file takes no more */
};

/* ---- parts ---- */

static void bundle_note(struct bundle *bundle, const char *name, const char *why) {
    char *longer = memory_print("%s%s: %s\n", bundle->notes, name, why);
    free(bundle->notes);
    bundle->notes = longer;
}

/* Whatever goes into the file goes through here, and so through the search for secrets. After
 * the first failure nothing more is tried: the disk is full.
 */
static void bundle_add(struct bundle *bundle, const char *name, const char *text, size_t bytes) {
    char why[512];
    size_t clean_bytes;
    if (bundle->failed)
        return;
    char *clean = scrub_text(&bundle->scrub, text, bytes, &clean_bytes);
    char *member = memory_print("featured-bundle/%s", name);
    if (bundle_tar_add(&bundle->file, member, clean, clean_bytes, (uint64_t)bundle->now, why,
                       sizeof why) != 0) {
        bundle->failed = true;
        context_refuse(bundle->context, CTL_E_LOCAL, bundle->path, "%s", why);
    } else {
        bundle->part_count++;
    }
    free(member);
    free(clean);
}

/* A stream into memory that keeps the first PART_BYTES_MAX and swallows the rest. */
struct sink {
    char *text;
    size_t bytes;
    bool cut;
};

/* Takes all that it is given, so that the command behind it does not stop: half a list of JSON
 * lines is of use, a command that was ended by a signal is not.
 */
static ssize_t bundle_sink_write(void *opaque, const char *from, size_t bytes) {
    struct sink *sink = opaque;
    size_t room = PART_BYTES_MAX - sink->bytes, kept = bytes < room ? bytes : room;
    sink->cut |= kept < bytes;
    if (kept) {
        sink->text = memory_grow(sink->text, sink->bytes + kept, 1);
        memcpy(sink->text + sink->bytes, from, kept);
        sink->bytes += kept;
    }
    return (ssize_t)bytes;
}

/* NULL when there is no memory for the stream. */
static FILE *bundle_sink_open(struct sink *sink) {
    *sink = (struct sink){0};
    FILE *file = fopencookie(sink, "w", (cookie_io_functions_t){.write = bundle_sink_write});
    if (file)
        setvbuf(file, NULL, _IOFBF, 64u << 10);
    return file;
}

/* An empty part is left out; the notes say why it is empty. */
static void bundle_add_sink(struct bundle *bundle, const char *name, struct sink *sink) {
    if (sink->bytes)
        bundle_add(bundle, name, sink->text, sink->bytes);
    if (sink->cut)
        bundle_note(bundle, name, "is longer, and only its first 4 MiB are here");
    free(sink->text);
}

/* ---- other commands ---- */

/* Runs a command with these words, which a NULL ends, as main() would. What it prints to standard
 * error becomes a note: it says why the part is short.
 */
static int bundle_run_command(struct bundle *bundle, FILE *out, FILE *err,
                              const char *const *words) {
    char *argv[12] = {0};
    char why[256];
    size_t count = 0, used;
    const char *socket = options_text(&bundle->context->options, "socket", NULL);
    while (words[count] && count < 8) {
        argv[count] = (char *)words[count];
        count++;
    }
    struct context context = {.out = out, .err = err, .json = true};
    context.command = command_find(argv, count, &used);
    options_add(&context.options, common_options);
    if (context.command->options)
        options_add(&context.options, context.command->options);
    if (socket) {
        argv[count++] = "--socket";
        argv[count++] = (char *)socket;
    }
    if (!options_parse(&context.options, (int)(count - used + 1), argv + used - 1, false, why,
                       sizeof why))
        return context_refuse(&context, CTL_E_USAGE, NULL, "%s", why);
    int status = FEATURE_OK;
    if (!context.command->offline && (status = context_connect(&context)))
        return context_fail(&context, status, NULL);
    status = context.command->run(&context);
    context_disconnect(&context);
    return status;
}

/* Only the first line of what it said of trouble becomes a note: the first failure is the cause
 * of the others.
 */
static void bundle_add_command(struct bundle *bundle, const char *name, const char *const *words) {
    struct sink out, err;
    FILE *out_file = bundle_sink_open(&out), *err_file = bundle_sink_open(&err);
    if (!out_file || !err_file) {
        bundle_note(bundle, name, "no memory");
    } else {
        bundle_run_command(bundle, out_file, err_file, words);
    }
    if (out_file)
        fclose(out_file);
    if (err_file)
        fclose(err_file);
    bundle_add_sink(bundle, name, &out);
    if (err.bytes) {
        char *said = memory_print("%.*s", (int)strcspn(err.text, "\n"), err.text);
        bundle_note(bundle, name, said);
        free(said);
    }
    free(err.text);
}

/* silence: NULL, or why the broker is not asked at all; each command would wait for it anew. */
static void bundle_add_commands(struct bundle *bundle, const char *silence) {
    static const struct {
        const char *name;
        const char *words[8];
    } offline[] = {{"version.json", {"version"}}, {"doctor.json", {"doctor"}}},
      parts[] = {
          {"status.json", {"status"}},
          {"nodes.json", {"nodes"}},
          {"stores.json", {"stores"}},
          {"leases.json", {"leases"}},
          {"sessions.json", {"sessions"}},
          {"sessions-by-user.json", {"sessions", "--by-user"}},
          {"events.json", {"events", "--for", EVENTS_FOR, "--count", EVENTS_COUNT}},
      };
    for (size_t i = 0; i < sizeof offline / sizeof *offline; i++)
        bundle_add_command(bundle, offline[i].name, offline[i].words);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (silence)
            bundle_note(bundle, parts[i].name, silence);
        else
            bundle_add_command(bundle, parts[i].name, parts[i].words);
}

/* ---- files ---- */

/* The last PART_BYTES_MAX of a regular file. NULL: it cannot be read, and errno says why. */
static char *bundle_read_end(const char *path, size_t *bytes_out) {
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &about) != 0 || S_ISDIR(about.st_mode)) {
        close(fd);
        errno = EISDIR;
        return NULL;
    }
    off_t from = S_ISREG(about.st_mode) && about.st_size > (off_t)PART_BYTES_MAX
                     ? about.st_size - (off_t)PART_BYTES_MAX
                     : 0;
    char *text = memory_grow(NULL, PART_BYTES_MAX + 1, 1);
    size_t used = 0;
    ssize_t got;
    while (used < PART_BYTES_MAX &&
           (got = pread(fd, text + used, PART_BYTES_MAX - used, from + (off_t)used)) > 0)
        used += (size_t)got;
    close(fd);
    text[used] = '\0';
    *bytes_out = used;
    return text;
}

/* A file that cannot be read is a note, not a failure: most users may not read everything. */
static void bundle_add_file(struct bundle *bundle, const char *name, const char *path) {
    size_t bytes;
    char *text = bundle_read_end(path, &bytes);
    if (text) {
        bundle_add(bundle, name, text, bytes);
    } else {
        char *why = memory_print("%s: %s", path, strerror(errno));
        bundle_note(bundle, name, why);
        free(why);
    }
    free(text);
}

/* What the kernel says of the broker's process; pid 0 when it is not known, and then only of the
 * machine.
 */
static void bundle_add_proc(struct bundle *bundle, pid_t pid) {
    static const char *const files[] = {"limits", "status", "cgroup", "mountinfo"};
    for (size_t i = 0; pid && i < sizeof files / sizeof *files; i++) {
        char *path = memory_print("/proc/%d/%s", (int)pid, files[i]);
        char *name = memory_print("broker-%s.txt", files[i]);
        bundle_add_file(bundle, name, path);
        free(name);
        free(path);
    }
    bundle_add_file(bundle, "meminfo.txt", "/proc/meminfo");
    bundle_add_file(bundle, "os-release.txt", "/etc/os-release");
}

/* ---- configuration ---- */

/* What the running broker was started with ("--config FILE"), else the usual place. Freed by the
 * caller. */
static char *bundle_config_path(const struct bundle *bundle, pid_t pid) {
    const char *given = options_text(&bundle->context->options, "config", NULL);
    if (given)
        return memory_copy(given);
    char *path = memory_print("/proc/%d/cmdline", (int)pid), *found = NULL;
    size_t bytes = 0;
    char *line = pid ? bundle_read_end(path, &bytes) : NULL;
    for (size_t at = 0; line && at < bytes; at += strlen(line + at) + 1) {
        const char *word = line + at, *next = word + strlen(word) + 1;
        if ((strcmp(word, "--config") == 0 || strcmp(word, "-c") == 0) && next < line + bytes)
            found = memory_copy(next);
        else if (strncmp(word, "--config=", strlen("--config=")) == 0)
            found = memory_copy(word + strlen("--config="));
        if (found)
            break;
    }
    free(line);
    free(path);
    return found ? found : memory_copy(CONFIG_DEFAULT);
}

/* Read first of all: what it names as secret is looked for in all parts. Freed by the caller. */
static char *bundle_learn(struct bundle *bundle, const char *path) {
    size_t bytes;
    char *config = bundle_read_end(path, &bytes);
    if (config)
        scrub_learn_config(&bundle->scrub, config);
    else
        bundle_note(bundle, "featured.conf", strerror(errno));
    return config;
}

/* What its HTTP server says, if it has one. The token is in the file that the configuration names,
 * which root may read.
 */
static void bundle_add_metrics(struct bundle *bundle, const char *config) {
    char *address = bundle_config_value(config, "ops", "http");
    char *token_path = bundle_config_value(config, "ops", "http_token_file"), *token = NULL;
    char why[512];
    struct sink sink;
    size_t bytes;
    FILE *out = address ? bundle_sink_open(&sink) : NULL;
    if (token_path && (token = bundle_read_end(token_path, &bytes)))
        token[strcspn(token, "\r\n")] = '\0';
    if (out) {
        int error = bundle_http_get(address, "/metrics", token, out, why, sizeof why);
        fclose(out);
        bundle_add_sink(bundle, "metrics.txt", &sink);
        if (error)
            bundle_note(bundle, "metrics.txt", why);
    }
    free(token);
    free(token_path);
    free(address);
}

/* ---- logs ---- */

/* Of systemd's journal. A broker that writes to a file has it as its standard error. */
static void bundle_add_journal(struct bundle *bundle) {
    struct sink sink = {0};
    char buffer[8192];
    size_t got;
    FILE *journal = popen("exec journalctl --unit=featured --lines=" LOG_LINES
                          " --no-pager --output=short-iso 2>/dev/null < /dev/null",
                          "re");
    if (!journal)
        return;
    while ((got = fread(buffer, 1, sizeof buffer, journal)) > 0)
        bundle_sink_write(&sink, buffer, got);
    int status = pclose(journal);
    if (status != 0)
        bundle_note(bundle, "log-journal.txt", "journalctl is not here, or may not be asked");
    bundle_add_sink(bundle, "log-journal.txt", &sink);
}

/* Both, where there are both: the journal ends where somebody has started the broker by hand. */
static void bundle_add_logs(struct bundle *bundle, pid_t pid) {
    const char *given = options_text(&bundle->context->options, "log", NULL);
    struct stat about;
    char *path = memory_print("/proc/%d/fd/2", (int)pid);
    bundle_add_journal(bundle);
    if (given)
        bundle_add_file(bundle, "log.txt", given);
    else if (pid && stat(path, &about) == 0 && S_ISREG(about.st_mode))
        bundle_add_file(bundle, "log.txt", path);
    free(path);
}

/* ---- all ---- */

static void bundle_add_readme(struct bundle *bundle) {
    struct utsname machine;
    char when[64];
    struct tm utc;
    uname(&machine);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&bundle->now, &utc));
    char *text = memory_print(
        "Made by featurectl %s bundle at %s, by uid %u, on %s %s %s.\n"
        "One file is what the featurectl command of its name says with --json. Secrets were\n"
        "removed: of the configuration comments and every value that could be one, and what\n"
        "the secret files hold wherever it stood. Names of nodes, stores, samples, users and\n"
        "programs are in it.\n\n%s%s",
        feature_version(), when, geteuid(), machine.sysname, machine.release, machine.machine,
        *bundle->notes ? "What is missing or cut:\n" : "Nothing is missing.\n", bundle->notes);
    bundle_add(bundle, "README.txt", text, strlen(text));
    free(text);
}

/* The check of doctor connects, and learns the broker's pid on the way. The README is the last
 * part, because only then is known what is missing.
 */
static int bundle_write(struct bundle *bundle) {
    struct doctor_broker broker = {0};
    struct doctor_finding finding = {0};
    doctor_check_socket(bundle->context, &broker, &finding);
    context_disconnect(bundle->context);
    char *config_path = bundle_config_path(bundle, broker.pid);
    char *config = bundle_learn(bundle, config_path);
    char why[512];
    if (config) {
        char *clean = scrub_config(config);
        bundle_add(bundle, "featured.conf", clean, strlen(clean));
        free(clean);
    }
    bundle_add_commands(bundle, broker.answers ? NULL : finding.found);
    if (config)
        bundle_add_metrics(bundle, config);
    bundle_add_logs(bundle, broker.pid);
    bundle_add_proc(bundle, broker.pid);
    bundle_add_readme(bundle);
    free(config);
    free(config_path);
    if (bundle->failed)
        return CTL_E_LOCAL;
    if (bundle_tar_end(&bundle->file, why, sizeof why) != 0 ||
        output_file_commit(&bundle->file, why, sizeof why) != 0)
        return context_refuse(bundle->context, CTL_E_LOCAL, bundle->path, "%s", why);
    return FEATURE_OK;
}

/* How many parts are missing is said here as well: whoever sends the file should know. */
static void bundle_print(const struct bundle *bundle) {
    static const struct table_column columns[] = {{"file", "file", TABLE_LEFT},
                                                  {"parts", "parts", TABLE_LEFT},
                                                  {"missing", "missing or cut", TABLE_LEFT}};
    struct table table;
    size_t missing = 0;
    for (const char *c = bundle->notes; *c; c++)
        missing += *c == '\n';
    CONTEXT_TABLE(bundle->context, &table, columns);
    table_text(&table, bundle->path);
    table_count(&table, bundle->part_count);
    table_count(&table, missing);
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
}

/* The file is opened first: what cannot be written need not be collected. */
static int bundle_run_bundle(struct context *context) {
    struct bundle bundle = {.context = context,
                            .path = context->options.arguments[0],
                            .notes = memory_copy(""),
                            .now = time(NULL)};
    char why[512];
    umask(077); /* names of users and programs are not everybody's business */
    int status = FEATURE_OK;
    if (output_file_open(bundle.path, &bundle.file, why, sizeof why) != 0)
        status = context_refuse(context, CTL_E_LOCAL, bundle.path, "%s", why);
    if (!status) {
        if (output_file_in_place(&bundle.file))
            context_make_way(context, bundle.file.fd);
        status = bundle_write(&bundle);
        output_file_abandon(&bundle.file);
    }
    if (!status)
        bundle_print(&bundle);
    scrub_deinit(&bundle.scrub);
    free(bundle.notes);
    return status;
}

static const struct option_spec options[] = {
    {.name = "config",
     .kind = OPTION_TEXT,
     .argument = "FILE",
     .help = "the broker's configuration (default: the running broker's, else "
             "/etc/featured/featured.conf)"},
    {.name = "log",
     .kind = OPTION_TEXT,
     .argument = "FILE",
     .help = "the broker's log (default: the journal, and the file it writes to)"},
    {0},
};

const struct command command_bundle = {
    .name = "bundle",
    .arguments = "FILE",
    .summary = "one tar file for a fault report: logs, settings, state; no secrets",
    .details = "Takes what this user can read, and says in README.txt what is missing. Works "
               "without a broker, too. Takes a few seconds, for it listens to events. Secrets are "
               "removed; names of nodes, stores, samples and users are in it.",
    .options = options,
    .arguments_min = 1,
    .arguments_max = 1,
    .offline = true,
    .run = bundle_run_bundle,
};
