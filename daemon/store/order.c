/* SPDX-License-Identifier: Apache-2.0
 *
 * Sorting of slots by a number, for store_attach(): by the order of their stamps, by where their
 * bytes lie, by the hash of a name.
 *
 * Radix sort, lowest byte first (Knuth, "The Art of Computer Programming", vol. 3, 5.2.5): linear,
 * so that a store of a million samples is attached within a second, and stable. A byte in which all
 * keys agree needs no pass; numbers that are counted up from 1 differ in their three or four lowest
 * bytes only.
 */
#include <string.h>

#include "store/store_internal.h"

#define DIGITS        256u
#define FEW           48u /* below that, insertion costs less than a table of counts */
#define DIGIT(key, s) ((key) >> (s) & (DIGITS - 1))

static void order_insert(struct keyed *items, size_t count) {
    for (size_t i = 1; i < count; i++) {
        struct keyed item = items[i];
        size_t at = i;
        for (; at && items[at - 1].key > item.key; at--)
            items[at] = items[at - 1];
        items[at] = item;
    }
}

/* One pass: counts how often each digit occurs, hence where the first item with it goes. */
static void order_pass(const struct keyed *from, struct keyed *to, size_t count, unsigned shift) {
    size_t place[DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < count; i++)
        place[DIGIT(from[i].key, shift)]++;
    for (size_t d = 0; d < DIGITS; d++) {
        size_t here = place[d];
        place[d] = sum;
        sum += here;
    }
    for (size_t i = 0; i < count; i++)
        to[place[DIGIT(from[i].key, shift)]++] = from[i];
}

void keyed_sort(struct keyed *items, struct keyed *spare, size_t count) {
    struct keyed *from = items, *to = spare;
    uint64_t differ = 0;
    if (count < FEW) {
        order_insert(items, count);
        return;
    }
    for (size_t i = 1; i < count; i++)
        differ |= items[i].key ^ items[0].key;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        if (!DIGIT(differ, shift))
            continue;
        order_pass(from, to, count, shift);
        struct keyed *was = from;
        from = to;
        to = was;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}
