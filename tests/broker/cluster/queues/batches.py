"""Batches on their way to a queue that is led elsewhere, and what must become of them.

The edge and the leader are real, and so are the bytes between them.  The model is small: a message
that was said to be taken lies in the queue, once, in order and with what its publisher said of it;
one that was not taken does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import NamedTuple, Protocol, cast

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.cluster.queues.classic_queues import ClassicQueueHost, ClassicQueueLeader
from fluffle.broker.cluster.queues.pending_replies import Deletions, QuorumErrorTexts
from fluffle.broker.cluster.queues.ports import OnEvents, SessionDirectory
from fluffle.broker.cluster.queues.session_queue import SessionQueue
from fluffle.broker.durability.durability import Durability
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.metadata import LOCAL_READ_BARRIER
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.conversion_buffer import ConversionBuffer, ConversionHold
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import NEVER_MS, Lifetimes
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.publish_target import DeadLetterIds, PublishReceipt
from fluffle.broker.queues.queue_api import DeliverySource
from fluffle.broker.queues.queue_view import messages_from
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import VERSION
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.quorum.state import QueueImage
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.runtime.turn import Turn
from fluffle.protocol.properties import Properties, build_content, encode_properties
from fluffle.protocol.wire import FieldTable
from fluffle.storage.disk import Disk, MemoryDisk
from fluffle.storage.store import Writer
from tests.storage.support import ManualWriter
from tests.support.fakes import Scheduler
from tests.support.leader_services import FakeLeaderServices
from tests.support.manual_clock import ManualClock
from tests.support.payloads import joined
from tests.support.queue_arguments import queue_arguments
from tests.support.store import open_store

GROUP, SOURCE = 3, 8
"""The queue's, and that of one whose dead letters come here."""
NOW_MS = 5_000_000
BROUGHT = Counts(3, 1)
"""Delivery counts that dead letters bring along."""
NODE, BOOT = "near", m.SessionBoot(1, 100)
ALIVE, DEAD = Origin("", "q"), Origin("x", "q", MessageAnnotations.DIED)


class Sent(NamedTuple):
    """A message, as its publisher has it."""

    content: bytes
    lifetime_ms: int | None
    persistent: bool
    key: int | None = None
    """Deduplication key, if it names one."""
    number: int | None = None
    """Sequence number of a dead letter in its source queue."""

    @property
    def name(self) -> object:
        """Name under which it is recognised when it is sent again."""
        return self.key if self.key is not None else self.content

    @property
    def counts(self) -> Counts:
        """Delivery counts that it brings along."""
        return NEW if self.number is None else BROUGHT

    @property
    def expires_at_ms(self) -> int:
        return NEVER_MS if self.lifetime_ms is None else NOW_MS + self.lifetime_ms


class Leader(Protocol):
    """Leader of the queue, and the sessions with it."""

    own: m.Leader

    @property
    def sessions(self) -> SessionServer: ...

    def turn(self) -> None:
        """Decide all requests."""

    def commit(self) -> bool:
        """Commit; True if anything became durable."""

    def lying(self) -> list[tuple[bytes, int, Counts]]:
        """Stored messages in order: content, expiry, delivery counts."""

    def stored(self) -> list[bytes]:
        """Contents that would survive a restart."""


