/* SPDX-License-Identifier: Apache-2.0
 *
 * featured: arguments, process-wide settings, and the exit status. Everything else begins in
 * daemon.c.
 *
 * Exit status 2 says that the configuration, or what it asks of this machine, is wrong: a restart
 * will not help. 1 is everything else. systemd's unit goes by these numbers.
 */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "daemon.h"
#include "directory/etcd/etcd.h"
#include "environment.h"
#include "host/secret_file.h"
#include "host/std_fds.h"
#include "keep_sd.h"
#include "local/socket_lock.h"
#include "ops/log.h"
#include "proto/auth.h"
#include "proto/text.h"
#include "quick.h"
#include "supervise.h"

#define DEFAULT_CONFIG  "/etc/featured/featured.conf"
#define WHY_BYTES       1536
#define LOG_PATIENCE_MS 1000u /* for whoever reads our log, once all else has ended */

enum exit_status { EXIT_CLEAN = 0, EXIT_RUNTIME = 1, EXIT_CONFIG = 2 };

/* libc looks it up by name, so it must not be hidden. */
__attribute__((visibility("default"))) const char *argp_program_version =
    "featured " FEATURED_VERSION;

struct arguments {
    const char *config_path; /* NULL: none, with quick */
    bool check_config, verbose, quick, supervise;
    const char *quick_path; /* of the socket; NULL: quick.h chooses */
    pid_t end_with;         /* 0: not given */
};

/* Beyond the characters: options without a short form. */
enum { KEY_END_WITH = 256, KEY_SUPERVISE };

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Read this file instead of " DEFAULT_CONFIG, 0},
    {"check-config", 'C', NULL, 0,
     "Check the file, the secrets it names and the limits of this process, then exit", 0},
    {"verbose", 'v', NULL, 0, "Start with log level debug, whatever the file says", 0},
    {"quick", 'q', "PATH", OPTION_ARG_OPTIONAL,
     "Serve this machine and this user alone, without a file, and print how to connect; PATH: of "
     "the socket",
     0},
    {"end-with", KEY_END_WITH, "PID", 0,
     "End with process PID, which started this broker, and remove the directory of the socket", 0},
    {"supervise", KEY_SUPERVISE, NULL, 0,
     "Stay behind as a small parent: hold the broker's memory, and start the broker again when it "
     "ends",
     0},
    {0},
};

static error_t main_parse_pid(const char *text, struct argp_state *state, pid_t *out) {
    char *end;
    errno = 0;
    long pid = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || pid < 1 || pid > INT_MAX)
        argp_error(state, "--end-with=%s: not the number of a process", text);
    *out = (pid_t)pid;
    return 0;
}

