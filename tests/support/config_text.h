/* SPDX-License-Identifier: Apache-2.0
 *
 * A configuration put together from texts: what a later text says of a key replaces what an earlier
 * one said, so that a test names only what it cares about. (featured refuses a file that gives a
 * section or a key twice.)
 */
#ifndef FEATURED_TESTS_CONFIG_TEXT_H
#define FEATURED_TESTS_CONFIG_TEXT_H

#include <stdint.h>

#define CONFIG_TEXT_LINES_MAX 64u

struct config_text {
    uint32_t count;
    struct config_line {
        char section[80], key[64], value[160]; /* key "": the section alone */
    } lines[CONFIG_TEXT_LINES_MAX];
};

/* "[section]" and "key = value" lines; %D in a value stands for the directory. text may be NULL. */
void config_text_add(struct config_text *config, const char *text, const char *directory);
void config_text_write(const struct config_text *config, const char *path);

#endif
