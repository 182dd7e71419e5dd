/* SPDX-License-Identifier: Apache-2.0
 *
 * A broker that says why not, or that it is stopping, is not ready; one that says nothing at all is
 * of an older version.
 */
#include "featurectl/readiness.h"

#include <stdlib.h>

#include "featurectl/memory.h"

enum readiness readiness_of(const Fb__HealthReply *health) {
    if (health->ready)
        return READINESS_READY;
    return *health->not_ready_why || health->draining ? READINESS_NOT_READY : READINESS_NOT_TOLD;
}

/* For a broker that is not ready; one that gives no reason is draining. */
const char *readiness_why(const Fb__HealthReply *health) {
    return *health->not_ready_why ? health->not_ready_why : "it is stopping";
}

/* Three values in JSON, too: true, false, and null where a broker does not tell. */
void readiness_print(struct table *table, const Fb__HealthReply *health) {
    char *text;
    switch (readiness_of(health)) {
    case READINESS_READY:
        table_cell(table, json_true(), "yes");
        break;
    case READINESS_NOT_READY:
        text = memory_print("no: %s", readiness_why(health));
        table_cell(table, json_false(), text);
        free(text);
        break;
    case READINESS_NOT_TOLD:
        table_cell(table, json_null(), "not told by a broker of this version");
    }
}
