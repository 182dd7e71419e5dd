/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything happens under broker->lock, by the broker's thread or by the test's.
 */
#include "fake_broker.h"

#include <assert.h>
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

#include "layout.h"

#define AWAIT_S 20

/* A test that cannot set up its own broker has nothing to say. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            perror(#condition);                                                                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

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

/* ---- samples ---- */

static uint64_t take_room(struct fake_broker *broker, uint64_t bytes) {
    uint64_t offset = (broker->arena_used_bytes + 4095) & ~4095ull;
    broker->arena_used_bytes = offset + bytes;
    MUST(broker->arena_used_bytes <= FAKE_ARENA_BYTES);
    return offset;
}

static struct layout layout_of(ProtobufCBinaryData spec) {
    struct layout layout;
    Fb__SampleSpec *message = fb__sample_spec__unpack(NULL, spec.len, spec.data);
    MUST(message && !layout_compute(message, &layout));
    fb__sample_spec__free_unpacked(message, NULL);
    return layout;
}

static uint64_t tensor_bytes(ProtobufCBinaryData spec, size_t index) {
    Fb__SampleSpec *message = fb__sample_spec__unpack(NULL, spec.len, spec.data);
    uint64_t bytes = message->tensors[index]->bytes;
    fb__sample_spec__free_unpacked(message, NULL);
    return bytes;
}

static struct fake_sample *plan(struct fake_broker *broker, const char *id,
                                ProtobufCBinaryData spec) {
    MUST(broker->sample_count < FAKE_SAMPLES_MAX);
    struct fake_sample *sample = &broker->samples[broker->sample_count++];
    memset(sample, 0, sizeof *sample);
    snprintf(sample->id, sizeof sample->id, "%s", id);
    memcpy(sample->spec, spec.data, spec.len);
    sample->spec_bytes = spec.len;
    sample->extent_bytes = layout_of(spec).extent_bytes;
    sample->extent_offset = take_room(broker, sample->extent_bytes);
    sample->reservation = broker->sample_count;
    return sample;
}

static void make_resident(struct fake_broker *broker, struct fake_sample *sample,
                          ProtobufCBinaryData checksums, uint64_t op_id) {
    if (checksums.len)
        memcpy(sample->checksums, checksums.data, checksums.len);
    sample->checksums_bytes = checksums.len;
    sample->op_id = op_id;
    sample->generation = broker->next_generation++;
    broker->effects++;
}

static struct fake_sample *find_op(struct fake_broker *broker, uint64_t op_id) {
    for (unsigned i = 0; i < broker->sample_count; i++)
        if (broker->samples[i].op_id == op_id)
            return &broker->samples[i];
    return NULL;
}

static struct fake_sample *find_sample(struct fake_broker *broker, const char *id,
                                       uint64_t generation) {
    for (unsigned i = broker->sample_count; i-- > 0;) {
        struct fake_sample *sample = &broker->samples[i];
        if (sample->generation && !strcmp(sample->id, id) &&
            (!generation || sample->generation == generation))
            return sample;
    }
    return NULL;
}

/* ---- answers; each fills a reply whose parts live until the next request ---- */

struct answer {
    Fb__ClientReply reply;
    int fd;
    Fb__HelloReply hello;
    Fb__Limits limits;
    Fb__StoreChallenge challenge;
    Fb__StoreOpened opened;
    Fb__StoreSettings settings;
    uint8_t proof[AUTH_PROOF_BYTES];
    Fb__PutReply put;
    Fb__PutResult put_results[FRAME_BATCH_ITEMS_MAX], *put_pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__GetReply get;
    Fb__GetResult get_results[FRAME_BATCH_ITEMS_MAX], *get_pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__ItemsReply items;
    Fb__ItemResult item_results[FRAME_BATCH_ITEMS_MAX], *item_pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__StatReply stat;
    Fb__StatResult stat_result, *stat_pointer;
    Fb__SampleInfo infos[FRAME_BATCH_ITEMS_MAX], *info_pointers[FRAME_BATCH_ITEMS_MAX];
    Fb__ListReply list;
    Fb__HealthReply health;
    Fb__DrainReply drain;
};

