/* SPDX-License-Identifier: Apache-2.0
 *
 * What one kind of directory brings to the conformance suite. A new kind adds one file with one of
 * these and one line in directory_suite.c.
 */
#ifndef FEATURED_TESTS_DIRECTORY_SUITE_H
#define FEATURED_TESTS_DIRECTORY_SUITE_H

#include "directory/directory.h"

#define DIRECTORY_SUITE_NODES 3u

/* Node i is called "node-i", listens at "127.0.0.1:700i", has incarnation 100 + i. */
void directory_suite_node_name(uint32_t i, char out[16]);
void directory_suite_node_address(uint32_t i, char out[32]);
#define DIRECTORY_SUITE_INCARNATION(i) (UINT64_C(100) + (i))

struct directory_fixture {
    const char *name;
    /* One record per sample, seen by every node, and nodes that watch each other. Directories
     * without it are held to the common properties only. */
    bool has_index;
    uint32_t patience; /* steps within which anything that is going to happen has happened */

    /* Makes DIRECTORY_SUITE_NODES directories, not started; owners[i] goes with node i's events. */
    void *(*set_up)(const struct directory_events *events,
                    void *const owners[DIRECTORY_SUITE_NODES]);
    struct directory *(*node)(void *cluster, uint32_t i); /* NULL once destroyed */
    void (*step)(void *cluster);                          /* lets a little time pass */
    void (*destroy_node)(void *cluster, uint32_t i);
    void (*tear_down)(void *cluster); /* destroys what is left */

    /* With an index only: */
    void (*set_fenced)(void *cluster, uint32_t i, bool fenced);
    void (*set_reachable)(void *cluster, uint32_t i, bool reachable);
};

extern const struct directory_fixture directory_fixture_static;
extern const struct directory_fixture directory_fixture_fake;
extern const struct directory_fixture directory_fixture_etcd;

#endif
