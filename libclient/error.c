/* SPDX-License-Identifier: Apache-2.0
 *
 * The sentence is thread-local, like errno: no lock, and no thread sees another's failure.
 * It is printable UTF-8 whatever names and answers it quotes.
 */
#include "error.h"

#include <stdio.h>
#include <string.h>

#include "proto/text.h"

static _Thread_local char last_sentence[FC_SENTENCE_BYTES];

static const char *const words[] = {
    "OK",      "INVALID",     "DENIED", "NOT_FOUND", "EXISTS",      "FULL",
    "TIMEOUT", "UNAVAILABLE", "LOST",   "CORRUPT",   "UNSUPPORTED", "INTERNAL",
};

const char *feature_strerror(int error) {
    size_t index = error <= 0 ? -(size_t)error : SIZE_MAX;
    return index < sizeof words / sizeof *words ? words[index] : "UNKNOWN";
}

const char *feature_last_error(void) {
    return last_sentence;
}

const char *feature_version(void) {
    return FEATURED_VERSION;
}

uint32_t feature_version_number(void) {
    return FEATURE_VERSION_NUMBER;
}

void fc_sentence(char out[FC_SENTENCE_BYTES], const char *format, va_list arguments) {
    char sentence[FC_SENTENCE_BYTES];
    vsnprintf(sentence, sizeof sentence, format, arguments);
    text_escape(out, FC_SENTENCE_BYTES, sentence, strlen(sentence));
}

int fc_fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fc_sentence(last_sentence, format, arguments);
    va_end(arguments);
    return error;
}

int fc_fail_status(Fb__Status status, const char *sentence, const char *what) {
    int error = status > FB__STATUS__OK && status <= FB__STATUS__INTERNAL ? -(int)status
                                                                          : FEATURE_E_INTERNAL;
    if (sentence && *sentence)
        return fc_fail(error, "%s", sentence);
    return fc_fail(error, "%s: the broker answered %s", what, feature_strerror(error));
}

void fc_first_error_note(struct fc_first_error *first, int error) {
    if (error == FEATURE_OK || first->error != FEATURE_OK)
        return;
    first->error = error;
    memcpy(first->sentence, last_sentence, sizeof first->sentence);
}

int fc_first_error_raise(const struct fc_first_error *first) {
    if (first->error != FEATURE_OK)
        memcpy(last_sentence, first->sentence, sizeof last_sentence);
    return first->error;
}
