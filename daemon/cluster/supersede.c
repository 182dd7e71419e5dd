/* SPDX-License-Identifier: Apache-2.0
 *
 * From a sealed sample to an answered put: a put is answered only when nothing older of the same
 * sample can be read on any node.
 *
 * Why, by an example. Nodes a and b; a client puts sample s on a, which becomes generation 7, and
 * the index says "s is at a, generation 7". Later a client puts s on b: generation 8. The directory
 * writes "s is at b, generation 8" and tells b which record that has replaced. If b answered its
 * client now, the client could tell a colleague "the new s is there", and the colleague could still
 * read generation 7, by a ref of the old put or from a node that has heard of a. So b asks a to
 * retire generation 7 first, and answers when a has confirmed. Three things make it harder:
 *
 * - a may be dead. Nothing can be read there, but a may only have been cut off, and come back with
 *   generation 7. So b keeps word of the end in the index, which a reads before it serves again.
 * But a may have come back, and have read its words, just before that one was written. So b reads
 * the members once more afterwards; if a is back, it is asked like any other.
 * - The put of generation 7 may itself never have been answered, because a still had to end
 *   generation 6 on node c when it was replaced or died. Then nobody will end generation 6 but b,
 *   who does not know where it is. So b asks every member to compare what it holds of s with the
 *   index. The same goes when the directory does not know what it has replaced, for example because
 *   its first answer was lost.
 * - Generation 8 may end while all this goes on (a client aborts it). Its record stays until the
 *   pursuit is over, for whoever looks for s must find b, which knows that older ones may live.
 *
 * The same pursuit serves two other purposes: SUPERSEDE_END ends all that is held of a sample whose
 * home is dead, and SUPERSEDE_REPAIR removes a record of which nothing is left, or ends one
 * generation, and asks the other nodes only to put their own records right.
 *
 * It goes on when the client is gone, for what stands in the index must become true.
 *
 * The whole. A dash: cannot happen, and is ignored. Recalled: the put of a broker that was killed
 * and started again with its memory, when the index had its record by then; "published" follows.
 *
 *   state       event      -> state       actions
 *   (none)      put           PUBLISHING  PUBLISH
 *   (none)      recalled      PUBLISHING
 *   (none)      repair        REMOVING    CLEAR_RECORD, for a put that failed; else PURSUING with
 *                                         FREE_RECORD
 *   (none)      end           PURSUING
 *   PUBLISHING  published     PURSUING    refused: CHECK_OWN, and FREE_RECORD if it may stand
 *   PUBLISHING  others        -
 *   REMOVING    cleared       PURSUING    (every member is to be listed)
 *   REMOVING    others        -
 *   PURSUING    go on         PURSUING    LIST when the listing is due; ASK, LOOK or KEEP for each
 *                                         home that waits
 *   PURSUING    listed        PURSUING    (each member is an older home now)
 *   PURSUING    published, cleared -
 *   any of these, when all homes have confirmed and no listing is due:
 *   PURSUING                  OVER        FREE_RECORD or CHECK_OWN, END
 *   OVER        all           -
 *
 * One older home, while the whole is PURSUING:
 *
 *   state      event                        -> state      action
 *   WAITS      go on, lives, retry_ns is due   ASKED      ASK
 *   WAITS      go on, dead, word needed        KEEPING    KEEP, where it is known that it must go
 *   WAITS      the same                        LOOKING    LOOK, where it must go only if our record
 *                                                         still stands
 *   WAITS      go on, dead, no word needed     CONFIRMED
 *   ASKED      replied: yes                    CONFIRMED
 *   ASKED      replied: no; not asked          WAITS      (for RETRY_NS)
 *   LOOKING    looked: the record is ours      KEEPING    KEEP
 *   LOOKING    looked: it is another's         WAITS      (no word needed: that one sees to it)
 *   LOOKING    looked: unreachable             WAITS
 *   KEEPING    kept: done                      REREADING  REREAD
 *   KEEPING    kept: not done                  WAITS
 *   REREADING  reread: done                    WAITS      (no word needed for this death)
 *   REREADING  reread: not done                WAITS
 *   any other                                  -
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/cluster.h"

/* How long a home that did not confirm is left alone. A put waits for it, so this is short; it is
 * longer than a round trip, so that a home that is busy is not asked twice. */
