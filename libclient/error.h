/* SPDX-License-Identifier: Apache-2.0
 *
 * Statuses and the calling thread's sentence about its last failure.
 */
#ifndef FEATURED_LIBCLIENT_ERROR_H
#define FEATURED_LIBCLIENT_ERROR_H

#include <stdarg.h>

#include "common.pb-c.h"
#include "feature.h"

#define FC_SENTENCE_BYTES 512

/* A sentence as text_escape() shows it: what it quotes may be any bytes. */
void fc_sentence(char out[FC_SENTENCE_BYTES], const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
/* Keeps the sentence for feature_last_error() and returns `error`. */
int fc_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* In a public function: fails it with FEATURE_E_INVALID when an argument that it needs is NULL. */
#define FC_NEEDS(argument)                                                                         \
    do {                                                                                           \
        if (!(argument))                                                                           \
            return fc_fail(FEATURE_E_INVALID, "%s: %s is NULL", __func__, #argument);              \
    } while (0)
/* The broker's refusal as ours; `what` stands in when it sent no sentence. */
int fc_fail_status(Fb__Status status, const char *sentence, const char *what);

/* The first failure of a batch: later ones overwrite the thread's sentence, this brings it back. */
struct fc_first_error {
    int error;
    char sentence[FC_SENTENCE_BYTES];
};
void fc_first_error_note(struct fc_first_error *first, int error);
/* Its error, with its sentence as the thread's; FEATURE_OK when there was none. */
int fc_first_error_raise(const struct fc_first_error *first);

#endif
