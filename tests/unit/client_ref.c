/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common.pb-c.h"
#include "feature.h"

struct encoded {
    uint8_t bytes[65600];
    size_t count;
};

/* A valid message to be spoiled: one I32 tensor of shape 2x3. */
struct parts {
    Fb__Ref ref;
    Fb__SampleSpec spec;
    Fb__TensorSpec tensor, *tensors;
    uint64_t shape[2];
    uint8_t checksum[8];
};

static void parts_init(struct parts *p) {
    p->shape[0] = 2;
    p->shape[1] = 3;
    fb__tensor_spec__init(&p->tensor);
    p->tensor.name = (char *)"hidden";
    p->tensor.dtype = FB__DTYPE__I32;
    p->tensor.n_shape = 2;
    p->tensor.shape = p->shape;
    p->tensor.bytes = 24;
    p->tensors = &p->tensor;
    fb__sample_spec__init(&p->spec);
    p->spec.n_tensors = 1;
    p->spec.tensors = &p->tensors;
    p->spec.metadata = (ProtobufCBinaryData){.data = (uint8_t *)"\0m", .len = 2};
    memcpy(p->checksum, "\1\2\3\4\5\6\7\x88", 8);
    fb__ref__init(&p->ref);
    p->ref.store = (char *)"run0";
    p->ref.sample_id = (char *)"sample/1 \xc3\xa4";
    p->ref.generation = 0xfedcba9876543210;
    p->ref.home = (char *)"node-a";
    p->ref.incarnation = 77;
    p->ref.checksums = (ProtobufCBinaryData){.data = p->checksum, .len = 8};
}

static void encode_parts(struct parts *p, bool with_spec, struct encoded *out) {
    static uint8_t spec[20000];
    if (with_spec) {
        cr_assert_leq(fb__sample_spec__get_packed_size(&p->spec), sizeof spec);
        p->ref.spec =
            (ProtobufCBinaryData){.data = spec, .len = fb__sample_spec__pack(&p->spec, spec)};
    }
    memcpy(out->bytes, "FRF1", 4);
    out->count = 4 + fb__ref__pack(&p->ref, out->bytes + 4);
}

static int decode(const struct encoded *in, struct feature_ref **out) {
    /* An exact heap copy, so that a sanitizer sees any reading past the end. */
    void *copy = malloc(in->count ? in->count : 1);
    cr_assert(copy);
    memcpy(copy, in->bytes, in->count);
    int rc = feature_ref_decode(copy, in->count, out);
    free(copy);
    return rc;
}

Test(client_ref, decodes_what_was_encoded) {
    struct parts p;
    struct encoded in, out;
    struct feature_ref *ref;
    size_t metadata_bytes;
    parts_init(&p);
    encode_parts(&p, true, &in);
    cr_assert_eq(decode(&in, &ref), FEATURE_OK, "%s", feature_last_error());
    cr_assert_str_eq(feature_ref_store(ref), "run0");
    cr_assert_str_eq(feature_ref_sample_id(ref), "sample/1 \xc3\xa4");
    cr_assert_eq(feature_ref_generation(ref), 0xfedcba9876543210);
    cr_assert_str_eq(feature_ref_home(ref), "node-a");
    cr_assert_eq(feature_ref_incarnation(ref), 77);
    cr_assert_eq(feature_ref_bytes(ref), 24);
    cr_assert_eq(feature_ref_tensor_count(ref), 1);
    const struct feature_tensor *tensor = feature_ref_tensor(ref, 0);
    cr_assert_str_eq(tensor->name, "hidden");
    cr_assert_eq(tensor->dtype, FEATURE_DTYPE_I32);
    cr_assert_eq(tensor->rank, 2);
    cr_assert_eq(tensor->shape[1], 3);
    cr_assert_eq(tensor->checksum, 0x8807060504030201);
    cr_assert_null(feature_ref_tensor(ref, 1));
    cr_assert_arr_eq((const char *)feature_ref_metadata(ref, &metadata_bytes), "\0m", 2);
    cr_assert_eq(metadata_bytes, 2);
    cr_assert_eq(feature_ref_encode(ref, out.bytes, sizeof out.bytes, &out.count), FEATURE_OK);
    cr_assert_eq(out.count, in.count);
    cr_assert_arr_eq(out.bytes, in.bytes, in.count);
    feature_ref_free(ref);
}

