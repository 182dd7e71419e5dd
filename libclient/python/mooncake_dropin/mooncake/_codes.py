# SPDX-License-Identifier: Apache-2.0
"""The numbers that Mooncake's functions return, and which of them a status of featured becomes.

Programs that were written for Mooncake act on the number alone: on -704 they go on without the
object, on -200 they wait and put again, on -800 they sleep and try again. So each status becomes
the number whose usual reaction is the right one. -706 (the object has a lease) and -707 (it is not
ready) do not occur: a remove works while others read, and an object is visible only when it is
complete.
"""

from __future__ import annotations

import logging

from feature_broker._errors import FeatureError, text
from feature_broker._feature import lib
from feature_broker._interrupts import raise_interrupt

logger = logging.getLogger("mooncake")

OK = 0
INTERNAL_ERROR = -1
"""A fault of featured itself."""
NO_AVAILABLE_HANDLE = -200
"""The store is full, and stayed so while the call waited."""
INVALID_PARAMS = -600
"""A bad key, size or argument, or a store that is not set up or was closed."""
OBJECT_NOT_FOUND = -704
"""There is no such object, or it was lost with its node."""
TRANSFER_FAIL = -800
"""A node or the broker was out of reach, or too slow. Trying again may help."""
CHECKSUM_MISMATCH = -801
"""The bytes are damaged, also after a second read."""

_GET = {
    int(lib.FEATURE_OK): OK,
    int(lib.FEATURE_E_INVALID): INVALID_PARAMS,
    int(lib.FEATURE_E_DENIED): INVALID_PARAMS,
    int(lib.FEATURE_E_NOT_FOUND): OBJECT_NOT_FOUND,
    int(lib.FEATURE_E_EXISTS): INVALID_PARAMS,
    # No room here for a copy from another node: it comes back as soon as others have read theirs.
    int(lib.FEATURE_E_FULL): TRANSFER_FAIL,
    int(lib.FEATURE_E_TIMEOUT): TRANSFER_FAIL,
    int(lib.FEATURE_E_UNAVAILABLE): TRANSFER_FAIL,
    int(lib.FEATURE_E_LOST): OBJECT_NOT_FOUND,
    int(lib.FEATURE_E_CORRUPT): CHECKSUM_MISMATCH,
    int(lib.FEATURE_E_UNSUPPORTED): INVALID_PARAMS,
}
_PUT = {**_GET, int(lib.FEATURE_E_FULL): NO_AVAILABLE_HANDLE}


def of_get(status: int, what: str, sentence: str | None = None) -> int:
    """The code for a status of libfeature. What a number cannot tell goes to the log.

    sentence: None stands for what libfeature says of this thread's last failed call.
    """
    return _tell(_GET.get(status, INTERNAL_ERROR), what, sentence)


def of_put(status: int, what: str, sentence: str | None = None) -> int:
    """The same for puts, in which FULL has a number of its own."""
    return _tell(_PUT.get(status, INTERNAL_ERROR), what, sentence)


def of_error(error: FeatureError, what: str) -> int:
    """The code for an exception of feature_broker."""
    return of_put(int(getattr(lib, "FEATURE_E_" + error.status)), what, error.sentence)


def _tell(code: int, what: str, sentence: str | None) -> int:
    """Absent objects are usual: pollers ask for them many times a second."""
    if code not in (OK, OBJECT_NOT_FOUND):
        raise_interrupt()  # Ctrl-C has ended the call
        if sentence is None:
            sentence = text(lib.feature_last_error())
        logger.warning("%s: %d: %s", what, code, sentence)
    return code


def refuse(what: str, sentence: str) -> int:
    """-600, with the reason in the log."""
    logger.warning("%s: %d: %s", what, INVALID_PARAMS, sentence)
    return INVALID_PARAMS
