/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "featurectl/why.h"
#include "featurectl/words.h"

static void expect_why(const Fb__SampleInfo *info, Fb__Policy policy, const char *wanted) {
    char *why = why_kept(info, policy);
    cr_expect_str_eq(why, wanted);
    free(why);
}

static Fb__SampleInfo sample(Fb__SampleState state) {
    Fb__SampleInfo info = FB__SAMPLE_INFO__INIT;
    info.state = state;
    info.readers = 2;
    info.home = (char *)"b";
    return info;
}

Test(ctl_why, a_resident_sample_waits_for_what_its_policy_says) {
    Fb__SampleInfo info = sample(FB__SAMPLE_STATE__RESIDENT);
    expect_why(&info, FB__POLICY__ON_RELEASE, "waits for 2 of 2 consumed releases");
    info.consumed = 1;
    expect_why(&info, FB__POLICY__ON_RELEASE, "waits for 1 of 2 consumed releases");
    info.consumed = 5;
    expect_why(&info, FB__POLICY__ON_RELEASE, "consumed, waits for its last lease");
    expect_why(&info, FB__POLICY__ON_ACK, "waits for ack");
    expect_why(&info, FB__POLICY__RETAIN, "kept until abort, re-put or gc");
}

Test(ctl_why, holders_are_named_when_known_and_counted_when_not) {
    Fb__SampleInfo info = sample(FB__SAMPLE_STATE__RESIDENT);
    Fb__LeaseInfo a = FB__LEASE_INFO__INIT, b = FB__LEASE_INFO__INIT;
    Fb__LeaseInfo *holders[] = {&a, &b};
    info.leases = 2;
    expect_why(&info, FB__POLICY__ON_ACK, "waits for ack; read by 2");
    a.holder = (char *)"pid 4312 uid 1000 trainer";
    a.age_ms = 12000;
    b.holder = (char *)"node b";
    b.age_ms = 40;
    info.holders = holders;
    info.n_holders = 2;
    expect_why(&info, FB__POLICY__ON_ACK,
               "waits for ack; read by pid 4312 uid 1000 trainer (12 s), node b (40 ms)");
}

Test(ctl_why, a_retired_sample_tells_why_and_what_keeps_its_bytes) {
    Fb__SampleInfo info = sample(FB__SAMPLE_STATE__RETIRED);
    info.reason = FB__REASON__SUPERSEDED;
    info.leases = 1;
    expect_why(&info, FB__POLICY__ON_RELEASE, "superseded, waits for its last lease; read by 1");
    info = sample(FB__SAMPLE_STATE__GONE);
    info.reason = FB__REASON__MAX_HOLD;
    expect_why(&info, FB__POLICY__ON_RELEASE, "max-hold, freed");
}

Test(ctl_why, copies_and_unfinished_samples_are_told_apart) {
    Fb__SampleInfo info = sample(FB__SAMPLE_STATE__PLANNED);
    expect_why(&info, FB__POLICY__ON_RELEASE, "being written");
    info.landing = true;
    expect_why(&info, FB__POLICY__ON_RELEASE, "arriving from its home");
    info.state = FB__SAMPLE_STATE__RESIDENT;
    expect_why(&info, FB__POLICY__ON_RELEASE, "copy of node b, freed when its room is needed");
}

Test(ctl_why, words_come_from_the_protocol) {
    char word[WORDS_ROOM];
    cr_expect_str_eq(words_enum(&fb__policy__descriptor, FB__POLICY__ON_RELEASE, word),
                     "on-release");
    cr_expect_str_eq(words_enum(&fb__sample_state__descriptor, FB__SAMPLE_STATE__NEVER_SEEN, word),
                     "never-seen");
    cr_expect_str_eq(words_enum(&fb__policy__descriptor, 77, word), "77?");
    cr_expect_str_eq(words_reason(FB__REASON__NONE, word), "");
    cr_expect_str_eq(words_reason(FB__REASON__PRODUCER_DIED, word), "producer-died");
}
