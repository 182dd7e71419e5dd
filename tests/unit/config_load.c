/* SPDX-License-Identifier: Apache-2.0
 *
 * featured.conf: what a file means, and what is refused with which line.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.pb-c.h"
#include "config.h"
#include "host/cgroup.h"

/* A configuration file that exists as long as its descriptor. */
struct file {
    int fd;
    char path[64];
};

static struct file write_file(const char *text, size_t bytes) {
    struct file file = {.fd = memfd_create("featured.conf", MFD_CLOEXEC)};
    cr_assert_geq(file.fd, 0);
    cr_assert_eq(write(file.fd, text, bytes), (ssize_t)bytes);
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

static int load(const char *text, struct config *config, char why[1024]) {
    struct file file = write_file(text, strlen(text));
    why[0] = '\0';
    int result = config_load(file.path, config, why, 1024);
    close(file.fd);
    return result;
}

static struct config load_good(const char *text) {
    struct config config;
    char why[1024];
    cr_assert_eq(load(text, &config, why), 0, "%s", why);
    return config;
}

/* line: what follows FILE in the sentence, e.g. ":2: [local] socket". */
static void refuse(const char *text, const char *line, const char *cause) {
    struct config config;
    char why[1024];
    cr_assert_eq(load(text, &config, why), -EINVAL, "accepted: %s", text);
    cr_assert_not_null(strstr(why, line), "wanted %s in: %s", line, why);
    cr_assert_not_null(strstr(why, cause), "wanted %s in: %s", cause, why);
    cr_assert_eq(strncmp(why, "/proc/self/fd/", 14), 0, "no file name in: %s", why);
    cr_assert_null(config.peers);
    cr_assert_null(config.stores);
}

Test(config, an_empty_file_means_the_documented_defaults) {
    struct config config = load_good("");
    char host[65] = "";
    cr_assert_eq(gethostname(host, sizeof host - 1), 0);
    cr_expect_str_eq(config.node, host);
    cr_expect_str_eq(config.socket_path, "/run/featured/featured.sock");
    cr_expect_eq(config.socket_mode, 0660);
    cr_expect_str_eq(config.socket_group, "");
    cr_expect_eq(config.allow_uids.count + config.allow_gids.count + config.admin_uids.count, 0);
    cr_expect_eq(config.max_sessions, 1024);
    cr_expect_eq(config.limits.of[ACCOUNT_SESSION][CHARGE_LEASES], 65536);
    cr_expect_eq(config.limits.of[ACCOUNT_SESSION][CHARGE_RESERVATIONS], 1024);
    cr_expect_eq(config.limits.of[ACCOUNT_SESSION][CHARGE_REQUESTS], 256);
    cr_expect_eq(config.limits.of[ACCOUNT_SESSION][CHARGE_QUEUED_BYTES], 64ull << 30);
    cr_expect_eq(config.hugepages, 0);
    cr_expect(config.prefault);
    cr_expect_eq(config.store_defaults.policy, FB__POLICY__ON_RELEASE);
    cr_expect_eq(config.store_defaults.checksum, FB__CHECKSUM_POLICY__AFTER_NETWORK);
    cr_expect_eq(config.store_defaults.readers, 1);
    cr_expect_eq(config.store_defaults.max_resident_bytes, 8ull << 30);
    cr_expect_eq(config.store_defaults.landing_bytes, 2ull << 30);
    cr_expect_eq(config.store_defaults.max_hold_ms, 0);
    cr_expect_eq(config.store_defaults.max_samples, 1048576);
    cr_expect_eq(config.max_stores, 64);
    cr_expect_str_eq(config.listen, "");
    cr_expect_eq(config.transport, CONFIG_TRANSPORT_AUTO);
    cr_expect_not(config.require_rdma);
    cr_expect_eq(config.chunk_bytes, 1048576);
    cr_expect_eq(config.reads_per_peer, 8);
    cr_expect_eq(config.peer_timeout_ms, 5000);
    cr_expect_eq(config.ping_interval_ms, 1000);
    cr_expect_eq(config.reconnect_max_ms, 5000);
    cr_expect_eq(config.handshake_timeout_ms, 5000);
    cr_expect_eq(config.directory, CONFIG_DIRECTORY_STATIC);
    cr_expect_eq(config.log_level, LOG_LEVEL_INFO);
    cr_expect_eq(config.drain_timeout_ms, 30000);
    cr_expect_eq(config.gc_interval_ms, 1000);
    cr_expect_eq(config.peer_count + config.store_count, 0);
}

Test(config, the_node_quota_defaults_to_half_of_memory_or_of_the_cgroups) {
    struct config config = load_good("");
    uint64_t memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    cr_expect_eq(config.max_resident_bytes % 4096, 0);
    struct cgroup_limits limits;
    cgroup_limits_read("/proc/self", "", &limits);
    if (limits.memory.bytes < memory_bytes)
        memory_bytes = limits.memory.bytes;
    cr_expect_leq(config.max_resident_bytes, memory_bytes / 2);
    cr_expect_gt(config.max_resident_bytes, memory_bytes / 2 - 4096);
}

Test(config, every_section_is_read) {
    struct config config =
        load_good("# comment\n"
                  "; comment\n"
                  "[node]\nname = a\n"
                  "[local]\n  socket = /tmp/a.sock  # behind a value\n"
                  "socket_mode = 0600\nallow_uids = 0, 1000 1001\nallow_gids = root\n"
                  "max_queued_bytes_per_session = 0\n"
                  "[memory]\nmax_resident_bytes = 64 MiB\nhugepages = try\nprefault = no\n"
                  "[peers]\nlisten = [::1]:0\ncluster_secret_file = /s\npeer_timeout = "
                  "500ms\nping_interval=100ms\n"
                  "transport = tcp\nchunk_bytes = 65536\n"
                  "[peer b]\naddress = localhost:7400\n"
                  "[directory]\nkind = static\n"
                  "[daemon]\nlog_level = debug\ndrain_timeout = 2min\n");
    cr_expect_str_eq(config.node, "a");
    cr_expect_str_eq(config.socket_path, "/tmp/a.sock");
    cr_expect_eq(config.socket_mode, 0600);
    cr_expect_eq(config.allow_uids.count, 3);
    cr_expect_eq(config.allow_uids.ids[2], 1001);
    cr_expect_eq(config.allow_gids.count, 1);
    cr_expect_eq(config.allow_gids.ids[0], 0);
    cr_expect_eq(config.limits.of[ACCOUNT_SESSION][CHARGE_QUEUED_BYTES], 0);
    cr_expect_eq(config.max_resident_bytes, 64ull << 20);
    cr_expect_eq(config.hugepages, 1);
    cr_expect_not(config.prefault);
    cr_expect_str_eq(config.listen, "[::1]:0");
    cr_expect_eq(config.peer_timeout_ms, 500);
    cr_expect_eq(config.transport, 1);
    cr_expect_eq(config.chunk_bytes, 65536);
    cr_assert_eq(config.peer_count, 1);
    cr_expect_str_eq(config.peers[0].node, "b");
    cr_expect_str_eq(config.peers[0].address, "localhost:7400");
    cr_expect_eq(config.log_level, LOG_LEVEL_DEBUG);
    cr_expect_eq(config.drain_timeout_ms, 120000);
    config_deinit(&config);
}

Test(config, a_store_inherits_from_stores_wherever_that_stands) {
    struct config config =
        load_good("[store first]\nreaders = 3\n"
                  "[store empty]\n"
                  "[stores]\nreaders = 2\npolicy = on-ack\nmax_hold = 1h\n"
                  "[store last]\npolicy = retain\nallow_uids = 7\nsecret_file = /s\n");
    cr_assert_eq(config.store_count, 3);
    cr_expect_str_eq(config.stores[0].name, "first");
    cr_expect_eq(config.stores[0].readers, 3);
    cr_expect_eq(config.stores[0].policy, FB__POLICY__ON_ACK);
    cr_expect_str_eq(config.stores[1].name, "empty");
    cr_expect_eq(config.stores[1].readers, 2);
    cr_expect_eq(config.stores[1].max_hold_ms, 3600000);
    cr_expect_eq(config.stores[2].policy, FB__POLICY__RETAIN);
    cr_expect_eq(config.stores[2].readers, 2);
    cr_expect_eq(config.stores[2].allow_uids.ids[0], 7);
    cr_expect_str_eq(config.stores[2].secret_file, "/s");
    cr_expect_eq(config.store_defaults.allow_uids.count, 0);
    cr_expect_eq(config.stores[1].allow_uids.count, 0);
    config_deinit(&config);
}

Test(config, a_name_of_64_bytes_is_kept_whole) {
    char text[256], name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    snprintf(text, sizeof text,
             "[peers]\ncluster_secret_file = /s\n[store %s]\n[peer %s]\naddress = h:1\n", name,
             name);
    struct config config = load_good(text);
    cr_expect_str_eq(config.stores[0].name, name);
    cr_expect_str_eq(config.peers[0].node, name);
    config_deinit(&config);
}

Test(config, what_is_not_known_is_refused_with_what_is) {
    refuse("[node]\nnmae = a\n", ":2: [node] nmae = a: no such key", "allowed: name");
    refuse("\n[nodes]\n", ":2: [nodes]: no such section", "allowed: node, local, memory");
    refuse("name = a\n", ":1: name = a: before any section", "allowed");
    refuse("[node]\nrubbish\n", ":2: neither [section] nor key = value", "");
    refuse("[node\nname = a\n", ":1: a section header does not end with ]", "");
    refuse("[node] name = a\n", ":1: a section header", "alone on a line");
    refuse("[peer]\naddress = h:1\n", ":1: [peer]: the name is empty", "[peer NAME]");
    refuse("[store a/b]\n", ":1: [store a/b]: the name has a character", "NAME");
    refuse("[node x]\n", ":1: [node x]: takes no name", "[node]");
    refuse("[stores]\nsecret_file = /s\n", ":2: [stores] secret_file = /s: no such key",
           "max_stores");
    refuse("[store a]\nmax_stores = 3\n", ":2: [store a] max_stores = 3: no such key",
           "secret_file");
}

Test(config, what_is_given_twice_is_refused) {
    refuse("[node]\nname = a\nname = b\n", ":3: [node] name = b: given twice, first in line 2",
           "once");
    refuse("[node]\n[local]\n[node]\n", ":3: [node]: given twice, first in line 1", "once");
    refuse("[store a]\n[store a]\n", ":2: [store a]: given twice", "one section per store");
    refuse("[peer a]\naddress=h:1\n[peer a]\n", ":3: [peer a]: given twice",
           "one section per peer");
}

Test(config, a_bad_value_is_refused_with_its_range) {
    refuse("[local]\nsocket_mode = 0999\n", ":2: [local] socket_mode = 0999",
           "allowed: 0600 to 0777");
    refuse("[peers]\nchunk_bytes = 128MiB\n", ":2: [peers] chunk_bytes = 128MiB: out of range",
           "allowed: 64KiB to 64MiB, a multiple of 4KiB");
    refuse("[stores]\nreaders = 0\n", ":2: [stores] readers = 0: out of range",
           "allowed: 1 to 65535");
    refuse("[stores]\nreaders =\n", ":2: [stores] readers = : not a whole number", "allowed");
    refuse("[daemon]\nlog_level = loud\n", ":2:", "allowed: error, warning, info, debug");
}

Test(config, rdma_is_asked_for_by_name) {
    struct config config = load_good("[peers]\nrequire_rdma = no\ntransport = rdma\n");
    cr_expect_not(config.require_rdma);
    cr_expect_eq(config.transport, 2);
}

Test(config, values_that_contradict_each_other_are_refused) {
    refuse("[peers]\ntransport = tcp\nrequire_rdma = on\n",
           ":3: [peers] require_rdma = on: ", "transport = auto or rdma");
    refuse("[peers]\nping_interval = 6s\n",
           ":2: [peers] ping_interval = 6000ms: not below peer_timeout", "less than 5000ms");
    refuse("[peer a]\naddress = h:1\n[node]\nname = a\n",
           ":4: [node] name = a: a peer has the same name", "allowed");
    refuse("[stores]\nmax_stores = 1\n[store a]\n[store b]\n",
           ":2: [stores] max_stores = 1: less than the 2", "2 to 256");
    refuse("[peer a]\n[node]\nname = b\n", ":1: [peer a]: has no address", "address = host:port");
}

Test(config, trust_in_peers_takes_a_secret_wherever_they_are) {
    const char *addresses[] = {"0.0.0.0:7400", "[::]:7400",   "myhost:7400",
                               "127.0.0.1:0",  "localhost:1", "[::1]:7400"};
    char text[256];
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        snprintf(text, sizeof text, "[peers]\nlisten = %s\n", addresses[i]);
        refuse(text, ":2: [peers] listen = ", "/dev/urandom | base64");
        strcat(text, "cluster_secret_file = /c\n");
        cr_expect_str_eq(load_good(text).cluster_secret_file, "/c");
    }
    refuse("[node]\nname = b\n[peer a]\naddress = 127.0.0.1:1\n", ":3: [peer NAME]: there is no",
           "cluster_secret_file");
}

