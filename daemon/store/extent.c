/* SPDX-License-Identifier: Apache-2.0
 *
 * Two-level segregated fit (Masmano, Ripoll, Crespo, Real: "TLSF: a new dynamic memory allocator
 * for real-time systems", ECRTS 2004) with 32 second-level classes, that is holes sorted to 3 % of
 * their size.
 *
 * How it works: holes are sorted into classes by size, with one list per class. Two levels of bit
 * maps say which classes have holes, so that the first class at or above a size is found with two
 * instructions that count zeros. Taking and freeing an extent is O(1), however many there are.
 *
 * Unlike the original, the request's own class is searched too, so that a hole that fits is never
 * missed; and nothing is rounded up to a class, so that no byte is lost inside an extent. Both
 * matter here: a store is filled to its quota with samples of many MiB, and a put that is refused
 * although its bytes are there is a fault that users see.
 *
 * Invariants: nodes form one list by address that covers the region without gaps or overlap; two
 * free nodes are never neighbours; a free node is in the list of its class, and a class's bit is
 * set exactly when its list is not empty. A region of N extents has at most N + 1 holes, hence 2 N
 * + 1 nodes.
 */
#include "store/extent.h"

#include <stdbool.h>
#include <string.h>

#define UNIT_SHIFT  6u
#define ROW_BITS    5u
#define ROW_CLASSES (1u << ROW_BITS)
#define ROWS        40u /* row 0 is linear; row r holds sizes of 2^(r+4) units: up to 2^50 bytes */
#define USED        1ull
/* Placement: the lowest of the holes that are at most an eighth larger than the tightest one.
 * Simulated under churn of 64 KiB to 64 MiB, this fills 4 % more of the region before the first
 * refusal than best fit or lowest fit. To stay O(1) at most LOOK_FIRST holes of a class are tried;
 * the complete search comes last. */
#define TIGHT_CLASSES 4u
#define LOOK_FIRST    4u

struct node {
    uint64_t offset;
    uint64_t bytes;                /* lowest bit: USED */
    uint32_t prev, next;           /* by address */
    uint32_t free_prev, free_next; /* in the class's list while free; free_next links spare nodes */
};

struct extent_map {
    uint64_t base_offset, region_bytes, used_bytes;
    uint32_t capacity, touched; /* nodes; [touched, capacity) were never used */
    uint32_t spare, first;
    uint64_t row_bits;
    uint32_t class_bits[ROWS];
    uint32_t heads[ROWS * ROW_CLASSES];
    struct node nodes[];
};

/* Sizes are multiples of 64, so that the lowest bit is free to say whether a node is in use. */
static uint64_t extent_node_bytes(const struct node *node) {
    return node->bytes & ~USED;
}

static bool extent_node_used(const struct node *node) {
    return node->bytes & USED;
}

/* Below 32 units (2 KiB) each size has a class of its own. Above, a size's row is the place of its
 * highest bit, and the next 5 bits are its class in the row.
 *   Example: 100 units = 1100100b. The highest bit is number 6, so the row is 2, and the five bits
 *   behind the first one are 10010b = 18: class 2 * 32 + 18. */
static uint32_t extent_class_of(uint64_t bytes) {
    uint64_t units = bytes >> UNIT_SHIFT;
    if (units < ROW_CLASSES)
        return (uint32_t)units;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(units) - ROW_BITS;
    return (shift + 1) * ROW_CLASSES + (uint32_t)((units >> shift) & (ROW_CLASSES - 1));
}

/* First class >= from that has a hole, or EXTENT_NONE. First the rest of from's own row, then the
 * next row that has any: two look-ups, whatever the distance. */
static uint32_t extent_next_class(const struct extent_map *map, uint32_t from) {
    uint32_t row = from / ROW_CLASSES;
    if (row >= ROWS)
        return EXTENT_NONE;
    uint32_t bits = map->class_bits[row] & (~0u << (from % ROW_CLASSES));
    if (!bits) {
        uint64_t rows = map->row_bits & (~0ull << row) & ~(1ull << row);
        if (!rows)
            return EXTENT_NONE;
        row = (uint32_t)__builtin_ctzll(rows);
        bits = map->class_bits[row];
    }
    return row * ROW_CLASSES + (uint32_t)__builtin_ctz(bits);
}

