/* SPDX-License-Identifier: Apache-2.0
 *
 * Would etcd take what a broker with this configuration asks of it? For featured --check-config:
 * blocks, for a bounded time, and changes nothing in etcd.
 */
#ifndef FEATURED_DIRECTORY_ETCD_CHECK_H
#define FEATURED_DIRECTORY_ETCD_CHECK_H

#include <stddef.h>

#include "directory/etcd/client.h"

/* Looks at the certificate files, then asks each endpoint. 0, with a sentence in `warning` when an
 * endpoint has not answered; or -errno with a sentence: a file is no good, or an endpoint refuses.
 */
int etcd_check(const struct etcd_client_options *options, const char *cluster, const char *node,
               char *why, size_t why_bytes, char *warning, size_t warning_bytes);

#endif
