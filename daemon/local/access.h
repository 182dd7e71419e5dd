/* SPDX-License-Identifier: Apache-2.0
 *
 * Which users may connect to the local socket, beyond what its file mode lets in. Pure.
 */
#ifndef FEATURED_LOCAL_ACCESS_H
#define FEATURED_LOCAL_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config.h"

/* Root and own_uid always; everybody when both lists are empty; else who is on either list. groups:
 * primary and supplementary ones. */
bool access_allowed(const struct config_ids *allow_uids, const struct config_ids *allow_gids,
                    uid_t own_uid, uid_t uid, const gid_t *groups, size_t group_count);

#endif
