/* SPDX-License-Identifier: Apache-2.0
 *
 * A stranger on the fabric who has guessed right: he knows true rkeys and addresses of a broker's
 * memory and the numbers of its QPs, but not the cluster secret.
 *   stranger --own ADDRESS             reads memory of his own through a pair of QPs, to show that
 *                                      his way of reading works
 *   stranger ADDRESS PORT [qp:N | RKEY:ADDRESS]...
 *                                      connects to the broker's port, as a control and as a bulk
 *                                      link, and READs each key before any handshake; then aims QPs
 *                                      of his own at each QP of the broker and READs the first key
 * Status 0: memory of his own was read, or not one byte of the broker's came.
 */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "transport/handshake.h"
#include "transport/rdma/wire.h"

enum { READ_BYTES = 4096, TRIES_MAX = 256, ANSWER_S = 20, UNTOUCHED = 0xa5 };

struct stranger {
    struct ibv_context *verbs;
    struct ibv_pd *pd;
    struct ibv_mr *landing;
    uint8_t bytes[READ_BYTES];
    int gid_index;
    union ibv_gid gid;
    unsigned tried, refused, silent, read;
    char last_refusal[64];
};

static void stop(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static struct sockaddr_in to_address(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        stop("no IPv4 address: %s", host);
    return address;
}

static union ibv_gid gid_of(const char *host) {
    union ibv_gid gid = {.raw = {[10] = 0xff, [11] = 0xff}};
    struct sockaddr_in address = to_address(host, "0");
    memcpy(gid.raw + 12, &address.sin_addr, 4);
    return gid;
}

/* The device that leads to the host, through whichever rail of ours that is. */
static void stranger_init(struct stranger *s, struct ibv_context *verbs,
                          const struct in_addr *own) {
    char text[INET_ADDRSTRLEN];
    union ibv_gid at;
    s->verbs = verbs;
    s->gid = gid_of(inet_ntop(AF_INET, own, text, sizeof text));
    s->gid_index = -1;
    for (int i = 0; s->gid_index < 0 && ibv_query_gid(verbs, 1, i, &at) == 0; i++)
        if (memcmp(&at, &s->gid, sizeof at) == 0)
            s->gid_index = i;
    s->pd = ibv_alloc_pd(verbs);
    s->landing = s->pd == NULL ? NULL
                               : ibv_reg_mr(s->pd, s->bytes, READ_BYTES,
                                            IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    if (s->gid_index < 0 || s->landing == NULL)
        stop("the device cannot be used");
}

/* READs into s->bytes; the completion's status, or -1: none came. */
static int read_through(struct stranger *s, struct ibv_qp *qp, uint64_t address, uint32_t rkey) {
    struct ibv_sge into = {(uintptr_t)s->bytes, READ_BYTES, s->landing->lkey};
    struct ibv_send_wr *bad, read = {.sg_list = &into,
                                     .num_sge = 1,
                                     .opcode = IBV_WR_RDMA_READ,
                                     .send_flags = IBV_SEND_SIGNALED,
                                     .wr.rdma = {.remote_addr = address, .rkey = rkey}};
    struct ibv_wc completion;
    const time_t end = time(NULL) + ANSWER_S;
    memset(s->bytes, UNTOUCHED, READ_BYTES);
    if (ibv_post_send(qp, &read, &bad) != 0)
        stop("a READ cannot be posted");
    while (time(NULL) < end) {
        int count = ibv_poll_cq(qp->send_cq, 1, &completion);
        if (count != 0)
            return count < 0 ? -1 : (int)completion.status;
        sched_yield(); /* the wait is for the queue, on a machine of one CPU */
    }
    return -1;
}

static void judge(struct stranger *s, const char *way, int status) {
    bool touched = false;
    for (size_t i = 0; i < READ_BYTES; i++)
        touched = touched || s->bytes[i] != UNTOUCHED;
    const char *said = status < 0 ? "no answer" : ibv_wc_status_str((enum ibv_wc_status)status);
    printf("%s: %s%s\n", way, said, touched ? ", BYTES CAME" : "");
    s->tried++;
    s->read += touched || status == IBV_WC_SUCCESS;
    s->silent += status < 0;
    s->refused += status > 0;
    if (status > 0)
        snprintf(s->last_refusal, sizeof s->last_refusal, "%s", said);
}

/* ---- through the broker's port ---- */

static struct rdma_cm_id *resolve(const char *host, const char *port) {
    struct sockaddr_in to = to_address(host, port);
    struct rdma_cm_id *id; /* without a channel: every call waits for its event */
    if (rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) != 0 ||
        rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 5000) != 0 ||
        rdma_resolve_route(id, 5000) != 0)
        stop("no way to %s", host);
    return id;
}

