/* SPDX-License-Identifier: Apache-2.0
 *
 * featured.conf: one table says which keys there are, where their values go, what is allowed and
 * what holds when a key is not given. libinih splits lines into keys and values; section headers
 * are read here, because inih cuts names at 49 bytes, gives no line numbers and does not report a
 * section without keys.
 *
 * A [store NAME] takes the values of [stores] for every key it does not give itself, wherever in
 * the file [stores] stands: which keys each store gave is kept while reading and the rest is copied
 * at the end.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.pb-c.h"
#include "config_table.h"
#include "directory/etcd/batch.h"
#include "host/cgroup.h"
#include "memory/arena.h"
#include "proto/layout.h"

#define LINE_BYTES_MAX 4096
#define KiB            (1ull << 10)
#define MiB            (1ull << 20)
#define GiB            (1ull << 30)
#define TiB            (1ull << 40)
#define SECOND_MS      1000ull
#define HOUR_MS        (3600 * SECOND_MS)
#define DAY_MS         (24 * HOUR_MS)

static_assert(CONFIG_NAME_MAX == LAYOUT_NAME_BYTES_MAX + 1, "names and their terminator");
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

const char *const config_section_words[SECTION_COUNT] = {
    "node", "local", "memory", "stores", "peers", "rdma", "directory", "daemon", "peer", "store"};

/* clang-format off */
/* Where a value goes, and its rule: one of the kinds below. */
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
    {SECTION_LOCAL, "max_sessions_per_user",
     FIELD(config, max_sessions_per_user, INTEGER(0, 65536), LIVE), "0"},
    {SECTION_LOCAL, "admin_sessions", FIELD(config, admin_sessions, INTEGER(0, 65536), LIVE), "16"},
    {SECTION_LOCAL, "hello_timeout",
     FIELD(config, hello_timeout_ms, DURATION(10, HOUR_MS)), "5s"},
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

    {SECTION_MEMORY, "max_resident_bytes",
     FIELD(config, max_resident_bytes, PAGES(4 * KiB, 64 * TiB), LIVE), NULL},
    {SECTION_MEMORY, "hugepages", FIELD(config, hugepages, WORD(hugepages_words, 0)), "off"},
    {SECTION_MEMORY, "prefault", FIELD(config, prefault, BOOL(false)), "on"},

    {SECTION_STORES, "policy",
     FIELD(config, store_defaults.policy, WORD(policy_words, 0), LIVE), "on-release"},
    {SECTION_STORES, "checksum",
     FIELD(config, store_defaults.checksum, WORD(checksum_words, 0)), "after-network"},
    {SECTION_STORES, "readers", FIELD(config, store_defaults.readers, INTEGER(1, 65535), LIVE), "1"},
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
    {SECTION_STORE, "secret_file", FIELD(config, store_defaults.secret_file, OPTIONAL_PATH), ""},
    {SECTION_STORE, "allow_uids", FIELD(config, store_defaults.allow_uids, UIDS, LIVE), ""},
    {SECTION_STORE, "writer_uids", FIELD(config, store_defaults.writer_uids, UIDS, LIVE), ""},

    {SECTION_PEERS, "listen", FIELD(config, listen, ADDRESS(0, 65535), .empty = true), ""},
    {SECTION_PEERS, "advertise", FIELD(config, advertise, ADDRESS(1, 65535), .empty = true), ""},
    {SECTION_PEERS, "data_address", FIELD(config, data_address, ADDRESS(1, 65535), .empty = true),
     ""},
    {SECTION_PEERS, "cluster_secret_file", FIELD(config, cluster_secret_file, OPTIONAL_PATH), ""},
    {SECTION_PEERS, "transport", FIELD(config, transport, WORD(transport_words, 0)), "auto"},
    {SECTION_PEERS, "require_rdma", FIELD(config, require_rdma, BOOL(false)), "off"},
    {SECTION_PEERS, "chunk_bytes", FIELD(config, chunk_bytes, PAGES(64 * KiB, 64 * MiB)), "1MiB"},
    {SECTION_PEERS, "reads_per_peer", FIELD(config, reads_per_peer, INTEGER(1, 1024)), "8"},
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
    {SECTION_DIRECTORY, "lease_ttl", FIELD(config, lease_ttl_ms, DURATION(2000, HOUR_MS)), "10s"},
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
};
/* clang-format on */

