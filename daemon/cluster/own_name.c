/* SPDX-License-Identifier: Apache-2.0
 *
 * The index has a record of this node's name that is another incarnation's. Is that another broker
 * that lives (a twin), or this node itself from before a restart? The broker at the address of that
 * record is asked.
 *
 *   state    event                                     -> state    what is to be done
 *   any      taken: by an incarnation not asked yet       ASKED    ask at its address
 *   not FREE freed: the record is gone                    FREE     tell
 *   ASKED    answered: that incarnation lives there       TWIN     tell that there are two
 *   ASKED    answered: nobody, or another one             RESTART  tell
 *   RESTART  answered: that incarnation lives there       TWIN     tell that there are two
 *   RESTART  the record has outlived its lease            STANDS   tell
 *   STANDS   answered: that incarnation lives there       TWIN     tell that there are two
 *   TWIN     answered: that incarnation lives there       TWIN     tell that there are two
 *   TWIN     answered: not known yet                      TWIN     tell that there are two
 *   TWIN     answered: nobody, or another one             RESTART  tell
 *
 * STANDS: a lease of etcd ends by itself when its broker is dead, so either somebody whom we cannot
 * reach keeps the record alive, or etcd has it from a backup. In any case this node joins when the
 * record is gone, and not before: whoever made it may still serve until then. As a TWIN this node
 * takes no puts and serves no gets, because other nodes that read the name mean the other broker.
 */
#include <stdio.h>
#include <string.h>

#include "cluster/cluster.h"

/* A record that stands for so many times the lease's time to live does not end by itself. More than
 * one, because the other broker may have renewed its lease just before it died, and etcd may be
 * slow to end it after a change of its leader. */
#define OUTLIVED_TTLS 3

enum own_name_do own_name_taken(struct own_name *name, const char *address, uint64_t incarnation,
                                uint64_t now_ns, uint64_t ttl_ns) {
    if (name->state != OWN_NAME_FREE && name->incarnation == incarnation &&
        !strcmp(name->address, address))
        return OWN_NAME_DO_NOTHING;
    *name = (struct own_name){.state = OWN_NAME_ASKED,
                              .incarnation = incarnation,
                              .outlived_ns = now_ns + OUTLIVED_TTLS * ttl_ns};
    snprintf(name->address, sizeof name->address, "%s", address);
    return OWN_NAME_DO_ASK;
}

enum own_name_do own_name_freed(struct own_name *name) {
    const bool was_taken = name->state != OWN_NAME_FREE;
    name->state = OWN_NAME_FREE;
    return was_taken ? OWN_NAME_DO_TELL_FREED : OWN_NAME_DO_NOTHING;
}

enum own_name_do own_name_answered(struct own_name *name, enum own_name_answer answer,
                                   uint64_t incarnation, uint64_t now_ns) {
    if (name->state == OWN_NAME_FREE)
        return OWN_NAME_DO_NOTHING;
    if (answer == OWN_NAME_ONE && incarnation == name->incarnation) {
        name->state = OWN_NAME_TWIN;
        return OWN_NAME_DO_TELL_TWIN;
    }
    if (name->state == OWN_NAME_TWIN && answer == OWN_NAME_UNKNOWN)
        return OWN_NAME_DO_TELL_TWIN; /* it is being asked again */
    if (answer != OWN_NAME_UNKNOWN &&
        (name->state == OWN_NAME_ASKED || name->state == OWN_NAME_TWIN)) {
        name->state = OWN_NAME_RESTART;
        return OWN_NAME_DO_TELL_RESTART;
    }
    if (name->state == OWN_NAME_RESTART && now_ns > name->outlived_ns) {
        name->state = OWN_NAME_STANDS;
        return OWN_NAME_DO_TELL_STANDS;
    }
    return OWN_NAME_DO_NOTHING;
}
