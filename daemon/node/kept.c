/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's memory is the first thing that a keeper gets and the first that is taken back: its
 * records say what the other descriptors are. So a keeper that has an arena and no node's memory
 * has lost something, and the broker refuses to start: what it did then could not be undone.
 *
 * Without a keeper the memory is made all the same, and ends with this process. Everybody above can
 * use it without asking.
 */
#include "node/kept.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node/node.h"

/* Far above what a node is known to need, and no memory is taken for what is not used: sessions and
 * what is open in them; leases at other homes, those that have ended and are remembered among them;
 * acks; puts that are under way.
 */
#define SESSIONS_MAX      (1u << 16)
#define ATTACHMENTS_MAX   (1u << 20)
#define REMOTE_LEASES_MAX (1u << 20)
#define ENDS_MAX          (1u << 20)
#define PUTS_MAX          (1u << 20)

const struct kept_table_spec kept_specs[] = {
    {.id = KEPT_STORES,
     .version = 1,
     .record_bytes = sizeof(struct kept_store),
     .capacity = SPACES_MAX},
    {.id = KEPT_SESSIONS,
     .version = 1,
     .record_bytes = sizeof(struct kept_session),
     .capacity = SESSIONS_MAX},
    {.id = KEPT_ATTACHMENTS,
     .version = 1,
     .record_bytes = sizeof(struct kept_attachment),
     .capacity = ATTACHMENTS_MAX},
    {.id = KEPT_REMOTE_LEASES,
     .version = 1,
     .record_bytes = sizeof(struct kept_remote_lease),
     .capacity = REMOTE_LEASES_MAX},
    {.id = KEPT_ENDS, .version = 1, .record_bytes = sizeof(struct kept_end), .capacity = ENDS_MAX},
    {.id = KEPT_PUTS, .version = 1, .record_bytes = sizeof(struct kept_put), .capacity = PUTS_MAX},
    {.id = KEPT_DIRECTORY,
     .version = 1,
     .record_bytes = sizeof(struct directory_kept),
     .capacity = 1},
};
const uint32_t kept_spec_count = sizeof kept_specs / sizeof *kept_specs;

static int kept_make(struct broker *broker, uint64_t now_ns, char *why, size_t why_bytes) {
    size_t cursor = 0;
    const char *other = keep_next(broker->options.keep, &cursor);
    if (other) {
        snprintf(why, why_bytes,
                 "the keeper of descriptors has %s and not the node's memory, without which nobody "
                 "knows what that is; to give it up, stop featured and the keeper, then start anew",
                 other);
        return -EBADMSG;
    }
    int result = kept_memory_new(broker->options.keep != NULL, broker->options.incarnation, now_ns,
                                 kept_specs, kept_spec_count, &broker->kept, why, why_bytes);
    if (result < 0)
        return result;
    if (broker->options.keep)
        result = keep_put(broker->options.keep, KEPT_NODE_NAME, kept_memory_fd(broker->kept));
    if (result < 0)
        snprintf(why, why_bytes, "the node's memory could not be given to its keeper: %s",
                 strerror(-result));
    return result;
}

int kept_open(struct broker *broker, uint64_t now_ns, char *why, size_t why_bytes) {
    int fd = keep_take(broker->options.keep, KEPT_NODE_NAME);
    if (fd < 0)
        return kept_make(broker, now_ns, why, why_bytes);
    int result = kept_memory_attach(fd, kept_specs, kept_spec_count, &broker->kept, why, why_bytes);
    if (result < 0) {
        close(fd);
        return result;
    }
    broker->options.incarnation = kept_memory_incarnation(broker->kept);
    log_info("node %s: attached the memory of incarnation %" PRIu64 ", restart %" PRIu64,
             broker->config->node, broker->options.incarnation, kept_memory_restarts(broker->kept));
    return 0;
}

/* The table has one record, which is made with the memory. */
struct directory_kept *kept_directory(const struct broker *broker) {
    struct kept_table *table = kept_table(broker->kept, KEPT_DIRECTORY);
    uint32_t cursor = 0, index;
    if (kept_walk(table, &cursor, &index))
        return kept_record(table, index);
    struct directory_kept *kept = kept_take(table, &index);
    if (kept)
        kept_commit(table, index, 1);
    return kept;
}
