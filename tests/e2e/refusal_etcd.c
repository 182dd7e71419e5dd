/* SPDX-License-Identifier: Apache-2.0
 *
 * A real etcd that says no for good: the log says who refuses and with which words, once and not
 * with every attempt; so do the refused put, `featurectl status` and `doctor` and `featured
 * --check-config`; and the log says when it is over.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "e2e/ctl.h"
#include "support/checks.h"
#include "support/payload.h"

#define PATIENCE_MS 30000u
#define RETRIES_MS  3000u /* in which a broker asks again, several times */

static const char store_ini[] = "[store run]\n";

/* One broker, which may be refused from its start on. */
static void start(struct cluster *cluster, const char *ini) {
    char text[1024];
    snprintf(text, sizeof text, "%s[directory]\nkind = etcd\nlease_ttl = 4s\n%s", store_ini, ini);
    cluster_start(cluster, &(struct cluster_options){.nodes = 1,
                                                     .ini = text,
                                                     .unconnected = true,
                                                     .files = {{"password", "0123456789abcdef"},
                                                               {"wrong", "fedcba9876543210"}}});
}

/* The server goes with the cluster, whose count of fds was made when there was one to the server.
 */
static void stop(struct cluster *cluster, const struct etcd_server *etcd) {
    cluster->etcd = *etcd;
    cluster->own_fds--;
    cluster_stop(cluster);
}