#define KEY_COUNT   (sizeof config_keys / sizeof *config_keys)
#define STORE_BEGIN offsetof(struct config, store_defaults)
#define STORE_END   (STORE_BEGIN + sizeof(struct config_store))
const size_t config_key_count = KEY_COUNT;

struct parser {
    const char *path;
    FILE *file;
    struct config *config;
    uint32_t line;
    enum section section;                  /* the one we are in */
    char title[16 + CONFIG_NAME_MAX];      /* what stands between its brackets */
    uint32_t section_lines[SECTION_COUNT]; /* where it began; 0 = not in the file */
    uint32_t key_lines[KEY_COUNT];         /* the last line that gave it; 0 = none */
    bool given[KEY_COUNT];                 /* in this section */
    bool stores_given[CONFIG_STORES_MAX][KEY_COUNT];
    bool failed;
    char *why;
    size_t why_bytes;
};

/* The first thing found wrong is the one reported. Gives 0, which is a failure to inih. */
static int __attribute__((format(printf, 3, 4)))
config_fail(struct parser *p, uint32_t line, const char *format, ...) {
    va_list args;
    if (p->failed)
        return 0;
    p->failed = true;
    int used = snprintf(p->why, p->why_bytes, "%s:%" PRIu32 ": ", p->path, line);
    if (used < 0 || (size_t)used >= p->why_bytes)
        return 0;
    va_start(args, format);
    vsnprintf(p->why + used, p->why_bytes - (size_t)used, format, args);
    va_end(args);
    return 0;
}

bool config_key_is_of_store(const struct config_key *key) {
    return key->offset >= STORE_BEGIN && key->offset < STORE_END && key->section != SECTION_PEER;
}

static bool config_is_allowed_in(const struct config_key *key, enum section section) {
    return key->section == section || (section == SECTION_STORE && config_key_is_of_store(key));
}

void *config_store_field(struct config_store *store, const struct config_key *key) {
    return (char *)store + (key->offset - STORE_BEGIN);
}

static void *config_field_of(struct config *config, enum section section,
                             const struct config_key *key) {
    if (section == SECTION_PEER)
        return (char *)&config->peers[config->peer_count - 1] + key->offset;
    if (section == SECTION_STORE)
        return config_store_field(&config->stores[config->store_count - 1], key);
    return (char *)config + key->offset;
}

static void config_list_words(char *out, size_t out_bytes, enum section section) {
    size_t used = 0;
    for (size_t i = 0; i < (section == SECTION_NONE ? (size_t)SECTION_COUNT : KEY_COUNT); i++) {
        if (section != SECTION_NONE && !config_is_allowed_in(&config_keys[i], section))
            continue;
        int n = snprintf(out + used, out_bytes - used, "%s%s", used ? ", " : "",
                         section == SECTION_NONE ? config_section_words[i] : config_keys[i].name);
        used += n > 0 && (size_t)n < out_bytes - used ? (size_t)n : 0;
    }
}

/* ---- sections ---- */

static int config_add_peer(struct parser *p, const char *name) {
    struct config *config = p->config;
    for (size_t i = 0; i < config->peer_count; i++)
        if (strcmp(config->peers[i].node, name) == 0)
            return config_fail(p, p->line, "[peer %s]: given twice; allowed: one section per peer",
                               name);
    if (config->peer_count == CONFIG_PEERS_MAX)
        return config_fail(p, p->line, "[peer %s]: too many peers; allowed: %u", name,
                           CONFIG_PEERS_MAX);
    struct config_peer *peers = reallocarray(config->peers, config->peer_count + 1, sizeof *peers);
    if (!peers)
        return config_fail(p, p->line, "[peer %s]: out of memory", name);
    config->peers = peers;
    peers[config->peer_count] = (struct config_peer){.address = ""};
    strcpy(peers[config->peer_count++].node, name);
    return 1;
}

