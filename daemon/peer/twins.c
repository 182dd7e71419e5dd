/* SPDX-License-Identifier: Apache-2.0
 *
 * Two brokers of one name, alive at once: a cloned machine, say. A restart looks like it for a
 * moment, and what a dead broker has sent may come late, all at once: so two connections of one
 * name and two incarnations count only when each has been heard several times, at the pace of
 * pings, since the later one began.
 *
 *   - Our own name: said by a broker that dials us, by one that we dial, or by a third that both
 *     of us ask. Known until it has not been heard of for a while.
 *   - Another node's: two askers, or an asker and the broker that we ask under that name. We tell
 *     each of them with the answer to its next ping.
 *
 * The broker that has our name in the index is looked for with a link of its own, `seeker`, which
 * is not among the peers and asks nothing but pings.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/log.h"
#include "peer/peer_internal.h"

#define PULSES_LEAST 3u

/* ---- our own name ---- */

/* Three times the longest pause that there can be between two signs of a twin: its pings, its
 * silence, its attempts to connect. */
static uint64_t twins_kept_ns(const struct peers *peers) {
    const struct peers_options *options = &peers->options;
    uint64_t longest_ns = options->timeout_ns > options->reconnect_max_ns
                              ? options->timeout_ns
                              : options->reconnect_max_ns;
    return 3 * (longest_ns > options->ping_interval_ns ? longest_ns : options->ping_interval_ns);
}

static uint64_t twins_over_ns(const struct peers *peers) {
    return peers->twin.seen_ns + twins_kept_ns(peers) + 1;
}

/* Logged when it becomes known and not each time it is seen again, which may be at every ping. */
void peers_twin_seen(struct peers *peers, const char *words) {
    struct own_twin *twin = &peers->twin;
    if (!*twin->words)
        log_error("node %s: %s; give one of the two another [node] name", peers->node, words);
    snprintf(twin->words, sizeof twin->words, "%s", words);
    twin->seen_ns = peers->now_ns;
    if (!twin->over.queued)
        deadlines_set(peers->options.deadlines, &twin->over, twins_over_ns(peers));
}

const char *peers_twin(const struct peers *peers) {
    return peers->twin.words;
}

/* The words come from another node and go into our log and to our users, so control characters are
 * taken out, and there is a limit. */
void twins_told(struct peers *peers, const char *by, const char *words) {
    char clean[sizeof peers->twin.words], sentence[sizeof peers->twin.words];
    size_t used = 0;
    for (; words[used] && used + 80 < sizeof clean; used++)
        clean[used] = words[used] >= ' ' && words[used] <= '~' ? words[used] : '?';
    clean[used] = '\0';
    snprintf(sentence, sizeof sentence, "node %s says: %s", by, clean);
    peers_twin_seen(peers, sentence);
}

/* The address is the one thing by which an administrator can find the other broker. */
void twins_remote(const struct end *end, char out[64]) {
    struct transport_info info = {0};
    if (end->conn)
        end->peers->transport->ops->query(end->conn, &info);
    snprintf(out, 64, "%s", *info.remote ? info.remote : "(not known)");
}

void twins_met(struct peers *peers, const struct end *end, const char *how, uint64_t incarnation) {
    char remote[64], words[sizeof peers->twin.words];
    twins_remote(end, remote);
    snprintf(words, sizeof words,
             "another broker calls itself node %s, too, and both live: incarnation %" PRIu64
             ", %s %s; this one is incarnation %" PRIu64,
             peers->node, incarnation, how, remote, peers->options.incarnation);
    peers_twin_seen(peers, words);
}

/* ---- another node's name ---- */

/* Pulses that were counted before the other connection began prove nothing about both living at
 * once. */
static void twins_begin_anew(struct end *end) {
    end->pulses = 0;
    end->pulse_ns = end->peers->now_ns;
}

void twins_begin(struct end *end, const char *node) {
    struct peers *peers = end->peers;
    struct asker *asker;
    struct peer *peer = peers_find(peers, node);
    twins_begin_anew(end);
    TAILQ_FOREACH (asker, &peers->askers, link)
        if (!strcmp(asker->node, node))
            twins_begin_anew(&asker->end);
    if (peer)
        twins_begin_anew(&peer->end);
}

/* At the pace of pings at most: ten messages that a dead broker has left in the network arrive at
 * once and count as one. */
void twins_pulse(struct end *end) {
    uint64_t now_ns = end->peers->now_ns;
    if (now_ns < end->pulse_ns + end->peers->options.ping_interval_ns / 2)
        return;
    end->pulses++;
    end->pulse_ns = now_ns;
}

