/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile clients: each input is one packet for the codec. One that decodes is packed again,
 * which visits every byte that decoding claims to have found.
 */
#include <stdlib.h>

#include "local/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *packet, size_t bytes);

static void expect(bool condition) {
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *packet, size_t bytes) {
    static struct bump bump;
    static uint8_t again[BUMP_REQUEST_BYTES];
    if (!bump.base)
        expect(bump_init(&bump, BUMP_REQUEST_BYTES) == 0);
    struct codec_request got;
    const char *wrong = codec_decode_request(packet, bytes, &bump, &got);
    expect(bump.used_bytes <= BUMP_REQUEST_BYTES);
    if (wrong) {
        expect(wrong[0] != '\0');
        return 0;
    }
    expect(got.payload + got.payload_bytes == packet + bytes);
    size_t packed_bytes = fb__client_request__get_packed_size(got.request); /* reads all of it */
    if (packed_bytes <= sizeof again)
        expect(fb__client_request__pack(got.request, again) == packed_bytes);
    return 0;
}
