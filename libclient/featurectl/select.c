/* SPDX-License-Identifier: Apache-2.0
 *
 * No state.
 *
 * Which samples a command works on: arguments (refs or STORE/SAMPLE) and the lines of
 * --manifest, of which --id picks one. Both may be given. After a failure the list is empty and
 * the user has been told.
 */
#include "featurectl/select.h"

#include <stdlib.h>

#include "featurectl/manifest.h"
#include "featurectl/memory.h"

/* Stops at the first that is wrong: nothing has been done yet, and a command line is easily
 * mended.
 */
static int select_add_arguments(struct context *context, struct targets *out, char *why,
                                size_t why_bytes) {
    for (size_t i = 0; i < context->options.argument_count; i++) {
        const char *text = context->options.arguments[i];
        int status = refs_add(out, text, why, why_bytes);
        if (status)
            return context_refuse(context, status, text, "%s", why);
    }
    return FEATURE_OK;
}

struct saying {
    struct context *context;
    const char *manifest;
};

/* As compilers do: FILE:LINE, so that editors can jump there. Line 0 is about the file as a
 * whole.
 */
static void select_say_line(void *user, size_t line, const char *why) {
    struct saying *saying = user;
    char *object =
        line ? memory_print("%s:%zu", saying->manifest, line) : memory_copy(saying->manifest);
    context_warn(saying->context, object, "%s", why);
    free(object);
}

/* Without any target it is a mistake in the command line, and not an empty success. */
int select_targets(struct context *context, struct targets *out) {
    char why[512];
    *out = (struct targets){0};
    const char *manifest = options_text(&context->options, "manifest", NULL);
    const char *id = options_text(&context->options, "id", NULL);
    int status = select_add_arguments(context, out, why, sizeof why);
    if (!status && manifest) {
        struct saying saying = {context, manifest};
        status = manifest_read(out, manifest, id, select_say_line, &saying, why, sizeof why);
        if (status)
            context_refuse(context, status, manifest, "%s", why);
    } else if (!status && id) {
        status = context_refuse(context, CTL_E_USAGE, NULL, "--id needs --manifest");
    } else if (!status && out->count == 0) {
        status = context_refuse(context, CTL_E_USAGE, NULL, "no REF and no --manifest given");
    }
    if (status)
        refs_free(out);
    return status;
}

/* For commands that work on one sample alone. */
int select_target(struct context *context, struct targets *out) {
    int status = select_targets(context, out);
    if (status || out->count == 1)
        return status;
    context_refuse(context, CTL_E_USAGE, NULL,
                   "%zu refs given where one is wanted: name it with --id", out->count);
    refs_free(out);
    return CTL_E_USAGE;
}
