/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "proto/auth.h"

struct exchange {
    uint8_t key[AUTH_KEY_BYTES], asker[AUTH_NONCE_BYTES], answerer[AUTH_NONCE_BYTES];
};

static void exchange_init(struct exchange *x) {
    cr_assert_eq(auth_init(), 0);
    auth_key("store:run0", "secret", 6, x->key);
    memset(x->asker, 1, sizeof x->asker);
    memset(x->answerer, 2, sizeof x->answerer);
}

static void prove(const struct exchange *x, enum auth_role role, const char *context,
                  uint8_t out[AUTH_PROOF_BYTES]) {
    auth_proof(x->key, role, context, strlen(context), x->asker, x->answerer, out);
}

Test(proto_auth, a_key_depends_on_secret_and_domain) {
    uint8_t one[AUTH_KEY_BYTES], same[AUTH_KEY_BYTES], domain[AUTH_KEY_BYTES],
        secret[AUTH_KEY_BYTES];
    cr_assert_eq(auth_init(), 0);
    auth_key("store:run0", "secret", 6, one);
    auth_key("store:run0", "secret", 6, same);
    auth_key("store:run1", "secret", 6, domain);
    auth_key("store:run0", "secreT", 6, secret);
    cr_assert(auth_equal(one, same, sizeof one));
    cr_assert_not(auth_equal(one, domain, sizeof one));
    cr_assert_not(auth_equal(one, secret, sizeof one));
}

Test(proto_auth, a_proof_is_bound_to_everything_in_it) {
    struct exchange x, changed;
    uint8_t proof[AUTH_PROOF_BYTES], other[AUTH_PROOF_BYTES];
    exchange_init(&x);
    prove(&x, AUTH_ROLE_ASKER, "run0", proof);
    prove(&x, AUTH_ROLE_ASKER, "run0", other);
    cr_assert(auth_equal(proof, other, sizeof proof));
    prove(&x, AUTH_ROLE_ANSWERER, "run0", other);
    cr_assert_not(auth_equal(proof, other, sizeof proof), "could be reflected");
    prove(&x, AUTH_ROLE_ASKER, "run1", other);
    cr_assert_not(auth_equal(proof, other, sizeof proof));
    changed = x;
    changed.asker[31] ^= 1;
    prove(&changed, AUTH_ROLE_ASKER, "run0", other);
    cr_assert_not(auth_equal(proof, other, sizeof proof));
    changed = x;
    changed.answerer[0] ^= 1;
    prove(&changed, AUTH_ROLE_ASKER, "run0", other);
    cr_assert_not(auth_equal(proof, other, sizeof proof));
    changed = x;
    changed.key[5] ^= 1;
    prove(&changed, AUTH_ROLE_ASKER, "run0", other);
    cr_assert_not(auth_equal(proof, other, sizeof proof));
}

Test(proto_auth, nonces_differ) {
    uint8_t one[AUTH_NONCE_BYTES], two[AUTH_NONCE_BYTES];
    cr_assert_eq(auth_init(), 0);
    auth_nonce(one);
    auth_nonce(two);
    cr_assert_not(auth_equal(one, two, sizeof one));
}

Test(proto_auth, each_direction_has_its_own_session_key) {
    struct exchange x;
    uint8_t asker[AUTH_KEY_BYTES], answerer[AUTH_KEY_BYTES], again[AUTH_KEY_BYTES];
    exchange_init(&x);
    auth_session_key(x.key, AUTH_ROLE_ASKER, x.asker, x.answerer, asker);
    auth_session_key(x.key, AUTH_ROLE_ASKER, x.asker, x.answerer, again);
    auth_session_key(x.key, AUTH_ROLE_ANSWERER, x.asker, x.answerer, answerer);
    cr_assert(auth_equal(asker, again, sizeof asker));
    cr_assert_not(auth_equal(asker, answerer, sizeof asker));
}

Test(proto_auth, a_tag_covers_sequence_and_bytes_but_not_their_division) {
    struct exchange x;
    uint8_t tag[AUTH_TAG_BYTES], other[AUTH_TAG_BYTES];
    const struct auth_part whole[] = {{"headbody", 8}};
    const struct auth_part halves[] = {{"head", 4}, {"body", 4}};
    const struct auth_part changed[] = {{"headbodY", 8}};
    exchange_init(&x);
    auth_tag(x.key, 7, whole, 1, tag);
    auth_tag(x.key, 7, halves, 2, other);
    cr_assert(auth_equal(tag, other, sizeof tag));
    auth_tag(x.key, 8, whole, 1, other);
    cr_assert_not(auth_equal(tag, other, sizeof tag));
    auth_tag(x.key, 7, changed, 1, other);
    cr_assert_not(auth_equal(tag, other, sizeof tag));
}
