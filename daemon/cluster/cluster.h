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
 *   fencing.c    may this node serve now, and if not, why not
 *   check.c      what this node holds of one sample against what the index says of it
 *   reconcile.c  the same for all that it holds, when the index has been read as a whole
 *   generation_set.c  (for reconcile.c alone) the generations that a record has named
 *   audit.c      the same comparison for an admin, who is told in words what is wrong
 *   own_name.c   who has this node's name, when another incarnation is registered under it
 *   dead_homes.c which homes have been dead for so long that their records may go
 *   search.c     one get, until it has a generation that may be read, or none can be had
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
    CLUSTER_REFUSED,    /* it was not done, for another record stands */
    CLUSTER_FENCED,     /* it was not done, for this node is fenced: it will catch up first */
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
void supersede_recall_put(struct supersede_set *set, struct supersede *s);
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
void supersede_replied(struct older_home *home, bool confirmed, bool was_over, uint64_t now_ns);
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
/* A generation was retired, and its record is to be removed. True: its put is still under way, so
 * the record stays until that is over (whoever looks for the sample must find this node), and the
 * put removes it then. False: no put of that generation is under way, and the caller removes the
 * record. */
bool supersede_defer_removal(const struct supersede_set *set, uint32_t store, uint64_t generation);

/* ---- fencing.c: may we serve? ---- */

enum fencing_state {
    FENCING_FENCED,   /* our record in the index may have ended: others may have replaced ours */
    FENCING_SETTLING, /* it stands again, but some of what we hold has not been checked yet */
    FENCING_SERVING,
    FENCING_STATES
};

enum fencing_refusal { FENCING_TAKES, FENCING_STOPPING, FENCING_TWIN, FENCING_NOT_SERVING };

struct fencing {
    uint32_t first; /* checks that have to come before anything is served */
};

/* serves_until_ns: until when our record stands for certain, as the directory says. */
enum fencing_state fencing_state(const struct fencing *fencing, uint64_t serves_until_ns,
                                 uint64_t now_ns);
/* Leases may be granted and answers given about what another node could have replaced. */
bool fencing_may_serve(enum fencing_state state);
/* What the index says may be believed, and what is wrong may be put right. */
bool fencing_may_mend(enum fencing_state state);
/* Does this node take puts, and if not, which reason comes first? */
enum fencing_refusal fencing_refuses(enum fencing_state state, bool stopping, bool twin_was_first);
/* A check begins that has to come first, or such a one is over. count: how many (0 or more). */
void fencing_hold(struct fencing *fencing, uint32_t count);
void fencing_let_go(struct fencing *fencing, uint32_t count);

/* ---- check.c: what this node holds of one sample against the index ---- */

/* What the index says of one sample. */
enum cluster_reading {
    READING_RECORD, /* a record, whose home lives as far as the directory knows */
    READING_LOST,   /* a record, whose home is dead */
    READING_NONE,   /* no record */
    READING_FAILED, /* it cannot be read now */
};

enum check_state {
    CHECK_LOCATING, /* the record of the sample is being read */
    CHECK_ASKING,   /* the home that the record names is being asked whether it holds that */
    CHECK_ENDING,   /* ... is being asked to retire it */
    CHECK_WAITING,  /* is begun again after a while */
    CHECK_OVER,
    CHECK_STATES
};

/* What the shell is to do after an event: a set of these, in this order. */
enum check_do {
    CHECK_RETIRE_HELD = 1 << 0,  /* what this node holds has been replaced */
    CHECK_REPUBLISH = 1 << 1,    /* write our record where the index has none or a wrong one */
    CHECK_CHECK_OWN = 1 << 2,    /* begin a check of the same sample on our own behalf */
    CHECK_ANSWER_YES = 1 << 3,   /* to the node that asks: nothing older can be read here */
    CHECK_ANSWER_NO = 1 << 4,    /* ... it must ask again */
    CHECK_LOCATE = 1 << 5,       /* read the record, then check_located() */
    CHECK_ASK_RIVAL = 1 << 6,    /* ask its home, then check_rival_answered() */
    CHECK_RETIRE_RIVAL = 1 << 7, /* ask its home to retire it, then check_rival_ended() */
    CHECK_WAIT = 1 << 8,         /* then check_retry() */
    CHECK_END = 1 << 9,
};

struct check {
    enum check_state state;
    bool own;            /* on our own behalf; else another node asks */
    uint64_t generation; /* what was held here when it began */
    uint64_t newer;      /* of the node that asks: what it has put; 0 = nothing, it wants the record
                          * put right */
    uint64_t newer_age_us;
    uint64_t rival; /* the generation that the record names, while its home is asked */
};

