/* SPDX-License-Identifier: Apache-2.0
 *
 * Is a sample resident? Asked now, answered later: a put asks first, copies, and looks at the
 * answer before its sample becomes visible. So the way to the other nodes, which a broker asks
 * where it has no such sample itself, costs no time of its own.
 *
 *    fc_probe_begin() --> asked --fc_probe_end()--> answered --fc_probe_drop()--> gone
 *                               --fc_probe_drop()--> gone
 */
#ifndef FEATURED_LIBCLIENT_PROBE_H
#define FEATURED_LIBCLIENT_PROBE_H

#include "request.h"

/* Points into itself: not to be moved. */
struct fc_probe {
    Fb__RetireItem item, *items;
    Fb__Stat stat;
    struct fc_request request;
    bool answered;
    int found; /* what fc_probe_end() has said */
};

/* Does not wait. The id is borrowed until fc_probe_end() or fc_probe_drop(). `what` is the caller's
 * word for sentences. */
void fc_probe_begin(struct fc_probe *probe, struct feature_store *store, const char *sample_id,
                    const char *what);
/* Whether fc_probe_end() would not wait. */
bool fc_probe_has_answer(const struct fc_probe *probe);
/* Waits for the answer. FEATURE_E_EXISTS: it is resident. FEATURE_OK: it is not, or was lost with
 * its node. Else it could not be found out. May be called again, and says the same. */
int fc_probe_end(struct fc_probe *probe);
void fc_probe_drop(struct fc_probe *probe);

#endif
