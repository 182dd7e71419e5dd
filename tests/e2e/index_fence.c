/* SPDX-License-Identifier: Apache-2.0
 *
 * A node that may have been taken for dead: what it holds may have been superseded elsewhere, so it
 * grants no new lease to another node until etcd has answered it again.
 */
#include <criterion/criterion.h>

#include "e2e/index_world.h"
#include "support/checks.h"

#define PATIENCE_MS 60000u
#define BYTES       2000u

INDEX_WITH(index_fence, a_fenced_node_leases_nothing_to_others,
           .lease_ttl_ms = CLUSTER_TTL_SHORT_MS) {
    struct payload payload;
    struct feature_ref *ref;
    payload_init(&payload, "held", 1, BYTES);
    index_world_put(world, A, &payload, &ref);
    const struct feature_key *key =
        FEATURE_BY_REF(ref); /* a ref names the home: etcd is not asked */
    CHECK_OK(world_try_get(world->run[B], key, 5000));
    etcd_server_freeze(&world->cluster.etcd, 0);
    WAIT_UNTIL(world_try_get(world->run[B], key, 1000) == FEATURE_E_UNAVAILABLE, PATIENCE_MS);
    CHECK(world_try_get(world->run[B], key, 1000) == FEATURE_E_UNAVAILABLE,
          "a lease was granted by a node that was fenced before");
    etcd_server_thaw(&world->cluster.etcd, 0);
    WAIT_UNTIL(world_try_get(world->run[B], key, 5000) == FEATURE_OK, PATIENCE_MS);
    index_world_abort(world, A, payload.sample_id);
    feature_ref_free(ref);
    payload_deinit(&payload);
}