/* New holes go to the front of their list, which is the place that costs nothing to find. */
static void extent_hole_insert(struct extent_map *map, uint32_t index) {
    struct node *node = &map->nodes[index];
    uint32_t class = extent_class_of(node->bytes);
    node->free_prev = EXTENT_NONE;
    node->free_next = map->heads[class];
    if (node->free_next != EXTENT_NONE)
        map->nodes[node->free_next].free_prev = index;
    map->heads[class] = index;
    map->class_bits[class / ROW_CLASSES] |= 1u << (class % ROW_CLASSES);
    map->row_bits |= 1ull << (class / ROW_CLASSES);
}

static void extent_hole_remove(struct extent_map *map, uint32_t index) {
    struct node *node = &map->nodes[index];
    uint32_t class = extent_class_of(node->bytes), row = class / ROW_CLASSES;
    if (node->free_next != EXTENT_NONE)
        map->nodes[node->free_next].free_prev = node->free_prev;
    if (node->free_prev != EXTENT_NONE)
        map->nodes[node->free_prev].free_next = node->free_next;
    else
        map->heads[class] = node->free_next;
    if (map->heads[class] != EXTENT_NONE)
        return;
    map->class_bits[row] &= ~(1u << (class % ROW_CLASSES));
    if (!map->class_bits[row])
        map->row_bits &= ~(1ull << row);
}

/* A spare node, else one that was never used. extent_alloc() has checked that two can be had. */
static uint32_t extent_node_take(struct extent_map *map) {
    uint32_t index = map->spare;
    if (index == EXTENT_NONE)
        return map->touched++;
    map->spare = map->nodes[index].free_next;
    return index;
}

static void extent_node_give(struct extent_map *map, uint32_t index) {
    map->nodes[index] = (struct node){.free_next = map->spare};
    map->spare = index;
}

/* With at most max_extents in use there are always enough nodes (extent_map_bytes()); this is for a
 * caller that takes more extents than that. */
static bool extent_nodes_left(const struct extent_map *map) {
    return map->capacity - map->touched >= 2 || map->spare != EXTENT_NONE;
}

/* 2 N + 1 nodes (above), and the two that extent_nodes_left() wants to see. */
size_t extent_map_bytes(uint32_t max_extents) {
    size_t bytes = sizeof(struct extent_map) + (2 * (size_t)max_extents + 3) * sizeof(struct node);
    return (bytes + 63) & ~(size_t)63;
}

struct extent_map *extent_init(void *memory, uint64_t base_offset, uint64_t region_bytes,
                               uint32_t max_extents) {
    struct extent_map *map = memory;
    map->base_offset = base_offset;
    map->region_bytes = region_bytes;
    map->used_bytes = 0;
    map->capacity = 2 * max_extents + 3;
    map->touched = 0;
    map->spare = EXTENT_NONE;
    map->first = EXTENT_NONE;
    map->row_bits = 0;
    memset(map->class_bits, 0, sizeof map->class_bits);
    for (uint32_t i = 0; i < ROWS * ROW_CLASSES; i++)
        map->heads[i] = EXTENT_NONE;
    if (!region_bytes)
        return map;
    map->first = extent_node_take(map);
    map->nodes[map->first] = (struct node){
        .offset = base_offset, .bytes = region_bytes, .prev = EXTENT_NONE, .next = EXTENT_NONE};
    extent_hole_insert(map, map->first);
    return map;
}

static uint64_t extent_align_up(uint64_t value, uint64_t align) {
    return (value + align - 1) & ~(align - 1);
}

/* The alignment may cost up to align - 64 bytes at the beginning of the hole. */
static bool extent_fits(const struct node *node, uint64_t bytes, uint32_t align) {
    return extent_align_up(node->offset, align) + bytes <= node->offset + node->bytes;
}

/* The lowest fitting hole of a class, or *best if that lies lower; at most *look holes are tried.
 * Low places first keeps the upper end of the region free in one piece, for what is large. */
