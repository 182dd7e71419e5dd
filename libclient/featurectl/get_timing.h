/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the time of one get went, as this program saw it.
 */
#ifndef FEATURED_CTL_GET_TIMING_H
#define FEATURED_CTL_GET_TIMING_H

#include <stdint.h>

#include "featurectl/context.h"

enum get_phase {
    GET_CONNECT,  /* to the broker's socket, hello */
    GET_OPEN,     /* the store: its secret, its memory mapped */
    GET_ASK,      /* until the lease, or until the first bytes of another node */
    GET_TRANSFER, /* while bytes came from another node */
    GET_VERIFY,   /* the rest of the checksums, and the lease of a sample that has come */
    GET_WRITE,    /* the file, from the mapping */
    GET_SYNC,     /* until the disk has it under its name */
    GET_RELEASE,  /* of the lease, until the broker has heard of it */
    GET_PHASES
};

/* Begun at 0; each phase lasts from the one before it to the time that it is given. */
struct get_timing {
    uint64_t begun_ns;
    uint64_t end_ns[GET_PHASES]; /* 0 = there was no such phase */
};

/* The phase ends now. */
void get_timing_end(struct get_timing *timing, enum get_phase phase);
/* {"connect_us": 120, ..., "total_us": 4000}; a phase that was not is null. */
json_t *get_timing_json(const struct get_timing *timing);
/* A table for people. */
void get_timing_print(const struct get_timing *timing, FILE *out);

#endif
