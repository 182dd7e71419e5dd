/* SPDX-License-Identifier: Apache-2.0
 *
 * featurectl: finds the command, checks its command line, connects, runs it, turns its status into
 * an exit code. Options that every command has may stand before the command or behind it.
 */
#include <errno.h>
#include <string.h>

#include "featurectl/ending.h"
#include "featurectl/help.h"
#include "featurectl/progress.h"
#include "host/std_fds.h"

/* The options may not have been read to the end. */
static bool main_wants_json(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

/* With --json the usage line is left out: it is no JSON. */
static int main_usage_error(struct context *context, const char *sentence) {
    char usage[256] = "featurectl [OPTION...] COMMAND [ARGUMENT...]";
    if (context->command)
        command_usage(context->command, usage, sizeof usage);
    context_refuse(context, CTL_E_USAGE, NULL, "%s", sentence);
    if (!context->json)
        fprintf(context->err, "usage: %s\n", usage);
    return EXIT_CODE_USAGE;
}

/* A first word that is half a command gets its second words as advice. */
static int main_unknown_command(struct context *context, const char *word) {
    char sentence[512], names[256];
    if (command_continuations(word, names, sizeof names))
        snprintf(sentence, sizeof sentence, "%s what? There is: %s", word, names);
    else
        snprintf(sentence, sizeof sentence, "there is no command %s; see: featurectl help", word);
    return main_usage_error(context, sentence);
}

/* 0, or an exit code: the command line does not fit the command. */
static int main_check_line(struct context *context) {
    const struct command *command = context->command;
    const struct options *options = &context->options;
    char sentence[256], word[64];
    const struct option_spec *option = options_missing(options);
    if (command_missing_argument(command, options->argument_count, word, sizeof word))
        snprintf(sentence, sizeof sentence, "missing argument %s", word);
    else if (options->argument_count > command->arguments_max)
        snprintf(sentence, sizeof sentence, "one argument too many: %s",
                 options->arguments[command->arguments_max]);
    else if (option)
        snprintf(sentence, sizeof sentence, "missing option --%s %s", option->name,
                 option->argument);
    else
        return 0;
    return main_usage_error(context, sentence);
}

/* What was written may still fail to arrive: a full disk behind a redirection shows here. */
static int main_finish_output(struct context *context, int status) {
    if (fflush(context->out) == 0 && !ferror(context->out))
        return status;
    int error = errno;
    return context_refuse(context, CTL_E_LOCAL, NULL, "cannot write to standard output: %s",
                          strerror(error));
}

/* Offline commands (help, ref, doctor) do not need a broker. The connection ends before the
 * output is judged.
 */
static int main_run(struct context *context) {
    context->begun_ns = progress_now_ns();
    if (!context->command->offline) {
        int status = context_connect(context);
        context->connected_ns = progress_now_ns();
        if (status)
            return context_fail(context, status, NULL);
    }
    int status = context->command->run(context);
    context_disconnect(context);
    return main_finish_output(context, status);
}

/* Asks for words about featurectl instead of work. */
static bool main_asks_for_words(const struct options *options) {
    return options_given(options, "help") || options_given(options, "version");
}

/* Options before the command, the command, its options. 0, or an exit code. */
static int main_parse_line(struct context *context, int argc, char **argv) {
    char why[512];
    size_t used;
    options_add(&context->options, common_options);
    if (!options_parse(&context->options, argc, argv, true, why, sizeof why))
        return main_usage_error(context, why);
    char **words = context->options.arguments;
    size_t word_count = context->options.argument_count;
    if (word_count == 0)
        return main_asks_for_words(&context->options)
                   ? 0
                   : main_usage_error(context, "missing argument COMMAND");
    context->command = command_find(words, word_count, &used);
    if (!context->command)
        return main_unknown_command(context, words[0]);
    if (context->command->options)
        options_add(&context->options, context->command->options);
    /* getopt wants a word before the first option: the last one of the command's name. */
    if (!options_parse(&context->options, (int)(word_count - used + 1), words + used - 1, false,
                       why, sizeof why))
        return main_usage_error(context, why);
    return main_asks_for_words(&context->options) ? 0 : main_check_line(context);
}

/* --version before --help, and the help of a command before the overview. */
static void main_print_words(const struct context *context) {
    if (options_given(&context->options, "version"))
        fprintf(context->out, "featurectl %s\n", feature_version());
    else if (context->command)
        help_command(context->out, context->command);
    else
        help_overview(context->out);
}

/* Standard streams that are closed are opened first (std_fds_open()): otherwise the next file
 * that is opened would be taken for one of them.
 */
int main(int argc, char **argv) {
    std_fds_open();
    ending_init();
    struct context context = {.out = stdout, .err = stderr, .json = main_wants_json(argc, argv)};
    int refused = main_parse_line(&context, argc, argv);
    if (refused)
        return refused;
    if (!main_asks_for_words(&context.options))
        return exit_code(main_run(&context));
    main_print_words(&context);
    return exit_code(main_finish_output(&context, FEATURE_OK));
}
