/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of etcd's endpoints as the configuration gives it. Pure.
 */
#ifndef FEATURED_DIRECTORY_ETCD_ENDPOINTS_H
#define FEATURED_DIRECTORY_ETCD_ENDPOINTS_H

#include <stddef.h>

#define ETCD_ENDPOINTS_MAX 16u
#define ETCD_URL_BYTES     256u

/* Takes "URL, URL ..." apart, with blanks or commas between and slashes at the end left out: at
 * least one, of http or https, without a user. How many, or -EINVAL with a sentence. */
int etcd_endpoints_parse(const char *text, char out[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES], char *why,
                         size_t why_bytes);

#endif
