/* SPDX-License-Identifier: Apache-2.0
 *
 * libibverbs and librdmacm, loaded when the RDMA transport is made and not linked. So `featured`
 * starts on a machine that has neither, and speaks TCP there. The headers of both libraries are
 * used at build time, and their inline functions (ibv_post_send, ibv_poll_cq ...) work as they
 * are: those call what the device's driver has put into its context and need no library. All other
 * functions are called through the table below: rdma->lib.ibv_alloc_pd(context).
 */
#ifndef FEATURED_TRANSPORT_RDMA_VERBS_H
#define FEATURED_TRANSPORT_RDMA_VERBS_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>

/* The header hides these three functions behind macros that serve callers of newer features. The
 * table has the functions themselves. */
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr

/* Each function with the version of it that the headers describe. rdma-core keeps a version for
 * ever, and has had all of these since its release 22 of 2019, which is older than any Linux
 * distribution that we support. */
#define VERBS_FUNCTIONS(F)                                                                         \
    F("IBVERBS_1.0", ibv_create_comp_channel)                                                      \
    F("IBVERBS_1.0", ibv_destroy_comp_channel)                                                     \
    F("IBVERBS_1.1", ibv_ack_async_event)                                                          \
    F("IBVERBS_1.1", ibv_ack_cq_events)                                                            \
    F("IBVERBS_1.1", ibv_alloc_pd)                                                                 \
    F("IBVERBS_1.1", ibv_close_device)                                                             \
    F("IBVERBS_1.1", ibv_create_cq)                                                                \
    F("IBVERBS_1.1", ibv_create_qp)                                                                \
    F("IBVERBS_1.1", ibv_dealloc_pd)                                                               \
    F("IBVERBS_1.1", ibv_dereg_mr)                                                                 \
    F("IBVERBS_1.1", ibv_destroy_cq)                                                               \
    F("IBVERBS_1.1", ibv_destroy_qp)                                                               \
    F("IBVERBS_1.1", ibv_event_type_str)                                                           \
    F("IBVERBS_1.1", ibv_fork_init)                                                                \
    F("IBVERBS_1.1", ibv_free_device_list)                                                         \
    F("IBVERBS_1.1", ibv_get_async_event)                                                          \
    F("IBVERBS_1.1", ibv_get_cq_event)                                                             \
    F("IBVERBS_1.1", ibv_get_device_list)                                                          \
    F("IBVERBS_1.1", ibv_get_device_name)                                                          \
    F("IBVERBS_1.1", ibv_modify_qp)                                                                \
    F("IBVERBS_1.1", ibv_open_device)                                                              \
    F("IBVERBS_1.1", ibv_query_device)                                                             \
    F("IBVERBS_1.1", ibv_query_port)                                                               \
    F("IBVERBS_1.1", ibv_reg_mr)                                                                   \
    F("IBVERBS_1.1", ibv_wc_status_str)                                                            \
    F("RDMACM_1.0", rdma_accept)                                                                   \
    F("RDMACM_1.0", rdma_ack_cm_event)                                                             \
    F("RDMACM_1.0", rdma_bind_addr)                                                                \
    F("RDMACM_1.0", rdma_connect)                                                                  \
    F("RDMACM_1.0", rdma_create_event_channel)                                                     \
    F("RDMACM_1.0", rdma_create_id)                                                                \
    F("RDMACM_1.0", rdma_destroy_event_channel)                                                    \
    F("RDMACM_1.0", rdma_destroy_id)                                                               \
    F("RDMACM_1.0", rdma_disconnect)                                                               \
    F("RDMACM_1.0", rdma_get_cm_event)                                                             \
    F("RDMACM_1.0", rdma_get_src_port)                                                             \
    F("RDMACM_1.0", rdma_listen)                                                                   \
    F("RDMACM_1.0", rdma_reject)                                                                   \
    F("RDMACM_1.0", rdma_resolve_addr)                                                             \
    F("RDMACM_1.0", rdma_resolve_route)                                                            \
    F("RDMACM_1.2", rdma_establish)                                                                \
    F("RDMACM_1.2", rdma_init_qp_attr)

struct verbs {
#define VERBS_MEMBER(version, name) __typeof__(name) *(name);
    VERBS_FUNCTIONS(VERBS_MEMBER)
#undef VERBS_MEMBER
};

/* The names that the loader finds them by on every distribution. */
#define VERBS_LIBIBVERBS "libibverbs.so.1"
#define VERBS_LIBRDMACM  "librdmacm.so.1"

/* Loads both libraries and fills the table. 0, or -ENODEV with a sentence in `why`: a library is
 * missing, cannot be loaded, or lacks a function. May be called any number of times; a library that
 * has been loaded stays for as long as the process lives, because its drivers have threads and
 * handlers of their own and are not made to be unloaded. */
int verbs_load(struct verbs *out, const char *libibverbs, const char *librdmacm, char *why,
               size_t why_bytes);

#endif