static void knock(struct stranger *s, const char *host, const char *port, uint8_t kind,
                  uint64_t address, uint32_t rkey) {
    uint8_t data[RWIRE_PRIVATE_BYTES];
    struct rwire_private private = {.kind = kind, .slots = 4, .slot_bytes = 1024};
    struct rdma_cm_id *id = resolve(host, port);
    struct ibv_qp_init_attr want = {
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    struct rdma_conn_param param = {.private_data = data,
                                    .private_data_len = sizeof data,
                                    .initiator_depth = 4,
                                    .responder_resources = 4,
                                    .retry_count = 6,
                                    .rnr_retry_count = 6};
    if (s->verbs == NULL)
        stranger_init(s, id->verbs, &((struct sockaddr_in *)rdma_get_local_addr(id))->sin_addr);
    rwire_private_encode(&private, data);
    if (rdma_create_qp(id, s->pd, &want) != 0 || rdma_connect(id, &param) != 0)
        stop("%s port %s does not let anybody connect", host, port);
    judge(s, kind == HANDSHAKE_BULK ? "as a bulk link" : "as a control link",
          read_through(s, id->qp, address, rkey));
    rdma_disconnect(id);
    rdma_destroy_qp(id);
    rdma_destroy_id(id);
}

/* ---- past the port, straight at a QP ---- */

static struct ibv_qp *make_qp(struct stranger *s) {
    struct ibv_cq *cq = ibv_create_cq(s->verbs, 8, NULL, NULL, 0);
    struct ibv_qp_init_attr want = {
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    struct ibv_qp_attr init = {
        .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_READ};
    struct ibv_qp *qp = cq == NULL ? NULL : ibv_create_qp(s->pd, &want);
    if (qp == NULL ||
        ibv_modify_qp(qp, &init,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0)
        stop("a QP cannot be made");
    return qp;
}

static void aim(struct stranger *s, struct ibv_qp *qp, union ibv_gid at, uint32_t number,
                uint32_t psn) {
    struct ibv_qp_attr ready = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = number,
        .max_dest_rd_atomic = 4,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = at, .sgid_index = (uint8_t)s->gid_index, .hop_limit = 8}},
    };
    struct ibv_qp_attr send = {.qp_state = IBV_QPS_RTS,
                               .timeout = 14,
                               .retry_cnt = 2,
                               .rnr_retry = 2,
                               .sq_psn = psn,
                               .max_rd_atomic = 4};
    if (ibv_modify_qp(qp, &ready,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0 ||
        ibv_modify_qp(qp, &send,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                          IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) != 0)
        stop("a QP cannot be aimed");
}

static void drop_qp(struct ibv_qp *qp) {
    struct ibv_cq *cq = qp->send_cq;
    ibv_destroy_qp(qp);
    ibv_destroy_cq(cq);
}

static int read_own(const char *host) {
    static uint8_t secret[READ_BYTES];
    struct stranger s = {.verbs = NULL};
    struct sockaddr_in own = to_address(host, "0");
    struct rdma_cm_id *id;
    if (rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) != 0 ||
        rdma_bind_addr(id, (struct sockaddr *)&own) != 0)
        stop("no device at %s", host);
    stranger_init(&s, id->verbs, &own.sin_addr);
    memset(secret, 0x5e, sizeof secret);
    struct ibv_mr *mr = ibv_reg_mr(s.pd, secret, READ_BYTES, IBV_ACCESS_REMOTE_READ);
    struct ibv_qp *home = make_qp(&s), *reader = make_qp(&s);
    if (mr == NULL)
        stop("memory cannot be registered");
    aim(&s, home, s.gid, reader->qp_num, 0);
    aim(&s, reader, s.gid, home->qp_num, 0);
    judge(&s, "own memory", read_through(&s, reader, (uintptr_t)secret, mr->rkey));
    bool came = memcmp(s.bytes, secret, READ_BYTES) == 0;
    drop_qp(reader);
    drop_qp(home);
    return came && s.read == 1 ? 0 : 1;
}

int main(int argc, char **argv) {
    static const uint32_t psns[] = {0, 1, 0x7fffff}; /* the broker's are random: guesses */
    struct stranger s = {.verbs = NULL};
    uint64_t address, first_address = 0;
    uint32_t rkey, first_rkey = 0, number;
    if (argc == 3 && strcmp(argv[1], "--own") == 0)
        return read_own(argv[2]);
    if (argc < 4)
        stop("usage: stranger --own ADDRESS | stranger ADDRESS PORT [qp:N | RKEY:ADDRESS]...");
    for (int i = 3; i < argc; i++)
        if (sscanf(argv[i], "%x:%lx", &rkey, &address) == 2) {
            first_rkey = rkey;
            first_address = address;
            knock(&s, argv[1], argv[2], HANDSHAKE_CONTROL, address, rkey);
            knock(&s, argv[1], argv[2], HANDSHAKE_BULK, address, rkey);
        }
    for (int i = 3; i < argc; i++)
        for (size_t p = 0; sscanf(argv[i], "qp:%u", &number) == 1 && p < 3; p++) {
            struct ibv_qp *qp = make_qp(&s);
            aim(&s, qp, gid_of(argv[1]), number, psns[p]);
            judge(&s, argv[i], read_through(&s, qp, first_address, first_rkey));
            drop_qp(qp);
        }
    printf("%u READs, %u refused (%s), %u unanswered, %u read\n", s.tried, s.refused,
           s.last_refusal, s.silent, s.read);
    return s.tried > 0 && s.read == 0 ? 0 : 1;
}
