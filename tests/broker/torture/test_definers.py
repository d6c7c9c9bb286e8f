"""Clients that declare, delete and look find an honest node honest, and leave nothing behind."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from fluffle.broker.amqp_client import BrokerRefusal
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.torture import run
from fluffle.broker.torture.checker import Breach
from fluffle.broker.torture.client_group import ClientGroup, type_of_definitions
from fluffle.broker.torture.definers import (
    CHANGES_MAX,
    Definitions,
    declare_kept,
    following,
    is_absence,
    owned_elsewhere,
    renew_queue,
)
from fluffle.broker.torture.history import (
    Answered,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Confirmed,
    Ended,
    Event,
    GraceOver,
    Invoked,
    Locked,
    MessageId,
    Operation,
    Owned,
    Published,
    Received,
    ShortLived,
    from_line,
)
from fluffle.broker.torture.online_checker import HistoryWriter, OnlineChecker
from fluffle.broker.torture.recording_client import RecordingClient, Role, to
from fluffle.broker.torture.run import Run, RunOptions
from fluffle.broker.torture.system import NodeAddress, System
from fluffle.protocol.methods import Queue, make
from tests.support.deadlines import soon


async def started(folder: Path) -> tuple[Node, NodeAddress]:
    node = Node(Config(listen=ListenAddress("127.0.0.1", 0), data_dir=folder))
    await node.start()
    host, port = node.addresses["amqp"]
    return node, NodeAddress("node", host, port)


async def test_an_honest_node_answers_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CALM_S", 0.0)
    monkeypatch.setattr(run, "DRAIN_PAUSE_S", 0.0)
    ends: list[str] = []
    work, stop_the_clock = ClientGroup.work, HistoryWriter.stop_the_clock

    async def noted_work(
        clients: ClientGroup, roles: Mapping[str, Role], is_over: asyncio.Event
    ) -> None:
        await work(clients, roles, is_over)
        ends.append("publishing" if "batches" in roles else "consuming")

    def noted_stop(history_writer: HistoryWriter) -> None:
        stop_the_clock(history_writer)
        ends.append("the clock")

    monkeypatch.setattr(ClientGroup, "work", noted_work)
    monkeypatch.setattr(HistoryWriter, "stop_the_clock", noted_stop)
    node, address = await started(tmp_path)
    file = io.StringIO()
    history_writer = HistoryWriter(time.monotonic_ns, file)
    system = System([address], queue_type="classic")
    torture = Run(
        system, RunOptions(seconds=3.0, seed=1, kinds=()), history_writer, lambda _line: None
    )
    outcome = await torture.run()
    left = Definitions("torture", "classic")
    with await RecordingClient.connect(address, "last", lambda _event: None) as witness:
        assert not await witness.is_there(left.sink)
        for event in events_of(file):
            if isinstance(event, ShortLived | Owned):
                assert not await witness.is_there(event.queue)
    await node.stop("shutdown")

    assert outcome.is_good(history_writer.checker.report), [
        *history_writer.checker.report.sentences()
    ]
    assert not history_writer.checker.report.breaches
    assert ends == ["the clock", "publishing", "consuming"]
    counted = Counter(type(event) for event in events_of(file))
    assert counted[ShortLived] > 0
    assert counted[ClearingDone] > 0
    assert counted[Owned] > 0
    assert counted[GraceOver] == 1
    answers = {event.found for event in events_of(file) if isinstance(event, Answered)}
    asked = {event.operation for event in events_of(file) if isinstance(event, Invoked)}
    assert (answers, asked) == ({True, False}, {*Operation})


def events_of(file: io.StringIO) -> list[Event]:
    return [from_line(line)[1] for line in file.getvalue().splitlines()]


async def test_no_answer_names_the_owner_of_a_queue(tmp_path: Path) -> None:
    node, address = await started(tmp_path)
    history: list[Event] = []
    owner = await RecordingClient.connect(address, "owner", history.append)
    other = await RecordingClient.connect(address, "other", history.append)
    with owner, other:
        await owner.connection.call(make(Queue.Declare, queue="own", exclusive=True))
        assert await owned_elsewhere(other.connection, ["own", "none"]) == ["own"]
        await owner.connection.call(make(Queue.Delete, queue="own"))
        assert await owned_elsewhere(other.connection, ["own"]) == []
    await node.stop("shutdown")


async def test_the_oldest_kept_queue_makes_way(tmp_path: Path) -> None:
    node, address = await started(tmp_path)
    definitions = Definitions("torture", "classic")
    with await RecordingClient.connect(address, "keeper", lambda _event: None) as witness:
        for number in range(10):
            await declare_kept(witness.connection, definitions, f"kept.{number}")
    await node.stop("shutdown")
    assert [*definitions.full] == [f"kept.{number}" for number in range(4)]
    assert definitions.kept[-1] == "kept.9"


def test_a_queue_may_go_when_all_that_was_confirmed_was_received() -> None:
    """A message taken by a get whose answer was lost is held by no client, and is not in the queue
    either."""
    definitions = Definitions("torture", "quorum")
    first, second = MessageId("p", 1), MessageId("p", 2)
    definitions.note(ShortLived("q"))
    for message in (first, second):
        definitions.note(Published(message, ("q",)))
    assert definitions.may_go("q"), "neither was confirmed"
    definitions.note(Received("c", "q", second, redelivered=False))
    for message in (first, second):
        definitions.note(Confirmed(message))
    assert not definitions.may_go("q")
    definitions.note(Received("c", "q", first, redelivered=True))
    assert definitions.may_go("q")


def test_what_goes_to_a_queue_that_is_renewed_is_not_missed() -> None:
    """Such messages may be lost with the former queue; those for its successor may not."""
    definitions = Definitions("torture", "quorum")
    before, unconfirmed, meanwhile, after = (MessageId("p", number) for number in range(1, 5))
    definitions.note(ShortLived("q"))
    for message in (before, unconfirmed):
        definitions.note(Published(message, ("q",)))
    definitions.note(Confirmed(before))
    definitions.renewing.add("q")
    definitions.note(ClearingAsked("q", Clearing.DELETE))
    for message in (unconfirmed, meanwhile):
        definitions.note(Published(meanwhile, ("q",)))
        definitions.note(Confirmed(message))
    definitions.renewing.clear()
    assert definitions.may_go("q")
    definitions.note(Published(after, ("q",)))
    definitions.note(Confirmed(after))
    assert not definitions.may_go("q")


async def test_a_queue_is_renewed_with_all_that_is_in_it(tmp_path: Path) -> None:
    node, address = await started(tmp_path)
    history: list[Event] = []
    definitions = Definitions("torture", "classic")
    with await RecordingClient.connect(address, "keeper", history.append) as witness:
        for queue in ("first", "second"):
            await declare_kept(witness.connection, definitions, queue)
        await witness.publisher.confirm_select()
        witness.publisher.publish([to("first")] * 3)
        await witness.publisher.await_confirms()
        await renew_queue(witness.connection, definitions, "first")
        assert await witness.ready_count("first") == 0
        assert [*definitions.kept] == ["second", "first"], "published to most of all"
        with pytest.raises(BrokerRefusal):
            await renew_queue(witness.connection, definitions, "amq.reserved")
        assert "amq.reserved" in definitions.renewing, "nobody knows whether it is there"
    await node.stop("shutdown")
    assert not judged(*history), "what was confirmed went with the former queue"


async def test_a_queue_is_published_to_as_soon_as_it_is_renewed(tmp_path: Path) -> None:
    node, address = await started(tmp_path)
    definitions = Definitions("torture", "classic")
    published = asyncio.Event()
    queues: set[str] = set()

    def note(event: Event) -> None:
        if isinstance(event, Published):
            queues.update(event.queues)
            published.set()

    keeper = await RecordingClient.connect(address, "keeper", note)
    follower = await RecordingClient.connect(address, "follower", note)
    with keeper, follower:
        for queue in ("first", "second"):
            await declare_kept(keeper.connection, definitions, queue)
        work = asyncio.ensure_future(following(definitions)(follower, Random(1)))
        await renew_queue(keeper.connection, definitions, "first")
        async with soon():
            await published.wait()
        work.cancel()
        await asyncio.wait((work,))
    await node.stop("shutdown")
    assert queues == {"first"}


def test_who_is_renewed_is_not_emptied() -> None:
    definitions = Definitions("torture", "quorum")
    definitions.full.extend("abc")
    definitions.posting["a"] += 1
    definitions.renewing.add("b")
    assert definitions.next_full() == "c"
    definitions.drop("c")
    assert definitions.next_full() is None


def test_a_thing_is_replaced_by_one_of_its_kind() -> None:
    definitions = Definitions("torture", "quorum")
    assert sum(thing.is_binding for thing in definitions.things) == 1
    for _ in range(CHANGES_MAX):
        definitions.replace(definitions.choose(Random(1)))
    current = {definitions.choose(Random(seed)).name for seed in range(20)}
    assert current <= {thing.name for thing in definitions.things[-3:]} | {
        thing.name for thing in definitions.things[:3]
    }
    assert len(definitions.things) == 3 + CHANGES_MAX
    definitions.replace(definitions.things[3])
    assert len(definitions.things) == 3 + CHANGES_MAX, "it is in use no more"


@pytest.mark.parametrize(
    ("queue_type", "nodes", "expected"),
    [
        ("quorum", 3, "quorum"),
        ("both", 3, "quorum"),
        ("classic", 3, None),
        ("classic", 1, "classic"),
        ("quorum", 1, "quorum"),
    ],
)
def test_queues_that_can_be_away_are_no_witnesses(
    queue_type: str, nodes: int, expected: str | None
) -> None:
    assert type_of_definitions(queue_type, nodes) == expected


def test_a_queue_that_cannot_be_reached_is_not_absent() -> None:
    assert is_absence(BrokerRefusal("NOT_FOUND - no queue 'q' in vhost '/'", 404))
    assert not is_absence(BrokerRefusal("NOT_FOUND - home node 'a' of queue 'q' is down", 404))
    assert not is_absence(BrokerRefusal("no queue", 541))


# Locks, by hand

OWNED: list[Event] = [Owned("q", "owner.1")]
ENDED: list[Event] = [Ended("owner.1#1", "it hung up")]


def judged(*history: Event) -> Counter[Breach]:
    checker = OnlineChecker()
    checker.read(history)
    return checker.finish().breaches


def test_a_queue_is_locked_while_its_connection_is_there_and_for_a_while() -> None:
    assert not judged(*OWNED, Locked("q"), *ENDED, Locked("q"))
    assert not judged(*OWNED, GraceOver(), Locked("q"), *ENDED, Locked("q"))
    assert not judged(GraceOver(), *OWNED, *ENDED, Locked("q"))


def test_a_queue_that_stays_locked_is_found_once() -> None:
    locked: list[Event] = [GraceOver(), Locked("q"), Locked("q")]
    assert judged(*OWNED, *ENDED, *locked) == {Breach.LOCKED: 1}
    assert not judged(*ENDED, *OWNED, *locked), "another connection"
