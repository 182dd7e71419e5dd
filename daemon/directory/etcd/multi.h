/* SPDX-License-Identifier: Apache-2.0
 *
 * libcurl's multi handle driven by a libuv loop: its sockets by uv_poll, its one timer by uv_timer.
 */
#ifndef FEATURED_DIRECTORY_ETCD_MULTI_H
#define FEATURED_DIRECTORY_ETCD_MULTI_H

#include <curl/curl.h>
#include <stdbool.h>
#include <uv.h>

struct etcd_multi;

/* A transfer has ended; it is no longer in the multi handle. May add transfers, or close. */
typedef void (*etcd_multi_fn)(void *owner, CURL *easy, CURLcode code);

/* What etcd_multi_soon() has asked for. May add transfers, or close. True: there is more. */
typedef bool (*etcd_multi_soon_fn)(void *owner);

int etcd_multi_new(uv_loop_t *loop, etcd_multi_fn ended, etcd_multi_soon_fn soon, void *owner,
                   struct etcd_multi **out);
/* Calls soon(owner) from the loop, never from inside this call; takes no memory. */
void etcd_multi_soon(struct etcd_multi *multi);
int etcd_multi_add(struct etcd_multi *multi, CURL *easy);
void etcd_multi_remove(struct etcd_multi *multi, CURL *easy);
/* No transfer is left in it. Frees itself when the loop has closed its handles. */
void etcd_multi_close(struct etcd_multi *multi);

#endif
