/* SPDX-License-Identifier: Apache-2.0
 *
 * A fake broker, a connection to it and an open store, for the client_*.c tests.
 */
#ifndef FEATURED_TESTS_UNIT_CLIENT_FIXTURE_H
#define FEATURED_TESTS_UNIT_CLIENT_FIXTURE_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feature.h"
#include "support/fake_broker.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        cr_assert_eq(rc_, FEATURE_OK, "%s: %s: %s", #call, feature_strerror(rc_),                  \
                     feature_last_error());                                                        \
    } while (0)
#define FAILS(error, call)                                                                         \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        cr_assert_eq(rc_, (error), "%s: %s instead of %s: %s", #call, feature_strerror(rc_),       \
                     feature_strerror(error), feature_last_error());                               \
    } while (0)
#define SAYS(word)                                                                                 \
    cr_assert(strstr(feature_last_error(), word), "no '%s' in '%s'", word, feature_last_error())

struct fixture {
    struct fake_broker broker;
    struct feature *feature;
    struct feature_store *store;
};

static inline int fixture_connect(struct fixture *f) {
    struct feature_options options = {.size = sizeof options,
                                      .socket_path = f->broker.path,
                                      .client_name = "unit-test",
                                      .connect_timeout_ms = 10000};
    return feature_connect(&options, &f->feature);
}

/* Broker running, connected, store open. */
static inline struct fixture *fixture_new(void) {
    struct fixture *f = calloc(1, sizeof *f);
    cr_assert(f);
    fake_broker_init(&f->broker);
    fake_broker_start(&f->broker);
    OK(fixture_connect(f));
    OK(feature_store_open(f->feature, FAKE_STORE, NULL, &f->store));
    return f;
}

static inline void fixture_free(struct fixture *f) {
    feature_disconnect(f->feature);
    fake_broker_deinit(&f->broker);
    free(f);
}

/* One sample of two U8 tensors, "a" of `bytes` and "b" of 100. */
struct two_tensors {
    struct feature_tensor tensors[2];
    struct feature_sample sample;
    uint8_t *a, b[100];
    struct iovec data[2];
};

static inline void two_tensors_init(struct two_tensors *s, const char *id, size_t bytes,
                                    uint8_t seed) {
    s->a = malloc(bytes);
    cr_assert(s->a);
    for (size_t i = 0; i < bytes; i++)
        s->a[i] = (uint8_t)(i * 7 + (i >> 8) + seed);
    memset(s->b, seed, sizeof s->b);
    s->tensors[0] = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                            .name = "a",
                                            .dtype = FEATURE_DTYPE_U8,
                                            .rank = 1,
                                            .shape = {bytes}};
    s->tensors[1] = (struct feature_tensor){.size = sizeof(struct feature_tensor),
                                            .name = "b",
                                            .dtype = FEATURE_DTYPE_BF16,
                                            .rank = 2,
                                            .shape = {5, 10}};
    s->sample = (struct feature_sample){.size = sizeof s->sample,
                                        .sample_id = id,
                                        .tensors = s->tensors,
                                        .tensor_count = 2,
                                        .metadata = "meta",
                                        .metadata_bytes = 4};
    s->data[0] = (struct iovec){.iov_base = s->a, .iov_len = bytes};
    s->data[1] = (struct iovec){.iov_base = s->b, .iov_len = sizeof s->b};
}

static inline void two_tensors_deinit(struct two_tensors *s) {
    free(s->a);
}

static inline struct feature_ref *put_two_tensors(struct feature_store *store, const char *id,
                                                  size_t bytes, uint8_t seed) {
    struct two_tensors s;
    struct feature_ref *ref = NULL;
    two_tensors_init(&s, id, bytes, seed);
    OK(feature_put(store, &s.sample, s.data, 1000, &ref));
    two_tensors_deinit(&s);
    return ref;
}

static inline void assert_two_tensors(const struct feature_view *view, size_t bytes, uint8_t seed) {
    struct two_tensors s;
    two_tensors_init(&s, "", bytes, seed);
    cr_assert_arr_eq((const uint8_t *)feature_view_data(view, 0), s.a, bytes);
    cr_assert_arr_eq((const uint8_t *)feature_view_data(view, 1), s.b, sizeof s.b);
    cr_assert_null(feature_view_data(view, 2));
    two_tensors_deinit(&s);
}

#endif
