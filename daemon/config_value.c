/* SPDX-License-Identifier: Apache-2.0
 *
 * One function per kind of value: text in, C value or a sentence out.
 *
 * A number without a unit is refused where a unit is needed, and KB, MB and so on are refused
 * altogether, because each of them has been read in two ways (1000 or 1024). A refusal says what
 * would have been allowed, so that nobody needs the manual in order to mend a line.
 *
 * The functions named take_ parse and store one kind; config_value_parse() picks one by the rule.
 * config_value_format() writes a value as a file would, for the messages of a reload.
 */
#include "config_value.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config.h"
#include "proto/layout.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};
static const struct unit byte_units[] = {
    {"", 1},   {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40},
    {NULL, 0},
};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000ull}, {"min", 60 * 1000ull}, {"h", 3600 * 1000ull}, {NULL, 0},
};

struct sentence {
    char *text;
    size_t bytes;
};

/* Always false, so that a caller can refuse and return in one line. */
static bool __attribute__((format(printf, 2, 3)))
config_value_refuse(struct sentence why, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why.text, why.bytes, format, args);
    va_end(args);
    return false;
}

/* Digits only: strtoull() alone would take blanks, signs and 0x. Overflow is found with each digit.
 */
static bool config_value_parse_digits(const char *text, size_t length, uint64_t base,
                                      uint64_t *out) {
    uint64_t value = 0;
    if (length == 0)
        return false;
    for (size_t i = 0; i < length; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (text[i] < '0' || digit >= base || __builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

/* The largest unit that divides the value: 65536 is 64KiB, 65537 stays as it is. */
static const char *config_value_format_quantity(const struct unit *units, uint64_t value,
                                                char out[32]) {
    const struct unit *best = units;
    for (const struct unit *unit = units; value && unit->suffix; unit++)
        if (value % unit->factor == 0)
            best = unit;
    snprintf(out, 32, "%" PRIu64 "%s", value / best->factor, value ? best->suffix : "");
    return out;
}

/* Fields of the config are uint64_t, uint32_t (enums included) or bool; the rule knows the size. */
static bool config_value_store_number(const struct config_rule *rule, uint64_t value, void *field) {
    if (rule->field_bytes == sizeof(uint64_t)) {
        memcpy(field, &value, sizeof value);
    } else if (rule->field_bytes == sizeof(uint32_t)) {
        uint32_t narrow = (uint32_t)value;
        memcpy(field, &narrow, sizeof narrow);
    } else {
        bool truth = value != 0;
        memcpy(field, &truth, sizeof truth);
    }
    return true;
}

/* Digits, blanks, unit. 0 needs no unit: it is the same in all of them. */
static bool config_value_parse_quantity(const struct unit *units, const char *text, uint64_t *out) {
    size_t digits = strspn(text, "0123456789");
    const char *suffix = text + digits + strspn(text + digits, " \t");
    uint64_t value;
    if (!config_value_parse_digits(text, digits, 10, &value))
        return false;
    for (const struct unit *unit = units; unit->suffix; unit++)
        if (strcmp(suffix, unit->suffix) == 0)
            return !__builtin_mul_overflow(value, unit->factor, out);
    *out = 0;
    return value == 0 && !*suffix;
}

/* A number alone is bytes: "" is one of the units. */
static bool config_value_take_bytes(const struct config_rule *rule, const char *text, void *field,
                                    struct sentence why) {
    uint64_t value;
    char min[32], max[32], multiple[64] = "", step[32];
    if (rule->multiple)
        snprintf(multiple, sizeof multiple, ", a multiple of %s",
                 config_value_format_quantity(byte_units, rule->multiple, step));
    config_value_format_quantity(byte_units, rule->min, min);
    config_value_format_quantity(byte_units, rule->max, max);
    const char *wrong = NULL;
    if (!config_value_parse_quantity(byte_units, text, &value))
        wrong = "not a size";
    else if (value < rule->min || value > rule->max)
        wrong = "out of range";
    else if (rule->multiple && value % rule->multiple)
        wrong = "not a multiple";
    if (wrong)
        return config_value_refuse(
            why, "%s; allowed: %s to %s%s (bytes, or a number with KiB, MiB, GiB or TiB)", wrong,
            min, max, multiple);
    return config_value_store_number(rule, value, field);
}

/* Durations are kept in ms. */
static bool config_value_take_duration(const struct config_rule *rule, const char *text,
                                       void *field, struct sentence why) {
    uint64_t value;
    char min[32], max[32];
    bool known = config_value_parse_quantity(duration_units, text, &value);
    if (!known || value < rule->min || value > rule->max)
        return config_value_refuse(why, "%s; allowed: %s to %s (a number with ms, s, min or h)",
                                   known ? "out of range" : "not a duration with a unit",
                                   config_value_format_quantity(duration_units, rule->min, min),
                                   config_value_format_quantity(duration_units, rule->max, max));
    return config_value_store_number(rule, value, field);
}

/* A count: no unit, no sign, no fraction. */
static bool config_value_take_integer(const struct config_rule *rule, const char *text, void *field,
                                      struct sentence why) {
    uint64_t value;
    bool known = config_value_parse_digits(text, strlen(text), 10, &value);
    if (!known || value < rule->min || value > rule->max)
        return config_value_refuse(why, "%s; allowed: %" PRIu64 " to %" PRIu64,
                                   known ? "out of range" : "not a whole number", rule->min,
                                   rule->max);
    return config_value_store_number(rule, value, field);
}

/* A mode as chmod takes it, with or without the leading 0. */
static bool config_value_take_octal(const struct config_rule *rule, const char *text, void *field,
                                    struct sentence why) {
    uint64_t value;
    bool known = config_value_parse_digits(text, strlen(text), 8, &value);
    if (!known || value < rule->min || value > rule->max)
        return config_value_refuse(why, "%s; allowed: %04" PRIo64 " to %04" PRIo64 " (octal)",
                                   known ? "out of range" : "not an octal mode", rule->min,
                                   rule->max);
    return config_value_store_number(rule, value, field);
}

/* For a value that the file may name one day. */
static bool config_value_refuse_later(struct sentence why, const char *allowed) {
    return config_value_refuse(why,
                               "not supported in featured " FEATURED_VERSION
                               ", comes in a later version; allowed: %s",
                               allowed);
}

/* Three pairs, the negative word first: i % 2 is the value. */
static bool config_value_take_bool(const struct config_rule *rule, const char *text, void *field,
                                   struct sentence why) {
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) != 0)
            continue;
        if (i % 2 && rule->later)
            return config_value_refuse_later(why, "off, no, false");
        return config_value_store_number(rule, i % 2, field);
    }
    return config_value_refuse(why, "neither yes nor no; allowed: on, off, yes, no, true, false");
}

