/* SPDX-License-Identifier: Apache-2.0
 *
 * featured: arguments, process-wide settings, and the exit status. Everything else begins in
 * daemon.c.
 */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "auth.h"
#include "config.h"
#include "daemon.h"
#include "etcd_check.h"
#include "log.h"

#define DEFAULT_CONFIG "/etc/featured/featured.conf"
#define WHY_BYTES      1024

enum exit_status { EXIT_CLEAN = 0, EXIT_RUNTIME = 1, EXIT_CONFIG = 2 };

/* libc looks it up by name, so it must not be hidden. */
__attribute__((visibility("default"))) const char *argp_program_version =
    "featured " FEATURED_VERSION;

struct arguments {
    const char *config_path;
    bool check_config, verbose;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Read this file instead of " DEFAULT_CONFIG, 0},
    {"check-config", 'C', NULL, 0, "Check the file and the secrets it names, then exit", 0},
    {"verbose", 'v', NULL, 0, "Start with log level debug, whatever the file says", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state) {
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
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int check_secret(const char *path, char *why, size_t why_bytes) {
    unsigned char secret[4096];
    if (!*path)
        return 0;
    int got = config_read_secret(path, secret, sizeof secret, why, why_bytes);
    explicit_bzero(secret, sizeof secret);
    return got < 0 ? got : 0;
}

static int check_secrets(const struct config *config, char *why, size_t why_bytes) {
    int result = check_secret(config->cluster_secret_file, why, why_bytes);
    for (size_t i = 0; i < config->store_count && result == 0; i++)
        result = check_secret(config->stores[i].secret_file, why, why_bytes);
    return result;
}

/* With kind = etcd: the certificate files, and what etcd itself says. One that does not answer is no
 * fault of the configuration. */
static int check_directory(const struct config *config, char *why, size_t why_bytes) {
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
        fprintf(stderr, "featured: warning: %s\n", warning);
    return result;
}

/* Each session costs a descriptor here and one per arena in the client. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    rlim_t was = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("main: limit of open files stays at %ju: %s", (uintmax_t)was, strerror(errno));
}

static int serve(const struct config *config, const char *config_path) {
    char why[WHY_BYTES] = "";
    struct daemon *daemon = NULL;
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    if (auth_init() < 0) {
        log_error("main: libsodium could not be initialised; is /dev/urandom readable?");
        return EXIT_RUNTIME;
    }
    int result = daemon_new(config, config_path, &daemon, why, sizeof why);
    if (result < 0) {
        log_error("main: %s", *why ? why : strerror(-result));
        return EXIT_RUNTIME;
    }
    result = daemon_run(daemon);
    daemon_free(daemon);
    return result < 0 ? EXIT_RUNTIME : EXIT_CLEAN;
}

int main(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "The feature broker: keeps the features of this node in shared memory and serves "
               "them to "
               "local clients and peers. See featured(8).",
    };
    struct arguments arguments = {.config_path = DEFAULT_CONFIG};
    struct config config;
    char why[WHY_BYTES] = "";
    argp_err_exit_status = EXIT_CONFIG;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    int result = config_load(arguments.config_path, &config, why, sizeof why);
    if (result == 0 && (result = check_secrets(&config, why, sizeof why)) < 0)
        config_deinit(&config);
    if (result < 0) {
        fprintf(stderr, "featured: %s\n", why);
        return EXIT_CONFIG;
    }
    log_set_level(arguments.verbose ? LOG_LEVEL_DEBUG : config.log_level);
    int status = EXIT_CLEAN;
    if (arguments.check_config && check_directory(&config, why, sizeof why) < 0) {
        fprintf(stderr, "featured: %s: %s\n", arguments.config_path, why);
        status = EXIT_CONFIG;
    } else if (arguments.check_config)
        printf("%s: ok\n", arguments.config_path);
    else
        status = serve(&config, arguments.config_path);
    config_deinit(&config);
    return status;
}
