/* SPDX-License-Identifier: Apache-2.0
 *
 * A user in a URL is refused: what the broker says of an endpoint names it to everybody.
 */
#include "directory/etcd/endpoints.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The slashes at the end are cut off because the path is added as "/v3/...": "//v3" is another path
 * to the gateway, and is not found. */
static int endpoints_take(const char *text, size_t bytes, char out[ETCD_URL_BYTES], char *why,
                          size_t why_bytes) {
    bool is_url = strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
    while (bytes && text[bytes - 1] == '/')
        bytes--;
    if (is_url && memchr(text, '@', bytes)) {
        snprintf(why, why_bytes,
                 "an endpoint of etcd has a user in it; allowed: http://host:port, and "
                 "[directory] username, password_file");
        return -EINVAL;
    }
    if (!is_url || bytes >= ETCD_URL_BYTES) {
        snprintf(why, why_bytes,
                 "%.*s is no endpoint of etcd; allowed: http://host:port or https://host:port",
                 (int)bytes, text);
        return -EINVAL;
    }
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return 0;
}

int etcd_endpoints_parse(const char *text, char out[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES], char *why,
                         size_t why_bytes) {
    int count = 0;
    for (text += strspn(text, ", \t"); *text; text += strspn(text, ", \t")) {
        size_t bytes = strcspn(text, ", \t");
        if (count == ETCD_ENDPOINTS_MAX) {
            snprintf(why, why_bytes, "more than %u endpoints of etcd", ETCD_ENDPOINTS_MAX);
            return -EINVAL;
        }
        int result = endpoints_take(text, bytes, out[count++], why, why_bytes);
        if (result < 0)
            return result;
        text += bytes;
    }
    if (!count)
        snprintf(why, why_bytes, "no endpoint of etcd is given");
    return count ? count : -EINVAL;
}
