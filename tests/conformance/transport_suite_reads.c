/* SPDX-License-Identifier: Apache-2.0
 *
 * What every transport promises of reads (transport.h), over each implementation: all the bytes, in
 * their place, of what the home has registered and of nothing else.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/transport_world.h"

TRANSPORT_CASE(reads_are_bit_exact) {
    static const uint64_t sizes[] = {1, 4096, MIB + 1, 64 * MIB};
    suite_connect(s);
    suite_fill(s, MEMORY_BYTES);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t offset = 4097 * i + 1, end = offset + sizes[i];
        cr_assert_eq(suite_read(s, i, offset, sizes[i]), 0);
        WAIT_FOR(s, s->reads[i].done);
        cr_assert_eq(s->reads[i].status, 0);
        cr_assert(memcmp(s->a.memory + offset, s->b.memory + offset, sizes[i]) == 0);
        cr_assert_eq(s->a.memory[offset - 1], POISON);
        cr_assert_eq(s->a.memory[end], POISON);
        memset(s->a.memory + offset, POISON, sizes[i]);
    }
}

TRANSPORT_CASE(both_sides_read_at_once) {
    enum { BYTES = 8 * MIB };
    struct read back = {.link = NULL};
    suite_connect(s);
    suite_fill(s, 2 * BYTES);
    memset(s->a.memory + BYTES, 0x11, BYTES);
    back.link = s->ba;
    struct transport_read ask = {.key = s->a.key,
                                 .key_bytes = s->a.key_bytes,
                                 .remote_offset = BYTES,
                                 .bytes = BYTES,
                                 .local = s->b.memory + BYTES,
                                 .read_user = &back};
    cr_assert_eq(suite_read(s, 0, 0, BYTES), 0);
    cr_assert_eq(s->b.t->ops->read(s->ba->conn, &ask), 0);
    WAIT_FOR(s, s->reads[0].done && back.done);
    cr_assert(s->reads[0].status == 0 && back.status == 0);
    cr_assert(memcmp(s->a.memory, s->b.memory, 2 * BYTES) == 0);
}

TRANSPORT_CASE(more_reads_than_may_be_outstanding) {
    enum { BYTES = 100000 };
    suite_connect(s);
    suite_fill(s, READS_MAX * BYTES);
    for (size_t i = 0; i < READS_MAX; i++)
        cr_assert_eq(suite_read(s, i, i * BYTES, BYTES), 0);
    struct transport_info info;
    s->a.t->ops->query(s->ab->conn, &info);
    cr_assert_eq(info.reads_in_flight, READS_MAX);
    WAIT_FOR(s, s->ab->reads_done == READS_MAX);
    cr_assert_eq(s->ab->reads_failed, 0);
    cr_assert(memcmp(s->a.memory, s->b.memory, READS_MAX * BYTES) == 0);
}

TRANSPORT_CASE(small_read_overtakes_a_huge_one) {
    suite_connect(s);
    suite_fill(s, 72 * MIB);
    cr_assert_eq(suite_read(s, 0, 0, 64 * MIB), 0);
    WAIT_FOR(s, s->reads[0].bytes_done > 0);
    cr_assert_eq(suite_read(s, 1, 65 * MIB, 4096), 0);
    WAIT_FOR(s, s->reads[0].done && s->reads[1].done);
    cr_assert_lt(s->reads[1].finished_as, s->reads[0].finished_as);
    cr_assert(memcmp(s->a.memory, s->b.memory, 64 * MIB) == 0);
    cr_assert(memcmp(s->a.memory + 65 * MIB, s->b.memory + 65 * MIB, 4096) == 0);
}

TRANSPORT_CASE(message_is_not_delayed_by_a_huge_read) {
    suite_connect(s);
    suite_fill(s, 64 * MIB);
    cr_assert_eq(suite_read(s, 0, 0, 64 * MIB), 0);
    WAIT_FOR(s, s->reads[0].bytes_done > 0);
    cr_assert_eq(suite_send(s->ba, "now", 3), 0);
    WAIT_FOR(s, s->ab->messages == 1);
    cr_assert_not(s->reads[0].done);
    cr_assert_eq(suite_send(s->ab, "now", 3), 0);
    WAIT_FOR(s, s->ba->messages == 1);
    cr_assert_not(s->reads[0].done);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, 0);
}

static int read_range(struct suite *s, struct read *read, const uint8_t *key, size_t key_bytes,
                      uint64_t offset, uint64_t bytes) {
    *read = (struct read){.link = s->ab};
    struct transport_read ask = {.key = key,
                                 .key_bytes = key_bytes,
                                 .remote_offset = offset,
                                 .bytes = bytes,
                                 .local = s->a.memory,
                                 .read_user = read};
    return s->a.t->ops->read(s->ab->conn, &ask);
}

TRANSPORT_CASE(ranges_outside_the_region_are_refused) {
    static const struct {
        uint64_t offset, bytes;
    } ranges[] = {
        {MEMORY_BYTES, 1},
        {MEMORY_BYTES - 1, 2},
        {0, MEMORY_BYTES}, /* the whole is allowed */
        {UINT64_MAX, 1},
        {UINT64_MAX - 7, 16},
        {UINT64_MAX / 2 + 1, MEMORY_BYTES},
        {1, MEMORY_BYTES},
        {UINT64_MAX - MEMORY_BYTES + 1, MEMORY_BYTES},
    };
    suite_connect(s);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        struct read *read = &s->reads[i];
        cr_assert_eq(
            read_range(s, read, s->b.key, s->b.key_bytes, ranges[i].offset, ranges[i].bytes), 0);
        WAIT_FOR(s, read->done);
        cr_assert_eq(read->status, i == 2 ? 0 : -EINVAL, "range %zu: %d", i, read->status);
    }
    cr_assert_not(s->ab->closed);
}

