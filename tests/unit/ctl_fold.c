/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "featurectl/fold.h"

static void expect_fold(const char *text, size_t at, size_t indent, size_t columns,
                        const char *expected) {
    char *out = NULL;
    size_t bytes;
    FILE *file = open_memstream(&out, &bytes);
    fold_print(file, text, at, indent, columns);
    fclose(file);
    cr_expect_str_eq(out, expected, "%s", out);
    free(out);
}

Test(ctl_fold, words_go_on_below_where_the_text_began) {
    expect_fold("one two three four five six seven", 4, 4, 30,
                "one two three four five\n    six seven\n");
    expect_fold("one", 4, 4, 30, "one\n");
    expect_fold("", 4, 4, 30, "\n");
}

Test(ctl_fold, the_last_column_is_used) {
    expect_fold("aaaaaaaaaaaaaa bbbbbbbbbbbbbbb", 0, 0, 30, "aaaaaaaaaaaaaa bbbbbbbbbbbbbbb\n");
    expect_fold("aaaaaaaaaaaaaa bbbbbbbbbbbbbbbb", 0, 0, 30, "aaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbb\n");
}

Test(ctl_fold, a_word_that_is_longer_than_a_line_stays_whole) {
    expect_fold("see feature://store/sample?generation=18446744073709551615 there", 0, 2, 30,
                "see\n  feature://store/sample?generation=18446744073709551615\n  there\n");
}

Test(ctl_fold, without_a_width_or_room_a_text_stays_as_it_is) {
    expect_fold("one  two\tthree", 0, 0, 0, "one  two\tthree\n");
    expect_fold("one  two three four five six seven", 20, 20, 40,
                "one  two three four five six seven\n");
}

Test(ctl_fold, blanks_and_newlines_part_words_alike) {
    expect_fold(" one\ntwo  three ", 0, 0, 30, "one two three\n");
}

Test(ctl_fold, a_character_is_a_column) {
    cr_expect_eq(fold_width("\xc3\xa4\xc3\xb6"), 2);
    expect_fold("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4 "
                "bbbbbbbbbbbbbbbbbbb",
                0, 0, 30,
                "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4 "
                "bbbbbbbbbbbbbbbbbbb\n");
}