/* rule->later is the index of a word that this version does not do yet. */
static bool config_value_take_word(const struct config_rule *rule, const char *text, void *field,
                                   struct sentence why) {
    char allowed[128] = "";
    uint64_t found = UINT64_MAX;
    size_t used = 0;
    for (uint32_t i = 0; rule->words[i]; i++) {
        if (strcmp(text, rule->words[i]) == 0)
            found = i;
        if (used < sizeof allowed && (!rule->later || i != rule->later))
            used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s",
                                     used ? ", " : "", rule->words[i]);
    }
    if (found == UINT64_MAX)
        return config_value_refuse(why, "not a known word; allowed: %s", allowed);
    if (rule->later && found == rule->later)
        return config_value_refuse_later(why, allowed);
    return config_value_store_number(rule, found, field);
}

/* Keeps the text itself, once its kind has found nothing wrong with it. Fills the rest of the field
 * with zeros, so that two configs can be compared byte by byte. */
static bool config_value_store_text(const struct config_rule *rule, const char *text, void *field,
                                    struct sentence why) {
    size_t length = strlen(text);
    if (length >= rule->field_bytes)
        return config_value_refuse(why, "%zu bytes long; allowed: at most %zu bytes", length,
                                   rule->field_bytes - 1);
    memset(field, 0, rule->field_bytes);
    memcpy(field, text, length);
    return true;
}

/* The same rule as for names on the wire (proto/layout.h). */
static bool config_value_take_name(const struct config_rule *rule, const char *text, void *field,
                                   struct sentence why) {
    const char *wrong = rule->empty && !*text ? NULL : layout_check_name(text);
    if (wrong)
        return config_value_refuse(
            why, "%s; allowed: 1 to %u of A-Z a-z 0-9 . _ - beginning with none of . -", wrong,
            LAYOUT_NAME_BYTES_MAX);
    return config_value_store_text(rule, text, field, why);
}

/* Absolute, because the directory in which a daemon runs is nobody's business. */
static bool config_value_take_path(const struct config_rule *rule, const char *text, void *field,
                                   struct sentence why) {
    if (*text ? *text != '/' : !rule->empty)
        return config_value_refuse(why, "%s; allowed: an absolute path%s",
                                   *text ? "does not begin with /" : "is empty",
                                   rule->empty ? ", or nothing" : "");
    return config_value_store_text(rule, text, field, why);
}

/* Looked up now, so that a name which is wrong is found by --check-config; kept as text, because
 * the group is set when the socket is made. */
static bool config_value_take_group(const struct config_rule *rule, const char *text, void *field,
                                    struct sentence why) {
    if (*text && !getgrnam(text))
        return config_value_refuse(
            why, "no such group; allowed: a group's name, or nothing to leave the daemon's own");
    return config_value_store_text(rule, text, field, why);
}

