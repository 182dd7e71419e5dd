/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "local/access.h"

#define OWN_UID 500u

static const struct config_ids nobody_listed;
static const struct config_ids ids_7_and_8 = {.ids = {7, 8}, .count = 2};

static bool allowed(const struct config_ids *uids, const struct config_ids *gids, uid_t uid,
                    gid_t primary, gid_t supplementary) {
    const gid_t groups[] = {primary, supplementary};
    return access_allowed(uids, gids, OWN_UID, uid, groups, 2);
}

Test(local_access, without_lists_the_file_mode_decides) {
    cr_expect(allowed(&nobody_listed, &nobody_listed, 1234, 1234, 1234));
}

Test(local_access, a_list_of_users_excludes_the_others) {
    cr_expect(allowed(&ids_7_and_8, &nobody_listed, 8, 1, 1));
    cr_expect_not(allowed(&ids_7_and_8, &nobody_listed, 9, 1, 1));
    cr_expect_not(allowed(&ids_7_and_8, &nobody_listed, 9, 7, 8), "groups are not users");
}

Test(local_access, a_list_of_groups_takes_primary_and_supplementary_ones) {
    cr_expect(allowed(&nobody_listed, &ids_7_and_8, 1234, 7, 1));
    cr_expect(allowed(&nobody_listed, &ids_7_and_8, 1234, 1, 8));
    cr_expect_not(allowed(&nobody_listed, &ids_7_and_8, 7, 1, 1), "users are not groups");
}

Test(local_access, either_list_is_enough) {
    static const struct config_ids gid_3 = {.ids = {3}, .count = 1};
    cr_expect(allowed(&ids_7_and_8, &gid_3, 7, 1, 1));
    cr_expect(allowed(&ids_7_and_8, &gid_3, 1234, 3, 1));
    cr_expect_not(allowed(&ids_7_and_8, &gid_3, 1234, 1, 1));
}

Test(local_access, root_and_the_daemon_itself_are_never_locked_out) {
    cr_expect(allowed(&ids_7_and_8, &ids_7_and_8, 0, 1, 1));
    cr_expect(allowed(&ids_7_and_8, &ids_7_and_8, OWN_UID, 1, 1));
}