TRANSPORT_CASE(unknown_keys_are_refused) {
    uint8_t key[TRANSPORT_KEY_BYTES_MAX] = {0};
    suite_connect(s);
    memcpy(key, s->b.key, s->b.key_bytes);
    key[s->b.key_bytes - 1] ^= 1;
    cr_assert_eq(read_range(s, &s->reads[0], key, s->b.key_bytes, 0, 4096), 0);
    cr_assert_eq(read_range(s, &s->reads[1], s->b.key, s->b.key_bytes - 1, 0, 4096), 0);
    cr_assert_eq(read_range(s, &s->reads[2], key, sizeof key, 0, 4096), 0);
    cr_assert_eq(read_range(s, &s->reads[3], key, sizeof key + 1, 0, 4096), -EINVAL);
    cr_assert_eq(read_range(s, &s->reads[3], key, 0, 0, 4096), -EINVAL);
    WAIT_FOR(s, s->ab->reads_done == 3);
    cr_assert_eq(s->ab->reads_failed, 3);
    cr_assert_not(s->ab->closed);
}

TRANSPORT_CASE(key_of_a_removed_region_does_not_open_the_next) {
    uint32_t region;
    suite_connect(s);
    s->b.t->ops->remove_region(s->b.t, s->b.region);
    cr_assert_eq(s->b.t->ops->add_region(s->b.t, s->b.memory, MEMORY_BYTES, &region), 0);
    cr_assert_eq(read_range(s, &s->reads[0], s->b.key, s->b.key_bytes, 0, 4096), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, -EINVAL);
}

TRANSPORT_CASE(key_of_one_connection_opens_nothing_on_another) {
    suite_connect(s);
    suite_fill(s, 4096);
    struct link *first = s->ab;
    s->ab = suite_dial(&s->a, s->b.address);
    WAIT_FOR(s, s->ab->up && s->b.link_count == 2);
    cr_assert_eq(suite_read(s, 0, 0, 4096), 0);
    WAIT_FOR(s, s->reads[0].done);
    cr_assert_eq(s->reads[0].status, -EINVAL);
    suite_take_key(&s->b.links[1]);
    cr_assert_eq(suite_read(s, 1, 0, 4096), 0);
    WAIT_FOR(s, s->reads[1].done);
    cr_assert_eq(s->reads[1].status, 0);
    s->ab = first;
    cr_assert_eq(suite_read(s, 2, 0, 4096), 0);
    WAIT_FOR(s, s->reads[2].done);
    cr_assert_eq(s->reads[2].status, -EINVAL);
    cr_assert_not(s->ab->closed);
}

TRANSPORT_CASE(region_keys_need_a_region_and_room) {
    uint8_t key[TRANSPORT_KEY_BYTES_MAX];
    uint32_t region;
    suite_connect(s);
    cr_assert_eq(s->a.t->ops->region_key(s->ab->conn, s->a.region + 100, key, sizeof key), -ENOENT);
    cr_assert_lt(s->a.t->ops->region_key(s->ab->conn, s->a.region, key, 1), 0);
    cr_assert_eq(s->a.t->ops->add_region(s->a.t, s->a.memory, 0, &region), -EINVAL);
    cr_assert_eq(s->a.t->ops->add_region(s->a.t, s->a.memory, UINT64_MAX, &region), -EINVAL);
}

TRANSPORT_CASE(landing_outside_our_regions_is_refused) {
    uint8_t outside[16];
    suite_connect(s);
    struct transport_read ask = {.key = s->b.key,
                                 .key_bytes = s->b.key_bytes,
                                 .bytes = sizeof outside,
                                 .local = outside,
                                 .read_user = NULL};
    cr_assert_eq(s->a.t->ops->read(s->ab->conn, &ask), -EINVAL);
    ask.local = s->a.memory + MEMORY_BYTES - 1;
    cr_assert_eq(s->a.t->ops->read(s->ab->conn, &ask), -EINVAL);
    ask.local = s->a.memory;
    ask.bytes = 0;
    cr_assert_eq(s->a.t->ops->read(s->ab->conn, &ask), -EINVAL);
}