/* For lists that are split elsewhere, such as the names of RDMA devices. The characters are those
 * of device names, so that a quote or a path is found here. */
static bool config_value_take_words(const struct config_rule *rule, const char *text, void *field,
                                    struct sentence why) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-.:, \t";
    if (text[strspn(text, allowed)] != '\0')
        return config_value_refuse(
            why, "holds a strange character; allowed: words of letters, digits, _ - . : "
                 "with blanks or commas between them");
    return config_value_store_text(rule, text, field, why);
}

/* A number is taken as it is: in a container the user may have no name. */
static bool config_value_find_id(enum config_kind kind, const char *word, uint32_t *out) {
    uint64_t number;
    if (config_value_parse_digits(word, strlen(word), 10, &number)) {
        *out = (uint32_t)number;
        return number < UINT32_MAX; /* (uid_t)-1 means "no user" */
    }
    if (kind == CONFIG_UIDS) {
        const struct passwd *user = getpwnam(word);
        *out = user ? user->pw_uid : 0;
        return user;
    }
    const struct group *group = getgrnam(word);
    *out = group ? group->gr_gid : 0;
    return group;
}

/* All or nothing: the field is written when the whole list has been read. */
static bool config_value_take_ids(const struct config_rule *rule, const char *text, void *field,
                                  struct sentence why) {
    struct config_ids list = {.count = 0};
    const char *what = rule->kind == CONFIG_UIDS ? "user" : "group";
    while (*(text += strspn(text, ", \t"))) {
        char word[64];
        size_t length = strcspn(text, ", \t");
        snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word),
                 text);
        if (list.count == CONFIG_IDS_MAX)
            return config_value_refuse(why, "too many; allowed: at most %u %ss", CONFIG_IDS_MAX,
                                       what);
        if (length >= sizeof word || !config_value_find_id(rule->kind, word, &list.ids[list.count]))
            return config_value_refuse(
                why, "no such %s: %s; allowed: numbers and %s names, with blanks or commas between",
                what, word, what);
        list.count++;
        text += length;
    }
    memcpy(field, &list, sizeof list);
    return true;
}

/* Splits host:port or [IPv6]:port; host is copied without the brackets. The last colon counts, so
 * that an IPv6 address needs its brackets. Whether the host exists is not asked: it may come later.
 */
static bool config_value_split_address(const char *text, char host[256], uint64_t *port) {
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (length == 0 || length >= 256 ||
        !config_value_parse_digits(colon + 1, strlen(colon + 1), 10, port))
        return false;
    bool brackets = *text == '[' && length > 2 && text[length - 1] == ']';
    if (brackets) {
        text++;
        length -= 2;
    }
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr(brackets ? ":.%_-" : ".-_", text[i]))
            return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

/* Port 0 is allowed only where the rule says so: when listening it means "any free one". */
static bool config_value_take_address(const struct config_rule *rule, const char *text, void *field,
                                      struct sentence why) {
    char host[256];
    uint64_t port;
    if (rule->empty && !*text)
        return config_value_store_text(rule, text, field, why);
    bool known = config_value_split_address(text, host, &port);
    if (!known || port < rule->min || port > rule->max)
        return config_value_refuse(
            why, "%s; allowed: host:port or [IPv6]:port, port %" PRIu64 " to %" PRIu64,
            known ? "port out of range" : "not an address with a port", rule->min, rule->max);
    return config_value_store_text(rule, text, field, why);
}

/* Only scheme, host and port: etcd's gateway is at the root, and a path would be a mistake. */
static bool config_value_is_url(const char *text, size_t bytes) {
    char copy[256], host[256];
    uint64_t port;
    if (bytes >= sizeof copy)
        return false;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    size_t scheme = strncmp(copy, "http://", 7) == 0 ? 7 : strncmp(copy, "https://", 8) ? 0 : 8;
    return scheme && config_value_split_address(copy + scheme, host, &port) && port > 0 &&
           port <= 65535;
}

/* Kept as text: etcd's client splits the list again, and knows what to do with it. */
static bool config_value_take_urls(const struct config_rule *rule, const char *text, void *field,
                                   struct sentence why) {
    for (const char *at = text; *(at += strspn(at, ", \t"));) {
        size_t length = strcspn(at, ", \t");
        if (!config_value_is_url(at, length))
            return config_value_refuse(why,
                                       "%.*s is no URL with a port; allowed: http://host:port or "
                                       "https://host:port, several with blanks or commas between",
                                       (int)length, at);
        at += length;
    }
    return config_value_store_text(rule, text, field, why);
}

