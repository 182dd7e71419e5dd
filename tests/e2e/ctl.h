/* SPDX-License-Identifier: Apache-2.0
 *
 * featurectl as a test runs it, and the JSON that it prints for programs.
 */
#ifndef FEATURED_TESTS_CTL_H
#define FEATURED_TESTS_CTL_H

#include <jansson.h>

#include "support/cluster.h"

/* Runs featurectl against a node, with the words that follow, to its end. */
#define CTL(result, cluster, node, ...)                                                            \
    ctl_run(result, cluster, node, __VA_ARGS__, (const char *)NULL)
void ctl_run(struct process_output *result, const struct cluster *cluster, uint32_t node, ...);

/* Of a run with --json that succeeded: one JSON object a line, as an array. Frees the output. */
json_t *ctl_rows(struct process_output *result);
/* The same, whatever its exit status. */
json_t *ctl_rows_of(struct process_output *result);
/* The first row whose `key` is `value`; there must be one. Borrowed. */
json_t *ctl_row(json_t *rows, const char *key, const char *value);
size_t ctl_count(json_t *rows, const char *key, const char *value);
/* Of a row, which must have it; a text that is null is "". */
const char *ctl_text(json_t *row, const char *key);
json_int_t ctl_number(json_t *row, const char *key);

#endif
