/* SPDX-License-Identifier: Apache-2.0
 *
 * How it works: the watched memory is read-only, so that a store faults (SIGSEGV). The handler
 * makes the page writable and sets the trap flag of the processor: the one instruction is carried
 * out, and SIGTRAP follows. Its handler looks what has changed in the page, notes it, and makes the
 * page read-only again. A repeated string instruction traps after each repetition, so that a
 * memcpy() counts as all of its parts.
 *
 * The image lies in a file of its own, of which the scratch copy is a private mapping: to make it
 * anew is to drop its pages.
 */
#include "model/store_trap.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define TRAP_FLAG  0x100 /* of EFLAGS */
#define PAGES_MAX  4     /* that one instruction can write to */

static struct {
    char *base, *image, *scratch, *shadow;
    size_t bytes;
    int fd, image_fd;
    char *pages[PAGES_MAX]; /* that the instruction under way may write to */
    unsigned page_count;
    uint32_t steps;
    struct trap_write *log;
    size_t count, room;
} trap;

#if defined(__x86_64__)

bool trap_can(void) {
    return true;
}

/* Comes when an instruction writes to a protected page: notes the page, opens it for writing and
 * lets the processor carry out that one instruction. An instruction that writes across the border
 * of two pages comes here twice, once for each page. */
static void trap_on_fault(int number, siginfo_t *info, void *context) {
    ucontext_t *at = context;
    char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE_BYTES - 1));
    if (page < trap.base || page >= trap.base + trap.bytes || trap.page_count == PAGES_MAX) {
        signal(number, SIG_DFL); /* not ours: it faults again, and ends the test */
        return;
    }
    mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE);
    trap.pages[trap.page_count++] = page;
    at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* In 8-byte words: what an instruction wrote without a change is no change. Called in a signal
 * handler, so that the log has its memory from the start. */
static void trap_note(const char *page) {
    size_t from = (size_t)(page - trap.base) / 8;
    const uint64_t *now = (const uint64_t *)(const void *)trap.base;
    uint64_t *before = (uint64_t *)(void *)trap.shadow;
    for (size_t word = from; word < from + PAGE_BYTES / 8; word++) {
        if (now[word] == before[word])
            continue;
        if (trap.count == trap.room)
            abort();
        before[word] = now[word];
        trap.log[trap.count++] = (struct trap_write){trap.steps, (uint32_t)word, now[word]};
    }
}

/* The instruction has been carried out. */
static void trap_on_step(int number, siginfo_t *info, void *context) {
    ucontext_t *at = context;
    (void)number;
    (void)info;
    at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    for (unsigned i = 0; i < trap.page_count; i++) {
        trap_note(trap.pages[i]);
        mprotect(trap.pages[i], PAGE_BYTES, PROT_READ);
    }
    trap.page_count = 0;
    trap.steps++;
}

static void trap_handle(void) {
    struct sigaction fault = {.sa_sigaction = trap_on_fault, .sa_flags = SA_SIGINFO};
    struct sigaction step = {.sa_sigaction = trap_on_step, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGTRAP, &step, NULL);
}

#else

bool trap_can(void) {
    return false;
}

static void trap_handle(void) {
}

#endif

/* All mappings are of the same length. */
static void *trap_map(int *fd, int flags) {
    void *at = mmap(NULL, trap.bytes, PROT_READ | PROT_WRITE, flags, *fd, 0);
    cr_assert_neq(at, MAP_FAILED);
    return at;
}

static int trap_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)trap.bytes), 0);
    return fd;
}

void *trap_memory(size_t bytes) {
    memset(&trap, 0, sizeof trap);
    trap.bytes = (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
    trap.fd = trap_file("watched");
    trap.image_fd = trap_file("image");
    trap.base = trap_map(&trap.fd, MAP_SHARED);
    trap.image = trap_map(&trap.image_fd, MAP_SHARED);
    trap.scratch = trap_map(&trap.image_fd, MAP_PRIVATE);
    trap.shadow = calloc(1, trap.bytes);
    trap.room = 1u << 18;
    trap.log = malloc(trap.room * sizeof *trap.log);
    cr_assert(trap.shadow && trap.log);
    trap_handle();
    return trap.base;
}

/* Copies what has ever been written to in the watched memory; the rest is zero everywhere. */
static void trap_copy(char *to, const char *from) {
    for (off_t at = 0, end; (at = lseek(trap.fd, at, SEEK_DATA)) >= 0; at = end) {
        end = lseek(trap.fd, at, SEEK_HOLE);
        for (off_t page = at; page < end; page += PAGE_BYTES)
            if (memcmp(to + page, from + page, PAGE_BYTES) != 0)
                memcpy(to + page, from + page, PAGE_BYTES);
    }
}

void trap_arm(void) {
    trap_copy(trap.image, trap.base);
    trap_copy(trap.shadow, trap.base);
    trap.steps = 0;
    trap.count = 0;
    cr_assert_eq(mprotect(trap.base, trap.bytes, PROT_READ), 0);
}

const struct trap_write *trap_disarm(size_t *count_out) {
    cr_assert_eq(mprotect(trap.base, trap.bytes, PROT_READ | PROT_WRITE), 0);
    *count_out = trap.count;
    return trap.log;
}

uint64_t *trap_image(void) {
    return (uint64_t *)(void *)trap.image;
}

void *trap_scratch(void) {
    madvise(trap.scratch, trap.bytes, MADV_DONTNEED);
    return trap.scratch;
}

void trap_restore(void) {
    trap_copy(trap.base, trap.image);
}

void trap_free(void) {
    munmap(trap.base, trap.bytes);
    munmap(trap.image, trap.bytes);
    munmap(trap.scratch, trap.bytes);
    close(trap.fd);
    close(trap.image_fd);
    free(trap.shadow);
    free(trap.log);
}
