/* SPDX-License-Identifier: Apache-2.0
 *
 * One packet is exactly one frame: header, packed message, payload. SOCK_SEQPACKET keeps the
 * boundaries, so there is no state between packets, and a packet that is wrong cannot put the next
 * one out of step.
 */
#include "local/codec.h"

#include <stdio.h>

#define BODY_BYTES_MAX (FRAME_CLIENT_BYTES_MAX - FRAME_HEADER_BYTES)

/* The header is checked before the message is looked at: frame_open() says whether its lengths add
 * up to the packet. The request lies in the bump and points into the packet; both are used anew for
 * the next one. */
const char *codec_decode_request(const uint8_t *packet, size_t packet_bytes, struct bump *bump,
                                 struct codec_request *out) {
    bump_reset(bump);
    struct frame_header header;
    const char *wrong = frame_open(packet, packet_bytes, FRAME_CLIENT_BYTES_MAX, &header);
    if (wrong)
        return wrong;
    if (header.type != FRAME_REQUEST && header.type != FRAME_NOTE)
        return "a client may send requests and notes only";
    /* The payload, the bytes of small samples, stands behind the message and is not copied. */
    const uint8_t *body = packet + FRAME_HEADER_BYTES;
    const Fb__ClientRequest *request =
        fb__client_request__unpack(&bump->allocator, header.body_bytes, body);
    if (!request)
        return bump->exhausted ? "message has too many parts" : "message does not parse";
    *out = (struct codec_request){
        .request_id = header.request_id,
        .wants_reply = header.type == FRAME_REQUEST,
        .request = request,
        .payload = body + header.body_bytes,
        .payload_bytes = header.payload_bytes,
    };
    return NULL;
}

static size_t codec_encode(enum frame_type type, uint32_t request_id,
                           const ProtobufCMessage *message, size_t body_bytes, uint8_t *packet) {
    struct frame_header header = {
        .version = FRAME_VERSION,
        .type = (uint8_t)type,
        .request_id = request_id,
        .body_bytes = (uint32_t)body_bytes,
    };
    frame_encode(&header, packet);
    protobuf_c_message_pack(message, packet + FRAME_HEADER_BYTES);
    return FRAME_HEADER_BYTES + body_bytes;
}

/* An answer that does not fit into a frame must not go unsaid: the client would wait for it for
 * ever. */
size_t codec_encode_reply(uint32_t request_id, const Fb__ClientReply *reply,
                          uint8_t packet[FRAME_CLIENT_BYTES_MAX], size_t *too_large_bytes) {
    size_t body_bytes = fb__client_reply__get_packed_size(reply);
    *too_large_bytes = 0;
    if (body_bytes <= BODY_BYTES_MAX)
        return codec_encode(FRAME_REPLY, request_id, &reply->base, body_bytes, packet);
    *too_large_bytes = FRAME_HEADER_BYTES + body_bytes;
    char sentence[160];
    snprintf(sentence, sizeof sentence,
             "the answer takes %zu bytes, a frame holds %u: ask for fewer items at once",
             *too_large_bytes, FRAME_CLIENT_BYTES_MAX);
    Fb__ClientReply refusal = FB__CLIENT_REPLY__INIT;
    refusal.status = FB__STATUS__INTERNAL;
    refusal.error = sentence;
    return codec_encode(FRAME_REPLY, request_id, &refusal.base,
                        fb__client_reply__get_packed_size(&refusal), packet);
}

/* A notice that does not fit is left out: clients ask again when they need to know. */
size_t codec_encode_notice(uint32_t request_id, const Fb__ClientNotice *notice,
                           uint8_t packet[FRAME_CLIENT_BYTES_MAX]) {
    size_t body_bytes = fb__client_notice__get_packed_size(notice);
    if (body_bytes > BODY_BYTES_MAX)
        return 0;
    return codec_encode(FRAME_NOTICE, request_id, &notice->base, body_bytes, packet);
}
