/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiler's baseline (SSE2 on x86-64, 18 GB/s) or AVX2 (35 GB/s), by what the processor has.
 * Both give the same sums.
 */
#include "checksum.h"

#include "checksum_kernel.h"

static const struct checksum_kernel baseline = CHECKSUM_KERNEL;

static const struct checksum_kernel *checksum_kernel(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return &fc_checksum_avx2;
#endif
    return &baseline;
}

uint64_t fc_checksum(const void *data, size_t bytes) {
    return checksum_kernel()->sum(data, bytes);
}

uint64_t fc_checksum_copy(void *to, const void *from, size_t bytes) {
    struct fc_checksum_stream stream;
    fc_checksum_begin(&stream);
    fc_checksum_add_copy(&stream, to, from, bytes);
    return fc_checksum_end(&stream);
}

void fc_checksum_add_copy(struct fc_checksum_stream *stream, void *to, const void *from,
                          size_t bytes) {
    checksum_kernel()->copy(stream, to, from, bytes);
}

void fc_checksum_begin(struct fc_checksum_stream *stream) {
    checksum_kernel()->begin(stream);
}

void fc_checksum_add(struct fc_checksum_stream *stream, const void *data, size_t bytes) {
    checksum_kernel()->add(stream, data, bytes);
}

uint64_t fc_checksum_end(const struct fc_checksum_stream *stream) {
    return checksum_kernel()->end(stream);
}