static void answer_hello(struct fake_broker *broker, struct answer *answer) {
    fb__hello_reply__init(&answer->hello);
    fb__limits__init(&answer->limits);
    answer->limits.frame_bytes = FRAME_CLIENT_BYTES_MAX;
    answer->limits.inline_bytes = broker->inline_bytes;
    answer->limits.batch_items = broker->batch_items;
    answer->hello.version = broker->version;
    answer->hello.node = (char *)FAKE_NODE;
    answer->hello.incarnation = broker->incarnation;
    answer->hello.limits = &answer->limits;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_HELLO;
    answer->reply.hello = &answer->hello;
}

static void open_store(struct fake_broker *broker, struct answer *answer, bool write) {
    fb__store_opened__init(&answer->opened);
    fb__store_settings__init(&answer->settings);
    answer->settings.checksum = broker->checksum;
    answer->opened.handle = 7 + broker->connections;
    answer->opened.arena_bytes = broker->arena_bytes_said;
    answer->opened.write = write;
    answer->opened.settings = &answer->settings;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_OPENED;
    answer->reply.store_opened = &answer->opened;
    answer->fd = broker->arena_fd;
}

static void answer_open(struct fake_broker *broker, struct fake_session *session,
                        const Fb__StoreOpen *open, struct answer *answer) {
    if (!broker->has_secret) {
        open_store(broker, answer, open->write);
        return;
    }
    memcpy(session->client_nonce, open->client_nonce.data, AUTH_NONCE_BYTES);
    auth_nonce(session->server_nonce);
    fb__store_challenge__init(&answer->challenge);
    answer->challenge.server_nonce =
        (ProtobufCBinaryData){.data = session->server_nonce, .len = AUTH_NONCE_BYTES};
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STORE_CHALLENGE;
    answer->reply.store_challenge = &answer->challenge;
}

static void answer_prove(struct fake_broker *broker, const struct fake_session *session,
                         const Fb__StoreProve *prove, struct answer *answer) {
    uint8_t expected[AUTH_PROOF_BYTES];
    auth_proof(broker->key, AUTH_ROLE_ASKER, FAKE_STORE, strlen(FAKE_STORE), session->client_nonce,
               session->server_nonce, expected);
    if (prove->proof.len != sizeof expected ||
        !auth_equal(prove->proof.data, expected, sizeof expected)) {
        answer->reply.status = FB__STATUS__DENIED;
        answer->reply.error = (char *)"store run0: wrong secret";
        return;
    }
    open_store(broker, answer, true);
    auth_proof(broker->key, AUTH_ROLE_ANSWERER, FAKE_STORE, strlen(FAKE_STORE),
               session->client_nonce, session->server_nonce, answer->proof);
    if (broker->wrong_proof)
        answer->proof[0] ^= 1;
    answer->opened.server_proof =
        (ProtobufCBinaryData){.data = answer->proof, .len = sizeof answer->proof};
}

static Fb__PutResult *put_result(struct answer *answer, size_t index) {
    Fb__PutResult *result = answer->put_pointers[index] = &answer->put_results[index];
    fb__put_result__init(result);
    fb__put_reply__init(&answer->put);
    answer->put.items = answer->put_pointers;
    answer->put.n_items = index + 1;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_PUT;
    answer->reply.put = &answer->put;
    return result;
}

static void answer_reserve(struct fake_broker *broker, const Fb__Reserve *reserve,
                           struct answer *answer) {
    for (size_t i = 0; i < reserve->n_items; i++) {
        const struct fake_sample *sample =
            plan(broker, reserve->items[i]->sample_id, reserve->items[i]->spec);
        Fb__PutResult *result = put_result(answer, i);
        result->reservation = sample->reservation;
        result->extent_offset = sample->extent_offset;
    }
}

static void answer_commit(struct fake_broker *broker, const Fb__Commit *commit,
                          struct answer *answer) {
    for (size_t i = 0; i < commit->n_items; i++) {
        uint64_t index = commit->items[i]->reservation;
        struct fake_sample *sample = find_op(broker, commit->op_id + i);
        Fb__PutResult *result = put_result(answer, i);
        if (!sample && index && index <= broker->sample_count) {
            sample = &broker->samples[index - 1];
            make_resident(broker, sample, commit->items[i]->checksums, commit->op_id + i);
        }
        if (sample)
            result->generation = sample->generation;
        else
            result->status = FB__STATUS__INVALID;
    }
}