class Classic:
    """The home of a classic queue with a disk."""

    def __init__(self, spec: QueueSpec) -> None:
        self.scheduler = Scheduler()
        self.disk = MemoryDisk()
        self.turning = Turn(self.scheduler.call_soon)
        durability = Durability(open_store(self.disk, self.make_writer), self.turning)
        self.commits = durability.commits
        local = LocalQueues(self.turning, durability.journals, time=self)  # type: ignore[arg-type]
        self.groups = groups = durability.journals.new_groups()
        definition = QueueDefinition(spec, groups, id=GROUP, home="far")
        self.queue = local.make_with(durability.journals.create(groups), definition, "/")
        self.own = m.Leader("far", m.SessionBoot(1, 7), 1)
        self.reported: list[Effect] = []
        """All that has left a home without streams."""
        self.host = ClassicQueueHost(
            self.queue, self.own, vhost="/", commits=self.commits,
            on_unused=lambda _queue: None, on_output=lambda: None,
        )  # fmt: skip

    def alone(self) -> ClassicQueueLeader:
        """A home without streams."""
        return ClassicQueueLeader(self.queue, RecordedSessions(self.reported), self.commits)

    def make_writer(self, disk: Disk, wake: Callable[[], None]) -> Writer:
        self.writer = ManualWriter(disk, wake)
        return self.writer

    def now_ms(self) -> int:
        return NOW_MS

    def wake(self, _queue: DeliverySource, _at_ms: int) -> None:
        """Time stands still."""

    @property
    def sessions(self) -> SessionServer:
        return self.host.sessions

    def turn(self) -> None:
        self.scheduler.run()

    def commit(self) -> bool:
        has_written = self.writer.step()
        self.turn()
        return has_written

    def lying(self) -> list[tuple[bytes, int, Counts]]:
        stocks = self.queue.ready_view.stocks
        return [
            (each.content, each.expires_at_ms, each.counts) for each in messages_from(stocks, 0)
        ]

    def stored(self) -> list[bytes]:
        durability = Durability(open_store(self.disk), Turn(Scheduler().call_soon))
        journal = durability.journals.reopen(self.groups)
        return [
            content
            for stretch in journal.recover().stored
            for part in journal.load(stretch.first, stretch.stop)
            for content in part.contents
        ]

    def hold(self) -> ConversionBuffer:
        """From now on nothing comes in."""
        self.queue.pause = pause = ConversionHold("queue 'q' in vhost '/'")
        pause.standstill = standstill = ConversionBuffer(
            self.queue, partial(when_safe, self.commits)
        )
        return standstill

    def let_in(self) -> None:
        """Let messages in again, as if never paused."""
        assert self.queue.pause is not None
        standstill, self.queue.pause = self.queue.pause.standstill, None
        if standstill is not None:
            standstill.give_back(self.queue)
        self.turn()


class RecordedSessions:
    """The `SessionsHost` of a home without streams: what leaves is kept."""

    def __init__(self, reported: list[Effect]) -> None:
        self.reported = reported

    def room(self, _holder: int) -> int:
        return 1

    def release(self, effects: list[Effect]) -> None:
        self.reported += effects

    def unused(self, _queue: Queue) -> None:
        """Ignore disuse: the queue stays."""


class Quorum(FakeLeaderServices):
    """The leader of a quorum queue; what is proposed is committed when a test says so."""

    def __init__(self, spec: QueueSpec, log: list[bytes] | None = None, term: int = 1) -> None:
        clock = ManualClock(wall_ms=NOW_MS)
        super().__init__(spec, log if log is not None else [], clock, GROUP)
        self.term = term
        self.own = m.Leader("far", m.SessionBoot(1, 200), term)
        self.image = QueueImage()
        for index, payload in enumerate(self.entries, 1):
            self.image.apply(index, payload)
        self.is_touched = True
        self.has_room = True
        self.reported: list[Effect] = []
        """All that has left."""
        self.led = Leadership(self.image, self, self, term=term)
        self.sessions = SessionServer(GROUP, self.own, self.image.state, self.led, 0)

    def may_grow(self) -> bool:
        return self.has_room

    def room(self, holder: int) -> int:
        return self.sessions.room(holder)

    def readers(self) -> dict[str, int]:
        return {"a 1": VERSION}

    def release(self, effects: list[Effect]) -> None:
        self.reported += effects
        self.sessions.release(effects)

    def turn(self) -> None:
        while self.is_touched:
            self.is_touched = False
            self.led.pump()

    def commit(self) -> bool:
        self.turn()
        if not self.proposals:
            return False
        payload, on_outcome = self.proposals.popleft()
        self.entries.append(payload)
        self.image.apply(len(self.entries), payload)
        self.image.state.check()
        on_outcome(True)
        self.turn()
        return True

    def next(self) -> Quorum:
        """Another leads, with what is committed."""
        self.led.end()
        return Quorum(self.spec, self.entries, self.term + 1)

    def lying(self) -> list[tuple[bytes, int, Counts]]:
        stocks = self.led.queue.ready_view.stocks
        return [
            (each.content, each.expires_at_ms, each.counts) for each in messages_from(stocks, 0)
        ]

    def stored(self) -> list[bytes]:
        return [content for content, *_ in self.lying()]


