/* SPDX-License-Identifier: Apache-2.0
 *
 * The keeper behind $NOTIFY_SOCKET: systemd's descriptor store (FileDescriptorStoreMax= in the
 * unit), or `featured --supervise`, which speaks the same protocol. See sd_notify(3) and
 * sd_listen_fds(3); both are written out here, for libsystemd would bring far more than this.
 */
#ifndef FEATURED_KEEP_SD_H
#define FEATURED_KEEP_SD_H

#include "memory/keep.h"

/* Reads NOTIFY_SOCKET, FDSTORE, LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, and takes the last three
 * out of the environment. To be called once, before there are threads, as the descriptors from 3 on
 * are meant. *out: NULL when nobody keeps anything, for which 0 is returned too. -errno with a
 * sentence when what is in the environment makes no sense. */
int keep_sd_new(struct keep **out, char *why, size_t why_bytes);
/* Closes what was handed in and not taken. The keeper goes on holding all it has. NULL: nothing. */
void keep_sd_free(struct keep *keep);

#endif
