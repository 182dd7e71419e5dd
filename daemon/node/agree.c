/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store.h knows nothing of protobuf and has enums of its own for what goes over the wire.
 * They have the same numbers, and the layers above cast from one to the other. Here the compiler
 * sees that they agree; tests/unit/enums_agree.c sees that none has been left out. (What feature.h
 * has is in libclient/agree.c, what the configuration has in config.c.)
 */
#include <assert.h>

#include "client.pb-c.h"
#include "store/store.h"

#define AGREE(ours, theirs) static_assert((int)(ours) == (int)(theirs), #ours " and " #theirs)

/* A slot that is free holds nothing that anybody could have seen. */
AGREE(STORE_FREE, FB__SAMPLE_STATE__NEVER_SEEN);
AGREE(STORE_PLANNED, FB__SAMPLE_STATE__PLANNED);
AGREE(STORE_SEALED, FB__SAMPLE_STATE__SEALED);
AGREE(STORE_RESIDENT, FB__SAMPLE_STATE__RESIDENT);
AGREE(STORE_RETIRED, FB__SAMPLE_STATE__RETIRED);
AGREE(STORE_GONE, FB__SAMPLE_STATE__GONE);

AGREE(STORE_REASON_NONE, FB__REASON__NONE);
AGREE(STORE_CONSUMED, FB__REASON__CONSUMED);
AGREE(STORE_ACKED, FB__REASON__ACKED);
AGREE(STORE_ABORTED, FB__REASON__ABORTED);
AGREE(STORE_SUPERSEDED, FB__REASON__SUPERSEDED);
AGREE(STORE_MAX_HOLD, FB__REASON__MAX_HOLD);
AGREE(STORE_DROPPED, FB__REASON__DROPPED);
AGREE(STORE_CANCELLED, FB__REASON__CANCELLED);
AGREE(STORE_PRODUCER_DIED, FB__REASON__PRODUCER_DIED);
AGREE(STORE_UNCACHED, FB__REASON__UNCACHED);
AGREE(STORE_FETCH_FAILED, FB__REASON__FETCH_FAILED);
AGREE(STORE_RESERVE_ENDED, FB__REASON__RESERVE_ENDED);

AGREE(STORE_ON_RELEASE, FB__POLICY__ON_RELEASE);
AGREE(STORE_ON_ACK, FB__POLICY__ON_ACK);
AGREE(STORE_RETAIN, FB__POLICY__RETAIN);
