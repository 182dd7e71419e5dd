/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "proto/frame.h"

static const struct frame_header sound = {.version = FRAME_VERSION,
                                          .type = FRAME_REPLY,
                                          .request_id = 0x01020304,
                                          .body_bytes = 100,
                                          .payload_bytes = 0x0a0b};

Test(proto_frame, is_little_endian_as_documented) {
    static const uint8_t expected[FRAME_HEADER_BYTES] = {'F', 'B', 1, 2, 4,    3,    2, 1,
                                                         100, 0,   0, 0, 0x0b, 0x0a, 0, 0};
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&sound, bytes);
    cr_assert_arr_eq(bytes, expected, sizeof bytes);
}

Test(proto_frame, decodes_what_was_encoded) {
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header;
    frame_encode(&sound, bytes);
    cr_assert_null(frame_decode(bytes, FRAME_CLIENT_BYTES_MAX, &header));
    cr_assert_eq(header.type, sound.type);
    cr_assert_eq(header.request_id, sound.request_id);
    cr_assert_eq(header.body_bytes, sound.body_bytes);
    cr_assert_eq(header.payload_bytes, sound.payload_bytes);
}

Test(proto_frame, every_wrong_field_is_refused) {
    static const struct {
        unsigned at;
        uint8_t value;
    } wrong[] = {{0, 'X'}, {1, 'X'}, {2, 0}, {2, 2}, {3, 0}, {3, 5}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        struct frame_header header;
        frame_encode(&sound, bytes);
        bytes[wrong[i].at] = wrong[i].value;
        cr_assert_not_null(frame_decode(bytes, FRAME_CLIENT_BYTES_MAX, &header));
    }
}

static const char *decode_sizes(uint32_t body_bytes, uint32_t payload_bytes, uint32_t bytes_max) {
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = sound;
    header.body_bytes = body_bytes;
    header.payload_bytes = payload_bytes;
    frame_encode(&header, bytes);
    return frame_decode(bytes, bytes_max, &header);
}

Test(proto_frame, the_limit_counts_header_body_and_payload) {
    cr_assert_null(decode_sizes(60, 24, 100));
    cr_assert_not_null(decode_sizes(60, 25, 100));
    cr_assert_not_null(decode_sizes(85, 0, 100));
    /* sums that wrap in 32 bits */
    cr_assert_not_null(decode_sizes(UINT32_MAX, UINT32_MAX, UINT32_MAX));
    cr_assert_not_null(decode_sizes(UINT32_MAX - 8, 0, 100));
}

Test(proto_frame, a_whole_frame_is_as_long_as_it_says) {
    uint8_t bytes[FRAME_HEADER_BYTES + 84] = {0};
    struct frame_header header = sound;
    header.body_bytes = 60;
    header.payload_bytes = 23;
    frame_encode(&header, bytes);
    cr_assert_null(frame_open(bytes, FRAME_HEADER_BYTES + 83, 200, &header));
    cr_assert_not_null(frame_open(bytes, FRAME_HEADER_BYTES + 82, 200, &header));
    cr_assert_not_null(frame_open(bytes, FRAME_HEADER_BYTES + 84, 200, &header));
    cr_assert_not_null(frame_open(bytes, FRAME_HEADER_BYTES - 1, 200, &header));
    cr_assert_not_null(frame_open(bytes, FRAME_HEADER_BYTES + 83, 90, &header));
}
