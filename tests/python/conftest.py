# SPDX-License-Identifier: Apache-2.0
"""Fixtures: brokers, clients and stores. A broker serves a whole file of tests; each test has names
of its own in it, and leaves no leases behind."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

# A shell that runs the tests in its background has them ignore SIGINT, and so would every program
# that they start; those that interrupt one would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

import feature_broker as fb  # noqa: E402
from brokers import Broker, start_pair, temporary_folder, wait_until  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    yield from temporary_folder()


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Broker]:
    """One broker with the stores run (on-release), ack, keep (retain) and small (1 MiB)."""
    broker = Broker(folder, "solo").start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[tuple[Broker, Broker]]:
    """Two brokers that read from each other, with the same stores."""
    brokers = start_pair(folder)
    yield brokers
    for broker in brokers:
        broker.stop()


@pytest.fixture
def client(broker: Broker) -> Iterator[fb.Client]:
    """A connection to `broker`. Fails when the test leaves leases of it behind."""
    with broker.connect() as client:
        yield client
        gc.collect()
        wait_until(lambda: client.health().leases == 0, "no leases are left")


@pytest.fixture
def store(client: fb.Client) -> Iterator[fb.Store]:
    """The store run of `broker`, as numpy."""
    with client.store("run", framework="numpy") as store:
        yield store


_numbers = itertools.count()


@pytest.fixture
def sample_id(request: pytest.FixtureRequest) -> str:
    """An id that no other test uses."""
    return f"{request.node.name[:60]}-{next(_numbers)}"


@pytest.fixture(params=["one node", "two nodes"])
def world(request: pytest.FixtureRequest) -> Iterator["World"]:
    """Producer and consumer, on one broker and on two: a clause of the contract is tested on both."""
    if request.param == "one node":
        broker = request.getfixturevalue("broker")
        yield from World.open(broker, broker)
    else:
        yield from World.open(*request.getfixturevalue("pair"))


class World:
    """Who puts and who gets, each with its own connection."""

    def __init__(
        self, home: Broker, away: Broker, producer: fb.Client, consumer: fb.Client
    ) -> None:
        self.home, self.away = home, away
        self.producer, self.consumer = producer, consumer

    @classmethod
    def open(cls, home: Broker, away: Broker) -> Iterator["World"]:
        with home.connect() as producer, away.connect() as consumer:
            world = cls(home, away, producer, consumer)
            yield world
            gc.collect()  # event loops that have ended are parts of circles
            wait_until(lambda: world.producer.health().leases == 0, "no leases are left at home")
            wait_until(lambda: world.consumer.health().leases == 0, "no leases are left")

    def stores(self, name: str = "run") -> tuple[fb.Store, fb.Store]:
        """The producer's and the consumer's handle of a store, as numpy."""
        return (
            self.producer.store(name, framework="numpy"),
            self.consumer.store(name, read_only=True, framework="numpy"),
        )

    def settle(self) -> None:
        """Releases and acks said so far have reached their home."""
        self.consumer.drain()
        self.producer.drain()
