/* SPDX-License-Identifier: Apache-2.0
 *
 * libibverbs and librdmacm as the broker finds them at run time: there, not there, too old. This
 * program is not linked with either, as the broker is not.
 */
#include "transport/rdma/verbs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void expect_refused(const char *libibverbs, const char *librdmacm, const char *word) {
    struct verbs lib;
    char why[384] = "";
    cr_expect_eq(verbs_load(&lib, libibverbs, librdmacm, why, sizeof why), -ENODEV);
    cr_expect_not_null(strstr(why, word), "no \"%s\" in: %s", word, why);
    cr_expect_not_null(strstr(why, "install "), "no remedy in: %s", why);
}

Test(rdma_verbs, both_libraries_fill_the_whole_table) {
    struct verbs lib;
    char why[384] = "";
    memset(&lib, 0, sizeof lib);
    cr_assert_eq(verbs_load(&lib, VERBS_LIBIBVERBS, VERBS_LIBRDMACM, why, sizeof why), 0, "%s",
                 why);
#define EXPECT_THERE(version, name) cr_expect(lib.name != NULL, #name);
    VERBS_FUNCTIONS(EXPECT_THERE)
#undef EXPECT_THERE
    cr_expect_str_eq(lib.ibv_wc_status_str(IBV_WC_SUCCESS), "success");
    cr_expect_eq(verbs_load(&lib, VERBS_LIBIBVERBS, VERBS_LIBRDMACM, why, sizeof why), 0);
}

Test(rdma_verbs, a_library_that_is_not_there_is_named_with_a_remedy) {
    expect_refused("libibverbs-not-there.so.1", VERBS_LIBRDMACM, "libibverbs-not-there.so.1");
    expect_refused(VERBS_LIBIBVERBS, "librdmacm-not-there.so.1", "librdmacm-not-there.so.1");
}

Test(rdma_verbs, a_library_without_a_function_is_named_with_it) {
    expect_refused("libm.so.6", "libm.so.6", "have no ibv_create_comp_channel of version");
}
