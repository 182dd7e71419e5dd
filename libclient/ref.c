/* SPDX-License-Identifier: Apache-2.0
 *
 * Serialised form: the 4 bytes "FRF1", then a packed fb.Ref. Decoding trusts nothing: refs come
 * from files, queues and other people.
 */
#include "ref.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "limit.h"
#include "sized.h"

#define MAGIC             "FRF1"
#define MAGIC_BYTES       4u
#define ENCODED_BYTES_MAX 65536u

/* ---- building ---- */

/* The strings have been checked by the caller and fit. calloc() has put the zero behind them. */
struct feature_ref *fc_ref_new(const char *store, const char *sample_id) {
    struct feature_ref *ref = calloc(1, sizeof *ref);
    if (!ref)
        return NULL;
    ref->refs = 1;
    memcpy(ref->store, store, strlen(store));
    memcpy(ref->sample_id, sample_id, strlen(sample_id));
    return ref;
}

void fc_ref_set_home(struct feature_ref *ref, uint64_t generation, const char *home,
                     uint64_t incarnation) {
    ref->generation = generation;
    memcpy(ref->home, home, strlen(home) + 1);
    ref->incarnation = incarnation;
}

/* The name is the spec's, which the ref owns. The checksum is filled in later, if there is one. */
static void ref_fill_tensor(struct feature_tensor *out, const Fb__TensorSpec *spec) {
    *out = (struct feature_tensor){.size = sizeof *out,
                                   .name = spec->name,
                                   .dtype = (enum feature_dtype)spec->dtype,
                                   .rank = (uint32_t)spec->n_shape,
                                   .bytes = spec->bytes};
    for (size_t i = 0; i < spec->n_shape; i++)
        out->shape[i] = spec->shape[i];
}

/* The packed form is kept beside the unpacked one: it goes into requests and encoded refs as it
 * came, so that fields which a newer program has put into it are not lost on the way. */
const char *fc_ref_set_spec(struct feature_ref *ref, const void *packed, size_t bytes) {
    if (bytes > LAYOUT_SPEC_BYTES_MAX)
        return "its metadata and the names and shapes of its tensors are larger than 8 KiB "
               "together";
    bool short_of_memory = false;
    ProtobufCAllocator allocator = fc_noting_allocator(&short_of_memory);
    ref->spec = fb__sample_spec__unpack(&allocator, bytes, packed);
    if (!ref->spec)
        return short_of_memory ? fc_wrong_memory : "the tensor specs do not decode";
    const char *wrong = layout_compute(ref->spec, &ref->layout);
    if (wrong)
        return wrong;
    ref->packed_spec = malloc(bytes);
    ref->tensors = calloc(ref->spec->n_tensors, sizeof *ref->tensors);
    if (!ref->packed_spec || !ref->tensors)
        return fc_wrong_memory;
    memcpy(ref->packed_spec, packed, bytes);
    ref->packed_spec_bytes = bytes;
    for (size_t i = 0; i < ref->spec->n_tensors; i++)
        ref_fill_tensor(&ref->tensors[i], ref->spec->tensors[i]);
    return NULL;
}

/* None at all is fine (the store makes no checksums); some but not one for each tensor is not. */
const char *fc_ref_set_checksums(struct feature_ref *ref, const void *checksums, size_t bytes) {
    if (!bytes)
        return NULL;
    if (bytes != sizeof(uint64_t) * ref->layout.tensor_count)
        return "there is not one checksum per tensor";
    for (uint32_t i = 0; i < ref->layout.tensor_count; i++) {
        uint64_t checksum;
        memcpy(&checksum, (const uint8_t *)checksums + i * sizeof checksum, sizeof checksum);
        ref->tensors[i].checksum = le64toh(checksum);
    }
    ref->has_checksums = true;
    return NULL;
}

size_t fc_ref_get_checksums(const struct feature_ref *ref, uint8_t out[8 * LAYOUT_TENSORS_MAX]) {
    if (!ref->has_checksums)
        return 0;
    for (uint32_t i = 0; i < ref->layout.tensor_count; i++) {
        uint64_t checksum = htole64(ref->tensors[i].checksum);
        memcpy(out + i * sizeof checksum, &checksum, sizeof checksum);
    }
    return sizeof(uint64_t) * ref->layout.tensor_count;
}

