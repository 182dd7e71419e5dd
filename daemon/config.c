/* SPDX-License-Identifier: Apache-2.0
 *
 * featured.conf: reads a file by the table of keys (config_keys.c), and checks what must hold
 * between values.
 *
 * libinih splits lines into keys and values. Section headers are read here, because inih cuts names
 * at 49 bytes, gives no line numbers and does not report a section without keys. Reading stops at
 * the first thing that is wrong: what follows may be wrong only because of it.
 *
 * A [store NAME] takes the values of [stores] for every key that it does not give itself, wherever
 * in the file [stores] stands: which keys each store gave is kept while reading, and the rest is
 * copied at the end.
 */
#include "config.h"

#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_table.h"
#include "proto/layout.h"

#define LINE_BYTES_MAX 4096
/* What is known while a file is read. given: keys of the section that is being read; stores_given:
 * the same, kept for each store until the end. */
struct parser {
    const char *path;
    FILE *file;
    struct config *config;
    uint32_t line;
    enum section section;                  /* the one we are in */
    char title[16 + CONFIG_NAME_MAX];      /* what stands between its brackets */
    uint32_t section_lines[SECTION_COUNT]; /* where it began; 0 = not in the file */
    uint32_t key_lines[CONFIG_KEYS_MAX];   /* the last line that gave it; 0 = none */
    bool given[CONFIG_KEYS_MAX];           /* in this section */
    bool stores_given[CONFIG_STORES_MAX][CONFIG_KEYS_MAX];
    bool failed;
    char *why;
    size_t why_bytes;
};

/* The first thing found wrong is the one that is reported. Gives 0, which is a failure to inih. */
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

/* A key of [stores] may be given in each [store NAME], too. */
static bool config_is_allowed_in(const struct config_key *key, enum section section) {
    return key->section == section || (section == SECTION_STORE && config_key_is_of_store(key));
}

/* Where the value of a key goes: into the peer or the store whose section is being read, or into
 * the config itself. */
static void *config_field_of(struct config *config, enum section section,
                             const struct config_key *key) {
    if (section == SECTION_PEER)
        return (char *)&config->peers[config->peer_count - 1] + key->offset;
    if (section == SECTION_STORE)
        return config_store_field(&config->stores[config->store_count - 1], key);
    return (char *)config + key->offset;
}

/* The names that would have been allowed, for a sentence: sections (SECTION_NONE) or keys of a
 * section. Those that no longer fit are left out. */
static void config_list_words(char *out, size_t out_bytes, enum section section) {
    size_t used = 0;
    for (size_t i = 0; i < (section == SECTION_NONE ? (size_t)SECTION_COUNT : config_key_count);
         i++) {
        if (section != SECTION_NONE && !config_is_allowed_in(&config_keys[i], section))
            continue;
        int n = snprintf(out + used, out_bytes - used, "%s%s", used ? ", " : "",
                         section == SECTION_NONE ? config_section_words[i] : config_keys[i].name);
        used += n > 0 && (size_t)n < out_bytes - used ? (size_t)n : 0;
    }
}

/* ---- sections ---- */

/* The lists grow by one each time; a file has a thousand peers at most. */
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

/* The store begins with the defaults that are known so far; config_inherit() brings what [stores]
 * says further down. */
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

/* What the section that was just left behind must have. Also called at the end of the file. */
static int config_end_section(struct parser *p) {
    if (p->section == SECTION_STORE)
        memcpy(p->stores_given[p->config->store_count - 1], p->given, sizeof p->given);
    if (p->section == SECTION_PEER && !p->config->peers[p->config->peer_count - 1].address[0])
        return config_fail(p, p->section_lines[SECTION_PEER],
                           "[%s]: has no address; allowed: address = host:port", p->title);
    return 1;
}

/* word and name: of "[store run0]", "store" and "run0". Sections without a name may come once,
 * because two of them are mostly the remains of an edit, and which one holds would be a guess. */
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

/* text: a line, from its '['. A comment may follow the closing bracket. */
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

/* inih asks for lines here, so that this is where they are counted and headers are seen. A line
 * that is too long is refused; inih would go on with its second half as a line of its own. */
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

/* One key = value. A key that is given twice is refused like a section that is. */
static int config_take_pair(void *user, const char *section, const char *name, const char *value) {
    struct parser *p = user;
    char text[1024];
    (void)section; /* inih's copy is cut at 49 bytes; p->title is ours */
    if (p->section == SECTION_NONE)
        return config_fail(p, p->line, "%s = %s: before any section; allowed: below a [section]",
                           name, value);
    size_t i = 0;
    while (i < config_key_count && !(config_is_allowed_in(&config_keys[i], p->section) &&
                                     strcmp(config_keys[i].name, name) == 0))
        i++;
    if (i == config_key_count) {
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

/* In the end, when all of [stores] is known. */
static void config_inherit(struct parser *p) {
    for (size_t s = 0; s < p->config->store_count; s++)
        for (size_t i = 0; i < config_key_count; i++)
            if (config_key_is_of_store(&config_keys[i]) && !p->stores_given[s][i])
                memcpy(config_store_field(&p->config->stores[s], &config_keys[i]),
                       config_store_field(&p->config->store_defaults, &config_keys[i]),
                       config_keys[i].rule.field_bytes);
}

/* For sentences about two values: the line that gave the value at `offset` of the config; the
 * file's last line if the value is a default. */
static uint32_t config_line_of(const struct parser *p, size_t offset) {
    for (size_t i = 0; i < config_key_count; i++)
        if (config_keys[i].section != SECTION_PEER && config_keys[i].offset == offset &&
            p->key_lines[i])
            return p->key_lines[i];
    return p->line;
}

/* Each check names the line that gave the value which is the easier one to mend. */
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

/* With etcd the nodes find each other there; a list of peers beside it would be a second truth. */
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
 * be anybody's while the broker there is down. So there are no peers without a secret. */
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

/* Names of stores and nodes, and how fast somebody trains, are nobody's business outside this
 * machine. */
static int config_check_ops(struct parser *p) {
    const struct config *config = p->config;
    if (!config->http[0] || config->http_token_file[0] || config_address_is_loopback(config->http))
        return 1;
    return config_fail(p, config_line_of(p, offsetof(struct config, http)),
                       "[ops] http = %s: can be reached from other machines; allowed: together "
                       "with http_token_file = FILE, or an address such as 127.0.0.1:9464",
                       config->http);
}

/* The host name is the default of [node] name and need not be a name that we can use. */
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
    return config_check_peers(p) && config_check_etcd(p) && config_check_trust(p) &&
           config_check_ops(p);
}

/* The three settings are globals of inih; nothing else in the process uses it. */
int config_load_over(const char *path, struct config *config, char *why, size_t why_bytes) {
    struct parser p = {.path = path,
                       .config = config,
                       .section = SECTION_NONE,
                       .why = why,
                       .why_bytes = why_bytes};
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
        config_deinit(config);
    return p.failed ? -EINVAL : 0;
}

int config_load(const char *path, struct config *out, char *why, size_t why_bytes) {
    config_defaults(out);
    return config_load_over(path, out, why, why_bytes);
}

/* Safe to call twice, and on a config of which only the defaults have been filled in. */
void config_deinit(struct config *config) {
    free(config->peers);
    free(config->stores);
    config->peers = NULL;
    config->stores = NULL;
    config->peer_count = config->store_count = 0;
}
