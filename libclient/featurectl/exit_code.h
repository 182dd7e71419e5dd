/* SPDX-License-Identifier: Apache-2.0
 *
 * What a finished featurectl says to the shell. Pure.
 */
#ifndef FEATURED_CTL_EXIT_CODE_H
#define FEATURED_CTL_EXIT_CODE_H

#include "feature.h"

/* featurectl(1) tells what each means. */
#define EXIT_CODE_LOCAL     1
#define EXIT_CODE_USAGE     2
#define EXIT_CODE_NOT_READY 3
#define EXIT_CODE_STATUS    10 /* + status number: 11 INVALID ... 21 INTERNAL */

/* Stand beside FEATURE_E_* for what is no status of the broker's. */
#define CTL_E_LOCAL     1 /* a file here cannot be read or written; a check found a fault */
#define CTL_E_UNCHECKED 2 /* not everything could be looked at: index check, doctor */
#define CTL_E_USAGE     3 /* the command line is wrong */
#define CTL_E_NOT_READY 4 /* the broker answers and cannot serve now */

/* 0 for FEATURE_OK, the code of a CTL_E_*, else EXIT_CODE_STATUS + the status number. */
int exit_code(int status);
/* "NOT_FOUND"; "LOCAL" for CTL_E_LOCAL. */
const char *exit_code_word(int status);

#endif
