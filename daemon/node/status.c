/* SPDX-License-Identifier: Apache-2.0
 *
 * From the outcomes of the store to the statuses of the protocol, and to the sentences that people
 * read. A sentence names the sample and the store, the limit that was hit with its numbers, who
 * holds the room, and what can be done about it: whoever reads it has no access to the broker's
 * state.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "node/node.h"

/* STORE_WAIT is no outcome: whoever waits is told later. */
Fb__Status status_of(enum store_result result) {
    switch (result) {
    case STORE_OK:
        return FB__STATUS__OK;
    case STORE_E_NOT_FOUND:
        return FB__STATUS__NOT_FOUND;
    case STORE_E_FULL:
    case STORE_E_LIMIT:
        return FB__STATUS__FULL;
    case STORE_E_TIMEOUT:
        return FB__STATUS__TIMEOUT;
    case STORE_E_INVALID:
    case STORE_E_TOO_LARGE:
        return FB__STATUS__INVALID;
    case STORE_E_EXISTS:
        return FB__STATUS__EXISTS;
    case STORE_WAIT:
        break;
    }
    return FB__STATUS__INTERNAL;
}

/* How a cause is put into words: what was counted, whether in bytes, and what can be done. */
struct cause_words {
    bool bytes;
    const char *what, *remedy;
};
/* In a sentence: "<what>: 3.2 GiB used of 4.0 GiB, 64 MiB asked; <remedy>". The keys of the
 * configuration are named where raising them helps. */
static const struct cause_words causes[] = {
    [STORE_CAUSE_NONE] = {false, "resources", "try again"},
    [STORE_CAUSE_QUOTA] = {true, "max_resident_bytes of the store",
                           "consume samples, or put with a longer deadline"},
    [STORE_CAUSE_NODE_QUOTA] =
        {true, "max_resident_bytes of the node",
         "consume samples in any store, or raise [memory] max_resident_bytes"},
    [STORE_CAUSE_FRAGMENTED] = {true, "largest free extent of the store",
                                "consume samples, or put with a longer deadline"},
    [STORE_CAUSE_LANDING] = {true, "landing_bytes of the store",
                             "release what was read from other nodes, or raise landing_bytes"},
    [STORE_CAUSE_SAMPLES] = {false, "max_samples of the store",
                             "consume samples, or raise max_samples"},
    [STORE_CAUSE_SPECS] = {false, "spec chunks of the store",
                           "use smaller metadata, or raise max_samples"},
    [STORE_CAUSE_LEASES] = {false, "leases of the store, of all users (2 x max_leases_per_user)",
                            "release views; featurectl leases shows whose"},
    [STORE_CAUSE_WAITERS] = {false,
                             "waiting requests of the store, of all users (2 x max_waits_per_user)",
                             "wait with fewer requests at once"},
    [STORE_CAUSE_SESSION_LEASES] = {false, "leases", "release views"},
    [STORE_CAUSE_SESSION_RESERVATIONS] = {false, "reservations", "commit or cancel some"},
    [STORE_CAUSE_SESSION_QUEUED] = {true, "bytes", "wait with fewer bytes at once"},
    [STORE_CAUSE_QUEUE] = {false, "puts that wait already (first come, first served; max_pass)",
                           "put with a longer deadline"},
};

/* Bytes as people write them ("3.2 GiB"), anything else as a number. */
static void status_amount(char out[32], bool bytes, uint64_t value) {
    if (bytes)
        log_bytes(value, out);
    else
        snprintf(out, 32, "%" PRIu64, value);
}

/* A limit of a session, user or peer rather than of the store: the account knows whose it is and
 * how the key is called. */
static void status_refused_by_account(char out[SENTENCE_BYTES], const struct space *space,
                                      const struct store_refusal *refusal, const char *sample_id) {
    static const enum charge charges[] = {
        [STORE_CAUSE_SESSION_LEASES] = CHARGE_LEASES,
        [STORE_CAUSE_SESSION_RESERVATIONS] = CHARGE_RESERVATIONS,
        [STORE_CAUSE_SESSION_QUEUED] = CHARGE_QUEUED_BYTES,
    };
    char limit[SENTENCE_BYTES];
    account_sentence(limit, sizeof limit,
                     &(struct charge_refusal){refusal->account, charges[refusal->cause],
                                              refusal->limit, refusal->used, refusal->asked});
    snprintf(out, SENTENCE_BYTES, "sample %s refused by store %s: %s; %s", sample_id, space->name,
             limit, causes[refusal->cause].remedy);
}

/* "Can never fit" is said apart from "finds no room": waiting longer helps only with the second. */
void status_sentence(char out[SENTENCE_BYTES], const struct space *space, enum store_result result,
                     const struct store_refusal *refusal, const char *sample_id) {
    const struct cause_words *words = &causes[refusal->cause];
    if (refusal->account) {
        status_refused_by_account(out, space, refusal, sample_id);
        return;
    }
    char used[32], limit[32], asked[32];
    status_amount(used, words->bytes, refusal->used);
    status_amount(limit, words->bytes, refusal->limit);
    status_amount(asked, words->bytes, refusal->asked);
    const char *verdict = result == STORE_E_TOO_LARGE ? "can never fit in"
                          : result == STORE_E_LIMIT   ? "refused by"
                                                      : "finds no room in";
    if (result == STORE_E_INVALID)
        snprintf(out, SENTENCE_BYTES,
                 "sample %s of store %s: the request does not fit the sample's state", sample_id,
                 space->name);
    else
        snprintf(out, SENTENCE_BYTES, "sample %s %s store %s: %s: %s used of %s, %s asked; %s",
                 sample_id, verdict, space->name, words->what, used, limit, asked,
                 result == STORE_E_TOO_LARGE ? "split the sample or raise the limit"
                                             : words->remedy);
}

