/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes sure that what was said of releases has arrived, by asking the broker something behind it.
 */
#ifndef FEATURED_LIBCLIENT_FLUSH_H
#define FEATURED_LIBCLIENT_FLUSH_H

#include "connection.h"

/* Until every release is known to have arrived or deadline_ns passes. Without the lock. */
void fc_flush_releases(struct feature *feature, uint64_t deadline_ns);
/* The same for one store, if its releases are stranded by a lost connection; does not wait
 * otherwise. */
void fc_flush_before_close(struct feature_store *store, uint64_t deadline_ns);

#endif
