/* SPDX-License-Identifier: Apache-2.0
 *
 * A network in one process, for many brokers: the transport contract with no sockets, threads or
 * clock. Whatever the network would do is an event with a due time; the caller steps through them,
 * and the same seed gives the same history. Events of one direction of one connection keep their
 * order (messages and bulk bytes each by themselves, as over two sockets); everything else may
 * overtake everything else, within the delays. Callbacks run from fake_network_step alone.
 */
#ifndef FEATURED_TESTS_TRANSPORT_FAKE_H
#define FEATURED_TESTS_TRANSPORT_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/transport.h"

#define FAKE_ENDPOINTS_MAX 64u

struct fake_network;

/* Every event is due delay_ns_min to delay_ns_max after its cause, at random. NULL: no memory. */
struct fake_network *fake_network_new(uint64_t seed, uint64_t delay_ns_min, uint64_t delay_ns_max);
/* Its transports must have been destroyed, and their on_destroyed raised. */
void fake_network_free(struct fake_network *network);

/* One more broker. options, events: copied. 0, -EINVAL, -ENOMEM, -ENOSPC (FAKE_ENDPOINTS_MAX). */
int fake_transport_new(struct fake_network *network, const struct transport_options *options,
                       const struct transport_events *events, void *owner, struct transport **out);

/* Lets the next event happen and moves the clock to its due time. false: nothing can happen any
 * more (without a call to a transport, a heal or a thaw). */
bool fake_network_step(struct fake_network *network);
/* When the next event is due; UINT64_MAX: none. For callers that bring a clock of their own. */
uint64_t fake_network_next_ns(struct fake_network *network);
uint64_t fake_network_now_ns(const struct fake_network *network);
/* Moves the clock on, past no event that is still to happen. */
void fake_network_advance(struct fake_network *network, uint64_t now_ns);

/* ---- faults ---- */

/* While cut, nothing from `from` reaches `to`; it arrives after the heal. Nobody is told. */
void fake_network_cut(struct transport *from, struct transport *to, bool cut);
/* A frozen broker (SIGSTOP) gets no events, its own included, until it thaws. */
void fake_network_freeze(struct transport *t, bool frozen);
/* Resets one connection: both sides get `closed`. conn: either side's. */
void fake_network_drop(struct transport_conn *conn);
/* The same for the transport's n-th connection, newest first, modulo how many there are; false when
 * there is none. half: the other side is not told (its last packets were lost). */
bool fake_network_drop_nth(struct transport *t, uint32_t n, bool half);
/* Its process dies: from inside this call every connection ends here, with the callbacks an orderly
 * end would bring, so that the owner can be taken apart; none of it reaches anybody. The others see
 * their connections closed, or, when `silent` (a machine without power), hear nothing any more.
 * destroy() then ends at once. */
void fake_network_kill(struct transport *t, bool silent);
/* Of what is sent from here on. */
void fake_network_set_delay(struct fake_network *network, uint64_t delay_ns_min,
                            uint64_t delay_ns_max);

#endif
