/* SPDX-License-Identifier: Apache-2.0
 *
 * The search of one get for a generation that may be read, and for its bytes.
 *
 * Why it is more than a look into a table. A generation at home here is leased at once. One that
 * another node holds must be leased there first, each time, for its home alone knows whether it may
 * be read; then its bytes are landed here. And a get by id alone does not know the home: it looks
 * here, then in the index, then at the home that the index names. Between two of these looks the
 * sample may be put anew on another node, so what the index named and is gone is looked for again.
 * Where no index can name a home (`directory = static`), every peer is asked at once.
 *
 *              a ref of another node                    the home granted
 *     NEW ---------------------------------> HOME --------------------------> LANDING
 *      |  a ref of this node                                                  ^  |  the bytes are
 *      |----------------> TRY_REF --waits--> HERE                             |  |  here
 *      |  an id alone                         ^                               |  v
 *      `----------------> TRY_ID              | the index names nobody        | COPY, then OVER
 *                           | not here, or    |                               |
 *                           v waits here      |                               |
 *                         INDEX --------------+                               |
 *                         ^  |  |  |  another node                            |
 *                         |  |  |  `--------------> NAMED --------------------+
 *           it is gone    |  |  |  nobody can name                            |
 *           there, or here|  |  `-----------------> ANYWHERE -----------------+
 *                         |  |  this node
 *                         |  `--------------------> TRY_OURS --waits--> HERE
 *                         `---- from NAMED and TRY_OURS
 *
 * From every state the search may end (OVER) with a lease or with a refusal. Two things go on
 * beside the states:
 *
 * - A get that waits for a sample which is not yet put (wait_ms) stands in the queue of this node's
 *   own store while the index, the named home or all peers are asked: `waits_here`. Whichever has
 *   the sample first ends the search. When the others have said no, that wait alone is left: HERE.
 * - In ANYWHERE several answers are awaited. That no node has the sample is known only when all
 *   have said so: `more_answers`, and `unheard` when one of them could not be asked.
 *
 * A home whose broker is killed and started again with its memory is back after a moment, with all
 * that it held. So when the link to a home is lost that was heard a moment ago, the get does not
 * end: after a pause it asks that home again, until its own time is over (SEARCH_IF_RETURNS). A
 * generation that was found for an id, and whose bytes did not come, is not asked for again.
 *
 * A row of the table below says: in this state, on this event, if this holds, go there and do that.
 * The first row that fits is taken. An event without a row changes nothing: for example, an answer
 * that comes when the search is over.
 */
#include "cluster/cluster.h"

enum search_when {
    SEARCH_ALWAYS,
    SEARCH_IF_MORE,    /* others who were asked have not answered yet */
    SEARCH_IF_WAITS,   /* the store of this node may still have it */
    SEARCH_IF_UNHEARD, /* somebody who may have it could not be asked */
    SEARCH_IF_RETURNS, /* the link to the home was lost, and the home was there a moment ago */
};

struct search_row {
    enum search_state state;
    enum search_event event;
    enum search_when when;
    enum search_state next;
    enum search_do what;
};