/* What is so at the moment when the record has been read. */
struct check_facts {
    enum cluster_reading reading;
    uint64_t recorded;    /* the generation that the record names; 0 = none */
    bool recorded_here;   /* ... as held by this incarnation of this node */
    bool recorded_again;  /* ... it was written by a repair, perhaps later than others were put */
    bool recorded_before; /* ... by this node before it restarted, of which the directory may not
                           * have heard */
    bool home_is_dead;    /* ... whose home is known here, and dead */
    bool put_under_way;   /* ... whose put at this node is not over */
    bool holds;           /* the generation is still resident here */
    bool may_mend;        /* fencing_may_mend() */
    bool index_remembers; /* it has not gone back in time since what we hold was put */
    uint64_t age_us;      /* since what we hold was put */
    bool closing;         /* the broker ends: nothing is begun */
};

unsigned check_begin(struct check *check);
unsigned check_located(struct check *check, const struct check_facts *facts);
/* held: what it holds; 0 = nothing, or it has not answered. over: its put is over. still_held: we
 * still hold ours. */
unsigned check_rival_answered(struct check *check, uint64_t held, bool over, uint64_t rival_age_us,
                              uint64_t our_age_us, bool still_held);
unsigned check_rival_ended(struct check *check);
unsigned check_retry(struct check *check);

/* The record that is written again (CHECK_REPUBLISH). */
enum republish_do {
    REPUBLISH_OVER,
    REPUBLISH_WRITE,      /* again */
    REPUBLISH_FREE,       /* over; but what was held is gone: the record is removed */
    REPUBLISH_CHECK_AGAIN /* over; another record has come first: look at that one */
};
enum republish_do republish_written(enum cluster_answer answer, bool still_held, bool closing);

/* ---- reconcile.c: all that this node holds against the index ---- */

/* The index has been read as a whole: ends kept for us, then records that name us, then what we
 * hold. */
enum reconcile_phase { RECONCILE_ENDS, RECONCILE_RECORDS, RECONCILE_HELD };
struct generation_set {
    uint64_t *slots; /* 0 = free; a power of two, at least twice as many as generations */
    unsigned bits;
};
struct reconciling {
    size_t at, ends, records;    /* how far it has come in the ends, then in the records */
    struct generation_set named; /* generations that are held and named by a record */
    size_t held, retired, checked, removed;
};

/* False: out of memory. Whatever was under way is void. */
bool reconcile_begin(struct reconciling *reconciling, size_t ends, size_t records);
void reconcile_end(struct reconciling *reconciling);
enum reconcile_phase reconcile_phase(const struct reconciling *reconciling);
/* The next of the ends, or of the records; to be called in that phase. */
size_t reconcile_next(struct reconciling *reconciling);
/* Word of the end of `ended` was kept for us, and `held` is resident (0 = nothing): is it to be
 * retired? */
bool reconcile_ends(uint64_t held, uint64_t ended);
enum reconcile_do { RECONCILE_LEAVE, RECONCILE_REMOVE };
/* A record names this node as home of `recorded`, and `held` of that sample is resident (0 =
 * nothing). */
enum reconcile_do reconcile_record(struct reconciling *reconciling, uint64_t held,
                                   uint64_t recorded, bool put_under_way);
/* A generation is resident here: true if it is to be checked, for no record names it. */
bool reconcile_held(struct reconciling *reconciling, uint64_t held);

/* ---- audit.c: for an admin ---- */

/* The numbers are those of Fb__Finding. */
enum audit_finding {
    AUDIT_AGREES,           /* nothing is wrong */
    AUDIT_MOVING,           /* a change is on its way: look again */
    AUDIT_HOME_DEAD,        /* the record's home incarnation is dead */
    AUDIT_NOT_HELD,         /* a home that lives does not hold what its record names */
    AUDIT_NOT_RECORDED,     /* held, and the index has no record */
    AUDIT_REPLACED,         /* held, and the record names another node's generation */
    AUDIT_OTHER_GENERATION, /* held, and the node's own record names another generation */
    AUDIT_NOT_CHECKED,      /* somebody could not be asked */
    AUDIT_FINDINGS
};

/* What a node holds of a sample at one moment. */
struct audit_facts {
    uint64_t held; /* the RESIDENT generation at home there, 0 = none */
    bool moving;   /* a put, or a write of its record, is under way */
};
struct audit_record {
    const char *home;
    uint64_t generation, incarnation;
};

/* before, after: this node's facts around the reading of the record, so that what did not change in
 * between is known to have held while it was read. node, incarnation: whose facts they are. record:
 * valid with READING_RECORD and READING_LOST. */
enum audit_finding cluster_audit_judge(const struct audit_facts *before,
                                       const struct audit_facts *after,
                                       enum cluster_reading reading,
                                       const struct audit_record *record, const char *node,
                                       uint64_t incarnation);
