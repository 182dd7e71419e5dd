/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers are documented in featurectl(1) and `featurectl help exit-codes`; scripts rely on
 * them.
 *
 * 0 is success, the small numbers are of featurectl itself, and each status of the library has
 * one from EXIT_CODE_STATUS on, in the order of the statuses (which are 0 and negative).
 */
#include "featurectl/exit_code.h"

int exit_code(int status) {
    switch (status) {
    case FEATURE_OK:
        return 0;
    case CTL_E_LOCAL:
        return EXIT_CODE_LOCAL;
    case CTL_E_UNCHECKED:
    case CTL_E_USAGE:
        return EXIT_CODE_USAGE;
    case CTL_E_NOT_READY:
        return EXIT_CODE_NOT_READY;
    default:
        return EXIT_CODE_STATUS - status;
    }
}

/* The word that stands in the "status" of a JSON line about trouble. */
const char *exit_code_word(int status) {
    switch (status) {
    case CTL_E_LOCAL:
        return "LOCAL";
    case CTL_E_UNCHECKED:
        return "UNCHECKED";
    case CTL_E_USAGE:
        return "USAGE";
    case CTL_E_NOT_READY:
        return "NOT_READY";
    default:
        return feature_strerror(status);
    }
}