static const struct search_row search_rows[] = {
    /* The ways to begin. */
    {SEARCH_NEW, SEARCH_ON_REF_HERE, SEARCH_ALWAYS, SEARCH_TRY_REF, SEARCH_DO_TRY_HERE},
    {SEARCH_NEW, SEARCH_ON_ID, SEARCH_ALWAYS, SEARCH_TRY_ID, SEARCH_DO_TRY_HERE},
    {SEARCH_NEW, SEARCH_ON_REF_ELSEWHERE, SEARCH_ALWAYS, SEARCH_HOME, SEARCH_DO_ASK_HOME},

    /* This node's own store has answered. A ref that names this node as the home is looked for
     * nowhere else: no other node can know it. */
    {SEARCH_TRY_REF, SEARCH_ON_GRANTED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_TRY_REF, SEARCH_ON_QUEUED, SEARCH_ALWAYS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_TRY_REF, SEARCH_ON_MISSING, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_MISSING},
    {SEARCH_TRY_REF, SEARCH_ON_REFUSED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_REFUSED},
    {SEARCH_TRY_ID, SEARCH_ON_GRANTED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_TRY_ID, SEARCH_ON_QUEUED, SEARCH_ALWAYS, SEARCH_INDEX, SEARCH_DO_ASK_INDEX},
    {SEARCH_TRY_ID, SEARCH_ON_MISSING, SEARCH_ALWAYS, SEARCH_INDEX, SEARCH_DO_ASK_INDEX},
    {SEARCH_TRY_ID, SEARCH_ON_REFUSED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_REFUSED},
    {SEARCH_TRY_OURS, SEARCH_ON_GRANTED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_TRY_OURS, SEARCH_ON_QUEUED, SEARCH_ALWAYS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_TRY_OURS, SEARCH_ON_MISSING, SEARCH_ALWAYS, SEARCH_INDEX, SEARCH_DO_ASK_INDEX_AGAIN},
    {SEARCH_TRY_OURS, SEARCH_ON_REFUSED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_REFUSED},

    /* The index has answered. A generation of ours that is not resident yet, while this get stands
     * in our queue for the id, ends that wait when it becomes resident. */
    {SEARCH_INDEX, SEARCH_ON_NAMES_OTHER, SEARCH_ALWAYS, SEARCH_NAMED, SEARCH_DO_ASK_HOME},
    {SEARCH_INDEX, SEARCH_ON_NAMES_US, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_INDEX, SEARCH_ON_NAMES_US, SEARCH_ALWAYS, SEARCH_TRY_OURS, SEARCH_DO_TRY_HERE},
    {SEARCH_INDEX, SEARCH_ON_CANNOT_NAME, SEARCH_ALWAYS, SEARCH_ANYWHERE, SEARCH_DO_ASK_ALL},
    {SEARCH_INDEX, SEARCH_ON_NAMES_DEAD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_RECORD_LOST},
    {SEARCH_INDEX, SEARCH_ON_INDEX_DOWN, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_INDEX, SEARCH_ON_INDEX_DOWN, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_INDEX_DOWN},
    {SEARCH_INDEX, SEARCH_ON_NAMES_NOBODY, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_INDEX, SEARCH_ON_NAMES_NOBODY, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_ABSENT},

    /* The home that the ref names. */
    {SEARCH_HOME, SEARCH_ON_LEASED, SEARCH_ALWAYS, SEARCH_LANDING, SEARCH_DO_LAND},
    {SEARCH_HOME, SEARCH_ON_ODD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_ODD},
    {SEARCH_HOME, SEARCH_ON_NOT_FOUND, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_AS_SAID},
    {SEARCH_HOME, SEARCH_ON_SAID_NO, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_AS_SAID},
    {SEARCH_HOME, SEARCH_ON_UNHEARD, SEARCH_IF_RETURNS, SEARCH_HOME, SEARCH_DO_ASK_LATER},
    {SEARCH_HOME, SEARCH_ON_AGAIN, SEARCH_ALWAYS, SEARCH_HOME, SEARCH_DO_ASK_HOME},
    {SEARCH_HOME, SEARCH_ON_UNHEARD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_UNHEARD},
    {SEARCH_HOME, SEARCH_ON_NOT_ASKED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_NOT_ASKED},

    /* The home that the index named. */
    {SEARCH_NAMED, SEARCH_ON_LEASED, SEARCH_ALWAYS, SEARCH_LANDING, SEARCH_DO_LAND},
    {SEARCH_NAMED, SEARCH_ON_ODD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_ODD},
    {SEARCH_NAMED, SEARCH_ON_NOT_FOUND, SEARCH_ALWAYS, SEARCH_INDEX, SEARCH_DO_ASK_INDEX_AGAIN},
    {SEARCH_NAMED, SEARCH_ON_SAID_NO, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_NAMED, SEARCH_ON_SAID_NO, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_AS_SAID},
    {SEARCH_NAMED, SEARCH_ON_UNHEARD, SEARCH_IF_RETURNS, SEARCH_NAMED, SEARCH_DO_ASK_LATER},
    {SEARCH_NAMED, SEARCH_ON_AGAIN, SEARCH_ALWAYS, SEARCH_NAMED, SEARCH_DO_ASK_HOME},
    {SEARCH_NAMED, SEARCH_ON_UNHEARD, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_NAMED, SEARCH_ON_UNHEARD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_UNHEARD},
    {SEARCH_NAMED, SEARCH_ON_NOT_ASKED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_NOT_ASKED},

    /* Every peer. The first that grants wins; who grants later gets its lease back. */
    {SEARCH_ANYWHERE, SEARCH_ON_LEASED, SEARCH_ALWAYS, SEARCH_LANDING, SEARCH_DO_LAND},
    {SEARCH_ANYWHERE, SEARCH_ON_ODD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_ODD},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_FOUND, SEARCH_IF_MORE, SEARCH_ANYWHERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_FOUND, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_FOUND, SEARCH_IF_UNHEARD, SEARCH_OVER, SEARCH_DO_END_UNHEARD},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_FOUND, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_MISSING},
    {SEARCH_ANYWHERE, SEARCH_ON_SAID_NO, SEARCH_IF_MORE, SEARCH_ANYWHERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_SAID_NO, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_SAID_NO, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_AS_SAID},
    {SEARCH_ANYWHERE, SEARCH_ON_UNHEARD, SEARCH_IF_MORE, SEARCH_ANYWHERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_UNHEARD, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_UNHEARD, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_UNHEARD},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_ASKED, SEARCH_IF_WAITS, SEARCH_HERE, SEARCH_DO_NOTHING},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_ASKED, SEARCH_IF_UNHEARD, SEARCH_OVER, SEARCH_DO_END_NOT_ASKED},
    {SEARCH_ANYWHERE, SEARCH_ON_NOT_ASKED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_MISSING},

    /* The wait in this node's own store has ended. Its end without the sample matters only when
     * nobody else is asked any more. */
    {SEARCH_HERE, SEARCH_ON_RESIDENT, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_INDEX, SEARCH_ON_RESIDENT, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_NAMED, SEARCH_ON_RESIDENT, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_ANYWHERE, SEARCH_ON_RESIDENT, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_HERE, SEARCH_ON_WAIT_OVER, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_REFUSED},
    /* A sample that this node holds has become resident, but the node is fenced: another node may
     * have replaced the sample meanwhile, so that it must not be read. */
    {SEARCH_HERE, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_INDEX, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_NAMED, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_ANYWHERE, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_TRY_REF, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_TRY_ID, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},
    {SEARCH_TRY_OURS, SEARCH_ON_FENCED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_FENCED},

    /* A home has granted. A landing copy may be here already, be on its way, or be begun now. */
    {SEARCH_LANDING, SEARCH_ON_LANDED, SEARCH_ALWAYS, SEARCH_LANDING, SEARCH_DO_LEASE_COPY},
    {SEARCH_LANDING, SEARCH_ON_GRANTED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_LANDING, SEARCH_ON_QUEUED, SEARCH_ALWAYS, SEARCH_COPY, SEARCH_DO_NOTHING},
    {SEARCH_LANDING, SEARCH_ON_MISSING, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_COPY_GONE},
    {SEARCH_LANDING, SEARCH_ON_REFUSED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_REFUSED},
    {SEARCH_LANDING, SEARCH_ON_NOT_LANDED, SEARCH_IF_RETURNS, SEARCH_HOME, SEARCH_DO_ASK_LATER},
    {SEARCH_LANDING, SEARCH_ON_NOT_LANDED, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_NOT_LANDED},
    {SEARCH_COPY, SEARCH_ON_RESIDENT, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_GRANT},
    {SEARCH_COPY, SEARCH_ON_WAIT_OVER, SEARCH_ALWAYS, SEARCH_OVER, SEARCH_DO_END_COPY_GONE},
};

static bool search_holds(enum search_when when, const struct search_facts *facts) {
    switch (when) {
    case SEARCH_IF_MORE:
        return facts->more_answers;
    case SEARCH_IF_WAITS:
        return facts->waits_here;
    case SEARCH_IF_UNHEARD:
        return facts->unheard;
    case SEARCH_IF_RETURNS:
        return facts->returns;
    case SEARCH_ALWAYS:
        break;
    }
    return true;
}

enum search_do search_step(enum search_state *state, enum search_event event,
                           const struct search_facts *facts) {
    for (size_t i = 0; i < sizeof search_rows / sizeof *search_rows; i++) {
        const struct search_row *row = &search_rows[i];
        if (row->state == *state && row->event == event && search_holds(row->when, facts)) {
            *state = row->next;
            return row->what;
        }
    }
    return SEARCH_DO_NOTHING;
}