static uint32_t lines_with(const struct cluster *cluster, const char *text) {
    char line[2048];
    uint32_t count = 0;
    FILE *file = fopen(cluster->nodes[0].log_path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count += strstr(line, text) != NULL;
    if (file != NULL)
        fclose(file);
    return count;
}

static void etcdctl(struct etcd_server *server, const char *const arguments[]) {
    free(etcd_server_ctl(server, arguments));
}

static void put(const struct cluster *cluster, int status, const char *words) {
    struct payload payload;
    struct feature *feature = cluster_connect(cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 1, 70000);
    CHECK_STATUS(status, payload_put(&payload, store, 1000, NULL));
    if (words != NULL)
        CHECK_SAYS(words);
    feature_store_close(store);
    feature_disconnect(feature);
    payload_deinit(&payload);
}

/* What status says of the directory. */
static bool status_says(const struct cluster *cluster, const char *words) {
    struct process_output output;
    CTL(&output, cluster, 0, "status", "--json");
    json_t *rows = ctl_rows_of(&output);
    const char *trouble = ctl_text(json_array_get(rows, 0), "trouble");
    bool says = words != NULL ? strstr(trouble, words) != NULL : *trouble == '\0';
    json_decref(rows);
    return says;
}

static void doctor_says(const struct cluster *cluster, const char *verdict, const char *words) {
    struct process_output output;
    CTL(&output, cluster, 0, "doctor", "--json");
    json_t *rows = ctl_rows_of(&output);
    json_t *row = ctl_row(rows, "check", "directory");
    CHECK(!strcmp(ctl_text(row, "verdict"), verdict) && strstr(ctl_text(row, "found"), words),
          "%s: %s", ctl_text(row, "verdict"), ctl_text(row, "found"));
    json_decref(rows);
}

/* --check-config on the node's configuration. */
static void config_check_says(const struct cluster *cluster, int status, const char *words) {
    char program[4096];
    struct process_output output;
    cluster_program("featured", program);
    process_run(&output,
                (const char *[]){program, "--check-config", "--config",
                                 cluster->nodes[0].config_path, NULL},
                PATIENCE_MS);
    CHECK(output.status == status && strstr(output.err, words) != NULL, "exit %d: %s%s",
          output.status, output.out, output.err);
    process_output_deinit(&output);
}

/* Everybody says it, and the log says it as often as `lines` after many attempts. */
static void all_say(const struct cluster *cluster, const char *words) {
    WAIT_UNTIL(status_says(cluster, words), PATIENCE_MS);
    put(cluster, FEATURE_E_UNAVAILABLE, words);
    doctor_says(cluster, "fail", words);
    config_check_says(cluster, 2, words);
    check_pause(RETRIES_MS);
    CHECK(lines_with(cluster, words) >= 1, "the log says nothing");
    CHECK(lines_with(cluster, words) <= 2, "the log says it %u times", lines_with(cluster, words));
}

static void is_over(const struct cluster *cluster) {
    WAIT_UNTIL(status_says(cluster, NULL), PATIENCE_MS);
    WAIT_UNTIL(cluster_log_has(cluster, 0, "etcd refuses nothing any more"), PATIENCE_MS);
    doctor_says(cluster, "ok", "nothing is in the way");
    config_check_says(cluster, 0, "");
    put(cluster, FEATURE_OK, NULL);
}

static void grant(struct etcd_server *server, const char *prefix) {
    etcdctl(server, (const char *[]){"user", "add", "root:rootrootrootroot", NULL});
    etcdctl(server, (const char *[]){"user", "grant-role", "root", "root", NULL});
    etcdctl(server, (const char *[]){"role", "add", "r", NULL});
    etcdctl(server, (const char *[]){"role", "grant-permission", "r", "--prefix=true", "readwrite",
                                     prefix, NULL});
    etcdctl(server, (const char *[]){"user", "add", "featured:0123456789abcdef", NULL});
    etcdctl(server, (const char *[]){"user", "grant-role", "featured", "r", NULL});
    etcdctl(server, (const char *[]){"auth", "enable", NULL});
}

#define AS_ROOT "--user", "root:rootrootrootroot"

static void ini_of(const struct etcd_server *server, const char *more, char out[512]) {
    char endpoints[256];
    etcd_server_endpoints(server, endpoints);
    snprintf(out, 512, "endpoints = %s\n%s", endpoints, more);
}

Test(refusal, authentication_is_on_and_no_user_is_configured, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    ini_of(&etcd, "", ini);
    start(&cluster, ini);
    WAIT_UNTIL(status_says(&cluster, NULL), PATIENCE_MS);
    put(&cluster, FEATURE_OK, NULL);
    grant(&etcd, "/featured/");
    all_say(&cluster, "user name is empty");
    etcdctl(&etcd, (const char *[]){"auth", "disable", AS_ROOT, NULL});
    is_over(&cluster);
    stop(&cluster, &etcd);
}

#define USER(FILE) "username = featured\npassword_file = %D/" FILE "\n"

Test(refusal, the_role_is_for_another_prefix, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    grant(&etcd, "/another/");
    ini_of(&etcd, USER("password"), ini);
    start(&cluster, ini);
    all_say(&cluster, "refuses user featured: etcdserver: permission denied");
    etcdctl(&etcd, (const char *[]){"role", "grant-permission", "r", "--prefix=true", "readwrite",
                                    "/featured/", AS_ROOT, NULL});
    is_over(&cluster);
    stop(&cluster, &etcd);
}

/* What a broker keeps going by reads alone is refused, too. */
Test(refusal, the_role_may_only_read, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    grant(&etcd, "/another/");
    etcdctl(&etcd, (const char *[]){"role", "grant-permission", "r", "--prefix=true", "read",
                                    "/featured/", AS_ROOT, NULL});
    ini_of(&etcd, USER("password"), ini);
    start(&cluster, ini);
    all_say(&cluster, "permission denied");
    stop(&cluster, &etcd);
}

Test(refusal, the_password_is_wrong, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    grant(&etcd, "/featured/");
    ini_of(&etcd, USER("wrong"), ini);
    start(&cluster, ini);
    all_say(&cluster, "invalid user ID or password");
    stop(&cluster, &etcd);
}

Test(refusal, a_user_is_configured_and_authentication_is_off, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    ini_of(&etcd, USER("password"), ini);
    start(&cluster, ini);
    all_say(&cluster, "authentication is not enabled");
    stop(&cluster, &etcd);
}

static void compact(struct etcd_server *server) {
    char *text = etcd_server_ctl(server, (const char *[]){"get", "x", "-w", "json", NULL});
    const char *at = strstr(text, "\"revision\":");
    char revision[32] = "";
    CHECK(at != NULL && sscanf(at, "\"revision\":%31[0-9]", revision) == 1, "%s", text);
    etcdctl(server, (const char *[]){"compact", revision, NULL});
    free(text);
}

/* etcd's database has reached its quota: deletes are taken, writes are not. */
Test(refusal, etcd_has_no_space_left, .timeout = 180) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    setenv("ETCD_QUOTA_BACKEND_BYTES", "1048576", 1);
    etcd_server_start(&etcd, 1, false);
    unsetenv("ETCD_QUOTA_BACKEND_BYTES");
    ini_of(&etcd, "", ini);
    start(&cluster, ini);
    put(&cluster, FEATURE_OK, NULL);
    static char filler[100001];
    memset(filler, 'x', sizeof filler - 1);
    for (int i = 0; i < 40 && !cluster_log_has(&cluster, 0, "database space exceeded"); i++) {
        char program[] = "/usr/bin/etcdctl", key[16];
        struct process_output output;
        snprintf(key, sizeof key, "filler%d", i);
        setenv("ETCDCTL_API", "3", 1);
        process_run(&output,
                    (const char *[]){program, "--endpoints", etcd.members[0].client_url, "put", key,
                                     filler, NULL},
                    PATIENCE_MS);
        bool full = output.status != 0;
        process_output_deinit(&output);
        if (full)
            break;
    }
    put(&cluster, FEATURE_E_UNAVAILABLE, "database space exceeded");
    all_say(&cluster, "database space exceeded");
    etcdctl(&etcd, (const char *[]){"del", "--prefix", "filler", NULL});
    compact(&etcd);
    etcdctl(&etcd, (const char *[]){"defrag", NULL});
    etcdctl(&etcd, (const char *[]){"alarm", "disarm", NULL});
    is_over(&cluster);
    stop(&cluster, &etcd);
}

