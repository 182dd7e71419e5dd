/* SPDX-License-Identifier: Apache-2.0
 *
 * What a reload takes, what it leaves, and that it tells of both. Every key of the table is tried.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config_reload.h"
#include "config_table.h"

#define BASE                                                                                       \
    "[node]\nname = a\n[local]\nsocket = /tmp/a.sock\n[memory]\nmax_resident_bytes = 64MiB\n"      \
    "[peers]\nlisten = 127.0.0.1:1\ncluster_secret_file = /s\n"

struct told {
    char text[16384];
    unsigned taken, left;
};

static void tell(void *context, const struct config_change *change) {
    struct told *told = context;
    size_t used = strlen(told->text);
    told->taken += change->taken;
    told->left += !change->taken;
    snprintf(told->text + used, sizeof told->text - used, "%s: %s -> %s: %s\n", change->what,
             change->from, change->to, change->taken ? "taken" : "left");
}

static struct config load(const char *text) {
    struct config config;
    char path[64], why[1024];
    int fd = memfd_create("featured.conf", MFD_CLOEXEC);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    cr_assert_eq(config_load(path, &config, why, sizeof why), 0, "%s", why);
    close(fd);
    return config;
}

static struct told reload(struct config *running, const char *text) {
    struct told told = {.text = ""};
    struct config wanted = load(text);
    bool different = config_reload(running, &wanted, tell, &told);
    cr_expect_eq(different, told.taken + told.left > 0);
    config_deinit(&wanted);
    return told;
}

static void expect(const struct told *told, const char *line) {
    cr_expect_not_null(strstr(told->text, line), "no \"%s\" in:\n%s", line, told->text);
}

Test(reload, of_the_same_file_tells_nothing) {
    struct config running = load(BASE "[store s]\n[peer b]\naddress = b:1\n");
    struct told told = reload(&running, BASE "[store s]\n[peer b]\naddress = b:1\n");
    cr_expect_str_eq(told.text, "");
    config_deinit(&running);
}

Test(reload, takes_what_it_can_and_names_old_and_new) {
    struct config running = load(BASE "[store s]\n");
    struct told told = reload(&running, BASE "[daemon]\nlog_level = debug\ndrain_timeout = 90s\n"
                                             "[store s]\nreaders = 3\nallow_uids = 0 7\n");
    expect(&told, "[daemon] log_level: info -> debug: taken\n");
    expect(&told, "[daemon] drain_timeout: 30s -> 90s: taken\n");
    expect(&told, "[store s] readers: 1 -> 3: taken\n");
    expect(&told, "[store s] allow_uids: (nothing) -> 0 7: taken\n");
    cr_expect_eq(told.left, 0, "%s", told.text);
    cr_expect_eq(running.log_level, LOG_LEVEL_DEBUG);
    cr_expect_eq(running.stores[0].readers, 3);
    cr_expect_eq(running.stores[0].allow_uids.count, 2);
    config_deinit(&running);
}

Test(reload, names_what_takes_a_restart_and_keeps_the_old) {
    struct config running = load(BASE "[store s]\n[peer b]\naddress = b:1\n");
    struct told told =
        reload(&running, "[node]\nname = z\n[local]\nsocket = /tmp/a.sock\nallow_uids = 0\n"
                         "[memory]\nmax_resident_bytes = 64MiB\n[peers]\nlisten = 127.0.0.1:2\n"
                         "cluster_secret_file = /t\n[store s]\nsecret_file = /u\n"
                         "landing_bytes = 4MiB\n[peer b]\naddress = b:2\n");
    expect(&told, "[node] name: a -> z: left\n");
    expect(&told, "[local] allow_uids: (nothing) -> 0: left\n");
    expect(&told, "[peers] listen: 127.0.0.1:1 -> 127.0.0.1:2: left\n");
    expect(&told, "[peers] cluster_secret_file: /s -> /t: left\n");
    expect(&told, "[store s] secret_file: (nothing) -> /u: left\n");
    expect(&told, "[store s] landing_bytes: 2GiB -> 4MiB: left\n");
    expect(&told, "[peer b] address: b:1 -> b:2: left\n");
    cr_expect_eq(told.taken, 0, "%s", told.text);
    cr_expect_str_eq(running.node, "a");
    cr_expect_str_eq(running.stores[0].secret_file, "");
    cr_expect_str_eq(running.peers[0].address, "b:1");
    told = reload(&running, BASE "[store s]\n[peer b]\naddress = b:1\n");
    cr_expect_str_eq(told.text, "", "what was left is still what is compared");
    config_deinit(&running);
}

Test(reload, names_stores_and_peers_that_come_and_go) {
    struct config running = load(BASE "[store s]\n[peer b]\naddress = b:1\n");
    struct told told = reload(&running, BASE "[store t]\n[peer c]\naddress = c:1\n");
    expect(&told, "[store s]: there -> removed: left\n");
    expect(&told, "[store t]: not there -> added: left\n");
    expect(&told, "[peer b]: b:1 -> removed: left\n");
    expect(&told, "[peer c]: not there -> c:1: taken\n");
    cr_expect_eq(running.store_count, 1);
    cr_expect_str_eq(running.stores[0].name, "s");
    cr_assert_eq(running.peer_count, 2, "the one that is removed stays");
    cr_expect_str_eq(running.peers[1].node, "c");
    cr_expect_str_eq(running.peers[1].address, "c:1");
    told = reload(&running, BASE "[store s]\n[peer b]\naddress = b:1\n[peer c]\naddress = c:1\n");
    cr_expect_str_eq(told.text, "", "what was taken is what is compared");
    config_deinit(&running);
}

/* A link needs the secret, which is read at the start alone. */
Test(reload, takes_no_peer_without_a_secret_of_the_cluster) {
    struct config running = load("[node]\nname = a\n[local]\nsocket = /tmp/a.sock\n");
    struct told told = reload(&running, "[node]\nname = a\n[local]\nsocket = /tmp/a.sock\n[peers]\n"
                                        "cluster_secret_file = /s\n[peer c]\naddress = c:1\n");
    expect(&told, "[peer c]: not there -> c:1: left\n");
    cr_expect_eq(running.peer_count, 0);
    config_deinit(&running);
}

