/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine of cluster/supersede.c against a reference that is written differently: a table of
 * cells as in the comment of that file. Random events come in any state, those that cannot happen
 * too; after each, every state and every action is compared, and at the end every cell of both
 * tables has been reached. CLUSTER_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cluster/cluster.h"

#define LIVES     20000u
#define STEPS     60u
#define NODES     3u
#define HOMES_MAX 64u
#define RETRY_NS  100000000u

enum home_event {
    YES,
    YES_UNANSWERED, /* confirmed, and its put had not been answered */
    NO,
    NOT_ASKED,
    LOOKED_OURS,
    LOOKED_OTHERS,
    LOOKED_UNREACHABLE,
    KEPT_DONE,
    KEPT_NOT,
    REREAD_DONE,
    REREAD_NOT,
    HOME_EVENTS
};

struct cell {
    bool possible;
    enum older_state to;
    enum supersede_do action;
    bool word; /* word is kept from now on */
};
static const struct cell cells[OLDER_STATES][HOME_EVENTS] = {
    [OLDER_ASKED] = {[YES] = {true, OLDER_CONFIRMED, 0, 0},
                     [YES_UNANSWERED] = {true, OLDER_CONFIRMED, 0, 0},
                     [NO] = {true, OLDER_WAITS, 0, 0},
                     [NOT_ASKED] = {true, OLDER_WAITS, 0, 0}},
    [OLDER_LOOKING] = {[LOOKED_OURS] = {true, OLDER_KEEPING, SUPERSEDE_DO_KEEP, 0},
                       [LOOKED_OTHERS] = {true, OLDER_WAITS, 0, true},
                       [LOOKED_UNREACHABLE] = {true, OLDER_WAITS, 0, false}},
    [OLDER_KEEPING] = {[KEPT_DONE] = {true, OLDER_REREADING, SUPERSEDE_DO_REREAD, 0},
                       [KEPT_NOT] = {true, OLDER_WAITS, 0, false}},
    [OLDER_REREADING] = {[REREAD_DONE] = {true, OLDER_WAITS, 0, true},
                         [REREAD_NOT] = {true, OLDER_WAITS, 0, false}},
};

struct reference_home {
    enum older_state state;
    unsigned node;
    bool generation, word;
    uint64_t retry_ns;
    enum supersede_do action; /* expected, not taken yet */
};
struct reference {
    enum supersede_purpose purpose;
    enum supersede_state state;
    bool refused, record_due, everyone, listed, listing;
    uint64_t listing_ns;
    unsigned due; /* actions expected */
    struct reference_home homes[HOMES_MAX];
    unsigned count;
};

static uint64_t random_state;
static unsigned reached[OLDER_STATES][HOME_EVENTS];
static unsigned went_on[OLDER_STATES][2]; /* dead, lives */
static unsigned whole[SUPERSEDE_STATES][4];
static bool alive[NODES];
static uint64_t now_ns;

static unsigned pick(unsigned count) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % count;
}

static void expect(struct reference *r, enum supersede_do what) {
    r->due |= 1u << what;
}

static void reference_add(struct reference *r, unsigned node, bool generation) {
    r->homes[r->count++] =
        (struct reference_home){.state = OLDER_WAITS, .node = node, .generation = generation};
}

static bool reference_settles(struct reference *r) {
    bool over = r->state == SUPERSEDE_PURSUING && (!r->everyone || r->listed);
    for (unsigned i = 0; i < r->count; i++)
        over &= r->homes[i].state == OLDER_CONFIRMED;
    if (!over)
        return false;
    r->state = SUPERSEDE_OVER;
    if (r->record_due)
        expect(r, SUPERSEDE_DO_FREE_RECORD);
    else if (r->count)
        expect(r, SUPERSEDE_DO_CHECK_OWN);
    expect(r, SUPERSEDE_DO_END);
    return true;
}

