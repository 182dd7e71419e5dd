/* SPDX-License-Identifier: Apache-2.0
 *
 * The file: one header of 4096 bytes, then the tables, each at a multiple of 4096. A table is an
 * array of records; a record is its word and what the caller fills. All numbers are those of this
 * machine, for the memory never leaves it.
 *
 *   record: free --take--> taken --commit--> committed --free--> free
 *
 * "Taken" is known to this process alone, by a bit in its heap: in the memory such a record is
 * free, and an attach finds it so. The header of a table counts how many records were ever used
 * (`high_water`), so that an attach looks at those alone and touches no page of the others. The
 * order of stores: high_water is raised before the record's word is written.
 *
 * A table is added in the same way: its entry in the header first, `table_count` last.
 *
 * The memory is attached under flock() on a file description of its own, opened anew by way of
 * /proc/self/fd: the descriptor that the keeper handed in may be shared with other processes, and a
 * lock is the file description's. It ends with this process, however that ends.
 */
#include "memory/kept_table.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_PAGE_BYTES 4096ull
#define KEPT_MAGIC      0x796d6f6d65726566ull /* "feremomy", as bytes */
#define KEPT_FORMAT     1u
#define KEPT_WORD_BYTES 8u

struct kept_table_header {
    uint32_t id, version;
    uint32_t record_bytes, capacity;
    uint64_t offset; /* of the first record in the file */
    _Atomic uint32_t high_water;
    uint32_t unused;
};

struct kept_header {
    uint64_t magic;
    uint32_t format;
    uint32_t header_bytes; /* of this structure: a check */
    uint64_t incarnation;
    uint64_t since_ns;
    _Atomic uint64_t restarts;
    _Atomic uint32_t table_count;
    uint32_t unused;
    struct kept_table_header tables[KEPT_TABLES_MAX];
};
_Static_assert(sizeof(struct kept_header) <= KEPT_PAGE_BYTES, "the header is one page");

struct kept_table {
    struct kept_table_header *header; /* in the memory; NULL: no table */
    unsigned char *records;
    size_t stride_bytes;
    uint64_t *taken; /* a bit for each record that is not free */
    uint32_t used;
    uint32_t lowest; /* no record below it is free */
};

struct kept_memory {
    int fd;
    int lock; /* the file description that holds the lock */
    struct kept_header *header;
    uint64_t bytes;
    struct kept_table tables[KEPT_TABLES_MAX];
};

/* ---- layout ---- */

/* Records begin at multiples of 8 bytes, so that a word is stored whole or not at all: x86-64 and
 * arm64 both promise that of an aligned store of 8 bytes. */
static uint64_t kept_stride_bytes(uint32_t record_bytes) {
    return KEPT_WORD_BYTES + ((uint64_t)record_bytes + 7) / 8 * 8;
}

static uint64_t kept_table_bytes(uint32_t record_bytes, uint32_t capacity) {
    uint64_t bytes = kept_stride_bytes(record_bytes) * capacity;
    return (bytes + KEPT_PAGE_BYTES - 1) / KEPT_PAGE_BYTES * KEPT_PAGE_BYTES;
}

static uint64_t kept_end_of(const struct kept_table_header *table) {
    return table->offset + kept_table_bytes(table->record_bytes, table->capacity);
}

/* The end of the last table, or of the header. */
static uint64_t kept_end(const struct kept_header *header) {
    uint32_t count = atomic_load_explicit(&header->table_count, memory_order_relaxed);
    return count ? kept_end_of(&header->tables[count - 1]) : KEPT_PAGE_BYTES;
}

/* NULL: this version of featured has no such table. */
static const struct kept_table_spec *kept_spec(const struct kept_table_spec *specs,
                                               uint32_t spec_count, uint32_t id) {
    for (uint32_t i = 0; i < spec_count; i++)
        if (specs[i].id == id)
            return &specs[i];
    return NULL;
}

