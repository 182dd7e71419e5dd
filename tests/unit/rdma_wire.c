/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/rdma/wire.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>

static const uint8_t key[AUTH_KEY_BYTES] = "a key of one direction";

static struct seal keyed(void) {
    struct seal auth = {.keyed = true};
    memcpy(auth.key, key, sizeof key);
    return auth;
}

static size_t seal(struct seal *auth, enum rwire_type type, const void *body, size_t bytes,
                   uint8_t *out) {
    struct iovec part = {(void *)body, bytes};
    sealed_frame_seal(auth, type, &part, 1, out);
    memcpy(out + SEALED_HEADER_BYTES, body, bytes);
    return SEALED_HEADER_BYTES + bytes;
}

Test(rdma_wire, frames_come_out_as_they_went_in) {
    struct seal out = keyed(), in = keyed();
    struct sealed_frame frame;
    const char *why;
    uint8_t bytes[128];
    for (int i = 0; i < 3; i++) {
        size_t count = seal(&out, RWIRE_MESSAGE, "hello", 5, bytes);
        for (size_t part = 0; part < count; part++)
            cr_assert_eq(rwire_open(&in, bytes, part, &frame, &why), SEALED_MORE);
        cr_assert_eq(rwire_open(&in, bytes, count, &frame, &why), SEALED_FRAME);
        cr_assert_eq(frame.type, RWIRE_MESSAGE);
        cr_assert_eq(frame.frame_bytes, count);
        cr_assert_arr_eq(frame.body, "hello", 5);
    }
}

Test(rdma_wire, a_changed_repeated_or_left_out_frame_is_refused) {
    struct sealed_frame frame;
    const char *why;
    uint8_t first[64], second[64];
    struct seal out = keyed();
    size_t count = seal(&out, RWIRE_MESSAGE, "one", 3, first);
    seal(&out, RWIRE_MESSAGE, "two", 3, second);

    struct seal in = keyed();
    cr_assert_eq(rwire_open(&in, second, count, &frame, &why), SEALED_BAD, "left out");
    in = keyed();
    cr_assert_eq(rwire_open(&in, first, count, &frame, &why), SEALED_FRAME);
    cr_assert_eq(rwire_open(&in, first, count, &frame, &why), SEALED_BAD, "repeated");
    for (size_t i = 0; i < count; i++) {
        in = keyed();
        first[i] ^= 1;
        cr_assert_neq(rwire_open(&in, first, count, &frame, &why), SEALED_FRAME, "byte %zu", i);
        first[i] ^= 1;
    }
}

Test(rdma_wire, frames_of_wrong_sizes_are_refused_from_their_header) {
    static const struct {
        enum rwire_type type;
        size_t bytes;
    } wrong[] = {
        {RWIRE_RAILS, 19},   {RWIRE_READY, 1}, {RWIRE_ACCEPTED, 1},
        {RWIRE_REFUSED, 1},  {RWIRE_OPEN, 4},  {RWIRE_OPENED, 15},
        {RWIRE_SEGMENT, 31}, {RWIRE_GONE, 5},  {RWIRE_BEGIN, 3},
        {RWIRE_END, 17},     {0, 0},           {RWIRE_END + 1, 0},
    };
    struct seal out = {0}, in = {0};
    struct sealed_frame frame;
    const char *why;
    uint8_t bytes[128], body[64] = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        seal(&out, wrong[i].type, body, wrong[i].bytes, bytes);
        cr_assert_eq(rwire_open(&in, bytes, SEALED_HEADER_BYTES, &frame, &why), SEALED_BAD, "%zu",
                     i);
    }
}

Test(rdma_wire, rails_keep_their_numbers) {
    struct sockaddr_storage in[RWIRE_RAILS_MAX] = {0}, out[RWIRE_RAILS_MAX];
    uint8_t bytes[RWIRE_RAILS_MAX * RWIRE_RAIL_BYTES];
    struct sockaddr_in *v4 = (struct sockaddr_in *)&in[0];
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&in[2];
    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(7400)};
    inet_pton(AF_INET, "10.77.0.1", &v4->sin_addr);
    *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(7401)};
    inet_pton(AF_INET6, "fd00::1", &v6->sin6_addr);
    for (size_t i = 0; i < RWIRE_RAILS_MAX; i++)
        rwire_rail_encode(&in[i], bytes + i * RWIRE_RAIL_BYTES);
    cr_assert_eq(rwire_rails_decode(bytes, sizeof bytes, out), RWIRE_RAILS_MAX);
    cr_assert_arr_eq(out, in, sizeof in);
    cr_assert_eq(rwire_rails_decode(bytes, sizeof bytes - 1, out), -1);
    bytes[0] = 99;
    cr_assert_eq(rwire_rails_decode(bytes, sizeof bytes, out), -1, "unknown family");
}

Test(rdma_wire, segments_keep_address_range_and_rkeys) {
    struct rwire_segment out, in = {.handle = 7,
                                    .rail_count = 3,
                                    .offset = UINT64_C(1) << 40,
                                    .address = 0x7f0000001000,
                                    .bytes = 1 << 30,
                                    .rkeys = {1, 0, 0xfffffffe}};
    uint8_t bytes[RWIRE_SEGMENT_BYTES + 4 * RWIRE_RAILS_MAX];
    size_t count = rwire_segment_encode(&in, bytes);
    cr_assert_null(rwire_segment_decode(bytes, count, &out));
    cr_assert_arr_eq(&out, &in, sizeof in);
    cr_assert_not_null(rwire_segment_decode(bytes, count - 4, &out), "a rkey short");
    in.offset = UINT64_MAX - 5;
    count = rwire_segment_encode(&in, bytes);
    cr_assert_not_null(rwire_segment_decode(bytes, count, &out), "the range wraps");
}

Test(rdma_wire, private_data_of_strangers_is_refused) {
    struct rwire_private out, in = {.kind = 2, .rail = 3, .slots = 64, .slot_bytes = 16384};
    uint8_t bytes[RWIRE_PRIVATE_BYTES];
    rwire_private_encode(&in, bytes);
    cr_assert_null(rwire_private_decode(bytes, sizeof bytes, &out));
    cr_assert(out.kind == 2 && out.rail == 3 && out.slots == 64 && out.slot_bytes == 16384);
    cr_assert_not_null(rwire_private_decode(NULL, 0, &out));
    cr_assert_not_null(rwire_private_decode(bytes, sizeof bytes - 1, &out));
    bytes[6] = RWIRE_RAILS_MAX;
    cr_assert_not_null(rwire_private_decode(bytes, sizeof bytes, &out), "a rail too far");
    rwire_private_encode(&in, bytes);
    bytes[0] ^= 1;
    cr_assert_not_null(rwire_private_decode(bytes, sizeof bytes, &out), "not ours");
    in.slots = 0;
    rwire_private_encode(&in, bytes);
    cr_assert_not_null(rwire_private_decode(bytes, sizeof bytes, &out), "no slots");
}
