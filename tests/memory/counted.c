/* SPDX-License-Identifier: Apache-2.0
 *
 * The functions that the copies of the libraries call in place of malloc() and its kin. The library
 * allocates in threads, too, so that the counters are atomic.
 */
#include "memory/counted.h"

#include <errno.h>
#include <protobuf-c/protobuf-c.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t calls, fails_at, fails_count = 1;
static _Atomic int64_t live;
static _Atomic bool has_failed;
/* The test's own thread, and those that the libraries have made: allocations of others, of a broker
 * that the test plays, never fail. */
static _Thread_local bool is_counted;

void counted_fail_at(uint64_t n) {
    is_counted = true;
    fails_at = n;
    calls = 0;
    has_failed = false;
}

void counted_fail_so_many(uint64_t n) {
    fails_count = n;
}

uint64_t counted_calls(void) {
    return calls;
}

bool counted_has_failed(void) {
    return has_failed;
}

int64_t counted_live(void) {
    return live;
}

static bool counted_fails(void) {
    if (!is_counted)
        return false;
    uint64_t call = ++calls, first = fails_at;
    if (!first || call < first || call >= first + fails_count)
        return false;
    has_failed = true;
    errno = ENOMEM;
    return true;
}

static void *counted_note(void *block) {
    live += block != NULL;
    return block;
}

void *counted_malloc(size_t bytes);
void *counted_malloc(size_t bytes) {
    return counted_fails() ? NULL : counted_note(malloc(bytes ? bytes : 1));
}

void *counted_calloc(size_t count, size_t bytes);
void *counted_calloc(size_t count, size_t bytes) {
    return counted_fails() ? NULL : counted_note(calloc(count ? count : 1, bytes ? bytes : 1));
}

void *counted_realloc(void *block, size_t bytes);
void *counted_realloc(void *block, size_t bytes) {
    if (counted_fails())
        return NULL;
    void *moved = realloc(block, bytes ? bytes : 1);
    if (!block)
        counted_note(moved);
    return moved;
}

void *counted_reallocarray(void *block, size_t count, size_t bytes);
void *counted_reallocarray(void *block, size_t count, size_t bytes) {
    size_t product;
    if (__builtin_mul_overflow(count, bytes, &product))
        return NULL;
    return counted_realloc(block, product);
}

void counted_free(void *block);
void counted_free(void *block) {
    live -= block != NULL;
    free(block);
}

char *counted_strdup(const char *text);
char *counted_strdup(const char *text) {
    return counted_fails() ? NULL : counted_note(strdup(text));
}

char *counted_strndup(const char *text, size_t bytes);
char *counted_strndup(const char *text, size_t bytes) {
    return counted_fails() ? NULL : counted_note(strndup(text, bytes));
}

int counted_vasprintf(char **out, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));
int counted_vasprintf(char **out, const char *format, va_list arguments) {
    if (counted_fails())
        return -1;
    int bytes = vasprintf(out, format, arguments);
    live += bytes >= 0;
    return bytes;
}

int counted_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));
int counted_asprintf(char **out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int bytes = counted_vasprintf(out, format, arguments);
    va_end(arguments);
    return bytes;
}

/* ---- threads ---- */

struct counted_start {
    void *(*run)(void *argument);
    void *argument;
};

static void *counted_run(void *of) {
    struct counted_start start = *(struct counted_start *)of;
    free(of);
    is_counted = true;
    return start.run(start.argument);
}

int counted_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                           void *(*run)(void *argument), void *argument);
int counted_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                           void *(*run)(void *argument), void *argument) {
    struct counted_start *start = malloc(sizeof *start);
    if (!start)
        return EAGAIN;
    *start = (struct counted_start){run, argument};
    int result = pthread_create(out, attributes, counted_run, start);
    if (result)
        free(start);
    return result;
}

/* ---- protobuf: NULL for the allocator means ours ---- */

static void *counted_protobuf_alloc(void *context, size_t bytes) {
    (void)context;
    return counted_malloc(bytes);
}

static void counted_protobuf_free(void *context, void *block) {
    (void)context;
    counted_free(block);
}

static ProtobufCAllocator counted_allocator = {.alloc = counted_protobuf_alloc,
                                               .free = counted_protobuf_free};

ProtobufCMessage *counted_protobuf_c_message_unpack(const ProtobufCMessageDescriptor *descriptor,
                                                    ProtobufCAllocator *allocator, size_t bytes,
                                                    const uint8_t *data);
ProtobufCMessage *counted_protobuf_c_message_unpack(const ProtobufCMessageDescriptor *descriptor,
                                                    ProtobufCAllocator *allocator, size_t bytes,
                                                    const uint8_t *data) {
    return protobuf_c_message_unpack(descriptor, allocator ? allocator : &counted_allocator, bytes,
                                     data);
}

void counted_protobuf_c_message_free_unpacked(ProtobufCMessage *message,
                                              ProtobufCAllocator *allocator);
void counted_protobuf_c_message_free_unpacked(ProtobufCMessage *message,
                                              ProtobufCAllocator *allocator) {
    protobuf_c_message_free_unpacked(message, allocator ? allocator : &counted_allocator);
}
