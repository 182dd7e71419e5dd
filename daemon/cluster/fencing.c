/* SPDX-License-Identifier: Apache-2.0
 *
 * May this node serve what it holds, and may it take puts?
 *
 * Why it must sometimes not, by an example. Node a holds sample s and is cut off from the
 * directory. After the time of a lease its record as a member ends, and the other nodes take it for
 * dead; node b puts s again and is answered, because nothing of a dead node can be read. If a still
 * served its own s, for example to a process on the same machine, that process would read an older
 * sample than others have been told of. So a stops by itself, before its record can have ended: it
 * is *fenced*. It counts the time of the lease from before it asked for it, by its own clock, so it
 * stops first.
 *
 * When its record stands again, the node first reads what the others have ended meanwhile and what
 * the index says of it. If that shows that the index has lost something, some of what the node
 * holds has to be checked before anything is served: it is *settling*. The checks are counted.
 *
 *   state     event                                 -> state     what is allowed
 *   FENCED    the record stands, no checks come first  SERVING   (FENCED) nothing
 *   FENCED    the record stands, checks come first     SETTLING
 *   SETTLING  the last check is over, or takes long    SERVING   (SETTLING) to put records right,
 *   SETTLING  the record may have ended                FENCED               which the checks do
 *   SERVING   a check begins that comes first          SETTLING
 *   SERVING   the record may have ended                FENCED    (SERVING) to serve, and take puts
 *
 * The record may end at any moment without an event, because the process may have been stopped, so
 * the state is computed whenever it is needed, from the clock of that moment, and is kept nowhere.
 */
#include "cluster/cluster.h"

enum fencing_state fencing_state(const struct fencing *fencing, uint64_t serves_until_ns,
                                 uint64_t now_ns) {
    /* The very nanosecond at which the record may end is not ours any more. */
    if (now_ns >= serves_until_ns)
        return FENCING_FENCED;
    return fencing->first ? FENCING_SETTLING : FENCING_SERVING;
}

bool fencing_may_serve(enum fencing_state state) {
    return state == FENCING_SERVING;
}

bool fencing_may_mend(enum fencing_state state) {
    return state != FENCING_FENCED;
}

enum fencing_refusal fencing_refuses(enum fencing_state state, bool stopping, bool twin_was_first) {
    /* The reason that lasts longest comes first: a node that is stopping will not take puts when it
     * is not fenced any more either. */
    if (stopping)
        return FENCING_STOPPING;
    if (twin_was_first)
        return FENCING_TWIN;
    return fencing_may_serve(state) ? FENCING_TAKES : FENCING_NOT_SERVING;
}

void fencing_hold(struct fencing *fencing, uint32_t count) {
    fencing->first += count;
}

/* Never below 0: a node that serves one check too early is wrong for a moment, but a count that
 * wrapped round would keep it from serving for ever. */
void fencing_let_go(struct fencing *fencing, uint32_t count) {
    fencing->first -= count < fencing->first ? count : fencing->first;
}
