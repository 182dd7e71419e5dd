/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node itself knows of the samples in its stores, as messages: for its own clients
 * (requests/) and for other brokers that ask (exchange/serve.c). None of it changes anything.
 *
 * Every message that is returned is the caller's, who frees it with its fb__..._free_unpacked();
 * NULL means that there is no memory for it.
 */
#ifndef FEATURED_NODE_KNOWLEDGE_H
#define FEATURED_NODE_KNOWLEDGE_H

#include "node/node.h"
#include "node/ref.h"

/* holders: also who reads it. */
Fb__SampleInfo *sample_info_new(const struct broker *broker, const struct space *space,
                                const struct store_info *from, bool holders);
/* Of two states of a sample, found on two nodes, the one of higher rank is worth telling. */
int sample_rank(Fb__SampleState state);
/* What the store has of the ref's generation, or last had of its sample. */
bool sample_find(const struct space *space, const struct ref *ref, struct store_info *info);
/* How long a get of this generation waits at its home: longer than it was asked to (wait_ns) while
 * the generation is on its way to the index, because whoever asks may have read of it there. */
uint64_t sample_wait_ns(const struct space *space, uint64_t generation, uint64_t wait_ns);
/* The ref names this node as it was before it restarted without its memory. */
bool ref_is_of_earlier_incarnation(const struct broker *broker, const struct ref *ref);

/* fenced_why: why this node serves nothing now, so that what is resident here may have been
 * superseded elsewhere; NULL = it serves. */
Fb__StatResult *stat_here(const struct broker *broker, const struct space *space,
                          const struct ref *ref, const char *fenced_why);
Fb__ExplainReply *explain_here(const struct broker *broker, const struct space *space,
                               const struct ref *ref);

/* A page of the samples in that store. alone: the listing ends with this store; else the stores of
 * the same name that were dropped and linger follow. */
Fb__ListReply *list_here(const struct broker *broker, const struct space *space,
                         const Fb__List *asked, bool alone);
/* A cursor of a listing is the store's place among the broker's stores in the upper bits, and the
 * place in that store in the lower ones. */
#define LIST_SPACE_SHIFT 40u
#define LIST_CURSOR_MASK ((1ull << LIST_SPACE_SHIFT) - 1)
/* The store where a listing goes on, of those of that name; NULL: none. */
const struct space *list_space(const struct broker *broker, const char *name, uint64_t cursor);
/* The cursor of a listing that has come to `at` in this store (0: to its end); 0 = it is over. */
uint64_t list_onward(const struct broker *broker, const struct space *space, uint64_t at,
                     bool alone);

/* ---- messages of malloc'ed parts ---- */
/* Sets a text of such a message, and frees what was there. False: out of memory, and it is "". */
bool text_set(char **text, const char *to);

#endif
