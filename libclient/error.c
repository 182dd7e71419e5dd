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

/* The word of a status, by its number; NULL in a gap. */
#define ERROR_WORD(constant, word, number, meaning) [number] = #word,
static const char *const words[] = {"OK", FEATURE_STATUSES(ERROR_WORD)};

static bool error_is_known(int error) {
    return error <= 0 && -(size_t)error < sizeof words / sizeof *words && words[-error];
}

const char *feature_strerror(int error) {
    return error_is_known(error) ? words[-error] : "UNKNOWN";
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

/* The sentence is made first and escaped as a whole afterwards. So nobody who writes a format has
 * to think of what is in its arguments, and a new sentence cannot forget it. */
void fc_sentence(char out[FC_SENTENCE_BYTES], const char *format, va_list arguments) {
    char sentence[FC_SENTENCE_BYTES];
    vsnprintf(sentence, sizeof sentence, format, arguments);
    text_escape(out, FC_SENTENCE_BYTES, sentence, strlen(sentence));
}

/* The sentence is made on the stack and then copied, so that it may quote the thread's own last
 * one. */
int fc_fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fc_sentence(last_sentence, format, arguments);
    va_end(arguments);
    return error;
}

/* The broker's own sentence is passed on as it is: it knows the limit, the store and who holds
 * what. Ours would only say which call failed. */
int fc_fail_status(Fb__Status status, const char *sentence, const char *what) {
    /* One that came later than this library has a sentence all the same. */
    const bool known = status != FB__STATUS__OK && error_is_known(-(int)status);
    const int error = known ? -(int)status : FEATURE_E_INTERNAL;
    if (sentence && *sentence)
        return fc_fail(error, "%s", sentence);
    return fc_fail(error, "%s: the broker answered %s", what, feature_strerror(error));
}

/* A batch goes on after a failure, and each later failure overwrites the thread's sentence. The
 * caller looks at the first one; later ones often follow from it ("the connection was lost"). */
void fc_first_error_note(struct fc_first_error *first, int error) {
    if (error == FEATURE_OK || first->error != FEATURE_OK)
        return;
    first->error = error;
    memcpy(first->sentence, last_sentence, sizeof first->sentence);
}

/* Brings the sentence back in front of the caller. */
int fc_first_error_raise(const struct fc_first_error *first) {
    if (first->error != FEATURE_OK)
        memcpy(last_sentence, first->sentence, sizeof last_sentence);
    return first->error;
}
