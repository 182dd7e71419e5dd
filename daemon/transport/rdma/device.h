/* SPDX-License-Identifier: Apache-2.0
 *
 * The devices that the rails are ports of.
 */
#ifndef FEATURED_TRANSPORT_RDMA_DEVICE_H
#define FEATURED_TRANSPORT_RDMA_DEVICE_H

#include "transport/rdma/rdma_internal.h"

/* Opens it if need be. 0, -ENODEV (also while a lost one of that name is still being let go), ...
 */
int rdevice_find(struct rdma *rdma, const char *name, struct rdma_device **out);
/* The context that librdmacm has on the device. */
void rdevice_note_librdmacm(struct rdma_device *device, const struct ibv_context *theirs);
/* The device has gone or is going: everything of ours on it ends now. */
void rdevice_lost(struct rdma_device *device, const char *why);
/* Those that the system no longer lists are lost. */
void rdevice_check_listed(struct rdma *rdma);
/* Frees a lost device if nothing on libuv's pool uses it. */
void rdevice_release(struct rdma_device *device);
/* Closes what librdmacm still has open of released devices. Not in the turn of the loop in which
 * they were lost: librdmacm has its own to clean up first. */
void rdevice_close_left(struct rdma *rdma);

#endif
