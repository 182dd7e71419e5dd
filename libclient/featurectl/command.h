/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command is. To add one: write a file with a `const struct command command_xxx` and add one
 * line to commands.c; help, completion, option checks and --json follow from the struct.
 */
#ifndef FEATURED_CTL_COMMAND_H
#define FEATURED_CTL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "featurectl/options.h"

#define COMMAND_ARGUMENTS_ANY UINT32_MAX

struct context;

struct command {
    const char *name;                  /* "status", "store create" */
    const char *arguments;             /* one word each: "NAME", "REF...", "[COMMAND]"; "" = none */
    const char *summary;               /* one line, for the list */
    const char *details;               /* paragraphs for `help COMMAND`; NULL = none */
    const struct option_spec *options; /* ends with {0}; NULL = none of its own */
    uint32_t arguments_min, arguments_max;
    bool offline; /* works without a broker: context->feature is NULL */
    bool hidden;  /* not listed */
    int (*run)(
        struct context *context); /* FEATURE_OK, FEATURE_E_* or CTL_E_LOCAL, already reported */
};

/* All of them, NULL-terminated, in the order of the help. */
extern const struct command *const commands[];
/* Options that every command has: --json, --socket, --help, --version. */
extern const struct option_spec common_options[];

/* The command that the words name, longest name first ("store create" before "store"), and how many
 * words that took; NULL if there is none. */
const struct command *command_find(char *const *words, size_t word_count, size_t *used_out);
/* If `word` alone only begins names of commands ("store"), writes them, comma-separated; else
 * false. */
bool command_continuations(const char *word, char *out, size_t room);
/* NULL, or the word of `arguments` that stands for the first argument that is missing. */
const char *command_missing_argument(const struct command *command, size_t argument_count,
                                     char *out, size_t room);
/* "featurectl store create NAME [OPTION...]" */
void command_usage(const struct command *command, char *out, size_t room);

#endif