/* ---- certificates ---- */

static void run(const char *const argv[]) {
    struct process_output output;
    process_run(&output, argv, PATIENCE_MS);
    CHECK(output.status == 0, "%s: %s", argv[0], output.err);
    process_output_deinit(&output);
}

static void path_of(const struct etcd_server *etcd, const char *name, char out[128]) {
    snprintf(out, 128, "%s/%s", etcd->directory, name);
}

/* NAME.pem, a certificate of an authority that etcd does not know, and NAME.key. */
static void make_certificate(const struct etcd_server *etcd, const char *name) {
    char file[64], cert[128], key[128];
    snprintf(file, sizeof file, "%s.pem", name);
    path_of(etcd, file, cert);
    snprintf(file, sizeof file, "%s.key", name);
    path_of(etcd, file, key);
    run((const char *[]){"/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                         "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                         "/CN=stranger", "-keyout", key, "-out", cert, NULL});
}

/* late.pem: of etcd's authority and for its key.pem, and expired since yesterday. */
static void make_expired(const struct etcd_server *etcd) {
    char request[128], cert[128], ca_key[128];
    path_of(etcd, "late.csr", request);
    path_of(etcd, "late.pem", cert);
    path_of(etcd, "ca.key", ca_key);
    run((const char *[]){"/usr/bin/openssl", "req", "-new", "-key", etcd->key_path, "-subj",
                         "/CN=late", "-out", request, NULL});
    run((const char *[]){"/usr/bin/openssl", "x509", "-req", "-in", request, "-CA", etcd->ca_path,
                         "-CAkey", ca_key, "-CAcreateserial", "-days", "-1", "-out", cert, NULL});
}

static void tls_ini(const struct etcd_server *etcd, const char *ca, const char *cert,
                    const char *key, char out[512]) {
    char more[400];
    int used = 0;
    used += snprintf(more + used, sizeof more - used, "ca_file = %s/%s\n", etcd->directory, ca);
    if (cert != NULL)
        snprintf(more + used, sizeof more - used, "cert_file = %s/%s\nkey_file = %s/%s\n",
                 etcd->directory, cert, etcd->directory, key);
    ini_of(etcd, more, out);
}

Test(refusal, etcds_certificate_is_of_another_authority, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    make_certificate(&etcd, "other");
    tls_ini(&etcd, "other.pem", "cert.pem", "key.pem", ini);
    start(&cluster, ini);
    all_say(&cluster, "certificate");
    stop(&cluster, &etcd);
}

Test(refusal, etcd_does_not_know_our_certificate, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    make_certificate(&etcd, "other");
    tls_ini(&etcd, "ca.pem", "other.pem", "other.key", ini);
    start(&cluster, ini);
    all_say(&cluster, "certificate");
    stop(&cluster, &etcd);
}

Test(refusal, etcd_wants_a_certificate_and_none_is_configured, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    tls_ini(&etcd, "ca.pem", NULL, NULL, ini);
    start(&cluster, ini);
    all_say(&cluster, "certificate");
    stop(&cluster, &etcd);
}

/* The broker finds it out from etcd, --check-config from the file. */
Test(refusal, our_certificate_has_expired, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    make_expired(&etcd);
    tls_ini(&etcd, "ca.pem", "late.pem", "key.pem", ini);
    start(&cluster, ini);
    WAIT_UNTIL(status_says(&cluster, "certificate"), PATIENCE_MS);
    put(&cluster, FEATURE_E_UNAVAILABLE, "certificate");
    doctor_says(&cluster, "fail", "certificate");
    config_check_says(&cluster, 2, "expired on");
    stop(&cluster, &etcd);
}

