/* SPDX-License-Identifier: Apache-2.0
 *
 * Every value of the wire's enums has its mirror in feature.h and in store.h. That the numbers are
 * the same is seen by the compiler (libclient/agree.c, daemon/node/agree.c); what it cannot see is
 * a value that has been added to a .proto and nowhere else. So these tables of mirrors are compared
 * with what the generated code knows.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "client.pb-c.h"
#include "feature.h"
#include "store/store.h"

static void check(const ProtobufCEnumDescriptor *wire, const int *mirror, size_t count,
                  const char *where) {
    for (unsigned i = 0; i < wire->n_values; i++) {
        bool found = false;
        for (size_t m = 0; m < count; m++)
            found |= mirror[m] == wire->values[i].value;
        cr_expect(found, "%s has no mirror in %s", wire->values[i].name, where);
    }
    cr_expect_eq(wire->n_values, count, "%s has more than %s", where, wire->name);
}
#define CHECK_ENUM(wire, where, ...)                                                               \
    check(&wire, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int),     \
          where)

#define NUMBER(constant, word, number, meaning) , number
Test(enums_agree, every_status_is_in_the_table_of_feature_h) {
    CHECK_ENUM(fb__status__descriptor, "FEATURE_STATUSES", 0 FEATURE_STATUSES(NUMBER));
    for (unsigned i = 0; i < fb__status__descriptor.n_values; i++) {
        const ProtobufCEnumValue *value = &fb__status__descriptor.values[i];
        cr_expect_str_eq(feature_strerror(-value->value), value->name + strlen("STATUS_"));
    }
    cr_expect_str_eq(feature_strerror(-77), "UNKNOWN");
    cr_expect_str_eq(feature_strerror(1), "UNKNOWN");
}

Test(enums_agree, feature_h_has_every_value) {
    CHECK_ENUM(fb__policy__descriptor, "feature.h", FEATURE_POLICY_ON_RELEASE,
               FEATURE_POLICY_ON_ACK, FEATURE_POLICY_RETAIN);
    CHECK_ENUM(fb__checksum_policy__descriptor, "feature.h", FEATURE_CHECKSUM_AFTER_NETWORK,
               FEATURE_CHECKSUM_ALWAYS, FEATURE_CHECKSUM_NEVER);
    CHECK_ENUM(fb__sample_state__descriptor, "feature.h", FEATURE_STATE_NEVER_SEEN,
               FEATURE_STATE_PLANNED, FEATURE_STATE_SEALED, FEATURE_STATE_RESIDENT,
               FEATURE_STATE_RETIRED, FEATURE_STATE_GONE, FEATURE_STATE_HOME_LOST);
    int dtypes[64], count = 0;
    for (int i = 0; i < 64; i++) /* 0: no dtype */
        if (!i || feature_dtype_name((enum feature_dtype)i))
            dtypes[count++] = i;
    check(&fb__dtype__descriptor, dtypes, (size_t)count, "feature_dtype_name()");
}

Test(enums_agree, store_h_has_every_value) {
    CHECK_ENUM(fb__policy__descriptor, "store.h", STORE_ON_RELEASE, STORE_ON_ACK, STORE_RETAIN);
    CHECK_ENUM(fb__reason__descriptor, "store.h", STORE_REASON_NONE, STORE_CONSUMED, STORE_ACKED,
               STORE_ABORTED, STORE_SUPERSEDED, STORE_MAX_HOLD, STORE_DROPPED, STORE_CANCELLED,
               STORE_PRODUCER_DIED, STORE_UNCACHED, STORE_FETCH_FAILED, STORE_RESERVE_ENDED);
    /* The last is of another node's samples: a store never says it. */
    CHECK_ENUM(fb__sample_state__descriptor, "store.h", STORE_FREE, STORE_PLANNED, STORE_SEALED,
               STORE_RESIDENT, STORE_RETIRED, STORE_GONE, FB__SAMPLE_STATE__HOME_LOST);
}