Test(client_ref, encode_tells_the_room_it_needs) {
    struct parts p;
    struct encoded in;
    struct feature_ref *ref;
    size_t bytes = 0;
    parts_init(&p);
    encode_parts(&p, true, &in);
    cr_assert_eq(decode(&in, &ref), FEATURE_OK);
    cr_assert_eq(feature_ref_encode(ref, NULL, 0, &bytes), FEATURE_E_FULL);
    cr_assert_eq(bytes, in.count);
    uint8_t *exact = malloc(bytes);
    cr_assert_eq(feature_ref_encode(ref, exact, bytes - 1, &bytes), FEATURE_E_FULL);
    cr_assert_eq(feature_ref_encode(ref, exact, bytes, &bytes), FEATURE_OK);
    free(exact);
    feature_ref_free(ref);
}

Test(client_ref, every_truncation_is_refused_or_another_valid_ref) {
    struct parts p;
    struct encoded in;
    parts_init(&p);
    encode_parts(&p, true, &in);
    for (size_t count = 0, all = in.count; count < all; count++) {
        struct feature_ref *ref = NULL;
        in.count = count;
        if (decode(&in, &ref) == FEATURE_OK)
            feature_ref_free(ref);
        else
            cr_assert_null(ref);
    }
}

enum spoil {
    NO_STORE,
    BAD_STORE,
    LONG_STORE,
    NO_ID,
    LONG_ID,
    CONTROL_IN_ID,
    BAD_UTF8_ID,
    NO_HOME,
    NO_GENERATION,
    BYTES_DIFFER,
    BAD_DTYPE,
    RANK_TOO_HIGH,
    SHAPE_OVERFLOWS,
    NAME_TWICE,
    NO_TENSOR,
    CHECKSUMS_SHORT,
    CHECKSUMS_LONG,
    SPEC_NOT_A_MESSAGE,
    METADATA_TOO_LARGE,
    CHECKSUMS_WITHOUT_SPEC,
    SPOILS
};

static void spoil_and_encode(enum spoil what, struct encoded *out) {
    static char long_text[200];
    static uint8_t zeros[10000];
    uint64_t huge[9] = {1ull << 40, 1ull << 40};
    Fb__TensorSpec twice[2], *twice_pointers[2] = {&twice[0], &twice[1]};
    struct parts p;
    parts_init(&p);
    memset(long_text, 'x', sizeof long_text - 1);
    bool with_spec = what != SPEC_NOT_A_MESSAGE && what != CHECKSUMS_WITHOUT_SPEC;
    switch (what) {
    case NO_STORE:
        p.ref.store = (char *)"";
        break;
    case BAD_STORE:
        p.ref.store = (char *)"../run0";
        break;
    case LONG_STORE:
        p.ref.store = long_text;
        break;
    case NO_ID:
        p.ref.sample_id = (char *)"";
        break;
    case LONG_ID:
        p.ref.sample_id = long_text;
        break;
    case CONTROL_IN_ID:
        p.ref.sample_id = (char *)"a\nb";
        break;
    case BAD_UTF8_ID:
        p.ref.sample_id = (char *)"\xc0\x80";
        break;
    case NO_HOME:
        p.ref.home = (char *)"";
        break;
    case NO_GENERATION:
        p.ref.generation = 0;
        break;
    case BYTES_DIFFER:
        p.tensor.bytes = 23;
        break;
    case BAD_DTYPE:
        p.tensor.dtype = (Fb__Dtype)99;
        break;
    case RANK_TOO_HIGH:
        p.tensor.shape = huge;
        p.tensor.n_shape = 9;
        break;
    case SHAPE_OVERFLOWS:
        p.tensor.shape = huge;
        p.tensor.bytes = 0;
        break;
    case NAME_TWICE:
        twice[0] = twice[1] = p.tensor;
        p.spec.tensors = twice_pointers;
        p.spec.n_tensors = 2;
        break;
    case NO_TENSOR:
        p.spec.n_tensors = 0;
        break;
    case CHECKSUMS_SHORT:
        p.ref.checksums.len = 7;
        break;
    case CHECKSUMS_LONG:
        p.ref.checksums = (ProtobufCBinaryData){.data = zeros, .len = 16};
        break;
    case SPEC_NOT_A_MESSAGE:
        p.ref.spec = (ProtobufCBinaryData){.data = (uint8_t *)"\xff\xff", .len = 2};
        break;
    case METADATA_TOO_LARGE:
        p.spec.metadata = (ProtobufCBinaryData){.data = zeros, .len = sizeof zeros};
        break;
    case CHECKSUMS_WITHOUT_SPEC:
    case SPOILS:
        break;
    }
    encode_parts(&p, with_spec, out);
}