static int config_add_store(struct parser *p, const char *name) {
    struct config *config = p->config;
    for (size_t i = 0; i < config->store_count; i++)
        if (strcmp(config->stores[i].name, name) == 0)
            return config_fail(p, p->line,
                               "[store %s]: given twice; allowed: one section per store", name);
    if (config->store_count == CONFIG_STORES_MAX)
        return config_fail(p, p->line, "[store %s]: too many stores; allowed: %u", name,
                           CONFIG_STORES_MAX);
    struct config_store *stores =
        reallocarray(config->stores, config->store_count + 1, sizeof *stores);
    if (!stores)
        return config_fail(p, p->line, "[store %s]: out of memory", name);
    config->stores = stores;
    stores[config->store_count] = config->store_defaults;
    strcpy(stores[config->store_count++].name, name);
    return 1;
}

/* What the section just left behind must have. */
static int config_end_section(struct parser *p) {
    if (p->section == SECTION_STORE)
        memcpy(p->stores_given[p->config->store_count - 1], p->given, sizeof p->given);
    if (p->section == SECTION_PEER && !p->config->peers[p->config->peer_count - 1].address[0])
        return config_fail(p, p->section_lines[SECTION_PEER],
                           "[%s]: has no address; allowed: address = host:port", p->title);
    return 1;
}

static int config_enter_section(struct parser *p, const char *word, const char *name) {
    char allowed[128];
    enum section section = 0;
    while (section < SECTION_COUNT && strcmp(word, config_section_words[section]) != 0)
        section++;
    config_list_words(allowed, sizeof allowed, SECTION_NONE);
    bool named = section == SECTION_PEER || section == SECTION_STORE;
    if (section == SECTION_COUNT)
        return config_fail(p, p->line, "[%s]: no such section; allowed: %s", p->title, allowed);
    if (!named && *name)
        return config_fail(p, p->line, "[%s]: takes no name; allowed: [%s]", p->title, word);
    if (!named && p->section_lines[section])
        return config_fail(p, p->line,
                           "[%s]: given twice, first in line %" PRIu32 "; allowed: once", word,
                           p->section_lines[section]);
    if (named && layout_check_name(name))
        return config_fail(
            p, p->line, "[%s]: the name %s; allowed: [%s NAME], NAME 1 to %u of A-Z a-z 0-9 . _ -",
            p->title, layout_check_name(name), word, LAYOUT_NAME_BYTES_MAX);
    if (section == SECTION_PEER && !config_add_peer(p, name))
        return 0;
    if (section == SECTION_STORE && !config_add_store(p, name))
        return 0;
    p->section = section;
    p->section_lines[section] = p->line;
    memset(p->given, 0, sizeof p->given);
    return 1;
}

/* text: a line, from its '['. */
static int config_begin_section(struct parser *p, const char *text) {
    const char *close = strchr(text, ']');
    size_t length = close ? (size_t)(close - text) - 1 : 0;
    const char *rest = close ? close + 1 + strspn(close + 1, " \t\r\n") : "";
    if (!close || (*rest && *rest != '#' && *rest != ';'))
        return config_fail(
            p, p->line, "a section header does not end with ]; allowed: [SECTION] alone on a line");
    if (!config_end_section(p))
        return 0;
    if (length >= sizeof p->title)
        return config_fail(p, p->line, "a section's name is %zu bytes long; allowed: at most %u",
                           length, LAYOUT_NAME_BYTES_MAX);
    memcpy(p->title, text + 1, length);
    p->title[length] = '\0';
    char word[sizeof p->title];
    strcpy(word, p->title);
    size_t word_bytes = strcspn(word, " \t");
    const char *name = word + word_bytes + strspn(word + word_bytes, " \t");
    word[word_bytes] = '\0';
    return config_enter_section(p, word, name);
}

/* ---- lines: what inih calls ---- */

static char *config_read_line(char *out, int out_bytes, void *stream) {
    struct parser *p = stream;
    if (p->failed || !fgets(out, out_bytes, p->file))
        return NULL;
    p->line++;
    const char *text = out + strspn(out, " \t");
    if (!strchr(out, '\n') && !feof(p->file))
        config_fail(p, p->line, "longer than %d bytes, or holds a zero byte", out_bytes - 2);
    else if (*text == '[')
        config_begin_section(p, text);
    return p->failed ? NULL : out;
}

