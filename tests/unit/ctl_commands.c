/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "featurectl/command.h"

#define FIND(used, ...)                                                                            \
    command_find((char *const[]){__VA_ARGS__}, sizeof((char *[]){__VA_ARGS__}) / sizeof(char *),   \
                 used)

Test(ctl_commands, names_are_found_longest_first) {
    size_t used;
    const struct command *create = FIND(&used, "store", "create", "run0");
    cr_assert_not_null(create);
    cr_expect_str_eq(create->name, "store create");
    cr_expect_eq(used, 2);
    const struct command *stores = FIND(&used, "stores", "create");
    cr_assert_not_null(stores);
    cr_expect_str_eq(stores->name, "stores");
    cr_expect_eq(used, 1);
    cr_expect_null(FIND(&used, "store"));
    cr_expect_null(FIND(&used, "stat"));
    cr_expect_null(FIND(&used, "create", "store"));
}

Test(ctl_commands, half_a_name_tells_what_may_follow) {
    char names[128];
    cr_expect(command_continuations("store", names, sizeof names));
    cr_expect_str_eq(names, "store create, store drop");
    cr_expect_not(command_continuations("sto", names, sizeof names));
    cr_expect_not(command_continuations("status", names, sizeof names));
}

Test(ctl_commands, a_missing_argument_is_named) {
    size_t used;
    char word[64];
    const struct command *put = FIND(&used, "put"), *drop = FIND(&used, "store", "drop");
    cr_expect(command_missing_argument(put, 0, word, sizeof word));
    cr_expect_str_eq(word, "FILE");
    cr_expect(command_missing_argument(drop, 0, word, sizeof word));
    cr_expect_str_eq(word, "NAME");
    cr_expect_not(command_missing_argument(put, 1, word, sizeof word));
}

Test(ctl_commands, usage_shows_arguments_and_required_options) {
    size_t used;
    char usage[256];
    command_usage(FIND(&used, "ingest"), usage, sizeof usage);
    cr_expect_str_eq(usage, "featurectl ingest DIR --store STORE --manifest FILE [OPTION...]");
}

static void check_options(const struct command *command) {
    struct options options = {0};
    options_add(&options, common_options);
    if (command->options)
        options_add(&options, command->options);
    for (size_t i = 0; i < options.count; i++) {
        const struct option_spec *o = options.specs[i];
        cr_expect(o->help && *o->help, "%s --%s has no help", command->name, o->name);
        cr_expect((o->kind == OPTION_FLAG) == !o->argument,
                  "%s --%s: a value has a word, a flag has none", command->name, o->name);
        cr_expect((o->kind == OPTION_CHOICE) == (o->choices != NULL), "%s --%s", command->name,
                  o->name);
        for (size_t j = 0; j < i; j++) {
            cr_expect_str_neq(options.specs[j]->name, o->name, "%s has it twice", command->name);
            cr_expect(!o->letter || options.specs[j]->letter != o->letter, "%s has -%c twice",
                      command->name, o->letter);
        }
    }
}

Test(ctl_commands, every_command_is_described_whole) {
    size_t count = 0;
    for (; commands[count]; count++) {
        const struct command *command = commands[count];
        cr_expect(command->summary && *command->summary, "%s", command->name);
        cr_expect_not_null(command->arguments, "%s", command->name);
        cr_expect_not_null(command->run, "%s", command->name);
        cr_expect_leq(command->arguments_min, command->arguments_max, "%s", command->name);
        cr_expect_eq(*command->arguments == '\0', command->arguments_max == 0, "%s", command->name);
        check_options(command);
        for (size_t i = 0; i < count; i++)
            cr_expect_str_neq(commands[i]->name, command->name);
    }
    cr_expect_gt(count, 15);
}
