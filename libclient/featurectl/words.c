/* SPDX-License-Identifier: Apache-2.0
 *
 * Words come from the .proto files, so that a new value has a word at once.
 */
#include "featurectl/words.h"

#include <ctype.h>
#include <stdio.h>

char *words_enum(const ProtobufCEnumDescriptor *descriptor, int value, char out[WORDS_ROOM]) {
    const ProtobufCEnumValue *entry = protobuf_c_enum_descriptor_get_value(descriptor, value);
    if (!entry) {
        snprintf(out, WORDS_ROOM, "%d?", value);
        return out;
    }
    snprintf(out, WORDS_ROOM, "%s", entry->name);
    for (char *c = out; *c; c++)
        *c = *c == '_' ? '-' : (char)tolower((unsigned char)*c);
    return out;
}

char *words_reason(Fb__Reason reason, char out[WORDS_ROOM]) {
    out[0] = '\0';
    return reason == FB__REASON__REASON_NONE
               ? out
               : words_enum(&fb__reason__descriptor, (int)reason, out);
}