static int config_take_pair(void *user, const char *section, const char *name, const char *value) {
    struct parser *p = user;
    char text[1024];
    (void)section; /* inih's copy is cut at 49 bytes; p->title is ours */
    if (p->section == SECTION_NONE)
        return config_fail(p, p->line, "%s = %s: before any section; allowed: below a [section]",
                           name, value);
    size_t i = 0;
    while (i < KEY_COUNT && !(config_is_allowed_in(&config_keys[i], p->section) &&
                              strcmp(config_keys[i].name, name) == 0))
        i++;
    if (i == KEY_COUNT) {
        config_list_words(text, sizeof text, p->section);
        return config_fail(p, p->line, "[%s] %s = %s: no such key; allowed: %s", p->title, name,
                           value, text);
    }
    if (p->given[i])
        return config_fail(p, p->line,
                           "[%s] %s = %s: given twice, first in line %" PRIu32 "; allowed: once",
                           p->title, name, value, p->key_lines[i]);
    p->given[i] = true;
    p->key_lines[i] = p->line;
    void *field = config_field_of(p->config, p->section, &config_keys[i]);
    if (!config_value_parse(&config_keys[i].rule, value, field, text, sizeof text))
        return config_fail(p, p->line, "[%s] %s = %s: %s", p->title, name, value, text);
    return 1;
}

/* ---- what must hold between values ---- */

static void config_inherit(struct parser *p) {
    for (size_t s = 0; s < p->config->store_count; s++)
        for (size_t i = 0; i < KEY_COUNT; i++)
            if (config_key_is_of_store(&config_keys[i]) && !p->stores_given[s][i])
                memcpy(config_store_field(&p->config->stores[s], &config_keys[i]),
                       config_store_field(&p->config->store_defaults, &config_keys[i]),
                       config_keys[i].rule.field_bytes);
}

/* The line that gave the value at `field` of the config; the file's last line if it is a default.
 */
static uint32_t config_line_of(const struct parser *p, size_t offset) {
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (config_keys[i].section != SECTION_PEER && config_keys[i].offset == offset &&
            p->key_lines[i])
            return p->key_lines[i];
    return p->line;
}

static int config_check_peers(struct parser *p) {
    const struct config *config = p->config;
    for (size_t i = 0; i < config->peer_count; i++)
        if (strcmp(config->peers[i].node, config->node) == 0)
            return config_fail(
                p, config_line_of(p, offsetof(struct config, node)),
                "[node] name = %s: a peer has the same name; allowed: a name of its own "
                "for each node",
                config->node);
    if (config->ping_interval_ms >= config->peer_timeout_ms)
        return config_fail(p, config_line_of(p, offsetof(struct config, ping_interval_ms)),
                           "[peers] ping_interval = %" PRIu32
                           "ms: not below peer_timeout, every peer would time out; "
                           "allowed: less than %" PRIu32 "ms",
                           config->ping_interval_ms, config->peer_timeout_ms);
    if (config->require_rdma && config->transport == CONFIG_TRANSPORT_TCP)
        return config_fail(
            p, config_line_of(p, offsetof(struct config, require_rdma)),
            "[peers] require_rdma = on: contradicts transport = tcp; allowed: transport = auto "
            "or rdma");
    return 1;
}

static int config_check_etcd(struct parser *p) {
    const struct config *config = p->config;
    if (config->directory != CONFIG_DIRECTORY_ETCD)
        return 1;
    if (!config->etcd_endpoints[0])
        return config_fail(p, config_line_of(p, offsetof(struct config, directory)),
                           "[directory] kind = etcd: no endpoints are given; allowed: endpoints = "
                           "http://host:2379 ...");
    if (config->peer_count)
        return config_fail(
            p, config_line_of(p, offsetof(struct config, directory)),
            "[directory] kind = etcd: the other nodes are found in etcd; allowed: no "
            "[peer NAME] section");
    if (!config->etcd_cert_file[0] != !config->etcd_key_file[0])
        return config_fail(
            p, config_line_of(p, offsetof(struct config, etcd_cert_file)),
            "[directory] cert_file, key_file: one without the other; allowed: both or "
            "neither");
    if (!config->etcd_username[0] != !config->etcd_password_file[0])
        return config_fail(
            p, config_line_of(p, offsetof(struct config, etcd_username)),
            "[directory] username, password_file: one without the other; allowed: both or "
            "neither");
    if (config->listen[0] && !config->advertise[0] && config_address_is_any(config->listen))
        return config_fail(
            p, config_line_of(p, offsetof(struct config, listen)),
            "[peers] listen = %s: says nothing of where the other nodes find this one; "
            "allowed with kind = etcd: one address, or advertise = host:port beside it",
            config->listen);
    return 1;
}

