/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract, clause 11: bytes that changed behind the broker's back are never handed out where
 * the store's policy has them checked. The producer's own writable mapping serves to change them.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "support/checks.h"
#include "support/world.h"

#define MIB 1048576u

/* Commits payload without copying; gives the still writable bytes of its first tensor. */
static uint8_t *put_in_place(struct world *world, const struct payload *payload,
                             struct feature_ref **ref_out) {
    struct feature_reservation *reservation = NULL;
    CHECK_OK(feature_reserve(world->producer, &payload->sample, 0, &reservation));
    for (uint32_t i = 0; i < payload->sample.tensor_count; i++)
        payload_write(payload, reservation, i);
    uint8_t *bytes = feature_reservation_data(reservation, 0);
    CHECK_OK(feature_commit(reservation, ref_out));
    return bytes;
}

static int get_into(struct feature_store *store, const struct feature_ref *ref, void *buffer,
                    size_t room) {
    const char *name = "aux_hidden_state";
    struct iovec into = {.iov_base = buffer, .iov_len = room};
    return feature_get_into(store, by_ref(ref), NULL, &name, &into, 1, FEATURE_RELEASE_RETURNED);
}

CONTRACT_TWO_NODES(c11_integrity, "[store run]\n") {
    static uint8_t copy[2 * MIB];
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 1, MIB);
    uint8_t *bytes = put_in_place(world, &payload, &ref);
    CHECK(feature_ref_has_checksums(ref), "no checksums");
    bytes[payload.tensors[0].bytes / 2] ^= 1;
    CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->consumer, by_ref(ref), 20000));
    CHECK_SAYS("s1");
    CHECK_SAYS("aux_hidden_state");
    memset(copy, 0xaa, sizeof copy);
    CHECK_STATUS(FEATURE_E_CORRUPT, get_into(world->consumer, ref, copy, sizeof copy));
    CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->consumer, by_id("s1"), 20000));

    /* what was damaged on its way is not kept: the next read is of the home's bytes */
    bytes[payload.tensors[0].bytes / 2] ^= 1;
    CHECK_OK(get_into(world->consumer, ref, copy, sizeof copy));
    CHECK(memcmp(copy, payload.data[0].iov_base, payload.data[0].iov_len) == 0, "other bytes");
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c11_integrity_always, "[store run]\nchecksum = always\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 2, MIB);
    uint8_t *bytes = put_in_place(world, &payload, &ref);
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_RETURNED);
    bytes[0] ^= 0x80;
    CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->consumer, by_ref(ref), 20000));
    CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->producer, by_ref(ref), 20000));
    bytes[0] ^= 0x80;
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

CONTRACT(c11_integrity_never, "[store run]\nchecksum = never\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 3, MIB);
    uint8_t *bytes = put_in_place(world, &payload, &ref);
    CHECK(!feature_ref_has_checksums(ref), "checksums were made");
    bytes[0] ^= 0x80;
    CHECK_OK(world_try_get(world->consumer, by_ref(ref), 20000)); /* nobody looks */
    bytes[0] ^= 0x80;
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}

/* Inline samples (up to 64 KiB) take another road over the network. */
CONTRACT_TWO_NODES(c11_integrity_of_small_samples, "[store run]\n") {
    struct payload payload;
    struct feature_ref *ref = NULL;
    payload_init(&payload, "s1", 4, 3000);
    uint8_t *bytes = put_in_place(world, &payload, &ref);
    bytes[0] ^= 1;
    CHECK_STATUS(FEATURE_E_CORRUPT, world_try_get(world->consumer, by_ref(ref), 20000));
    bytes[0] ^= 1;
    payload_check_get(&payload, world->consumer, by_ref(ref), FEATURE_RELEASE_CONSUMED);
    world_settle(world);
    feature_ref_free(ref);
    payload_deinit(&payload);
}