Test(config, etcd_takes_endpoints_and_all_of_a_kind) {
    const char *etcd = "[directory]\nkind = etcd\nendpoints = http://a:2379, https://[::1]:2379\n";
    char text[512];
    struct config config = load_good(etcd);
    cr_expect_eq(config.directory, CONFIG_DIRECTORY_ETCD);
    cr_expect_str_eq(config.etcd_cluster, "main");
    cr_expect_eq(config.lease_ttl_ms, 10000);
    cr_expect_eq(config.batch_max, 100);
    cr_expect_eq(config.lost_keep_ms, 3600000);
    cr_expect_eq(config.batch_delay_ms, 1);
    refuse("[directory]\nkind = etcd\n", ":2: [directory] kind = etcd: no endpoints", "endpoints");
    refuse("[directory]\nendpoints = a:2379\n", ":2:", "allowed: http://host:port");
    refuse("[directory]\nendpoints = http://a\n", ":2:", "allowed: http://host:port");
    refuse("[directory]\nlease_ttl = 1s\n", ":2:", "2s to 1h");
    refuse("[directory]\nbatch_max = 128\n", ":2:", "1 to 120");
    const char *wrong[][2] = {
        {"cert_file = /c\n", "both or neither"},
        {"username = u\n", "both or neither"},
        {"[peer b]\naddress = b:1\n", "no [peer NAME]"},
        {"[peers]\nlisten = 0.0.0.0:7400\ncluster_secret_file = /s\n", "advertise = host:port"},
        {"[peers]\nlisten = [::]:7400\ncluster_secret_file = /s\n", "advertise = host:port"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, "%s%s", etcd, wrong[i][0]);
        refuse(text, ":", wrong[i][1]);
    }
    snprintf(text, sizeof text, "%s[peers]\nlisten = 0.0.0.0:1\ncluster_secret_file = /s\n%s", etcd,
             "advertise = a:7400\n");
    cr_expect_str_eq(load_good(text).advertise, "a:7400");
    cr_expect_str_eq(load_good(text).data_address, "", "the same");
    strcat(text, "data_address = a-fast:7401\n");
    cr_expect_str_eq(load_good(text).data_address, "a-fast:7401");
}

