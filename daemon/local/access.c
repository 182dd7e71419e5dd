/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may connect, apart from the mode of the socket file: root and the daemon's own user always;
 * everybody if no list is given; else those whom a list names. Pure, so that a test can go through
 * all cases.
 */
#include "local/access.h"

static bool access_listed(const struct config_ids *ids, uint32_t id) {
    for (uint32_t i = 0; i < ids->count; i++)
        if (ids->ids[i] == id)
            return true;
    return false;
}

bool access_allowed(const struct config_ids *allow_uids, const struct config_ids *allow_gids,
                    uid_t own_uid, uid_t uid, const gid_t *groups, size_t group_count) {
    if (uid == 0 || uid == own_uid)
        return true;
    if (allow_uids->count == 0 && allow_gids->count == 0)
        return true;
    if (access_listed(allow_uids, uid))
        return true;
    for (size_t i = 0; i < group_count; i++)
        if (access_listed(allow_gids, groups[i]))
            return true;
    return false;
}
