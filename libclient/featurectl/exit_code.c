/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers are documented in featurectl(1) and `featurectl help exit-codes`; scripts rely on
 * them.
 */
#include "exit_code.h"

int exit_code(int status) {
    if (status == FEATURE_OK)
        return 0;
    if (status == CTL_E_LOCAL)
        return EXIT_CODE_LOCAL;
    if (status == CTL_E_UNCHECKED)
        return EXIT_CODE_USAGE;
    return EXIT_CODE_STATUS - status;
}

const char *exit_code_word(int status) {
    if (status == CTL_E_UNCHECKED)
        return "UNCHECKED";
    return status == CTL_E_LOCAL ? "LOCAL" : feature_strerror(status);
}
