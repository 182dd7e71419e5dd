/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol's enums as people and JSON read them: "on-release", "resident". Pure.
 */
#ifndef FEATURED_CTL_WORDS_H
#define FEATURED_CTL_WORDS_H

#include "common.pb-c.h"

#define WORDS_ROOM 32

/* The enum's own name in lower case with hyphens; "7?" for a number it does not have. */
char *words_enum(const ProtobufCEnumDescriptor *descriptor, int value, char out[WORDS_ROOM]);
/* "" when there is no reason. */
char *words_reason(Fb__Reason reason, char out[WORDS_ROOM]);

#endif
