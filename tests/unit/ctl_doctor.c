/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "featurectl/doctor.h"

static const char limits[] =
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max open files            1024                 524288               files     \n"
    "Max locked memory         unlimited            unlimited            bytes     \n";

Test(ctl_doctor, limits_are_read_by_name) {
    uint64_t limit = 5;
    cr_expect(doctor_parse_limit(limits, "Max open files", &limit));
    cr_expect_eq(limit, 1024);
    cr_expect(doctor_parse_limit(limits, "Max locked memory", &limit));
    cr_expect_eq(limit, UINT64_MAX);
    cr_expect_not(doctor_parse_limit(limits, "Max nothing", &limit));
    cr_expect_not(doctor_parse_limit("Max open files", "Max open files", &limit));
    cr_expect_not(doctor_parse_limit("", "Max open files", &limit));
}

Test(ctl_doctor, meminfo_is_read_by_whole_key) {
    uint64_t value = 0;
    const char *meminfo =
        "MemTotal:       16000 kB\nMemAvailable:    9000 kB\nHugePages_Free:      0\n";
    cr_expect(doctor_parse_meminfo(meminfo, "MemAvailable", &value));
    cr_expect_eq(value, 9000);
    cr_expect(doctor_parse_meminfo(meminfo, "HugePages_Free", &value));
    cr_expect_eq(value, 0);
    cr_expect_not(doctor_parse_meminfo(meminfo, "MemAvail", &value));
}

Test(ctl_doctor, numbers_are_counted_from_zero) {
    uint64_t value = 7;
    cr_expect(doctor_parse_number("4096\t131072\t6291456\n", 2, &value));
    cr_expect_eq(value, 6291456);
    cr_expect(doctor_parse_number("4096\t131072\t6291456\n", 0, &value));
    cr_expect_eq(value, 4096);
    cr_expect_not(doctor_parse_number("4096\n", 1, &value));
    cr_expect_not(doctor_parse_number("max\n", 0, &value));
    cr_expect_eq(value, 4096);
}

Test(ctl_doctor, a_good_finding_gives_no_advice) {
    struct doctor_finding finding;
    doctor_say(&finding, DOCTOR_OK, "do this", "found %d", 3);
    cr_expect_str_eq(finding.found, "found 3");
    cr_expect_str_eq(finding.advice, "");
    doctor_say(&finding, DOCTOR_WARN, "do this", "found %d", 4);
    cr_expect_str_eq(finding.advice, "do this");
}

Test(ctl_doctor, gids_of_one_link_or_of_nothing_are_not_routable) {
    cr_expect(doctor_gid_is_routable("0000:0000:0000:0000:0000:ffff:0a4d:0001\n"));
    cr_expect(doctor_gid_is_routable("fd00:0000:0000:0000:0000:0000:0000:0001\n"));
    cr_expect_not(doctor_gid_is_routable("fe80:0000:0000:0000:dcbc:0bff:fecd:15e5\n"));
    cr_expect_not(doctor_gid_is_routable("0000:0000:0000:0000:0000:0000:0000:0000\n"));
    cr_expect_not(doctor_gid_is_routable(""));
}
