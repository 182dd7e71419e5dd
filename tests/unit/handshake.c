/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/handshake.h"

#include <criterion/criterion.h>
#include <string.h>

static const uint8_t secret[AUTH_KEY_BYTES] = "secret", other_secret[AUTH_KEY_BYTES] = "other";
static const uint8_t nonce_a[AUTH_NONCE_BYTES] = "a", nonce_b[AUTH_NONCE_BYTES] = "b";

struct pair {
    struct handshake a, b; /* asker, answerer */
    size_t piece_bytes;    /* how much travels at once */
    uint8_t to_b[2048];    /* everything a sent */
    size_t to_b_bytes;
};

static void pair_init(struct pair *p, const uint8_t *key_a, const uint8_t *key_b,
                      enum handshake_kind kind, uint64_t id) {
    struct handshake_params ask = {key_a, "asker", 5}, answer = {key_b, "answerer", 8};
    cr_assert_eq(auth_init(), 0);
    memset(p, 0, sizeof *p);
    p->piece_bytes = SIZE_MAX;
    handshake_ask(&p->a, &ask, kind, id, nonce_a);
    handshake_answer(&p->b, &answer, nonce_b);
}

/* Moves one piece; false when nothing moved. */
static bool move(struct pair *p, struct handshake *from, struct handshake *to) {
    const uint8_t *out;
    uint8_t *into;
    size_t bytes = handshake_output(from, &out), want = handshake_want(to, &into);
    bytes = bytes < want ? bytes : want;
    bytes = bytes < p->piece_bytes ? bytes : p->piece_bytes;
    if (bytes == 0)
        return false;
    memcpy(into, out, bytes);
    if (to == &p->b) {
        memcpy(p->to_b + p->to_b_bytes, out, bytes);
        p->to_b_bytes += bytes;
    }
    handshake_sent(from, bytes);
    handshake_received(to, bytes);
    return true;
}

static void run(struct pair *p) {
    while (move(p, &p->a, &p->b) || move(p, &p->b, &p->a))
        ;
}

static void run_accepting(struct pair *p, uint64_t id) {
    run(p);
    cr_assert_eq(p->b.state, HANDSHAKE_PROVEN, "%s", p->b.why);
    handshake_accept(&p->b, id);
    run(p);
}

static void expect_keys_match(struct pair *p) {
    uint8_t a_send[AUTH_KEY_BYTES], a_receive[AUTH_KEY_BYTES];
    uint8_t b_send[AUTH_KEY_BYTES], b_receive[AUTH_KEY_BYTES];
    cr_assert_eq(p->a.state, HANDSHAKE_DONE, "%s", p->a.why);
    cr_assert_eq(p->b.state, HANDSHAKE_DONE);
    handshake_keys(&p->a, a_send, a_receive);
    handshake_keys(&p->b, b_send, b_receive);
    cr_assert_arr_eq(a_send, b_receive, AUTH_KEY_BYTES);
    cr_assert_arr_eq(b_send, a_receive, AUTH_KEY_BYTES);
    cr_assert(memcmp(a_send, b_send, AUTH_KEY_BYTES) != 0, "one key for both directions");
}

Test(handshake, both_sides_prove_themselves) {
    struct pair p;
    pair_init(&p, secret, secret, HANDSHAKE_CONTROL, 0);
    run_accepting(&p, 77);
    expect_keys_match(&p);
    cr_assert_eq(p.a.connection_id, 77);
    cr_assert_eq(p.b.kind, HANDSHAKE_CONTROL);
    cr_assert_eq(p.a.theirs.bytes, 8);
    cr_assert_arr_eq(p.a.theirs.data, "answerer", 8);
    cr_assert_eq(p.b.theirs.bytes, 5);
    cr_assert_arr_eq(p.b.theirs.data, "asker", 5);
}

Test(handshake, works_in_pieces_of_any_size) {
    for (size_t piece = 1; piece < 100; piece++) {
        struct pair p;
        pair_init(&p, secret, secret, HANDSHAKE_BULK, 42);
        p.piece_bytes = piece;
        run_accepting(&p, 42);
        expect_keys_match(&p);
        cr_assert_eq(p.b.connection_id, 42);
    }
}