static struct kept_table_header *kept_find(struct kept_header *header, uint32_t id) {
    uint32_t count = atomic_load_explicit(&header->table_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (header->tables[i].id == id)
            return &header->tables[i];
    return NULL;
}

/* ---- making and attaching ---- */

/* The seals forbid to make the file shorter, because a process that reads a mapped page beyond the
 * end of a file is killed (SIGBUS). It may become longer: a later version adds its tables there. */
static int kept_create(struct kept_memory *memory, uint64_t bytes) {
    memory->fd = memfd_create("featured:node", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory->fd < 0 || fchmod(memory->fd, 0600) < 0 || ftruncate(memory->fd, (off_t)bytes) < 0 ||
        fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -errno;
    return 0;
}

/* LOCK_NB: whoever has it keeps it for as long as it lives, and a second broker that waits would
 * look like one that hangs. */
static int kept_lock(struct kept_memory *memory, char *why, size_t why_bytes) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory->fd);
    memory->lock = open(path, O_RDWR | O_CLOEXEC);
    if (memory->lock < 0) {
        int result = -errno;
        snprintf(why, why_bytes, "the node's memory: it cannot be opened for its lock: %s%s",
                 strerror(-result), result == -ENOENT ? "; is /proc mounted?" : "");
        return result;
    }
    if (flock(memory->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    int result = errno == EWOULDBLOCK ? -EBUSY : -errno;
    snprintf(why, why_bytes, "the node's memory: %s",
             result == -EBUSY ? "another featured has it attached; end that one first"
                              : strerror(-result));
    return result;
}

/* Maps the file anew, when it has grown. MAP_NORESERVE: it is mostly holes, and with strict
 * accounting of memory (vm.overcommit_memory = 2) the kernel would count those too. */
static int kept_map(struct kept_memory *memory, uint64_t bytes) {
    int flags = MAP_NORESERVE | (memory->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, memory->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    if (memory->header)
        munmap(memory->header, memory->bytes);
    memory->header = base;
    memory->bytes = bytes;
    return 0;
}

/* The two sentences of a refusal say what to do, as an operator reads them while a whole node does
 * not come back. The samples are there until whoever keeps the memory is stopped. */
static int kept_damaged(char *why, size_t why_bytes, const char *what) {
    snprintf(
        why, why_bytes,
        "the node's memory is damaged: %s; it is left as it is. To give it up, and every sample "
        "of this node with it, stop featured and whoever keeps its descriptors, then start anew",
        what);
    return -EBADMSG;
}

static int kept_other_version(char *why, size_t why_bytes, const char *what) {
    snprintf(
        why, why_bytes,
        "the node's memory was written by another version of featured: %s; it is left as it is. "
        "Start the version that wrote it, or stop that one for good first, which drains it",
        what);
    return -EPROTO;
}

/* The magic number is what a broker writes last: one that was killed while it made the memory has
 * not given it to a keeper yet. So a wrong one means memory that is not ours, or damage. */
static int kept_check_header(const struct kept_header *header, char *why, size_t why_bytes) {
    char what[96];
    if (header->magic != KEPT_MAGIC)
        return kept_damaged(why, why_bytes, "it does not begin with the magic number");
    if (header->format != KEPT_FORMAT || header->header_bytes != sizeof *header) {
        snprintf(what, sizeof what, "it has format %" PRIu32 ", this one knows %u", header->format,
                 KEPT_FORMAT);
        return kept_other_version(why, why_bytes, what);
    }
    if (header->incarnation == 0 || header->table_count > KEPT_TABLES_MAX)
        return kept_damaged(why, why_bytes, "its header holds impossible numbers");
    return 0;
}

/* Each table that is there has to be one that we know, or what is in it would be lost. */
static int kept_check_table(const struct kept_table_header *table, uint64_t begin, uint64_t bytes,
                            const struct kept_table_spec *spec, char *why, size_t why_bytes) {
    char what[128];
    if (table->capacity > KEPT_RECORD_MAX || table->record_bytes > KEPT_RECORD_MAX ||
        table->offset != begin || kept_end_of(table) > bytes ||
        table->high_water > table->capacity) {
        snprintf(what, sizeof what, "table %" PRIu32 " does not lie where it should", table->id);
        return kept_damaged(why, why_bytes, what);
    }
    if (spec && spec->version == table->version && spec->record_bytes == table->record_bytes)
        return 0;
    snprintf(what, sizeof what,
             "table %" PRIu32 " has version %" PRIu32 " and records of %" PRIu32 " bytes, %s",
             table->id, table->version, table->record_bytes,
             spec ? "this one has others" : "this one knows none such");
    return kept_other_version(why, why_bytes, what);
}

/* Reads only: whatever is wrong, the memory stays as it was found. */
static int kept_check(const struct kept_memory *memory, const struct kept_table_spec *specs,
                      uint32_t spec_count, char *why, size_t why_bytes) {
    const struct kept_header *header = memory->header;
    uint64_t begin = KEPT_PAGE_BYTES;
    int result = kept_check_header(header, why, why_bytes);
    for (uint32_t i = 0; result == 0 && i < header->table_count; i++) {
        const struct kept_table_header *table = &header->tables[i];
        result = kept_check_table(table, begin, memory->bytes,
                                  kept_spec(specs, spec_count, table->id), why, why_bytes);
        begin = kept_end_of(table);
    }
    return result;
}

/* What the file takes with the tables that are wanted and not there. */
static uint64_t kept_wanted_end(struct kept_header *header, const struct kept_table_spec *specs,
                                uint32_t spec_count) {
    uint64_t end = header ? kept_end(header) : KEPT_PAGE_BYTES;
    for (uint32_t i = 0; i < spec_count; i++)
        if (!header || !kept_find(header, specs[i].id))
            end += kept_table_bytes(specs[i].record_bytes, specs[i].capacity);
    return end;
}

/* They lie behind those that are there. The file has room for them already. */
static void kept_add_tables(struct kept_memory *memory, const struct kept_table_spec *specs,
                            uint32_t spec_count) {
    struct kept_header *header = memory->header;
    for (uint32_t i = 0; i < spec_count; i++) {
        uint64_t begin = kept_end(header);
        if (kept_find(header, specs[i].id))
            continue;
        uint32_t count = header->table_count;
        header->tables[count] = (struct kept_table_header){
            .id = specs[i].id,
            .version = specs[i].version,
            .record_bytes = specs[i].record_bytes,
            .capacity = specs[i].capacity,
            .offset = begin,
        };
        atomic_store_explicit(&header->table_count, count + 1, memory_order_release);
    }
}

/* An older version of featured made the file. */
static int kept_grow(struct kept_memory *memory, const struct kept_table_spec *specs,
                     uint32_t spec_count, char *why, size_t why_bytes) {
    uint64_t end = kept_wanted_end(memory->header, specs, spec_count);
    int result = end > memory->bytes && ftruncate(memory->fd, (off_t)end) < 0 ? -errno : 0;
    if (result == 0 && end > memory->bytes)
        result = kept_map(memory, end);
    if (result < 0)
        snprintf(why, why_bytes, "the node's memory cannot grow to %" PRIu64 " bytes: %s%s", end,
                 strerror(-result), result == -EFBIG ? " (RLIMIT_FSIZE, ulimit -f)" : "");
    return result;
}

/* What is derived: which records are free. */
static int kept_open_table(struct kept_memory *memory, struct kept_table *table,
                           struct kept_table_header *header) {
    table->records = (unsigned char *)memory->header + header->offset;
    table->stride_bytes = kept_stride_bytes(header->record_bytes);
    table->taken = calloc((size_t)header->capacity / 64 + 1, sizeof *table->taken);
    if (!table->taken)
        return -ENOMEM;
    table->header = header;
    for (uint32_t i = 0; i < header->high_water; i++)
        if (kept_word(table, i)) {
            table->taken[i / 64] |= 1ull << i % 64;
            table->used++;
        }
    return 0;
}

/* In the order in which they lie in the memory, which need not be the order of the specs. */
static int kept_open_tables(struct kept_memory *memory, char *why, size_t why_bytes) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < memory->header->table_count; i++)
        result = kept_open_table(memory, &memory->tables[i], &memory->header->tables[i]);
    if (result < 0)
        snprintf(why, why_bytes, "the node's memory: out of memory");
    return result;
}

static struct kept_memory *kept_memory_alloc(void) {
    struct kept_memory *memory = calloc(1, sizeof *memory);
    if (memory)
        memory->fd = memory->lock = -1;
    return memory;
}

static int kept_build(struct kept_memory *memory, bool kept, uint64_t incarnation, uint64_t now_ns,
                      const struct kept_table_spec *specs, uint32_t spec_count, char *why,
                      size_t why_bytes) {
    uint64_t bytes = kept_wanted_end(NULL, specs, spec_count);
    int result = kept ? kept_create(memory, bytes) : 0;
    if (result == 0)
        result = kept_map(memory, bytes);
    if (result < 0) {
        snprintf(why, why_bytes, "the node's memory, %" PRIu64 " bytes, could not be made: %s%s",
                 bytes, strerror(-result), result == -EFBIG ? " (RLIMIT_FSIZE, ulimit -f)" : "");
        return result;
    }
    *memory->header = (struct kept_header){
        .format = KEPT_FORMAT,
        .header_bytes = sizeof(struct kept_header),
        .incarnation = incarnation,
        .since_ns = now_ns,
    };
    kept_add_tables(memory, specs, spec_count);
    if ((kept && (result = kept_lock(memory, why, why_bytes)) < 0) ||
        (result = kept_open_tables(memory, why, why_bytes)) < 0)
        return result;
    memory->header->magic = KEPT_MAGIC; /* the keeper gets it only after this */
    return 0;
}

int kept_memory_new(bool kept, uint64_t incarnation, uint64_t now_ns,
                    const struct kept_table_spec *specs, uint32_t spec_count,
                    struct kept_memory **out, char *why, size_t why_bytes) {
    struct kept_memory *memory = kept_memory_alloc();
    if (!memory) {
        snprintf(why, why_bytes, "the node's memory: out of memory");
        return -ENOMEM;
    }
    int result = kept_build(memory, kept, incarnation, now_ns, specs, spec_count, why, why_bytes);
    if (result < 0) {
        kept_memory_free(memory);
        return result;
    }
    *out = memory;
    return 0;
}

/* The lock comes first: nothing that another broker is writing is looked at. The restart is counted
 * last, when it is certain that there is one. */
static int kept_attach(struct kept_memory *memory, const struct kept_table_spec *specs,
                       uint32_t spec_count, char *why, size_t why_bytes) {
    struct stat facts;
    int result = kept_lock(memory, why, why_bytes);
    if (result < 0)
        return result;
    if (fstat(memory->fd, &facts) < 0 || !S_ISREG(facts.st_mode) ||
        facts.st_size < (off_t)KEPT_PAGE_BYTES)
        return kept_damaged(why, why_bytes, "it is shorter than its header");
    if ((result = kept_map(memory, (uint64_t)facts.st_size)) < 0) {
        snprintf(why, why_bytes, "the node's memory could not be mapped: %s", strerror(-result));
        return result;
    }
    if ((result = kept_check(memory, specs, spec_count, why, why_bytes)) < 0 ||
        (result = kept_grow(memory, specs, spec_count, why, why_bytes)) < 0)
        return result;
    kept_add_tables(memory, specs, spec_count);
    if ((result = kept_open_tables(memory, why, why_bytes)) < 0)
        return result;
    atomic_fetch_add_explicit(&memory->header->restarts, 1, memory_order_relaxed);
    return 0;
}

int kept_memory_attach(int fd, const struct kept_table_spec *specs, uint32_t spec_count,
                       struct kept_memory **out, char *why, size_t why_bytes) {
    struct kept_memory *memory = kept_memory_alloc();
    if (!memory) {
        snprintf(why, why_bytes, "the node's memory: out of memory");
        return -ENOMEM;
    }
    memory->fd = fd;
    int result = kept_attach(memory, specs, spec_count, why, why_bytes);
    if (result < 0) {
        memory->fd = -1;
        kept_memory_free(memory);
        return result;
    }
    *out = memory;
    return 0;
}

/* Closing the lock's description ends the lock. */
void kept_memory_free(struct kept_memory *memory) {
    if (!memory)
        return;
    for (uint32_t i = 0; i < KEPT_TABLES_MAX; i++)
        free(memory->tables[i].taken);
    if (memory->header)
        munmap(memory->header, memory->bytes);
    if (memory->lock >= 0)
        close(memory->lock);
    if (memory->fd >= 0)
        close(memory->fd);
    free(memory);
}

/* ---- what it says ---- */

int kept_memory_fd(const struct kept_memory *memory) {
    return memory->fd;
}

uint64_t kept_memory_incarnation(const struct kept_memory *memory) {
    return memory->header->incarnation;
}

uint64_t kept_memory_since_ns(const struct kept_memory *memory) {
    return memory->header->since_ns;
}

uint64_t kept_memory_restarts(const struct kept_memory *memory) {
    return atomic_load_explicit(&memory->header->restarts, memory_order_relaxed);
}

struct kept_table *kept_table(struct kept_memory *memory, uint32_t id) {
    for (uint32_t i = 0; i < KEPT_TABLES_MAX; i++)
        if (memory->tables[i].header && memory->tables[i].header->id == id)
            return &memory->tables[i];
    return NULL;
}

uint32_t kept_table_capacity(const struct kept_table *table) {
    return table->header->capacity;
}

uint32_t kept_table_used(const struct kept_table *table) {
    return table->used;
}

/* ---- records ---- */

static _Atomic uint64_t *kept_word_at(const struct kept_table *table, uint32_t index) {
    return (_Atomic uint64_t *)(void *)(table->records + index * table->stride_bytes);
}

/* No check of the index: it comes from kept_take() and kept_walk() alone. */
void *kept_record(const struct kept_table *table, uint32_t index) {
    return table->records + index * table->stride_bytes + KEPT_WORD_BYTES;
}

uint64_t kept_word(const struct kept_table *table, uint32_t index) {
    return atomic_load_explicit(kept_word_at(table, index), memory_order_acquire);
}

/* The lowest one, so that the memory stays dense and the walk short. */
void *kept_take(struct kept_table *table, uint32_t *index_out) {
    uint32_t capacity = table->header->capacity;
    for (uint32_t at = table->lowest / 64; (uint64_t)at * 64 < capacity; at++) {
        if (~table->taken[at] == 0)
            continue;
        uint32_t index = at * 64 + (uint32_t)__builtin_ctzll(~table->taken[at]);
        if (index >= capacity)
            break;
        table->taken[at] |= 1ull << index % 64;
        table->used++;
        table->lowest = index + 1;
        if (index >= table->header->high_water)
            atomic_store_explicit(&table->header->high_water, index + 1, memory_order_release);
        memset(kept_record(table, index), 0, table->header->record_bytes);
        *index_out = index;
        return kept_record(table, index);
    }
    return NULL;
}

/* Release: whoever sees the word sees what the record was filled with. For a process that is killed
 * the order of the stores in the program is enough, and this keeps the compiler to it. */
void kept_commit(struct kept_table *table, uint32_t index, uint64_t word) {
    atomic_store_explicit(kept_word_at(table, index), word, memory_order_release);
}

/* The word goes first: a process that is killed in between has freed the record. */
void kept_free(struct kept_table *table, uint32_t index) {
    atomic_store_explicit(kept_word_at(table, index), 0, memory_order_release);
    table->taken[index / 64] &= ~(1ull << index % 64);
    table->used--;
    if (index < table->lowest)
        table->lowest = index;
}

/* Records above high_water have never been used; their pages are not touched. */
bool kept_walk(const struct kept_table *table, uint32_t *cursor, uint32_t *index_out) {
    uint32_t end = atomic_load_explicit(&table->header->high_water, memory_order_relaxed);
    while (*cursor < end) {
        uint32_t index = (*cursor)++;
        if (kept_word(table, index)) {
            *index_out = index;
            return true;
        }
    }
    return false;
}