/* A port on the loopback address is open to every user of the machine, and a port that we dial may
 * be anybody's while the broker there is down. */
static int config_check_trust(struct parser *p) {
    const struct config *config = p->config;
    char what[sizeof config->listen + 32] = "[peer NAME]";
    if (config->cluster_secret_file[0] || (!config->listen[0] && !config->peer_count))
        return 1;
    uint32_t line = p->section_lines[SECTION_PEER];
    if (config->listen[0]) {
        line = config_line_of(p, offsetof(struct config, listen));
        snprintf(what, sizeof what, "[peers] listen = %s", config->listen);
    }
    return config_fail(
        p, line,
        "%s: there is no cluster_secret_file: whoever reaches a port for peers, as every "
        "user of the machine reaches 127.0.0.1, could read, lease and abort past each "
        "store's secret and lists, or play a peer; allowed: together with [peers] "
        "cluster_secret_file = FILE, the same on every node; do: (umask 077; head -c 32 "
        "/dev/urandom | base64 > /etc/featured/cluster.secret)",
        what);
}

static int config_check(struct parser *p) {
    const struct config *config = p->config;
    const char *wrong = layout_check_name(config->node);
    if (wrong)
        return config_fail(
            p, p->line, "[node] name: this machine's host name %s %s; allowed: a name given here",
            config->node, wrong);
    if (config->store_count > config->max_stores)
        return config_fail(p, config_line_of(p, offsetof(struct config, max_stores)),
                           "[stores] max_stores = %" PRIu32
                           ": less than the %zu [store NAME] sections; allowed: %zu "
                           "to %u",
                           config->max_stores, config->store_count, config->store_count,
                           CONFIG_STORES_MAX);
    return config_check_peers(p) && config_check_etcd(p) && config_check_trust(p);
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

void config_defaults(struct config *out) {
    char why[128];
    memset(out, 0, sizeof *out);
    charge_limits_init(&out->limits);
    for (size_t i = 0; i < KEY_COUNT; i++) {
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

int config_load(const char *path, struct config *out, char *why, size_t why_bytes) {
    struct parser p = {
        .path = path, .config = out, .section = SECTION_NONE, .why = why, .why_bytes = why_bytes};
    config_defaults(out);
    p.file = fopen(path, "re");
    if (!p.file) {
        int error = errno;
        snprintf(why, why_bytes, "%s: cannot be opened: %s; featured --config FILE names another",
                 path, strerror(error));
        return -error;
    }
    ini_max_line = LINE_BYTES_MAX;
    ini_allow_multiline = false;        /* an indented line is a line like any other */
    ini_inline_comment_prefixes = ";#"; /* the same two characters as at the start of a line */
    int bad_line = ini_parse_stream(config_read_line, &p, config_take_pair, &p);
    if (ferror(p.file))
        config_fail(&p, p.line + 1, "cannot be read: %s", strerror(errno));
    fclose(p.file);
    if (bad_line)
        config_fail(&p, (uint32_t)bad_line, "neither [section] nor key = value");
    if (!p.failed && config_end_section(&p)) {
        config_inherit(&p);
        config_check(&p);
    }
    if (p.failed)
        config_deinit(out);
    return p.failed ? -EINVAL : 0;
}

void config_deinit(struct config *config) {
    free(config->peers);
    free(config->stores);
    config->peers = NULL;
    config->stores = NULL;
    config->peer_count = config->store_count = 0;
}
