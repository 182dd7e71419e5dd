/* SPDX-License-Identifier: Apache-2.0
 *
 * Generations come in blocks of GENERATIONS_PER_BLOCK from one counter, moved on by
 * compare-and-swap. A block whose swap was not answered is given up: numbers are plenty, and
 * reading the counter again is safe whatever became of the swap. The next block is fetched when
 * half of the current one is left.
 *
 * A block begins above unix_ms * GENERATIONS_PER_BLOCK too, so that numbers do not repeat when etcd
 * was restored from a backup or emptied, as long as the cluster takes less than a block a
 * millisecond and its clocks are not behind by more than the outage; and above all numbers that
 * this node has reserved before, so that the counter is right again once every node has been back.
 * A node that sees that etcd has gone back gives up what is left of its block: what it puts from
 * then on is above all that was put before. That reaches 2^63 in the year 2248.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "directory/etcd/generations.h"
#include "directory/etcd/state.h"
#include "directory/etcd/trouble.h"
#include "directory/etcd/words.h"
#include "ops/log.h"

static uint64_t generations_left(const struct directory_etcd *self) {
    return self->generation_end - self->generation + self->spare_end - self->spare;
}

static bool generations_is_wanted(const struct directory_etcd *self) {
    return self->started && !self->generation_asked &&
           generations_left(self) <= GENERATIONS_PER_BLOCK / 2;
}

/* Numbers come from the current block, then from the spare one. 0 means that neither has any: etcd
 * was out of reach for longer than half a block lasts, and the put is refused. */
uint64_t generations_next(struct directory_etcd *self) {
    if (self->generation == self->generation_end) {
        self->generation = self->spare;
        self->generation_end = self->spare_end;
        self->spare = self->spare_end = 0;
    }
    if (self->generation == self->generation_end)
        return 0;
    uint64_t generation = self->generation++;
    self->dirty |= generations_is_wanted(self);
    return generation;
}

static void generations_failed(struct directory_etcd *self, const char *why) {
    log_debug("node %s: no block of generations: %s", self->self.node, why);
    self->counter_known = false;
    backoff_fail(&self->generation_backoff, self->now_ns);
}

/* A counter that is no number is a refusal and not a reason to start at 0: somebody has written it
 * by hand, and only a person can say what was meant. A counter that does not exist is one of a new
 * etcd; revision 0 then makes the compare of the swap say so. */
static void generations_on_counter(void *context, enum etcd_result result,
                                   const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    self->generation_asked = false;
    note(self, answer);
    self->counter = 0;
    self->counter_revision = 0;
    if (result != ETCD_OK) {
        trouble_note(self, TROUBLE_GENERATIONS, result, why);
        generations_failed(self, why);
    } else if (answer->kv_count &&
               etcd_generation_parse(answer->kvs[0].value, &self->counter) < 0) {
        char number[ETCD_WORDS_BYTES], wrong[ETCD_WHY_BYTES];
        etcd_words(number, answer->kvs[0].value, strlen(answer->kvs[0].value));
        snprintf(wrong, sizeof wrong,
                 "etcd's key %s is \"%.32s\", not a number: put the last generation given out "
                 "there, or delete it",
                 self->generation_key, number);
        trouble_note(self, TROUBLE_GENERATIONS, ETCD_E_REFUSED, wrong);
        generations_failed(self, "bad counter");
    } else {
        self->counter_revision = answer->kv_count ? answer->kvs[0].mod_revision : 0;
        self->counter_known = true;
    }
}

static void generations_ask_counter(struct directory_etcd *self) {
    struct etcd_request request = {.kind = ETCD_READ,
                                   .read = {.kind = ETCD_RANGE, .key = self->generation_key}};
    self->generation_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms,
                         generations_on_counter, self);
}

void generations_renew(struct directory_etcd *self) {
    self->generation = self->generation_end = self->spare = self->spare_end = 0;
    self->counter_known = false;
    self->dirty = true;
}

/* The largest of three: the counter in etcd, the clock, and what this node ever had. See the top of
 * this file for what each of them is good for. */
static uint64_t generations_block_begin(const struct directory_etcd *self) {
    uint64_t floor = unix_ms(self) * GENERATIONS_PER_BLOCK;
    if (floor < self->highest) /* the counter has gone back */
        floor = self->highest;
    return (self->counter > floor ? self->counter : floor) + 1;
}

/* self->counter is the block's beginning while the swap is under way. */
static void generations_on_swapped(void *context, enum etcd_result result,
                                   const struct etcd_answer *answer, const char *why) {
    struct directory_etcd *self = context;
    self->generation_asked = false;
    self->counter_known = false;
    note(self, answer);
    trouble_note(self, TROUBLE_GENERATIONS, result, why);
    if (result != ETCD_OK) {
        generations_failed(self, why);
    } else if (answer->succeeded) { /* else another was faster: read it again at once */
        uint64_t end = self->counter + GENERATIONS_PER_BLOCK;
        bool idle = self->generation == self->generation_end;
        *(idle ? &self->generation : &self->spare) = self->counter;
        *(idle ? &self->generation_end : &self->spare_end) = end;
        self->highest = end - 1;
        if (self->options.kept)
            self->options.kept->generation = self->highest;
        backoff_reset(&self->generation_backoff);
    }
}

/* The compare is on the revision that was read, or on the absence of the key. If another node has
 * taken a block in between, the put is not carried out, and the counter is read again at once. */
static void generations_swap_counter(struct directory_etcd *self) {
    char value[32];
    self->counter = generations_block_begin(self);
    snprintf(value, sizeof value, "%" PRIu64, self->counter + GENERATIONS_PER_BLOCK - 1);
    struct etcd_compare unchanged = {.key = self->generation_key,
                                     .target = self->counter_revision ? ETCD_MOD_REVISION
                                                                      : ETCD_CREATE_REVISION,
                                     .revision = self->counter_revision};
    struct etcd_op put = {.kind = ETCD_PUT, .key = self->generation_key, .value = value};
    struct etcd_request request = {.kind = ETCD_TXN,
                                   .compares = &unchanged,
                                   .compare_count = 1,
                                   .success = &put,
                                   .success_count = 1};
    self->generation_asked = true;
    self->etcd->ops->ask(self->etcd, &request, self->options.request_timeout_ms,
                         generations_on_swapped, self);
}

void generations_tick(struct directory_etcd *self) {
    if (!generations_is_wanted(self) || self->now_ns < self->generation_backoff.next_ns)
        return;
    if (self->counter_known)
        generations_swap_counter(self);
    else
        generations_ask_counter(self);
}

uint64_t generations_deadline_ns(const struct directory_etcd *self) {
    return generations_is_wanted(self) ? self->generation_backoff.next_ns : UINT64_MAX;
}
