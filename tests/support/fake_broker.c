/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything happens under broker->lock, by the broker's thread or by the test's.
 */
#include "proto/version.h"
#include "support/fake_broker_internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_S 20

/* ---- sending ---- */

static void send_packet(int fd, enum frame_type type, uint32_t request_id,
                        const ProtobufCMessage *message, int passed_fd) {
    uint8_t frame[FRAME_CLIENT_BYTES_MAX];
    size_t body_bytes = protobuf_c_message_get_packed_size(message);
    MUST(FRAME_HEADER_BYTES + body_bytes <= sizeof frame);
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = (uint8_t)type,
                                  .request_id = request_id,
                                  .body_bytes = (uint32_t)body_bytes};
    frame_encode(&header, frame);
    protobuf_c_message_pack(message, frame + FRAME_HEADER_BYTES);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec part = {.iov_base = frame, .iov_len = FRAME_HEADER_BYTES + body_bytes};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    if (passed_fd >= 0) {
        packet.msg_control = &control;
        packet.msg_controllen = sizeof control;
        struct cmsghdr *first = CMSG_FIRSTHDR(&packet);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(first), &passed_fd, sizeof passed_fd);
    }
    /* The client may be gone; that is its business. */
    (void)!sendmsg(fd, &packet, MSG_NOSIGNAL);
}

void fake_broker_notice(const struct fake_request *request, uint32_t request_id,
                        const Fb__ClientNotice *notice) {
    send_packet(request->fd, FRAME_NOTICE, request_id, &notice->base, -1);
}

/* ---- requests ---- */

static void record_release(struct fake_broker *broker, const struct fake_session *session,
                           const Fb__Release *release, bool note) {
    MUST(broker->record_count < FAKE_RECORDS_MAX);
    broker->records[broker->record_count++] = (struct fake_record){
        .op = FB__CLIENT_REQUEST__OP_RELEASE,
        .note = note,
        .connection = session->connection,
        .items = (unsigned)release->n_items,
        .id = release->items[0]->lease_lo,
        .consumed = release->items[0]->consumed,
        .corrupt = release->items[0]->corrupt,
    };
}

/* Releases that ride on another request are recorded before it, as if they had come by themselves.
 */
static void record(struct fake_broker *broker, const struct fake_session *session,
                   const struct fake_request *request) {
    const Fb__ClientRequest *message = request->message;
    for (size_t i = 0; i < message->n_releases; i++)
        record_release(broker, session, message->releases[i], false);
    if (message->op_case == FB__CLIENT_REQUEST__OP_RELEASE) {
        record_release(broker, session, message->release, request->header.type == FRAME_NOTE);
        pthread_cond_broadcast(&broker->recorded);
        return;
    }
    MUST(broker->record_count < FAKE_RECORDS_MAX);
    struct fake_record *entry = &broker->records[broker->record_count++];
    *entry = (struct fake_record){.op = message->op_case,
                                  .note = request->header.type == FRAME_NOTE,
                                  .connection = session->connection};
    if (message->op_case == FB__CLIENT_REQUEST__OP_CANCEL) {
        entry->id = message->cancel->reservations[0];
    } else if (message->op_case == FB__CLIENT_REQUEST__OP_PUT) {
        entry->op_id = message->put->op_id;
        entry->items = (unsigned)message->put->n_items;
    } else if (message->op_case == FB__CLIENT_REQUEST__OP_COMMIT) {
        entry->op_id = message->commit->op_id;
    } else if (message->op_case == FB__CLIENT_REQUEST__OP_ACK) {
        entry->op_id = message->ack->op_id;
        entry->items = (unsigned)message->ack->n_items;
    }
    pthread_cond_broadcast(&broker->recorded);
}

static void close_session(struct fake_session *session) {
    close(session->fd);
    session->fd = -1;
}

static struct fake_session *find_session(struct fake_broker *broker, int fd) {
    for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
        if (broker->sessions[i].fd == fd)
            return &broker->sessions[i];
    return NULL;
}

/* NULL once it has ended. */
static struct fake_session *find_connection(struct fake_broker *broker, unsigned connection) {
    for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
        if (broker->sessions[i].fd >= 0 && broker->sessions[i].connection == connection)
            return &broker->sessions[i];
    return NULL;
}

static void answer_request(struct fake_broker *broker, struct fake_session *session,
                           const struct fake_request *request, bool send) {
    struct fake_answer *answer = malloc(sizeof *answer);
    MUST(answer);
    fake_answer_fill(broker, session, request, answer);
    if (broker->on_reply)
        broker->on_reply(broker, request, &answer->reply);
    if (send && request->header.type == FRAME_REQUEST)
        send_packet(session->fd, FRAME_REPLY, request->header.request_id, &answer->reply.base,
                    answer->fd);
    free(answer);
}