static void extent_search_class(const struct extent_map *map, uint32_t class, uint64_t bytes,
                                uint32_t align, uint32_t *look, uint32_t *best) {
    for (uint32_t i = map->heads[class]; i != EXTENT_NONE && *look; i = map->nodes[i].free_next) {
        const struct node *node = &map->nodes[i];
        --*look;
        if (extent_fits(node, bytes, align) &&
            (*best == EXTENT_NONE || node->offset < map->nodes[*best].offset))
            *best = i;
    }
}

/* The lowest hole among those that waste least, in the tightest class that has one and in a few
 * above it. In classes above the request's own every hole fits but for the alignment. */
static uint32_t extent_search_tight(const struct extent_map *map, uint32_t from, uint64_t bytes,
                                    uint32_t align) {
    uint32_t best = EXTENT_NONE, last = EXTENT_NONE - 1;
    for (uint32_t c = extent_next_class(map, from); c <= last; c = extent_next_class(map, c + 1)) {
        uint32_t look = LOOK_FIRST;
        bool first = best == EXTENT_NONE;
        extent_search_class(map, c, bytes, align, &look, &best);
        if (first && best != EXTENT_NONE)
            last = c + TIGHT_CLASSES;
    }
    return best;
}

/* Every hole of the classes whose holes may or may not fit, so that none is missed. This is
 * O(holes) and comes only when the quick search found nothing, that is when the region is nearly
 * full. */
static uint32_t extent_search_all(const struct extent_map *map, uint32_t from, uint64_t bytes,
                                  uint32_t align) {
    uint32_t best = EXTENT_NONE, look = UINT32_MAX;
    uint32_t last = extent_class_of(bytes + align - EXTENT_UNIT_BYTES);
    for (uint32_t c = extent_next_class(map, from); c <= last; c = extent_next_class(map, c + 1))
        extent_search_class(map, c, bytes, align, &look, &best);
    return best;
}

static uint32_t extent_search(const struct extent_map *map, uint64_t bytes, uint32_t align) {
    uint32_t from = extent_class_of(bytes);
    uint32_t found = extent_search_tight(map, from, bytes, align);
    return found != EXTENT_NONE ? found : extent_search_all(map, from, bytes, align);
}

/* Cuts the node in two at `offset`; the part behind becomes a new node, which is returned. Neither
 * is put into a class list. */
static uint32_t extent_split(struct extent_map *map, uint32_t index, uint64_t offset) {
    uint32_t behind = extent_node_take(map);
    struct node *node = &map->nodes[index];
    map->nodes[behind] = (struct node){.offset = offset,
                                       .bytes = node->offset + node->bytes - offset,
                                       .prev = index,
                                       .next = node->next};
    if (node->next != EXTENT_NONE)
        map->nodes[node->next].prev = behind;
    node->next = behind;
    node->bytes = offset - node->offset;
    return behind;
}

/* The hole leaves its list; what is not needed of it, before the start and behind the end, goes
 * back as holes of their own. */
static uint32_t extent_cut(struct extent_map *map, uint32_t index, uint64_t start, uint64_t bytes) {
    extent_hole_remove(map, index);
    if (start > map->nodes[index].offset) {
        uint32_t before = index;
        index = extent_split(map, before, start);
        extent_hole_insert(map, before);
    }
    if (map->nodes[index].bytes > bytes)
        extent_hole_insert(map, extent_split(map, index, start + bytes));
    map->nodes[index].bytes |= USED;
    map->used_bytes += bytes;
    return index;
}

uint32_t extent_alloc(struct extent_map *map, uint64_t bytes, uint32_t align_bytes,
                      uint64_t *offset_out) {
    bytes = extent_align_up(bytes ? bytes : 1, EXTENT_UNIT_BYTES);
    if (bytes > map->region_bytes || !extent_nodes_left(map))
        return EXTENT_NONE;
    uint32_t index = extent_search(map, bytes, align_bytes);
    if (index == EXTENT_NONE)
        return EXTENT_NONE;
    *offset_out = extent_align_up(map->nodes[index].offset, align_bytes);
    return extent_cut(map, index, *offset_out, bytes);
}

/* All that is free behind the last extent is one hole, and the new one lies in it. */
uint32_t extent_place(struct extent_map *map, uint32_t last, uint64_t offset, uint64_t bytes) {
    uint32_t hole = last == EXTENT_NONE ? map->first : map->nodes[last].next;
    return extent_cut(map, hole, offset, bytes);
}