Test(client_ref, malformed_refs_are_refused) {
    struct encoded in;
    for (unsigned what = 0; what < SPOILS; what++) {
        struct feature_ref *ref = NULL;
        spoil_and_encode((enum spoil)what, &in);
        cr_assert_eq(decode(&in, &ref), FEATURE_E_INVALID, "spoil %u was accepted", what);
        cr_assert_null(ref);
    }
}

Test(client_ref, foreign_bytes_are_refused) {
    struct encoded in = {.bytes = "FRF2", .count = 4};
    struct feature_ref *ref;
    cr_assert_eq(decode(&in, &ref), FEATURE_E_INVALID);
    cr_assert(strstr(feature_last_error(), "FRF1"));
    memcpy(in.bytes, "FRF1", 4);
    in.count = 65537;
    cr_assert_eq(decode(&in, &ref), FEATURE_E_INVALID);
    cr_assert(strstr(feature_last_error(), "65537"));
}

Test(client_ref, dup_shares_and_free_takes_null) {
    struct parts p;
    struct encoded in;
    struct feature_ref *ref, *dup;
    parts_init(&p);
    encode_parts(&p, true, &in);
    cr_assert_eq(decode(&in, &ref), FEATURE_OK);
    dup = feature_ref_dup(ref);
    feature_ref_free(ref);
    cr_assert_str_eq(feature_ref_store(dup), "run0");
    feature_ref_free(dup);
    feature_ref_free(NULL);
}

/* ---- URI ---- */

static void assert_uri(const char *sample_id, const char *uri) {
    struct parts p;
    struct encoded in;
    struct feature_ref *ref, *back;
    char text[1024];
    size_t bytes;
    parts_init(&p);
    p.ref.sample_id = (char *)sample_id;
    encode_parts(&p, true, &in);
    cr_assert_eq(decode(&in, &ref), FEATURE_OK, "%s", feature_last_error());
    cr_assert_eq(feature_ref_to_uri(ref, NULL, 0, &bytes), FEATURE_E_FULL);
    cr_assert_eq(bytes, strlen(uri) + 1);
    cr_assert_eq(feature_ref_to_uri(ref, text, bytes, &bytes), FEATURE_OK);
    cr_assert_str_eq(text, uri);
    cr_assert_eq(feature_ref_from_uri(text, &back), FEATURE_OK, "%s", feature_last_error());
    cr_assert_str_eq(feature_ref_sample_id(back), sample_id);
    cr_assert_eq(feature_ref_generation(back), feature_ref_generation(ref));
    cr_assert_eq(feature_ref_incarnation(back), 77);
    cr_assert_eq(feature_ref_tensor_count(back), 0);
    cr_assert_eq(feature_ref_bytes(back), 0);
    feature_ref_free(ref);
    feature_ref_free(back);
}

#define QUERY "?generation=18364758544493064720&home=node-a&incarnation=77"

Test(client_uri, encodes_all_but_unreserved_and_slash) {
    assert_uri("plain-._~/ok", "feature://run0/plain-._~/ok" QUERY);
    assert_uri("a b?c#d%e&f", "feature://run0/a%20b%3Fc%23d%25e%26f" QUERY);
    assert_uri("\xc3\xa4", "feature://run0/%C3%A4" QUERY);
}

Test(client_uri, the_longest_id_fits) {
    char id[129] = {0}, uri[600] = "feature://run0/";
    memset(id, '%', 128);
    for (int i = 0; i < 128; i++)
        strcat(uri, "%25");
    strcat(uri, QUERY);
    assert_uri(id, uri);
}