/* The same without a node: is the record's home dead? */
enum audit_finding cluster_audit_judge_record(enum cluster_reading reading);
/* What is wrong: one sentence. record NULL = none. */
void cluster_audit_say(char *out, size_t out_bytes, enum audit_finding finding, const char *store,
                       const char *sample_id, const char *node, uint64_t held,
                       const struct audit_record *record);
/* What a repair does about it, in words; "" = nothing. */
void cluster_audit_say_remedy(char *out, size_t out_bytes, enum audit_finding finding,
                              const char *node);

/* What a repair does. */
enum audit_remedy {
    AUDIT_NOTHING,
    AUDIT_SWEEP,         /* remove the record of a home that is dead */
    AUDIT_REMOVE,        /* remove our record */
    AUDIT_PUBLISH,       /* write our record where there is none */
    AUDIT_PUBLISH_OVER,  /* write our record in place of the one that stands */
    AUDIT_COMPARE_HOMES, /* check the sample on our own behalf: the record's home is asked */
};
enum audit_remedy cluster_audit_remedy(enum audit_finding finding);

/* ---- search.c: one get ---- */

/* Drawn in search.c. */
enum search_state {
    SEARCH_NEW,
    SEARCH_TRY_REF,  /* this node's store is asked for the generation of a ref */
    SEARCH_TRY_ID,   /* the same for whatever stands under an id */
    SEARCH_TRY_OURS, /* the same for what the index says is ours */
    SEARCH_HERE,     /* nothing but a wait in this node's own store is left */
    SEARCH_INDEX,    /* the directory is asked who has the id */
    SEARCH_HOME,     /* the home that the ref names is asked for a lease */
    SEARCH_NAMED,    /* the home that the index has named is asked */
    SEARCH_ANYWHERE, /* every peer is asked */
    SEARCH_LANDING,  /* a home has granted a lease, and the bytes are on their way */
    SEARCH_COPY,     /* the bytes are here, and their copy becomes resident at once */
    SEARCH_OVER,
    SEARCH_STATES
};

enum search_event {
    /* It begins, with: */
    SEARCH_ON_REF_HERE,      /* a generation whose home is this node */
    SEARCH_ON_REF_ELSEWHERE, /* one whose home is another node */
    SEARCH_ON_ID,            /* an id alone */
    /* This node's own store says at once: */
    SEARCH_ON_GRANTED, /* here is a lease */
    SEARCH_ON_QUEUED,  /* not now; you will be told */
    SEARCH_ON_MISSING, /* there is none */
    SEARCH_ON_REFUSED, /* no, for another reason: a limit, for example */
    SEARCH_ON_FENCED,  /* what is here may have been superseded elsewhere */
    /* The store says after a wait: */
    SEARCH_ON_RESIDENT,  /* it has come, and here is a lease */
    SEARCH_ON_WAIT_OVER, /* it has not come in time, or the wait was ended */
    /* The directory says: */
    SEARCH_ON_NAMES_OTHER,  /* another node has it, which lives */
    SEARCH_ON_NAMES_US,     /* this node has it */
    SEARCH_ON_NAMES_DEAD,   /* a node had it that is gone with its memory */
    SEARCH_ON_NAMES_NOBODY, /* there is no record, or the one that is known to be out of date */
    SEARCH_ON_CANNOT_NAME,  /* it knows no samples, or the sample may still be put anywhere */
    SEARCH_ON_INDEX_DOWN,   /* nothing: it cannot be reached */
    /* A node that was asked for a lease says: */
    SEARCH_ON_LEASED,    /* here it is */
    SEARCH_ON_NOT_FOUND, /* I do not have it */
    SEARCH_ON_SAID_NO,   /* no, for another reason */
    SEARCH_ON_ODD,       /* something that is no answer to the question */
    SEARCH_ON_UNHEARD,   /* nothing: the link to it was lost */
    SEARCH_ON_NOT_ASKED, /* nothing: nobody could be asked at all */
    /* The bytes: */
    SEARCH_ON_LANDED,
    SEARCH_ON_NOT_LANDED,
    /* The pause after SEARCH_DO_ASK_LATER is over. */
    SEARCH_ON_AGAIN,
    SEARCH_EVENTS
};

