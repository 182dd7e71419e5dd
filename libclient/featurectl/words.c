/* SPDX-License-Identifier: Apache-2.0
 *
 * Words come from the .proto files, so that a new value has a word at once.
 */
#include "featurectl/words.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

char *words_enum(const ProtobufCEnumDescriptor *descriptor, int value, char out[WORDS_ROOM]) {
    const ProtobufCEnumValue *entry = protobuf_c_enum_descriptor_get_value(descriptor, value);
    if (!entry) {
        snprintf(out, WORDS_ROOM, "%d?", value);
        return out;
    }
    /* "FB__SAMPLE_STATE__NEVER_SEEN": the word stands behind the name of the enum. */
    const char *word = strstr(entry->c_name + strlen("FB__"), "__");
    snprintf(out, WORDS_ROOM, "%s", word ? word + strlen("__") : entry->c_name);
    for (char *c = out; *c; c++)
        *c = *c == '_' ? '-' : (char)tolower((unsigned char)*c);
    return out;
}

char *words_reason(Fb__Reason reason, char out[WORDS_ROOM]) {
    out[0] = '\0';
    return reason == FB__REASON__NONE ? out : words_enum(&fb__reason__descriptor, (int)reason, out);
}
