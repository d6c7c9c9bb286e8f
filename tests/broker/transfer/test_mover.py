"""Messages on their way between two queues: which are moved, in which order, and that each is in
one of them at any moment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from fluffle.broker.admin import move
from fluffle.broker.admin.context import Rows
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.durability.local_journal import LocalJournals
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.engine import Queue as Engine
from fluffle.broker.queues.engine import QueueStores
from fluffle.broker.queues.queue_api import Deferred, PeekRequest
from fluffle.broker.queues.quorum.messages import Leader
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.runtime.commits import Commits
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.transfer import mover as movers
from fluffle.broker.transfer.mover import MovedMessage, Mover, Selection
from fluffle.protocol.methods import Queue, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties, encode_properties
from fluffle.protocol.wire import PlainValue, to_table
from fluffle.storage.disk import Disk, MemoryDisk
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.cluster.queue_sessions.session_harness import LeaderWithSessions
from tests.broker.cluster.queues.session_queue_harness import LEADER, NODE, QueueHarness
from tests.storage.support import ManualWriter
from tests.suite.seeds import seeds
from tests.support.edge import Client, Edge
from tests.support.queue_host import FakeQueueHost
from tests.support.store import open_store

ALL = PeekRequest(0, 999, 99)


class Operator:
    """Operator who has messages moved, and the answers."""

    def __init__(
        self, desk: VerbHarness, source: str = "q", target: str = "w", **how: object
    ) -> None:
        self.edge = desk.edge
        self.rows: list[dict[str, object]] = []
        self.error = ""
        self.is_over = False
        verb = desk.dispatcher._verbs["queues.move"]
        self._reported: Rows = verb.act(desk.context, name=source, to=target, vhost="/", **how)
        self.read()

    def read(self, _answer: object = None) -> None:
        try:
            for row in self._reported:
                if isinstance(row, Deferred):
                    row.then(self.read, self.read)
                    return
                self.rows.append(row)
        except BrokerError as error:
            self.error = error.explanation
        self.is_over = True

    def interrupt(self) -> None:
        self._reported.close()  # type: ignore[attr-defined]

    @property
    def moved(self) -> tuple[object, object]:
        """How many were, and how many were not."""
        return self.rows[-1]["moved"], self.rows[-1]["skipped"]


def bodies(desk: VerbHarness, queue: str) -> list[str]:
    """All that is ready, in order."""
    return [row["payload"] for row in desk.rows("queues.peek", name=queue, vhost="/", count=999)]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def desk_with(*numbers: bytes, **how: bool) -> tuple[VerbHarness, Client]:
    """Two queues of one node, and messages in the first."""
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("w", **how)
    client.declare("q", **how)
    client.publish(*numbers)
    return desk, client


@pytest.mark.parametrize("durable", [False, True])
def test_all_of_a_queue_is_moved_in_order(*, durable: bool) -> None:
    desk, client = desk_with(durable=durable)
    client.publish(*numbered(500), properties=Properties(delivery_mode=2))
    operator = Operator(desk)
    desk.edge.run()
    assert (operator.is_over, operator.error, operator.moved) == (True, "", (500, 0))
    assert bodies(desk, "q") == []
    assert bodies(desk, "w") == [f"{number}" for number in range(500)]
    row = desk.ask("queues.show", name="q", vhost="/")
    assert (row["messages"], row["consumers"]) == (0, 0)


def test_what_is_not_meant_stays_in_its_order() -> None:
    desk, client = desk_with()
    for number in range(20):
        headers = to_table({"tenant": "a" if number % 3 else "b"})
        client.publish(b"%d" % number, properties=Properties(headers=headers))
    operator = Operator(desk, where=["tenant=b"])
    look_on(desk)
    assert operator.moved == (7, 12), "the last is behind all that are meant"
    assert bodies(desk, "w") == [f"{number}" for number in range(0, 20, 3)]
    assert bodies(desk, "q") == [f"{number}" for number in range(20) if number % 3]


def test_a_message_is_the_same_in_the_other_queue() -> None:
    desk, client = desk_with()
    properties = Properties(message_id="m", priority=3, headers=to_table({"a": 1}))
    client.publish(b"1", properties=properties)
    (before,) = desk.rows("queues.peek", name="q", vhost="/")
    Operator(desk)
    desk.edge.run()
    assert desk.rows("queues.peek", name="w", vhost="/") == [before]


def test_no_more_than_the_limit() -> None:
    desk, _client = desk_with(*numbered(300))
    operator = Operator(desk, limit=200)
    desk.edge.run()
    assert operator.moved == (200, 0)
    assert bodies(desk, "q") == [f"{number}" for number in range(200, 300)]


def test_no_faster_than_the_rate() -> None:
    desk, _client = desk_with(*numbered(100))
    operator = Operator(desk, rate=10)
    desk.edge.run()
    moved = []
    for _ in range(3):
        advance(desk, 2)
        moved.append(desk.ask("queues.show", name="w", vhost="/")["messages"])
    assert all(0 <= due - count <= 1 for due, count in zip([20, 40, 60], moved, strict=True)), moved
    assert not operator.is_over
    advance(desk, 5)
    assert operator.moved == (100, 0)


def advance(desk: VerbHarness, seconds: int) -> None:
    """In small steps, as time passes."""
    for _ in range(seconds * 100):
        desk.clock.advance(10)
        desk.edge.scheduler.advance(0.01)
        desk.edge.run()


def test_only_what_was_there_goes_or_it_might_go_round() -> None:
    """The other queue lets it die at once, and it comes back."""
    desk, client = desk_with()
    arguments: dict[str, PlainValue] = {
        "x-message-ttl": 0,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q",
    }
    client.declare("round", arguments=pamqp_table(to_table(arguments)))
    client.publish(b"1", b"2", queue="q")
    operator = Operator(desk, target="round")
    desk.edge.run()
    assert operator.moved == (2, 0)
    assert desk.ask("queues.show", name="q", vhost="/")["messages"] == 2


def test_an_interrupted_move_has_moved_what_was_reported_and_no_more() -> None:
    desk, client = desk_with(*numbered(100))
    operator = Operator(desk, rate=10)
    advance(desk, 3)
    operator.interrupt()
    advance(desk, 20)
    moved = len(bodies(desk, "w"))
    assert moved in (29, 30)
    assert bodies(desk, "q") == [f"{number}" for number in range(moved, 100)]
    assert desk.ask("queues.show", name="q", vhost="/")["messages_unacknowledged"] == 0
    del client


def test_a_target_that_is_deleted_stops_it() -> None:
    desk, client = desk_with(*numbered(100))
    operator = Operator(desk, rate=10)
    advance(desk, 3)
    moved = len(bodies(desk, "w"))
    desk.ask("queues.delete", name="w", vhost="/")
    advance(desk, 2)
    assert operator.error == (
        f"{moved} messages were moved, then stopped: queue 'w' in vhost '/' is gone"
    )
    assert len(bodies(desk, "q")) == 100 - moved
    del client


def test_no_more_is_held_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movers, "HELD_MESSAGES_MAX", 40)
    desk, client = desk_with(*numbered(300))
    client.publish(b"300", properties=Properties(headers=to_table({"a": "b"})))
    operator = Operator(desk, where=["a=b"])
    look_on(desk)
    assert operator.error.startswith("0 messages were moved, then stopped: 1")
    assert "are not meant, and no more can be held" in operator.error
    assert bodies(desk, "q") == [f"{number}" for number in range(301)]


@pytest.mark.parametrize("limit", [None, 2])
def test_what_is_behind_the_last_that_is_meant_is_not_touched(limit: int | None) -> None:
    desk, client = desk_with(b"0")
    for number in range(1, 5):
        headers = to_table({"wanted": number < 4})
        client.publish(b"%d" % number, properties=Properties(headers=headers))
    operator = Operator(desk, where=["wanted=true"], limit=limit)
    look_on(desk)
    assert operator.moved == ((limit or 3), 1)
    rows = desk.rows("queues.peek", name="q", vhost="/", count=9)
    left = [(row["payload"], row["redelivered"]) for row in rows]
    assert left == [("0", True), *[("3", False)] * (limit == 2), ("4", False)]


def test_nothing_is_taken_where_nothing_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """And others have their turn while it is looked for."""
    monkeypatch.setattr(move, "SEEN_AT_ONCE", 10)
    desk, _client = desk_with(*numbered(95))
    operator = Operator(desk, routing_key="other")
    desk.edge.run()
    assert len(operator.rows) == 1, "a timer runs"
    look_on(desk)
    assert (operator.error, operator.moved, len(operator.rows)) == ("", (0, 0), 11)
    rows = desk.rows("queues.peek", name="q", vhost="/", count=99)
    assert not any(row["redelivered"] for row in rows)


def look_on(desk: VerbHarness) -> None:
    """Until it has been looked at all; in no time."""
    for _ in range(20):
        desk.edge.scheduler.advance(0)


def test_what_cannot_be_moved() -> None:
    desk, client = desk_with()
    refusal = partial(desk.refusal, "queues.move", name="q", vhost="/")
    assert refusal(to="q") == (
        "PRECONDITION_FAILED: queue 'q' in vhost '/' cannot be moved to itself"
    )
    assert refusal(to="x") == "NOT_FOUND: no queue 'x' in vhost '/'"
    assert refusal(to="w", rate=0) == "SYNTAX_ERROR: 'rate' must be from 1 to 9007199254740991"
    arguments = pamqp_table(to_table({"x-single-active-consumer": True}))
    client.declare("s", arguments=arguments)
    assert desk.refusal("queues.move", name="s", to="w", vhost="/") == (
        "PRECONDITION_FAILED: queue 's' in vhost '/' has a single active consumer, which alone is "
        "given its messages"
    )


# Queues elsewhere


def far_desk() -> tuple[QueueHarness, VerbHarness]:
    """Queue `q` is led elsewhere, `w` is here."""
    rig = QueueHarness(QueueType.QUORUM)
    rig.client.declare("w", durable=True)
    return rig, VerbHarness(edge=rig.node)


def settle(desk: VerbHarness) -> None:
    for _ in range(20):
        desk.edge.run()


def test_from_a_queue_elsewhere() -> None:
    rig, desk = far_desk()
    rig.client.publish(*numbered(300))
    settle(desk)
    operator = Operator(desk)
    settle(desk)
    assert (operator.error, operator.moved) == ("", (300, 0))
    assert bodies(desk, "w") == [f"{number}" for number in range(300)]
    assert rig.far.led.leadership.queue.queue_counts == (0, 0, 0, 0)


def test_a_filter_leaves_the_others_of_a_queue_elsewhere_in_order() -> None:
    rig, desk = far_desk()
    for number in range(12):
        rig.client.publish(b"%d" % number, queue="q")
        if number % 4 == 0:
            rig.client.publish(
                b"-%d" % number, queue="q", properties=Properties(headers=to_table({"a": 1}))
            )
    settle(desk)
    operator = Operator(desk, where=["a=1"])
    look_on(desk)
    assert operator.moved == (3, 9)
    assert bodies(desk, "w") == ["-0", "-4", "-8"]
    queue = rig.far.led.leadership.queue
    seen = queue.peek(ALL)
    assert [each.body for each in seen.seen] == numbered(12)
    assert {each.failed for each in seen.seen} == {0}, "no client has failed"
    assert [each.redelivered for each in seen.seen] == [True] * 9 + [False] * 3


def test_a_source_that_is_deleted_ends_it() -> None:
    rig, desk = far_desk()
    rig.client.publish(*numbered(50))
    settle(desk)
    operator = Operator(desk, rate=10)
    advance(desk, 2)
    rig.delete()
    advance(desk, 2)
    assert "then stopped: queue 'q' in vhost '/' is gone" in operator.error
    assert len(bodies(desk, "w")) in (19, 20, 21)


def test_nothing_is_acknowledged_before_the_other_queue_has_it_elsewhere() -> None:
    """Publishes there are not committed; after a restart here all messages are found."""
    rig, desk = far_desk()
    rig.client.publish(*numbered(5), queue="w")
    settle(desk)
    rig.far.is_committing = False
    operator = Operator(desk, source="w", target="q")
    settle(desk)
    local = rig.node.vhost.queues["w"]
    assert (local.ready_count, local.in_flight) == (0, 5)
    rig.far.is_committing = True
    rig.far.run()
    settle(desk)
    assert (local.ready_count, local.in_flight) == (0, 0)
    assert operator.moved == (5, 0)


def test_a_target_that_takes_nothing_for_long_stops_it() -> None:
    rig, desk = far_desk()
    rig.client.publish(*numbered(5), queue="w")
    settle(desk)
    rig.far.is_committing = False
    operator = Operator(desk, source="w", target="q")
    advance(desk, 29)
    assert not operator.is_over
    advance(desk, 3)
    assert operator.error == (
        "0 messages were moved, then stopped: queue 'q' in vhost '/' has taken nothing for 30 s; "
        "what was on its way is in the other queue, and may come to this one yet"
    )
    assert bodies(desk, "w") == ["0", "1", "2", "3", "4"]


# Crashes


class Crashing:
    """A queue here and one elsewhere; commits are done when chance has it."""

    def __init__(self, seed: int, *, is_from_here: bool) -> None:
        self.chance = Random(seed)
        self.disk = MemoryDisk()
        self.rig = QueueHarness(node=Edge(store=open_store(self.disk, self.writer_on)))
        self.far = self.rig.far
        self.rig.client.send(encode_method(1, make(Queue.Declare, queue="w", durable=True)))
        self.complete()
        self.rig.client.names()
        self.all = set(numbered(30))
        source = "w" if is_from_here else "q"
        persistent = Properties(delivery_mode=2)
        self.rig.client.publish(*numbered(30), queue=source, properties=persistent)
        self.complete()
        journal = self.local.journal
        assert journal is not None
        self.groups = journal.groups
        self.operator = Operator(
            VerbHarness(edge=self.rig.node), source=source, target="q" if is_from_here else "w"
        )

    def writer_on(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    @property
    def local(self) -> Engine:
        queue = self.rig.node.vhost.queues["w"]
        assert isinstance(queue, Engine)
        return queue

    def complete(self) -> None:
        """All that is asked for."""
        self.far.is_committing = True
        self.far.touch()
        self.rig.node.run()
        while self.writer.step():
            self.rig.node.run()

    def step(self) -> None:
        what = self.chance.randrange(4)
        if what == 0:
            self.writer.step()
        elif what == 1:
            self.far.is_committing = not self.far.is_committing
            self.far.touch()
        else:
            self.rig.node.scheduler.turn()

    def here(self) -> set[bytes]:
        """Messages that would survive a power failure now."""
        turn = Turn(lambda _act: None)
        store = open_store(self.disk.after_power_loss())
        journals = LocalJournals(store.log, Commits(store, turn), {})
        journal = journals.reopen(self.groups)
        queue = Engine(QueueSpec("w"), FakeQueueHost(), QueueStores(journal))
        queue.recover()
        return {seen.body for seen in queue.peek(ALL).seen}

    def elsewhere(self) -> set[bytes]:
        """Messages that are committed and ready once this node is known to be gone."""
        image = QueueImage()
        for index, payload in enumerate(self.far.log, 1):
            image.apply(index, payload)
        led = LeaderWithSessions(Leader("far", LEADER, 999), image, [*self.far.log], now_ms=0)
        led.sessions.removed(NODE)
        return {seen.body for seen in led.leadership.queue.peek(ALL).seen}

    def go(self) -> None:
        """Until all is moved; at each moment everything is there."""
        for _ in range(400):
            assert self.here() | self.elsewhere() == self.all, "some are lost"
            self.step()
        self.complete()
        for _ in range(5):
            self.complete()


@pytest.mark.parametrize("is_from_here", [True, False])
@seeds(4)
def test_a_crash_at_any_moment_loses_nothing(seed: int, *, is_from_here: bool) -> None:
    """The commits of the two queues are done in any order."""
    crashing = Crashing(seed, is_from_here=is_from_here)
    crashing.go()
    assert (crashing.operator.error, crashing.operator.moved) == ("", (30, 0))
    here, elsewhere = crashing.here(), crashing.elsewhere()
    assert (here, elsewhere) == ((set(), crashing.all) if is_from_here else (crashing.all, set()))


@pytest.mark.parametrize("is_from_here", [True, False])
def test_who_acknowledges_too_soon_is_found_out(
    monkeypatch: pytest.MonkeyPatch, *, is_from_here: bool
) -> None:
    publish = Mover._publish

    def publish_and_forget(mover: Mover, taken: MovedMessage, raw: bytes) -> None:
        publish(mover, taken, raw)
        mover._know(taken.delivery_batch, is_accepted=True)

    monkeypatch.setattr(Mover, "_publish", publish_and_forget)
    with pytest.raises(AssertionError, match="some are lost"):
        go_often(is_from_here=is_from_here)


def go_often(*, is_from_here: bool) -> None:
    for seed in range(20):
        Crashing(seed, is_from_here=is_from_here).go()


RAW = encode_properties(
    Properties(headers=to_table({"tenant": "a=b", "tries": 3, "is_old": True, "list": [1]}))
)
BARE = encode_properties(Properties())


@pytest.mark.parametrize(
    ("headers", "routing_key", "is_meant"),
    [
        ([], None, True),
        (["tenant=a=b"], None, True),
        (["tenant=a=b", "tries=3", "is_old=true"], None, True),
        (["tenant=a=b", "tries=4"], None, False),
        (["other=1"], None, False),
        (["list=[1]"], None, False),
        ([], "orders.*", True),
        ([], "orders.#", True),
        ([], "orders", False),
        (["tries=3"], "*.new", True),
        (["tries=3"], "*.old", False),
    ],
)
def test_all_that_is_asked_must_be_so(
    headers: list[str], routing_key: str | None, *, is_meant: bool
) -> None:
    assert Selection(headers, routing_key).takes("orders.new", RAW) is is_meant


def test_what_has_no_headers_has_none_of_them() -> None:
    assert not Selection(["tries=3"]).takes("k", BARE)
    assert Selection().takes("k", BARE)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(BrokerError, match="'tries' is no header; write name=value"):
        Selection(["tries"])
    with pytest.raises(BrokerError, match="uses 3 '#' wildcards"):
        Selection([], "#.a.#.b.#")
