/* SPDX-License-Identifier: Apache-2.0
 *
 * Help is made from the table of commands. */
#ifndef FEATURED_CTL_HELP_H
#define FEATURED_CTL_HELP_H

#include "featurectl/context.h"

void help_overview(FILE *out);
void help_command(FILE *out, const struct command *command);

#endif
