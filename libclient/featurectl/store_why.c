/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. What keeps somebody waiting comes first, then what keeps memory without being readable,
 * then the samples: a line that is cut at the edge of a terminal loses the least.
 */
#include "featurectl/store_why.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "featurectl/memory.h"
#include "featurectl/units.h"

/* Takes `part` over. */
static char *store_why_join(char *text, char *part) {
    char *longer = memory_print("%s%s%s", text, *text ? "; " : "", part);
    free(text);
    free(part);
    return longer;
}

/* Without admin rights the first in line is not told, and only the number is known. */
static char *store_why_waiting(const Fb__StoreInfo *store) {
    char age[UNITS_ROOM];
    const char *verb = store->put_waiters == 1 ? "put waits" : "puts wait";
    if (!store->first_waiter)
        return memory_print("%" PRIu64 " %s", store->put_waiters, verb);
    return memory_print("%" PRIu64 " %s, first %s (%s)", store->put_waiters, verb,
                        store->first_waiter->holder,
                        units_duration(store->first_waiter->age_ms, age));
}

/* Room that a producer has asked for and not committed yet. */
static char *store_why_reserved(const Fb__StoreInfo *store) {
    char bytes[UNITS_ROOM];
    units_bytes(store->reserved_bytes, bytes);
    return store->reserver
               ? memory_print("%s being written, most by %s", bytes, store->reserver->holder)
               : memory_print("%s being written", bytes);
}

/* What has to happen before they go depends on the policy of the store. */
static char *store_why_resident(const Fb__StoreInfo *store) {
    const char *what = "to be consumed";
    Fb__Policy policy = store->settings ? store->settings->policy : FB__POLICY__ON_RELEASE;
    if (policy == FB__POLICY__ON_ACK)
        what = "to be acked";
    else if (policy == FB__POLICY__RETAIN)
        what = "kept until abort, re-put or gc";
    return memory_print("%" PRIu64 " sample%s %s", store->resident, store->resident == 1 ? "" : "s",
                        what);
}

char *store_why(const Fb__StoreInfo *store) {
    char bytes[UNITS_ROOM], *text = memory_copy("");
    if (store->put_waiters)
        text = store_why_join(text, store_why_waiting(store));
    if (store->reserved_bytes)
        text = store_why_join(text, store_why_reserved(store));
    if (store->retired_bytes)
        text = store_why_join(text, memory_print("%s retired and still read",
                                                 units_bytes(store->retired_bytes, bytes)));
    if (store->resident)
        text = store_why_join(text, store_why_resident(store));
    return text;
}