/* What the shell does next. All but GRANT and END_... are followed by one more event at least. */
enum search_do {
    SEARCH_DO_NOTHING,
    SEARCH_DO_TRY_HERE,        /* ask this node's store */
    SEARCH_DO_ASK_INDEX,       /* ask the directory who has the id */
    SEARCH_DO_ASK_INDEX_AGAIN, /* the same; what it named before is gone */
    SEARCH_DO_ASK_HOME,        /* ask the node that the ref, or the record, names for a lease */
    SEARCH_DO_ASK_ALL,         /* ask every peer for a lease by id */
    SEARCH_DO_ASK_LATER,       /* let go of what was leased, and ask that node after a pause */
    SEARCH_DO_LAND,            /* bring the bytes here, once for all who want them */
    SEARCH_DO_LEASE_COPY,      /* take a lease on the landing copy */
    SEARCH_DO_GRANT,           /* the get has its lease */
    SEARCH_DO_END_MISSING,     /* not found, as this node knows it */
    SEARCH_DO_END_ABSENT,      /* not found, as whoever had it last has said */
    SEARCH_DO_END_REFUSED,     /* what this node's store has said */
    SEARCH_DO_END_FENCED,
    SEARCH_DO_END_RECORD_LOST,
    SEARCH_DO_END_INDEX_DOWN,
    SEARCH_DO_END_AS_SAID,   /* what the node has said that was asked */
    SEARCH_DO_END_ODD,       /* that the node's answer is not believed */
    SEARCH_DO_END_UNHEARD,   /* which node cannot be reached */
    SEARCH_DO_END_NOT_ASKED, /* why nobody could be asked */
    SEARCH_DO_END_NOT_LANDED,
    SEARCH_DO_END_COPY_GONE
};

/* What holds at the moment of an event. */
struct search_facts {
    bool more_answers; /* nodes were asked, or the directory, that have not answered yet */
    bool waits_here;   /* the get stands in the queue of this node's own store */
    bool unheard;      /* a node that may have the sample could not be asked */
    bool returns;      /* the node that was asked, or read from, was there a moment ago */
};

/* One step: changes *state, and says what is to be done. An event that means nothing in this state
 * changes nothing. */
enum search_do search_step(enum search_state *state, enum search_event event,
                           const struct search_facts *facts);

/* ---- own_name.c: another incarnation has this node's name in the index ---- */

#define OWN_NAME_ADDRESS_BYTES 256u

enum own_name_state {
    OWN_NAME_FREE = 0, /* nobody else has it */
    OWN_NAME_ASKED,    /* the broker at the record's address is being asked */
    OWN_NAME_RESTART,  /* that incarnation does not answer: it was this node before a restart */
    OWN_NAME_STANDS,   /* ... and its record has outlived its lease */
    OWN_NAME_TWIN      /* it answers: two brokers of this name live, and it was there first */
};

/* What is known of the broker at the record's address. */
enum own_name_answer {
    OWN_NAME_UNKNOWN, /* it is still being asked */
    OWN_NAME_NOBODY,  /* none answers there, or there is no address */
    OWN_NAME_ONE      /* a broker does, of some incarnation */
};

enum own_name_do {
    OWN_NAME_DO_NOTHING,
    OWN_NAME_DO_ASK,          /* ask at the address, and give the answers to own_name_answered() */
    OWN_NAME_DO_TELL_FREED,   /* this node is a member now */
    OWN_NAME_DO_TELL_RESTART, /* nobody of that incarnation lives */
    OWN_NAME_DO_TELL_STANDS,  /* the record should have ended by now */
    OWN_NAME_DO_TELL_TWIN     /* two brokers of this name live */
};

struct own_name {
    enum own_name_state state;
    uint64_t incarnation; /* the other one; as that of the last one also while FREE */
    uint64_t outlived_ns; /* after this its record should have ended */
    char address[OWN_NAME_ADDRESS_BYTES];
};

/* The index says so. ttl_ns: of the leases of records of nodes. */
enum own_name_do own_name_taken(struct own_name *name, const char *address, uint64_t incarnation,
                                uint64_t now_ns, uint64_t ttl_ns);
/* The record of the other incarnation is gone. */
enum own_name_do own_name_freed(struct own_name *name);
/* To be called in every turn of the loop. incarnation: of OWN_NAME_ONE. */
enum own_name_do own_name_answered(struct own_name *name, enum own_name_answer answer,
                                   uint64_t incarnation, uint64_t now_ns);

/* ---- dead_homes.c: whose records may be removed ---- */

struct dead_homes {
    TAILQ_HEAD(, dead_home) list;
    uint64_t look; /* the number of the last one */
};

void dead_homes_init(struct dead_homes *homes);
void dead_homes_begin_look(struct dead_homes *homes);
/* The look has found a record of this home, which is no member. True: every look of keep_ns has
 * found it dead, so the record may go. */
bool dead_homes_come_upon(struct dead_homes *homes, const char *node, uint64_t incarnation,
                          uint64_t now_ns, uint64_t keep_ns);
/* The whole index has been looked through. */
void dead_homes_end_look(struct dead_homes *homes);
/* Frees all, and counts anew. */
void dead_homes_forget(struct dead_homes *homes);

#endif
