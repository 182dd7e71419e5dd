/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the broker, which lives on the loop's thread, and the HTTP server (ops/http.h), which has
 * a thread of its own: the only place where two threads of this process share something of the
 * broker.
 */
#ifndef FEATURED_METRICS_FEED_H
#define FEATURED_METRICS_FEED_H

#include <uv.h>

#include "broker.h"
#include "config.h"

struct metrics_feed;

/* Listens at [ops] http; *out NULL: there is none. The broker must outlive the stop. 0, or -errno
 * with a sentence in why. */
int metrics_feed_new(uv_loop_t *loop, const struct config *config, const struct broker *broker,
                     struct metrics_feed **out, char *why, size_t why_bytes);
/* Nobody is answered from this return on. The loop must run once more before the free. NULL: none.
 * A second call does nothing. */
void metrics_feed_stop(struct metrics_feed *feed);
void metrics_feed_free(struct metrics_feed *feed);

#endif
