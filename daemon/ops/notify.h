/* SPDX-License-Identifier: Apache-2.0
 *
 * Tells the service manager of our state: sd_notify(3)'s datagram, without libsystemd.
 */
#ifndef FEATURED_OPS_NOTIFY_H
#define FEATURED_OPS_NOTIFY_H

/* state: "READY=1", "STOPPING=1". Does nothing when $NOTIFY_SOCKET is not set. */
void notify_manager(const char *state);

#endif