/* Joins `behind` to the node before it. Neither is in a class list. */
static void extent_absorb(struct extent_map *map, uint32_t index, uint32_t behind) {
    struct node *node = &map->nodes[index];
    node->bytes += map->nodes[behind].bytes;
    node->next = map->nodes[behind].next;
    if (node->next != EXTENT_NONE)
        map->nodes[node->next].prev = index;
    extent_node_give(map, behind);
}

/* Joins the freed extent with the holes on both sides at once. So two holes are never neighbours,
 * and the largest hole is really as large as it looks. */
void extent_free(struct extent_map *map, uint32_t extent) {
    struct node *node = &map->nodes[extent];
    node->bytes = extent_node_bytes(node);
    map->used_bytes -= node->bytes;
    uint32_t next = node->next, prev = node->prev;
    if (next != EXTENT_NONE && !extent_node_used(&map->nodes[next])) {
        extent_hole_remove(map, next);
        extent_absorb(map, extent, next);
    }
    if (prev != EXTENT_NONE && !extent_node_used(&map->nodes[prev])) {
        extent_hole_remove(map, prev);
        extent_absorb(map, prev, extent);
        extent = prev;
    }
    extent_hole_insert(map, extent);
}

/* The largest hole is in the highest class that has any; within a class the sizes differ by up to 3
 * %, so its list is walked. */
uint64_t extent_largest_free(const struct extent_map *map) {
    if (!map->row_bits)
        return 0;
    uint32_t row = 63u - (uint32_t)__builtin_clzll(map->row_bits);
    uint32_t class = row * ROW_CLASSES + 31u - (uint32_t)__builtin_clz(map->class_bits[row]);
    uint64_t largest = 0;
    for (uint32_t i = map->heads[class]; i != EXTENT_NONE; i = map->nodes[i].free_next)
        if (map->nodes[i].bytes > largest)
            largest = map->nodes[i].bytes;
    return largest;
}

uint64_t extent_used_bytes(const struct extent_map *map) {
    return map->used_bytes;
}

uint64_t extent_offset(const struct extent_map *map, uint32_t extent) {
    return map->nodes[extent].offset;
}

uint64_t extent_bytes(const struct extent_map *map, uint32_t extent) {
    return extent_node_bytes(&map->nodes[extent]);
}

/* Walks all nodes by address: they cover the region, and no two holes stand side by side. */
static const char *extent_audit_addresses(const struct extent_map *map, uint64_t *holes_out) {
    uint64_t at = map->base_offset, used = 0;
    uint32_t prev = EXTENT_NONE;
    bool prev_free = false;
    *holes_out = 0;
    for (uint32_t i = map->first; i != EXTENT_NONE; prev = i, i = map->nodes[i].next) {
        const struct node *node = &map->nodes[i];
        if (node->offset != at || !extent_node_bytes(node) || node->prev != prev)
            return "extents overlap, leave a gap or are linked wrongly";
        if (!extent_node_used(node) && prev_free)
            return "two holes side by side were not joined";
        prev_free = !extent_node_used(node);
        *holes_out += prev_free;
        used += prev_free ? 0 : extent_node_bytes(node);
        at += extent_node_bytes(node);
    }
    if (at != map->base_offset + map->region_bytes)
        return "extents do not cover the region";
    return used == map->used_bytes ? NULL : "used bytes do not add up";
}

const char *extent_audit(const struct extent_map *map) {
    uint64_t holes, listed = 0;
    const char *wrong = extent_audit_addresses(map, &holes);
    if (wrong)
        return wrong;
    for (uint32_t c = 0; c < ROWS * ROW_CLASSES; c++) {
        bool marked = map->class_bits[c / ROW_CLASSES] >> (c % ROW_CLASSES) & 1;
        if (marked != (map->heads[c] != EXTENT_NONE))
            return "a class bit disagrees with its list";
        for (uint32_t i = map->heads[c]; i != EXTENT_NONE; i = map->nodes[i].free_next, listed++)
            if (extent_node_used(&map->nodes[i]) || extent_class_of(map->nodes[i].bytes) != c)
                return "a hole is in the wrong class list";
    }
    return listed == holes ? NULL : "a hole is in no class list";
}
