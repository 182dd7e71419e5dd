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

/* ---- which columns people see ---- */

static const struct table_column some_columns[] = {
    {"name", "NAME", TABLE_LEFT},       {"waits", "WAITS", TABLE_RIGHT | TABLE_IF_ANY},
    {"bytes", "SIZE", TABLE_RIGHT},     {"self", "SELF", TABLE_LEFT | TABLE_WIDE},
    {"trouble", "TROUBLE", TABLE_LEFT},
};

static void expect_columns(bool wide, uint64_t second_waits, const char *trouble,
                           const char *expected) {
    char *text = NULL;
    size_t text_bytes;
    FILE *out = open_memstream(&text, &text_bytes);
    struct table table;
    table_init(&table, out, false, some_columns, sizeof some_columns / sizeof some_columns[0]);
    table.wide = wide;
    for (int i = 0; i < 2; i++) {
        table_text(&table, i ? "b" : "a");
        table_count(&table, i ? second_waits : 0);
        table_bytes(&table, 0);
        table_flag(&table, i == 0);
        table_text(&table, i ? trouble : NULL);
        table_end_row(&table);
    }
    table_finish(&table, TABLE_ROWS);
    fclose(out);
    cr_expect_str_eq(text, expected, "%s", text);
    free(text);
}

Test(ctl_table, a_column_in_which_no_row_has_anything_is_left_out) {
    expect_columns(false, 0, NULL, "NAME  SIZE\na      0 B\nb      0 B\n");
    expect_columns(false, 3, "it burns",
                   "NAME  WAITS  SIZE  TROUBLE\n"
                   "a         0   0 B  -\n"
                   "b         3   0 B  it burns\n");
}

Test(ctl_table, wide_shows_all_of_them) {
    expect_columns(true, 0, NULL,
                   "NAME  WAITS  SIZE  SELF  TROUBLE\n"
                   "a         0   0 B  yes   -\n"
                   "b         0   0 B  no    -\n");
}

Test(ctl_table, notes_stand_below_and_are_for_people) {
    for (int json = 0; json < 2; json++) {
        char *text = NULL;
        size_t text_bytes;
        FILE *out = open_memstream(&text, &text_bytes);
        struct table table;
        table_init(&table, out, json, columns, 1);
        table_text(&table, "a");
        table_end_row(&table);
        table_note(&table, "%s: \033 it burns", "a");
        table_finish(&table, TABLE_ROWS);
        fclose(out);
        cr_expect_str_eq(text, json ? "{\"name\":\"a\"}\n" : "NAME\na\n\na: \\x1b it burns\n");
        free(text);
    }
}
