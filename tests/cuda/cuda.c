/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples whose bytes lie in a GPU's memory, with a real broker, and a fake GPU or a real one. On
 * the fake, touching device memory with the processor ends the test.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "support/checks.h"
#include "support/world.h"

#define KIB   1024u
#define MIB   1048576u
#define STORE "[store run]\nchecksum = always\nmax_resident_bytes = 32MiB\n"
#define WITH_GPU(NAME)                                                                             \
    static void NAME(struct world *world);                                                         \
    Test(cuda, NAME, .timeout = 60) {                                                              \
        device_load();                                                                             \
        world_run(1, STORE, NAME);                                                                 \
        device_check();                                                                            \
    }                                                                                              \
    static void NAME(struct world *world)

/* Puts a sample whose tensors are all on the GPU, and reads it back through the mapping. */
static void put_and_check(struct world *world, const char *sample_id, uint64_t bytes) {
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    payload_init(&payload, sample_id, bytes, bytes);
    device_parts(&payload, parts, true);
    CHECK_OK(feature_put(world->producer, &payload.sample, parts, 10000, NULL));
    payload_check_get(&payload, world->consumer, by_id(sample_id), FEATURE_RELEASE_CONSUMED);
    device_parts_free(parts, payload.sample.tensor_count);
    payload_deinit(&payload);
}

WITH_GPU(put_takes_device_memory) {
    put_and_check(world, "small", 4 * KIB); /* would travel in the message */
    put_and_check(world, "large", 5 * MIB);
}

/* The host sample is inline and is collected; the mixed one goes by itself, behind it. */
WITH_GPU(put_takes_both_kinds_in_one_sample_and_one_batch) {
    struct payload host, mixed;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    payload_init(&host, "host", 1, 3 * KIB);
    payload_init(&mixed, "mixed", 2, 3 * KIB);
    device_parts(&mixed, parts, true);
    struct iovec some[PAYLOAD_TENSORS_MAX];
    memcpy(some, mixed.data, sizeof some);
    some[1] = parts[1];
    struct feature_put_item items[] = {
        {.size = sizeof *items, .sample = &host.sample, .data = host.data},
        {.size = sizeof *items, .sample = &mixed.sample, .data = some}};
    CHECK_OK(feature_put_batch(world->producer, items, 2, 10000));
    for (int i = 0; i < 2; i++)
        feature_ref_free(items[i].ref);
    payload_check_get(&host, world->consumer, by_id("host"), FEATURE_RELEASE_CONSUMED);
    payload_check_get(&mixed, world->consumer, by_id("mixed"), FEATURE_RELEASE_CONSUMED);
    device_parts_free(parts, mixed.sample.tensor_count);
    payload_deinit(&mixed);
    payload_deinit(&host);
}

/* The stream is busy when the call comes: its fill must not win over the sample. Afterwards the
 * stream is idle: no copy is left that could write into a buffer which the program uses again. */
WITH_GPU(get_into_writes_device_memory_and_nothing_later) {
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    void *stream = device_stream();
    payload_init(&payload, "s1", 3, 2 * MIB);
    device_parts(&payload, parts, false);
    const struct feature_get_options on_stream = {.size = sizeof on_stream, .cuda_stream = stream};
    for (int round = 0; round < 2; round++) {
        CHECK_OK(payload_put(&payload, world->producer, 10000, NULL));
        device_queue_delay(stream); /* what was queued before is not to win */
        device_queue_fill(stream, parts[0].iov_base, 0x55, parts[0].iov_len);
        CHECK_OK(feature_get_into(world->consumer, by_id("s1"), &on_stream, NULL, parts,
                                  payload.sample.tensor_count, FEATURE_RELEASE_CONSUMED));
        CHECK(device_stream_idle(stream), "the call has returned and its stream is not done");
        CHECK(!device_difference(&payload, parts), "tensor %s", device_difference(&payload, parts));
    }
    CHECK_OK(payload_put(&payload, world->producer, 10000, NULL));
    CHECK_OK(feature_get_into(world->consumer, by_id("s1"), NULL, NULL, parts,
                              payload.sample.tensor_count, FEATURE_RELEASE_CONSUMED));
    CHECK(device_stream_idle(DEVICE_LEGACY_STREAM), "the default stream is not done");
    CHECK(!device_difference(&payload, parts), "tensor %s", device_difference(&payload, parts));
    device_parts_free(parts, payload.sample.tensor_count);
    device_stream_free(stream);
    payload_deinit(&payload);
}

