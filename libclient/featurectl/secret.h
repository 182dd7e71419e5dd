/* SPDX-License-Identifier: Apache-2.0
 *
 * A store's secret from a file, under the same rules as the daemon's own secret files.
 */
#ifndef FEATURED_CTL_SECRET_H
#define FEATURED_CTL_SECRET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SECRET_BYTES_MIN 16u
#define SECRET_BYTES_MAX 4096u

/* Bytes read (a trailing newline is dropped), or -errno with a sentence: the file must be regular
 * and private (secret_file.h), and hold 16 to 4096 bytes. The caller wipes `out`. */
ssize_t secret_read(const char *path, uint8_t out[SECRET_BYTES_MAX], char *why, size_t why_bytes);

#endif