/* ---- who holds the room ---- */

/* What does not fit is cut off: the numbers come first, so the end of the sentence is what can be
 * missed. */
static void status_append(char out[SENTENCE_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void status_append(char out[SENTENCE_BYTES], const char *format, ...) {
    size_t used = strlen(out);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out + used, SENTENCE_BYTES - used, format, arguments);
    va_end(arguments);
}

/* The broker's time is that of its turn, and may be a little behind. */
static double status_seconds_since(const struct broker *broker, uint64_t since_ns) {
    return broker->now_ns > since_ns ? (double)(broker->now_ns - since_ns) / 1e9 : 0;
}

/* Only then it helps to know who holds the room. */
static bool status_is_about_room(enum store_cause cause) {
    return cause == STORE_CAUSE_QUOTA || cause == STORE_CAUSE_NODE_QUOTA ||
           cause == STORE_CAUSE_FRAGMENTED || cause == STORE_CAUSE_SAMPLES ||
           cause == STORE_CAUSE_QUEUE;
}

/* Three parts of the room are told apart, because different people have to act: what is being
 * written (its producer), what is being read (its readers), and what is retired but still read
 * (readers who are late). */
void status_add_room(char out[SENTENCE_BYTES], const struct broker *broker,
                     const struct space *space, const struct store_refusal *refusal) {
    struct store_room room;
    char who[160], reserved[32], resident[32], leased[32], retired[32], asked[32];
    if (!status_is_about_room(refusal->cause))
        return;
    store_room(space->store, &room);
    status_amount(reserved, true, room.reserved_bytes + room.sealed_bytes);
    status_amount(resident, true, room.resident_bytes);
    status_amount(leased, true, room.leased_bytes - room.retired_bytes);
    status_amount(retired, true, room.retired_bytes);
    status_append(out, "; the room: %s resident, %s of it being read; %s being written", resident,
                  leased, reserved);
    if (room.has_reserver) {
        status_amount(reserved, true, room.reserver_bytes);
        status_append(out, ", %s of it by %s since %.1f s", reserved,
                      broker_owner_name(broker, room.reserver, who),
                      status_seconds_since(broker, room.reserver_since_ns));
    }
    if (room.has_reader)
        status_append(out, "; %s retired but still read, by %s since %.1f s", retired,
                      broker_owner_name(broker, room.reader, who),
                      status_seconds_since(broker, room.reader_since_ns));
    if (!room.has_first)
        return;
    status_amount(asked, true, room.first_bytes);
    status_append(out, "; first in line: %s, for %s, since %.1f s",
                  broker_owner_name(broker, room.first, who), asked,
                  status_seconds_since(broker, room.first_since_ns));
}

void status_add_cut(char out[SENTENCE_BYTES], const struct space *space) {
    char bound[32];
    status_append(out, "; the wait was cut to max_wait = %s of the store",
                  log_duration(space->settings.max_wait_ms, bound));
}

/* The words end a sentence such as "sample a was retired 12 s ago: consumed". */
const char *status_reason_word(enum store_reason reason) {
    static const char *const words[] = {
        [STORE_REASON_NONE] = "",
        [STORE_CONSUMED] = "consumed",
        [STORE_ACKED] = "acknowledged",
        [STORE_ABORTED] = "aborted",
        [STORE_SUPERSEDED] = "superseded by a later put of the same id",
        [STORE_MAX_HOLD] = "older than max_hold",
        [STORE_DROPPED] = "its store was dropped",
        [STORE_CANCELLED] = "cancelled by its producer before the commit",
        [STORE_PRODUCER_DIED] = "its producer's session ended before the commit",
        [STORE_UNCACHED] = "a landing copy that nobody reads any more",
        [STORE_FETCH_FAILED] = "a landing copy whose bytes never arrived",
        [STORE_RESERVE_ENDED] = "its reservation was not committed within max_reserve",
    };
    return reason < sizeof words / sizeof *words ? words[reason] : "";
}

/* There are three cases, and each calls for something else: an id that is wrong, a producer that
 * has not committed, and a sample that is over. */
void status_not_found(char out[SENTENCE_BYTES], const struct broker *broker,
                      const struct space *space, const char *sample_id, uint64_t generation) {
    struct store_info info;
    char what[64] = "";
    if (generation)
        snprintf(what, sizeof what, " generation %" PRIu64, generation);
    if (!store_stat(space->store, sample_id, (uint32_t)strlen(sample_id), generation, &info))
        snprintf(out, SENTENCE_BYTES, "sample %s%s of store %s was never seen on node %s",
                 sample_id, what, space->name, broker->config->node);
    else if (info.state == STORE_PLANNED || info.state == STORE_SEALED)
        snprintf(out, SENTENCE_BYTES,
                 "sample %s%s of store %s is being written and not committed yet", sample_id, what,
                 space->name);
    else
        snprintf(out, SENTENCE_BYTES,
                 "sample %s%s of store %s was retired %.1f s ago on node %s: %s", sample_id, what,
                 space->name, (double)(broker->now_ns - info.since_ns) / 1e9, broker->config->node,
                 status_reason_word(info.reason));
}
