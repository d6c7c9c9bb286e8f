"""Any changes, then a restart: what was durable is there, as it was when the last commit began.

The model is the catalogue itself, of which only what must outlive the process is looked at.  In
half of the runs commits are so small that a crash comes between changes that were made together:
then what comes up need not be what was, but it must make sense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from fluffle.broker.access.access import Access, Permission, TopicPermission, User
from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.access.passwords import PasswordHash
from fluffle.broker.base.client_session import INCOMING, OUTGOING, SENT, ClientSession
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.message import RetainedMessage
from fluffle.broker.definitions.catalogue import Catalogue, restored
from fluffle.broker.definitions.changes import unfinished
from fluffle.broker.definitions.retained import (
    RetainedLimits,
    RetainRequest,
    remove_retained,
    set_retained,
)
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.fact_codec import VhostImage
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Entry, Kind
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.queues.journal import Owner
from fluffle.broker.queues.queue_api import Consumer, DeliveryBatch, SharedCredit
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import PREDECLARED, ExchangeSpec
from fluffle.broker.runtime import commits
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.vhosts import client_sessions
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.wire import FieldTable
from fluffle.storage import store as storage
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.environment import open_environment
from tests.storage.support import ManualWriter
from tests.suite.seeds import machine_settings
from tests.support.client_packets import forget_packets, keep_packets, keep_sent
from tests.support.definitions import Editor, engines
from tests.support.no_timeout import NoTimeoutSink
from tests.support.queue_host import FakeTurn
from tests.support.store import open_store
from tests.support.topologies import bindings_from

OWNER = Owner("a", 0, 1, "c")
NAMES = st.sampled_from(["a", "\N{RABBIT}\udcff"])
USERS = st.sampled_from(["guest", "zoë"])
VHOSTS = st.sampled_from(["/", "/", "w"])
SOURCES = NAMES | st.just("amq.topic")
OFTEN = st.sampled_from([True, True, True, False])
SELDOM = OFTEN.map(lambda is_often: not is_often)
ARGUMENTS: st.SearchStrategy[FieldTable] = st.sampled_from(
    [
        {},
        {"n": ("l", 1)},
        {"n": ("s", 1)},
        {"n": ("d", 0.0), "m": ("F", {"x": ("T", 5), "y": ("A", [("V", None), ("x", b"\0")])})},
        {"m": ("F", {"y": ("A", [("V", None), ("x", b"\0")]), "x": ("T", 5)}), "n": ("d", -0.0)},
        {"\udcfe": ("D", (2, 314))},
    ]
)
LIMITS = st.none() | st.integers(-1, 2**40)
PASSWORDS = st.none() | st.builds(PasswordHash, st.text(max_size=5))
BINDINGS = st.builds(
    Binding, SOURCES, NAMES, st.sampled_from(DestinationKind), st.just("k"), ARGUMENTS
)
RETAINED = RetainedLimits(messages_max=3, size_bytes_max=1 << 20)
TOPICS = st.sampled_from(["", "a", "a/ä"])
ENTRIES: dict[Kind, Entry] = {
    Kind.POLICY: {"name": "p", "definition": {"max-length": 10**30}, "pattern": "é\x00"},
    Kind.PARAMETER: {"component": "c", "name": "p", "value": [1.5, None]},
    Kind.GLOBAL_PARAMETER: {"name": "g", "value": {"deep": [[["x"]]]}},
}


class Sink(NoTimeoutSink):
    def room(self, consumer: Consumer) -> int:
        return 0

    def reserve(self, delivery_batch: DeliveryBatch) -> None:
        """There is no room."""

    def deliver(self, delivery_batch: DeliveryBatch) -> None:
        """There is no room."""

    def cancelled(self, consumer: Consumer) -> None:
        """Ignore the cancel."""

    def activity_changed(self, consumer: Consumer) -> None:
        """Ignore the change: deliveries show it."""


def durable_part(catalogue: Catalogue) -> dict[str, Any]:
    """Definitions that must survive a restart."""
    access, kept = catalogue.access, catalogue.kept
    return {
        "users": dict(access.users),
        "permissions": dict(access.permissions),
        "topic permissions": dict(access.topic_permissions),
        "kept": [
            sorted(entries, key=str)
            for entries in (kept.policies, kept.parameters, kept.global_parameters)
        ],
        "vhosts": {name: durable_in(vhost) for name, vhost in catalogue.vhosts.items()},
    }


def durable_in(vhost: VirtualHost) -> tuple[object, ...]:
    specs = [spec for spec in vhost.topology.exchanges() if spec.durable]
    exchanges = {spec.name: spec for spec in specs if spec not in PREDECLARED}
    queues = {queue.name: queue for queue in engines(vhost) if queue.spec.durable}
    ends = {
        DestinationKind.QUEUE: frozenset(queues),
        DestinationKind.EXCHANGE: frozenset(spec.name for spec in specs),
    }
    bindings = {
        binding: tuple(binding.arguments)
        for spec in specs
        for binding in bindings_from(vhost.topology, spec.name)
        if binding.destination in ends[binding.destination_kind]
    }
    journals = {name: queue.journal and queue.journal.groups for name, queue in queues.items()}
    kept = {name: queue.spec for name, queue in queues.items()}
    clients = vhost.client_sessions
    sessions = dict(clients.by_client), {each: dict(of) for each, of in clients.packets.items()}
    return vhost.settings, exchanges, kept, journals, bindings, dict(vhost.retained), sessions


class RestartMachine(RuleBasedStateMachine):
    make_disk: ClassVar[Callable[[], Callable[[], Disk]]]
    """A new disk, as something that opens it."""
    is_torn: ClassVar[bool]
    """True if a crash may come between changes that were announced together."""

    def __init__(self) -> None:
        super().__init__()
        self.open_disk = type(self).make_disk()
        self.expected: dict[int, dict[str, Any]] = {}
        """Durable definitions after each commit, by its ticket."""
        self.boot()
        self.expected[0] = durable_part(self.catalogue)

    def boot(self) -> None:
        self.store = open_store(self.open_disk(), self.writer_on)
        self.durability = durability = Durability(self.store, Turn(lambda _act: None))

        maker = LocalQueues(FakeTurn(), durability.journals)

        def make_vhost(name: str, image: VhostImage | None = None) -> VirtualHost:
            return VirtualHost(name, maker, image=image)

        access = Access(tables=durability.image.tables)
        self.catalogue = restored(durability.image, access, make_vhost)
        self.editor = Editor(self.catalogue, durability.facts)
        for decide in unfinished(self.catalogue):
            self.editor.have(decide)
        durability.forget()

    def writer_on(self, disk: Disk, wake: Callable[[], None]) -> ManualWriter:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def change(self, act: Callable[[], object]) -> None:
        """Do something that may be refused."""
        with contextlib.suppress(BrokerError):
            act()

    # Commits and ends

    @rule()
    def begin_commit(self) -> None:
        ticket = self.durability.commits.ticket
        self.durability.commits.flush()
        if self.durability.commits.ticket > ticket:
            self.expected[ticket] = durable_part(self.catalogue)

    @rule()
    def end_commit(self) -> None:
        ticket = self.durability.commits.ticket
        was_reported = durable_part(self.catalogue)
        self.writer.step()
        if self.durability.commits.ticket > ticket:  # the next one has begun
            self.expected[ticket] = was_reported

    @rule()
    def crash(self) -> None:
        expected = self.expected[self.durability.commits.durable]
        self.boot()
        if not self.is_torn:
            assert durable_part(self.catalogue) == expected
        self.begin_again()

    @rule()
    def stop(self) -> None:
        was = durable_part(self.catalogue)
        self.durability.close(
            queue for vhost in self.catalogue.vhosts.values() for queue in engines(vhost)
        )
        self.boot()
        assert durable_part(self.catalogue) == was
        self.begin_again()

    def begin_again(self) -> None:
        """There is no log without its queue."""
        self.expected = {0: durable_part(self.catalogue)}
        groups: set[int] = set()
        for vhost in self.catalogue.vhosts.values():
            for queue in engines(vhost):
                assert queue.journal is not None
                groups.update(queue.journal.groups)
        assert set(self.store.log.groups()) <= groups


class DefinitionsMachine(RestartMachine):
    """Users, virtual hosts, and what is about them."""

    @rule(user=st.builds(User, USERS, PASSWORDS, st.just(("t",)), st.builds(UserLimits, LIMITS)))
    def put_user(self, user: User) -> None:
        self.editor.put_user(user)

    @rule(name=USERS)
    def delete_user(self, name: str) -> None:
        self.editor.delete_user(name)

    @rule(user=USERS, vhost=VHOSTS, given=st.booleans())
    def permission(self, user: str, vhost: str, *, given: bool) -> None:
        editor = self.editor
        if given:
            editor.put_permission(user, vhost, Permission(".*", user, ""))
        else:
            editor.clear_permission(user, vhost)

    @rule(user=USERS, vhost=VHOSTS, exchange=NAMES, given=st.booleans())
    def topic_permission(self, user: str, vhost: str, exchange: str, *, given: bool) -> None:
        editor = self.editor
        if given:
            editor.put_topic_permission(user, vhost, exchange, TopicPermission("^{username}", ""))
        else:
            editor.clear_topic_permission(user, vhost, exchange)

    @rule(vhost=VHOSTS)
    def make(self, vhost: str) -> None:
        self.editor.vhost(vhost)

    @rule(vhost=VHOSTS)
    def unmake(self, vhost: str) -> None:
        self.editor.delete_vhost(vhost)

    @rule(vhost=VHOSTS, limit=LIMITS, metadata=st.none() | st.just({"tags": ["é"]}))
    def configure(
        self, vhost: str, limit: int | None, metadata: Mapping[str, object] | None
    ) -> None:
        limits = None if limit is None else VhostLimits(max_connections=limit)
        self.editor.vhost(vhost, limits=limits, metadata=metadata)

    @rule(kind=st.sampled_from(sorted(ENTRIES)), vhost=VHOSTS)
    def keep(self, kind: Kind, vhost: str) -> None:
        where = {} if kind is Kind.GLOBAL_PARAMETER else {"vhost": vhost}
        self.editor.keep(kind, where | ENTRIES[kind])

    @rule(
        vhost=VHOSTS,
        topic=st.sampled_from(["", "a", "a/ä"]),
        content=st.none() | st.binary(max_size=3),
    )
    def retain(self, vhost: str, topic: str, content: bytes | None) -> None:
        if content is None:
            self.editor.have(partial(remove_retained, self.catalogue, vhost, [topic]))
            return
        request = RetainRequest(vhost, topic)
        request.message = RetainedMessage(content, b"", "guest", 1, 0)
        self.editor.have(partial(set_retained, self.catalogue, RETAINED, [request]))

    @rule(
        vhost=VHOSTS,
        client_id=NAMES,
        ended_at_ms=st.none() | st.integers(0, 1),
        record=st.binary(max_size=3),
    )
    def keep_session(
        self, vhost: str, client_id: str, ended_at_ms: int | None, record: bytes
    ) -> None:
        there = self.catalogue.vhosts.get(vhost)
        if there is None:
            return
        if ended_at_ms is None:
            self.editor.have(partial(client_sessions.end_session, there, client_id))
            return
        session = ClientSession("guest", 60, ended_at_ms, "node", record)
        self.editor.have(partial(client_sessions.keep_session, there, client_id, session))

    @rule(
        vhost=VHOSTS,
        client_id=NAMES,
        direction=st.sampled_from([INCOMING, OUTGOING, SENT]),
        packet_ids=st.sets(st.integers(1, 3)),
        kept=st.booleans(),
    )
    def packets(
        self, vhost: str, client_id: str, direction: str, packet_ids: set[int], *, kept: bool
    ) -> None:
        there = self.catalogue.vhosts.get(vhost)
        if there is None:
            return
        if not kept:
            change = forget_packets(there, client_id, direction, packet_ids)
        elif direction == SENT:
            messages = dict.fromkeys(packet_ids, len(packet_ids))
            change = keep_sent(there, client_id, messages)
        else:
            change = keep_packets(there, client_id, direction, packet_ids)
        self.editor.have(lambda: change)


class TopologyMachine(RestartMachine):
    """Exchanges, queues and bindings."""

    @rule(
        vhost=VHOSTS,
        spec=st.builds(
            ExchangeSpec,
            NAMES,
            st.sampled_from(["direct", "headers"]),
            OFTEN,
            SELDOM,
            SELDOM,
            ARGUMENTS,
        ),
    )
    def declare_exchange(self, vhost: str, spec: ExchangeSpec) -> None:
        self.change(lambda: self.editor.inside(vhost).declare_exchange(spec))

    @rule(vhost=VHOSTS, name=SOURCES)
    def delete_exchange(self, vhost: str, name: str) -> None:
        self.change(lambda: self.editor.inside(vhost).delete_exchange(name))

    @rule(
        vhost=VHOSTS,
        declared=st.builds(Declaration, NAMES, OFTEN, SELDOM, SELDOM, ARGUMENTS),
    )
    def declare_queue(self, vhost: str, declared: Declaration) -> None:
        self.change(lambda: self.editor.inside(vhost).declare_queue(declared, OWNER))

    @rule(vhost=VHOSTS, name=NAMES, how=st.sampled_from(["delete", "cancel", "publish", "owner"]))
    def touch_queue(self, vhost: str, name: str, how: str) -> None:
        editor = self.editor.inside(vhost)
        host = editor.vhost
        queue = host.queues.get(name)
        if how == "owner":
            editor.drop_owned(OWNER)
        elif queue is None:
            return
        elif how == "delete":
            editor.delete_queue(queue)
        elif how == "publish":
            queue.enqueue([host.origin("", name)] * 3, [b"m"] * 3, 3, persistent=True)
        else:
            consumer = Consumer("c", queue, Sink(), shared=SharedCredit(), no_ack=False)
            host.attach(consumer)
            editor.detach(consumer)

    @rule(vhost=VHOSTS, binding=BINDINGS)
    def bind(self, vhost: str, binding: Binding) -> None:
        self.change(lambda: self.editor.inside(vhost).bind(binding, OWNER))

    @rule(vhost=VHOSTS, at=st.integers(0, 7))
    def unbind(self, vhost: str, at: int) -> None:
        """Remove one of the bindings, with its arguments in another order."""
        editor = self.editor.inside(vhost)
        host = editor.vhost
        bound = [
            binding
            for spec in host.topology.exchanges()
            for binding in bindings_from(host.topology, spec.name)
        ]
        if bound:
            binding = bound[at % len(bound)]
            reversed_ = dict(reversed(binding.arguments.items()))
            editor.unbind(replace(binding, arguments=reversed_), OWNER)

    @rule(vhost=VHOSTS, ends=SELDOM)
    def make(self, vhost: str, *, ends: bool) -> None:
        """A virtual host in which there is something to bind."""
        if ends:
            self.editor.delete_vhost(vhost)
        editor = self.editor.inside(vhost)
        for name in ("a", "\N{RABBIT}\udcff"):
            self.change(partial(editor.declare_exchange, ExchangeSpec(name, durable=True)))
            self.change(partial(editor.declare_queue, Declaration(name, durable=True), OWNER))


def new_in_memory() -> Callable[[], Disk]:
    disk = MemoryDisk()
    return lambda: disk


def new_on_disk(folder: Path) -> Callable[[], Disk]:
    directory = Path(mkdtemp(dir=folder))
    opened: list[Disk] = []

    def open_again() -> Disk:
        while opened:
            opened.pop().close()
        opened.append(open_environment(directory))
        return opened[0]

    return open_again


@pytest.fixture(params=[False, True], ids=["whole", "torn"])
def is_torn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(commits, "BATCH_BYTES_MAX", 100)
        monkeypatch.setattr(storage, "COMMIT_BYTES_MAX", 100)
    return bool(request.param)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("memory", 150),
        pytest.param("lmdb", 50, marks=pytest.mark.slow("it syncs to a disk")),
    ],
)
@pytest.mark.parametrize("machine", [DefinitionsMachine, TopologyMachine])
def test_what_is_durable_comes_up(
    machine: type[RestartMachine], kind: str, count: int, is_torn: bool, tmp_path: Path
) -> None:
    make = new_in_memory if kind == "memory" else partial(new_on_disk, tmp_path)
    members = {"make_disk": staticmethod(make), "is_torn": is_torn}
    run_state_machine_as_test(
        type("Machine", (machine,), members),
        settings=machine_settings(examples=count, stateful_step_count=50),
    )
