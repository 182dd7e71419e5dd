/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory in etcd as the configuration describes it: a client of etcd and what speaks through
 * it.
 */
#ifndef FEATURED_DAEMON_ETCD_H
#define FEATURED_DAEMON_ETCD_H

#include <uv.h>

#include "broker.h"
#include "config.h"
#include "directory/directory.h"

/* unix_offset_ns: CLOCK_REALTIME less CLOCK_BOOTTIME. 0, or a negative errno and a sentence in
 * `why`. The directory tells `broker` what it hears; it owns the client of etcd. */
int daemon_etcd_new(const struct config *config, uint64_t incarnation, int64_t unix_offset_ns,
                    uv_loop_t *loop, struct broker *broker, struct directory **out, char *why,
                    size_t why_bytes);

#endif
