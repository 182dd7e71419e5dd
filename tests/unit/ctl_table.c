/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/table.h"

static const struct table_column columns[] = {
    {"name", "NAME", TABLE_LEFT},
    {"bytes", "SIZE", TABLE_RIGHT},
    {"generation", "GENERATION", TABLE_RIGHT},
    {"holders", NULL, TABLE_LEFT},
};

static void fill_row(struct table *table, const char *name, uint64_t bytes, uint64_t generation) {
    table_text(table, name);
    table_bytes(table, bytes);
    table_id(table, generation);
    table_cell(table, json_array(), NULL);
    table_end_row(table);
}

/* Two rows, printed; freed with free(). */
static char *print_two(bool json, enum table_layout layout, const char *second_name) {
    char *text = NULL;
    size_t text_bytes;
    FILE *out = open_memstream(&text, &text_bytes);
    struct table table;
    table_init(&table, out, json, columns, sizeof columns / sizeof columns[0]);
    fill_row(&table, "a", 3u << 20, 18446744073709551615u);
    if (second_name)
        fill_row(&table, second_name, 17, 0);
    table_finish(&table, layout);
    fclose(out);
    return text;
}

Test(ctl_table, people_get_aligned_columns) {
    char *text = print_two(false, TABLE_ROWS, "longer");
    cr_expect_str_eq(text, "NAME       SIZE            GENERATION\n"
                           "a       3.0 MiB  18446744073709551615\n"
                           "longer     17 B                     -\n");
    free(text);
}

Test(ctl_table, programs_get_one_object_a_line_with_exact_numbers) {
    char *text = print_two(true, TABLE_ROWS, "b");
    cr_expect_str_eq(text, "{\"name\":\"a\",\"bytes\":3145728,\"generation\":"
                           "\"18446744073709551615\",\"holders\":[]}\n"
                           "{\"name\":\"b\",\"bytes\":17,\"generation\":null,\"holders\":[]}\n");
    free(text);
}

Test(ctl_table, fields_stand_one_a_line) {
    char *text = print_two(false, TABLE_FIELDS, NULL);
    cr_expect_str_eq(text,
                     "NAME        a\nSIZE        3.0 MiB\nGENERATION  18446744073709551615\n");
    free(text);
}

Test(ctl_table, an_empty_table_has_its_titles_only) {
    char *text = NULL;
    size_t text_bytes;
    FILE *out = open_memstream(&text, &text_bytes);
    struct table table;
    table_init(&table, out, false, columns, 3);
    table_finish(&table, TABLE_ROWS);
    fclose(out);
    cr_expect_str_eq(text, "NAME  SIZE  GENERATION\n");
    free(text);
}

Test(ctl_table, utf8_takes_one_column_a_character) {
    char *text = print_two(false, TABLE_ROWS, "\xc3\xa4\xc3\xb6");
    cr_expect_not_null(strstr(text, "\n\xc3\xa4\xc3\xb6       17 B"), "%s", text);
    free(text);
}

Test(ctl_table, control_characters_do_not_reach_a_terminal) {
    char *text = print_two(false, TABLE_ROWS, "x\033[2Jy\n");
    cr_expect_not_null(strstr(text, "x\\x1b[2Jy\\x0a"));
    cr_expect_null(strchr(text, '\033'));
    free(text);
}

Test(ctl_table, text_that_is_no_utf8_is_still_json) {
    char *text = print_two(true, TABLE_ROWS, "x\xff");
    cr_expect_not_null(strstr(text, "{\"name\":\"\\\\bytes:x\\\\xff\""), "%s", text);
    free(text);
}
