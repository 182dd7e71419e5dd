/* SPDX-License-Identifier: Apache-2.0
 *
 * `struct etcd` over the v3 JSON gateway of real etcd members: libcurl's multi interface on a libuv
 * loop. Nothing blocks. Requests go to one endpoint as long as it answers, then to the next.
 */
#ifndef FEATURED_DIRECTORY_ETCD_CLIENT_H
#define FEATURED_DIRECTORY_ETCD_CLIENT_H

#include <uv.h>

#include "directory/etcd/endpoints.h"
#include "directory/etcd/etcd.h"

/* Copied. "" = none. */
struct etcd_client_options {
    const char *endpoints; /* http[s]://host:port, separated by blanks or commas */
    const char *ca_file, *cert_file, *key_file;
    const char *username, *password;
};

/* 0 or -errno with a sentence. */
int etcd_client_new(uv_loop_t *loop, const struct etcd_client_options *options, struct etcd **out,
                    char *why, size_t why_bytes);

#endif
