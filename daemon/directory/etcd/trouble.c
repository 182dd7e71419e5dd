/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands between this node and etcd, in words. Each part of the directory notes what became of
 * its requests. One that etcd refuses is logged when it begins or its words change, not with every
 * attempt, and once more when it is over; an etcd that cannot be reached is logged by the client.
 *
 * Writes that are refused are not repeated by anybody, for their puts have been answered, so it is
 * tried whether they would be taken by now: a transaction that compares what never holds, which
 * etcd checks for permission and room like any other and which changes nothing.
 */
#include <stdio.h>
#include <string.h>

#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "ops/log.h"
#include "proto/container.h"

#define RETRY_NS (1000 * NS_PER_MS)
/* Of reads, which may not be repeated for long: an older refusal says little. */
#define READ_KEPT_NS (30000 * NS_PER_MS)

static const char *const what_for[TROUBLE_PARTS] = {
    [TROUBLE_LEASE] = "the lease of this node's record",
    [TROUBLE_RECORD] = "this node's record",
    [TROUBLE_GENERATIONS] = "generation numbers",
    [TROUBLE_MEMBERS] = "the list of nodes",
    [TROUBLE_WRITE] = "records of samples",
    [TROUBLE_READ] = "reading records of samples",
};

/* The words behind the endpoint: two endpoints that refuse alike are one piece of news. */
static const char *trouble_behind_endpoint(const char *words) {
    const char *at = strstr(words, "://");
    at = at ? strchr(at, ' ') : NULL;
    return at ? at : words;
}

/* Compared with what every part was told: a user without rights is refused for the lease, the
 * record and the counter alike, and one line in the log is enough. */
static bool trouble_is_news(const struct directory_etcd *self, const char *why) {
    for (enum trouble_part i = 0; i < TROUBLE_PARTS; i++)
        if (self->troubles[i].refused &&
            !strcmp(trouble_behind_endpoint(self->troubles[i].words), trouble_behind_endpoint(why)))
            return false;
    return true;
}

static bool trouble_is_refused(const struct directory_etcd *self) {
    for (enum trouble_part i = 0; i < TROUBLE_PARTS; i++)
        if (self->troubles[i].refused)
            return true;
    return false;
}

/* "Nothing any more" is only said when no part is refused: a role that was mended by half still
 * needs attention. */
static void trouble_over(struct directory_etcd *self, enum trouble_part part) {
    bool was_refused = self->troubles[part].refused;
    self->troubles[part] = (struct trouble){0};
    if (was_refused && !trouble_is_refused(self))
        log_info("node %s: etcd refuses nothing any more; the last was: %s", self->self.node,
                 what_for[part]);
    else if (was_refused)
        log_info("node %s: etcd takes again: %s", self->self.node, what_for[part]);
}

/* A compacted revision is an answer of an etcd that works. Being out of reach does not overwrite a
 * refusal: the refusal is what a person can do something about. */
void trouble_note(struct directory_etcd *self, enum trouble_part part, enum etcd_result result,
                  const char *why) {
    struct trouble *trouble = &self->troubles[part];
    if (result == ETCD_OK || result == ETCD_E_COMPACTED) {
        trouble_over(self, part);
        return;
    }
    bool refused = result == ETCD_E_REFUSED, news = refused && trouble_is_news(self, why);
    if (trouble->refused && !refused)
        return; /* out of reach now; what it said last still stands */
    trouble->refused = refused;
    trouble->noted_ns = self->now_ns;
    snprintf(trouble->words, sizeof trouble->words, "%s", why ? why : "no reason given");
    if (news)
        log_error("node %s: %s (asked for: %s)", self->self.node, trouble->words, what_for[part]);
}

static bool trouble_is_stale(const struct directory_etcd *self, enum trouble_part part) {
    return part == TROUBLE_READ && self->troubles[part].noted_ns + READ_KEPT_NS < self->now_ns;
}

/* A question that is refused for lack of memory is answered with the next tick; who has asked says
 * then why. */
#define NO_MEMORY_SAID_NS (100ull * 1000 * 1000)

/* A refusal comes before an outage, in the order of the parts. A node that is a member has nothing
 * to say, although a keep-alive may just have failed once. */
bool trouble_say(const struct directory *d, char *out, size_t out_bytes) {
    const struct directory_etcd *self = container_of(d, const struct directory_etcd, base);
    const struct trouble *lease = &self->troubles[TROUBLE_LEASE];
    *out = '\0';
    for (enum trouble_part i = 0; i < TROUBLE_PARTS; i++)
        if (self->troubles[i].refused && !trouble_is_stale(self, i)) {
            snprintf(out, out_bytes, "%s (asked for: %s)", self->troubles[i].words, what_for[i]);
            return true;
        }
    bool member = is_member(self);
    if (self->no_memory_ns && self->now_ns - self->no_memory_ns < NO_MEMORY_SAID_NS)
        snprintf(out, out_bytes, "node %s is out of memory for what it asks etcd", self->self.node);
    else if (*lease->words)
        snprintf(out, out_bytes, "%s", lease->words);
    else if (!member)
        snprintf(out, out_bytes, "node %s has no record in etcd yet: it has asked for one",
                 self->self.node);
    return !member;
}

/* ---- would a write be taken by now? ---- */

static void trouble_on_tried(void *context, enum etcd_result result,
                             const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    note(self, answer);
    self->write_trying = false;
    trouble_note(self, TROUBLE_WRITE, result, why);
}

static bool trouble_wants_to_try(const struct directory_etcd *self) {
    return self->started && self->troubles[TROUBLE_WRITE].refused && !self->write_trying;
}

/* The key of the write that was refused is tried, for rights may differ by key; its value is empty
 * and never stored, because create_revision < 0 never holds. */
void trouble_tick(struct directory_etcd *self) {
    if (!trouble_wants_to_try(self) ||
        self->now_ns < self->troubles[TROUBLE_WRITE].noted_ns + RETRY_NS)
        return;
    struct etcd_compare never = {.key = self->node_key,
                                 .target = ETCD_CREATE_REVISION,
                                 .relation = ETCD_LESS,
                                 .revision = 0};
    struct etcd_op put = {.kind = ETCD_PUT, .key = self->refused_key, .value = ""};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &never,
                                   .compare_count = 1,
                                   .success = &put,
                                   .success_count = 1};
    self->write_trying = true;
    self->troubles[TROUBLE_WRITE].noted_ns = self->now_ns;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms, trouble_on_tried,
                         self);
}

uint64_t trouble_deadline_ns(const struct directory_etcd *self) {
    return trouble_wants_to_try(self) ? self->troubles[TROUBLE_WRITE].noted_ns + RETRY_NS
                                      : UINT64_MAX;
}
