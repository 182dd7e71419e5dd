/* SPDX-License-Identifier: Apache-2.0 */
#include "support/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/frame.h"
#include "proto/version.h"
#include "support/checks.h"

#define CALL_MS 10000u

void wire_connect(struct wire *wire, const char *socket_path) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, socket_path, sizeof name.sun_path - 1);
    *wire = (struct wire){.passed_fd = -1, .next_request_id = 1};
    wire->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(wire->fd >= 0, "%s", strerror(errno));
    CHECK(connect(wire->fd, (struct sockaddr *)&name, sizeof name) == 0, "%s: %s", socket_path,
          strerror(errno));
}

void wire_close(struct wire *wire) {
    if (wire->passed_fd >= 0)
        close(wire->passed_fd);
    close(wire->fd);
    wire->fd = wire->passed_fd = -1;
}

bool wire_send_bytes(const struct wire *wire, const void *bytes, size_t count) {
    return send(wire->fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

uint32_t wire_send(struct wire *wire, uint8_t type, const Fb__ClientRequest *request,
                   const void *payload, size_t payload_bytes) {
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    size_t body_bytes = fb__client_request__get_packed_size(request);
    CHECK(FRAME_HEADER_BYTES + body_bytes + payload_bytes <= sizeof packet, "%zu bytes",
          body_bytes);
    struct frame_header header = {.version = FRAME_VERSION,
                                  .type = type,
                                  .request_id = wire->next_request_id,
                                  .body_bytes = (uint32_t)body_bytes,
                                  .payload_bytes = (uint32_t)payload_bytes};
    frame_encode(&header, packet);
    fb__client_request__pack(request, packet + FRAME_HEADER_BYTES);
    if (payload_bytes > 0)
        memcpy(packet + FRAME_HEADER_BYTES + body_bytes, payload, payload_bytes);
    bool sent = wire_send_bytes(wire, packet, FRAME_HEADER_BYTES + body_bytes + payload_bytes);
    return sent ? wire->next_request_id++ : 0;
}

/* Keeps the fd that came along. */
static void take_fd(struct wire *wire, struct msghdr *message) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL;
         control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        if (wire->passed_fd >= 0)
            close(wire->passed_fd);
        memcpy(&wire->passed_fd, CMSG_DATA(control), sizeof wire->passed_fd);
    }
}

/* One packet; its size, 0 at the end of the session. */
static size_t receive_packet(struct wire *wire, uint8_t *packet, size_t room,
                             uint32_t deadline_ms) {
    struct pollfd readable = {.fd = wire->fd, .events = POLLIN};
    CHECK(poll(&readable, 1, (int)deadline_ms) > 0, "no reply within %u ms", deadline_ms);
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = packet, .iov_len = room};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(wire->fd, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return 0;
    take_fd(wire, &message);
    return (size_t)got;
}

static void show_notice(const uint8_t *body, size_t bytes, wire_notice_fn on_notice,
                        void *context) {
    Fb__ClientNotice *notice = fb__client_notice__unpack(NULL, bytes, body);
    CHECK(notice != NULL, "notice: not a ClientNotice");
    if (on_notice != NULL)
        on_notice(context, notice);
    fb__client_notice__free_unpacked(notice, NULL);
}

Fb__ClientReply *wire_receive(struct wire *wire, uint32_t deadline_ms) {
    return wire_receive_noticing(wire, deadline_ms, NULL, NULL);
}

Fb__ClientReply *wire_receive_noticing(struct wire *wire, uint32_t deadline_ms,
                                       wire_notice_fn on_notice, void *context) {
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    for (size_t got; (got = receive_packet(wire, packet, sizeof packet, deadline_ms)) > 0;) {
        struct frame_header header;
        const char *why = got < FRAME_HEADER_BYTES
                              ? "shorter than a header"
                              : frame_decode(packet, FRAME_CLIENT_BYTES_MAX, &header);
        CHECK(why == NULL, "reply: %s", why);
        if (header.type == FRAME_NOTICE)
            show_notice(packet + FRAME_HEADER_BYTES, header.body_bytes, on_notice, context);
        if (header.type != FRAME_REPLY)
            continue;
        CHECK(FRAME_HEADER_BYTES + header.body_bytes + header.payload_bytes == got,
              "reply: wrong sizes");
        Fb__ClientReply *reply =
            fb__client_reply__unpack(NULL, header.body_bytes, packet + FRAME_HEADER_BYTES);
        CHECK(reply != NULL, "reply: not a ClientReply");
        return reply;
    }
    return NULL;
}

Fb__ClientReply *wire_call(struct wire *wire, const Fb__ClientRequest *request) {
    CHECK(wire_send(wire, FRAME_REQUEST, request, NULL, 0) != 0, "session closed: %s",
          strerror(errno));
    Fb__ClientReply *reply = wire_receive(wire, CALL_MS);
    CHECK(reply != NULL, "session closed without an answer");
    return reply;
}

