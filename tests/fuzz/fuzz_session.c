/* SPDX-License-Identifier: Apache-2.0
 *
 * Hostile clients, socket included: each input is a script for one session over a socket pair, with
 * a stub in the broker's place. Records of one byte of length (times 4) and that many bytes of
 * packet.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "local/session.h"
#include "ops/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *script, size_t bytes);

static void expect(bool condition) {
    if (!condition)
        abort();
}

struct broker_session {
    const struct broker_client_ops *ops;
    void *client;
};

static unsigned sessions_open;

static struct broker_session *stub_open(struct broker *broker, const struct broker_client_ops *ops,
                                        void *client, const struct broker_credentials *credentials,
                                        char *why, size_t why_bytes) {
    (void)why, (void)why_bytes;
    (void)broker;
    (void)credentials;
    struct broker_session *session = malloc(sizeof *session);
    expect(session != NULL);
    *session = (struct broker_session){.ops = ops, .client = client};
    sessions_open++;
    return session;
}

static bool stub_request(struct broker_session *session, uint32_t request_id, bool wants_reply,
                         const Fb__ClientRequest *request, const uint8_t *payload,
                         size_t payload_bytes, uint64_t now_ns, const char **why) {
    (void)now_ns;
    if (request->op_case == FB__CLIENT_REQUEST__OP__NOT_SET) {
        *why = "empty request";
        return false;
    }
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < payload_bytes; i++)
        sum = (uint8_t)(sum + payload[i]);
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    session->ops->notice(session->client, request_id, &notice);
    Fb__ClientReply reply = FB__CLIENT_REPLY__INIT;
    if (wants_reply)
        session->ops->reply(session->client, request_id, &reply,
                            payload_bytes % 2 ? STDIN_FILENO : -1);
    return true;
}

static void stub_close(struct broker_session *session, uint64_t now_ns) {
    (void)now_ns;
    sessions_open--;
    free(session);
}

static const char *stub_name(const struct broker_session *session) {
    (void)session;
    return "fuzzed";
}

static const struct session_backend stub_backend = {
    .open = stub_open, .request = stub_request, .close = stub_close, .name = stub_name};

static void play(int client, uv_loop_t *loop, const uint8_t *script, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t packet_bytes = (size_t)script[at++] * 4;
        if (packet_bytes > bytes - at)
            packet_bytes = bytes - at;
        send(client, script + at, packet_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += packet_bytes;
        if (at % 3 == 0)
            uv_run(loop, UV_RUN_NOWAIT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *script, size_t bytes) {
    static uv_loop_t loop;
    static struct sessions sessions;
    if (!sessions.loop) {
        log_set_level(LOG_LEVEL_ERROR);
        const struct sessions_options options = {.send_queue_bytes = 4096};
        expect(uv_loop_init(&loop) == 0);
        expect(sessions_init(&sessions, &loop, NULL, &stub_backend, &options) == 0);
    }
    int ends[2];
    expect(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    const struct broker_credentials credentials = {0};
    expect(session_new(&sessions, ends[1], &credentials, (char[320]){0}, 320) == 0);
    play(ends[0], &loop, script, bytes);
    close(ends[0]);
    /* The timer of what lies unread stays, once there was something. */
    while (sessions.unfreed > sessions.has_unread_timer)
        uv_run(&loop, UV_RUN_ONCE);
    expect(sessions_open == 0);
    return 0;
}