static void reference_go_on(struct reference *r, bool keeps_words) {
    if (r->state != SUPERSEDE_PURSUING)
        return;
    for (unsigned i = 0; i < r->count; i++) {
        struct reference_home *home = &r->homes[i];
        bool must_hear = home->generation || r->purpose != SUPERSEDE_REPAIR;
        went_on[home->state][alive[home->node]]++;
        if (home->state != OLDER_WAITS)
            continue;
        if (alive[home->node]) {
            if (home->retry_ns <= now_ns) {
                home->state = OLDER_ASKED;
                home->action = SUPERSEDE_DO_ASK;
            }
        } else if (must_hear && !home->word && keeps_words) {
            bool at_once = home->generation || r->purpose != SUPERSEDE_PUT;
            home->state = at_once ? OLDER_KEEPING : OLDER_LOOKING;
            home->action = at_once ? SUPERSEDE_DO_KEEP : SUPERSEDE_DO_LOOK;
        } else {
            home->state = OLDER_CONFIRMED;
            r->everyone |= r->purpose == SUPERSEDE_PUT;
        }
    }
    if (r->everyone && !r->listed && !r->listing && r->listing_ns <= now_ns) {
        r->listing = true;
        expect(r, SUPERSEDE_DO_LIST);
    }
    reference_settles(r);
}

static void home_event(struct reference *r, struct older_home *home,
                       struct reference_home *expected, enum home_event event) {
    const struct cell *cell = &cells[expected->state][event];
    reached[expected->state][event]++;
    if (cell->possible) {
        if (event == NO || event == NOT_ASKED)
            expected->retry_ns = now_ns + RETRY_NS;
        if (event >= LOOKED_OURS)
            expected->word = cell->word;
        expected->state = cell->to;
        expected->action = cell->action;
        if (event == YES_UNANSWERED && expected->generation && r->purpose == SUPERSEDE_PUT)
            r->everyone = true;
        if (event <= YES_UNANSWERED)
            reference_settles(r);
    }
    if (event <= NO)
        supersede_replied(home, event != NO, event == YES, now_ns);
    else if (event == NOT_ASKED)
        supersede_not_asked(home, now_ns);
    else if (event <= LOOKED_UNREACHABLE)
        supersede_looked(home,
                         event == LOOKED_UNREACHABLE ? CLUSTER_UNREACHABLE
                         : event == LOOKED_OURS      ? CLUSTER_DONE
                                                     : CLUSTER_REFUSED,
                         event == LOOKED_OURS);
    else if (event <= KEPT_NOT)
        supersede_kept(home, event == KEPT_DONE ? CLUSTER_DONE : CLUSTER_UNREACHABLE);
    else
        supersede_reread(home, event == REREAD_DONE ? CLUSTER_DONE : CLUSTER_UNREACHABLE);
}

static void compare(struct supersede *s, struct reference *r, bool has_gone_on) {
    struct supersede_action action;
    while (supersede_next_action(s, &action)) {
        if (!action.home) {
            cr_assert(r->due & 1u << action.what, "action %d was not expected", action.what);
            r->due &= ~(1u << action.what);
            continue;
        }
        unsigned i = 0;
        for (const struct older_home *at = TAILQ_FIRST(&s->older); at != action.home;
             at = TAILQ_NEXT(at, link))
            i++;
        cr_assert_eq(r->homes[i].action, action.what);
        r->homes[i].action = SUPERSEDE_DO_NOTHING;
    }
    cr_assert_eq(r->due, 0, "actions %x have not come", r->due);
    cr_assert_eq(s->state, r->state);
    cr_assert_eq(s->purpose, r->purpose);
    cr_assert_eq(s->refused, r->refused);
    uint64_t next_ns = UINT64_MAX;
    unsigned i = 0;
    const struct older_home *home;
    TAILQ_FOREACH (home, &s->older, link) {
        cr_assert_eq(home->state, r->homes[i].state);
        cr_assert_eq(r->homes[i].action, SUPERSEDE_DO_NOTHING, "an action has not come");
        if (home->state == OLDER_WAITS && r->homes[i].retry_ns < next_ns)
            next_ns = r->homes[i].retry_ns;
        i++;
    }
    cr_assert_eq(i, r->count);
    /* It may wake earlier than it must, but never so late that a home is not asked in time. */
    if (has_gone_on && s->state == SUPERSEDE_PURSUING && next_ns > now_ns && next_ns != UINT64_MAX)
        cr_assert_leq(s->next_ns, next_ns);
}