static void parse(const uint8_t *frame, size_t bytes, int fd, struct fake_request *out) {
    *out = (struct fake_request){.fd = fd};
    MUST(bytes >= FRAME_HEADER_BYTES && !frame_decode(frame, FRAME_CLIENT_BYTES_MAX, &out->header));
    MUST(FRAME_HEADER_BYTES + out->header.body_bytes + out->header.payload_bytes == bytes);
    out->message =
        fb__client_request__unpack(NULL, out->header.body_bytes, frame + FRAME_HEADER_BYTES);
    out->payload = frame + FRAME_HEADER_BYTES + out->header.body_bytes;
    MUST(out->message);
}

static void hold(struct fake_broker *broker, unsigned connection, const uint8_t *frame,
                 size_t bytes) {
    MUST(broker->held_count < FAKE_HELD_MAX);
    struct fake_held *held = &broker->held[broker->held_count++];
    *held = (struct fake_held){.connection = connection, .bytes = bytes, .frame = malloc(bytes)};
    MUST(held->frame);
    memcpy(held->frame, frame, bytes);
}

static void take_frame(struct fake_broker *broker, struct fake_session *session,
                       const uint8_t *frame, size_t bytes) {
    struct fake_request request;
    parse(frame, bytes, session->fd, &request);
    enum fake_verdict verdict =
        broker->on_request ? broker->on_request(broker, &request) : FAKE_ANSWER;
    record(broker, session, &request);
    if (verdict == FAKE_HOLD)
        hold(broker, session->connection, frame, bytes);
    else if (verdict != FAKE_CLOSE)
        answer_request(broker, session, &request, verdict == FAKE_ANSWER);
    if (verdict == FAKE_CLOSE || verdict == FAKE_DROP)
        close_session(session);
    fb__client_request__free_unpacked(request.message, NULL);
}

void fake_broker_answer_held(struct fake_broker *broker) {
    pthread_mutex_lock(&broker->lock);
    for (unsigned i = 0; i < broker->held_count; i++) {
        struct fake_request request;
        struct fake_session *session = find_connection(broker, broker->held[i].connection);
        parse(broker->held[i].frame, broker->held[i].bytes, session ? session->fd : -1, &request);
        if (session)
            answer_request(broker, session, &request, true);
        fb__client_request__free_unpacked(request.message, NULL);
        free(broker->held[i].frame);
    }
    broker->held_count = 0;
    pthread_mutex_unlock(&broker->lock);
}

/* ---- the thread ---- */

static void accept_session(struct fake_broker *broker) {
    struct fake_session *session = find_session(broker, -1);
    int fd = accept4(broker->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    MUST(session && fd >= 0);
    session->fd = fd;
    session->connection = ++broker->connections;
}

static void serve_session(struct fake_broker *broker, struct fake_session *session) {
    static _Thread_local uint8_t frame[FRAME_CLIENT_BYTES_MAX];
    ssize_t bytes = recv(session->fd, frame, sizeof frame, MSG_DONTWAIT);
    if (bytes > 0)
        take_frame(broker, session, frame, (size_t)bytes);
    else
        close_session(session);
}

static void *run(void *argument) {
    struct fake_broker *broker = argument;
    for (;;) {
        struct pollfd fds[2 + FAKE_SESSIONS_MAX] = {{.fd = broker->wake_fd, .events = POLLIN},
                                                    {.fd = broker->listen_fd, .events = POLLIN}};
        pthread_mutex_lock(&broker->lock);
        for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
            fds[2 + i] = (struct pollfd){.fd = broker->sessions[i].fd, .events = POLLIN};
        pthread_mutex_unlock(&broker->lock);
        MUST(poll(fds, 2 + FAKE_SESSIONS_MAX, -1) > 0);
        if (fds[0].revents)
            return NULL;
        pthread_mutex_lock(&broker->lock);
        if (fds[1].revents)
            accept_session(broker);
        for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
            if (fds[2 + i].revents && fds[2 + i].fd == broker->sessions[i].fd)
                serve_session(broker, &broker->sessions[i]);
        pthread_mutex_unlock(&broker->lock);
    }
}

/* ---- life ---- */

static void new_arena(struct fake_broker *broker) {
    broker->arena_fd = memfd_create("fake-arena", MFD_CLOEXEC);
    MUST(broker->arena_fd >= 0 && !ftruncate(broker->arena_fd, FAKE_ARENA_BYTES));
    broker->arena =
        mmap(NULL, FAKE_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, broker->arena_fd, 0);
    MUST(broker->arena != MAP_FAILED);
    broker->arena_used_bytes = 0;
}

static void free_arena(struct fake_broker *broker) {
    munmap(broker->arena, FAKE_ARENA_BYTES);
    close(broker->arena_fd);
}

void fake_broker_init(struct fake_broker *broker) {
    memset(broker, 0, sizeof *broker);
    MUST(!auth_init());
    snprintf(broker->directory, sizeof broker->directory, "/tmp/fake-broker-XXXXXX");
    MUST(mkdtemp(broker->directory));
    snprintf(broker->path, sizeof broker->path, "%s/socket", broker->directory);
    pthread_mutex_init(&broker->lock, NULL);
    pthread_cond_init(&broker->recorded, NULL);
    broker->samples = calloc(FAKE_SAMPLES_MAX, sizeof *broker->samples);
    MUST(broker->samples);
    new_arena(broker);
    broker->incarnation = 0x1001;
    broker->arena_bytes_said = FAKE_ARENA_BYTES;
    broker->inline_bytes = FRAME_INLINE_BYTES_MAX;
    broker->batch_items = FRAME_BATCH_ITEMS_MAX;
    broker->version = VERSION_CLIENT.highest;
    broker->next_generation = 0x500;
    broker->next_lease = 1;
    for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
        broker->sessions[i].fd = -1;
}

void fake_broker_start(struct fake_broker *broker) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, broker->path, strlen(broker->path) + 1);
    broker->wake_fd = eventfd(0, EFD_CLOEXEC);
    broker->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    MUST(broker->wake_fd >= 0 && broker->listen_fd >= 0);
    MUST(!bind(broker->listen_fd, (const struct sockaddr *)&address, sizeof address));
    MUST(!listen(broker->listen_fd, 16));
    MUST(!pthread_create(&broker->thread, NULL, run, broker));
    broker->running = true;
}