/* Every byte of the first tensor. */
static void check_filled(struct world *world, uint8_t value) {
    struct feature_view *view = NULL;
    CHECK_OK(feature_get(world->consumer, by_id("s1"), NULL, &view));
    const uint8_t *data = feature_view_data(view, 0);
    for (uint64_t i = 0; i < feature_ref_tensor(feature_view_ref(view), 0)->bytes; i++)
        CHECK(data[i] == value, "byte %zu is 0x%02x", (size_t)i, data[i]);
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
}

/* The first tensor is filled by work that is queued and has not begun. */
WITH_GPU(put_waits_for_what_its_stream_still_computes) {
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    void *stream = device_stream();
    payload_init(&payload, "s1", 4, MIB);
    device_parts(&payload, parts, true);
    payload.sample.cuda_stream = stream;
    device_queue_delay(stream);
    device_queue_fill(stream, parts[0].iov_base, 0x77, parts[0].iov_len);
    CHECK_OK(feature_put(world->producer, &payload.sample, parts, 10000, NULL));
    check_filled(world, 0x77);
    device_parts_free(parts, payload.sample.tensor_count);
    device_stream_free(stream);
    payload_deinit(&payload);
}

/* checksum = always: were the checksums made of bytes that have not come yet, the get would fail.
 */
WITH_GPU(commit_waits_for_copies_that_the_program_has_queued) {
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    struct feature_reservation *reservation = NULL;
    void *stream = device_stream();
    payload_init(&payload, "s1", 5, MIB);
    device_parts(&payload, parts, true);
    payload.sample.cuda_stream = stream;
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 10000, &reservation));
    device_queue_delay(stream);
    for (uint32_t i = 0; i < payload.sample.tensor_count; i++)
        device_queue_copy(stream, feature_reservation_data(reservation, i), parts[i].iov_base,
                          parts[i].iov_len);
    CHECK_OK(feature_commit(reservation, NULL));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    device_parts_free(parts, payload.sample.tensor_count);
    device_stream_free(stream);
    payload_deinit(&payload);
}

/* The producer maps the arena for writing, the consumer read-only: the driver must know both
 * mappings. A copy into a registered range works as well. */
WITH_GPU(the_arena_is_registered_for_writers_and_readers) {
    struct payload payload;
    struct feature_view *view = NULL;
    struct feature_reservation *reservation = NULL;
    payload_init(&payload, "s1", 6, MIB);
    CHECK_OK(feature_reserve(world->producer, &payload.sample, 10000, &reservation));
    WAIT_UNTIL(device_knows_host(feature_reservation_data(reservation, 0)), 20000);
    feature_cancel(reservation);
    CHECK_OK(payload_put(&payload, world->producer, 10000, NULL));
    CHECK_OK(feature_get(world->consumer, by_id("s1"), NULL, &view));
    WAIT_UNTIL(device_knows_host(feature_view_data(view, 0)), 20000);
    CHECK_OK(feature_release(view, FEATURE_RELEASE_CONSUMED));
    put_and_check(world, "from a registered arena", 2 * MIB);
    payload_deinit(&payload);
}

/* A thread of a pool: CUDA is initialised, but no context is current in it. */
static void *put_without_context(void *argument) {
    struct world *world = argument;
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    payload_init(&payload, "s1", 7, MIB);
    device_load();
    device_parts(&payload, parts, true);
    device_leave_context();
    CHECK_OK(feature_put(world->producer, &payload.sample, parts, 10000, NULL));
    device_check();
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    return NULL;
}

WITH_GPU(a_thread_without_a_context_can_put) {
    pthread_t thread;
    pthread_create(&thread, NULL, put_without_context, world);
    pthread_join(thread, NULL);
}

