/* SPDX-License-Identifier: Apache-2.0
 *
 * `__complete -- WORD...`: what may stand in place of the last word, one candidate a line, for the
 * shell's completion script. Nothing printed = the shell offers file names. Never fails, never
 * complains.
 *
 * The words are those before the cursor; the last one may be empty. What may follow: the value
 * of an option, an option, the name of a store, or the next word of a command. Broken words are
 * not complained about, for the user is still typing.
 */
#include <stdlib.h>
#include <string.h>

#include "featurectl/context.h"
#include "featurectl/memory.h"

/* Only what begins with what has been typed: zsh would filter by itself, bash would not. */
static void complete_offer(struct context *context, const char *prefix, const char *dashes,
                           const char *word) {
    char *candidate = memory_print("%s%s", dashes, word);
    if (strncmp(candidate, prefix, strlen(prefix)) == 0)
        fprintf(context->out, "%s\n", candidate);
    free(candidate);
}

/* Without a broker nothing is offered, and nothing said. */
static void complete_offer_stores(struct context *context, const char *prefix) {
    Fb__Stores stores = FB__STORES__INIT;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORES;
    request.stores = &stores;
    Fb__ClientReply *reply;
    if (context_connect(context) != FEATURE_OK ||
        feature_admin_call(context->feature, &request, CONTEXT_DEADLINE_MS, &reply) != FEATURE_OK)
        return;
    if (reply->result_case == FB__CLIENT_REPLY__RESULT_STORES)
        for (size_t i = 0; i < reply->stores->n_stores; i++)
            complete_offer(context, prefix, "", reply->stores->stores[i]->store);
    context_free_reply(reply);
}

/* By its long name or its letter. "--name=value" is one word for the shell, and not completed. */
static const struct option_spec *complete_find_option(const struct option_spec *table,
                                                      const char *word) {
    for (const struct option_spec *o = table; o && o->name; o++)
        if ((strncmp(word, "--", 2) == 0 && strcmp(word + 2, o->name) == 0) ||
            (o->letter && word[0] == '-' && word[1] == o->letter && !word[2]))
            return o;
    return NULL;
}

/* The next word of each command's name that begins with the words so far: behind "store" come
 * "create" and "drop". A first word that several commands share is offered once. */
static void complete_offer_commands(struct context *context, char *const *words, size_t word_count,
                                    const char *prefix) {
    const char *last = "";
    for (size_t i = 0; commands[i]; i++) {
        const char *rest = commands[i]->name;
        for (size_t at = 0; at < word_count && rest; at++) {
            size_t length = strlen(words[at]);
            bool same = strncmp(rest, words[at], length) == 0 && rest[length] == ' ';
            rest = same ? rest + length + 1 : NULL;
        }
        if (!rest || commands[i]->hidden)
            continue;
        char *word = memory_print("%.*s", (int)strcspn(rest, " "), rest);
        if (strncmp(last, rest, strlen(word)) != 0 || last[strlen(word)] != ' ')
            complete_offer(context, prefix, "", word);
        last = rest;
        free(word);
    }
}

/* All of a table, also those that have been given already: the last one counts. */
static void complete_offer_options(struct context *context, const struct option_spec *table,
                                   const char *prefix) {
    for (const struct option_spec *o = table; o && o->name; o++)
        complete_offer(context, prefix, "--", o->name);
}

/* Choices come from the table; of all other values only names of stores can be known. */
static void complete_offer_value(struct context *context, const struct option_spec *o,
                                 const char *prefix) {
    for (size_t i = 0; o->choices && o->choices[i]; i++)
        complete_offer(context, prefix, "", o->choices[i]);
    if (strcmp(o->name, "store") == 0)
        complete_offer_stores(context, prefix);
}

/* Always successful: a completion that fails would disturb the command line. */
static int complete_run_complete(struct context *context) {
    char **words = context->options.arguments;
    size_t word_count = context->options.argument_count, used;
    if (word_count == 0)
        return FEATURE_OK;
    const char *prefix = words[word_count - 1],
               *before = word_count > 1 ? words[word_count - 2] : "";
    const struct command *command = command_find(words, word_count - 1, &used);
    const struct option_spec *valued =
        complete_find_option(command ? command->options : NULL, before);
    valued = valued ? valued : complete_find_option(common_options, before);
    if (valued && valued->kind != OPTION_FLAG) {
        complete_offer_value(context, valued, prefix);
    } else if (prefix[0] == '-') {
        complete_offer_options(context, command ? command->options : NULL, prefix);
        complete_offer_options(context, common_options, prefix);
    } else if (command && strcmp(command->name, "store drop") == 0) {
        complete_offer_stores(context, prefix);
    } else if (!command || word_count - 1 == used) {
        complete_offer_commands(context, words, word_count - 1, prefix);
    }
    context_disconnect(context);
    return FEATURE_OK;
}

const struct command command_complete = {
    .name = "__complete",
    .arguments = "[WORD...]",
    .summary = "candidates for the shell's completion",
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .offline = true,
    .hidden = true,
    .run = complete_run_complete,
};