/* [stores] is for stores that are created from now on: all of it is taken, in those that are there
 * what can change. */
Test(reload, tells_defaults_of_stores_from_stores_that_are_there) {
    struct config running = load(BASE "[store s]\n");
    struct told told =
        reload(&running, BASE "[stores]\nmax_samples = 7\npolicy = on-ack\n[store s]\n");
    expect(&told, "[stores] max_samples: 1048576 -> 7: taken\n");
    expect(&told, "[store s] max_samples: 1048576 -> 7: left\n");
    expect(&told, "[stores] policy: on-release -> on-ack: taken\n");
    expect(&told, "[store s] policy: on-release -> on-ack: taken\n");
    cr_expect_eq(running.store_defaults.max_samples, 7);
    cr_expect_eq(running.stores[0].max_samples, 1048576);
    config_deinit(&running);
}

/* Whatever keys there will be: none changes in silence. */
Test(reload, every_key_of_the_table_is_compared) {
    struct config running = load(BASE "[store s]\n[peer b]\naddress = b:1\n");
    size_t tried = 0;
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        struct told told = {.text = ""};
        struct config wanted = load(BASE "[store s]\n[peer b]\naddress = b:1\n");
        char *field = key->section == SECTION_PEER    ? (char *)&wanted.peers[0] + key->offset
                      : key->section == SECTION_STORE ? config_store_field(&wanted.stores[0], key)
                                                      : (char *)&wanted + key->offset;
        if (key->rule.kind == CONFIG_UIDS || key->rule.kind == CONFIG_GIDS)
            ((struct config_ids *)(void *)field)->count ^= 1;
        else
            *field ^= 1; /* the lowest bit of a number, the first letter of a text */
        cr_expect(config_reload(&running, &wanted, tell, &told), "%s of %s changes in silence",
                  key->name, config_section_words[key->section]);
        cr_expect_not_null(strstr(told.text, key->name), "%s: %s", key->name, told.text);
        config_deinit(&wanted);
        tried++;
    }
    cr_expect_gt(tried, 50);
    config_deinit(&running);
}

/* "#key = value" and "key = value" are keys, "# text" is text. The key's length, 0: none. */
static size_t key_in(const char *line) {
    const char *at = line + (*line == '#');
    size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
    return length && strncmp(at + length, " =", 2) == 0 ? length : 0;
}

static const struct config_key *find_key(const char *section, const char *name, size_t length) {
    for (size_t i = 0; i < config_key_count; i++)
        if (strcmp(config_section_words[config_keys[i].section], section) == 0 &&
            strlen(config_keys[i].name) == length &&
            strncmp(config_keys[i].name, name, length) == 0)
            return &config_keys[i];
    return NULL;
}

/* The text above a key, or above several of them, says [reload] if a reload takes them. */
Test(reload, the_shipped_file_says_which_keys_it_takes) {
    FILE *file = fopen("conf/featured.conf", "re");
    char line[512], section[32] = "", text[4096] = "";
    bool behind_key = false;
    size_t found = 0, length;
    cr_assert_not_null(file, "run the tests from the root of the source tree");
    while (fgets(line, sizeof line, file)) {
        if (line[line[0] == '#'] == '[') {
            sscanf(line + (line[0] == '#') + 1, "%31[a-z]", section);
            text[0] = '\0';
        } else if ((length = key_in(line)) > 0) {
            const struct config_key *key = find_key(section, line + (line[0] == '#'), length);
            cr_assert_not_null(key, "[%s] %s", section, line);
            cr_expect_eq(strstr(text, "[reload]") != NULL, key->rule.live, "[%s] %s", section,
                         key->name);
            behind_key = true;
            found++;
        } else {
            if (behind_key)
                text[0] = '\0';
            behind_key = false;
            strncat(text, line, sizeof text - strlen(text) - 1);
        }
    }
    fclose(file);
    cr_expect_gt(found, 50);
}
