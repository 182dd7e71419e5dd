/* SPDX-License-Identifier: Apache-2.0
 *
 * What the static directory promises beyond the suite: its generations' layout and its idleness.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "directory/directory.h"

#define START_MS UINT64_C(1700000000000)

static void ignore_node(void *owner, const char *node, const char *address,
                        const char *data_address, uint64_t incarnation) {
    (void)node, (void)address, (void)data_address, (void)incarnation;
    ++*(int *)owner;
}

static const struct directory_events events = {.node_up = ignore_node};
static int nodes_seen;

static struct directory *make(const char *node, uint64_t unix_ms) {
    const struct directory_peer peer = {.node = "b", .address = "127.0.0.1:7001"};
    struct directory *d;
    cr_assert_eq(directory_static_new(node, &peer, 1, unix_ms, &events, &nodes_seen, &d), 0);
    return d;
}

Test(directory_static, a_generation_is_a_node_hash_and_a_count_from_the_start_time) {
    struct directory *d = make("a", START_MS), *other = make("b", START_MS);
    uint64_t first = d->ops->next_generation(d), others = other->ops->next_generation(other);
    cr_expect_eq(first & 0xffffffffffffu, START_MS * 128);
    cr_expect_eq(d->ops->next_generation(d), first + 1);
    cr_expect_neq(first >> 48, others >> 48);
    d->ops->destroy(d);
    other->ops->destroy(other);
}

Test(directory_static, a_restart_a_second_later_does_not_give_the_same_again) {
    struct directory *d = make("a", START_MS);
    uint64_t last = 0;
    for (int i = 0; i < 128000; i++)
        last = d->ops->next_generation(d);
    d->ops->destroy(d);
    d = make("a", START_MS + 1000);
    cr_expect_gt(d->ops->next_generation(d), last);
    d->ops->destroy(d);
}

static void count(void *context, enum directory_result result) {
    (void)result;
    ++*(int *)context;
}

static void note_addresses(void *owner, const char *node, const char *address,
                           const char *data_address, uint64_t incarnation) {
    char *text = owner;
    cr_expect_eq(incarnation, 0);
    sprintf(text + strlen(text), "%s %s %s; ", node, address, data_address);
}

Test(directory_static, bytes_are_read_where_messages_go_unless_told_otherwise) {
    static const struct directory_events noting = {.node_up = note_addresses};
    const struct directory_peer peers[] = {{"b", "b:1", "b-fast:2"}, {"c", "c:1", ""}};
    char text[128] = "";
    struct directory *d;
    cr_assert_eq(directory_static_new("a", peers, 2, START_MS, &noting, text, &d), 0);
    d->ops->start(d);
    d->ops->tick(d, 1);
    cr_expect_str_eq(text, "b b:1 b-fast:2; c c:1 c:1; ");
    d->ops->destroy(d);
}

Test(directory_static, a_peer_that_comes_later_is_announced_alone) {
    static const struct directory_events noting = {.node_up = note_addresses};
    const struct directory_peer first = {"b", "b:1", NULL}, later = {"c", "c:1", NULL},
                                moved = {"b", "b:2", "b-fast:3"};
    char text[128] = "";
    struct directory *d;
    cr_assert_eq(directory_static_new("a", &first, 1, START_MS, &noting, text, &d), 0);
    d->ops->start(d);
    d->ops->tick(d, 1);
    cr_assert_eq(directory_static_know(d, &later), 0);
    cr_expect_eq(d->ops->next_deadline_ns(d), 0);
    d->ops->tick(d, 2);
    cr_expect_str_eq(text, "b b:1 b:1; c c:1 c:1; ");
    cr_assert_eq(directory_static_know(d, &moved), 0);
    d->ops->tick(d, 3);
    cr_expect_str_eq(text, "b b:1 b:1; c c:1 c:1; b b:2 b-fast:3; ");
    cr_expect_eq(d->ops->next_deadline_ns(d), UINT64_MAX);
    d->ops->destroy(d);
}

Test(directory_static, asks_for_a_tick_only_when_something_is_due) {
    struct directory *d = make("a", START_MS);
    cr_expect_eq(d->ops->next_deadline_ns(d), UINT64_MAX);
    d->ops->start(d);
    cr_expect_eq(d->ops->next_deadline_ns(d), 0);
    d->ops->tick(d, 1);
    cr_expect_eq(nodes_seen, 1);
    cr_expect_eq(d->ops->next_deadline_ns(d), UINT64_MAX);

    const struct directory_record record = {
        .store = "s", .sample_id = "i", .home = "a", .generation = 1};
    int answers = 0;
    d->ops->retire(d, &record, count, &answers);
    cr_expect_eq(d->ops->next_deadline_ns(d), 0);
    d->ops->tick(d, 2);
    cr_expect_eq(answers, 1);
    cr_expect_eq(d->ops->next_deadline_ns(d), UINT64_MAX);
    d->ops->destroy(d);
}

Test(directory_static, any_number_of_answers_may_be_owed) {
    struct directory *d = make("a", START_MS);
    const struct directory_record record = {
        .store = "s", .sample_id = "i", .home = "a", .generation = 1};
    int answers = 0;
    for (int i = 0; i < 100; i++) /* moves the ring's beginning */
        d->ops->retire(d, &record, count, &answers);
    d->ops->tick(d, 1);
    for (int i = 0; i < 5000; i++)
        d->ops->retire(d, &record, count, &answers);
    cr_expect_eq(d->ops->pending(d), 5000);
    d->ops->tick(d, 2);
    cr_expect_eq(answers, 5100);
    d->ops->destroy(d);
}
