/* SPDX-License-Identifier: Apache-2.0
 *
 * Registers a mapped arena with CUDA, once and in the background: a GPU copies to and from
 * registered memory several times as fast, and without a processor.
 */
#ifndef FEATURED_LIBCLIENT_PIN_H
#define FEATURED_LIBCLIENT_PIN_H

#include "store_handle.h"

/* Begins with the store's present mapping if that has not been done and there is a context: the one
 * that is current in this thread, or that of `device` (which may be NULL). Does not wait. A
 * registration that has failed is logged, once, by the next call. */
void fc_pin(struct feature_store *store, const void *device);

#endif