static void answer_put(struct fake_broker *broker, const Fb__Put *put, const uint8_t *payload,
                       struct answer *answer) {
    for (size_t i = 0; i < put->n_items; i++) {
        const Fb__PutItem *item = put->items[i];
        struct fake_sample *sample = find_op(broker, put->op_id + i);
        if (!sample) {
            struct layout layout = layout_of(item->spec);
            sample = plan(broker, item->sample_id, item->spec);
            const uint8_t *from = payload;
            for (uint32_t t = 0; t < layout.tensor_count; t++) {
                uint64_t bytes = tensor_bytes(item->spec, t);
                memcpy(broker->arena + sample->extent_offset + layout.offset_bytes[t], from, bytes);
                from += bytes;
            }
            make_resident(broker, sample, item->checksums, put->op_id + i);
        }
        payload += item->bytes;
        put_result(answer, i)->generation = sample->generation;
    }
}

static void answer_get(struct fake_broker *broker, const Fb__Get *get, struct answer *answer) {
    fb__get_reply__init(&answer->get);
    answer->get.items = answer->get_pointers;
    answer->get.n_items = get->n_items;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_GET;
    answer->reply.get = &answer->get;
    for (size_t i = 0; i < get->n_items; i++) {
        const Fb__GetItem *item = get->items[i];
        struct fake_sample *sample = find_sample(broker, item->sample_id, item->generation);
        Fb__GetResult *result = answer->get_pointers[i] = &answer->get_results[i];
        fb__get_result__init(result);
        if (!sample) {
            result->status = FB__STATUS__NOT_FOUND;
            result->error = (char *)"no such sample";
            continue;
        }
        result->lease_hi = 99;
        result->lease_lo = broker->next_lease++;
        result->extent_offset = sample->extent_offset;
        result->extent_bytes = sample->extent_bytes;
        result->generation = sample->generation;
        result->over_network = broker->over_network;
        if (!item->want_spec)
            continue;
        result->home = (char *)FAKE_NODE;
        result->incarnation = broker->incarnation;
        result->spec = (ProtobufCBinaryData){.data = sample->spec, .len = sample->spec_bytes};
        result->checksums =
            (ProtobufCBinaryData){.data = sample->checksums, .len = sample->checksums_bytes};
    }
}

static void answer_items(size_t count, struct answer *answer) {
    fb__items_reply__init(&answer->items);
    for (size_t i = 0; i < count; i++) {
        answer->item_pointers[i] = &answer->item_results[i];
        fb__item_result__init(&answer->item_results[i]);
    }
    answer->items.items = answer->item_pointers;
    answer->items.n_items = count;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_ITEMS;
    answer->reply.items = &answer->items;
}

static void fill_info(const struct fake_sample *sample, Fb__SampleInfo *info) {
    fb__sample_info__init(info);
    info->sample_id = (char *)sample->id;
    info->generation = sample->generation;
    info->state = FB__SAMPLE_STATE__RESIDENT;
    info->extent_bytes = sample->extent_bytes;
}

static void answer_stat(struct fake_broker *broker, const Fb__Stat *stat, struct answer *answer) {
    struct fake_sample *sample =
        find_sample(broker, stat->items[0]->sample_id, stat->items[0]->generation);
    fb__stat_reply__init(&answer->stat);
    fb__stat_result__init(&answer->stat_result);
    answer->stat_pointer = &answer->stat_result;
    answer->stat.items = &answer->stat_pointer;
    answer->stat.n_items = 1;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_STAT;
    answer->reply.stat = &answer->stat;
    if (!sample) {
        answer->stat_result.status = FB__STATUS__NOT_FOUND;
        return;
    }
    fill_info(sample, &answer->infos[0]);
    answer->stat_result.info = &answer->infos[0];
    answer->stat_result.spec =
        (ProtobufCBinaryData){.data = sample->spec, .len = sample->spec_bytes};
    answer->stat_result.checksums =
        (ProtobufCBinaryData){.data = sample->checksums, .len = sample->checksums_bytes};
}

