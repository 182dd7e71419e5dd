/* SPDX-License-Identifier: Apache-2.0
 *
 * Does the configuration fit what this process may use? Limits of the control group and of the
 * process end a broker in ways that leave no line: SIGKILL as the stores fill, an abort in a
 * library that gets no memory. So they are looked at before anything is built.
 */
#ifndef FEATURED_ENVIRONMENT_H
#define FEATURED_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "host/cgroup.h"

#define ENVIRONMENT_SENTENCE_BYTES 1024

struct environment_need {
    uint64_t arena_bytes;    /* max_resident_bytes + landing_bytes of every [store] */
    uint64_t overhead_bytes; /* the broker beside them: buffers, index of full stores */
    uint64_t address_bytes;  /* of address space: arenas, the index at its largest, the rest */
};

enum environment_verdict {
    ENVIRONMENT_FITS,
    ENVIRONMENT_TIGHT, /* goes on; the sentence says what may happen */
    ENVIRONMENT_TOO_SMALL,
};

void environment_need(const struct config *config, struct environment_need *out);

/* ---- pure; a sentence (ENVIRONMENT_SENTENCE_BYTES) unless it fits; with a limit, also then ----
 */
enum environment_verdict environment_judge_memory(const struct config *config,
                                                  const struct cgroup_limits *limits,
                                                  char *sentence);
/* limit: RLIMIT_AS; UINT64_MAX = none. */
enum environment_verdict environment_judge_address_space(const struct config *config,
                                                         uint64_t limit_bytes, char *sentence);
/* limit: RLIMIT_NOFILE. */
enum environment_verdict environment_judge_files(const struct config *config, uint64_t limit,
                                                 char *sentence);

/* limit: RLIMIT_FSIZE, which holds for memfds too. */
enum environment_verdict environment_judge_file_size(const struct config *config,
                                                     uint64_t limit_bytes, char *sentence);

/* Looks at all of it and raises the soft limit of open files to the hard one. say() gets each
 * sentence worth knowing, and whether it is a warning. 0, or -ENOMEM with the sentence in why: the
 * broker could not live here. */
int environment_check(const struct config *config, void (*say)(bool warning, const char *sentence),
                      char *why, size_t why_bytes);
/* What the control group may use of memory in small pages; UINT64_MAX = no limit is known. */
uint64_t environment_memory_limit(const struct config *config);
/* What it leaves to arenas beside the broker, which may be less than nothing; INT64_MAX = no limit
 * is known. */
int64_t environment_room_for_arenas(const struct config *config);

#endif
