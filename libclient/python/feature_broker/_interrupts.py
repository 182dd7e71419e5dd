# SPDX-License-Identifier: Apache-2.0
"""Signals during a call that waits in C, such as Ctrl-C.

Python runs the handlers of signals between its own steps, and there are none while a put waits for
room or a get for its bytes. So libfeature asks now and then, in the thread that waits, whether its
caller is interrupted (feature_options.interrupted):

    a signal --> python_interrupted() --> its handler runs; it raises --> noted for this thread
        --> the call in C ends with a status --> failure() raises what was noted in its place

A handler that raises nothing changes nothing: the call waits on.
"""

from __future__ import annotations

import threading
from typing import Any

from ._feature import ffi

_raised: dict[int, BaseException] = {}  # by thread: what a handler raised during a call in C


def _note(kind: Any, error: BaseException, trace: Any) -> bool:
    """cffi calls this with what python_interrupted() raised."""
    _raised[threading.get_ident()] = error
    return True


@ffi.def_extern(error=True, onerror=_note)  # type: ignore[untyped-decorator, unused-ignore]
def python_interrupted() -> bool:
    """libfeature calls this with the GIL taken, through binding.c."""
    for _ in range(2):
        pass  # at the end of each turn Python runs the handlers of signals that have come
    return threading.get_ident() in _raised


def raise_interrupt() -> None:
    """Raises what a handler raised during the last call of this thread, if one did."""
    if _raised:
        error = _raised.pop(threading.get_ident(), None)
        if error is not None:
            raise error