/* cursor: index of the next sample. */
static void answer_list(struct fake_broker *broker, const Fb__List *list, struct answer *answer) {
    unsigned i = (unsigned)list->cursor;
    fb__list_reply__init(&answer->list);
    answer->list.samples = answer->info_pointers;
    for (; i < broker->sample_count && answer->list.n_samples < 10; i++) {
        const struct fake_sample *sample = &broker->samples[i];
        if (!sample->generation || strncmp(sample->id, list->prefix, strlen(list->prefix)))
            continue;
        size_t at = answer->list.n_samples++;
        answer->info_pointers[at] = &answer->infos[at];
        fill_info(sample, &answer->infos[at]);
    }
    answer->list.cursor = i < broker->sample_count ? i : 0;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_LIST;
    answer->reply.list = &answer->list;
}

static void answer_health(struct fake_broker *broker, struct answer *answer) {
    fb__health_reply__init(&answer->health);
    answer->health.node = (char *)FAKE_NODE;
    answer->health.incarnation = broker->incarnation;
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_HEALTH;
    answer->reply.health = &answer->health;
}

static void answer_drain(struct answer *answer) {
    fb__drain_reply__init(&answer->drain);
    answer->reply.result_case = FB__CLIENT_REPLY__RESULT_DRAIN;
    answer->reply.drain = &answer->drain;
}

static void fill_answer(struct fake_broker *broker, struct fake_session *session,
                        const struct fake_request *request, struct answer *answer) {
    const Fb__ClientRequest *message = request->message;
    fb__client_reply__init(&answer->reply);
    answer->fd = -1;
    switch (message->op_case) {
    case FB__CLIENT_REQUEST__OP_HELLO:
        answer_hello(broker, answer);
        break;
    case FB__CLIENT_REQUEST__OP_STORE_OPEN:
        answer_open(broker, session, message->store_open, answer);
        break;
    case FB__CLIENT_REQUEST__OP_STORE_PROVE:
        answer_prove(broker, session, message->store_prove, answer);
        break;
    case FB__CLIENT_REQUEST__OP_RESERVE:
        answer_reserve(broker, message->reserve, answer);
        break;
    case FB__CLIENT_REQUEST__OP_COMMIT:
        answer_commit(broker, message->commit, answer);
        break;
    case FB__CLIENT_REQUEST__OP_PUT:
        answer_put(broker, message->put, request->payload, answer);
        break;
    case FB__CLIENT_REQUEST__OP_GET:
        answer_get(broker, message->get, answer);
        break;
    case FB__CLIENT_REQUEST__OP_ACK:
    case FB__CLIENT_REQUEST__OP_ABORT:
        answer_items(message->ack->n_items, answer);
        break;
    case FB__CLIENT_REQUEST__OP_GC:
        answer_items(0, answer);
        answer->items.count = 3;
        break;
    case FB__CLIENT_REQUEST__OP_STAT:
        answer_stat(broker, message->stat, answer);
        break;
    case FB__CLIENT_REQUEST__OP_LIST:
        answer_list(broker, message->list, answer);
        break;
    case FB__CLIENT_REQUEST__OP_HEALTH:
        answer_health(broker, answer);
        break;
    case FB__CLIENT_REQUEST__OP_DRAIN:
        answer_drain(answer);
        break;
    default:
        break;
    }
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

static void answer_request(struct fake_broker *broker, struct fake_session *session,
                           const struct fake_request *request, bool send) {
    struct answer *answer = malloc(sizeof *answer);
    MUST(answer);
    fill_answer(broker, session, request, answer);
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

static void hold(struct fake_broker *broker, int fd, const uint8_t *frame, size_t bytes) {
    MUST(broker->held_count < FAKE_HELD_MAX);
    struct fake_held *held = &broker->held[broker->held_count++];
    *held = (struct fake_held){.fd = fd, .bytes = bytes, .frame = malloc(bytes)};
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
        hold(broker, session->fd, frame, bytes);
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
        struct fake_session *session = find_session(broker, broker->held[i].fd);
        parse(broker->held[i].frame, broker->held[i].bytes, broker->held[i].fd, &request);
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
    broker->version = FRAME_VERSION;
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
