/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "featurectl/options.h"

static const char *const colours[] = {"red", "green", NULL};
static const struct option_spec common[] = {
    {.name = "json", .help = "-"},
    {.name = "socket", .kind = OPTION_TEXT, .argument = "PATH", .help = "-"},
    {0},
};
static const struct option_spec own[] = {
    {.name = "store",
     .letter = 's',
     .kind = OPTION_TEXT,
     .required = true,
     .argument = "STORE",
     .help = "-"},
    {.name = "size", .kind = OPTION_BYTES, .argument = "SIZE", .help = "-"},
    {.name = "hold", .kind = OPTION_DURATION, .argument = "TIME", .help = "-"},
    {.name = "count", .kind = OPTION_COUNT, .argument = "N", .help = "-"},
    {.name = "colour",
     .kind = OPTION_CHOICE,
     .argument = "COLOUR",
     .choices = colours,
     .help = "-"},
    {0},
};

#define WORDS_MAX 16

struct line {
    struct options options;
    char why[256];
    char *argv[WORDS_MAX];
    bool good;
};

/* words: NULL-terminated, the command's name first. */
static void parse(struct line *line, bool until_argument, const char *const *words) {
    int argc = 0;
    *line = (struct line){0};
    for (; words[argc]; argc++)
        line->argv[argc] = (char *)words[argc];
    options_add(&line->options, common);
    options_add(&line->options, own);
    line->good = options_parse(&line->options, argc, line->argv, until_argument, line->why,
                               sizeof line->why);
}
#define PARSE(line, ...) parse(line, false, (const char *const[]){"put", __VA_ARGS__, NULL})

Test(ctl_options, values_of_every_kind_are_read) {
    struct line line;
    PARSE(&line, "-s", "run0", "--size", "4GiB", "--hold=90s", "--count", "7", "--colour", "green",
          "--json");
    cr_assert(line.good, "%s", line.why);
    cr_expect_str_eq(options_text(&line.options, "store", NULL), "run0");
    cr_expect_eq(options_number(&line.options, "size", 0), 4ull << 30);
    cr_expect_eq(options_number(&line.options, "hold", 0), 90000);
    cr_expect_eq(options_number(&line.options, "count", 0), 7);
    cr_expect_eq(options_number(&line.options, "colour", 0), 1);
    cr_expect(options_given(&line.options, "json"));
    cr_expect_null(options_missing(&line.options));
    cr_expect_eq(line.options.argument_count, 0);
}

Test(ctl_options, what_is_not_given_falls_back) {
    struct line line;
    PARSE(&line, "file");
    cr_assert(line.good);
    cr_expect_eq(options_number(&line.options, "size", 42), 42);
    cr_expect_eq(options_deadline_ms(&line.options, "hold", 5), 5);
    cr_expect_str_eq(options_text(&line.options, "socket", "here"), "here");
    cr_expect_not(options_given(&line.options, "json"));
}

Test(ctl_options, arguments_may_stand_between_options) {
    struct line line;
    PARSE(&line, "a.safetensors", "--count", "1", "b.safetensors", "--", "--json");
    cr_assert(line.good);
    cr_assert_eq(line.options.argument_count, 3);
    cr_expect_str_eq(line.options.arguments[0], "a.safetensors");
    cr_expect_str_eq(line.options.arguments[1], "b.safetensors");
    cr_expect_str_eq(line.options.arguments[2], "--json");
    cr_expect_not(options_given(&line.options, "json"));
}

Test(ctl_options, options_before_the_command_end_at_it_and_stay) {
    struct line line;
    parse(&line, true,
          (const char *const[]){"featurectl", "--socket", "S", "status", "--json", NULL});
    cr_assert(line.good);
    cr_assert_eq(line.options.argument_count, 2);
    cr_expect_str_eq(line.options.arguments[0], "status");
    cr_expect_not(options_given(&line.options, "json"));
    cr_assert(
        options_parse(&line.options, 2, line.options.arguments, false, line.why, sizeof line.why));
    cr_expect(options_given(&line.options, "json"));
    cr_expect_str_eq(options_text(&line.options, "socket", NULL), "S");
}

Test(ctl_options, a_required_option_is_missed) {
    struct line line;
    PARSE(&line, "file", "--count", "1");
    cr_assert(line.good);
    const struct option_spec *missing = options_missing(&line.options);
    cr_assert_not_null(missing);
    cr_expect_str_eq(missing->name, "store");
}

Test(ctl_options, refusals_name_the_option_and_what_is_wanted) {
    static const struct {
        const char *words[4];
        const char *sentence;
    } cases[] = {
        {{"put", "--no-such", NULL}, "there is no option --no-such"},
        {{"put", "-x", NULL}, "there is no option -x"},
        {{"put", "--store", NULL}, "--store needs a value: STORE"},
        {{"put", "-s", NULL}, "--store needs a value: STORE"},
        {{"put", "--json=yes", NULL}, "--json takes no value"},
        {{"put", "--size", "big", NULL}, "--size big: wanted a size such as"},
        {{"put", "--hold", "12", NULL}, "--hold 12: wanted a time such as"},
        {{"put", "--count", "4294967296", NULL},
         "--count 4294967296: wanted a whole number up to 4294967295"},
        {{"put", "--count", "-1", NULL}, "--count -1: wanted a whole number"},
        {{"put", "--colour", "blue", NULL}, "--colour blue: wanted one of red, green"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct line line;
        parse(&line, false, cases[i].words);
        cr_expect_not(line.good, "%s was accepted", cases[i].sentence);
        cr_expect_eq(strncmp(line.why, cases[i].sentence, strlen(cases[i].sentence)), 0, "got: %s",
                     line.why);
    }
}

Test(ctl_options, deadlines_are_cut_to_what_the_library_takes) {
    struct line line;
    PARSE(&line, "--hold", "100d");
    cr_assert(line.good);
    cr_expect_eq(options_number(&line.options, "hold", 0), 100ull * 24 * 3600 * 1000);
    cr_expect_eq(options_deadline_ms(&line.options, "hold", 0), UINT32_MAX);
}
