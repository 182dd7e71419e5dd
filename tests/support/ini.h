/* SPDX-License-Identifier: Apache-2.0
 *
 * A configuration put together from texts: what a later text says of a key replaces what an earlier
 * one said, so that a test names only what it cares about. (featured refuses a file that gives a
 * section or a key twice.)
 */
#ifndef FEATURED_TESTS_INI_H
#define FEATURED_TESTS_INI_H

#include <stdint.h>

#define INI_LINES_MAX 64u

struct ini {
    uint32_t count;
    struct ini_line {
        char section[80], key[64], value[160]; /* key "": the section alone */
    } lines[INI_LINES_MAX];
};

/* "[section]" and "key = value" lines; %D in a value stands for the directory. text may be NULL. */
void ini_add(struct ini *ini, const char *text, const char *directory);
void ini_write(const struct ini *ini, const char *path);

#endif
