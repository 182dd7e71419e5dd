/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol by which the nodes of a cluster agree on what may still be read. It is pure: nothing
 * in this folder does I/O, reads a clock, or knows a request, a peer or the directory. What has
 * happened comes in as the call of a function (an event), with the time as an argument; what is to
 * be done comes out as a list of actions, or as the value of the function. exchange/ is the shell:
 * it makes events of the answers of peers, of the directory and of the store, and carries out the
 * actions. Memory belongs to the shell or is taken when a machine begins, so that no step that must
 * succeed can fail for want of it.
 *
 *   roster.c    who lives under which incarnation, and who has died
 *   supersede.c  one put, or one end, until nothing older can be read anywhere
 *   supersede_set.c  all of those that are under way, found by hash
 */
#ifndef FEATURED_CLUSTER_CLUSTER_H
#define FEATURED_CLUSTER_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define CLUSTER_NAME_BYTES    65u /* of a node's name, with the 0 at its end */
#define CLUSTER_HASH_KEYBYTES 16u

/* What has become of a question to the directory. */
enum cluster_answer {
    CLUSTER_DONE,       /* it was done, or there is a record and its home lives */
    CLUSTER_REFUSED,    /* it was not done, and will not be */
    CLUSTER_UNREACHABLE /* the directory cannot be asked now */
};

/* ---- roster.c ---- */

struct roster;

struct roster *roster_new(void); /* NULL: out of memory */
void roster_free(struct roster *roster);
/* False: out of memory, and nothing has changed. incarnation 0: not known. */
bool roster_come(struct roster *roster, const char *node, uint64_t incarnation);
bool roster_leave(struct roster *roster, const char *node, uint64_t incarnation, uint64_t now_ns);
/* It is no member as far as this node has heard. */
bool roster_is_absent(const struct roster *roster, const char *node);
/* That incarnation serves no more, for certain. 0: whichever it was. */
bool roster_is_dead(const struct roster *roster, const char *node, uint64_t incarnation);
/* The one that lives, or the last that died; 0 = not known. */
uint64_t roster_incarnation(const struct roster *roster, const char *node);
/* How long ago the node left, if it is no member now; 0 = it is one, or never was. */
uint64_t roster_gone_ns(const struct roster *roster, const char *node, uint64_t now_ns);
/* No member that lives has a name before this one. */
bool roster_first_is(const struct roster *roster, const char *node);

/* ---- supersede.c: one put, or one end ---- */

/* What is going on, and for whom. */
enum supersede_purpose {
    SUPERSEDE_PUT,    /* a put of this node, from its seal to its answer */
    SUPERSEDE_REPAIR, /* of a put that failed, or of one generation that has ended: other nodes are
                       * asked only to put their own records right */
    SUPERSEDE_END,    /* all that is held of a sample ends, wherever it is */
};

enum supersede_state {
    SUPERSEDE_PUBLISHING, /* the directory has been asked to write our record */
    SUPERSEDE_REMOVING,   /* ... to remove it, before the other nodes look at what it says */
    SUPERSEDE_PURSUING,   /* older homes are asked until each has confirmed */
    SUPERSEDE_OVER,
    SUPERSEDE_STATES
};

/* Does every node have to be among the older homes, and is it? */
enum supersede_listing {
    LISTING_NOT_NEEDED = 0,
    LISTING_DUE,   /* the directory is to be asked who the members are */
    LISTING_ASKED, /* it has been: we may not have heard of all of them */
    LISTING_DONE,
};

/* One home that has to retire what it holds: see the table in supersede.c. */
enum older_state {
    OLDER_WAITS,     /* to be asked at retry_ns */
    OLDER_ASKED,     /* has been asked to retire it, and has not answered */
    OLDER_LOOKING,   /* is dead: the index is asked whether our record still stands */
    OLDER_KEEPING,   /* ... word of the end is being written for it */
    OLDER_REREADING, /* ... the members are read once more: is it back already? */
    OLDER_CONFIRMED, /* nothing older can be read there any more */
    OLDER_STATES
};

