/* SPDX-License-Identifier: Apache-2.0
 *
 * Challenge-response over a shared secret: primitives from libsodium, transcript ours. Used for
 * store secrets (client <-> broker) and for the cluster secret (broker <-> broker). Pure.
 *
 *   key    = BLAKE2b-256(secret, key = BLAKE2b-256(domain))
 *   proof  = HMAC-SHA-512-256(key, role || length-prefixed context || nonce_a || nonce_b)
 *   session key = BLAKE2b-256(nonce_a || nonce_b, key = key)
 *
 * The secret itself never crosses a wire; both sides prove themselves; a proof is bound to its
 * role, so that it cannot be reflected. Comparison is in constant time.
 */
#ifndef FEATURED_PROTO_AUTH_H
#define FEATURED_PROTO_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_KEY_BYTES   32u
#define AUTH_NONCE_BYTES 32u
#define AUTH_PROOF_BYTES 32u
#define AUTH_TAG_BYTES   16u

enum auth_role { AUTH_ROLE_ASKER = 1, AUTH_ROLE_ANSWERER = 2 };

/* Call once per process before anything else here; 0 or -EIO. */
int auth_init(void);

/* domain: says what the key is for, so that one secret gives another key for each use. */
void auth_key(const char *domain, const void *secret, size_t secret_bytes,
              uint8_t key_out[AUTH_KEY_BYTES]);
/* The key of a store: one secret gives two stores two keys. name: of LAYOUT_NAME_BYTES_MAX at most.
 */
void auth_store_key(const char *name, const void *secret, size_t secret_bytes,
                    uint8_t key_out[AUTH_KEY_BYTES]);
void auth_nonce(uint8_t out[AUTH_NONCE_BYTES]);

/* context: what the proof is bound to (both hellos, or the store's name); asker_nonce and
 * answerer_nonce as exchanged. */
void auth_proof(const uint8_t key[AUTH_KEY_BYTES], enum auth_role role, const void *context,
                size_t context_bytes, const uint8_t asker_nonce[AUTH_NONCE_BYTES],
                const uint8_t answerer_nonce[AUTH_NONCE_BYTES], uint8_t out[AUTH_PROOF_BYTES]);
bool auth_equal(const void *a, const void *b, size_t bytes);

/* Per-connection, per-direction key for frame tags. `role` is the sender's. */
void auth_session_key(const uint8_t key[AUTH_KEY_BYTES], enum auth_role role,
                      const uint8_t asker_nonce[AUTH_NONCE_BYTES],
                      const uint8_t answerer_nonce[AUTH_NONCE_BYTES], uint8_t out[AUTH_KEY_BYTES]);

/* Poly1305 over the parts under a one-time key that ChaCha20 makes of (session_key, sequence): a
 * session key must never tag two different messages with one sequence number. */
struct auth_part {
    const void *data;
    size_t bytes;
};
void auth_tag(const uint8_t session_key[AUTH_KEY_BYTES], uint64_t sequence,
              const struct auth_part *parts, size_t part_count, uint8_t out[AUTH_TAG_BYTES]);

#endif