#define RETRY_NS (100ull * 1000 * 1000)

bool supersede_is_hint(const struct supersede *s) {
    return s->purpose == SUPERSEDE_REPAIR;
}

static void supersede_do(struct supersede *s, enum supersede_do what) {
    s->due |= 1u << what;
}

/* A home has one action at most: each state is left by the answer to the action that it began with.
 */
static void supersede_do_at(struct older_home *home, enum older_state state,
                            enum supersede_do what) {
    home->state = state;
    home->action = what;
    TAILQ_INSERT_TAIL(&home->supersede->acting, home, acting);
}

bool supersede_next_action(struct supersede *s, struct supersede_action *action) {
    struct older_home *home = TAILQ_FIRST(&s->acting);
    *action = (struct supersede_action){.what = SUPERSEDE_DO_NOTHING};
    if (s->due) {
        action->what = (enum supersede_do)__builtin_ctz(s->due);
        s->due &= s->due - 1;
    } else if (home) {
        TAILQ_REMOVE(&s->acting, home, acting);
        *action = (struct supersede_action){.what = home->action, .home = home};
        home->action = SUPERSEDE_DO_NOTHING;
    }
    return action->what != SUPERSEDE_DO_NOTHING;
}

/* ---- begin and end ---- */

static void supersede_begin(struct supersede_set *set, struct supersede *s,
                            enum supersede_purpose purpose, enum supersede_state state) {
    s->purpose = purpose;
    s->state = state;
    s->next_ns = UINT64_MAX;
    TAILQ_INIT(&s->older);
    TAILQ_INIT(&s->acting);
    supersede_set_add(set, s);
}

/* Which home it is does not matter when it dies: it may be the same node under two generations. */
static void supersede_add_older(struct supersede *s, struct older_home *home, const char *node,
                                uint64_t incarnation, uint64_t generation) {
    home->supersede = s;
    home->incarnation = incarnation;
    home->generation = generation;
    home->state = OLDER_WAITS;
    strncpy(home->node, node, sizeof home->node - 1);
    TAILQ_INSERT_TAIL(&s->older, home, link);
    s->open++;
}

/* Every node is to compare whatever it holds of this sample with the index. A node that joins later
 * holds nothing, or has caught up. */
static void supersede_ask_everyone(struct supersede *s) {
    if (s->listing == LISTING_NOT_NEEDED)
        s->listing = LISTING_DUE;
}

void supersede_begin_put(struct supersede_set *set, struct supersede *s) {
    supersede_begin(set, s, SUPERSEDE_PUT, SUPERSEDE_PUBLISHING);
    supersede_do(s, SUPERSEDE_DO_PUBLISH);
}

void supersede_recall_put(struct supersede_set *set, struct supersede *s) {
    supersede_begin(set, s, SUPERSEDE_PUT, SUPERSEDE_PUBLISHING);
}

void supersede_begin_repair(struct supersede_set *set, struct supersede *s, bool failed,
                            uint64_t now_ns) {
    supersede_begin(set, s, SUPERSEDE_REPAIR, failed ? SUPERSEDE_REMOVING : SUPERSEDE_PURSUING);
    supersede_do(s, failed ? SUPERSEDE_DO_CLEAR_RECORD : SUPERSEDE_DO_FREE_RECORD);
    if (!failed)
        s->next_ns = now_ns;
}

void supersede_begin_end(struct supersede_set *set, struct supersede *s, const char *home,
                         uint64_t incarnation, uint64_t generation, bool everything,
                         uint64_t now_ns) {
    supersede_begin(set, s, everything ? SUPERSEDE_END : SUPERSEDE_REPAIR, SUPERSEDE_PURSUING);
    s->record_due = true;
    s->next_ns = now_ns;
    if (everything)
        supersede_ask_everyone(s);
    if (home)
        supersede_add_older(s, &s->named, home, incarnation, generation);
}

void supersede_end(struct supersede *s) {
    struct older_home *home;
    while ((home = TAILQ_FIRST(&s->older))) {
        TAILQ_REMOVE(&s->older, home, link);
        if (home != &s->named)
            free(home);
    }
    supersede_set_remove(s);
}

