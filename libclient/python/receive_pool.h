/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory for large tensors that gets copy to. What Python lets go of is kept for a while and given
 * to the next get: memory fresh from the kernel has to be zeroed page by page, which takes two to
 * three times as long as the copy itself.
 */
#ifndef FEATURED_PYTHON_RECEIVE_POOL_H
#define FEATURED_PYTHON_RECEIVE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct receive_pool;

/* NULL: no memory. It lives as long as the process. */
struct receive_pool *receive_pool_new(size_t idle_bytes_max);
/* Frees what is idle beyond it, now and later. 0: nothing is kept. */
void receive_pool_set_limit(struct receive_pool *pool, size_t idle_bytes_max);
/* At least so many bytes, 64 B aligned. NULL: no memory. Thread-safe, as is what follows. */
void *receive_pool_take(struct receive_pool *pool, size_t bytes);
/* From receive_pool_take(). NULL is fine. */
void receive_pool_give(void *data);
/* Bytes that are kept for later. */
size_t receive_pool_idle_bytes(struct receive_pool *pool);

#endif
