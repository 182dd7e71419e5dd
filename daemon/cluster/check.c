/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node holds against what the index says of it. A record may be lost, or be an old one
 * that came back with a backup of etcd, or be another cluster's. So no sample ends because a record
 * is there or missing; it ends when it is certain that a later put has replaced it.
 *
 * Checks are begun one by one, or because the index was read as a whole (reconcile.c).
 *
 * On our own behalf, when a node has died, or when the index as a whole does not name what we hold:
 *
 *   the record of what we hold      then
 *   names it                        all is well
 *   is missing                      it is written again
 *   names a home that is dead       that put has replaced ours, if the index has not gone back in
 *                                   time since and that home was a member. Else ours is written in
 *                                   its place, for that put was never answered: whoever puts a
 *                                   later generation answers only when we have confirmed, or when
 *                                   word of the end of ours is kept for us, and neither happened.
 *   names us, another generation    the same, unless that one is on its way
 *   names a home that lives         that home is asked, and removes a record of what it does not
 *                                   hold. If it holds it, and its put is over, then word of an end
 *                                   was lost: the one that was put earlier goes.
 *
 * For another node, whose put is in the index and does not know what it has replaced: it names its
 * generation, and if the index names that one too, ours has been replaced. One that names none
 * wants the record put right. For example: nodes a and b hold s, because etcd was restored from a
 * backup while both puts were under way. The record names b. Node a asks b, which holds it and
 * whose put is over; a's put is 5 s old and b's 3 s: a retires its own.
 *
 * The states. An event that a state does not name cannot happen, and is ignored.
 *
 *   state     event                                  -> state     actions
 *   (none)    begin                                     LOCATING  LOCATE
 *   for another node:
 *   LOCATING  located: replaced by the node that asks   OVER      RETIRE_HELD ANSWER_YES END
 *   LOCATING  located: names ours                       OVER      ANSWER_YES END
 *   LOCATING  located: ours is gone, or it wants the
 *             record put right, or index lost it        OVER      CHECK_OWN ANSWER_YES END
 *   LOCATING  located: else                             OVER      CHECK_OWN ANSWER_NO END
 *   on our own behalf:
 *   LOCATING  located: names ours, or ours is gone      OVER      END
 *   LOCATING  located: has been replaced                OVER      RETIRE_HELD END
 *   LOCATING  located: not certain now                  WAITING   WAIT
 *   LOCATING  located: names a home that lives          ASKING    ASK_RIVAL
 *   LOCATING  located: missing, or not true             OVER      REPUBLISH END
 *   ASKING    answered: it holds it, and ours is newer  ENDING    RETIRE_RIVAL
 *   ASKING    answered: it holds it, and ours is older  OVER      RETIRE_HELD END
 *   ASKING    answered: else, or no answer              WAITING   WAIT
 *   ENDING    ended, or no answer                       WAITING   WAIT
 *   WAITING   retry                                     LOCATING  LOCATE
 *   LOCATING  located, and the broker ends              OVER      END
 *   OVER      all                                       -
 */
#include "cluster/cluster.h"

/* As long as a request to a peer may take. A node that has put something later than both the asking
 * node and this one asks each of them within that time. When the asking node's put is older than
 * this and its record is gone, nobody who replaced it will ask any more: the index has lost a
 * record. */
#define LOST_US (10ull * 1000 * 1000)

static unsigned check_becomes(struct check *check, enum check_state state, unsigned actions) {
    check->state = state;
    return actions;
}

unsigned check_begin(struct check *check) {
    return check_becomes(check, CHECK_LOCATING, CHECK_LOCATE);
}

unsigned check_retry(struct check *check) {
    return check->state == CHECK_WAITING ? check_begin(check) : 0;
}

/* The record names ours, but only because etcd had lost the other's and our repair was faster. */
static bool check_was_written_again(const struct check *check, const struct check_facts *facts) {
    return facts->recorded == check->generation && facts->recorded_again &&
           check->newer_age_us < facts->age_us;
}