/* What the shell is to do. */
enum supersede_do {
    SUPERSEDE_DO_NOTHING,
    /* ---- for the put as a whole, in this order ---- */
    SUPERSEDE_DO_PUBLISH,      /* then supersede_published() */
    SUPERSEDE_DO_CHECK_OWN,    /* compare what this node holds of the sample with the index */
    SUPERSEDE_DO_FREE_RECORD,  /* remove our record; nobody waits for the answer */
    SUPERSEDE_DO_CLEAR_RECORD, /* remove our record, then supersede_cleared() */
    SUPERSEDE_DO_LIST,         /* ask for the members, then supersede_listed() */
    SUPERSEDE_DO_END,          /* answer who waits, and forget this: it is over */
    /* ---- for one older home ---- */
    SUPERSEDE_DO_ASK,    /* ask it to retire, then supersede_replied(); supersede_not_asked() if it
                          * cannot be sent */
    SUPERSEDE_DO_LOOK,   /* locate the record, then supersede_looked() */
    SUPERSEDE_DO_KEEP,   /* keep word of its end in the index, then supersede_kept() */
    SUPERSEDE_DO_REREAD, /* ask for the members, then supersede_reread() */
};

struct supersede;

struct older_home {
    TAILQ_ENTRY(older_home) link, acting;
    struct supersede *supersede;
    char node[CLUSTER_NAME_BYTES];
    uint64_t incarnation, generation; /* 0 = whatever it holds that the index does not name */
    enum older_state state;
    enum supersede_do action; /* not taken by the shell yet */
    bool word_kept;           /* for its last death, and the members have been read since */
    uint64_t dead;            /* the incarnation that word is kept for */
    uint64_t retry_ns;        /* OLDER_WAITS: when it is asked */
};
TAILQ_HEAD(older_homes, older_home);

struct supersede {
    LIST_ENTRY(supersede) link, by_generation, by_op, by_sample; /* supersede_set.c */
    /* Set by the shell before it begins, and unchanged until the end. */
    uint32_t store;
    const char *sample_id; /* outlives this struct */
    uint64_t generation;
    uint64_t client_id, op_id; /* op_id 0: nobody repeats it */
    uint64_t begun_ns;         /* of a put, its commit */
    /* The machine's own; the shell reads purpose, state, refusal and next_ns. */
    enum supersede_purpose purpose;
    enum supersede_state state;
    enum supersede_listing listing;
    bool refused;    /* the directory did not take the record of the put */
    bool record_due; /* what was put has been retired meanwhile: its record is removed at the end */
    uint64_t listing_retry_ns;
    uint64_t next_ns; /* when supersede_go_on() is to be called; UINT64_MAX: not before an event */
    unsigned due;     /* actions not taken yet, 1 << enum supersede_do each */
    uint32_t open;    /* older homes that have not confirmed */
    struct older_homes older, acting;
    struct older_home named; /* the one that the record named: its memory is there in advance */
};
LIST_HEAD(supersede_list, supersede);

struct supersede_rules {
    const struct roster *roster;
    bool keeps_words; /* the directory keeps word of ends for homes that are dead */
};

struct supersede_action {
    enum supersede_do what;
    struct older_home *home; /* of the last four; else NULL */
};

struct supersede_set;

/* What the directory has answered to a put, and what came of it in the store. */
struct supersede_published {
    enum cluster_answer answer;
    const char *older_home; /* where the record that ours replaced is from; NULL: none, or here */
    uint64_t older_generation, older_incarnation;
    bool ask_everyone; /* what was replaced is not known, or its own put was not over */
    bool was_retired;  /* ended on its way to the index: its record is removed at the end */
    bool may_stand;    /* refused, but the record may have been written all the same */
    bool has_index;    /* the directory knows who has which sample */
};

