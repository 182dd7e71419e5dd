/* SPDX-License-Identifier: Apache-2.0
 *
 * getopt_long(3) splits the words; this file gives it the table and turns what it finds into values
 * or sentences. getopt's globals are reset on entry, so that one process may parse many command
 * lines.
 *
 * An option is a row of a table (struct option_spec) with a kind: flag, text, count, size,
 * duration or choice. The value is checked while the line is parsed, so that a command never
 * sees a wrong one. What the command then asks for by name must be in its table; a name that is
 * not is a mistake in this program, and asserted.
 */
#include "featurectl/options.h"

#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "featurectl/units.h"

/* getopt's value for option i: above every letter. */
#define LONG_BASE 256

/* Tables are borrowed: they are static. The common options and those of the command are added
 * one after the other.
 */
void options_add(struct options *options, const struct option_spec *table) {
    for (const struct option_spec *spec = table; spec->name; spec++) {
        assert(options->count < OPTIONS_MAX);
        options->specs[options->count++] = spec;
    }
}

/* "on-release, on-ack, retain", for the sentence that refuses another word. */
static const char *options_choices_text(const struct option_spec *spec, char *out, size_t room) {
    size_t used = 0;
    out[0] = '\0';
    for (const char *const *choice = spec->choices; *choice && used < room; choice++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", used ? ", " : "", *choice);
    return out;
}

/* The value of a choice is its place in the list, which the lists keep equal to the enum that is
 * meant.
 */
static bool options_parse_choice(const struct option_spec *spec, const char *text, uint64_t *out) {
    for (uint64_t i = 0; spec->choices[i]; i++)
        if (strcmp(spec->choices[i], text) == 0) {
            *out = i;
            return true;
        }
    return false;
}

/* Flags and texts have no number and are never wrong here. False: the text is no value of that
 * kind.
 */
static bool options_parse_number(const struct option_spec *spec, const char *text, uint64_t *out) {
    switch (spec->kind) {
    case OPTION_COUNT:
        return units_parse_count(text, out) && *out <= UINT32_MAX;
    case OPTION_BYTES:
        return units_parse_bytes(text, out);
    case OPTION_DURATION:
        return units_parse_duration_ms(text, out);
    case OPTION_CHOICE:
        return options_parse_choice(spec, text, out);
    case OPTION_FLAG:
    case OPTION_TEXT:
        break;
    }
    return true;
}

/* Says what would have been right, with examples: "64KiB" helps more than "invalid size". */
static void options_say_wanted(const struct option_spec *spec, const char *text, char *why,
                               size_t why_bytes) {
    char choices[256];
    const char *wanted = "a whole number up to 4294967295";
    if (spec->kind == OPTION_BYTES)
        wanted = "a size such as 4096, 64KiB, 512MiB or 4GiB";
    else if (spec->kind == OPTION_DURATION)
        wanted = "a time such as 500ms, 30s, 10min, 2h or 1d";
    else if (spec->kind == OPTION_CHOICE)
        wanted = options_choices_text(spec, choices, sizeof choices);
    snprintf(why, why_bytes, "--%s %s: wanted %s%s", spec->name, text,
             spec->kind == OPTION_CHOICE ? "one of " : "", wanted);
}

/* The last one counts when an option is given twice. Flags have the text "" so that they count
 * as given.
 */
static bool options_set_value(struct options *options, size_t index, const char *text, char *why,
                              size_t why_bytes) {
    const struct option_spec *spec = options->specs[index];
    struct option_value *value = &options->values[index];
    if (!options_parse_number(spec, text, &value->number)) {
        options_say_wanted(spec, text, why, why_bytes);
        return false;
    }
    value->text = text;
    return true;
}

/* Tables for getopt_long. A leading ':' makes it report a missing argument apart from an unknown
 * option. */
static void options_fill_tables(const struct options *options, bool until_argument,
                                struct option *longs, char *letters) {
    if (until_argument)
        *letters++ = '+';
    *letters++ = ':';
    for (size_t i = 0; i < options->count; i++) {
        const struct option_spec *spec = options->specs[i];
        longs[i] =
            (struct option){.name = spec->name,
                            .has_arg = spec->kind == OPTION_FLAG ? no_argument : required_argument,
                            .val = LONG_BASE + (int)i};
        if (spec->letter) {
            *letters++ = spec->letter;
            if (spec->kind != OPTION_FLAG)
                *letters++ = ':';
        }
    }
    longs[options->count] = (struct option){0};
    *letters = '\0';
}

/* From what getopt returns to the place in the table; options->count where there is none. */
static size_t options_find_index(const struct options *options, int found) {
    if (found >= LONG_BASE)
        return (size_t)(found - LONG_BASE);
    for (size_t i = 0; i < options->count; i++)
        if (found != 0 && options->specs[i]->letter == found)
            return i;
    return options->count;
}

/* getopt says in `optopt` which option it is about: the number of a long one, a letter, or 0 for
 * a word that it does not know at all. Then the word is the one before optind.
 */
static void options_say_refused(const struct options *options, int found, char **argv, char *why,
                                size_t why_bytes) {
    size_t index = options_find_index(options, optopt);
    bool known = index < options->count;
    if (known && found == ':')
        snprintf(why, why_bytes, "--%s needs a value: %s", options->specs[index]->name,
                 options->specs[index]->argument);
    else if (known)
        snprintf(why, why_bytes, "--%s takes no value", options->specs[index]->name);
    else if (optopt)
        snprintf(why, why_bytes, "there is no option -%c", optopt);
    else
        snprintf(why, why_bytes, "there is no option %s", argv[optind - 1]);
}

bool options_parse(struct options *options, int argc, char **argv, bool until_argument, char *why,
                   size_t why_bytes) {
    struct option longs[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 3];
    options_fill_tables(options, until_argument, longs, letters);
    optind = 0;
    opterr = 0;
    int found;
    while ((found = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        if (found == '?' || found == ':') {
            options_say_refused(options, found, argv, why, why_bytes);
            return false;
        }
        size_t index = options_find_index(options, found);
        if (!options_set_value(options, index, optarg ? optarg : "", why, why_bytes))
            return false;
    }
    options->arguments = argv + optind;
    options->argument_count = (size_t)(argc - optind);
    return true;
}

/* The first option that has to be given and was not; NULL when there is none. */
const struct option_spec *options_missing(const struct options *options) {
    for (size_t i = 0; i < options->count; i++)
        if (options->specs[i]->required && !options->values[i].text)
            return options->specs[i];
    return NULL;
}

/* A linear search: a command has a dozen options. */
static const struct option_value *options_find_value(const struct options *options,
                                                     const char *name) {
    for (size_t i = 0; i < options->count; i++)
        if (strcmp(options->specs[i]->name, name) == 0)
            return &options->values[i];
    assert(false && "option is in the command's table");
    return NULL;
}

bool options_given(const struct options *options, const char *name) {
    return options_find_value(options, name)->text;
}

const char *options_text(const struct options *options, const char *name, const char *fallback) {
    const char *text = options_find_value(options, name)->text;
    return text ? text : fallback;
}

uint64_t options_number(const struct options *options, const char *name, uint64_t fallback) {
    const struct option_value *value = options_find_value(options, name);
    return value->text ? value->number : fallback;
}

/* The protocol has 32 bits for a deadline, 49 days. More than that is cut to it, which nobody
 * can tell apart.
 */
uint32_t options_deadline_ms(const struct options *options, const char *name, uint32_t fallback) {
    uint64_t ms = options_number(options, name, fallback);
    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}