static void published(struct supersede *s, struct reference *r) {
    struct supersede_published p = {.answer = pick(4) ? CLUSTER_DONE : CLUSTER_REFUSED,
                                    .ask_everyone = !pick(4),
                                    .was_retired = !pick(5),
                                    .may_stand = pick(2),
                                    .has_index = true};
    if (pick(3)) {
        p.older_home = "n1";
        p.older_generation = 3;
    }
    whole[s->state][0]++;
    if (r->state == SUPERSEDE_PUBLISHING) {
        r->state = SUPERSEDE_PURSUING;
        r->refused = p.answer != CLUSTER_DONE;
        r->record_due |= p.was_retired;
        if (r->refused) {
            r->purpose = SUPERSEDE_REPAIR;
            expect(r, SUPERSEDE_DO_CHECK_OWN);
            if (p.may_stand)
                expect(r, SUPERSEDE_DO_FREE_RECORD);
        }
        if (p.ask_everyone)
            r->everyone = true;
        else if (p.older_home)
            reference_add(r, 1, true);
    }
    supersede_published(s, &p);
}

static void listed(struct supersede *s, struct reference *r) {
    bool is_listed = pick(3);
    whole[s->state][2]++;
    for (unsigned i = 0; i < NODES; i++) {
        char name[3] = {'n', (char)('0' + i), '\0'};
        if (r->count >= HOMES_MAX)
            return;
        cr_assert(supersede_add_member(s, name));
        if (r->listing)
            reference_add(r, i, false);
    }
    if (r->listing) {
        r->listing = false;
        r->listed = is_listed;
        r->listing_ns = now_ns + RETRY_NS;
    }
    supersede_listed(s, is_listed, now_ns);
}

static void begin(struct supersede_set *set, struct supersede *s, struct reference *r) {
    *s =
        (struct supersede){.sample_id = "s", .generation = 8, .op_id = pick(2), .begun_ns = now_ns};
    *r = (struct reference){0};
    switch (pick(5)) {
    case 0:
        r->purpose = SUPERSEDE_REPAIR;
        r->state = pick(2) ? SUPERSEDE_REMOVING : SUPERSEDE_PURSUING;
        expect(r, r->state == SUPERSEDE_REMOVING ? SUPERSEDE_DO_CLEAR_RECORD
                                                 : SUPERSEDE_DO_FREE_RECORD);
        supersede_begin_repair(set, s, r->state == SUPERSEDE_REMOVING, now_ns);
        break;
    case 1:
        r->everyone = pick(2);
        r->purpose = r->everyone ? SUPERSEDE_END : SUPERSEDE_REPAIR;
        r->state = SUPERSEDE_PURSUING;
        r->record_due = true;
        reference_add(r, 2, true);
        supersede_begin_end(set, s, "n2", 0, 8, r->everyone, now_ns);
        break;
    default:
        expect(r, SUPERSEDE_DO_PUBLISH);
        supersede_begin_put(set, s);
    }
}

/* True: supersede_go_on() was the event. */
static bool step(struct supersede *s, struct reference *r, struct roster *roster) {
    unsigned what = pick(16), i = r->count ? pick(r->count) : 0;
    const struct supersede_rules rules = {.roster = roster, .keeps_words = pick(8)};
    now_ns += pick(4) ? 0 : pick(2 * RETRY_NS);
    if (what == 0) {
        unsigned node = pick(NODES);
        char name[3] = {'n', (char)('0' + node), '\0'};
        alive[node] ^= true;
        if (alive[node])
            roster_come(roster, name, 10 + node);
        else
            roster_leave(roster, name, 10 + node, now_ns);
    } else if (what < 3) {
        published(s, r);
    } else if (what < 5) {
        whole[s->state][1]++;
        if (r->state == SUPERSEDE_REMOVING) {
            r->state = SUPERSEDE_PURSUING;
            r->everyone = true;
        }
        supersede_cleared(s);
    } else if (what < 7) {
        listed(s, r);
    } else if (what < 10) {
        whole[s->state][3]++;
        reference_go_on(r, rules.keeps_words);
        supersede_go_on(s, &rules, now_ns);
    } else if (r->count) {
        struct older_home *home = TAILQ_FIRST(&s->older);
        for (unsigned k = 0; k < i; k++)
            home = TAILQ_NEXT(home, link);
        home_event(r, home, &r->homes[i], (enum home_event)pick(HOME_EVENTS));
    }
    return what >= 7 && what < 10;
}

