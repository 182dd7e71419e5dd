/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile peers. The first byte of an input chooses what the rest is fed to: one side of the
 * handshake, the control stream, the bulk stream, or a peer message behind its frame header. What
 * comes out must be in bounds and lead back to the bytes that went in.
 */
#include <stdlib.h>
#include <string.h>

#include "peer.pb-c.h"
#include "proto/frame.h"
#include "transport/handshake.h"
#include "transport/tcp/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum { KEYED = 0x80, PARSERS = 6 };

static const uint8_t key[AUTH_KEY_BYTES] = "fuzzing";
static const uint8_t nonce[AUTH_NONCE_BYTES] = "always the same";

static void expect(bool condition) {
    if (!condition)
        abort();
}

static void drain(struct handshake *h) {
    const uint8_t *out;
    size_t left = handshake_output(h, &out);
    expect(left <= HANDSHAKE_MESSAGE_BYTES_MAX);
    handshake_sent(h, left);
}

static void run_handshake(struct handshake *h, const uint8_t *data, size_t bytes) {
    uint8_t *into, send_key[AUTH_KEY_BYTES], receive_key[AUTH_KEY_BYTES];
    size_t want;
    drain(h);
    while (bytes > 0 && (want = handshake_want(h, &into)) > 0) {
        expect(into >= h->in && want <= (size_t)(h->in + sizeof h->in - into));
        want = want < bytes ? want : bytes;
        memcpy(into, data, want);
        handshake_received(h, want);
        data += want;
        bytes -= want;
        drain(h);
    }
    expect(h->theirs.bytes <= TRANSPORT_HELLO_BYTES_MAX);
    if (h->state == HANDSHAKE_PROVEN) {
        handshake_accept(h, 1);
        drain(h);
    }
    if (h->state == HANDSHAKE_DONE)
        handshake_keys(h, send_key, receive_key);
    if (h->state == HANDSHAKE_FAILED)
        expect(h->why[0] != '\0');
    handshake_deinit(h);
}

static void answer(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    struct handshake h;
    struct handshake_params params = {cluster_key, "home", 4};
    handshake_answer(&h, &params, nonce);
    run_handshake(&h, data, bytes);
}

static void ask(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    struct handshake h;
    struct handshake_params params = {cluster_key, "asker", 5};
    handshake_ask(&h, &params, HANDSHAKE_CONTROL, 0, nonce);
    run_handshake(&h, data, bytes);
}

static void take_frame(const struct sealed_frame *frame) {
    struct wire_read read;
    uint64_t id;
    int status;
    if (frame->type == WIRE_READ &&
        wire_read_decode(frame->body, frame->body_bytes, &read) == NULL) {
        uint8_t again[WIRE_READ_BYTES];
        expect(read.key_bytes <= TRANSPORT_KEY_BYTES_MAX);
        wire_read_encode(&read, again);
        expect(memcmp(again, frame->body, sizeof again) == 0);
    }
    if (frame->type == WIRE_READ_FAILED)
        expect(wire_read_failed_decode(frame->body, frame->body_bytes, &id, &status) != NULL ||
               status < 0);
}

static void control(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    struct seal in = {.keyed = cluster_key != NULL};
    struct sealed_frame frame;
    const char *why = NULL;
    enum sealed_result result;
    memcpy(in.key, key, sizeof in.key);
    while ((result = wire_frame_open(&in, data, bytes, &frame, &why)) == SEALED_FRAME) {
        expect(frame.frame_bytes <= bytes && frame.frame_bytes >= SEALED_HEADER_BYTES);
        expect(frame.body + frame.body_bytes == data + frame.frame_bytes);
        take_frame(&frame);
        data += frame.frame_bytes;
        bytes -= frame.frame_bytes;
    }
    expect(result == SEALED_MORE || why != NULL);
    expect(result == SEALED_BAD || frame.frame_bytes > bytes);
    expect(frame.frame_bytes <= SEALED_HEADER_BYTES + TRANSPORT_MESSAGE_BYTES_MAX);
}

static void bulk(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    struct seal in = {.keyed = cluster_key != NULL};
    struct wire_chunk chunk;
    memcpy(in.key, key, sizeof in.key);
    while (bytes >= WIRE_CHUNK_HEADER_BYTES && wire_chunk_open(&in, data, &chunk) == NULL) {
        expect(chunk.bytes > 0);
        data += WIRE_CHUNK_HEADER_BYTES;
        bytes -= WIRE_CHUNK_HEADER_BYTES;
        if (chunk.bytes > bytes)
            return;
        data += chunk.bytes;
        bytes -= chunk.bytes;
    }
}

static void peer_message(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    struct frame_header header;
    (void)cluster_key;
    if (frame_open(data, bytes, FRAME_PEER_BYTES_MAX, &header) != NULL)
        return;
    data += FRAME_HEADER_BYTES;
    if (header.type == FRAME_REPLY) {
        Fb__PeerReply *reply = fb__peer_reply__unpack(NULL, header.body_bytes, data);
        if (reply != NULL)
            fb__peer_reply__free_unpacked(reply, NULL);
    } else {
        Fb__PeerRequest *request = fb__peer_request__unpack(NULL, header.body_bytes, data);
        if (request != NULL)
            fb__peer_request__free_unpacked(request, NULL);
    }
}

static void peer_hello(const uint8_t *data, size_t bytes, const uint8_t *cluster_key) {
    (void)cluster_key;
    Fb__PeerHello *hello = fb__peer_hello__unpack(NULL, bytes, data);
    if (hello != NULL)
        fb__peer_hello__free_unpacked(hello, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static void (*const parsers[PARSERS])(const uint8_t *, size_t, const uint8_t *) = {
        answer, ask, control, bulk, peer_message, peer_hello,
    };
    if (bytes == 0)
        return 0;
    unsigned choice = data[0] & ~(unsigned)KEYED;
    /* A copy of the exact size, so that a read one byte too far is seen. */
    uint8_t *exact = malloc(bytes);
    expect(exact != NULL);
    memcpy(exact, data, bytes);
    parsers[choice % PARSERS](exact + 1, bytes - 1, data[0] & KEYED ? key : NULL);
    free(exact);
    return 0;
}
