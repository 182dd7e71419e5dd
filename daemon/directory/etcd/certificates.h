/* SPDX-License-Identifier: Apache-2.0
 *
 * The certificate files that the configuration names for etcd, looked at before anybody is asked.
 */
#ifndef FEATURED_DIRECTORY_ETCD_CERTIFICATES_H
#define FEATURED_DIRECTORY_ETCD_CERTIFICATES_H

#include <stddef.h>

#include "directory/etcd/etcd.h"

/* Readable, in PEM, valid today, and the key is the certificate's. 0, or -EINVAL with a sentence
 * that names key and file of the configuration. */
int etcd_certificates_check(const struct etcd_client_options *options, char *why, size_t why_bytes);

#endif
