/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "local/codec.h"
#include "proto/bump.h"

static struct bump bump;
static uint8_t packet[FRAME_CLIENT_BYTES_MAX];

static void set_up(void) {
    cr_assert_eq(bump_init(&bump, BUMP_REQUEST_BYTES), 0);
}

static void tear_down(void) {
    bump_deinit(&bump);
}

TestSuite(local_codec, .init = set_up, .fini = tear_down);

static size_t frame(enum frame_type type, uint32_t request_id, const Fb__ClientRequest *request,
                    const void *payload, uint32_t payload_bytes) {
    struct frame_header header = {
        .version = FRAME_VERSION,
        .type = (uint8_t)type,
        .request_id = request_id,
        .body_bytes = (uint32_t)fb__client_request__get_packed_size(request),
        .payload_bytes = payload_bytes,
    };
    frame_encode(&header, packet);
    fb__client_request__pack(request, packet + FRAME_HEADER_BYTES);
    if (payload_bytes)
        memcpy(packet + FRAME_HEADER_BYTES + header.body_bytes, payload, payload_bytes);
    return (size_t)FRAME_HEADER_BYTES + header.body_bytes + payload_bytes;
}

static size_t hello_frame(enum frame_type type) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = 1;
    hello.client_name = (char *)"trainer";
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    return frame(type, 7, &request, "bytes", 5);
}

Test(local_codec, a_request_comes_out_as_it_went_in) {
    size_t bytes = hello_frame(FRAME_REQUEST);
    struct codec_request got;
    cr_assert_null(codec_decode_request(packet, bytes, &bump, &got));
    cr_expect_eq(got.request_id, 7);
    cr_expect(got.wants_reply);
    cr_assert_eq(got.request->op_case, FB__CLIENT_REQUEST__OP_HELLO);
    cr_expect_str_eq(got.request->hello->client_name, "trainer");
    cr_assert_eq(got.payload_bytes, 5);
    cr_expect_arr_eq(got.payload, "bytes", 5);
}

Test(local_codec, a_note_wants_no_reply) {
    struct codec_request got;
    cr_assert_null(codec_decode_request(packet, hello_frame(FRAME_NOTE), &bump, &got));
    cr_expect_not(got.wants_reply);
}

Test(local_codec, a_client_may_not_answer) {
    struct codec_request got;
    cr_expect_str_eq(codec_decode_request(packet, hello_frame(FRAME_REPLY), &bump, &got),
                     "a client may send requests and notes only");
    cr_expect_not_null(codec_decode_request(packet, hello_frame(FRAME_NOTICE), &bump, &got));
}

Test(local_codec, every_truncation_is_refused) {
    size_t bytes = hello_frame(FRAME_REQUEST);
    struct codec_request got;
    for (size_t shorter = 0; shorter < bytes; shorter++)
        cr_expect_not_null(codec_decode_request(packet, shorter, &bump, &got), "%zu of %zu bytes",
                           shorter, bytes);
}

Test(local_codec, bytes_behind_the_frame_are_refused) {
    struct codec_request got;
    cr_expect_str_eq(codec_decode_request(packet, hello_frame(FRAME_REQUEST) + 1, &bump, &got),
                     "frame of another size than its header says");
}

Test(local_codec, a_body_that_does_not_parse_is_refused) {
    size_t bytes = hello_frame(FRAME_REQUEST);
    memset(packet + FRAME_HEADER_BYTES, 0xff, bytes - FRAME_HEADER_BYTES);
    struct codec_request got;
    cr_expect_str_eq(codec_decode_request(packet, bytes, &bump, &got), "message does not parse");
}

/* 2 bytes on the wire become a struct and a pointer each: the bump bounds what a full frame can ask
 * for. */
Test(local_codec, a_message_of_too_many_parts_is_refused) {
    const size_t body_bytes = FRAME_CLIENT_BYTES_MAX - FRAME_HEADER_BYTES,
                 items_bytes = body_bytes - 4;
    struct frame_header header = {
        .version = FRAME_VERSION, .type = FRAME_REQUEST, .body_bytes = (uint32_t)body_bytes};
    frame_encode(&header, packet);
    uint8_t *body = packet + FRAME_HEADER_BYTES;
    body[0] = 12 << 3 | 2; /* ClientRequest.get, three bytes of length, then empty items = 2 */
    body[1] = (uint8_t)(0x80 | (items_bytes & 0x7f));
    body[2] = (uint8_t)(0x80 | (items_bytes >> 7 & 0x7f));
    body[3] = (uint8_t)(items_bytes >> 14);
    for (size_t i = 4; i < body_bytes; i += 2) {
        body[i] = 2 << 3 | 2;
        body[i + 1] = 0;
    }
    struct codec_request got;
    cr_expect_str_eq(codec_decode_request(packet, FRAME_CLIENT_BYTES_MAX, &bump, &got),
                     "message has too many parts");
    cr_expect_null(codec_decode_request(packet, hello_frame(FRAME_REQUEST), &bump, &got),
                   "the next request is not harmed");
}

