/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of the fake broker: sockets and records here, samples and answers there.
 */
#ifndef FEATURED_TESTS_SUPPORT_FAKE_BROKER_INTERNAL_H
#define FEATURED_TESTS_SUPPORT_FAKE_BROKER_INTERNAL_H

#include <stdio.h>
#include <stdlib.h>

#include "support/fake_broker.h"

/* A test that cannot set up its own broker has nothing to say. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            perror(#condition);                                                                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A reply and the parts that it points to. */
struct fake_answer {
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

/* Carries the request out and fills the reply. */
void fake_answer_fill(struct fake_broker *broker, struct fake_session *session,
                      const struct fake_request *request, struct fake_answer *answer);

#endif
