/* SPDX-License-Identifier: Apache-2.0
 *
 * What the rest of this folder asks about the other nodes, the directory and the right to serve,
 * beside what everybody may ask (exchange.h): nodes.c.
 */
#ifndef FEATURED_EXCHANGE_NODES_H
#define FEATURED_EXCHANGE_NODES_H

#include "directory/directory.h"
#include "exchange/exchange_internal.h"

/* Is this node's name the first, in the order of bytes, of all members that live? That one does
 * what only one node need do for all, such as the sweep of old records. */
bool nodes_are_led_by_us(const struct broker *broker);
/* The ref was made by an earlier incarnation of this node (home: ours or empty). */
bool nodes_is_earlier_us(const struct broker *broker, const char *home, uint64_t incarnation);
/* What the directory has answered, in the words of cluster/: to a question, and to a write. */
enum cluster_reading nodes_reading(enum directory_result result);
enum cluster_answer nodes_answer(enum directory_result result);
/* May we serve, as of now_ns, and put records right? (cluster/fencing.c) */
enum fencing_state nodes_fencing(const struct broker *broker);

/* The peer of that name, which the directory may not have announced since the restart: it is known
 * by its name alone then, and is not asked before its address is known. NULL: out of memory. */
struct peer *nodes_peer_recalled(struct broker *broker, const char *name);

#endif
