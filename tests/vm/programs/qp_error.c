/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a broker (LD_PRELOAD), puts its QPs into the error state under it: remembers every
 * QP that is made, and whoever writes a number N into the FIFO $QP_ERROR_FIFO breaks the N youngest
 * that still stand. The kernel then flushes them, as after a fatal fault of the adapter.
 */
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { QPS_MAX = 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ibv_qp *standing[QPS_MAX]; /* the youngest last */
static int standing_count;

static void *next_symbol(const char *name) {
    void *symbol = dlvsym(RTLD_NEXT, name, "IBVERBS_1.1");
    if (symbol == NULL)
        abort();
    return symbol;
}

__attribute__((visibility("default"))) struct ibv_qp *ibv_create_qp(struct ibv_pd *pd,
                                                                    struct ibv_qp_init_attr *want) {
    struct ibv_qp *(*make)(struct ibv_pd *, struct ibv_qp_init_attr *);
    *(void **)&make = next_symbol("ibv_create_qp");
    struct ibv_qp *qp = make(pd, want);
    pthread_mutex_lock(&lock);
    if (qp != NULL && standing_count < QPS_MAX)
        standing[standing_count++] = qp;
    pthread_mutex_unlock(&lock);
    return qp;
}

__attribute__((visibility("default"))) int ibv_destroy_qp(struct ibv_qp *qp) {
    int (*destroy)(struct ibv_qp *);
    *(void **)&destroy = next_symbol("ibv_destroy_qp");
    pthread_mutex_lock(&lock); /* until it is gone: nobody breaks what is being freed */
    int kept = 0;
    for (int i = 0; i < standing_count; i++)
        if (standing[i] != qp)
            standing[kept++] = standing[i];
    standing_count = kept;
    int r = destroy(qp);
    pthread_mutex_unlock(&lock);
    return r;
}

static void break_youngest(int count) {
    pthread_mutex_lock(&lock);
    for (int i = standing_count; i-- > 0 && count > 0; count--) {
        struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_ERR};
        int r = ibv_modify_qp(standing[i], &attributes, IBV_QP_STATE);
        fprintf(stderr, "qp_error: QP %u into error: %d\n", standing[i]->qp_num, r);
    }
    pthread_mutex_unlock(&lock);
}

static void *listen_to_fifo(void *path) {
    for (;;) {
        int count = 0;
        FILE *fifo = fopen(path, "re"); /* blocks until somebody writes */
        if (fifo == NULL)
            return NULL;
        if (fscanf(fifo, "%d", &count) == 1)
            break_youngest(count);
        fclose(fifo);
    }
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    char *path = getenv("QP_ERROR_FIFO");
    if (path != NULL && pthread_create(&thread, NULL, listen_to_fifo, path) == 0)
        pthread_detach(thread);
}
