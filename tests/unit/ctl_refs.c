/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/put_file.h"
#include "featurectl/refs.h"

#define URI "feature://run0/sample-1?generation=7&home=a&incarnation=9"

static struct feature_ref *make_ref(const char *uri) {
    struct feature_ref *ref = NULL;
    cr_assert_eq(feature_ref_from_uri(uri, &ref), FEATURE_OK, "%s", feature_last_error());
    return ref;
}

static void expect_target(const char *text, bool has_ref, const char *store,
                          const char *sample_id) {
    struct targets targets = {0};
    char why[256] = "";
    cr_assert_eq(refs_add(&targets, text, why, sizeof why), FEATURE_OK, "%s: %s", text, why);
    cr_assert_eq(targets.count, 1);
    cr_expect_str_eq(targets.list[0].store, store);
    cr_expect_str_eq(targets.list[0].sample_id, sample_id);
    cr_expect_eq(targets.list[0].ref != NULL, has_ref);
    refs_free(&targets);
}

Test(ctl_refs, every_form_of_a_ref_is_understood) {
    struct feature_ref *ref = make_ref(URI);
    char *base64 = refs_to_base64(ref);
    cr_assert_not_null(base64);
    expect_target(URI, true, "run0", "sample-1");
    expect_target(base64, true, "run0", "sample-1");
    expect_target("run0/a/b", false, "run0", "a/b");
    free(base64);
    feature_ref_free(ref);
}

Test(ctl_refs, what_is_no_ref_is_refused_with_a_sentence) {
    static const char *const bad[] = {"",           "run0",           "/a",  "run0/",
                                      "feature://", "feature://run0", "AAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct targets targets = {0};
        char why[256] = "";
        cr_expect_eq(refs_add(&targets, bad[i], why, sizeof why), FEATURE_E_INVALID, "%s", bad[i]);
        cr_expect(*why, "%s", bad[i]);
        cr_expect_eq(targets.count, 0);
        refs_free(&targets);
    }
}

Test(ctl_refs, a_key_is_the_ref_or_the_id) {
    struct targets targets = {0};
    char why[256];
    cr_assert_eq(refs_add(&targets, URI, why, sizeof why), FEATURE_OK);
    cr_assert_eq(refs_add(&targets, "run0/x", why, sizeof why), FEATURE_OK);
    struct feature_key by_ref = refs_key(&targets.list[0]), by_id = refs_key(&targets.list[1]);
    cr_expect(by_ref.ref && !by_ref.sample_id);
    cr_expect(!by_id.ref && by_id.sample_id);
    refs_free(&targets);
}

Test(ctl_refs, a_file_gives_its_sample_the_base_name) {
    static const char *const cases[][2] = {
        {"/data/run/sample-000.safetensors", "sample-000"},
        {"a.b.safetensors", "a.b"},
        {"plain", "plain"},
        {".safetensors", ".safetensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *id = put_file_id(cases[i][0]);
        cr_expect_str_eq(id, cases[i][1]);
        free(id);
    }
}