/* why: set only when the value is refused. */
bool config_value_parse(const struct config_rule *rule, const char *text, void *field, char *why,
                        size_t why_bytes) {
    static bool (*const take[])(const struct config_rule *, const char *, void *,
                                struct sentence) = {
        [CONFIG_BYTES] = config_value_take_bytes,
        [CONFIG_DURATION] = config_value_take_duration,
        [CONFIG_INTEGER] = config_value_take_integer,
        [CONFIG_OCTAL] = config_value_take_octal,
        [CONFIG_BOOL] = config_value_take_bool,
        [CONFIG_WORD] = config_value_take_word,
        [CONFIG_NAME] = config_value_take_name,
        [CONFIG_PATH] = config_value_take_path,
        [CONFIG_GROUP] = config_value_take_group,
        [CONFIG_UIDS] = config_value_take_ids,
        [CONFIG_GIDS] = config_value_take_ids,
        [CONFIG_ADDRESS] = config_value_take_address,
        [CONFIG_URLS] = config_value_take_urls,
        [CONFIG_WORDS] = config_value_take_words,
    };
    return take[rule->kind](rule, text, field, (struct sentence){why, why_bytes});
}

/* ---- a value as text ---- */

/* The other way round than config_value_store_number(). */
static uint64_t config_value_load_number(const struct config_rule *rule, const void *field) {
    uint64_t value = 0;
    uint32_t narrow = 0;
    bool truth = false;
    if (rule->field_bytes == sizeof value) {
        memcpy(&value, field, sizeof value);
    } else if (rule->field_bytes == sizeof narrow) {
        memcpy(&narrow, field, sizeof narrow);
        value = narrow;
    } else {
        memcpy(&truth, field, sizeof truth);
        value = truth;
    }
    return value;
}

/* Numbers, also where the file named users: names can be given to other numbers later. */
static void config_value_format_ids(const struct config_ids *list, char *out, size_t out_bytes) {
    size_t used = 0;
    *out = '\0';
    for (uint32_t i = 0; i < list->count && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%" PRIu32, i ? " " : "",
                                 list->ids[i]);
}

/* The shortest form that a file could have. */
void config_value_format(const struct config_rule *rule, const void *field, char *out,
                         size_t out_bytes) {
    char number[32];
    switch (rule->kind) {
    case CONFIG_BYTES:
        snprintf(out, out_bytes, "%s",
                 config_value_format_quantity(byte_units, config_value_load_number(rule, field),
                                              number));
        break;
    case CONFIG_DURATION:
        snprintf(out, out_bytes, "%s",
                 config_value_format_quantity(duration_units, config_value_load_number(rule, field),
                                              number));
        break;
    case CONFIG_INTEGER:
        snprintf(out, out_bytes, "%" PRIu64, config_value_load_number(rule, field));
        break;
    case CONFIG_OCTAL:
        snprintf(out, out_bytes, "%04" PRIo64, config_value_load_number(rule, field));
        break;
    case CONFIG_BOOL:
        snprintf(out, out_bytes, "%s", config_value_load_number(rule, field) ? "on" : "off");
        break;
    case CONFIG_WORD:
        snprintf(out, out_bytes, "%s", rule->words[config_value_load_number(rule, field)]);
        break;
    case CONFIG_UIDS:
    case CONFIG_GIDS:
        config_value_format_ids(field, out, out_bytes);
        break;
    default: /* those that are kept as the text they were */
        snprintf(out, out_bytes, "%s", (const char *)field);
        break;
    }
    if (!*out)
        snprintf(out, out_bytes, "(nothing)");
}

/* The address of "host:port" as bytes. AF_INET or AF_INET6; 0: the host is a name, and stays in
 * `host`; -1: it has not that form. */
static int config_value_family(const char *address, char host[256], struct in_addr *v4,
                               struct in6_addr *v6) {
    uint64_t port;
    if (!config_value_split_address(address, host, &port))
        return -1;
    return inet_pton(AF_INET, host, v4) == 1    ? AF_INET
           : inet_pton(AF_INET6, host, v6) == 1 ? AF_INET6
                                                : 0;
}

/* 0.0.0.0 or [::] can be listened on, but say nothing about where others find us. */
bool config_address_is_any(const char *address) {
    char host[256];
    struct in_addr v4;
    struct in6_addr v6;
    int family = config_value_family(address, host, &v4, &v6);
    return (family == AF_INET && v4.s_addr == INADDR_ANY) ||
           (family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&v6));
}

/* Of names "localhost" alone counts, whatever the others mean today: they may mean another machine
 * tomorrow. */
bool config_address_is_loopback(const char *address) {
    char host[256];
    struct in_addr v4;
    struct in6_addr v6;
    int family = config_value_family(address, host, &v4, &v6);
    return (family == AF_INET && ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET) ||
           (family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6)) ||
           (family == 0 && strcmp(host, "localhost") == 0);
}