Test(handshake, works_without_a_secret_on_both_sides) {
    struct pair p;
    pair_init(&p, NULL, NULL, HANDSHAKE_CONTROL, 0);
    run_accepting(&p, 1);
    expect_keys_match(&p);
}

static void expect_both_fail(struct pair *p, const char *why_a, const char *why_b) {
    run(p);
    cr_assert_eq(p->a.state, HANDSHAKE_FAILED);
    cr_assert_eq(p->b.state, HANDSHAKE_FAILED);
    cr_assert(strstr(p->a.why, why_a) != NULL, "asker: %s", p->a.why);
    cr_assert(strstr(p->b.why, why_b) != NULL, "answerer: %s", p->b.why);
}

Test(handshake, wrong_secret_fails_on_both_sides) {
    struct pair p;
    pair_init(&p, other_secret, secret, HANDSHAKE_CONTROL, 0);
    expect_both_fail(&p, "wrong cluster secret", "wrong cluster secret");
}

Test(handshake, missing_secret_is_named_on_both_sides) {
    struct pair p;
    pair_init(&p, NULL, secret, HANDSHAKE_CONTROL, 0);
    expect_both_fail(&p, "none is configured here", "configured here but not on the other side");
    pair_init(&p, secret, NULL, HANDSHAKE_CONTROL, 0);
    expect_both_fail(&p, "configured here but not on the other side", "none is configured here");
}

Test(handshake, refusal_says_why) {
    struct pair p;
    pair_init(&p, secret, secret, HANDSHAKE_BULK, 5);
    run(&p);
    handshake_refuse(&p.b, HANDSHAKE_REFUSE_CONNECTION);
    expect_both_fail(&p, "no longer knows this connection", "unknown connection");
}

/* Nothing an unproven asker is told depends on the secret or on the node. */
Test(handshake, stranger_learns_nothing) {
    struct pair keyed, other;
    const uint8_t *out_keyed, *out_other;
    pair_init(&keyed, secret, secret, HANDSHAKE_CONTROL, 0);
    pair_init(&other, other_secret, other_secret, HANDSHAKE_CONTROL, 0);
    cr_assert(move(&keyed, &keyed.a, &keyed.b) && move(&keyed, &keyed.a, &keyed.b));
    cr_assert(move(&other, &other.a, &other.b) && move(&other, &other.a, &other.b));
    size_t bytes = handshake_output(&keyed.b, &out_keyed);
    cr_assert_gt(bytes, 0);
    cr_assert_eq(handshake_output(&other.b, &out_other), bytes);
    cr_assert_arr_eq(out_keyed, out_other, bytes);
    cr_assert_null(memmem(out_keyed, bytes, "answerer", 8));
}

/* Plays recorded bytes to a fresh answerer with another nonce. */
Test(handshake, recorded_proof_does_not_work_again) {
    struct pair p;
    struct handshake again;
    struct handshake_params params = {secret, "answerer", 8};
    uint8_t *into;
    const uint8_t *out;
    size_t at = 0, want;
    pair_init(&p, secret, secret, HANDSHAKE_CONTROL, 0);
    run_accepting(&p, 1);
    handshake_answer(&again, &params, nonce_a);
    while ((want = handshake_want(&again, &into)) > 0) {
        cr_assert_leq(at + want, p.to_b_bytes);
        memcpy(into, p.to_b + at, want);
        handshake_received(&again, want);
        at += want;
        handshake_sent(&again, handshake_output(&again, &out));
        if (again.state != HANDSHAKE_BUSY)
            break;
    }
    cr_assert_eq(again.state, HANDSHAKE_FAILED);
    cr_assert_str_eq(again.why, "wrong cluster secret");
}