/* ---- from a sample about to be put ---- */

/* 0 asks for it to be computed; what overflows is refused by layout_compute(). */
static uint64_t ref_tensor_bytes(const struct feature_tensor *tensor) {
    uint64_t bytes = 0;
    layout_tensor_bytes((Fb__Dtype)tensor->dtype, tensor->shape, tensor->rank, &bytes);
    return bytes;
}

/* Checks the sample's id and reads its tensors, of any version of their struct, into `out`, which
 * the sample then points to. */
static int ref_read_tensors(struct feature_sample *sample,
                            struct feature_tensor out[LAYOUT_TENSORS_MAX]) {
    if (!sample->sample_id)
        return fc_fail(FEATURE_E_INVALID, "the sample has no sample_id");
    const char *wrong = layout_check_sample_id(sample->sample_id);
    if (wrong)
        return fc_fail(FEATURE_E_INVALID, "sample_id '%.140s' %s", sample->sample_id, wrong);
    if (!sample->tensors || !sample->tensor_count || sample->tensor_count > LAYOUT_TENSORS_MAX)
        return fc_fail(FEATURE_E_INVALID, "sample %s: %u tensors, must be 1 to %u",
                       sample->sample_id, sample->tensor_count, LAYOUT_TENSORS_MAX);
    const size_t least_bytes = FC_SIZED_UNTIL(struct feature_tensor, checksum);
    int rc = fc_sized_check(sample->tensors, sample->tensor_count, sizeof *out, least_bytes,
                            "feature_tensor");
    for (uint32_t i = 0; !rc && i < sample->tensor_count; i++)
        rc = fc_sized_read(&out[i], sizeof *out, least_bytes, fc_sized_at(sample->tensors, i),
                           "feature_tensor");
    sample->tensors = out;
    return rc;
}

/* Checks a sample whose tensors have been read. */
static int ref_check_sample(const struct feature_sample *sample) {
    const char *wrong = NULL;
    for (uint32_t i = 0; i < sample->tensor_count; i++) {
        const char *name = sample->tensors[i].name;
        wrong = name ? layout_check_tensor_name(name) : "is NULL";
        if (wrong)
            return fc_fail(FEATURE_E_INVALID, "sample %s: the name '%.140s' of tensor %u %s",
                           sample->sample_id, name ? name : "", i, wrong);
        if (sample->tensors[i].rank > LAYOUT_RANK_MAX)
            return fc_fail(FEATURE_E_INVALID, "sample %s: tensor %s has %u dimensions, at most %u",
                           sample->sample_id, name, sample->tensors[i].rank, LAYOUT_RANK_MAX);
    }
    if (sample->metadata_bytes && !sample->metadata)
        return fc_fail(FEATURE_E_INVALID,
                       "sample %s: its metadata is NULL, and has a length of %zu bytes",
                       sample->sample_id, sample->metadata_bytes);
    if (sample->metadata_bytes > LAYOUT_SPEC_BYTES_MAX)
        return fc_fail(FEATURE_E_INVALID, "sample %s: %zu bytes of metadata, at most %u",
                       sample->sample_id, sample->metadata_bytes, LAYOUT_SPEC_BYTES_MAX);
    return FEATURE_OK;
}

/* The spec is packed and then read back: so a ref that a put gives and one that came over the wire
 * are made by the same code and hold to the same limits. */
static const char *ref_set_spec_from(struct feature_ref *ref, const struct feature_sample *sample) {
    Fb__TensorSpec tensors[LAYOUT_TENSORS_MAX], *pointers[LAYOUT_TENSORS_MAX];
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    spec.n_tensors = sample->tensor_count;
    spec.tensors = pointers;
    spec.metadata =
        (ProtobufCBinaryData){.data = (uint8_t *)sample->metadata, .len = sample->metadata_bytes};
    for (uint32_t i = 0; i < sample->tensor_count; i++) {
        const struct feature_tensor *tensor = &sample->tensors[i];
        pointers[i] = &tensors[i];
        fb__tensor_spec__init(&tensors[i]);
        tensors[i].name = (char *)tensor->name;
        tensors[i].dtype = (Fb__Dtype)tensor->dtype;
        tensors[i].n_shape = tensor->rank;
        tensors[i].shape = (uint64_t *)tensor->shape;
        tensors[i].bytes = tensor->bytes ? tensor->bytes : ref_tensor_bytes(tensor);
    }
    uint8_t packed[LAYOUT_SPEC_BYTES_MAX];
    size_t bytes = fb__sample_spec__get_packed_size(&spec);
    if (bytes > sizeof packed)
        return "its metadata and the names and shapes of its tensors are larger than 8 KiB "
               "together";
    fb__sample_spec__pack(&spec, packed);
    return fc_ref_set_spec(ref, packed, bytes);
}

