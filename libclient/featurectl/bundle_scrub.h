/* SPDX-License-Identifier: Apache-2.0
 *
 * What must not leave the machine with a bundle. Two nets, one behind the other: a configuration is
 * taken line by line, and only what is known to be harmless stays; and the contents of the secret
 * files that it names are looked for in everything, and removed wherever they stand.
 */
#ifndef FEATURED_CTL_BUNDLE_SCRUB_H
#define FEATURED_CTL_BUNDLE_SCRUB_H

#include <stddef.h>

#define SCRUB_REMOVED "(removed)"

/* A configuration of the broker without comments, values of keys that may be secrets, and users and
 * passwords in addresses. Freed with free(). */
char *scrub_config(const char *text);

/* Strings to be looked for. */
struct scrub {
    char **secrets;
    size_t count;
};
/* The files of a configuration that hold secrets, as far as this user may read them. */
void scrub_learn_config(struct scrub *scrub, const char *config);
void scrub_learn_file(struct scrub *scrub, const char *path);
/* A secret as it stands in its file: the whole of it, and of several lines each. */
void scrub_learn(struct scrub *scrub, const char *secret, size_t bytes);
/* The text with each secret replaced. Freed with free(). */
char *scrub_text(const struct scrub *scrub, const char *text, size_t bytes, size_t *bytes_out);
void scrub_deinit(struct scrub *scrub);

#endif