class BatchSender:
    """Sessions of a client node, and its route to the leader: frames on their way."""

    is_away = False

    def __init__(self, leading: Leader) -> None:
        self.leading = leading
        self.session = SessionClient(GROUP, BOOT)
        self.to: deque[bytes] = deque()
        self.back: deque[bytes] = deque()
        self.is_linked = False

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> BatchSender:
        assert definition.id == GROUP
        self.on_events = on_events
        return self

    def touch(self) -> None:
        """Each step looks."""

    def close(self, queue: int) -> None:
        assert queue == GROUP

    def link(self) -> None:
        self.to.clear()
        self.back.clear()
        self.is_linked = True
        self.leading.sessions.linked(NODE, BOOT)
        self.session.connect(None)
        self.session.connect(self.leading.own)

    def cut(self) -> None:
        """Cut the link; messages under way are lost."""
        self.is_linked = False
        self.to.clear()
        self.back.clear()
        self.leading.sessions.unlinked(NODE, now_ms=0)
        self.session.connect(None)

    def send(self) -> None:
        self.leading.turn()
        while self.is_linked and (sent := self.session.output()) is not None:
            self.to.append(joined(encode(sent[1])))
        for _node, frame in self.leading.sessions.output(lambda _node: True):
            self.back.append(joined(encode(frame)))

    def take(self) -> bool:
        """The leader gets a frame, if there is one."""
        self.send()
        if not (self.is_linked and self.to):
            return False
        frame = decode(self.to.popleft())
        assert isinstance(frame, m.ClientFrame)
        self.leading.sessions.receive(NODE, frame)
        return True

    def tell(self) -> bool:
        """The edge gets one."""
        self.send()
        if not (self.is_linked and self.back):
            return False
        frame = decode(self.back.popleft())
        assert isinstance(frame, m.LeaderFrame)
        self.on_events(apply_frame(self.session, frame))
        return True