int fc_ref_from_sample(const char *store, const struct feature_sample *sample,
                       struct feature_ref **out) {
    struct feature_sample known;
    struct feature_tensor tensors[LAYOUT_TENSORS_MAX];
    char what[LAYOUT_ID_BYTES_MAX + 16];
    if (!sample)
        return fc_fail(FEATURE_E_INVALID, "no sample was given");
    int rc =
        fc_sized_read(&known, sizeof known, FC_SIZED_UNTIL(struct feature_sample, tensor_count),
                      sample, "feature_sample");
    if (!rc)
        rc = ref_read_tensors(&known, tensors);
    if (!rc)
        rc = ref_check_sample(&known);
    if (rc)
        return rc;
    struct feature_ref *ref = fc_ref_new(store, known.sample_id);
    if (!ref)
        return fc_fail_memory("put");
    const char *wrong = ref_set_spec_from(ref, &known);
    if (wrong) {
        feature_ref_free(ref);
        snprintf(what, sizeof what, "sample %s", known.sample_id);
        return fc_fail_wrong(FEATURE_E_INVALID, what, wrong);
    }
    *out = ref;
    return FEATURE_OK;
}

/* The field came after the first version of the struct: an older program's has not got it. */
void *fc_ref_stream_of(const struct feature_sample *sample) {
    return sample->size < FC_SIZED_UNTIL(struct feature_sample, cuda_stream) ? NULL
                                                                             : sample->cuda_stream;
}

/* ---- serialised ---- */

/* The size is told also when the room is too small, so that one call with room 0 is enough to ask.
 */
int feature_ref_encode(const struct feature_ref *ref, void *buffer, size_t room,
                       size_t *bytes_out) {
    uint8_t checksums[8 * LAYOUT_TENSORS_MAX];
    Fb__Ref message = FB__REF__INIT;
    FC_NEEDS(ref);
    FC_NEEDS(bytes_out);
    FC_NEEDS(buffer || !room);
    message.store = (char *)ref->store;
    message.sample_id = (char *)ref->sample_id;
    message.generation = ref->generation;
    message.home = (char *)ref->home;
    message.incarnation = ref->incarnation;
    message.spec = (ProtobufCBinaryData){.data = ref->packed_spec, .len = ref->packed_spec_bytes};
    message.checksums =
        (ProtobufCBinaryData){.data = checksums, .len = fc_ref_get_checksums(ref, checksums)};
    size_t bytes = MAGIC_BYTES + fb__ref__get_packed_size(&message);
    *bytes_out = bytes;
    if (room < bytes)
        return fc_fail(FEATURE_E_FULL, "the ref needs %zu bytes, there is room for %zu", bytes,
                       room);
    memcpy(buffer, MAGIC, MAGIC_BYTES);
    fb__ref__pack(&message, (uint8_t *)buffer + MAGIC_BYTES);
    return FEATURE_OK;
}

/* Layout and checksums are checked where they are set. Here is the rest: strings that are used as
 * names of stores and nodes, and the numbers without which a ref points nowhere. */
static const char *ref_check_message(const Fb__Ref *message) {
    if (layout_check_name(message->store))
        return "its store's name is not valid";
    if (layout_check_sample_id(message->sample_id))
        return "its sample_id is not valid";
    if (layout_check_name(message->home))
        return "its home's name is not valid";
    if (!message->generation)
        return "it has no generation";
    if (!message->spec.len && message->checksums.len)
        return "it has checksums but no tensor specs";
    return NULL;
}