/* Every single bit of what the asker sends matters, but for bits that say nothing. */
Test(handshake, any_flipped_bit_of_the_asker_is_noticed) {
    struct pair honest;
    pair_init(&honest, secret, secret, HANDSHAKE_CONTROL, 0);
    run_accepting(&honest, 1);
    for (size_t bit = 0; bit < honest.to_b_bytes * 8; bit++) {
        struct handshake b;
        struct handshake_params params = {secret, "answerer", 8};
        uint8_t *into, bytes[2048];
        const uint8_t *out;
        size_t at = 0, want;
        bool reserved = bit / 8 == 9 ? bit % 8 != 0 : bit / 8 == 10 || bit / 8 == 11;
        memcpy(bytes, honest.to_b, honest.to_b_bytes);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        handshake_answer(&b, &params, nonce_b);
        while ((want = handshake_want(&b, &into)) > 0 && at + want <= honest.to_b_bytes) {
            memcpy(into, bytes + at, want);
            handshake_received(&b, want);
            at += want;
            handshake_sent(&b, handshake_output(&b, &out));
        }
        cr_assert_eq(b.state == HANDSHAKE_PROVEN, reserved, "bit %zu of byte %zu", bit % 8,
                     bit / 8);
    }
}

/* A proof of the answerer cannot be turned round and used as an asker's. */
Test(handshake, reflected_messages_do_not_prove_anything) {
    struct pair p;
    const uint8_t *hello;
    uint8_t *into;
    pair_init(&p, secret, secret, HANDSHAKE_CONTROL, 0);
    size_t bytes = handshake_output(&p.a, &hello), want = handshake_want(&p.a, &into);
    cr_assert_eq(want, 0, "the asker listens before it has spoken");
    uint8_t copy[HANDSHAKE_MESSAGE_BYTES_MAX];
    memcpy(copy, hello, bytes);
    handshake_sent(&p.a, bytes);
    want = handshake_want(&p.a, &into);
    memcpy(into, copy, want);
    handshake_received(&p.a, want);
    cr_assert_eq(p.a.state, HANDSHAKE_FAILED);
}

Test(handshake, oversized_and_empty_bodies_fail) {
    static const uint16_t sizes[] = {0, 1, 43, 45, 512, 600, UINT16_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct handshake b;
        struct handshake_params params = {secret, "answerer", 8};
        uint8_t *into, header[] = {'F', 'B', 'P', 'H', 1, HANDSHAKE_VERSION, 0, 0};
        handshake_answer(&b, &params, nonce_b);
        memcpy(header + 6, &sizes[i], 2);
        cr_assert_eq(handshake_want(&b, &into), sizeof header);
        memcpy(into, header, sizeof header);
        handshake_received(&b, sizeof header);
        cr_assert_eq(b.state, HANDSHAKE_FAILED, "body of %u bytes", sizes[i]);
    }
}

Test(handshake, other_version_is_named) {
    struct handshake b;
    struct handshake_params params = {secret, "answerer", 8};
    uint8_t *into, header[] = {'F', 'B', 'P', 'H', 1, HANDSHAKE_VERSION + 1, 44, 0};
    const uint8_t *out;
    handshake_answer(&b, &params, nonce_b);
    handshake_want(&b, &into);
    memcpy(into, header, sizeof header);
    handshake_received(&b, sizeof header);
    cr_assert_eq(b.state, HANDSHAKE_FAILED);
    cr_assert(strstr(b.why, "version 2") != NULL, "%s", b.why);
    cr_assert_gt(handshake_output(&b, &out), 0, "the asker is not told");
}

Test(handshake, nothing_is_read_while_an_answer_waits) {
    struct pair p;
    uint8_t *into;
    pair_init(&p, secret, secret, HANDSHAKE_CONTROL, 0);
    cr_assert(move(&p, &p.a, &p.b) && move(&p, &p.a, &p.b));
    cr_assert_eq(handshake_want(&p.b, &into), 0);
}

Test(handshake, largest_hellos_fit) {
    static const uint8_t big[TRANSPORT_HELLO_BYTES_MAX] = {1};
    struct pair p;
    struct handshake_params params = {secret, big, sizeof big};
    pair_init(&p, secret, secret, HANDSHAKE_CONTROL, 0);
    handshake_ask(&p.a, &params, HANDSHAKE_CONTROL, 0, nonce_a);
    handshake_answer(&p.b, &params, nonce_b);
    run_accepting(&p, 3);
    expect_keys_match(&p);
    cr_assert_eq(p.a.theirs.bytes, sizeof big);
}
