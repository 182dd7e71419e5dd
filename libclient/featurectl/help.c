/* SPDX-License-Identifier: Apache-2.0
 *
 * `help`, `help COMMAND`, `help exit-codes` and `version`.
 *
 * Texts come from the tables of commands and options, so that a new command or option describes
 * itself.
 */
#include "featurectl/help.h"

#include <string.h>

#include "featurectl/fold.h"

#define HELP_COLUMNS      80
#define HELP_LEFT_COLUMNS 25

/* The statuses come from the same table as the code (FEATURE_STATUSES), so that a new status is
 * listed by itself.
 */
static void help_print_exit_codes(FILE *out) {
    fprintf(out, "Exit codes:\n  %2d  OK           done\n", exit_code(FEATURE_OK));
    fprintf(out,
            "  %2d  -            a file here cannot be read, is malformed or cannot be written; "
            "doctor or index check found a fault\n",
            EXIT_CODE_LOCAL);
    fprintf(
        out,
        "  %2d  -            the command line is wrong; index check or doctor could not check\n",
        EXIT_CODE_USAGE);
    fprintf(out, "  %2d  -            status: the broker answers and is not ready\n",
            EXIT_CODE_NOT_READY);
#define HELP_STATUS(constant, word, number, meaning)                                               \
    fprintf(out, "  %2d  %-11s  %s\n", exit_code(constant), #word, meaning);
    FEATURE_STATUSES(HELP_STATUS)
}

/* " -o, --output FILE safetensors file to write": a long left side pushes its text to the right. */
static void help_print_option(FILE *out, const struct option_spec *option) {
    char left[64], text[256], letter[8] = "    ";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    int used = snprintf(text, sizeof text, "%s", option->help);
    for (size_t i = 0; option->choices && option->choices[i] && used < (int)sizeof text; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%s", i ? ", " : ": ",
                         option->choices[i]);
    int at = fprintf(out, "  %-*s ", HELP_LEFT_COLUMNS, left);
    fold_print(out, text, (size_t)at, HELP_LEFT_COLUMNS + 3, HELP_COLUMNS);
}

/* Hidden commands are for scripts and completions. They can be run and have a help of their own. */
void help_overview(FILE *out) {
    fputs("featurectl: see and steer the feature broker of this machine\n\n"
          "usage: featurectl [OPTION...] COMMAND [ARGUMENT...]\n\nCommands:\n",
          out);
    for (size_t i = 0; commands[i]; i++)
        if (!commands[i]->hidden) {
            int at = fprintf(out, "  %-12s  ", commands[i]->name);
            fold_print(out, commands[i]->summary, (size_t)at, 16, HELP_COLUMNS);
        }
    fputs("\nOptions of every command:\n", out);
    for (const struct option_spec *o = common_options; o->name; o++)
        help_print_option(out, o);
    fputs("\nfeaturectl help COMMAND describes one, help exit-codes the exit codes.\n", out);
}

/* A screen of 24 lines at most, of 80 columns: what does not fit is for the manual page. The
 * options that every command has are described by the overview and only named here.
 */
void help_command(FILE *out, const struct command *command) {
    char usage[256];
    command_usage(command, usage, sizeof usage);
    fputs("usage: ", out);
    fold_print(out, usage, strlen("usage: "), strlen("usage: "), HELP_COLUMNS);
    fputc('\n', out);
    fold_print(out, command->summary, 0, 0, HELP_COLUMNS);
    if (command->details) {
        fputc('\n', out);
        fold_print(out, command->details, 0, 0, HELP_COLUMNS);
    }
    fputc('\n', out);
    for (const struct option_spec *o = command->options; o && o->name; o++)
        help_print_option(out, o);
    fputs("  and --json, --socket PATH, --help, --version: see featurectl --help\n", out);
}

/* Commands of two words are found too. With the first of them alone ("store") the second ones
 * are listed.
 */
static int help_run_help(struct context *context) {
    char **words = context->options.arguments;
    size_t word_count = context->options.argument_count, used;
    if (word_count == 0) {
        help_overview(context->out);
        return FEATURE_OK;
    }
    if (strcmp(words[0], "exit-codes") == 0) {
        help_print_exit_codes(context->out);
        return FEATURE_OK;
    }
    const struct command *command = command_find(words, word_count, &used);
    char names[256];
    if (!command && command_continuations(words[0], names, sizeof names))
        return context_refuse(context, CTL_E_USAGE, words[0], "which one? There is: %s", names);
    if (!command)
        return context_refuse(context, CTL_E_USAGE, words[0], "there is no such command");
    help_command(context->out, command);
    return FEATURE_OK;
}

/* The version is that of the library that this program was linked with, which may be newer than
 * the program.
 */
static int help_run_version(struct context *context) {
    static const struct table_column columns[] = {{"version", "version", TABLE_LEFT}};
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    table_text(&table, feature_version());
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    return FEATURE_OK;
}

const struct command command_help = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "describe a command, or `exit-codes`",
    .arguments_max = 2,
    .offline = true,
    .run = help_run_help,
};

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "version of featurectl and its library",
    .offline = true,
    .run = help_run_version,
};