static const char *ref_from_message(const Fb__Ref *message, struct feature_ref **out) {
    const char *wrong = ref_check_message(message);
    if (wrong)
        return wrong;
    struct feature_ref *ref = fc_ref_new(message->store, message->sample_id);
    if (!ref)
        return fc_wrong_memory;
    fc_ref_set_home(ref, message->generation, message->home, message->incarnation);
    if (message->spec.len)
        wrong = fc_ref_set_spec(ref, message->spec.data, message->spec.len);
    if (!wrong)
        wrong = fc_ref_set_checksums(ref, message->checksums.data, message->checksums.len);
    if (wrong)
        feature_ref_free(ref);
    else
        *out = ref;
    return wrong;
}

/* ENCODED_BYTES_MAX bounds the work before anything is parsed: a spec has at most 8 KiB, so no ref
 * is near it. */
int feature_ref_decode(const void *buffer, size_t bytes, struct feature_ref **out) {
    FC_NEEDS(buffer || !bytes);
    FC_NEEDS(out);
    if (bytes > ENCODED_BYTES_MAX)
        return fc_fail(FEATURE_E_INVALID, "not a ref: %zu bytes, a ref has at most %u", bytes,
                       ENCODED_BYTES_MAX);
    if (bytes < MAGIC_BYTES || memcmp(buffer, MAGIC, MAGIC_BYTES))
        return fc_fail(FEATURE_E_INVALID, "not a ref: it does not begin with " MAGIC);
    bool short_of_memory = false;
    ProtobufCAllocator allocator = fc_noting_allocator(&short_of_memory);
    Fb__Ref *message =
        fb__ref__unpack(&allocator, bytes - MAGIC_BYTES, (const uint8_t *)buffer + MAGIC_BYTES);
    if (!message && short_of_memory)
        return fc_fail_memory("decode a ref");
    if (!message)
        return fc_fail(FEATURE_E_INVALID, "not a ref: its message does not decode");
    const char *wrong = ref_from_message(message, out);
    fb__ref__free_unpacked(message, NULL);
    return wrong ? fc_fail_wrong(FEATURE_E_INVALID, "not a valid ref", wrong) : FEATURE_OK;
}

/* ---- reading ---- */

const char *feature_ref_store(const struct feature_ref *ref) {
    return ref ? ref->store : "";
}

const char *feature_ref_sample_id(const struct feature_ref *ref) {
    return ref ? ref->sample_id : "";
}

uint64_t feature_ref_generation(const struct feature_ref *ref) {
    return ref ? ref->generation : 0;
}

const char *feature_ref_home(const struct feature_ref *ref) {
    return ref ? ref->home : "";
}

uint64_t feature_ref_incarnation(const struct feature_ref *ref) {
    return ref ? ref->incarnation : 0;
}

uint64_t feature_ref_bytes(const struct feature_ref *ref) {
    return ref ? ref->layout.sum_bytes : 0;
}

uint32_t feature_ref_tensor_count(const struct feature_ref *ref) {
    return ref ? ref->layout.tensor_count : 0;
}

const struct feature_tensor *feature_ref_tensor(const struct feature_ref *ref, uint32_t index) {
    return ref && index < ref->layout.tensor_count ? &ref->tensors[index] : NULL;
}

const void *feature_ref_metadata(const struct feature_ref *ref, size_t *bytes_out) {
    const Fb__SampleSpec *spec = ref ? ref->spec : NULL;
    if (bytes_out)
        *bytes_out = spec ? spec->metadata.len : 0;
    return spec ? spec->metadata.data : NULL;
}

bool feature_ref_has_checksums(const struct feature_ref *ref) {
    return ref && ref->has_checksums;
}

struct feature_ref *feature_ref_dup(const struct feature_ref *ref) {
    /* The count is all that changes in a ref once it is handed out. */
    struct feature_ref *shared = (struct feature_ref *)ref;
    if (shared)
        atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
    return shared;
}

/* Acquire and release: whoever frees it must see all that others have read from it as done. */
void feature_ref_free(struct feature_ref *ref) {
    if (!ref || atomic_fetch_sub_explicit(&ref->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (ref->spec)
        fb__sample_spec__free_unpacked(ref->spec, NULL);
    free(ref->packed_spec);
    free(ref->tensors);
    free(ref);
}