/* ---- when it is over, and when it goes on ---- */

static bool supersede_may_end(const struct supersede *s) {
    return s->state == SUPERSEDE_PURSUING && !s->open &&
           (s->listing == LISTING_NOT_NEEDED || s->listing == LISTING_DONE);
}

/* When it goes on by itself: to ask a home again, which may be dead by then, or for the listing. */
static void supersede_schedule(struct supersede *s) {
    const struct older_home *home;
    s->next_ns = UINT64_MAX;
    if (s->state != SUPERSEDE_PURSUING)
        return;
    TAILQ_FOREACH (home, &s->older, link)
        if (home->state == OLDER_WAITS && home->retry_ns < s->next_ns)
            s->next_ns = home->retry_ns;
    if (s->listing == LISTING_DUE && s->listing_retry_ns < s->next_ns)
        s->next_ns = s->listing_retry_ns;
}

static void supersede_settle(struct supersede *s) {
    supersede_schedule(s);
    if (!supersede_may_end(s))
        return;
    s->state = SUPERSEDE_OVER;
    if (s->record_due)
        supersede_do(s, SUPERSEDE_DO_FREE_RECORD);
    /* A home that took us for dead meanwhile has written its own record in place of ours. */
    else if (!TAILQ_EMPTY(&s->older))
        supersede_do(s, SUPERSEDE_DO_CHECK_OWN);
    supersede_do(s, SUPERSEDE_DO_END);
}

static void supersede_confirm(struct older_home *home) {
    home->state = OLDER_CONFIRMED;
    home->supersede->open--;
}

/* Whatever put was there, nobody can say whether it had been answered: what it replaced may live.
 */
static void supersede_confirm_dead(struct older_home *home) {
    supersede_confirm(home);
    if (home->supersede->purpose == SUPERSEDE_PUT)
        supersede_ask_everyone(home->supersede);
}

/* True: it holds nothing any more that could come back unseen, or it will find word of the end. */
static bool supersede_needs_no_word(const struct older_home *home,
                                    const struct supersede_rules *rules) {
    bool ends = home->generation || !supersede_is_hint(home->supersede);
    return home->word_kept || !ends || !rules->keeps_words;
}

static void supersede_pursue_dead(struct older_home *home, const struct supersede_rules *rules) {
    const struct supersede *s = home->supersede;
    if (supersede_needs_no_word(home, rules)) {
        supersede_confirm_dead(home);
        return;
    }
    home->dead =
        home->incarnation ? home->incarnation : roster_incarnation(rules->roster, home->node);
    /* Word of one generation ends that one and older ones, which is right whatever has come since.
     * Word about everything that a node holds is right only while our record is the last one. */
    if (home->generation || s->purpose != SUPERSEDE_PUT)
        supersede_do_at(home, OLDER_KEEPING, SUPERSEDE_DO_KEEP);
    else
        supersede_do_at(home, OLDER_LOOKING, SUPERSEDE_DO_LOOK);
}

void supersede_go_on(struct supersede *s, const struct supersede_rules *rules, uint64_t now_ns) {
    struct older_home *home;
    if (s->state != SUPERSEDE_PURSUING)
        return;
    TAILQ_FOREACH (home, &s->older, link) {
        if (home->state != OLDER_WAITS)
            continue;
        if (roster_is_dead(rules->roster, home->node, home->incarnation) ||
            roster_is_absent(rules->roster, home->node))
            supersede_pursue_dead(home, rules);
        else if (home->retry_ns <= now_ns)
            supersede_do_at(home, OLDER_ASKED, SUPERSEDE_DO_ASK);
    }
    if (s->listing == LISTING_DUE && s->listing_retry_ns <= now_ns) {
        s->listing = LISTING_ASKED;
        supersede_do(s, SUPERSEDE_DO_LIST);
    }
    supersede_settle(s);
}

/* ---- answers of the directory about our record ---- */

/* To be followed by supersede_go_on(). A put that is refused cannot tell what the index lost in the
 * meantime from what it would have replaced, so this node looks at what it holds itself. If the
 * answer to a first attempt was lost, the record may have stood for a moment and have replaced
 * another: then every node looks. */