void fake_broker_drop_sessions(struct fake_broker *broker) {
    pthread_mutex_lock(&broker->lock);
    /* The thread may be polling them: it finds their end and closes them. */
    for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
        if (broker->sessions[i].fd >= 0)
            shutdown(broker->sessions[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&broker->lock);
}

void fake_broker_stop(struct fake_broker *broker) {
    if (!broker->running)
        return;
    MUST(eventfd_write(broker->wake_fd, 1) == 0);
    pthread_join(broker->thread, NULL);
    broker->running = false;
    close(broker->wake_fd);
    close(broker->listen_fd);
    unlink(broker->path);
    for (unsigned i = 0; i < FAKE_SESSIONS_MAX; i++)
        if (broker->sessions[i].fd >= 0)
            close_session(&broker->sessions[i]);
    for (unsigned i = 0; i < broker->held_count; i++)
        free(broker->held[i].frame);
    broker->held_count = 0;
}

void fake_broker_restart(struct fake_broker *broker) {
    fake_broker_stop(broker);
    free_arena(broker);
    new_arena(broker);
    broker->sample_count = 0;
    broker->incarnation++;
    fake_broker_start(broker);
}

void fake_broker_deinit(struct fake_broker *broker) {
    fake_broker_stop(broker);
    free_arena(broker);
    free(broker->samples);
    rmdir(broker->directory);
    pthread_cond_destroy(&broker->recorded);
    pthread_mutex_destroy(&broker->lock);
}

/* ---- records ---- */

static unsigned count_locked(const struct fake_broker *broker, Fb__ClientRequest__OpCase op) {
    unsigned count = 0;
    for (unsigned i = 0; i < broker->record_count; i++)
        if (broker->records[i].op == op)
            count += op == FB__CLIENT_REQUEST__OP_RELEASE ? broker->records[i].items : 1;
    return count;
}

unsigned fake_broker_count(struct fake_broker *broker, Fb__ClientRequest__OpCase op) {
    pthread_mutex_lock(&broker->lock);
    unsigned count = count_locked(broker, op);
    pthread_mutex_unlock(&broker->lock);
    return count;
}

bool fake_broker_await(struct fake_broker *broker, Fb__ClientRequest__OpCase op, unsigned count) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += AWAIT_S;
    pthread_mutex_lock(&broker->lock);
    int rc = 0;
    while (count_locked(broker, op) < count && !rc)
        rc = pthread_cond_clockwait(&broker->recorded, &broker->lock, CLOCK_MONOTONIC, &deadline);
    bool came = count_locked(broker, op) >= count;
    pthread_mutex_unlock(&broker->lock);
    return came;
}

struct fake_record fake_broker_record(struct fake_broker *broker, Fb__ClientRequest__OpCase op,
                                      unsigned index) {
    struct fake_record found = {.connection = 0};
    unsigned seen = 0;
    pthread_mutex_lock(&broker->lock);
    for (unsigned i = 0; i < broker->record_count; i++)
        if (broker->records[i].op == op && seen++ == index)
            found = broker->records[i];
    pthread_mutex_unlock(&broker->lock);
    MUST(seen > index);
    return found;
}