Test(client_uri, parameters_come_in_any_order_and_incarnation_is_optional) {
    struct feature_ref *ref;
    cr_assert_eq(feature_ref_from_uri("feature://r/%c3%a4?home=n&generation=5", &ref), FEATURE_OK);
    cr_assert_str_eq(feature_ref_sample_id(ref), "\xc3\xa4");
    cr_assert_eq(feature_ref_incarnation(ref), 0);
    char text[100];
    size_t bytes;
    cr_assert_eq(feature_ref_to_uri(ref, text, sizeof text, &bytes), FEATURE_OK);
    cr_assert_str_eq(text, "feature://r/%C3%A4?generation=5&home=n");
    feature_ref_free(ref);
}

Test(client_uri, malformed_uris_are_refused) {
    static const char *const uris[] = {
        "",
        "http://run0/s?generation=5&home=n",
        "feature://",
        "feature://run0",
        "feature://run0/s",
        "feature://run0?generation=5&home=n/x",
        "feature:///s?generation=5&home=n",
        "feature://run0/?generation=5&home=n",
        "feature://run0/s?generation=5",
        "feature://run0/s?home=n",
        "feature://run0/s?generation=0&home=n",
        "feature://run0/s?generation=-1&home=n",
        "feature://run0/s?generation=+1&home=n",
        "feature://run0/s?generation=5x&home=n",
        "feature://run0/s?generation=&home=n",
        "feature://run0/s?generation=18446744073709551616&home=n",
        "feature://run0/s?generation=5&generation=6&home=n",
        "feature://run0/s?generation=5&home=n&home=m",
        "feature://run0/s?generation=5&home=n&x=y",
        "feature://run0/s?generation=5&home=n&",
        "feature://run0/s?generation=5&home=n/m",
        "feature://run0/s?generation=5&home",
        "feature://run0/s%?generation=5&home=n",
        "feature://run0/s%4?generation=5&home=n",
        "feature://run0/s%00?generation=5&home=n",
        "feature://run0/s%0A?generation=5&home=n",
        "feature://run0/s%zz?generation=5&home=n",
        "feature://run0/a b?generation=5&home=n",
        "feature://run0/%ff?generation=5&home=n",
        "feature://..run/s?generation=5&home=n",
    };
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        struct feature_ref *ref = NULL;
        cr_assert_eq(feature_ref_from_uri(uris[i], &ref), FEATURE_E_INVALID, "%s", uris[i]);
        cr_assert_null(ref);
    }
}

Test(client_uri, an_endless_uri_is_refused) {
    static char uri[5000];
    struct feature_ref *ref;
    strcpy(uri, "feature://run0/");
    memset(uri + 15, 'a', sizeof uri - 16);
    cr_assert_eq(feature_ref_from_uri(uri, &ref), FEATURE_E_INVALID);
}

/* ---- words ---- */

Test(client_words, statuses_and_dtypes_have_names) {
    cr_assert_str_eq(feature_strerror(FEATURE_OK), "OK");
    cr_assert_str_eq(feature_strerror(FEATURE_E_NOT_FOUND), "NOT_FOUND");
    cr_assert_str_eq(feature_strerror(FEATURE_E_INTERNAL), "INTERNAL");
    cr_assert_str_eq(feature_strerror(-1000), "UNKNOWN");
    cr_assert_str_eq(feature_strerror(1), "UNKNOWN");
    for (enum feature_dtype dtype = FEATURE_DTYPE_BOOL; dtype <= FEATURE_DTYPE_C128; dtype++)
        cr_assert_eq(feature_dtype_parse(feature_dtype_name(dtype)), dtype);
    cr_assert_null(feature_dtype_name((enum feature_dtype)0));
    cr_assert_null(feature_dtype_name((enum feature_dtype)25));
    cr_assert_eq(feature_dtype_parse("F8"), 0);
    cr_assert_eq(feature_dtype_bytes(FEATURE_DTYPE_BF16), 2);
    cr_assert_eq(feature_dtype_bytes((enum feature_dtype)0), 0);
    cr_assert_str_eq(feature_version(), FEATURED_VERSION);
}