void supersede_published(struct supersede *s, const struct supersede_published *published) {
    bool refused = published->answer != CLUSTER_DONE;
    if (s->state != SUPERSEDE_PUBLISHING)
        return;
    s->state = SUPERSEDE_PURSUING;
    s->refused = refused;
    s->record_due |= published->was_retired;
    if (refused) {
        s->purpose = SUPERSEDE_REPAIR;
        if (published->has_index)
            supersede_do(s, SUPERSEDE_DO_CHECK_OWN);
        if (published->may_stand)
            supersede_do(s, SUPERSEDE_DO_FREE_RECORD);
    }
    if (published->ask_everyone)
        supersede_ask_everyone(s);
    else if (published->older_home)
        supersede_add_older(s, &s->named, published->older_home, published->older_incarnation,
                            published->older_generation);
}

void supersede_cleared(struct supersede *s) {
    if (s->state != SUPERSEDE_REMOVING)
        return;
    s->state = SUPERSEDE_PURSUING;
    supersede_ask_everyone(s);
    supersede_schedule(s);
}

/* ---- the listing of all members ---- */

bool supersede_add_member(struct supersede *s, const char *node) {
    if (s->listing != LISTING_ASKED)
        return true;
    struct older_home *home = calloc(1, sizeof *home);
    if (home)
        supersede_add_older(s, home, node, 0, 0);
    return home;
}

/* Not listed: the directory cannot be asked, or there was no memory for all. Members that have been
 * added already stay, and may be added once more: a home that is asked twice says yes twice. */
void supersede_listed(struct supersede *s, bool listed, uint64_t now_ns) {
    if (s->listing != LISTING_ASKED)
        return;
    s->listing = listed ? LISTING_DONE : LISTING_DUE;
    s->listing_retry_ns = now_ns + RETRY_NS;
    supersede_schedule(s);
    /* A cluster of one: nobody is to be asked, and the next call of supersede_go_on() ends it. */
    if (listed)
        s->next_ns = now_ns;
}

/* ---- answers about one older home ---- */

void supersede_not_asked(struct older_home *home, uint64_t now_ns) {
    if (home->state != OLDER_ASKED)
        return;
    home->state = OLDER_WAITS;
    home->retry_ns = now_ns + RETRY_NS;
    supersede_schedule(home->supersede);
}

void supersede_replied(struct older_home *home, bool confirmed, bool was_over, uint64_t now_ns) {
    struct supersede *s = home->supersede;
    if (home->state != OLDER_ASKED)
        return;
    if (!confirmed) {
        supersede_not_asked(home, now_ns);
        return;
    }
    supersede_confirm(home);
    /* It had a put that was never answered: what that one had replaced may live elsewhere. */
    if (home->generation && !was_over && s->purpose == SUPERSEDE_PUT)
        supersede_ask_everyone(s);
    supersede_settle(s);
}

/* The three answers about a home that is dead; each is to be followed by supersede_go_on(), which
 * finds it dead still, or back. */

static void supersede_wait(struct older_home *home, bool word_kept) {
    home->state = OLDER_WAITS;
    home->word_kept = word_kept;
}

void supersede_looked(struct older_home *home, enum cluster_answer answer, bool still_ours) {
    if (home->state != OLDER_LOOKING)
        return;
    /* As long as our record is the last one, all that the dead home holds is older. If ours has
     * been replaced, whoever did that pursues what that home holds. */
    if (answer != CLUSTER_UNREACHABLE && still_ours)
        supersede_do_at(home, OLDER_KEEPING, SUPERSEDE_DO_KEEP);
    else
        supersede_wait(home, answer != CLUSTER_UNREACHABLE);
}

void supersede_kept(struct older_home *home, enum cluster_answer answer) {
    if (home->state != OLDER_KEEPING)
        return;
    /* The home may have come back, and have read its words, just before this one was written. */
    if (answer == CLUSTER_DONE)
        supersede_do_at(home, OLDER_REREADING, SUPERSEDE_DO_REREAD);
    else
        supersede_wait(home, false);
}

void supersede_reread(struct older_home *home, enum cluster_answer answer) {
    if (home->state == OLDER_REREADING)
        supersede_wait(home, answer == CLUSTER_DONE);
}