/* A put begins: it asks to publish. */
void supersede_begin_put(struct supersede_set *set, struct supersede *supersede);
/* A record of ours names what is not held here. failed: it is of a put that failed, which may have
 * replaced the record of another node. */
void supersede_begin_repair(struct supersede_set *set, struct supersede *supersede, bool failed,
                            uint64_t now_ns);
/* What `home` (NULL: none that is known) holds has ended. everything: and so has whatever else any
 * node holds of the sample. */
void supersede_begin_end(struct supersede_set *set, struct supersede *supersede, const char *home,
                         uint64_t incarnation, uint64_t generation, bool everything,
                         uint64_t now_ns);

/* Events. Those for which it says so in supersede.c are followed by supersede_go_on(). */
void supersede_published(struct supersede *supersede, const struct supersede_published *published);
void supersede_cleared(struct supersede *supersede);
/* Adds a member before supersede_listed(); false: out of memory. */
bool supersede_add_member(struct supersede *supersede, const char *node);
void supersede_listed(struct supersede *supersede, bool listed, uint64_t now_ns);
void supersede_not_asked(struct older_home *home, uint64_t now_ns);
/* confirmed: it has retired it; was_over: and the put of that generation had been answered. */
void supersede_replied(struct older_home *home, bool reached, bool confirmed, bool was_over,
                       uint64_t now_ns);
/* still_ours: the record in the index is the one of this put. */
void supersede_looked(struct older_home *home, enum cluster_answer answer, bool still_ours);
void supersede_kept(struct older_home *home, enum cluster_answer answer);
void supersede_reread(struct older_home *home, enum cluster_answer answer);
/* Time has passed, or a member has come or gone. */
void supersede_go_on(struct supersede *supersede, const struct supersede_rules *rules,
                     uint64_t now_ns);

/* What is to be done, one after the other; false: nothing more for now. */
bool supersede_next_action(struct supersede *supersede, struct supersede_action *action);
/* Other nodes are only to put their own records right. */
bool supersede_is_hint(const struct supersede *supersede);
/* Takes it out of the set and frees what the machine has taken. */
void supersede_end(struct supersede *supersede);

/* ---- supersede_set.c: all that are under way ---- */

/* Which of those that are under way. */
enum supersede_which {
    SUPERSEDE_ANY,
    SUPERSEDE_PUTS,        /* puts that the directory has not refused */
    SUPERSEDE_ON_THE_WAY,  /* the directory has not answered: whether the index has it is unknown */
    SUPERSEDE_IN_THE_INDEX /* the directory has answered */
};

/* key: CLUSTER_HASH_KEYBYTES random bytes, for names and operations come from clients. NULL: out of
 * memory. */
struct supersede_set *supersede_set_new(const uint8_t *key);
void supersede_set_free(struct supersede_set *set); /* it is empty */
struct supersede *supersede_set_first(const struct supersede_set *set);
/* Its store, sample, generation and operation do not change until it is removed. */
void supersede_set_add(struct supersede_set *set, struct supersede *supersede);
void supersede_set_remove(struct supersede *supersede);
/* The youngest such; NULL: none. */
struct supersede *supersede_of_generation(const struct supersede_set *set, uint32_t store,
                                          uint64_t generation, enum supersede_which which);
struct supersede *supersede_of_sample(const struct supersede_set *set, uint32_t store,
                                      const char *sample_id, enum supersede_which which);
/* The next one that is older than `after`; NULL: the youngest. */
struct supersede *supersede_next_of_sample(const struct supersede_set *set, uint32_t store,
                                           const char *sample_id, struct supersede *after);
struct supersede *supersede_of_op(const struct supersede_set *set, uint32_t store,
                                  uint64_t client_id, uint64_t op_id);
/* The record of a generation that was retired stays until its put is over, so that whoever looks
 * finds this node. False: no put of that generation is under way. */
bool supersede_keeps_record(const struct supersede_set *set, uint32_t store, uint64_t generation);

#endif
