/* SPDX-License-Identifier: Apache-2.0
 *
 * The descriptors that `featured --supervise` holds for its broker, and the messages by which the
 * broker hands them over: the manager's side of what keep_sd.h says. Knows nothing of processes.
 */
#ifndef FEATURED_HELD_H
#define FEATURED_HELD_H

#include <stdbool.h>
#include <stddef.h>

#include "memory/keep.h"

#define HELD_FIRST_FD        3
#define HELD_NAMES_BYTES_MAX (131072u - 1024u)
#define HELD_MESSAGE_MAX     1024u

/* Entry i is descriptor HELD_FIRST_FD + i, where the next broker will look for it. */
struct held {
    char (*names)[KEEP_NAME_BYTES_MAX + 1];
    size_t count, limit;
    size_t names_bytes; /* of all names, each with a ':' */
};

/* limit: at most so many. From now on the descriptors from HELD_FIRST_FD to HELD_FIRST_FD + limit -
 * 1 belong to this table. 0 or -ENOMEM. */
int held_init(struct held *held, size_t limit);
void held_deinit(struct held *held);

/* What one message was about. */
enum held_message {
    HELD_STORED,
    HELD_REMOVED,
    HELD_REFUSED, /* there is no room, or it makes no sense */
    HELD_OTHER,   /* not about descriptors: READY=1, for example */
};
/* text: as it came, `bytes` long, with room for a zero behind it. fd: what came with it or -1;
 * taken over, whatever the outcome. */
enum held_message held_hear(struct held *held, char *text, size_t bytes, int fd);
/* "READY=1" is one of the lines of that text. To be asked of a HELD_OTHER. */
bool held_says(const char *text, const char *line);
/* The names with ':' between, as LISTEN_FDNAMES has them. out: HELD_NAMES_BYTES_MAX + 1 bytes. */
void held_names(const struct held *held, char *out);

#endif
