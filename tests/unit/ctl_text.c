/* SPDX-License-Identifier: Apache-2.0
 *
 * Names and sentences that others wrote, on their way to people and programs.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "feature.h"
#include "featurectl/shown.h"
#include "proto/text.h"

static void expect_shown(const char *text, const char *expected) {
    char *shown = shown_text(text);
    cr_expect_str_eq(shown, expected, "shown as %s, not %s", shown, expected);
    cr_expect_eq(text_escape(NULL, 0, text, strlen(text)), strlen(expected));
    free(shown);
}

Test(text_shown, what_a_terminal_would_obey_is_escaped) {
    expect_shown("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 a\\b",
                 "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 a\\b");
    expect_shown("e\033[31mred\n\t\x7f", "e\\x1b[31mred\\x0a\\x09\\x7f");
    expect_shown("\xc2\x9b"
                 "31m",
                 "\\xc2\\x9b31m"); /* CSI of C1 */
    expect_shown("a\xe2\x80\xae"
                 "b",
                 "a\\xe2\\x80\\xaeb"); /* right to left from here */
    expect_shown("a\xe2\x81\xa6"
                 "b",
                 "a\\xe2\\x81\\xa6b"); /* isolate */
    expect_shown("a\xe2\x80\xa8"
                 "b",
                 "a\\xe2\\x80\\xa8b");                            /* line separator */
    expect_shown("a\xef\xbb\xbf", "a\\xef\\xbb\\xbf");            /* invisible */
    expect_shown("\xd9\xa9\xe0\xa4\x95", "\xd9\xa9\xe0\xa4\x95"); /* other scripts stay */
}

Test(text_shown, what_is_no_utf8_is_escaped) {
    expect_shown("caf\xe9", "caf\\xe9");
    expect_shown("\xc0\xaf", "\\xc0\\xaf");                   /* overlong */
    expect_shown("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* surrogate */
    expect_shown("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond the last code point */
    expect_shown("x\xe2\x82", "x\\xe2\\x82");                 /* cut short */
}

Test(text_shown, what_does_not_fit_is_cut_between_characters) {
    char out[8];
    cr_expect_eq(text_escape(out, sizeof out, "abcde\033f", 7), 10);
    cr_expect_str_eq(out, "abcde");
    cr_expect_eq(text_escape(out, sizeof out, "abcdef\xc3\xa4", 8), 8);
    cr_expect_str_eq(out, "abcdef");
    cr_expect_eq(text_escape(out, 1, "a", 1), 1);
    cr_expect_str_eq(out, "");
}

static void expect_json(const char *text, size_t bytes, const char *expected) {
    json_t *json = shown_json_bytes(text, bytes);
    cr_assert_not_null(json, "nothing for %s", expected);
    char *dumped = json_dumps(json, JSON_ENCODE_ANY);
    cr_expect_str_eq(dumped, expected, "%s, not %s", dumped, expected);
    free(dumped);
    json_decref(json);
}

Test(text_shown, json_holds_every_byte) {
    expect_json("e\033[31m", 6, "\"e\\u001B[31m\"");
    expect_json("a\0b", 3, "\"a\\u0000b\"");
    expect_json("caf\xe9", 4, "\"\\\\bytes:caf\\\\xe9\"");
    expect_json("a\\\xff", 3, "\"\\\\bytes:a\\\\x5c\\\\xff\"");
    expect_json("\\bytes:x", 8, "\"\\\\bytes:\\\\x5cbytes:x\""); /* the mark is never ambiguous */
    json_t *null = shown_json(NULL);
    cr_expect(json_is_null(null));
    json_decref(null);
}

Test(text_shown, sentences_of_the_library_are_printable) {
    struct feature_ref *ref = NULL;
    cr_assert_eq(feature_ref_from_uri("feature://st\033[2J\xff/x?generation=1&home=a", &ref),
                 FEATURE_E_INVALID);
    const char *sentence = feature_last_error();
    cr_expect(text_is_utf8(sentence, strlen(sentence)), "%s", sentence);
    for (const char *c = sentence; *c; c++)
        cr_expect((unsigned char)*c >= 0x20, "%s", sentence);
}
