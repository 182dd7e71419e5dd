/* SPDX-License-Identifier: Apache-2.0
 *
 * struct feature_ref inside. Built in steps by one thread, immutable and shared by count once
 * handed out.
 */
#ifndef FEATURED_LIBCLIENT_REF_H
#define FEATURED_LIBCLIENT_REF_H

#include <stdatomic.h>

#include "feature.h"
#include "proto/layout.h"

struct feature_ref {
    atomic_uint refs;
    char store[LAYOUT_NAME_BYTES_MAX + 1];
    char sample_id[LAYOUT_ID_BYTES_MAX + 1];
    char home[LAYOUT_NAME_BYTES_MAX + 1];
    uint64_t generation;
    uint64_t incarnation; /* 0 = not known */
    /* NULL and 0 while the spec is not known: */
    Fb__SampleSpec *spec; /* owns names and metadata */
    uint8_t *packed_spec;
    size_t packed_spec_bytes;
    struct feature_tensor *tensors;
    struct layout layout;
    bool has_checksums;
};

/* store and sample_id must pass layout_check_*. NULL when out of memory. */
struct feature_ref *fc_ref_new(const char *store, const char *sample_id);
/* home must be a valid name. */
void fc_ref_set_home(struct feature_ref *ref, uint64_t generation, const char *home,
                     uint64_t incarnation);
/* NULL, or a static sentence saying what is wrong; once per ref. */
const char *fc_ref_set_spec(struct feature_ref *ref, const void *packed, size_t bytes);
/* 8 bytes LE per tensor in tensor order, or none. NULL or a static sentence. */
const char *fc_ref_set_checksums(struct feature_ref *ref, const void *checksums, size_t bytes);
/* Writes what fc_ref_set_checksums() reads: 8 bytes per tensor, or none. Returns the size. */
size_t fc_ref_get_checksums(const struct feature_ref *ref, uint8_t out[8 * LAYOUT_TENSORS_MAX]);
/* The CUDA stream that the sample names, or NULL. */
void *fc_ref_stream_of(const struct feature_sample *sample);
/* A ref with the sample's spec and neither generation nor home. FEATURE_OK or FEATURE_E_INVALID. */
int fc_ref_from_sample(const char *store, const struct feature_sample *sample,
                       struct feature_ref **out);

#endif
