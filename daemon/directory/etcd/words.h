/* SPDX-License-Identifier: Apache-2.0
 *
 * What etcd and libcurl say in words, made fit for a log and for a sentence: short, on one line, of
 * printable characters. Pure.
 */
#ifndef FEATURED_DIRECTORY_ETCD_WORDS_H
#define FEATURED_DIRECTORY_ETCD_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#define ETCD_WORDS_BYTES 200u /* of foreign text, at most */
#define ETCD_WHY_BYTES   512u /* of a sentence with an endpoint and such a text in it */

/* Said of an endpoint that has closed the connection and has never said anything: it may be one
 * that speaks TLS, or does not. */
#define ETCD_HANGS_UP "refuses, it seems: it hangs up without a word"

/* The first line of the text, cut to ETCD_WORDS_BYTES; what is not printable ASCII becomes '?'. */
void etcd_words(char out[ETCD_WORDS_BYTES], const char *text, size_t text_bytes);
/* A connection that failed with these words of libcurl's was refused, and will be again: a
 * certificate of one side is not what the other accepts, or one side speaks TLS and the other does
 * not. Else the endpoint may just be away. */
bool etcd_words_of_refusal(int curl_code, const char *words);

/* The same of an endpoint that has never answered and hangs up without a word: as the middle of a
 * sentence. secured: after the TLS handshake. NULL: it has done something else. */
const char *etcd_words_of_hang_up(int curl_code, const char *endpoint, bool secured);
/* What to do about a refusal in these words, as the end of a sentence; "" when nothing is known. */
const char *etcd_words_advice(const char *words);

#endif