/* Refused by the driver, in words that name the sample and the tensor; nothing of it is visible. */
WITH_GPU(a_pointer_past_its_allocation_is_refused) {
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    payload_init(&payload, "s1", 8, 8 * MIB);
    memcpy(parts, payload.data, sizeof parts);
    parts[0].iov_base = device_alloc(MIB); /* the tensor has about 6 MiB */
    CHECK_STATUS(FEATURE_E_INVALID,
                 feature_put(world->producer, &payload.sample, parts, 10000, NULL));
    CHECK_SAYS("put sample s1: CUDA's cuMemcpyDtoHAsync");
    CHECK_SAYS("aux_hidden_state");
    CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->producer, by_id("s1")));
    device_free(parts[0].iov_base);
    payload_deinit(&payload);
}

/* Runs in the child: DataLoader forks its workers, also in a program that has used the GPU. */
static int put_in_child(int channel, void *argument) {
    struct world *world = argument;
    struct payload payload;
    (void)channel;
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "child", 14, MIB);
    CHECK_OK(payload_put(&payload, store, 10000, NULL));
    payload_check_get(&payload, store, by_id("child"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    feature_disconnect(feature);
    return 0;
}

/* CUDA does not work in a forked child: every call of the driver fails there. Plain memory does not
 * need it. */
WITH_GPU(a_forked_child_puts_plain_memory) {
    struct process child;
    put_and_check(world, "parent", MIB);
    process_fork(&child, put_in_child, world);
    process_join(&child, 30000);
    put_and_check(world, "parent again", MIB);
}

/* ---- with the fake alone ---- */

#define FAKE_ONLY()                                                                                \
    if (!device_is_fake())                                                                         \
    return

/* Two tensors are under way when the third fails: the call waits for them before it returns. A get
 * that fails consumes nothing. */
WITH_GPU(a_copy_that_fails_half_way_leaves_nothing_under_way) {
    FAKE_ONLY();
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    void *stream = device_stream();
    payload_init(&payload, "s1", 9, MIB);
    device_parts(&payload, parts, true);
    payload.sample.cuda_stream = stream;
    device_plant("cuMemcpyDtoHAsync", 2, 700);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE,
                 feature_put(world->producer, &payload.sample, parts, 10000, NULL));
    CHECK_SAYS("CUDA_ERROR_PLANTED (700)");
    CHECK(device_stream_idle(stream), "a copy is under way after its put has failed");
    CHECK_OK(feature_put(world->producer, &payload.sample, parts, 10000, NULL));

    const struct feature_get_options options = {.size = sizeof options, .cuda_stream = stream};
    device_plant("cuMemcpyHtoDAsync", 2, 700);
    CHECK_STATUS(FEATURE_E_UNAVAILABLE,
                 feature_get_into(world->consumer, by_id("s1"), &options, NULL, parts,
                                  payload.sample.tensor_count, FEATURE_RELEASE_CONSUMED));
    CHECK(device_stream_idle(stream), "a copy is under way after its get has failed");
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    device_parts_free(parts, payload.sample.tensor_count);
    device_stream_free(stream);
    payload_deinit(&payload);
}

/* CUDA_ERROR_OUT_OF_MEMORY is FULL; the sentence names the function; nothing is put. */
WITH_GPU(every_call_of_the_driver_may_fail) {
    FAKE_ONLY();
    static const char *const calls[] = {"cuStreamSynchronize", "cuCtxPushCurrent",
                                        "cuMemcpyDtoHAsync"};
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    void *stream = device_stream();
    payload_init(&payload, "s1", 10, MIB);
    device_parts(&payload, parts, true);
    payload.sample.cuda_stream = stream;
    put_and_check(world, "warm", KIB);
    WAIT_UNTIL(device_registered() >= 1, 20000);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        device_plant(calls[i], 0, 2);
        CHECK_STATUS(FEATURE_E_FULL,
                     feature_put(world->producer, &payload.sample, parts, 10000, NULL));
        CHECK_SAYS(calls[i]);
        CHECK_STATUS(FEATURE_E_NOT_FOUND, feature_exists(world->producer, by_id("s1")));
    }
    device_parts_free(parts, payload.sample.tensor_count);
    device_stream_free(stream);
    payload_deinit(&payload);
}

static void note_warning(void *context, enum feature_log_level level, const char *sentence) {
    if (level == FEATURE_LOG_WARNING)
        snprintf(context, 512, "%s", sentence);
}

