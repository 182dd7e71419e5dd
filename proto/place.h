/* SPDX-License-Identifier: Apache-2.0
 *
 * Where bytes are. Every part of the broker that says where the bytes of a sample lie says it with
 * this type, so that another kind of memory is one more tier and not one more pair of numbers in
 * each function. An example: the bytes of a sample on another node are at
 *
 *     { .tier = PLACE_MEMORY, .segment = 3, .offset = 4096, .bytes = 65536 }
 *
 * which is 64 KiB from byte 4096 of that node's region 3.
 */
#ifndef FEATURED_PROTO_PLACE_H
#define FEATURED_PROTO_PLACE_H

#include <stdint.h>

/* What kind of memory it is. */
enum place_tier {
    PLACE_MEMORY, /* an arena: mapped here, or registered for others to read */
};

struct place {
    enum place_tier tier;
    /* Which of its owner's segments. Of another broker: the number of the region that it has
     * registered. Of a store of this node, which has one arena: 0. */
    uint32_t segment;
    uint64_t offset; /* from the segment's beginning */
    uint64_t bytes;
};

#endif