Test(local_codec, the_fullest_batch_fits_the_bump) {
    static uint8_t spec[200];
    static char id[129];
    memset(id, 'i', sizeof id - 1);
    Fb__PutItem items[FRAME_BATCH_ITEMS_MAX], *pointers[FRAME_BATCH_ITEMS_MAX];
    for (uint32_t i = 0; i < FRAME_BATCH_ITEMS_MAX; i++) {
        items[i] = (Fb__PutItem)FB__PUT_ITEM__INIT;
        items[i].sample_id = id;
        items[i].spec = (ProtobufCBinaryData){.len = sizeof spec, .data = spec};
        items[i].checksums = items[i].spec;
        items[i].checksums.len = 8;
        pointers[i] = &items[i];
    }
    Fb__Put put = FB__PUT__INIT;
    put.items = pointers;
    put.n_items = FRAME_BATCH_ITEMS_MAX;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &put;
    struct codec_request got;
    cr_assert_null(
        codec_decode_request(packet, frame(FRAME_REQUEST, 1, &request, NULL, 0), &bump, &got));
    cr_assert_eq(got.request->put->n_items, FRAME_BATCH_ITEMS_MAX);
    cr_expect_str_eq(got.request->put->items[FRAME_BATCH_ITEMS_MAX - 1]->sample_id, id);
    cr_expect_lt(bump.used_bytes, BUMP_REQUEST_BYTES / 4);
}

static Fb__ClientReply *decode_reply(size_t bytes, uint32_t request_id) {
    struct frame_header header;
    cr_assert_null(frame_decode(packet, FRAME_CLIENT_BYTES_MAX, &header));
    cr_expect_eq(header.type, FRAME_REPLY);
    cr_expect_eq(header.request_id, request_id);
    cr_assert_eq(FRAME_HEADER_BYTES + header.body_bytes, bytes);
    bump_reset(&bump);
    return fb__client_reply__unpack(&bump.allocator, header.body_bytes,
                                    packet + FRAME_HEADER_BYTES);
}

Test(local_codec, a_reply_that_does_not_fit_becomes_internal) {
    static char sentence[FRAME_CLIENT_BYTES_MAX];
    memset(sentence, 'x', sizeof sentence - 1);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.error = sentence;
    size_t too_large_bytes;
    size_t bytes = codec_encode_reply(3, &reply, packet, &too_large_bytes);
    cr_expect_gt(too_large_bytes, FRAME_CLIENT_BYTES_MAX);
    const Fb__ClientReply *got = decode_reply(bytes, 3);
    cr_assert_not_null(got);
    cr_expect_eq(got->status, FB__STATUS__INTERNAL);
    cr_expect_not_null(strstr(got->error, "131072"), "the limit is named: %s", got->error);
}

Test(local_codec, the_largest_reply_that_fits_is_sent) {
    static char sentence[FRAME_CLIENT_BYTES_MAX];
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    reply.error = sentence;
    memset(sentence, 'x',
           FRAME_CLIENT_BYTES_MAX - FRAME_HEADER_BYTES - 4); /* tag and length: 4 bytes */
    size_t too_large_bytes;
    size_t bytes = codec_encode_reply(3, &reply, packet, &too_large_bytes);
    cr_expect_eq(too_large_bytes, 0);
    cr_assert_eq(bytes, FRAME_CLIENT_BYTES_MAX);
    cr_expect_str_eq(decode_reply(bytes, 3)->error, sentence);
}

Test(local_codec, a_notice_that_does_not_fit_is_left_out) {
    static char id[FRAME_CLIENT_BYTES_MAX];
    Fb__Event event = FB__EVENT__INIT;
    event.sample_id = id;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_EVENT;
    notice.event = &event;
    cr_expect_gt(codec_encode_notice(0, &notice, packet), FRAME_HEADER_BYTES);
    memset(id, 'x', sizeof id - 1);
    cr_expect_eq(codec_encode_notice(0, &notice, packet), 0);
}

Test(local_codec, the_bump_never_hands_out_more_than_it_has) {
    struct bump small;
    cr_assert_eq(bump_init(&small, 64), 0);
    ProtobufCAllocator *allocator = &small.allocator;
    cr_expect_not_null(allocator->alloc(allocator->allocator_data, 40));
    cr_expect_null(allocator->alloc(allocator->allocator_data, 17));
    cr_expect(small.exhausted);
    cr_expect_null(allocator->alloc(allocator->allocator_data, SIZE_MAX));
    bump_reset(&small);
    cr_expect_not(small.exhausted);
    cr_expect_not_null(allocator->alloc(allocator->allocator_data, 64));
    cr_expect_null(allocator->alloc(allocator->allocator_data, 1));
    bump_deinit(&small);
}
