/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of commands: one line each.
 *
 * A new command is a file that defines a struct command, its name in the two lists below, and
 * its text in the manual. Names may have two words ("store create").
 */
#include "featurectl/command.h"

#include <stdio.h>
#include <string.h>

extern const struct command command_status, command_nodes, command_stores, command_store_create,
    command_store_drop, command_samples, command_leases, command_sessions, command_top, command_put,
    command_ingest, command_export, command_get, command_ref, command_explain, command_abort,
    command_ack, command_gc, command_drain, command_events, command_index_check, command_doctor,
    command_bundle, command_help, command_version, command_complete;

const struct command *const commands[] = {
    &command_status,       &command_nodes,      &command_stores,
    &command_store_create, &command_store_drop, &command_samples,
    &command_leases,       &command_sessions,   &command_top,
    &command_put,          &command_ingest,     &command_export,
    &command_get,          &command_ref,        &command_explain,
    &command_abort,        &command_ack,        &command_gc,
    &command_drain,        &command_events,     &command_index_check,
    &command_doctor,       &command_bundle,     &command_help,
    &command_version,      &command_complete,   NULL,
};

const struct option_spec common_options[] = {
    {.name = "json", .help = "one JSON object a line, units as the keys say"},
    {.name = "socket",
     .kind = OPTION_TEXT,
     .argument = "PATH",
     .help = "the broker's socket (default: $FEATURED_SOCKET, else /run/featured/featured.sock)"},
    {.name = "help", .letter = 'h', .help = "describe the command"},
    {.name = "version", .letter = 'V', .help = "print the version of featurectl"},
    {0},
};

/* How many of the words spell the command's name; 0 = they do not. */
static size_t commands_match_name(const struct command *command, char *const *words,
                                  size_t word_count) {
    const char *name = command->name;
    for (size_t used = 0; used < word_count; used++) {
        size_t length = strcspn(name, " ");
        if (strlen(words[used]) != length || strncmp(name, words[used], length) != 0)
            return 0;
        if (name[length] == '\0')
            return used + 1;
        name += length + 1;
    }
    return 0;
}

/* The longest name that fits wins. *used_out: how many words it took. */
const struct command *command_find(char *const *words, size_t word_count, size_t *used_out) {
    const struct command *found = NULL;
    *used_out = 0;
    for (size_t i = 0; commands[i]; i++) {
        size_t used = commands_match_name(commands[i], words, word_count);
        if (used > *used_out) {
            *used_out = used;
            found = commands[i];
        }
    }
    return found;
}

/* For a first word alone: "store" is continued by "store create" and "store drop". False: by
 * none.
 */
bool command_continuations(const char *word, char *out, size_t room) {
    size_t used = 0, length = strlen(word);
    out[0] = '\0';
    for (size_t i = 0; commands[i]; i++)
        if (strncmp(commands[i]->name, word, length) == 0 && commands[i]->name[length] == ' ' &&
            used < room)
            used += (size_t)snprintf(out + used, room - used, "%s%s", used ? ", " : "",
                                     commands[i]->name);
    return used > 0;
}

/* The word of the usage line that stands for the argument: "FILE" of "FILE...". NULL: none is
 * missing.
 */
const char *command_missing_argument(const struct command *command, size_t argument_count,
                                     char *out, size_t room) {
    if (argument_count >= command->arguments_min)
        return NULL;
    const char *word = command->arguments;
    for (size_t i = 0; i < argument_count; i++)
        word += strcspn(word, " ") + strspn(word + strcspn(word, " "), " ");
    snprintf(out, room, "%.*s", (int)strcspn(word, " ."), word);
    return out;
}

/* Options that have to be given are part of the line; all others are "[OPTION...]". */
void command_usage(const struct command *command, char *out, size_t room) {
    size_t used = (size_t)snprintf(out, room, "featurectl %s", command->name);
    if (*command->arguments && used < room)
        used += (size_t)snprintf(out + used, room - used, " %s", command->arguments);
    for (const struct option_spec *o = command->options; o && o->name; o++)
        if (o->required && used < room)
            used += (size_t)snprintf(out + used, room - used, " --%s %s", o->name, o->argument);
    if (used < room)
        snprintf(out + used, room - used, " [OPTION...]");
}
