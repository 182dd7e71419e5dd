/* SPDX-License-Identifier: Apache-2.0
 *
 * Remembers which secrets are in force, as fingerprints, so that a reload can say that a file has
 * other content by now: a secret is read once, at the start.
 */
#ifndef FEATURED_SECRET_PRINTS_H
#define FEATURED_SECRET_PRINTS_H

#include "config.h"

struct secret_prints;

/* Reads every secret file that the configuration names. 0 or -ENOMEM. libsodium is initialised. */
int secret_prints_new(const struct config *config, struct secret_prints **out);
void secret_prints_free(struct secret_prints *prints);
/* Reads them again, and calls tell() for each whose content is another one, or that cannot be read:
 * what is "[store run0] secret_file /path", how "has other content". True if there was any. */
bool secret_prints_compare(const struct secret_prints *prints,
                           void (*tell)(void *context, const char *what, const char *how),
                           void *context);

#endif