/* Three pulses each: one may be what a dead broker sent last, and a second one its last ping. */
static bool twins_both_live(const struct end *a, const struct end *b) {
    return a->conn && b->conn && a->pulses >= PULSES_LEAST && b->pulses >= PULSES_LEAST;
}

/* Another connection of this name and of another incarnation that lives; NULL: none. */
static const struct end *twins_find_rival(struct peers *peers, const struct asker *asker,
                                          uint64_t *incarnation_out) {
    const struct asker *other;
    TAILQ_FOREACH (other, &peers->askers, link)
        if (other != asker && other->incarnation != asker->incarnation &&
            !strcmp(other->node, asker->node) && twins_both_live(&other->end, &asker->end)) {
            *incarnation_out = other->incarnation;
            return &other->end;
        }
    const struct peer *peer = peers_find(peers, asker->node);
    if (peer && peer->state == PEER_UP && peer->incarnation != asker->incarnation &&
        twins_both_live(&peer->end, &asker->end)) {
        *incarnation_out = peer->incarnation;
        return &peer->end;
    }
    return NULL;
}

static bool twins_is_known(const struct peers *peers, const char *node) {
    const struct asker *asker;
    TAILQ_FOREACH (asker, &peers->askers, link)
        if (*asker->rival && !strcmp(asker->node, node))
            return true;
    return false;
}

/* Asked at each ping of an asker, because a ping has an answer in which the verdict can be told. */
void twins_check(struct asker *asker) {
    struct peers *peers = asker->end.peers;
    uint64_t incarnation;
    twins_pulse(&asker->end);
    const struct end *rival = asker->twin ? NULL : twins_find_rival(peers, asker, &incarnation);
    bool was_known = twins_is_known(peers, asker->node);
    if (!rival) {
        *asker->rival = '\0';
        if (was_known && !twins_is_known(peers, asker->node))
            log_info("node %s: one broker calls itself so again, incarnation %" PRIu64, asker->node,
                     asker->incarnation);
        return;
    }
    char ours[64], theirs[64];
    twins_remote(&asker->end, ours);
    twins_remote(rival, theirs);
    snprintf(asker->rival, sizeof asker->rival,
             "two brokers call themselves node %s, and both live: incarnation %" PRIu64
             " at %s and incarnation %" PRIu64 " at %s",
             asker->node, asker->incarnation, ours, incarnation, theirs);
    if (!was_known)
        log_error("%s; give one of the two another [node] name", asker->rival);
}

const char *peers_rival(const struct peers *peers, const char *node) {
    const struct asker *asker;
    TAILQ_FOREACH (asker, &peers->askers, link)
        if (*asker->rival && (!node || !strcmp(asker->node, node)))
            return asker->rival;
    return "";
}

/* ---- looking for the one that has our name in the index ---- */

/* Looking for the same address again changes nothing. Another address while a connection stands:
 * that one is closed, and dialled anew by the way of a peer that moves (`moving`). */
void peers_seek(struct peers *peers, const char *address) {
    struct peer *seeker = &peers->seeker;
    if (peers->seeking && !strcmp(seeker->address, address))
        return;
    if (seeker->end.conn) {
        seeker->moving = true; /* dialled again when it is closed */
        peers->transport->ops->close(seeker->end.conn);
    }
    snprintf(seeker->address, sizeof seeker->address, "%s", address);
    *seeker->last_failure = '\0';
    seeker->retry_ns = 0;
    peers->seeking = true;
    peer_schedule(seeker);
}

void peers_seek_end(struct peers *peers) {
    if (peers->seeking && peers->seeker.end.conn)
        peers->transport->ops->close(peers->seeker.end.conn);
    peers->seeking = false;
    peer_schedule(&peers->seeker);
}

/* Nobody is found once the address could not be reached; the seeker goes on trying all the same,
 * until its owner ends it. */
enum peers_found peers_found(const struct peers *peers, uint64_t *incarnation_out,
                             const char **why_out) {
    const struct peer *seeker = &peers->seeker;
    *why_out = seeker->last_failure;
    *incarnation_out = seeker->incarnation;
    if (seeker->state == PEER_UP)
        return PEERS_FOUND_ONE;
    return *seeker->last_failure ? PEERS_FOUND_NOBODY : PEERS_SEEKING;
}

/* ---- time ---- */

void twins_on_over(struct deadline *over, uint64_t now_ns) {
    struct peers *peers = container_of(over, struct peers, twin.over);
    if (now_ns < twins_over_ns(peers)) { /* seen again since the deadline was set */
        deadlines_set(peers->options.deadlines, over, twins_over_ns(peers));
        return;
    }
    log_info("node %s: no other broker of this name has been heard of for %" PRIu64 " ms",
             peers->node, (now_ns - peers->twin.seen_ns) / 1000000);
    *peers->twin.words = '\0';
}