static unsigned check_located_for_another(struct check *check, const struct check_facts *facts) {
    const bool replaced =
        check->newer && facts->recorded &&
        (facts->recorded == check->newer || check_was_written_again(check, facts));
    const bool named = facts->recorded && facts->recorded == check->generation;
    /* Neither: the index names a third generation, or none. Usually whoever put the third one asks
     * us in its turn, and the asking node has to ask again until that is settled. But if its put is
     * older than LOST_US and ours came after it, our record has been lost: nothing here is older
     * than what the asking node has put, so the answer is yes, and our record is written again. */
    const bool lost = check->newer_age_us > LOST_US && facts->age_us < check->newer_age_us;
    const bool over = replaced || named || !facts->holds || !check->newer || lost;
    return check_becomes(check, CHECK_OVER,
                         (replaced ? CHECK_RETIRE_HELD
                          : named  ? 0
                                   : CHECK_CHECK_OWN) |
                             (over ? CHECK_ANSWER_YES : CHECK_ANSWER_NO) | CHECK_END);
}

/* By a put of a node that has died since. As long as the index has not lost anything since ours was
 * put, what it names was put later. Of a node that we never knew that is not certain. */
static bool check_was_replaced(const struct check_facts *facts) {
    return facts->recorded && !facts->recorded_here && !facts->recorded_again &&
           facts->home_is_dead && facts->index_remembers;
}

static unsigned check_located_own(struct check *check, const struct check_facts *facts) {
    /* Before the ends that were kept for us have been read nothing is certain yet. */
    const bool settled = (facts->reading == READING_NONE || facts->recorded) && facts->may_mend;
    const bool in_flux = facts->recorded && facts->recorded_here && facts->put_under_way;
    const bool rival = facts->recorded && !facts->recorded_here &&
                       facts->reading == READING_RECORD && !facts->recorded_before;
    if (!facts->holds || (facts->recorded && facts->recorded == check->generation))
        return check_becomes(check, CHECK_OVER, CHECK_END);
    if (settled && !rival && check_was_replaced(facts))
        return check_becomes(check, CHECK_OVER, CHECK_RETIRE_HELD | CHECK_END);
    if (!settled || in_flux)
        return check_becomes(check, CHECK_WAITING, CHECK_WAIT);
    if (!rival)
        return check_becomes(check, CHECK_OVER, CHECK_REPUBLISH | CHECK_END);
    check->rival = facts->recorded;
    return check_becomes(check, CHECK_ASKING, CHECK_ASK_RIVAL);
}

unsigned check_located(struct check *check, const struct check_facts *facts) {
    if (check->state != CHECK_LOCATING)
        return 0;
    if (facts->closing)
        return check_becomes(check, CHECK_OVER, CHECK_END);
    return check->own ? check_located_own(check, facts) : check_located_for_another(check, facts);
}

unsigned check_rival_answered(struct check *check, uint64_t held, bool over, uint64_t rival_age_us,
                              uint64_t our_age_us, bool still_held) {
    if (check->state != CHECK_ASKING)
        return 0;
    /* A rival whose put is not over may ask us yet, and the record then says which one is newer.
     * But if it is the newer one by age, that is clear now. */
    const bool there = held && held == check->rival && still_held;
    if (!there || (!over && rival_age_us >= our_age_us))
        return check_becomes(check, CHECK_WAITING, CHECK_WAIT);
    /* Ages are compared, not times: each node has counted by its own clock. */
    const bool ours_is_newer =
        our_age_us != rival_age_us ? our_age_us < rival_age_us : check->generation > check->rival;
    return ours_is_newer ? check_becomes(check, CHECK_ENDING, CHECK_RETIRE_RIVAL)
                         : check_becomes(check, CHECK_OVER, CHECK_RETIRE_HELD | CHECK_END);
}

/* Whatever it has answered, the record is looked at again, and then says what is true. */
unsigned check_rival_ended(struct check *check) {
    return check->state == CHECK_ENDING ? check_becomes(check, CHECK_WAITING, CHECK_WAIT) : 0;
}

/* ---- a record that is written again ---- */

enum republish_do republish_written(enum cluster_answer answer, bool still_held, bool closing) {
    switch (answer) {
    case CLUSTER_UNREACHABLE:
        return closing ? REPUBLISH_OVER : REPUBLISH_WRITE;
    case CLUSTER_DONE:
        return still_held ? REPUBLISH_OVER : REPUBLISH_FREE;
    case CLUSTER_REFUSED:
        return closing ? REPUBLISH_OVER : REPUBLISH_CHECK_AGAIN;
    default: /* all that is held is compared with the index before this node serves again */
        return REPUBLISH_OVER;
    }
}
