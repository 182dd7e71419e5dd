# SPDX-License-Identifier: Apache-2.0
"""Which objects there are, on all nodes: for remove_all() and remove_by_regex().

The broker of this node lists its own objects. For those of the other nodes there is featurectl,
which asks every member of the cluster.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from feature_broker import Unavailable
from feature_broker._feature import lib
from feature_broker._programs import find_program

from . import _keys, _objects

if TYPE_CHECKING:
    from ._node import Connection
    from ._objects import Objects

LIST_S = 60.0


def keys(objects: "Objects", connection: "Connection") -> list[str]:
    """Every key that is live now. Raises FeatureError when nobody can be asked."""
    found = {stat.sample_id for stat in connection.store.list()}
    found.update(_listed_by_featurectl(connection))
    return [key for sample_id in sorted(found) if (key := _full(objects, sample_id)) is not None]


def _listed_by_featurectl(connection: "Connection") -> list[str]:
    command = [find_program("featurectl"), "samples", "--json", "--store", connection.store.name]
    if connection.client.socket_path is not None:
        command += ["--socket", connection.client.socket_path]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=LIST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the objects of the other nodes cannot be listed: {error}") from None
    found = []
    for line in said.stdout.splitlines():
        sample = json.loads(line)
        if sample.get("state") == "resident":
            found.append(str(sample["sample_id"]))
    return found


def _full(objects: "Objects", sample_id: str) -> str | None:
    """The key of an object; None when it has gone meanwhile."""
    encoded = sample_id.encode()
    if _keys.make(sample_id) == (encoded, b""):
        return sample_id
    status, ref = objects.stat(_keys.Key(encoded, b""))
    if ref is None:
        return None
    key = _keys.full(sample_id, _objects.metadata_of(ref))
    lib.feature_ref_free(ref)
    return key
