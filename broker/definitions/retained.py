"""Retained messages as definitions: what is kept, what it may be, and when it goes.

    put --> waiting, one a topic --> a change of some --> metadata --> image on every node
              ^                         |
              +--- a newer one takes its place, and what waited waits for that

A change goes with the next commit of the node; one is on its way at a time, and the next one grows
meanwhile.  So what is retained is so in the order of publishing, and a topic that is published to
all the time costs no more than one message a change.  A topic has one message, so the log of the
metadata is as large as what has been retained since its last snapshot.

`stored_at_ms` and expiries are in common time: a message is gone for all at once, when its time has
come; the node that orders the changes then removes it.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fluffle.broker.base.callbacks import call_listener
from fluffle.broker.base.errors import BrokerError, NotFound, PreconditionFailed
from fluffle.broker.base.logs import LimitedLog
from fluffle.broker.base.message import NEVER_EXPIRES_MS, RetainedMessage
from fluffle.broker.base.traffic import ClientDrop
from fluffle.broker.metadata.change import NOTHING, Change, CountLimit, Fact, Kind
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.metadata.nodes import RETAINS, check_supported
from fluffle.broker.queues.publish_target import (
    EnqueueResult,
    PublishReceipt,
    release_publishers,
)
from fluffle.broker.runtime.commits import when_safe
from fluffle.broker.vhosts.client_sessions import session_name
from fluffle.broker.vhosts.retained import NO_PENDING_TOPICS, is_alive, size_of
from fluffle.protocol.properties import body_size

if TYPE_CHECKING:
    from fluffle.broker.base.message import Origin
    from fluffle.broker.definitions.catalogue import Catalogue
    from fluffle.broker.metadata.metadata import Metadata
    from fluffle.broker.queues.expiry_times import Lifetimes
    from fluffle.broker.queues.publish_target import BlockedPublisher
    from fluffle.broker.runtime.runtime import Runtime
    from fluffle.broker.vhosts.retained import RetainedTopics
    from fluffle.broker.vhosts.vhost import VirtualHost

TOPICS_AT_ONCE = 128
"""Most topics of one change, which every node of a cluster applies in one turn."""

CHANGE_BYTES_MAX = 1 << 18
"""Bytes of messages in one change, which is larger only for a single message."""

WAITING_BYTES_MAX = 8 << 20
"""Beyond this publishers wait whose protocol says so."""

WAITER_BYTES = 512
"""Memory that a message takes which waits, beside its content."""

RECHECK_MS = 10_000
"""A node that does not order the changes looks so often whether it does."""

Done: TypeAlias = Callable[[], None]
MakeTopic: TypeAlias = Callable[[str], str | None]
"""The topic of a routing key; None if it is none that is retained."""
Failed: TypeAlias = Callable[[BrokerError], None]

logger = logging.getLogger(__name__)


class RetainedLimitReached(PreconditionFailed):
    """Raised for a new topic where a virtual host has as many as it may, or as many bytes."""


class RetainedLimits(NamedTuple):
    """Limits of what one virtual host retains: beyond them messages of new topics are not."""

    messages_max: int
    size_bytes_max: int


class RetainRequest:
    """The newest message of one topic that waits to be retained, or None to have it removed."""

    __slots__ = (
        "client_id", "error", "message", "session", "size_bytes", "topic", "vhost", "waiters",
    )  # fmt: skip

    def __init__(self, vhost: str, topic: str) -> None:
        self.vhost = vhost
        self.topic = topic
        self.message: RetainedMessage | None = None
        self.size_bytes = 0
        """Memory that it takes."""
        self.waiters: list[tuple[Done, Failed]] = []
        self.error: BrokerError | None = None
        """Why it was left out of the last change that was decided."""
        self.client_id, self.session = "", ("", 0)
        """Client that published it, and the node and number of its session, if that is kept."""

    def is_overtaken(self, vhost: VirtualHost) -> bool:
        """True if the client has been at another node since, where it publishes again what was not
        answered: later messages may have been answered there."""
        kept = vhost.client_sessions.by_client.get(self.client_id)
        return self.is_of_kept_session and (
            kept is None or (kept.node, kept.number) != self.session
        )

    @property
    def is_of_kept_session(self) -> bool:
        return bool(self.session[0])

    def answer(self) -> None:
        """Call the waiting publisher back with the outcome."""
        for done, failed in self.waiters:
            error = self.error
            call_listener(done if error is None else partial(failed, error))


class RetainedStore:
    """Store of the retained messages of a node or a cluster."""

    def __init__(
        self,
        catalogue: Catalogue,
        metadata: Metadata,
        limits: RetainedLimits,
        runtime: Runtime,
        *,
        now_ms: Callable[[], int],
        is_leader: Callable[[], bool],
    ) -> None:
        """Make the store; `is_leader` says whether this node orders changes."""
        self._catalogue = catalogue
        self._metadata = metadata
        self._limits = limits
        self._runtime = runtime
        self.now_ms = now_ms
        """Common time, since 1970."""
        self._is_leader = is_leader
        self.exchanges: dict[str, MakeTopic] = {}
        """Exchanges whose messages are retained if they ask for it."""
        self._waiting: dict[tuple[str, str], RetainRequest] = {}
        """Waiting requests by virtual host and topic."""
        self._in_flight: list[RetainRequest] = []
        self._waiting_bytes = 0
        """Size of all that waits or is on its way."""
        self.full_targets: list[RetainTarget] = []
        """Targets whose publishers may wait for room."""
        self.blocked_publishers: list[BlockedPublisher] = []
        """Publishers that wait for room themselves."""
        self._is_sending = False
        self._log = LimitedLog(logger, runtime.clock)
        catalogue.retained_listeners.append(self._expire_in_time)
        for vhost in catalogue.vhosts.values():
            self._expire_in_time(vhost.retained)

    def put(
        self,
        vhost: str,
        topic: str,
        message: RetainedMessage | None,
        done: Done,
        failed: Failed,
        *,
        client_id: str = "",
    ) -> None:
        """Retain a message as the last of its topic, or none; `done` once that is durable.

        `client_id`: the client that publishes it.  Should its session move before, it is left
        out.
        """
        request = self._waiting.get((vhost, topic))
        if request is None:
            request = self._waiting[vhost, topic] = RetainRequest(vhost, topic)
        size_bytes = WAITER_BYTES + (0 if message is None else len(message.content))
        if request.message is not None:
            size_bytes -= len(request.message.content)
        request.size_bytes += size_bytes
        self._waiting_bytes += size_bytes
        request.message = message
        request.waiters.append((done, failed))
        found = self._catalogue.vhosts.get(vhost)
        kept = None if found is None else found.client_sessions.by_client.get(client_id)
        request.client_id = client_id
        request.session = ("", 0) if kept is None else (kept.node, kept.number)
        if found is not None and found.retained.pending is NO_PENDING_TOPICS:
            found.retained.pending = PendingInVhost(self, vhost)
        self._runtime.commits.add_writer(self)

    def target(
        self, vhost: str, exchange: str, user: str, dropped: Counter[ClientDrop]
    ) -> RetainTarget | None:
        """Return where messages are retained that a user publishes to an exchange; None if they
        are not.  Those that cannot be are counted in `dropped`."""
        make_topic = self.exchanges.get(exchange)
        if make_topic is None:
            return None
        return RetainTarget(self, vhost, user, make_topic, dropped)

    @property
    def is_full(self) -> bool:
        """True if so much waits that publishers have to wait."""
        return self._waiting_bytes > WAITING_BYTES_MAX

    def _answer(self, requests: list[RetainRequest]) -> None:
        """Answer requests that have been decided, and let publishers go on that wait."""
        for request in requests:
            if isinstance(request.error, RetainedLimitReached):
                self._log.warn("retained_limit_reached", vhost=request.vhost)
            request.answer()
        if not self.is_full:
            targets, self.full_targets = self.full_targets, []
            for target in targets:
                release_publishers(target, sys.maxsize)
            release_publishers(self, sys.maxsize)

    def write(self) -> None:
        """Have what waits retained: a commit begins."""
        self._send()

    def unapplied(self, vhost: str) -> dict[str, RetainedMessage]:
        """Return what waits or is under way in a virtual host, and is no removal."""
        self._send()
        requests = (*self._in_flight, *self._waiting.values())
        return {
            each.topic: each.message
            for each in requests
            if each.vhost == vhost and each.message is not None
        }

    def _send(self) -> None:
        """Have metadata changed, again and again if that is done at once."""
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while self._waiting and not self._in_flight:  # mutant: RT1
                self._in_flight = requests = self._taken()
                self._change(partial(set_retained, self._catalogue, self._limits, requests))
        finally:
            self._is_sending = False

    def _change(self, decide: Decide) -> None:
        try:
            self._metadata.change(decide, self._done, self._failed)
        except BrokerError as error:
            self._failed(error)

    def _taken(self) -> list[RetainRequest]:
        """Take those that have waited longest."""
        requests: list[RetainRequest] = []
        size_bytes = 0
        for key in tuple(islice(self._waiting, TOPICS_AT_ONCE)):
            message = self._waiting[key].message
            size_bytes += len(message.content) if message is not None else 0
            if requests and size_bytes > CHANGE_BYTES_MAX:
                break
            requests.append(self._waiting.pop(key))
        return requests

    def _done(self) -> None:
        requests, self._in_flight = self._in_flight, []
        self._waiting_bytes -= sum(request.size_bytes for request in requests)
        when_safe(self._runtime.commits, partial(self._answer, requests))
        self._send()

    def _failed(self, error: BrokerError) -> None:
        requests, self._in_flight = self._in_flight, []
        for request in requests:
            request.error = request.error or error
        self._waiting_bytes -= sum(request.size_bytes for request in requests)
        self._answer(requests)
        self._send()

    # The end of a message

    def _expire_in_time(self, topics: RetainedTopics) -> None:
        """Look again when the first of these messages expires."""
        due_ms = topics.next_expiry_ms
        if due_ms is not None:
            self._runtime.timers.wake(topics, max(0, due_ms - self.now_ms()), self._expire)

    def _expire(self, topics: RetainedTopics) -> None:
        if not self._is_leader():  # mutant: RT2
            if topics.next_expiry_ms is not None:
                self._runtime.timers.wake(topics, RECHECK_MS, self._expire)
            return
        now_ms = self.now_ms()
        due = topics.due(now_ms, TOPICS_AT_ONCE)
        for vhost in self._catalogue.vhosts.values():
            if due and vhost.retained is topics:
                self._metadata.ensure(partial(remove_expired, self._catalogue, vhost, due, now_ms))
        self._expire_in_time(topics)


@dataclass(slots=True, eq=False)
class RetainTarget:
    """Retained messages of one virtual host as a target of publishes: a `PublishTarget`, which
    answers once a message is kept, or refused where there are as many as may be."""

    name = "retained messages"

    _store: RetainedStore
    _vhost: str
    _user: str
    _make_topic: MakeTopic
    _dropped: Counter[ClientDrop]
    blocked_publishers: list[BlockedPublisher] = field(default_factory=list)

    @property
    def is_behind(self) -> bool:
        """True if publishers should slow down."""
        return self._store.is_full

    is_full = is_behind

    def enqueue(
        self,
        origins: list[Origin],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Lifetimes = None,
    ) -> EnqueueResult | PublishReceipt:
        """Retain the last of messages of one topic; an empty one removes what there was."""
        del content_bytes, persistent  # all are kept on disk
        store, origin, content = self._store, origins[-1], contents[-1]
        topic, message = self._make_topic(origin.routing_key), None
        if topic is None:
            return EnqueueResult.ACCEPTED
        if body_size(content):
            lifetime_ms = expiration_ms[-1] if isinstance(expiration_ms, list) else expiration_ms
            now_ms, expires_at_ms = store.now_ms(), NEVER_EXPIRES_MS
            if lifetime_ms is not None:
                expires_at_ms = now_ms + max(1, lifetime_ms)
            message = RetainedMessage(
                content, origin.annotations, self._user, now_ms, expires_at_ms
            )
        receipt = PublishReceipt(len(contents))
        done = partial(receipt.on_outcome, 0, receipt.count, is_accepted=True)
        store.put(self._vhost, topic, message, done, partial(self._refused, receipt))
        if store.is_full:
            store.full_targets.append(self)
        return receipt

    def _refused(self, receipt: PublishReceipt, _error: BrokerError) -> None:
        self._dropped[ClientDrop.NOT_RETAINED] += 1
        receipt.on_outcome(0, receipt.count, is_accepted=False)


class PendingInVhost:
    """The `PendingTopics` of one virtual host."""

    __slots__ = ("_store", "_vhost")

    def __init__(self, store: RetainedStore, vhost: str) -> None:
        self._store = store
        self._vhost = vhost

    def flush(self) -> dict[str, RetainedMessage]:
        return self._store.unapplied(self._vhost)


# Decisions


def set_retained(
    catalogue: Catalogue, limits: RetainedLimits, requests: Iterable[RetainRequest]
) -> Change:
    """Retain what is requested; each request learns whether it is left out.

    PreconditionFailed as long as there is a node whose version does not retain messages.
    """
    rests_on = [*check_supported(RETAINS, catalogue.nodes.entries)]
    removes, puts = [], []
    rooms: dict[str, RetainedRoom] = {}
    for request in requests:
        vhost = catalogue.vhosts.get(request.vhost)
        request.error = None
        if vhost is None:
            request.error = NotFound(f"there is no vhost '{request.vhost}'")
            continue
        if request.is_overtaken(vhost):  # mutant: RT6
            continue
        if request.is_of_kept_session:  # mutant: RT7
            rests_on.append(session_name(vhost.name, request.client_id))
        before = vhost.retained.find(request.topic)
        fact = retained_fact(vhost.name, request.topic, request.message or before)
        if request.message is None:
            rests_on.append(fact.name)
            removes += [fact] if before is not None else []
            continue
        room = rooms.setdefault(vhost.name, RetainedRoom(limits, vhost.retained))
        if not room.admits(request.topic, before, request.message):
            request.error = RetainedLimitReached(
                f"vhost '{vhost.name}' retains as many messages as it may"
            )
            continue
        puts.append(fact)
    counts = Counter({name: room.new for name, room in rooms.items()})
    return Change(
        tuple(removes),
        tuple(puts),
        tuple(rests_on) if removes or puts else (),
        tuple(
            CountLimit(Kind.RETAINED, vhost, limits.messages_max - count + 1)
            for vhost, count in counts.items()
            if count
        ),
    )


class RetainedRoom:
    """Room for messages in one virtual host, while a change is decided."""

    def __init__(self, limits: RetainedLimits, topics: RetainedTopics) -> None:
        self._count_left = limits.messages_max - topics.count
        self._bytes_left = limits.size_bytes_max - topics.size_bytes
        self.new = 0
        """How many topics of the change are new."""

    def admits(self, topic: str, before: RetainedMessage | None, message: RetainedMessage) -> bool:
        """Take room for a message in the place of another, or of none, if there is any."""
        growth_bytes = size_of(topic, message)
        if before is not None:
            growth_bytes -= size_of(topic, before)
        new = int(before is None)
        is_over = self._count_left < new or self._bytes_left < growth_bytes  # mutant: RT3
        if is_over and growth_bytes > 0:
            return False
        self._count_left -= new
        self._bytes_left -= growth_bytes
        self.new += new
        return True


def remove_retained(catalogue: Catalogue, vhost_name: str, topics: Iterable[str]) -> Change:
    """Remove what is retained under these topics of a virtual host, be it one that is being
    deleted."""
    vhost = catalogue.vhosts.get(vhost_name) or catalogue.doomed.get(vhost_name)
    if vhost is None:
        return NOTHING
    found = ((topic, vhost.retained.find(topic)) for topic in topics)
    facts = tuple(retained_fact(vhost_name, *each) for each in found if each[1] is not None)
    return Change(removes=facts, rests_on=tuple(fact.name for fact in facts))


def remove_expired(
    catalogue: Catalogue, vhost: VirtualHost, topics: Iterable[str], now_ms: int
) -> Change:
    """Remove messages whose time has come, unless others have taken their places."""
    if catalogue.vhosts.get(vhost.name) is not vhost:
        return NOTHING
    found = ((topic, vhost.retained.find(topic)) for topic in topics)
    expired = [topic for topic, each in found if each is not None and not is_alive(each, now_ms)]
    return remove_retained(catalogue, vhost.name, expired)


def forget_retained(catalogue: Catalogue, vhost: VirtualHost) -> Iterator[Decide]:
    """Yield removals of all that a virtual host retains, some at a time."""
    topics = (topic for topic, _ in vhost.retained)
    while some := list(islice(topics, TOPICS_AT_ONCE)):
        yield partial(remove_retained, catalogue, vhost.name, some)


def retained_fact(vhost: str, topic: str, message: RetainedMessage | None) -> Fact:
    return Fact(Kind.RETAINED, (vhost, topic), message)