bool wire_closed(struct wire *wire, uint32_t deadline_ms) {
    static uint8_t packet[FRAME_CLIENT_BYTES_MAX];
    uint64_t end_ms = check_now_ms() + deadline_ms;
    while (check_now_ms() < end_ms) {
        struct pollfd readable = {.fd = wire->fd, .events = POLLIN};
        if (poll(&readable, 1, 100) > 0 && recv(wire->fd, packet, sizeof packet, 0) <= 0)
            return true;
    }
    return false;
}

void wire_hello(struct wire *wire, uint64_t client_id) {
    Fb__Hello hello = FB__HELLO__INIT;
    hello.version_min = hello.version_max = VERSION_CLIENT.highest;
    hello.client_id = client_id;
    hello.client_name = (char *)"wire";
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_HELLO;
    request.hello = &hello;
    Fb__ClientReply *reply = wire_call(wire, &request);
    CHECK(reply->status == FB__STATUS__OK && reply->hello != NULL, "hello refused: %s",
          reply->error);
    fb__client_reply__free_unpacked(reply, NULL);
}

uint32_t wire_open(struct wire *wire, const char *store) {
    uint8_t nonce[32] = {0};
    Fb__StoreOpen open = FB__STORE_OPEN__INIT;
    open.store = (char *)store;
    open.client_nonce = (ProtobufCBinaryData){.data = nonce, .len = sizeof nonce};
    open.write = true;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_STORE_OPEN;
    request.store_open = &open;
    Fb__ClientReply *reply = wire_call(wire, &request);
    CHECK(reply->status == FB__STATUS__OK && reply->store_opened != NULL, "open refused: %s",
          reply->error);
    uint32_t handle = reply->store_opened->handle;
    fb__client_reply__free_unpacked(reply, NULL);
    return handle;
}

void wire_sample(struct wire_sample *out, const void *bytes, size_t count) {
    uint64_t shape = count, checksum = XXH3_64bits(bytes, count);
    Fb__TensorSpec tensor = FB__TENSOR_SPEC__INIT, *tensors = &tensor;
    tensor.name = (char *)"x";
    tensor.dtype = FB__DTYPE__U8;
    tensor.n_shape = 1;
    tensor.shape = &shape;
    tensor.bytes = count;
    Fb__SampleSpec spec = FB__SAMPLE_SPEC__INIT;
    spec.n_tensors = 1;
    spec.tensors = &tensors;
    out->spec_bytes = fb__sample_spec__pack(&spec, out->spec);
    for (int i = 0; i < 8; i++)
        out->checksum[i] = (uint8_t)(checksum >> (8 * i));
}

void wire_send_put(struct wire *wire, uint32_t handle, const char *sample_id, uint64_t op_id,
                   const void *bytes, size_t count, uint32_t deadline_ms) {
    struct wire_sample sample;
    wire_sample(&sample, bytes, count);
    Fb__PutItem item = FB__PUT_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.spec = (ProtobufCBinaryData){.data = sample.spec, .len = sample.spec_bytes};
    item.checksums = (ProtobufCBinaryData){.data = sample.checksum, .len = 8};
    item.bytes = (uint32_t)count;
    Fb__Put put = FB__PUT__INIT;
    put.handle = handle;
    put.n_items = 1;
    put.items = &items;
    put.op_id = op_id;
    put.deadline_ms = deadline_ms;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_PUT;
    request.put = &put;
    CHECK(wire_send(wire, FRAME_REQUEST, &request, bytes, count) != 0, "session closed");
}

Fb__ClientReply *wire_put(struct wire *wire, uint32_t handle, const char *sample_id, uint64_t op_id,
                          const void *bytes, size_t count) {
    wire_send_put(wire, handle, sample_id, op_id, bytes, count, 0);
    Fb__ClientReply *reply = wire_receive(wire, CALL_MS);
    CHECK(reply != NULL, "session closed without an answer");
    return reply;
}

Fb__ClientReply *wire_get(struct wire *wire, uint32_t handle, const char *sample_id,
                          uint64_t generation) {
    Fb__GetItem item = FB__GET_ITEM__INIT, *items = &item;
    item.sample_id = (char *)sample_id;
    item.generation = generation;
    Fb__Get get = FB__GET__INIT;
    get.handle = handle;
    get.n_items = 1;
    get.items = &items;
    get.deadline_ms = CALL_MS;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_GET;
    request.get = &get;
    return wire_call(wire, &request);
}

Fb__Status wire_release(struct wire *wire, uint32_t handle, uint64_t lease_hi, uint64_t lease_lo,
                        bool consumed) {
    Fb__ReleaseItem item = FB__RELEASE_ITEM__INIT, *items = &item;
    item.lease_hi = lease_hi;
    item.lease_lo = lease_lo;
    item.consumed = consumed;
    Fb__Release release = FB__RELEASE__INIT;
    release.handle = handle;
    release.n_items = 1;
    release.items = &items;
    Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
    request.op_case = FB__CLIENT_REQUEST__OP_RELEASE;
    request.release = &release;
    Fb__ClientReply *reply = wire_call(wire, &request);
    Fb__Status status = reply->status;
    if (status == FB__STATUS__OK && reply->items != NULL && reply->items->n_items == 1)
        status = reply->items->items[0]->status;
    fb__client_reply__free_unpacked(reply, NULL);
    return status;
}