class Batches:
    """A queue, its edge and its publishers."""

    def __init__(self, queue_type: QueueType, **said: int | str | bool) -> None:
        self.queue_type = queue_type
        self.spec = QueueSpec(
            "q", durable=True, queue_type=queue_type, arguments=queue_arguments(**said)
        )
        self.leading: Leader = self.begin()
        self.sender = BatchSender(self.leading)
        definition = QueueDefinition(self.spec, id=GROUP)
        later = Scheduler().call_later
        directory, deletions = (
            cast(SessionDirectory, self.sender),
            Deletions(LOCAL_READ_BARRIER, {}),
        )
        self.session = SessionQueue(
            definition, "/", directory, later, QuorumErrorTexts(), deletions=deletions
        )
        self.sent: list[Sent] = []
        self.reported: dict[int, bool] = {}
        """True if it was accepted, by place in `sent`."""
        self.may_refuse = "max_length" in said
        self.sender.link()

    def begin(self) -> Leader:
        is_quorum = self.queue_type is QueueType.QUORUM
        return Quorum(self.spec) if is_quorum else Classic(self.spec)

    def elect(self) -> None:
        assert isinstance(self.leading, Quorum)
        self.leading = self.sender.leading = self.leading.next()
        self.sender.link()

    def leading_commits(self) -> bool:
        """Commit whatever leads by then."""
        return self.leading.commit()

    def publish(self, run: list[Sent], *, is_alike: bool = False) -> None:
        """Together; `is_alike`: one lifetime is said for all."""
        persistent, first = run[0].persistent, len(self.sent)
        lifetimes: Lifetimes = None
        if run[0].lifetime_ms is not None:
            lifetimes = [each.lifetime_ms or 0 for each in run]
            if is_alike:
                lifetimes = lifetimes[0]
        contents = [each.content for each in run]
        numbers = [each.number for each in run if each.number is not None]
        dead_letter_ids = DeadLetterIds(SOURCE, 1, 1, [], numbers) if numbers else None
        origins = [DEAD if numbers else ALIVE] * len(run)
        self.sent += run
        result = self.session.enqueue_dead_letters(
            origins, contents, sum(map(len, contents)),
            persistent=persistent, expiration_ms=lifetimes,
            dead_letter_ids=dead_letter_ids, counts=run[0].counts,
        )  # fmt: skip
        assert isinstance(result, PublishReceipt)
        assert result.count == len(run)
        result.then(partial(self.tell, first))

    def tell(self, first: int, start: int, stop: int, *, is_accepted: bool) -> None:
        assert start < stop, "something is reported of nothing"
        for place in range(first + start, first + stop):
            assert place not in self.reported, "it is reported twice"
            assert place < len(self.sent), "there is a report of what was not sent"
            assert is_accepted or self.may_refuse, "there is room"
            self.reported[place] = is_accepted

    def rest(self) -> None:
        """Deliver everything that is under way."""
        if not self.sender.is_linked:
            self.sender.link()
        for _ in range(10_000):
            if not (self.sender.take() or self.sender.tell() or self.leading.commit()):
                break
        else:
            raise AssertionError("it never comes to rest")

    def check(self) -> None:
        """At rest."""
        assert [*sorted(self.reported)] == [*range(len(self.sent))], "publishers wait for ever"
        kept, is_quorum = [*self.kept()], self.queue_type is QueueType.QUORUM
        assert self.leading.lying() == [
            (each.content, each.expires_at_ms, each.counts if is_quorum else NEW) for each in kept
        ]
        stored = [each.content for each in kept if each.persistent or is_quorum]
        assert self.leading.stored() == stored

    def kept(self) -> Iterator[Sent]:
        """Accepted messages that were new."""
        had: set[object] = set()
        for place, each in enumerate(self.sent):
            if not self.reported[place] or each.name in had:
                continue
            if each.number is None or self.queue_type is QueueType.QUORUM:
                had.add(each.name)
            yield each


def content_of(body: str, key: int | None, priority: int | None = None) -> bytes:
    headers: FieldTable = {}
    if key is not None:
        headers = {"x-deduplication-header": ("I", key)}
    properties = Properties(headers=headers or None, priority=priority)
    return build_content(encode_properties(properties), body.encode())


class BatchMaker:
    """Random batches, as publishers might send them."""

    def __init__(self, chance: Random, *, has_keys: bool) -> None:
        self.chance = chance
        self.has_keys = has_keys
        self.count = 0

    def run(self) -> tuple[list[Sent], bool]:
        """And whether one lifetime is said for all."""
        chance = self.chance
        count = chance.choice([1, 1, 2, 3, 5, 8, 13])
        persistent = self.has_keys or chance.random() < 0.7  # of those of a key, the safer stays
        how = chance.choice(["never", "alike", "each", "each"])
        alike = chance.randrange(1, 1_000) * 1_000
        sents = []
        for _ in range(count):
            self.count += 1
            lifetime = {"never": None, "alike": alike}.get(how, self.count * 1_000)
            key = chance.randrange(6) if self.has_keys and chance.random() < 0.5 else None
            body = f"{self.count} ".ljust(chance.choice([4, 4, 40]), ".")
            sents.append(Sent(content_of(body, key), lifetime, persistent, key, None))
        return sents, how == "alike"

    def dead(self) -> tuple[list[Sent], bool]:
        """Dead letters, of which some may have come before: a number is always the same letter."""
        first = self.chance.randrange(1, 30)
        numbers = sorted(self.chance.sample(range(first, first + 10), self.chance.randint(1, 9)))
        return [
            Sent(content_of(f"dead {number}", None), number * 7_000, True, None, number)
            for number in numbers
        ], False
