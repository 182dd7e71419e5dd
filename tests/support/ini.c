/* SPDX-License-Identifier: Apache-2.0 */
#include "ini.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"

/* The line for that key, new if there is none. */
static struct ini_line *line_for(struct ini *ini, const char *section, const char *key) {
    for (uint32_t i = 0; i < ini->count; i++)
        if (!strcmp(ini->lines[i].section, section) && !strcmp(ini->lines[i].key, key))
            return &ini->lines[i];
    CHECK(ini->count < INI_LINES_MAX, "more than %u lines", INI_LINES_MAX);
    struct ini_line *line = &ini->lines[ini->count++];
    snprintf(line->section, sizeof line->section, "%s", section);
    snprintf(line->key, sizeof line->key, "%s", key);
    return line;
}

static void set_value(struct ini_line *line, const char *value, const char *directory) {
    const char *mark = strstr(value, "%D");
    if (mark == NULL)
        snprintf(line->value, sizeof line->value, "%s", value);
    else
        snprintf(line->value, sizeof line->value, "%.*s%s%s", (int)(mark - value), value, directory,
                 mark + 2);
}

void ini_add(struct ini *ini, const char *text, const char *directory) {
    char *copy = strdup(text != NULL ? text : ""), *rest = copy, *at;
    char section[80] = "", key[64], value[160];
    while ((at = strsep(&rest, "\n")) != NULL) {
        if (sscanf(at, " [%79[^]]]", section) == 1)
            line_for(ini, section, "");
        else if (sscanf(at, " %63[a-z_] = %159[^\n]", key, value) == 2)
            set_value(line_for(ini, section, key), value, directory);
        else
            CHECK(*at == '\0', "neither a section nor a key: %s", at);
    }
    free(copy);
}

void ini_write(const struct ini *ini, const char *path) {
    FILE *file = fopen(path, "we");
    CHECK(file != NULL, "%s: %s", path, strerror(errno));
    for (uint32_t i = 0; i < ini->count; i++) {
        if (ini->lines[i].key[0] != '\0')
            continue;
        fprintf(file, "[%s]\n", ini->lines[i].section);
        for (uint32_t j = 0; j < ini->count; j++)
            if (ini->lines[j].key[0] != '\0' &&
                !strcmp(ini->lines[j].section, ini->lines[i].section))
                fprintf(file, "%s = %s\n", ini->lines[j].key, ini->lines[j].value);
    }
    CHECK(fclose(file) == 0, "%s: %s", path, strerror(errno));
}