Test(config, long_lines_and_zero_bytes_are_refused) {
    char line[8192];
    memset(line, 'x', sizeof line);
    memcpy(line, "[node]\nname = ", 14);
    line[sizeof line - 2] = '\n';
    line[sizeof line - 1] = '\0';
    refuse(line, ":2: longer than", "zero byte");
    struct file file = write_file("[node]\nname = a\0b\n", 18);
    struct config config;
    char why[256];
    cr_expect_eq(config_load(file.path, &config, why, sizeof why), -EINVAL);
    cr_expect_not_null(strstr(why, ":2: "), "%s", why);
    close(file.fd);
}

Test(config, a_file_that_cannot_be_read_is_named) {
    struct config config;
    char why[256];
    cr_expect_eq(config_load("/nonexistent/f.conf", &config, why, sizeof why), -ENOENT);
    cr_expect_str_eq(why, "/nonexistent/f.conf: cannot be opened: No such file or directory; "
                          "featured --config FILE names another");
    cr_expect_eq(config_load("/proc/self", &config, why, sizeof why), -EINVAL);
    cr_expect_not_null(strstr(why, "Is a directory"), "%s", why);
}

Test(config, a_sentence_is_cut_to_its_buffer) {
    struct config config;
    char why[16] = "";
    struct file file = write_file("[node]\nnmae = a\n", 16);
    cr_expect_eq(config_load(file.path, &config, why, sizeof why), -EINVAL);
    cr_expect_lt(strlen(why), sizeof why);
    close(file.fd);
}

