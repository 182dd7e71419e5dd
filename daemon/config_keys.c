/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of keys of featured.conf: which keys there are, where their values go, what is allowed,
 * and what holds when a key is not given.
 *
 * To add a key, add a line to the table and the field that it fills to struct config (config.h);
 * reading, refusing, defaults and reload follow from them. The key is documented in
 * conf/featured.conf and docs/man/featured.conf.5.md, where a test looks for it.
 */
#include "config_table.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "client.pb-c.h"
#include "directory/etcd/etcd.h"
#include "host/cgroup.h"
#include "memory/arena.h"
#include "proto/layout.h"

#define KiB       (1ull << 10)
#define MiB       (1ull << 20)
#define GiB       (1ull << 30)
#define TiB       (1ull << 40)
#define SECOND_MS 1000ull
#define HOUR_MS   (3600 * SECOND_MS)
#define DAY_MS    (24 * HOUR_MS)

static_assert(CONFIG_NAME_MAX == LAYOUT_NAME_BYTES_MAX + 1, "names and their terminator");
/* A word is stored as its place in its list, so that the lists must have the order of the enums. */
static_assert(FB__POLICY__ON_RELEASE == 0 && FB__POLICY__ON_ACK == 1 && FB__POLICY__RETAIN == 2,
              "policy_words");
static_assert(FB__CHECKSUM_POLICY__AFTER_NETWORK == 0 && FB__CHECKSUM_POLICY__ALWAYS == 1 &&
                  FB__CHECKSUM_POLICY__NEVER == 2,
              "checksum_words");
static_assert(ARENA_HUGEPAGES_OFF == 0 && ARENA_HUGEPAGES_TRY == 1 && ARENA_HUGEPAGES_REQUIRE == 2,
              "hugepages_words");
static_assert(LOG_LEVEL_ERROR == 0 && LOG_LEVEL_WARNING == 1 && LOG_LEVEL_INFO == 2 &&
                  LOG_LEVEL_DEBUG == 3,
              "level_words");
static_assert(CONFIG_DIRECTORY_STATIC == 0 && CONFIG_DIRECTORY_ETCD == 1, "directory_words");

static const char *const policy_words[] = {"on-release", "on-ack", "retain", NULL};
static const char *const checksum_words[] = {"after-network", "always", "never", NULL};
static const char *const hugepages_words[] = {"off", "try", "require", NULL};
static const char *const transport_words[] = {"auto", "tcp", "rdma", NULL};
static const char *const directory_words[] = {"static", "etcd", NULL};
static const char *const level_words[] = {"error", "warning", "info", "debug", NULL};

const char *const config_section_words[SECTION_COUNT] = {"node",  "local", "memory",    "stores",
                                                         "peers", "rdma",  "directory", "daemon",
                                                         "ops",   "peer",  "store"};

/* clang-format off */
/* Where a value goes, and its rule: one of the kinds below. The macros make a line of the table
 * read like a line of its manual: section, key, field, kind with its range, default. */
#define FIELD(type, member, ...) \
    offsetof(struct type, member), {.field_bytes = sizeof(((struct type *)NULL)->member), __VA_ARGS__}
#define NAME                  .kind = CONFIG_NAME
#define PATH                  .kind = CONFIG_PATH
#define OPTIONAL_PATH         .kind = CONFIG_PATH, .empty = true
#define GROUP                 .kind = CONFIG_GROUP
#define WORDS                 .kind = CONFIG_WORDS
#define UIDS                  .kind = CONFIG_UIDS
#define GIDS                  .kind = CONFIG_GIDS
#define BOOL(later_)          .kind = CONFIG_BOOL, .later = (later_)
#define WORD(words_, later_)  .kind = CONFIG_WORD, .words = (words_), .later = (later_)
#define OCTAL(min_, max_)     .kind = CONFIG_OCTAL, .min = (min_), .max = (max_)
#define INTEGER(min_, max_)   .kind = CONFIG_INTEGER, .min = (min_), .max = (max_)
#define BYTES(min_, max_)     .kind = CONFIG_BYTES, .min = (min_), .max = (max_)
#define PAGES(min_, max_)     BYTES(min_, max_), .multiple = 4 * KiB
#define DURATION(min_, max_)  .kind = CONFIG_DURATION, .min = (min_), .max = (max_)
#define URLS                  .kind = CONFIG_URLS
#define ADDRESS(min_, max_)   .kind = CONFIG_ADDRESS, .min = (min_), .max = (max_)
/* A reload takes it; of a key of [stores]: in stores that are there already. All else takes a restart. */
#define LIVE                  .live = true

