/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "featurectl/exit_code.h"
#include "featurectl/readiness.h"

Test(ready, is_what_the_broker_says) {
    Fb__HealthReply health = FB__HEALTH_REPLY__INIT;
    health.ready = true;
    cr_expect_eq(readiness_of(&health), READINESS_READY);
    health.ready = false;
    health.not_ready_why = (char *)"fenced";
    cr_expect_eq(readiness_of(&health), READINESS_NOT_READY);
    cr_expect_str_eq(readiness_why(&health), "fenced");
}

Test(ready, of_an_older_broker_is_not_known_unless_it_stops) {
    Fb__HealthReply health = FB__HEALTH_REPLY__INIT;
    cr_expect_eq(readiness_of(&health), READINESS_NOT_TOLD);
    health.draining = true;
    cr_expect_eq(readiness_of(&health), READINESS_NOT_READY);
    cr_expect_str_eq(readiness_why(&health), "it is stopping");
}

Test(ready, has_an_exit_code_of_its_own) {
    cr_expect_eq(exit_code(CTL_E_NOT_READY), 3);
    cr_expect_str_eq(exit_code_word(CTL_E_NOT_READY), "NOT_READY");
    cr_expect_eq(exit_code(CTL_E_USAGE), 2);
    cr_expect_eq(exit_code(FEATURE_E_UNAVAILABLE), 17);
}
