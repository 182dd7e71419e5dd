/* SPDX-License-Identifier: Apache-2.0 */
#include "support/config_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/checks.h"

/* The line for that key, new if there is none. */
static struct config_line *line_for(struct config_text *config, const char *section,
                                    const char *key) {
    for (uint32_t i = 0; i < config->count; i++)
        if (!strcmp(config->lines[i].section, section) && !strcmp(config->lines[i].key, key))
            return &config->lines[i];
    CHECK(config->count < CONFIG_TEXT_LINES_MAX, "more than %u lines", CONFIG_TEXT_LINES_MAX);
    struct config_line *line = &config->lines[config->count++];
    snprintf(line->section, sizeof line->section, "%s", section);
    snprintf(line->key, sizeof line->key, "%s", key);
    return line;
}

static void set_value(struct config_line *line, const char *value, const char *directory) {
    const char *mark = strstr(value, "%D");
    if (mark == NULL)
        snprintf(line->value, sizeof line->value, "%s", value);
    else
        snprintf(line->value, sizeof line->value, "%.*s%s%s", (int)(mark - value), value, directory,
                 mark + 2);
}

void config_text_add(struct config_text *config, const char *text, const char *directory) {
    char *copy = strdup(text != NULL ? text : ""), *rest = copy, *at;
    char section[80] = "", key[64], value[160];
    while ((at = strsep(&rest, "\n")) != NULL) {
        if (sscanf(at, " [%79[^]]]", section) == 1)
            line_for(config, section, "");
        else if (sscanf(at, " %63[a-z_] = %159[^\n]", key, value) == 2)
            set_value(line_for(config, section, key), value, directory);
        else
            CHECK(*at == '\0', "neither a section nor a key: %s", at);
    }
    free(copy);
}

void config_text_write(const struct config_text *config, const char *path) {
    FILE *file = fopen(path, "we");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    for (uint32_t i = 0; i < config->count; i++) {
        if (config->lines[i].key[0] != '\0')
            continue;
        fprintf(file, "[%s]\n", config->lines[i].section);
        for (uint32_t j = 0; j < config->count; j++)
            if (config->lines[j].key[0] != '\0' &&
                !strcmp(config->lines[j].section, config->lines[i].section))
                fprintf(file, "%s = %s\n", config->lines[j].key, config->lines[j].value);
    }
    CHECK(fclose(file) == 0, "%s: %s", path, strerror(errno));
}
