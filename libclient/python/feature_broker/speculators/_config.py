# SPDX-License-Identifier: Apache-2.0
"""What both ends of a transfer of hidden states must agree upon, and how each reaches its broker."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any, Mapping, Optional

from .._attachment import StoreSettings
from .._naming import store_name_of

logger = logging.getLogger(__name__)

DEFAULT_STORE = "hidden-states"


@dataclasses.dataclass(frozen=True)
class FeaturedConfig:
    """Settings of the backend "featured". It travels to vLLM as JSON in the kv_transfer_config."""

    socket_path: Optional[str] = None
    """Of this node's broker; None: $FEATURED_SOCKET, else /run/featured/featured.sock."""
    store: str = DEFAULT_STORE
    """The broker's store; the same for vLLM and for the trainer."""
    secret_file: Optional[str] = None
    """A file whose bytes are the store's secret, as featured's secret_file. The secret itself is
    in no argument: other users can see those."""
    wait_s: float = 120.0
    """How long the trainer waits for a sample that vLLM has promised."""
    max_hold_s: float = 3600.0
    """Age after which the broker frees a sample that no trainer came for; of a store that is
    created here."""
    writer_threads: int = 4
    """Threads in which vLLM's worker copies hidden states to the broker."""

    @classmethod
    def from_mapping(cls, values: Optional[Mapping[str, Any]]) -> "FeaturedConfig":
        """From what the other end wrote. Keys that are not known are told of and left out, so that
        both ends may be of different ages."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values or ()) - known)
        if unknown:
            logger.warning("featured: settings %s are not known and ignored", ", ".join(unknown))
        return cls(**{name: value for name, value in (values or {}).items() if name in known})

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "FeaturedConfig":
        """From parsed arguments that add_arguments() defined."""
        given = {
            field.name: getattr(arguments, f"featured_{field.name}", None)
            for field in dataclasses.fields(cls)
        }
        return cls(**{name: value for name, value in given.items() if value is not None})

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    def settings(self) -> StoreSettings:
        """For an Attachment. Reads the secret. Where there is no store one is made, of policy
        retain: only delete(), or max_hold_s, frees a sample."""
        secret = None
        if self.secret_file is not None:
            # As featured reads it: the newline that an editor leaves is not part of it.
            secret = Path(self.secret_file).read_bytes().removesuffix(b"\n")
        return StoreSettings(
            name=store_name_of(self.store),
            socket_path=self.socket_path,
            secret=secret,
            create={"policy": "retain", "max_hold_s": self.max_hold_s},
        )


def add_arguments(parser: argparse.ArgumentParser, *, launch: bool) -> None:
    """Adds the --featured-... arguments, those that are not there yet. launch: for vLLM's launcher,
    not for the trainer."""
    _add(parser, "--featured-socket-path", help="Socket of this node's featured broker. Default: "
         "$FEATURED_SOCKET, else /run/featured/featured.sock. Used with backend=featured.")  # fmt: skip
    _add(parser, "--featured-store", default=DEFAULT_STORE,
         help="Store of the broker; the same for vLLM and the trainer. Used with backend=featured.")  # fmt: skip
    _add(parser, "--featured-secret-file",
         help="File with the store's secret. Used with backend=featured.")  # fmt: skip
    _add(parser, "--featured-max-hold-s", type=float, default=FeaturedConfig.max_hold_s,
         help="Seconds after which the broker frees a sample that nobody came for; of a store that "
         "is created here. Used with backend=featured.")  # fmt: skip
    if launch:
        _add(parser, "--featured-writer-threads", type=int, default=FeaturedConfig.writer_threads,
             help="Threads that copy hidden states to the broker. Used with backend=featured.")  # fmt: skip
    else:
        _add(parser, "--featured-wait-s", type=float, default=FeaturedConfig.wait_s,
             help="Seconds to wait for a sample of vLLM. Used with backend=featured.")  # fmt: skip


def _add(parser: argparse.ArgumentParser, flag: str, **rest: Any) -> None:
    destination = flag.lstrip("-").replace("-", "_")
    if not any(action.dest == destination for action in parser._actions):
        parser.add_argument(flag, **rest)
