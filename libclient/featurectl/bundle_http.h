/* SPDX-License-Identifier: Apache-2.0
 *
 * One page of the broker's own HTTP server ([ops] http), for the bundle.
 */
#ifndef FEATURED_CTL_BUNDLE_HTTP_H
#define FEATURED_CTL_BUNDLE_HTTP_H

#include <stdio.h>

/* The value of a key in a section of a configuration, without comments and blanks around it. NULL:
 * there is none. Freed with free(). */
char *bundle_config_value(const char *config, const char *section, const char *key);

/* GET of `path` at "HOST:PORT" or "[HOST]:PORT", with a bearer token unless that is NULL; the body
 * goes to `out`. Waits 2 s at most for each step. 0, or -errno with a sentence. */
int bundle_http_get(const char *address, const char *path, const char *token, FILE *out, char *why,
                    size_t why_bytes);

#endif
