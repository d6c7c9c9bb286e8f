"""The durable side of a node: what is removed together, and what it does not start on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fluffle.broker.access.access import Access, Permission, User
from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.base.client_session import INCOMING
from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.base.message import Origin
from fluffle.broker.definitions.catalogue import Catalogue, restored
from fluffle.broker.definitions.changes import doom, unfinished
from fluffle.broker.durability import local_journal
from fluffle.broker.durability.durability import Durability, open_durability, read_image
from fluffle.broker.durability.fact_codec import (
    DefinitionImage,
    FirstStart,
    VhostImage,
    encode,
    encode_key,
)
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Key, Kind
from fluffle.broker.process.environment import store_in
from fluffle.broker.queues import ready_list
from fluffle.broker.queues.arguments import Declaration, QueueSpec
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import DeliveryBatch
from fluffle.broker.routing.bindings import Binding, DestinationKind, binding_key
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.topic_filter import FilterBinding, arguments_of
from fluffle.broker.runtime import commits
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.storage import store as storage
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.errors import Corrupt, StorageError
from fluffle.storage.layout import Table
from fluffle.storage.store import Batch
from tests.storage.support import ManualWriter
from tests.support.definitions import Editor, engine_of, engines
from tests.support.no_timeout import NoTimeoutHolder
from tests.support.queue_host import FakeTurn
from tests.support.store import open_store


class Harness:
    """A node's catalogue on a disk that is moved by hand."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.store = open_store(disk, self._make_writer)
        self.durability = durability = Durability(self.store, Turn(lambda _act: None))

        maker = LocalQueues(FakeTurn(), durability.journals)

        def make_vhost(name: str, image: VhostImage | None = None) -> VirtualHost:
            return VirtualHost(name, maker, image=image)

        access = Access(tables=durability.image.tables)
        self.catalogue: Catalogue = restored(durability.image, access, make_vhost)
        self.editor = Editor(self.catalogue, durability.facts)
        for decide in unfinished(self.catalogue):
            self.editor.have(decide)

    def _make_writer(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self._writer = ManualWriter(disk, wake)
        return self._writer

    def step(self) -> bool:
        """Do one commit, if there is one to do."""
        self.durability.commits.flush()
        return self._writer.step()

    def has(self) -> tuple[int, int, int, int]:
        """How many virtual hosts, queues, messages, and logs."""
        vhosts = self.catalogue.vhosts.values()
        queues = [queue for vhost in vhosts for queue in engines(vhost)]
        messages = sum(queue.ready_count for queue in queues)
        return len(vhosts), len(queues), messages, len(self.store.log.groups())


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A virtual host with three queues of one message, each bound twice."""
    monkeypatch.setattr(commits, "BATCH_BYTES_MAX", 1)
    monkeypatch.setattr(storage, "COMMIT_BYTES_MAX", 1)
    harness = Harness(MemoryDisk())
    inside = harness.editor.inside("v")
    inside.declare_exchange(ExchangeSpec("x", durable=True))
    for name in ("q", "r", "s"):
        queue = inside.declare_queue(Declaration(name, durable=True))
        for source in ("x", "amq.topic"):
            inside.bind(Binding(source, name, DestinationKind.QUEUE, ""))
        queue.enqueue([inside.vhost.origin("", name)], [b"m"], 1, persistent=True)
    harness.editor.put_permission("u", "v", Permission())
    return harness


def crash_at_every_commit(harness: Harness) -> list[tuple[int, int, int, int]]:
    """Messages that survive if the process ends before the first commit, the second, and so on."""
    found = [come_up(harness).has()]
    while harness.step():
        found.append(come_up(harness).has())
    return found


def come_up(harness: Harness) -> Harness:
    """Another process on what is on disk, once it has begun."""
    again = Harness(harness.disk.after_power_loss())
    while again.step():
        pass
    return again


def test_what_is_made_comes_up_at_every_commit(harness: Harness) -> None:
    found = crash_at_every_commit(harness)
    assert found == sorted(found)
    assert (found[0], found[-1]) == ((0, 0, 0, 0), (1, 3, 3, 3))
    assert len(found) > 5


def test_a_queue_goes_with_its_bindings_and_messages_or_not_at_all(harness: Harness) -> None:
    crash_at_every_commit(harness)
    inside = harness.editor.inside("v")
    inside.delete_queue(engine_of(inside.vhost, "q"))
    assert crash_at_every_commit(harness) == [(1, 3, 3, 3), (1, 2, 2, 2)]


def test_a_virtual_host_goes_with_all_that_is_in_it_or_not_at_all(harness: Harness) -> None:
    crash_at_every_commit(harness)
    harness.editor.delete_vhost("v")
    first, *later = crash_at_every_commit(harness)
    assert (first, set(later)) == ((1, 3, 3, 3), {(0, 0, 0, 0)})
    assert harness.store.catalog.by_kind() == {}


def test_a_virtual_host_that_goes_in_pieces_never_comes_back(harness: Harness) -> None:
    """Its deletion goes on where a crash ended it, and leaves nothing."""
    crash_at_every_commit(harness)
    harness.editor.have(lambda: doom(harness.catalogue, "v"))
    with pytest.raises(PreconditionFailed, match="vhost 'v' is being deleted"):
        harness.editor.vhost("v")
    pieces = 0
    for decide in unfinished(harness.catalogue):
        harness.editor.have(decide)
        pieces += 1
        while harness.step():
            again = come_up(harness)
            assert again.has() == (0, 0, 0, 0)
            assert again.catalogue.access.permissions == {}
            assert again.store.catalog.by_kind() == {}
            again.editor.vhost("v")
    crash_at_every_commit(harness)
    assert harness.store.catalog.by_kind() == {}
    assert pieces > 10, "three queues, x, and what is predeclared"
    harness.editor.vhost("v")


def test_a_queue_that_is_made_again_has_nothing_of_the_old_one(harness: Harness) -> None:
    inside = harness.editor.inside("v")
    old = engine_of(inside.vhost, "q").journal
    inside.delete_queue(engine_of(inside.vhost, "q"))
    new = inside.declare_queue(Declaration("q", durable=True)).journal
    assert old is not None
    assert new is not None
    assert not set(old.groups) & set(new.groups)
    assert crash_at_every_commit(harness)[-1] == (1, 3, 2, 2)


def test_kinds_of_a_later_version_are_refused() -> None:
    disk = MemoryDisk()
    store = open_store(disk)
    batch = Batch()
    batch.put("shovel", b"s", b"")
    store.submit(batch)
    store.flush()
    with pytest.raises(StorageError, match=r"does not know: shovel; nothing has been changed"):
        Harness(disk)


async def test_a_store_that_is_refused_is_let_go_of(tmp_path: Path) -> None:
    def fail(error: StorageError) -> None:
        raise error

    loop = asyncio.get_running_loop()
    turn, place = Turn(loop.call_soon), store_in(tmp_path, loop.call_soon_threadsafe)
    first = open_durability(place, turn, on_fatal=fail)
    first.commits.put("shovel", b"s", b"")
    first.close(())
    first.close(())  # which a node does that could not listen
    for _ in range(2):
        with pytest.raises(StorageError, match="does not know: shovel"):
            open_durability(place, turn, on_fatal=fail)


def test_a_subscription_has_other_options_or_the_same_after_a_crash(harness: Harness) -> None:
    """Whatever its key is: in no commit there is none, or two."""
    inside = harness.editor.inside("v")
    topic_filters = ["a/+", "level/" * 60 + "#"]

    def subscribe(options: int) -> None:
        bindings = [
            Binding("amq.topic", "q", DestinationKind.QUEUE, each.replace("/", "."),
                    arguments_of(FilterBinding(each, options)))
            for each in topic_filters
        ]  # fmt: skip
        harness.editor.have(lambda: queue_changes.subscribe(inside.vhost, bindings, None))

    subscribe(1)
    crash_at_every_commit(harness)
    subscribe(2)
    found = [subscriptions_of(come_up(harness))]
    while harness.step():
        found.append(subscriptions_of(come_up(harness)))
    for options in (1, 2):
        assert {(each, options) for each in topic_filters} in found
    assert all(len(each) == len(topic_filters) for each in found)


def subscriptions_of(harness: Harness) -> set[tuple[str, int]]:
    """Filter and options of each."""
    vhost = harness.catalogue.vhosts["v"]
    found = [each for _, each in queue_changes.subscriptions(vhost, "amq.topic", "q")]
    assert len({each.topic_filter for each in found}) == len(found)
    return {(each.topic_filter, each.options) for each in found}


class Taker(NoTimeoutHolder):
    """Takes messages of a queue, and keeps them unless it is asked not to."""

    def __init__(self, queue: Queue, *, no_ack: bool = False) -> None:
        self.queue = queue
        self.no_ack = no_ack

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """Ignore the delivery."""

    def took(self, delivery_batch: DeliveryBatch) -> None:
        """Nothing limits it."""

    def settled(self, count: int) -> None:
        """Nothing waits for room."""


def test_what_was_noted_of_messages_goes_with_them(harness: Harness) -> None:
    """However much was reported before, in the same commit."""
    queue = engine_of(harness.catalogue.vhosts["v"], "q")
    queue.enqueue([Origin("", "q")] * 2, [b"n", b"o"], 2, persistent=True)
    crash_at_every_commit(harness)
    assert queue.get(Taker(queue, no_ack=True)) is not None
    crash_at_every_commit(harness)
    again = Harness(harness.disk.after_power_loss())
    assert again.has() == (1, 3, 4, 4)
    inside = again.editor.inside("v")
    inside.declare_queue(Declaration("t", durable=True))
    inside.delete_queue(engine_of(inside.vhost, "q"))
    assert crash_at_every_commit(again) == [(1, 3, 4, 4), (1, 4, 4, 4), (1, 3, 2, 2)]


def test_annotations_are_there_after_a_crash(harness: Harness) -> None:
    """Also once some of the messages that lie with it are settled, and after another crash."""
    queue = engine_of(harness.catalogue.vhosts["v"], "q")
    annotated = [Origin("", "q", annotations=octets) for octets in (b"\0one", bytes(60_000))]
    queue.enqueue([*annotated, Origin("", "q")], [b"n", b"o", b"p"], 3, persistent=True)
    for _ in range(2):
        crash_at_every_commit(harness)
        harness = come_up(harness)
        queue = engine_of(harness.catalogue.vhosts["v"], "q")
        assert queue.get(Taker(queue, no_ack=True)) is not None
    crash_at_every_commit(harness)
    queue = engine_of(come_up(harness).catalogue.vhosts["v"], "q")
    taker = Taker(queue)
    found = [batch.origins[0] for _ in range(2) if (batch := got(queue, taker)) is not None]
    assert [each.annotations for each in found] == [bytes(60_000), b""]


def got(queue: Queue, taker: Taker) -> DeliveryBatch | None:
    batch = queue.get(taker)
    assert batch is None or isinstance(batch, DeliveryBatch)
    return batch


def test_damage_that_is_one_queues_keeps_no_other_from_starting(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    queue = engine_of(harness.catalogue.vhosts["v"], "q")
    queue.enqueue([Origin("", "q")] * 2, [b"n", b"o"], 2, persistent=True)
    crash_at_every_commit(harness)
    assert queue.get(Taker(queue, no_ack=True)) is not None
    crash_at_every_commit(harness)
    disk = harness.disk.after_power_loss()
    with disk.view() as view:
        *_, (key, note) = view.scan(Table.HOT, b"", None)
        disk.flip(Table.HOT, bytes(key), len(note) - 1)
    again = Harness(disk)
    assert "queue_crashed" in caplog.text
    vhost = again.catalogue.vhosts["v"]
    assert [queue.damage is not None for queue in engines(vhost)] == [True, False, False]
    damage, journal = engine_of(vhost, "q").damage, engine_of(vhost, "q").journal
    assert damage is not None
    assert journal is not None
    assert damage.place.endswith(f"group {journal.groups[1]} index 1 part 0")
    taker = Taker(engine_of(vhost, "r"))
    assert engine_of(vhost, "r").get(taker) is not None
    again.editor.inside("v").delete_queue(engine_of(vhost, "q"))
    assert crash_at_every_commit(again)[-1] == (1, 2, 2, 2)


def test_a_purge_deletes_one_stretch_of_messages_and_one_of_notes(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each segment and each note: of a million messages that were seconds."""
    for module in (ready_list, local_journal):
        monkeypatch.setattr(module, "SEGMENT_MESSAGES_MAX", 2)
    queue = engine_of(harness.catalogue.vhosts["v"], "q")
    assert queue.purge() == 1
    for _ in range(6):
        queue.enqueue([Origin("", "q")] * 2, [b"m"] * 2, 2, persistent=True)
    for number in range(12):
        assert queue.get(Taker(queue, no_ack=number % 2 == 0)) is not None
    crash_at_every_commit(harness)
    again = Harness(harness.disk.after_power_loss())
    queue = engine_of(again.catalogue.vhosts["v"], "q")
    assert queue.purge() == 6
    assert crash_at_every_commit(again)[-1] == (1, 3, 2, 2)
    assert again.durability.commits.done.changes == 2


Fact = tuple[Kind, Key, object]


def image_of(*facts: Fact) -> DefinitionImage:
    definitions: dict[str, list[tuple[bytes, bytes]]] = {}
    for kind, key, value in facts:
        definitions.setdefault(kind, []).append((encode_key(key), encode(kind, value)))
    return read_image(definitions)


def vhost(name: str) -> Fact:
    return Kind.VHOST, (name,), VhostSettings()


def queue(name: str) -> Fact:
    return Kind.QUEUE, ("v", name), QueueDefinition(QueueSpec(name, durable=True), (1, 2))


def exchange(name: str) -> Fact:
    return Kind.EXCHANGE, ("v", name), ExchangeSpec(name, durable=True)


def binding(source: str, kind: DestinationKind, destination: str) -> Fact:
    made = Binding(source, destination, kind, "")
    return Kind.BINDING, binding_key("v", made), made


def test_nothing_is_a_first_start() -> None:
    assert image_of() == DefinitionImage()
    assert DefinitionImage().first_start is None
    made = FirstStart(("u", "w"), ("v",))
    assert image_of((Kind.STARTED, (), made)).first_start == made


def test_what_an_earlier_version_made_at_a_first_start_is_not_known() -> None:
    written = [(encode_key(()), b"\x01\xc0")]
    assert read_image({str(Kind.STARTED): written}).first_start == FirstStart()


def test_everything_is_in_the_order_of_its_name() -> None:
    image = image_of(
        *(vhost(name) for name in ("w", "v")),
        *(queue(name) for name in ("r", "q")),
        *(exchange(name) for name in ("y", "x")),
        *(binding("x", DestinationKind.QUEUE, name) for name in ("r", "q")),
        *((Kind.USER, (name,), User(name)) for name in ("zoë", "anna")),
        *((Kind.PERMISSION, (name, "v"), Permission()) for name in ("zoë", "anna")),
        *((Kind.POLICY, ("v", name), {"name": name}) for name in ("p", "o")),
    )
    found = image.vhosts["v"]
    assert list(image.vhosts) == ["v", "w"]
    assert [queue.spec.name for queue in found.queues] == ["q", "r"]
    assert [spec.name for spec in found.exchanges] == ["x", "y"]
    assert [made.destination for made in found.bindings] == ["q", "r"]
    assert list(image.tables.users) == ["anna", "zoë"]
    assert list(image.tables.permissions) == [("anna", "v"), ("zoë", "v")]
    assert [entry["name"] for entry in image.kept[Kind.POLICY].values()] == ["o", "p"]


QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


@pytest.mark.parametrize(
    ("facts", "damage"),
    [
        ([queue("q")], "catalog queue 'q': there is no vhost 'v'"),
        ([(Kind.DOOMED, ("v",), None)], "catalog doomed 'v': there is no such vhost"),
        ([exchange("x")], "catalog exchange 'x': there is no vhost 'v'"),
        (
            [vhost("v"), queue("q"), binding("x", QUEUE, "q")],
            "catalog binding from 'x' to 'q': there is no exchange 'x'",
        ),
        (
            [vhost("v"), exchange("q"), binding("amq.topic", QUEUE, "q")],
            "catalog binding from 'amq.topic' to 'q': there is no queue 'q'",
        ),
        (
            [vhost("v"), queue("q"), binding("amq.topic", EXCHANGE, "q")],
            "catalog binding from 'amq.topic' to 'q': there is no exchange 'q'",
        ),
        (
            [vhost("v"), (Kind.CLIENT_PACKETS, ("v", "c", INCOMING, "0"), {7: None})],
            "catalog client_packets 'c': there is no such session",
        ),
    ],
)
def test_what_stands_in_nothing_is_damage(facts: list[Fact], damage: str) -> None:
    with pytest.raises(Corrupt, match=f"^corrupt: {damage}$"):
        image_of(*facts)