const struct config_key config_keys[] = {
    {SECTION_NODE, "name", FIELD(config, node, NAME), NULL},

    {SECTION_LOCAL, "socket", FIELD(config, socket_path, PATH), "/run/featured/featured.sock"},
    {SECTION_LOCAL, "socket_mode", FIELD(config, socket_mode, OCTAL(0600, 0777)), "0660"},
    {SECTION_LOCAL, "socket_group", FIELD(config, socket_group, GROUP), ""},
    {SECTION_LOCAL, "allow_uids", FIELD(config, allow_uids, UIDS), ""},
    {SECTION_LOCAL, "allow_gids", FIELD(config, allow_gids, GIDS), ""},
    {SECTION_LOCAL, "admin_uids", FIELD(config, admin_uids, UIDS, LIVE), ""},
    {SECTION_LOCAL, "max_sessions", FIELD(config, max_sessions, INTEGER(1, 65536), LIVE), "1024"},
    /* 0: half of max_sessions. */
    {SECTION_LOCAL, "max_sessions_per_user",
     FIELD(config, max_sessions_per_user, INTEGER(0, 65536), LIVE), "0"},
    {SECTION_LOCAL, "admin_sessions", FIELD(config, admin_sessions, INTEGER(0, 65536), LIVE), "16"},
    {SECTION_LOCAL, "hello_timeout",
     FIELD(config, hello_timeout_ms, DURATION(10, HOUR_MS)), "5s"},
    /* Limits per session and per user. Those of a session keep one broken program from using up its
     * user's share, those of a user keep users apart. charges.c has the words for them. */
    {SECTION_LOCAL, "max_handles_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_HANDLES], INTEGER(1, 16777216), LIVE), "256"},
    {SECTION_LOCAL, "max_handles_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_HANDLES], INTEGER(1, 16777216), LIVE), "65536"},
    {SECTION_LOCAL, "max_leases_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_LEASES], INTEGER(1, 16777216), LIVE), "65536"},
    {SECTION_LOCAL, "max_leases_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_LEASES], INTEGER(1, 16777216), LIVE), "262144"},
    {SECTION_LOCAL, "max_reservations_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_RESERVATIONS], INTEGER(1, 16777216), LIVE), "1024"},
    {SECTION_LOCAL, "max_reservations_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_RESERVATIONS], INTEGER(1, 16777216), LIVE), "16384"},
    {SECTION_LOCAL, "max_requests_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_REQUESTS], INTEGER(1, 16777216), LIVE), "256"},
    {SECTION_LOCAL, "max_requests_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_REQUESTS], INTEGER(1, 16777216), LIVE), "16384"},
    {SECTION_LOCAL, "max_waits_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_WAITS], INTEGER(1, 16777216), LIVE), "8192"},
    {SECTION_LOCAL, "max_waits_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_WAITS], INTEGER(1, 16777216), LIVE), "32768"},
    {SECTION_LOCAL, "max_queued_bytes_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_QUEUED_BYTES], BYTES(0, 64 * TiB), LIVE), "64GiB"},
    {SECTION_LOCAL, "max_queued_bytes_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_QUEUED_BYTES], BYTES(0, 64 * TiB), LIVE), "256GiB"},
    {SECTION_LOCAL, "max_kept_bytes_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_KEPT_BYTES], BYTES(0, 64 * GiB), LIVE), "64MiB"},
    {SECTION_LOCAL, "max_kept_bytes_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_KEPT_BYTES], BYTES(0, 64 * GiB), LIVE), "256MiB"},
    {SECTION_LOCAL, "max_unread_bytes_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_BYTES], BYTES(256 * KiB, 64 * GiB), LIVE), "4MiB"},
    {SECTION_LOCAL, "max_unread_bytes_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_UNREAD_BYTES], BYTES(256 * KiB, 64 * GiB), LIVE), "256MiB"},
    {SECTION_LOCAL, "max_unread_descriptors_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_UNREAD_DESCRIPTORS], INTEGER(1, 65536), LIVE), "16"},
    {SECTION_LOCAL, "max_unread_descriptors_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_UNREAD_DESCRIPTORS], INTEGER(1, 65536), LIVE), "64"},
    {SECTION_LOCAL, "max_pending_ends_per_session",
     FIELD(config, limits.of[ACCOUNT_SESSION][CHARGE_PENDING_ENDS], INTEGER(1, 16777216), LIVE), "16384"},
    {SECTION_LOCAL, "max_pending_ends_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_PENDING_ENDS], INTEGER(1, 16777216), LIVE), "65536"},
    {SECTION_LOCAL, "max_pending_ends",
     FIELD(config, limits.of[ACCOUNT_NODE][CHARGE_PENDING_ENDS], INTEGER(1, 16777216), LIVE), "262144"},

    /* No default here: half of the memory, see config_defaults(). */
    {SECTION_MEMORY, "max_resident_bytes",
     FIELD(config, max_resident_bytes, PAGES(4 * KiB, 64 * TiB), LIVE), NULL},
    {SECTION_MEMORY, "hugepages", FIELD(config, hugepages, WORD(hugepages_words, 0)), "off"},
    {SECTION_MEMORY, "prefault", FIELD(config, prefault, BOOL(false)), "on"},

    /* Defaults of all stores, which a [store NAME] may give anew. */
    {SECTION_STORES, "policy",
     FIELD(config, store_defaults.policy, WORD(policy_words, 0), LIVE), "on-release"},
    {SECTION_STORES, "checksum",
     FIELD(config, store_defaults.checksum, WORD(checksum_words, 0)), "after-network"},
    {SECTION_STORES, "readers", FIELD(config, store_defaults.readers, INTEGER(1, 65535), LIVE), "1"},
    /* The sizes of a store are those of its memory, which is made once: no reload changes them. */
    {SECTION_STORES, "max_resident_bytes",
     FIELD(config, store_defaults.max_resident_bytes, PAGES(4 * KiB, 16 * TiB)), "8GiB"},
    {SECTION_STORES, "landing_bytes",
     FIELD(config, store_defaults.landing_bytes, PAGES(0, 16 * TiB)), "2GiB"},
    {SECTION_STORES, "max_hold",
     FIELD(config, store_defaults.max_hold_ms, DURATION(0, 366 * DAY_MS), LIVE), "0"},
    {SECTION_STORES, "max_reserve",
     FIELD(config, store_defaults.max_reserve_ms, DURATION(0, 366 * DAY_MS), LIVE), "10min"},
    {SECTION_STORES, "max_wait",
     FIELD(config, store_defaults.max_wait_ms, DURATION(0, 366 * DAY_MS), LIVE), "10min"},
    {SECTION_STORES, "max_pass",
     FIELD(config, store_defaults.max_pass_ms, DURATION(0, 366 * DAY_MS), LIVE), "10s"},
    {SECTION_STORES, "max_samples",
     FIELD(config, store_defaults.max_samples, INTEGER(1, 16777216)), "1048576"},
    {SECTION_STORES, "max_stores", FIELD(config, max_stores, INTEGER(1, CONFIG_STORES_MAX), LIVE), "64"},
    {SECTION_STORES, "max_stores_per_user",
     FIELD(config, limits.of[ACCOUNT_USER][CHARGE_STORES], INTEGER(0, CONFIG_STORES_MAX), LIVE), "64"},
    /* Keys that make sense for one store only. */
    {SECTION_STORE, "secret_file", FIELD(config, store_defaults.secret_file, OPTIONAL_PATH), ""},
    {SECTION_STORE, "allow_uids", FIELD(config, store_defaults.allow_uids, UIDS, LIVE), ""},
    {SECTION_STORE, "writer_uids", FIELD(config, store_defaults.writer_uids, UIDS, LIVE), ""},

    /* Port 0 may be listened at, and "" means that there are no peers. */
    {SECTION_PEERS, "listen", FIELD(config, listen, ADDRESS(0, 65535), .empty = true), ""},
    {SECTION_PEERS, "advertise", FIELD(config, advertise, ADDRESS(1, 65535), .empty = true), ""},
    {SECTION_PEERS, "data_address", FIELD(config, data_address, ADDRESS(1, 65535), .empty = true),
     ""},
    {SECTION_PEERS, "cluster_secret_file", FIELD(config, cluster_secret_file, OPTIONAL_PATH), ""},
    {SECTION_PEERS, "transport", FIELD(config, transport, WORD(transport_words, 0)), "auto"},
    {SECTION_PEERS, "require_rdma", FIELD(config, require_rdma, BOOL(false)), "off"},
    {SECTION_PEERS, "chunk_bytes", FIELD(config, chunk_bytes, PAGES(64 * KiB, 64 * MiB)), "1MiB"},
    {SECTION_PEERS, "reads_per_peer", FIELD(config, reads_per_peer, INTEGER(1, 1024)), "8"},
    /* Whoever reaches the port can open connections; how many is bounded before anybody has proved
     * who they are. */
    {SECTION_PEERS, "max_connections", FIELD(config, max_connections, INTEGER(1, 65536)), "1024"},
    {SECTION_PEERS, "max_unread_bytes_per_peer",
     FIELD(config, limits.of[ACCOUNT_PEER][CHARGE_UNREAD_BYTES], BYTES(1 * MiB, 64 * GiB)), "64MiB"},
    {SECTION_PEERS, "max_connections_per_peer",
     FIELD(config, limits.of[ACCOUNT_PEER][CHARGE_CONNECTIONS], INTEGER(1, 1024), LIVE), "8"},
    {SECTION_PEERS, "max_leases_per_peer",
     FIELD(config, limits.of[ACCOUNT_PEER][CHARGE_LEASES], INTEGER(1, 16777216), LIVE), "262144"},
    {SECTION_PEERS, "max_waits_per_peer",
     FIELD(config, limits.of[ACCOUNT_PEER][CHARGE_WAITS], INTEGER(1, 16777216), LIVE), "32768"},
    {SECTION_PEERS, "peer_timeout", FIELD(config, peer_timeout_ms, DURATION(100, HOUR_MS)), "5s"},
    {SECTION_PEERS, "ping_interval", FIELD(config, ping_interval_ms, DURATION(10, HOUR_MS)), "1s"},
    {SECTION_PEERS, "reconnect_max", FIELD(config, reconnect_max_ms, DURATION(10, HOUR_MS)), "5s"},
    {SECTION_PEERS, "handshake_timeout",
     FIELD(config, handshake_timeout_ms, DURATION(100, HOUR_MS)), "5s"},

    {SECTION_RDMA, "devices", FIELD(config, rdma_devices, WORDS, .empty = true), ""},
    {SECTION_RDMA, "registration_bytes",
     FIELD(config, rdma_registration_bytes, PAGES(1 * MiB, 64 * GiB)), "1GiB"},
    {SECTION_RDMA, "reads_in_flight", FIELD(config, rdma_reads_in_flight, INTEGER(1, 255)), "16"},
    {SECTION_RDMA, "stall_timeout",
     FIELD(config, rdma_stall_timeout_ms, DURATION(100, HOUR_MS)), "5s"},

    /* One section per peer; offsets are into struct config_peer. */
    {SECTION_PEER, "address", FIELD(config_peer, address, ADDRESS(1, 65535)), NULL},
    {SECTION_PEER, "data_address",
     FIELD(config_peer, data_address, ADDRESS(1, 65535), .empty = true), NULL},

    {SECTION_DIRECTORY, "kind", FIELD(config, directory, WORD(directory_words, 0)), "static"},
    {SECTION_DIRECTORY, "endpoints", FIELD(config, etcd_endpoints, URLS), ""},
    {SECTION_DIRECTORY, "cluster", FIELD(config, etcd_cluster, NAME), "main"},
    {SECTION_DIRECTORY, "ca_file", FIELD(config, etcd_ca_file, OPTIONAL_PATH), ""},
    {SECTION_DIRECTORY, "cert_file", FIELD(config, etcd_cert_file, OPTIONAL_PATH), ""},
    {SECTION_DIRECTORY, "key_file", FIELD(config, etcd_key_file, OPTIONAL_PATH), ""},
    {SECTION_DIRECTORY, "username", FIELD(config, etcd_username, NAME, .empty = true), ""},
    {SECTION_DIRECTORY, "password_file", FIELD(config, etcd_password_file, OPTIONAL_PATH), ""},
    /* 2 s at least: a leader election of etcd takes longer than 1 s. */
    {SECTION_DIRECTORY, "lease_ttl", FIELD(config, lease_ttl_ms, DURATION(2000, HOUR_MS)), "10s"},
    /* etcd allows 128 operations in a transaction; BATCH_OPS_MAX is what is left beside our own
     * compares. */
    {SECTION_DIRECTORY, "batch_max", FIELD(config, batch_max, INTEGER(1, BATCH_OPS_MAX)), "100"},
    {SECTION_DIRECTORY, "batch_delay", FIELD(config, batch_delay_ms, DURATION(0, 1000)), "1ms"},
    {SECTION_DIRECTORY, "lost_keep",
     FIELD(config, lost_keep_ms, DURATION(0, 366 * DAY_MS), LIVE), "1h"},
    {SECTION_DIRECTORY, "compare_interval",
     FIELD(config, compare_interval_ms, DURATION(0, 366 * DAY_MS)), "15min"},

    {SECTION_DAEMON, "log_level", FIELD(config, log_level, WORD(level_words, 0), LIVE), "info"},
    {SECTION_DAEMON, "drain_timeout", FIELD(config, drain_timeout_ms, DURATION(0, DAY_MS), LIVE), "30s"},
    {SECTION_DAEMON, "gc_interval", FIELD(config, gc_interval_ms, DURATION(10, HOUR_MS), LIVE), "1s"},
    {SECTION_DAEMON, "busy_poll_us", FIELD(config, busy_poll_us, INTEGER(0, 1000), LIVE), "50"},

    {SECTION_OPS, "http", FIELD(config, http, ADDRESS(0, 65535), .empty = true), ""},
    {SECTION_OPS, "http_token_file", FIELD(config, http_token_file, OPTIONAL_PATH), ""},
    {SECTION_OPS, "slow_op", FIELD(config, slow_op_ms, DURATION(0, DAY_MS), LIVE), "0"},
};
/* clang-format on */

#define STORE_BEGIN offsetof(struct config, store_defaults)
#define STORE_END   (STORE_BEGIN + sizeof(struct config_store))

const size_t config_key_count = sizeof config_keys / sizeof *config_keys;
static_assert(sizeof config_keys / sizeof *config_keys <= CONFIG_KEYS_MAX, "CONFIG_KEYS_MAX");

/* Told by the place of the field, so that the table need not say it again for each key. */
bool config_key_is_of_store(const struct config_key *key) {
    return key->offset >= STORE_BEGIN && key->offset < STORE_END && key->section != SECTION_PEER;
}

void *config_store_field(struct config_store *store, const struct config_key *key) {
    return (char *)store + (key->offset - STORE_BEGIN);
}

/* Of the machine's memory, or of what our control group may use of it. */
static uint64_t config_half_of_memory_bytes(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    struct cgroup_limits limits;
    cgroup_limits_read("/proc/self", "", &limits);
    uint64_t bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    bytes = limits.memory.bytes < bytes ? limits.memory.bytes : bytes;
    return bytes < 8 * KiB ? 4 * KiB : bytes / 2 / (4 * KiB) * (4 * KiB);
}

/* Defaults are text and go through the same parser as a file, so that a default which its own rule
 * would refuse is found by the first test that runs. */
void config_defaults(struct config *out) {
    char why[128];
    memset(out, 0, sizeof *out);
    charge_limits_init(&out->limits);
    for (size_t i = 0; i < config_key_count; i++) {
        bool good = !config_keys[i].preset ||
                    config_value_parse(&config_keys[i].rule, config_keys[i].preset,
                                       (char *)out + config_keys[i].offset, why, sizeof why);
        assert(good);
        (void)good;
    }
    out->max_resident_bytes = config_half_of_memory_bytes();
    if (gethostname(out->node, sizeof out->node - 1) < 0)
        out->node[0] = '\0';
}
