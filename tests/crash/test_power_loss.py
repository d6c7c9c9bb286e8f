"""Power cuts of a whole node: whatever was confirmed and vouched for before is what a start finds.

The disk as a cut leaves it is made for every moment of a recording: right after each answer that
left the node, and with none, all and some of what was written and not yet synced.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.queue_api import DeliveryBatch
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.torture.history import Event, Looked, Received, RunEnded, Strange
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.recording_client import RecordingClient, message_of
from fluffle.broker.torture.system import NodeAddress
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import body_of as content_body
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from tests.crash.recorded_run import PATIENT, QUEUES, THINGS, Recording, record
from tests.suite.seeds import is_night
from tests.support.daemon import Daemon
from tests.support.definitions import engines
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.powercut import PowerCut
from tests.support.queue_host import FakeTurn
from tests.support.store import open_store


class Taker(NoTimeoutHolder):
    """Takes a message and keeps it."""

    no_ack = False

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing is counted."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Ignore the delivery."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""


def found_on(directory: Path) -> list[Event]:
    """History of what a node finds that starts on this disk."""
    environment = open_environment(directory)
    try:
        durability = Durability(open_store(environment), Turn(lambda _act: None))
        vhost = VirtualHost(
            "/",
            LocalQueues(FakeTurn(), durability.journals),
            image=durability.image.vhosts["/"],
        )
        there = {*vhost.queues}
        there |= {f"exchange {spec.name}" for spec in durability.image.vhosts["/"].exchanges}
        there |= {
            f"binding {each.source} {each.destination}"
            for each in durability.image.vhosts["/"].bindings
        }
        events: list[Event] = [Looked(thing, found=thing in there) for thing in THINGS]
        events += [Strange(f"{thing} is there") for thing in there - {*THINGS}]
        for queue in engines(vhost):
            events += drained(queue)
        journals = [queue.journal for queue in engines(vhost)]
        named = {group for journal in journals if journal is not None for group in journal.groups}
        stray = {*durability.store.log.groups()} - named
        return events + [Strange(f"group {group} belongs to no queue") for group in stray]
    finally:
        environment.close()


def drained(queue: Queue) -> Iterator[Event]:
    """All messages of a queue, which come in the order of their publisher."""
    last: dict[str, int] = {}
    while (delivery_batch := queue.get(Taker(queue))) is not None:
        (content,) = delivery_batch.contents
        message = message_of(content_body(content))
        if message is None:
            yield Strange(f"a message in {queue.name} is damaged")
            continue
        if message.number <= last.get(message.publisher, 0):
            yield Strange(f"{message} in {queue.name} came after {last[message.publisher]}")
        last[message.publisher] = message.number
        yield Received("the next process", queue.name, message, delivery_batch.redelivered)


def begins_at(recording: Recording) -> int:
    """The moment at which the first client was sent something."""
    return next(
        moment
        for moment, (_node, event) in enumerate(recording.events)
        if event.kind == b"N" and event.offset in recording.ports
    )


def checker(recording: Recording, moment: int, found: list[Event]) -> list[str]:
    """Sentences about what was wrong after a cut at this moment."""
    checker = OnlineChecker()
    checker.read(event for at, event in recording.history if at <= moment)
    checker.read([RunEnded(), *found])
    return [*checker.finish().sentences()]


@pytest.mark.slow("what every cut of a long history leaves is read")
@pytest.mark.parametrize(("seed", "steps"), [(1, 40), (2, 150 if is_night() else 70)])
def test_every_power_cut_leaves_what_was_answered(tmp_path: Path, seed: int, steps: int) -> None:
    recording = record(tmp_path, seed, steps)
    assert recording.history, "the clients knew nothing"
    random, disk = Random(seed), PowerCut()
    begin = begins_at(recording)
    kinds = dict.fromkeys((b"W", b"D", b"S", b"N", b"R"), 0)
    images = 0
    for moment, (_node, event) in enumerate(recording.events):
        disk.replay(event)
        kinds[event.kind] += 1
        if moment < begin or (event.kind == b"W" and random.random() < 0.8):
            continue
        for image in disk.images(random)[: 1 if event.kind in b"NR" else 3]:
            images += 1
            wrong = checker(recording, moment, reopened(tmp_path / "image", image))
            assert not wrong, f"seed {seed}, event {moment} {event.kind!r}: {wrong[:5]}"
    assert kinds[b"D"] > steps // 2, "a commit ends with its meta page, written synchronously"
    assert kinds[b"S"] >= kinds[b"D"] - 1, "after its data have been synced"
    assert images > len(recording.history) // 4


@pytest.mark.slow("each power cut starts a process on what is left")
@pytest.mark.parametrize("seed", [3, 4])
def test_a_node_starts_on_what_a_power_cut_leaves(tmp_path: Path, seed: int) -> None:
    """The same with the process itself, at one moment."""
    recording = record(tmp_path, seed, steps=40)
    random, disk = Random(seed), PowerCut()
    last = random.randrange(len(recording.events) // 2, len(recording.events))
    for _node, event in recording.events[: last + 1]:
        disk.replay(event)
    lay(tmp_path / "image", disk.images(random)[-1])
    with Daemon(tmp_path / "image") as daemon:
        found = asyncio.run(found_by(daemon.port))
    assert checker(recording, last, found) == []


async def found_by(port: int) -> list[Event]:
    """Messages that a client finds."""
    found: list[Event] = []
    to = NodeAddress("node", "127.0.0.1", port)
    with await RecordingClient.connect(to, "the next process", found.append, PATIENT) as client:
        for queue in QUEUES:
            while await client.is_there(queue) and await client.unacked.get(queue) is not None:
                pass
    return found


def reopened(directory: Path, image: bytearray) -> list[Event]:
    """Start on a disk as a power cut left it."""
    lay(directory, image)
    return found_on(directory)


def lay(directory: Path, image: bytearray) -> None:
    """Make a data directory with this disk."""
    shutil.rmtree(directory, ignore_errors=True)
    data = directory / STORE_FOLDER / DATA_FILE
    data.parent.mkdir(parents=True)
    data.write_bytes(image)
