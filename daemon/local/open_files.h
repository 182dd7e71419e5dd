/* SPDX-License-Identifier: Apache-2.0
 *
 * The last of the descriptors that this process may open (RLIMIT_NOFILE) are kept for admins, and
 * for what the broker opens itself. The kernel gives out the lowest number that is free: a new
 * descriptor at or above the line tells that all below it are in use, without counting them.
 */
#ifndef FEATURED_LOCAL_OPEN_FILES_H
#define FEATURED_LOCAL_OPEN_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This new descriptor is one of the last. */
bool open_files_is_kept(int fd);
/* So many of the last may be held by clients that are told why they may not come in. */
uint32_t open_files_refusals(void);
/* For who is refused one of the last. */
void open_files_sentence(char *out, size_t out_bytes);

#endif