Test(refusal, the_key_is_of_another_certificate, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    make_certificate(&etcd, "other");
    tls_ini(&etcd, "ca.pem", "cert.pem", "other.key", ini);
    start(&cluster, ini);
    WAIT_UNTIL(status_says(&cluster, "key"), PATIENCE_MS);
    put(&cluster, FEATURE_E_UNAVAILABLE, "key");
    config_check_says(&cluster, 2, "is not the key of the certificate");
    cluster_reconfigure(&cluster, 0, "[directory]\nkey_file = /nowhere/key.pem\n");
    config_check_says(&cluster, 2, "/nowhere/key.pem: No such file");
    stop(&cluster, &etcd);
}

/* ---- the wrong door ---- */

Test(refusal, https_is_asked_for_and_etcd_speaks_http, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    snprintf(ini, sizeof ini, "endpoints = https://%s:%u\n", etcd.members[0].host,
             etcd.members[0].client_port);
    start(&cluster, ini);
    all_say(&cluster, "does it not speak TLS");
    stop(&cluster, &etcd);
}

Test(refusal, http_is_asked_for_and_etcd_speaks_https, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, true);
    snprintf(ini, sizeof ini, "endpoints = http://%s:%u\n", etcd.members[0].host,
             etcd.members[0].client_port);
    start(&cluster, ini);
    all_say(&cluster, "https");
    stop(&cluster, &etcd);
}

/* ---- no etcd at all ---- */

/* Answers every request with these bytes, and closes. */
static int serve_bytes(int channel, void *context) {
    const char *answer = context;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    char port[16], request[65536];
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, bytes) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &bytes) != 0)
        return 1;
    snprintf(port, sizeof port, "%u", ntohs(address.sin_port));
    channel_say(channel, port);
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0; close(fd)) {
        if (recv(fd, request, sizeof request, 0) > 0)
            send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        while (recv(fd, request, sizeof request, 0) > 0)
            ;
    }
    return 0;
}

static void no_etcd(const char *answer, const char *words, const char *never) {
    struct cluster cluster;
    struct process server;
    char port[16] = "", ini[512];
    process_fork(&server, serve_bytes, (void *)answer);
    channel_receive(server.channel, port, sizeof port, PATIENCE_MS);
    snprintf(ini, sizeof ini, "endpoints = http://127.0.0.1:%s\n", port);
    start(&cluster, ini);
    all_say(&cluster, words);
    CHECK(never == NULL || !cluster_log_has(&cluster, 0, never), "the log has %s", never);
    process_kill(&server);
    cluster.own_fds -= 2; /* to the helper, which was there before the count */
    cluster_stop(&cluster);
}

Test(refusal, a_web_server_is_no_etcd, .timeout = 120) {
    no_etcd("HTTP/1.0 404 Not Found\r\nContent-Type: text/html\r\n\r\n"
            "<html>\x1b[31mno such page\n</html>",
            "HTTP status 404", "\x1b");
}

Test(refusal, a_server_that_does_not_know_POST_is_no_etcd, .timeout = 120) {
    no_etcd("HTTP/1.0 501 Unsupported method\r\n\r\nno", "HTTP status 501", NULL);
}

Test(refusal, a_server_that_says_yes_to_everything_is_no_etcd, .timeout = 120) {
    no_etcd("HTTP/1.0 200 OK\r\n\r\n<html>hello</html>", "does not answer as an etcd does", NULL);
}

/* ---- an outage is none ---- */

Test(refusal, an_etcd_that_is_away_is_an_outage, .timeout = 120) {
    struct cluster cluster;
    struct etcd_server etcd;
    char ini[512];
    etcd_server_start(&etcd, 1, false);
    ini_of(&etcd, "", ini);
    start(&cluster, ini);
    put(&cluster, FEATURE_OK, NULL);
    etcd_server_kill(&etcd, 0);
    WAIT_UNTIL(status_says(&cluster, "cannot be used"), PATIENCE_MS);
    doctor_says(&cluster, "warn", "cannot be used");
    config_check_says(&cluster, 0, "warning: [directory] etcd at");
    CHECK(!cluster_log_has(&cluster, 0, "refuses"), "an outage is called a refusal");
    etcd_server_restart(&etcd, 0);
    WAIT_UNTIL(status_says(&cluster, NULL), PATIENCE_MS);
    stop(&cluster, &etcd);
}
