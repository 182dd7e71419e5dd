/* SPDX-License-Identifier: Apache-2.0
 *
 * The list and its lock are the only variables of the library that belong to the process rather
 * than to a handle: fork() copies the process, and its handlers take no argument.
 *
 * prepare takes the lock, so that the list is whole in both processes; the handlers make only
 * calls that are safe in the child of a program with threads: close() and mprotect().
 */
#include "fork.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fc_inherited *fork_entries;
static bool fork_handled;

void fc_fork_lock(void) {
    pthread_mutex_lock(&fork_lock);
}

void fc_fork_unlock(void) {
    pthread_mutex_unlock(&fork_lock);
}

void fc_fork_leave(struct fc_inherited *entry) {
    if (!entry->at)
        return;
    *entry->at = entry->next;
    if (entry->next)
        entry->next->at = entry->at;
    entry->next = NULL;
    entry->at = NULL;
}

/* Runs in the child, in which only the thread that forked exists. The entries are forgotten as
 * well, because some live on the stacks of threads that the child does not have: the next walk
 * over the list would read whatever is there by then. errno is the application's and stays. */
static void fork_in_child(void) {
    int before = errno;
    while (fork_entries) {
        struct fc_inherited *entry = fork_entries;
        if (entry->fd >= 0)
            close(entry->fd);
        entry->fd = -1;
        if (entry->base)
            mprotect(entry->base, entry->bytes, PROT_READ);
        fc_fork_leave(entry);
    }
    errno = before;
    fc_fork_unlock();
}

/* Registered once for the process. It cannot be taken back, so a library that was loaded by
 * dlopen() must not be unloaded while the process lives. */
int fc_fork_init(void) {
    fc_fork_lock();
    int error = fork_handled ? 0 : pthread_atfork(fc_fork_lock, fc_fork_unlock, fork_in_child);
    fork_handled = !error;
    fc_fork_unlock();
    return error;
}

/* When the library is loaded, so that handlers of the application, which may call the library, run
 * outside of ours: before prepare, and after the other two. fc_fork_init() reports a failure. */
__attribute__((constructor)) static void fork_at_load(void) {
    (void)fc_fork_init();
}

void fc_fork_enter(struct fc_inherited *entry) {
    entry->next = fork_entries;
    entry->at = &fork_entries;
    if (entry->next)
        entry->next->at = &entry->next;
    fork_entries = entry;
}

/* From one owner to another (a call's stack to the exchange of its caller), without a moment in
 * which neither is on the list. */
void fc_fork_move(struct fc_inherited *from, struct fc_inherited *to) {
    fc_fork_lock();
    fc_fork_leave(from);
    *to = *from;
    fc_fork_enter(to);
    from->fd = -1;
    fc_fork_unlock();
}

/* Does nothing for an entry without a descriptor. The lock is held around close(), so that no
 * child is forked with a number that is off the list and still open. */
void fc_fork_close(struct fc_inherited *entry) {
    if (entry->fd < 0)
        return;
    fc_fork_lock();
    fc_fork_leave(entry);
    if (entry->fd >= 0)
        close(entry->fd);
    entry->fd = -1;
    fc_fork_unlock();
}
