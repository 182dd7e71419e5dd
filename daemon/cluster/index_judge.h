/* SPDX-License-Identifier: Apache-2.0
 *
 * Does what a node holds of one sample agree with the index, and if not, what is wrong and what
 * mends it? Pure.
 */
#ifndef FEATURED_BROKER_INDEX_JUDGE_H
#define FEATURED_BROKER_INDEX_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "directory/directory.h"

/* What a node holds of a sample at one moment. */
struct index_facts {
    uint64_t held; /* the RESIDENT generation at home there, 0 = none */
    bool moving;   /* a put, or a write of its record, is under way */
};

/* before, after: this node's facts around the reading of the record, so that what did not change in
 * between is known to have held while it was read. node, incarnation: whose facts they are. record:
 * valid with DIRECTORY_OK and _LOST. */
Fb__Finding index_judge(const struct index_facts *before, const struct index_facts *after,
                        enum directory_result result, const struct directory_record *record,
                        const char *node, uint64_t incarnation);
/* The same without a node: is the record's home dead? */
Fb__Finding index_judge_record(enum directory_result result);

/* What is wrong: one sentence. record NULL = none. */
void index_say(char *out, size_t out_bytes, Fb__Finding finding, const char *store,
               const char *sample_id, const char *node, uint64_t held,
               const struct directory_record *record);
/* What --repair does about it; "" = nothing. */
void index_say_remedy(char *out, size_t out_bytes, Fb__Finding finding, const char *node);

#endif
