/* SPDX-License-Identifier: Apache-2.0 */
#include "e2e/ctl.h"

#include <stdarg.h>
#include <string.h>

#include "support/checks.h"

#define WORDS_MAX 16
#define RUN_MS    60000u

void ctl_run(struct process_output *result, const struct cluster *cluster, uint32_t node, ...) {
    char program[4096];
    const char *argv[WORDS_MAX + 4] = {program, "--socket", cluster->nodes[node].socket_path};
    size_t count = 3;
    va_list words;
    va_start(words, node);
    for (const char *word; (word = va_arg(words, const char *)) != NULL;)
        argv[count++] = word;
    va_end(words);
    cluster_program("featurectl", program);
    process_run(result, argv, RUN_MS);
}
json_t *ctl_rows_of(struct process_output *result) {
    json_t *rows = json_array();
    for (char *line = strtok(result->out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_error_t error;
        json_t *row = json_loads(line, JSON_DECODE_ANY, &error);
        CHECK(row != NULL, "%s in: %s", error.text, line);
        json_array_append_new(rows, row);
    }
    process_output_deinit(result);
    return rows;
}

json_t *ctl_rows(struct process_output *result) {
    CHECK(result->status == 0, "exit %d: %s", result->status, result->err);
    return ctl_rows_of(result);
}

size_t ctl_count(json_t *rows, const char *key, const char *value) {
    size_t i, count = 0;
    json_t *row;
    json_array_foreach(rows, i, row) {
        const char *text = json_string_value(json_object_get(row, key));
        count += text != NULL && strcmp(text, value) == 0;
    }
    return count;
}

json_t *ctl_row(json_t *rows, const char *key, const char *value) {
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        const char *text = json_string_value(json_object_get(row, key));
        if (text != NULL && strcmp(text, value) == 0)
            return row;
    }
    check_failed(__FILE__, __LINE__, "a row", "none has %s = %s", key, value);
}

const char *ctl_text(json_t *row, const char *key) {
    json_t *value = json_object_get(row, key);
    CHECK(value != NULL, "no %s", key);
    return json_is_string(value) ? json_string_value(value) : "";
}
json_int_t ctl_number(json_t *row, const char *key) {
    json_t *value = json_object_get(row, key);
    CHECK(json_is_integer(value), "no number %s", key);
    return json_integer_value(value);
}
