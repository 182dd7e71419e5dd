/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's memory: one memfd that outlives the broker (keep.h), with a header and tables of
 * records of a fixed size. Whatever the broker must know again after it was killed at any
 * instruction, and what belongs to no single store, is a record here: sessions, what each has
 * opened, leases at other homes, the settings of stores.
 *
 * Each record begins with a word of 8 bytes. kept_take() gives a free record, whose word is 0; the
 * caller fills in the rest; kept_commit() sets the word, with one store of 8 bytes, and from then
 * on the record exists. If the broker dies before that store, the next one finds the record free.
 * Change a committed record only in ways that are right at every instruction, such as one aligned
 * store of 8 bytes; for a larger change take a new record, commit it and free the old one.
 *
 * Tables do not move: each has its largest capacity from the beginning, in a file that takes memory
 * only where something was written. Not for several threads.
 */
#ifndef FEATURED_MEMORY_KEPT_TABLE_H
#define FEATURED_MEMORY_KEPT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEPT_TABLES_MAX 16u
#define KEPT_RECORD_MAX (1u << 24)

/* Numbers of tables, for ever: a number is never given to another kind of record. */
enum kept_table_id {
    KEPT_STORES = 1,
    KEPT_SESSIONS = 2,
    KEPT_ATTACHMENTS = 3,
    KEPT_REMOTE_LEASES = 4,
    KEPT_ENDS = 5,
    KEPT_PUTS = 6,
    KEPT_DIRECTORY = 7,
};

/* What the code that runs wants of a table. A changed layout of the record has a new version; the
 * capacity counts when the table is made, and stays as it was made. */
struct kept_table_spec {
    uint32_t id, version;
    uint32_t record_bytes; /* of what the caller fills; the word is kept beside it */
    uint32_t capacity;
};

struct kept_memory;
struct kept_table;

/* New, empty memory. incarnation: not 0. now_ns: CLOCK_BOOTTIME. kept: false when no keeper will
 * get it; then it is memory of this process alone and has no descriptor. 0 or -errno with a
 * sentence. */
int kept_memory_new(bool kept, uint64_t incarnation, uint64_t now_ns,
                    const struct kept_table_spec *specs, uint32_t spec_count,
                    struct kept_memory **out, char *why, size_t why_bytes);
/* Memory that an earlier broker left, under an exclusive lock. A table that it lacks is added.
 * fd: taken over on success alone. Nothing is written unless all of it can be attached.
 * -EBADMSG: not such memory, or damaged; -EPROTO: of another version of featured; -EBUSY: another
 * process has it attached. A sentence says which. */
int kept_memory_attach(int fd, const struct kept_table_spec *specs, uint32_t spec_count,
                       struct kept_memory **out, char *why, size_t why_bytes);
/* Unmaps and closes; what is in it stays with the keeper. NULL: nothing. */
void kept_memory_free(struct kept_memory *memory);

/* To be given to the keeper; -1 when it is not to be kept. */
int kept_memory_fd(const struct kept_memory *memory);
uint64_t kept_memory_incarnation(const struct kept_memory *memory);
/* When it was made, CLOCK_BOOTTIME. */
uint64_t kept_memory_since_ns(const struct kept_memory *memory);
/* How often it was attached again: how often the broker has been restarted. */
uint64_t kept_memory_restarts(const struct kept_memory *memory);

/* The table of that number, which was among the specs; NULL: it was not. */
struct kept_table *kept_table(struct kept_memory *memory, uint32_t id);
uint32_t kept_table_capacity(const struct kept_table *table);
uint32_t kept_table_used(const struct kept_table *table); /* taken or committed */

/* Takes the lowest free record and fills it with zeros. NULL: the table is full. */
void *kept_take(struct kept_table *table, uint32_t *index_out);
/* From here on the record exists. word: not 0; its meaning is the caller's. May be called again on
 * a committed record, to change its word. */
void kept_commit(struct kept_table *table, uint32_t index, uint64_t word);
/* From here on it does not exist. Whether it was committed or only taken makes no difference. */
void kept_free(struct kept_table *table, uint32_t index);
/* Of a record that was taken; aligned to 8 bytes. It stays where it is. */
void *kept_record(const struct kept_table *table, uint32_t index);
uint64_t kept_word(const struct kept_table *table, uint32_t index); /* 0: not committed */
/* Walks the committed records upwards; *cursor 0 to begin, false at the end. Records may be freed
 * and committed meanwhile. */
bool kept_walk(const struct kept_table *table, uint32_t *cursor, uint32_t *index_out);

#endif
