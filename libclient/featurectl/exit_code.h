/* SPDX-License-Identifier: Apache-2.0
 *
 * What a finished featurectl says to the shell. Pure.
 */
#ifndef FEATURED_CTL_EXIT_CODE_H
#define FEATURED_CTL_EXIT_CODE_H

#include "feature.h"

#define EXIT_CODE_LOCAL                                                                            \
    1                       /* a file of this side cannot be read or written; doctor found a fault \
                             */
#define EXIT_CODE_USAGE  2  /* the command line is wrong; `index check` could not check */
#define EXIT_CODE_NOT_READY 3 /* `status`: the broker cannot serve now */
#define EXIT_CODE_STATUS 10 /* + status number: 11 INVALID ... 21 INTERNAL */

/* Stands beside FEATURE_E_* where a trouble is this process's own (files), not the broker's. */
#define CTL_E_LOCAL     1
#define CTL_E_UNCHECKED 2 /* `index check` could not look at everything */
#define CTL_E_USAGE     3 /* the command line is wrong */
#define CTL_E_NOT_READY 4 /* the broker answers and cannot serve now */

/* 0 for FEATURE_OK, the code of a CTL_E_*, else EXIT_CODE_STATUS + the status number. */
int exit_code(int status);
/* "NOT_FOUND"; "LOCAL" for CTL_E_LOCAL. */
const char *exit_code_word(int status);

#endif
