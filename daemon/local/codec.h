/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets of the local socket to decoded requests, replies and notices to packets. Pure: bytes in,
 * bytes out; no socket, no clock, no malloc.
 */
#ifndef FEATURED_LOCAL_CODEC_H
#define FEATURED_LOCAL_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "proto/bump.h"
#include "proto/frame.h"

struct codec_request {
    uint32_t request_id;
    bool wants_reply;
    const Fb__ClientRequest *request; /* in the bump: valid until its next reset */
    const uint8_t *payload;           /* in the packet */
    size_t payload_bytes;
};

/* Decodes one packet from a client; resets the bump first. NULL, or a static sentence saying what
 * breaks the protocol. */
const char *codec_decode_request(const uint8_t *packet, size_t packet_bytes, struct bump *bump,
                                 struct codec_request *out);

/* Packs a reply; returns the packet's bytes. One that does not fit is replaced by status INTERNAL
 * with a sentence, and *too_large_bytes says how large it would have been (else 0). */
size_t codec_encode_reply(uint32_t request_id, const Fb__ClientReply *reply,
                          uint8_t packet[FRAME_CLIENT_BYTES_MAX], size_t *too_large_bytes);

/* Packs a notice; 0 when it does not fit (notices may be dropped). */
size_t codec_encode_notice(uint32_t request_id, const Fb__ClientNotice *notice,
                           uint8_t packet[FRAME_CLIENT_BYTES_MAX]);

#endif
