/* SPDX-License-Identifier: Apache-2.0
 *
 * Proofs, keys and tags, all made of libsodium's primitives. The sizes in auth.h are written out
 * there so that its readers need no libsodium; the assertions below see that they are the right
 * ones.
 *
 * Keys are derived with BLAKE2b, proofs are HMAC-SHA-512-256, tags are ChaCha20-Poly1305 (RFC
 * 8439). Whatever has a variable length goes into a proof behind its length, so that no two
 * different inputs give the same bytes.
 */
#include "proto/auth.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "proto/layout.h"

static_assert(AUTH_KEY_BYTES == crypto_auth_KEYBYTES, "HMAC-SHA-512-256 key");
static_assert(AUTH_PROOF_BYTES == crypto_auth_BYTES, "HMAC-SHA-512-256 tag");
static_assert(AUTH_KEY_BYTES == crypto_stream_chacha20_KEYBYTES, "ChaCha20 key");
static_assert(AUTH_TAG_BYTES == crypto_onetimeauth_BYTES, "Poly1305 tag");
static_assert(crypto_stream_chacha20_NONCEBYTES == sizeof(uint64_t),
              "nonce is the sequence number");

int auth_init(void) {
    return sodium_init() < 0 ? -EIO : 0;
}

/* The domain ("store:run0", "cluster") is hashed first and keys the hash of the secret. So one
 * secret that is used for two stores gives two keys that have nothing in common, and a proof for
 * one store is worth nothing at the other. */
void auth_key(const char *domain, const void *secret, size_t secret_bytes,
              uint8_t key_out[AUTH_KEY_BYTES]) {
    uint8_t domain_key[AUTH_KEY_BYTES];
    crypto_generichash(domain_key, sizeof domain_key, (const uint8_t *)domain, strlen(domain), NULL,
                       0);
    crypto_generichash(key_out, AUTH_KEY_BYTES, secret, secret_bytes, domain_key,
                       sizeof domain_key);
}

void auth_store_key(const char *name, const void *secret, size_t secret_bytes,
                    uint8_t key_out[AUTH_KEY_BYTES]) {
    char domain[LAYOUT_NAME_BYTES_MAX + 8];
    snprintf(domain, sizeof domain, "store:%s", name);
    auth_key(domain, secret, secret_bytes, key_out);
}

void auth_nonce(uint8_t out[AUTH_NONCE_BYTES]) {
    randombytes_buf(out, AUTH_NONCE_BYTES);
}

/* The role is the first byte. Without it the answerer's proof would equal the asker's, and an
 * impostor could send our own proof back to us (reflection). Both nonces are in it, so that a
 * proof is good for one conversation only (replay). */
void auth_proof(const uint8_t key[AUTH_KEY_BYTES], enum auth_role role, const void *context,
                size_t context_bytes, const uint8_t asker_nonce[AUTH_NONCE_BYTES],
                const uint8_t answerer_nonce[AUTH_NONCE_BYTES], uint8_t out[AUTH_PROOF_BYTES]) {
    crypto_auth_hmacsha512256_state state;
    uint8_t role_byte = (uint8_t)role;
    uint64_t length = htole64(context_bytes);
    crypto_auth_hmacsha512256_init(&state, key, AUTH_KEY_BYTES);
    crypto_auth_hmacsha512256_update(&state, &role_byte, 1);
    crypto_auth_hmacsha512256_update(&state, (const uint8_t *)&length, sizeof length);
    crypto_auth_hmacsha512256_update(&state, context, context_bytes);
    crypto_auth_hmacsha512256_update(&state, asker_nonce, AUTH_NONCE_BYTES);
    crypto_auth_hmacsha512256_update(&state, answerer_nonce, AUTH_NONCE_BYTES);
    crypto_auth_hmacsha512256_final(&state, out);
}

/* In constant time: a comparison that stops at the first different byte tells, by how long it
 * takes, how many bytes of a guess were right. */
bool auth_equal(const void *a, const void *b, size_t bytes) {
    return sodium_memcmp(a, b, bytes) == 0;
}

/* One key for each direction, as the role is hashed in. Both sides know both nonces, so neither
 * has to send anything for it. */
void auth_session_key(const uint8_t key[AUTH_KEY_BYTES], enum auth_role role,
                      const uint8_t asker_nonce[AUTH_NONCE_BYTES],
                      const uint8_t answerer_nonce[AUTH_NONCE_BYTES], uint8_t out[AUTH_KEY_BYTES]) {
    crypto_generichash_state state;
    uint8_t role_byte = (uint8_t)role;
    crypto_generichash_init(&state, key, AUTH_KEY_BYTES, AUTH_KEY_BYTES);
    crypto_generichash_update(&state, (const uint8_t *)"session", 7);
    crypto_generichash_update(&state, &role_byte, 1);
    crypto_generichash_update(&state, asker_nonce, AUTH_NONCE_BYTES);
    crypto_generichash_update(&state, answerer_nonce, AUTH_NONCE_BYTES);
    crypto_generichash_final(&state, out, AUTH_KEY_BYTES);
}

/* ChaCha20-Poly1305 as in RFC 8439 with nothing to encrypt: the first 32 bytes of the key stream at
 * this sequence number are the one-time key of the authenticator. 4 KiB cost 1.2 us (keyed
 * BLAKE2b: 4.2 us), and a small message exchange pays that four times. */
void auth_tag(const uint8_t session_key[AUTH_KEY_BYTES], uint64_t sequence,
              const struct auth_part *parts, size_t part_count, uint8_t out[AUTH_TAG_BYTES]) {
    crypto_onetimeauth_state state;
    uint8_t once[crypto_onetimeauth_KEYBYTES];
    uint64_t number = htole64(sequence);
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    memcpy(nonce, &number, sizeof nonce);
    crypto_stream_chacha20(once, sizeof once, nonce, session_key);
    crypto_onetimeauth_init(&state, once);
    for (size_t i = 0; i < part_count; i++)
        crypto_onetimeauth_update(&state, parts[i].data, parts[i].bytes);
    crypto_onetimeauth_final(&state, out);
}
