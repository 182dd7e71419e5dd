/* SPDX-License-Identifier: Apache-2.0
 *
 * A client that speaks the frames itself, well or badly: for what libfeature would never send.
 * Blocking, one request at a time, replies with a deadline.
 */
#ifndef FEATURED_TESTS_WIRE_H
#define FEATURED_TESTS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"

struct wire {
    int fd;
    int passed_fd; /* of the last reply that carried one; -1 */
    uint32_t next_request_id;
};

void wire_connect(struct wire *wire, const char *socket_path);
void wire_close(struct wire *wire);

/* Any bytes as one packet; false when the broker has closed the session. */
bool wire_send_bytes(const struct wire *wire, const void *bytes, size_t count);
/* A well-formed frame around this body and payload; gives its request_id, 0 when the session is
 * closed. */
uint32_t wire_send(struct wire *wire, uint8_t type, const Fb__ClientRequest *request,
                   const void *payload, size_t payload_bytes);
/* The next reply (notices are skipped), or NULL when the session is closed. To be freed with
 * fb__client_reply__free_unpacked(). */
Fb__ClientReply *wire_receive(struct wire *wire, uint32_t deadline_ms);
/* The same, and shows the notices before it. */
typedef void (*wire_notice_fn)(void *context, const Fb__ClientNotice *notice);
Fb__ClientReply *wire_receive_noticing(struct wire *wire, uint32_t deadline_ms,
                                       wire_notice_fn on_notice, void *context);
Fb__ClientReply *wire_call(struct wire *wire, const Fb__ClientRequest *request);
/* The broker closes this session within deadline_ms; what it still says is thrown away. */
bool wire_closed(struct wire *wire, uint32_t deadline_ms);

/* Hello under this client_id; opens a store without secret for writing and gives its handle. */
void wire_hello(struct wire *wire, uint64_t client_id);
uint32_t wire_open(struct wire *wire, const char *store);

/* A sample of one U8 tensor "x" as requests need it. */
struct wire_sample {
    uint8_t spec[256];
    size_t spec_bytes;
    uint8_t checksum[8]; /* XXH3-64, little-endian */
};
void wire_sample(struct wire_sample *out, const void *bytes, size_t count);
/* Puts it inline under (client_id, op_id) and gives the reply. */
Fb__ClientReply *wire_put(struct wire *wire, uint32_t handle, const char *sample_id, uint64_t op_id,
                          const void *bytes, size_t count);
/* Sends such a put with a deadline; its answer is still to be received. */
void wire_send_put(struct wire *wire, uint32_t handle, const char *sample_id, uint64_t op_id,
                   const void *bytes, size_t count, uint32_t deadline_ms);
/* Get by id (generation 0) or by generation at home here. */
Fb__ClientReply *wire_get(struct wire *wire, uint32_t handle, const char *sample_id,
                          uint64_t generation);
/* Ends a lease as a request, so that it has happened on return; gives the status. */
Fb__Status wire_release(struct wire *wire, uint32_t handle, uint64_t lease_hi, uint64_t lease_lo,
                        bool consumed);

#endif
