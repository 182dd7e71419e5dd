/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns argv into checked values by a command's table of options. Pure but for getopt's own state.
 *
 * A command declares `static const struct option_spec options[] = {..., {0}};` and reads values
 * back by name; asking for a name that it has not declared is a programming error (assert).
 */
#ifndef FEATURED_CTL_OPTIONS_H
#define FEATURED_CTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_MAX 24

enum option_kind {
    OPTION_FLAG = 0,
    OPTION_TEXT,
    OPTION_COUNT,    /* 0 .. 2^32-1 */
    OPTION_BYTES,    /* 4GiB */
    OPTION_DURATION, /* 30s; value in milliseconds */
    OPTION_CHOICE,   /* one of choices; value is its index */
};

struct option_spec {
    const char *name; /* long name; NULL ends a table */
    char letter;      /* 0 = none */
    enum option_kind kind;
    bool required;
    const char *argument; /* word for the help: "NAME"; NULL for flags */
    const char *help;
    const char *const *choices; /* NULL-terminated */
};

struct option_value {
    const char *text; /* as typed; NULL = not given */
    uint64_t number;
};

struct options {
    const struct option_spec *specs[OPTIONS_MAX];
    struct option_value values[OPTIONS_MAX];
    size_t count;
    char **arguments; /* what is not an option; borrowed from argv */
    size_t argument_count;
};

/* Adds a table; values already parsed stay. The table is borrowed. */
void options_add(struct options *options, const struct option_spec *table);
/* Parses argv[1..]. until_argument: stop at the first word that is no option (it and all behind it
 * become the arguments). Returns false with a sentence in why. Required options are not checked
 * here. */
bool options_parse(struct options *options, int argc, char **argv, bool until_argument, char *why,
                   size_t why_bytes);
/* NULL, or the first required option that was not given. */
const struct option_spec *options_missing(const struct options *options);

bool options_given(const struct options *options, const char *name);
/* fallback when the option was not given. */
const char *options_text(const struct options *options, const char *name, const char *fallback);
uint64_t options_number(const struct options *options, const char *name, uint64_t fallback);
/* A duration as libfeature takes deadlines: milliseconds, longer ones cut to 2^32-1. */
uint32_t options_deadline_ms(const struct options *options, const char *name, uint32_t fallback);

#endif
