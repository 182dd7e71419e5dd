/* SPDX-License-Identifier: Apache-2.0
 *
 * etcd compares values as bytes and cannot look into them. A sample's value begins with its
 * generation, {"gen":N, so that the values of generation N are those that lie between two bounds
 * (etcd_generation_bounds() in record.c); other compares would break with each new field behind it.
 * The mod_revision would be simpler to compare, but whoever wants a record removed knows the
 * generation that it named and often not the revision at which it was written.
 */
#include "directory/etcd/condition.h"

#include "directory/etcd/record.h"

void condition_set(struct condition *condition, const char *key, uint64_t generation) {
    if (!generation) {
        condition->compares[0] =
            (struct etcd_compare){.key = key, .target = ETCD_CREATE_REVISION, .revision = 0};
        condition->count = 1;
        return;
    }
    etcd_generation_bounds(condition->above, condition->below, generation);
    condition->compares[0] = (struct etcd_compare){
        .key = key, .target = ETCD_VALUE, .relation = ETCD_GREATER, .value = condition->above};
    condition->compares[1] = (struct etcd_compare){
        .key = key, .target = ETCD_VALUE, .relation = ETCD_LESS, .value = condition->below};
    condition->count = 2;
}
