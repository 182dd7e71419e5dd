/* SPDX-License-Identifier: Apache-2.0
 *
 * A store that this process may not map is a limit of the process, and no fault of featured.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "error.h"
#include "feature.h"
#include "mapping.h"

Test(client_mapping, limit_of_address_space_is_named) {
    struct rlimit before, low;
    struct fc_mapping *mapping = NULL;
    const uint64_t bytes = 1ull << 40;
    int fd = memfd_create("arena", MFD_CLOEXEC);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    cr_assert_eq(getrlimit(RLIMIT_AS, &before), 0);
    low = before;
    low.rlim_cur = 64ull << 20;
    cr_assert_eq(setrlimit(RLIMIT_AS, &low), 0);
    int status = fc_mapping_new(fd, bytes, false, &mapping);
    setrlimit(RLIMIT_AS, &before);
    close(fd);
    cr_expect_eq(status, FEATURE_E_FULL);
    cr_expect_null(mapping);
    cr_expect_not_null(strstr(feature_last_error(), "RLIMIT_AS"), "%s", feature_last_error());
    cr_expect_not_null(strstr(feature_last_error(), "64 MiB"), "%s", feature_last_error());
}
