/* SPDX-License-Identifier: Apache-2.0
 *
 * What follows the handshake: frames, chunk headers, and the regions that reads name.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/regions.h"
#include "transport/tcp/wire.h"

struct wire {
    struct seal out, in;
    uint8_t bytes[256];
    size_t count;
};

static void wire_init(struct wire *w, bool keyed) {
    cr_assert_eq(auth_init(), 0);
    *w = (struct wire){.out = {.keyed = keyed, .key = "k"}, .in = {.keyed = keyed, .key = "k"}};
}

static void add_message(struct wire *w, const char *text) {
    struct iovec part = {(void *)text, strlen(text)};
    sealed_frame_seal(&w->out, WIRE_MESSAGE, &part, 1, w->bytes + w->count);
    memcpy(w->bytes + w->count + SEALED_HEADER_BYTES, text, part.iov_len);
    w->count += SEALED_HEADER_BYTES + part.iov_len;
}

Test(transport_wire, frames_come_out_as_they_went_in) {
    for (int keyed = 0; keyed < 2; keyed++) {
        struct wire w;
        struct sealed_frame frame;
        const char *why;
        wire_init(&w, keyed);
        add_message(&w, "one");
        add_message(&w, "");
        cr_assert_eq(wire_frame_open(&w.in, w.bytes, w.count, &frame, &why), SEALED_FRAME);
        cr_assert_eq(frame.body_bytes, 3);
        cr_assert_arr_eq(frame.body, "one", 3);
        size_t at = frame.frame_bytes;
        cr_assert_eq(wire_frame_open(&w.in, w.bytes + at, w.count - at, &frame, &why),
                     SEALED_FRAME);
        cr_assert_eq(frame.body_bytes, 0);
        cr_assert_eq(at + frame.frame_bytes, w.count);
    }
}

Test(transport_wire, incomplete_frames_say_how_much_they_need) {
    struct wire w;
    struct sealed_frame frame;
    const char *why;
    wire_init(&w, true);
    add_message(&w, "hello");
    for (size_t bytes = 0; bytes < w.count; bytes++) {
        cr_assert_eq(wire_frame_open(&w.in, w.bytes, bytes, &frame, &why), SEALED_MORE);
        cr_assert_eq(frame.frame_bytes,
                     bytes < SEALED_HEADER_BYTES ? SEALED_HEADER_BYTES : w.count);
    }
}

Test(transport_wire, any_flipped_bit_of_a_frame_is_noticed) {
    struct wire w;
    struct sealed_frame frame;
    const char *why;
    wire_init(&w, true);
    add_message(&w, "hello");
    for (size_t bit = 0; bit < w.count * 8; bit++) {
        struct seal in = w.in;
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_neq(wire_frame_open(&in, w.bytes, w.count, &frame, &why), SEALED_FRAME);
        w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(transport_wire, repeated_and_dropped_frames_are_noticed) {
    struct wire w;
    struct sealed_frame frame;
    const char *why;
    wire_init(&w, true);
    add_message(&w, "one");
    size_t first = w.count;
    add_message(&w, "two");
    struct seal dropped = w.in;
    cr_assert_eq(wire_frame_open(&dropped, w.bytes + first, w.count - first, &frame, &why),
                 SEALED_BAD);
    cr_assert_eq(wire_frame_open(&w.in, w.bytes, w.count, &frame, &why), SEALED_FRAME);
    cr_assert_eq(wire_frame_open(&w.in, w.bytes, w.count, &frame, &why), SEALED_BAD);
}

Test(transport_wire, sizes_are_checked_before_the_body_arrives) {
    static const struct {
        uint32_t bytes, type;
    } bad[] = {
        {TRANSPORT_MESSAGE_BYTES_MAX + 1, WIRE_MESSAGE},
        {UINT32_MAX, WIRE_MESSAGE},
        {WIRE_READ_BYTES - 1, WIRE_READ},
        {WIRE_READ_BYTES + TRANSPORT_KEY_BYTES_MAX + 1, WIRE_READ},
        {WIRE_READ_FAILED_BYTES + 1, WIRE_READ_FAILED},
        {0, 0},
        {0, 4},
        {0, 0x101},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct seal in = {.keyed = false};
        struct sealed_frame frame;
        const char *why = NULL;
        uint8_t header[SEALED_HEADER_BYTES] = {0};
        memcpy(header, &bad[i].bytes, 4);
        memcpy(header + 4, &bad[i].type, 4);
        cr_assert_eq(wire_frame_open(&in, header, sizeof header, &frame, &why), SEALED_BAD, "%zu",
                     i);
        cr_assert_not_null(why);
    }
}

Test(transport_wire, chunk_headers_come_out_as_they_went_in) {
    struct wire w;
    struct wire_chunk chunk = {UINT64_MAX, 1, 2}, got;
    uint8_t header[WIRE_CHUNK_HEADER_BYTES];
    wire_init(&w, true);
    wire_chunk_seal(&w.out, &chunk, header);
    struct seal again = w.in;
    cr_assert_null(wire_chunk_open(&w.in, header, &got));
    cr_assert(got.id == chunk.id && got.offset == 1 && got.bytes == 2);
    header[3] ^= 1;
    cr_assert_not_null(wire_chunk_open(&again, header, &got));
}

Test(transport_wire, empty_chunks_are_refused) {
    struct wire w;
    struct wire_chunk chunk = {1, 2, 0}, got;
    uint8_t header[WIRE_CHUNK_HEADER_BYTES];
    wire_init(&w, true);
    wire_chunk_seal(&w.out, &chunk, header);
    cr_assert_not_null(wire_chunk_open(&w.in, header, &got));
}

Test(transport_wire, refusals_always_carry_an_error) {
    uint8_t body[WIRE_READ_FAILED_BYTES];
    uint64_t id;
    int status;
    wire_read_failed_encode(9, -EINVAL, body);
    cr_assert_null(wire_read_failed_decode(body, sizeof body, &id, &status));
    cr_assert(id == 9 && status == -EINVAL);
    memset(body + 8, 0, 4);
    cr_assert_null(wire_read_failed_decode(body, sizeof body, &id, &status));
    cr_assert_lt(status, 0);
    memset(body + 8, 0xff, 4);
    cr_assert_null(wire_read_failed_decode(body, sizeof body, &id, &status));
    cr_assert_lt(status, 0);
}

Test(transport_regions, ranges_are_resolved_and_bounded) {
    static uint8_t storage[102], *const memory = storage + 1;
    enum { BYTES = 100 };
    struct regions regions = {0};
    uint8_t key[REGION_KEY_BYTES], *at;
    uint32_t number, got;
    cr_assert_eq(regions_add(&regions, memory, BYTES, 5, &number), 0);
    cr_assert_eq(regions_key(&regions, 7, number, key, sizeof key), REGION_KEY_BYTES);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 10, 90, &got, &at), 0);
    cr_assert(at == memory + 10 && got == number);
    cr_assert_eq(regions_resolve(&regions, 8, key, sizeof key, 10, 90, &got, &at), -EINVAL,
                 "a key is good on one connection");
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 10, 91, &got, &at), -EINVAL);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 10, 0, &got, &at), -EINVAL);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, UINT64_MAX, 1, &got, &at), -EINVAL);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 1, UINT64_MAX, &got, &at), -EINVAL);
    cr_assert_eq(regions_find(&regions, memory + 99, 1, &got), 0);
    cr_assert_eq(regions_find(&regions, memory + 99, 2, &got), -EINVAL);
    cr_assert_eq(regions_find(&regions, storage, 2, &got), -EINVAL);
    regions_deinit(&regions);
}

Test(transport_regions, slots_are_reused_and_old_keys_are_not) {
    static uint8_t memory[100];
    struct regions regions = {0};
    uint8_t key[REGION_KEY_BYTES], *at;
    uint32_t first, second, got;
    cr_assert_eq(regions_add(&regions, memory, sizeof memory, 5, &first), 0);
    regions_key(&regions, 7, first, key, sizeof key);
    regions_remove(&regions, first);
    regions_remove(&regions, first + 1000);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 0, 1, &got, &at), -EINVAL);
    cr_assert_eq(regions_add(&regions, memory, sizeof memory, 6, &second), 0);
    cr_assert_eq(first, second);
    cr_assert_eq(regions_resolve(&regions, 7, key, sizeof key, 0, 1, &got, &at), -EINVAL);
    regions_deinit(&regions);
}
