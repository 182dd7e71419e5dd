/* SPDX-License-Identifier: Apache-2.0
 *
 * What a configuration that was read again changes in a running broker. Pure.
 */
#ifndef FEATURED_CONFIG_RELOAD_H
#define FEATURED_CONFIG_RELOAD_H

#include "config.h"

struct config_change {
    bool taken;       /* in force from now on; else it takes a restart */
    const char *what; /* "[local] allow_uids", "[store run0]" */
    const char *from, *to;
};

/* Takes what can change into `running`, leaves there what takes a restart, and tells of every
 * difference between the two, one call each. running's stores stay the ones that they are; its
 * peers, which are its own memory, may become more. True if anything is different. */
bool config_reload(struct config *running, const struct config *wanted,
                   void (*tell)(void *context, const struct config_change *change), void *context);

#endif