/* CUDA_ERROR_NOT_SUPPORTED, as on a platform that registers no read-only memory. The warning comes
 * with the first call after the thread has given up. */
WITH_GPU(a_registration_that_fails_is_told_and_copies_go_on) {
    FAKE_ONLY();
    static char warning[512];
    struct feature *feature = NULL;
    struct feature_store *store = NULL;
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    payload_init(&payload, "s1", 11, MIB);
    device_parts(&payload, parts, true);
    WAIT_UNTIL(device_registered() == 3, 20000); /* the world's own */
    device_plant("cuMemHostRegister", 0, 801);
    CHECK_OK(feature_connect(
        &(const struct feature_options){.size = sizeof(struct feature_options),
                                        .socket_path = world->cluster.nodes[0].socket_path,
                                        .log = note_warning,
                                        .log_context = warning},
        &feature));
    CHECK_OK(feature_store_open(feature, "run", NULL, &store));
    for (int i = 0; i < 200 && !warning[0]; i++) {
        CHECK_OK(feature_put(store, &payload.sample, parts, 10000, NULL));
        check_pause(5);
    }
    CHECK(strstr(warning, "could not be registered") && strstr(warning, "(801)"), "%s", warning);
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    feature_disconnect(feature);
    device_parts_free(parts, payload.sample.tensor_count);
    payload_deinit(&payload);
}

/* The world's three stores are registered, this one is not, and copies all the same. */
WITH_GPU(a_store_may_be_opened_without_registration) {
    FAKE_ONLY();
    struct feature *feature = cluster_connect(&world->cluster, 0);
    struct feature_store *store = NULL;
    struct payload payload;
    struct iovec parts[PAYLOAD_TENSORS_MAX];
    WAIT_UNTIL(device_registered() == 3, 20000);
    const struct feature_open_options unpinned = {.size = sizeof unpinned, .cuda_unpinned = true};
    CHECK_OK(feature_store_open(feature, "run", &unpinned, &store));
    payload_init(&payload, "s1", 12, MIB);
    device_parts(&payload, parts, true);
    CHECK_OK(feature_put(store, &payload.sample, parts, 10000, NULL));
    payload_check_get(&payload, world->consumer, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    unsigned (*registrations)(void) = (unsigned (*)(void))device_fake("fake_cuda_registrations");
    CHECK(registrations() == 3, "%u registrations", registrations());
    feature_disconnect(feature);
    device_parts_free(parts, payload.sample.tensor_count);
    payload_deinit(&payload);
}

/* Also where the registering thread is the last to hold the mapping. The fake complains when memory
 * that is no longer mapped is unregistered. */
Test(cuda, arenas_are_unregistered_before_they_are_unmapped, .timeout = 60) {
    struct cluster cluster;
    device_load();
    FAKE_ONLY();
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = STORE});
    struct feature *feature = cluster_connect(&cluster, 0);
    feature_store_close(cluster_open(feature, "run", true));
    (void)cluster_open(feature, "run", false);
    feature_disconnect(feature);
    WAIT_UNTIL(device_registered() == 0, 20000);
    device_check();
    cluster_stop(&cluster);
}

/* No driver is loaded in this process: a stream can only be a mistake. */
Test(cuda, a_stream_without_a_driver_is_refused, .timeout = 60) {
    struct cluster cluster;
    struct payload payload;
    cluster_start(&cluster, &(struct cluster_options){.nodes = 1, .ini = STORE});
    struct feature *feature = cluster_connect(&cluster, 0);
    struct feature_store *store = cluster_open(feature, "run", false);
    payload_init(&payload, "s1", 13, KIB);
    payload.sample.cuda_stream = DEVICE_LEGACY_STREAM;
    CHECK_STATUS(FEATURE_E_INVALID, payload_put(&payload, store, 10000, NULL));
    CHECK_SAYS("put sample s1: a CUDA stream was named");
    payload.sample.cuda_stream = NULL;
    CHECK_OK(payload_put(&payload, store, 10000, NULL));
    payload_check_get(&payload, store, by_id("s1"), FEATURE_RELEASE_CONSUMED);
    payload_deinit(&payload);
    feature_disconnect(feature);
    cluster_stop(&cluster);
}
