/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPU for a test: real when $FEATURE_TEST_LIBCUDA names a driver (make check-gpu says
 * libcuda.so.1), else the fake of tests/cuda/fake. The driver is loaded by the test, as it would be
 * by a program that uses CUDA, and found by the library.
 */
#ifndef FEATURED_TESTS_CUDA_DEVICE_H
#define FEATURED_TESTS_CUDA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/payload.h"

#define DEVICE_LEGACY_STREAM ((void *)1) /* CU_STREAM_LEGACY */

/* Loads and initialises the driver; its primary context is current in this thread. */
void device_load(void);
bool device_is_fake(void);
void device_leave_context(void); /* this thread has none from now on */

void *device_alloc(size_t bytes);
void device_free(void *device);
void device_write(void *device, const void *from, size_t bytes);
void device_read(void *to, const void *device, size_t bytes);

void *device_stream(void);
void device_stream_free(void *stream);
bool device_stream_idle(void *stream);
/* Queues on the stream: 50 ms of nothing; all bytes of this memory become `value`; a copy. */
void device_queue_delay(void *stream);
void device_queue_fill(void *stream, void *device, uint8_t value, size_t bytes);
void device_queue_copy(void *stream, void *host, const void *device, size_t bytes);
/* The driver knows this host memory: a registration has ended. */
bool device_knows_host(const void *host);

/* A function of the fake, or NULL. */
typedef void (*device_function)(void);
device_function device_fake(const char *name);
void device_plant(const char *function, unsigned after, int result);
unsigned device_registered(void);
/* Fails the test if the fake saw what CUDA would not forgive, or a context was left pushed. */
void device_check(void);

/* The payload's tensors in device memory: parts[i] as in payload->data. */
void device_parts(const struct payload *payload, struct iovec *parts, bool fill);
void device_parts_free(struct iovec *parts, uint32_t count);
/* NULL, or the name of the first tensor whose bytes there differ from the payload's. */
const char *device_difference(const struct payload *payload, const struct iovec *parts);

#endif