Test(cluster_supersede, random_events_go_by_the_table) {
    static const uint8_t key[CLUSTER_HASH_KEYBYTES];
    static struct reference r;
    struct supersede_set *set = supersede_set_new(key);
    struct roster *roster = roster_new();
    struct supersede s;
    const char *seed = getenv("CLUSTER_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("cluster_supersede: CLUSTER_SEED=%llu\n", (unsigned long long)random_state);
    for (unsigned i = 0; i < NODES; i++)
        roster_come(roster, (char[3]){'n', (char)('0' + i), '\0'}, 10 + i), alive[i] = true;
    for (unsigned life = 0; life < LIVES; life++) {
        begin(set, &s, &r);
        compare(&s, &r, false);
        for (unsigned i = 0; i < STEPS; i++) {
            bool has_gone_on = step(&s, &r, roster);
            compare(&s, &r, has_gone_on);
        }
        supersede_end(&s);
        cr_assert_null(supersede_set_first(set));
    }
    for (int state = 0; state < OLDER_STATES; state++) {
        for (int event = 0; event < HOME_EVENTS; event++)
            cr_expect(reached[state][event], "home in state %d, event %d", state, event);
        cr_expect(went_on[state][0] && went_on[state][1], "home in state %d goes on", state);
    }
    for (int state = 0; state < SUPERSEDE_STATES; state++)
        for (int event = 0; event < 4; event++)
            cr_expect(whole[state][event], "state %d, event %d", state, event);
    roster_free(roster);
    supersede_set_free(set);
}

/* The example in the comment of supersede.c, step by step. */
Test(cluster_supersede, a_put_is_answered_when_the_older_home_has_confirmed) {
    static const uint8_t key[CLUSTER_HASH_KEYBYTES];
    struct supersede_set *set = supersede_set_new(key);
    struct roster *roster = roster_new();
    const struct supersede_rules rules = {.roster = roster, .keeps_words = true};
    struct supersede s = {.sample_id = "s", .generation = 8};
    struct supersede_action action;
    roster_come(roster, "a", 1);
    supersede_begin_put(set, &s);
    cr_assert(supersede_next_action(&s, &action));
    cr_assert_eq(action.what, SUPERSEDE_DO_PUBLISH);
    cr_assert_eq(supersede_of_sample(set, 0, "s", SUPERSEDE_ON_THE_WAY), &s);
    supersede_published(&s, &(struct supersede_published){.answer = CLUSTER_DONE,
                                                          .older_home = "a",
                                                          .older_generation = 7,
                                                          .older_incarnation = 1});
    supersede_go_on(&s, &rules, 0);
    cr_assert(supersede_next_action(&s, &action));
    cr_assert_eq(action.what, SUPERSEDE_DO_ASK);
    cr_assert_eq(action.home->generation, 7);
    cr_assert_not(supersede_next_action(&s, &action), "nothing is answered before that");
    supersede_replied(action.home ? action.home : TAILQ_FIRST(&s.older), true, true, 0);
    cr_assert(supersede_next_action(&s, &action));
    cr_assert_eq(action.what, SUPERSEDE_DO_CHECK_OWN);
    cr_assert(supersede_next_action(&s, &action));
    cr_assert_eq(action.what, SUPERSEDE_DO_END);
    supersede_end(&s);
    roster_free(roster);
    supersede_set_free(set);
}
