/* SPDX-License-Identifier: Apache-2.0
 *
 * Does a broker take puts and serve gets now, by its own word. Pure.
 */
#ifndef FEATURED_CTL_READINESS_H
#define FEATURED_CTL_READINESS_H

#include "client.pb-c.h"
#include "featurectl/table.h"

enum readiness {
    READINESS_READY,
    READINESS_NOT_READY,
    READINESS_NOT_TOLD, /* the broker is of a version that says nothing of it */
};

enum readiness readiness_of(const Fb__HealthReply *health);
/* One sentence of a broker that is not ready. */
const char *readiness_why(const Fb__HealthReply *health);
/* A cell: "yes" and true, "no: WHY" and false, "not told ..." and null. */
void readiness_print(struct table *table, const Fb__HealthReply *health);

#endif