static error_t main_parse_option(int key, char *arg, struct argp_state *state) {
    struct arguments *arguments = state->input;
    switch (key) {
    case 'c':
        arguments->config_path = arg;
        return 0;
    case 'C':
        arguments->check_config = true;
        return 0;
    case 'v':
        arguments->verbose = true;
        return 0;
    case 'q':
        arguments->quick = true;
        arguments->quick_path = arg;
        return 0;
    case KEY_END_WITH:
        return main_parse_pid(arg, state, &arguments->end_with);
    case KEY_SUPERVISE:
        arguments->supervise = true;
        return 0;
    case ARGP_KEY_END:
        if (arguments->supervise && arguments->end_with != 0)
            argp_error(state, "--supervise and --end-with exclude each other: the process that a "
                              "broker can end with is its parent, which is the supervisor then");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Read and thrown away: whether it can be read is all that is asked. */
static int main_check_secret(const char *path, char *why, size_t why_bytes) {
    unsigned char secret[4096];
    if (!*path)
        return 0;
    int got = config_read_secret(path, secret, sizeof secret, why, why_bytes);
    explicit_bzero(secret, sizeof secret);
    return got < 0 ? got : 0;
}

/* All that the file names, so that a mode that is wrong is found before a peer or a client needs
 * the secret. */
static int main_check_secrets(const struct config *config, char *why, size_t why_bytes) {
    int result = main_check_secret(config->cluster_secret_file, why, why_bytes);
    if (result == 0)
        result = main_check_secret(config->etcd_password_file, why, why_bytes);
    for (size_t i = 0; i < config->store_count && result == 0; i++)
        result = main_check_secret(config->stores[i].secret_file, why, why_bytes);
    return result;
}

/* The private key of etcd's client that others can read is a mistake, but etcd's own tools have
 * always taken such a file. So it is said, and not refused. */
static void main_check_key_file(const struct config *config, void (*say)(bool, const char *)) {
    struct stat facts;
    char wrong[384], sentence[768];
    if (!*config->etcd_key_file || stat(config->etcd_key_file, &facts) < 0 ||
        secret_file_is_private(&facts, wrong, sizeof wrong))
        return;
    snprintf(sentence, sizeof sentence, "[directory] key_file %s: %s", config->etcd_key_file,
             wrong);
    say(true, sentence);
}

static void main_say_in_log(bool warning, const char *sentence) {
    log_write(warning ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "main: %s", sentence);
}

/* For --check-config, and before the log runs. Escaped: the file may hold anything, and this goes
 * to a terminal. */
static void main_say_to_user(bool warning, const char *sentence) {
    char text[2 * WHY_BYTES];
    text_escape(text, sizeof text, sentence, strlen(sentence));
    fprintf(stderr, "featured: %s%s\n", warning ? "warning: " : "", text);
}

/* What the file asks for, against what is there: secrets, and limits on this process. */
static int main_check_environment(const struct config *config, void (*say)(bool, const char *),
                                  char *why, size_t why_bytes) {
    int result = main_check_secrets(config, why, why_bytes);
    main_check_key_file(config, say);
    return result < 0 ? result : environment_check(config, say, why, why_bytes);
}

/* libsodium is initialised here, once, before anything draws a random number. */
static int main_run_daemon(const struct config *config, const struct arguments *arguments,
                           struct keep *keep) {
    const struct daemon_options how = {
        .keep = keep,
        .config_path = arguments->quick ? NULL : arguments->config_path,
        .end_with = arguments->end_with,
    };
    char why[WHY_BYTES] = "";
    struct daemon *daemon = NULL;
    if (main_check_environment(config, main_say_in_log, why, sizeof why) < 0) {
        log_error("main: %s", why);
        return EXIT_CONFIG;
    }
    if (auth_init() < 0) {
        log_error("main: libsodium could not be initialised; is /dev/urandom readable?");
        return EXIT_RUNTIME;
    }
    int result = daemon_new(config, &how, &daemon, why, sizeof why);
    if (result < 0) {
        log_error("main: %s", *why ? why : strerror(-result));
        return EXIT_RUNTIME;
    }
    if (arguments->quick)
        quick_say_how_to_connect(config);
    result = daemon_run(daemon);
    if (result == DAEMON_LEFT) {
        log_stop(LOG_PATIENCE_MS);
        _exit(EXIT_CLEAN);
    }
    daemon_free(daemon);
    return result < 0 ? EXIT_RUNTIME : EXIT_CLEAN;
}

/* A broker that somebody has started for himself (--end-with) leaves nothing behind. Its lock may
 * go, which otherwise stays (socket_lock.h): nobody else starts a broker in that directory. */
static void main_remove_traces(const char *socket_path) {
    char path[sizeof((struct config *)0)->socket_path + sizeof ".lock"];
    snprintf(path, sizeof path, "%s.lock", socket_path);
    unlink(path);
    *strrchr(path, '/') = '\0'; /* the path of a socket is absolute */
    rmdir(path);                /* unless there is something else in it */
}

/* The lock on the socket comes first and goes last: a second broker for the same socket is refused
 * before it has touched anything. */
static int main_run(const struct config *config, const struct arguments *arguments,
                    struct keep *keep) {
    char why[WHY_BYTES] = "";
    int lock = socket_lock_take(config->socket_path, why, sizeof why);
    if (lock < 0) {
        log_error("main: %s", why);
        return EXIT_RUNTIME;
    }
    int status = main_run_daemon(config, arguments, keep);
    if (arguments->end_with != 0)
        main_remove_traces(config->socket_path);
    close(lock);
    return status;
}

/* The log has a thread of its own, so that a terminal that stands still does not stop the broker.
 * Whoever reads the log gets LOG_PATIENCE_MS to take the last lines. */
static int main_serve_kept(const struct config *config, const struct arguments *arguments,
                           struct keep *keep) {
    int result = log_start();
    if (result < 0) {
        log_error("main: no thread for the log: %s; raise the limits of threads and of memory "
                  "(TasksMax=, ulimit -u, ulimit -v)",
                  strerror(-result));
        return EXIT_RUNTIME;
    }
    int status = main_run(config, arguments, keep);
    log_stop(LOG_PATIENCE_MS);
    return status;
}

/* The keeper comes first: descriptors that were handed in lie where the next open() might look for
 * room, and the environment may be changed only while there is one thread. */
static int main_serve(const struct config *config, const struct arguments *arguments) {
    struct keep *keep;
    char why[WHY_BYTES] = "";
    int result = keep_sd_new(&keep, why, sizeof why);
    if (result < 0) {
        log_error("main: %s", *why ? why : strerror(-result));
        return EXIT_RUNTIME;
    }
    int status = main_serve_kept(config, arguments, keep);
    keep_sd_free(keep);
    return status;
}

/* With kind = etcd: the certificate files, and what etcd itself says. An etcd that does not answer
 * is no fault of the configuration, so that it is a warning. */
static int main_check_directory(const struct config *config, char *why, size_t why_bytes) {
    char password[4097] = "", warning[WHY_BYTES] = "";
    struct etcd_client_options client = {
        .endpoints = config->etcd_endpoints,
        .ca_file = config->etcd_ca_file,
        .cert_file = config->etcd_cert_file,
        .key_file = config->etcd_key_file,
        .username = config->etcd_username,
        .password = password,
    };
    if (config->directory != CONFIG_DIRECTORY_ETCD)
        return 0;
    int result = 0;
    if (*config->etcd_password_file)
        result = config_read_secret(config->etcd_password_file, password, sizeof password - 1, why,
                                    why_bytes);
    log_set_level(LOG_LEVEL_ERROR); /* what it finds is said below, once */
    if (result >= 0)
        result = etcd_check(&client, config->etcd_cluster, config->node, why, why_bytes, warning,
                            sizeof warning);
    explicit_bzero(password, sizeof password);
    if (result >= 0 && *warning)
        main_say_to_user(true, warning);
    return result;
}

/* The same checks as at a start, without starting: what is fine here must not fail there. */
static int main_check_config(const struct config *config, const struct arguments *arguments) {
    char why[WHY_BYTES] = "";
    if (main_check_environment(config, main_say_to_user, why, sizeof why) < 0 ||
        main_check_directory(config, why, sizeof why) < 0) {
        main_say_to_user(false, why);
        return EXIT_CONFIG;
    }
    printf("%s: ok\n", arguments->config_path ? arguments->config_path : "--quick");
    return EXIT_CLEAN;
}

/* With --quick a file may be given, too: what it says goes before quick's defaults, and the path in
 * --quick=PATH before the file. */
static int main_load_config(struct arguments *arguments, struct config *out, char *why,
                            size_t why_bytes) {
    char socket_path[sizeof out->socket_path];
    if (!arguments->quick && arguments->config_path == NULL)
        arguments->config_path = DEFAULT_CONFIG;
    config_defaults(out);
    if (arguments->quick) {
        int result = quick_socket_path(arguments->quick_path, socket_path, why, why_bytes);
        if (result < 0)
            return result;
        quick_set_defaults(out, socket_path, quick_available_bytes());
    }
    int result = arguments->config_path != NULL
                     ? config_load_over(arguments->config_path, out, why, why_bytes)
                     : 0;
    if (result == 0 && arguments->quick_path != NULL)
        snprintf(out->socket_path, sizeof out->socket_path, "%s", socket_path);
    return result;
}

/* The broker that is supervised gets the same arguments. */
static int main_supervise(const struct arguments *arguments, char *program) {
    char quick[4200], config[] = "--config", verbose[] = "--verbose";
    char *argv[6] = {program};
    size_t count = 1;
    snprintf(quick, sizeof quick, "--quick%s%s", arguments->quick_path ? "=" : "",
             arguments->quick_path ? arguments->quick_path : "");
    if (arguments->config_path) {
        argv[count++] = config;
        argv[count++] = (char *)(uintptr_t)arguments->config_path;
    }
    if (arguments->verbose)
        argv[count++] = verbose;
    if (arguments->quick)
        argv[count++] = quick;
    return supervise_run(argv);
}

/* Nothing here has a thread yet, and descriptors 0 to 2 are made sure of before anything is opened.
 * An error in the arguments exits like an error in the file. */
int main(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = main_parse_option,
        .doc = "The feature broker: keeps the features of this node in shared memory and serves "
               "them to "
               "local clients and peers. See featured(8).",
    };
    struct arguments arguments = {.config_path = NULL};
    struct config config;
    char why[WHY_BYTES] = "";
    std_fds_open();
    /* Writing to a socket whose other end is gone is an error to be handled where it happens. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* the log's file at its limit: a write that fails */
    argp_err_exit_status = EXIT_CONFIG;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    if (arguments.supervise && !arguments.check_config)
        return main_supervise(&arguments, argv[0]);
    if (main_load_config(&arguments, &config, why, sizeof why) < 0) {
        main_say_to_user(false, why);
        return EXIT_CONFIG;
    }
    log_set_level(arguments.verbose ? LOG_LEVEL_DEBUG : config.log_level);
    int status = arguments.check_config ? main_check_config(&config, &arguments)
                                        : main_serve(&config, &arguments);
    config_deinit(&config);
    return status;
}