/* Turns "#key = value" and "#[section]" of the shipped file into lines that count. */
static char *uncomment(FILE *shipped) {
    char line[512], word[64], *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    while (fgets(line, sizeof line, shipped)) {
        bool is_key =
            sscanf(line, "#%63[a-z_]", word) == 1 && strncmp(line + 1 + strlen(word), " =", 2) == 0;
        bool is_section = strncmp(line, "#[", 2) == 0;
        fputs(is_key || is_section ? line + 1 : line, out);
    }
    fclose(out);
    return text;
}

static char *read_uncommented(const char *path) {
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "no %s: run the tests from the root of the source tree", path);
    char *text = uncomment(file);
    fclose(file);
    return text;
}

/* Read with its comment signs taken away it must mean what an empty file means, the examples aside.
 */
Test(config, the_shipped_file_shows_the_defaults) {
    char *text = read_uncommented("conf/featured.conf");
    char *secret = strstr(text, "cluster_secret_file =\n"); /* the example of a peer needs one */
    cr_assert_not_null(secret);
    memcpy(secret, "cluster_secret_file=/", 21);
    struct config expected = load_good(""), got = load_good(text);
    free(text);
    cr_expect_str_eq(got.cluster_secret_file, "/");
    memset(got.cluster_secret_file, 0, sizeof got.cluster_secret_file);
    cr_assert_eq(got.peer_count, 1);
    cr_assert_eq(got.store_count, 1);
    strcpy(got.store_defaults.name, got.stores[0].name);
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    cr_expect_eq(memcmp(&got.stores[0], &got.store_defaults, sizeof got.stores[0]), 0);
    config_deinit(&got);
    memset(got.store_defaults.name, 0, sizeof got.store_defaults.name);
    memcpy(got.node, expected.node, sizeof got.node);
    got.max_resident_bytes = expected.max_resident_bytes;
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
    cr_expect_eq(memcmp(&expected, &got, sizeof got), 0);
}

/* What the parser allows in a section, it lists when it refuses a key. */
Test(config, the_shipped_file_and_the_manual_show_every_key) {
    const char *sections[] = {"node",  "local",  "memory",    "stores", "store x",
                              "peers", "peer x", "directory", "daemon"};
    char *shipped = read_uncommented("conf/featured.conf");
    char *manual = read_uncommented("docs/man/featured.conf.5.md");
    size_t count = 0;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        struct config config;
        char text[64], why[1024], line[72];
        snprintf(text, sizeof text, "[%s]\nno_such_key = 1\n", sections[i]);
        cr_assert_eq(load(text, &config, why), -EINVAL);
        char *allowed = strstr(why, "allowed: ");
        cr_assert_not_null(allowed, "%s", why);
        for (char *key = strtok(allowed + 9, ", "); key; key = strtok(NULL, ", "), count++) {
            snprintf(line, sizeof line, "\n%s =", key);
            cr_expect_not_null(strstr(shipped, line), "[%s] %s: not in featured.conf", sections[i],
                               key);
            cr_expect_not_null(strstr(manual, line + 1), "[%s] %s: not in the manual", sections[i],
                               key);
        }
    }
    cr_expect_gt(count, 40);
    free(shipped);
    free(manual);
}
