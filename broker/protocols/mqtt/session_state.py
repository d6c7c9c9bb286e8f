"""Session state of MQTT clients: what is kept of one from connection to connection.  S5 4.1.

    states = SessionStates()
    state = states.open(("/", "meter-7"))         # what is there, or a new one
    state.subscribe(TopicSubscription("a/#", options=1))
    state.match("a/b", is_own=False).qos          # 1
    ids = state.packet_ids.take(2)                # range(1, 3): in use until `free`

Pure: which client connects, when a state ends, and where messages lie is said by others.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.queue_names import is_shared, shared_queue, subscription_queue
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.topics import SHARE_PREFIX, is_wildcard

if TYPE_CHECKING:
    from fluffle.broker.core.settlement import Stretch
    from fluffle.broker.vhosts.retained import RetainedCursor

SessionKey: TypeAlias = tuple[str, str]
"""A virtual host and a client identifier: two virtual hosts may have the same client at once."""

PendingRetained: TypeAlias = "dict[str, RetainedCursor | None]"
"""Cursor of the retained messages that are still to be sent, by topic filter; None until the turn
of the first: a client may subscribe to thousands of filters at once."""

NEVER_S = 0xFFFF_FFFF
"""Session expiry interval of a session that does not end by time."""

PACKET_ID_MAX = 0xFFFF

WINDOW_MAX = 0x7FFF
"""Most messages under way to a client: as many may have been when its last connection ended, and
keep their identifiers."""

MATCHES_MAX = 1024
"""Topics for which a session remembers what matches; then it starts afresh."""

REMEMBERED_TOPIC_MAX = 256
"""Longer ones, in characters, are looked for each time."""

QOS_MASK = 0b0000_0011
NO_LOCAL = 0b0000_0100
RETAIN_AS_PUBLISHED = 0b0000_1000
RETAIN_HANDLING_SHIFT = 4


@dataclass(frozen=True, slots=True)
class TopicSubscription:
    """Subscription of a session: a topic filter with its options."""

    topic_filter: str
    """Without `$share/NAME/`."""
    options: int
    """The octet of subscription options: S5 3.8.3.1."""
    identifier: int = 0
    """Subscription identifier; 0 is none."""
    share_name: str = ""
    """Name of the group that shares it; empty if it is the session's alone."""

    @property
    def full_filter(self) -> str:
        """The topic filter as the client says it."""
        if not self.share_name:
            return self.topic_filter
        return f"{SHARE_PREFIX}{self.share_name}/{self.topic_filter}"

    def queue(self, client_id: str) -> str:
        """Return the name of its queue: the client's, or the one that is shared."""
        if self.share_name:
            return shared_queue(self.share_name, self.topic_filter)
        return subscription_queue(client_id, self.qos)

    @property
    def qos(self) -> int:
        return self.options & QOS_MASK

    @property
    def retain_handling(self) -> int:
        """When the client wants retained messages: always, for a new subscription, never."""
        return self.options >> RETAIN_HANDLING_SHIFT


class TopicMatch(NamedTuple):
    """All that the subscriptions of one session say of one topic."""

    qos: int
    """The largest that is granted; -1 if nothing matches."""
    retain_as_published: bool
    identifiers: tuple[int, ...]
    excluded_queues: tuple[bool, bool] = (False, False)
    """True where something that matches has its messages come by the queue of QoS 0, and by that of
    all others, and nothing of that is for messages of the same client."""
    is_in_both_queues: bool = False
    """True if subscriptions match whose messages come by the queue of QoS 0, and others."""


class DirectMessage(NamedTuple):
    """Message that a client is sent past any queue: one that was retained, or of a shared queue and
    sent over an earlier connection."""

    qos: int
    topic: bytes
    properties: bytes
    """Raw; none before version 5."""
    payload: bytes
    retain: bool = True
    expires_at_ms: int = 0
    """Expiry time in ms of a message whose properties do not say it; 0 if it has none."""


class SentBefore(NamedTuple):
    """Identifier and QoS of a message that was sent over an earlier connection: it keeps both."""

    packet_id: int
    qos: int


class PacketIds:
    """Packet identifiers of what is sent to one client, each in use until it is freed."""

    __slots__ = ("_next", "used")

    def __init__(self) -> None:
        self._next = 1
        self.used: set[int] = set()

    def take(self, count: int) -> Sequence[int]:
        """Take so many identifiers, consecutive if it can be.  There must be so many free."""
        first, stop = self._next, self._next + count
        run = range(first, stop)
        if stop <= PACKET_ID_MAX + 1 and self.used.isdisjoint(run):  # mutant: MQ23
            self._next = stop if stop <= PACKET_ID_MAX else 1
            self.used.update(run)
            return run
        assert len(self.used) + count <= PACKET_ID_MAX, "more is under way than has identifiers"
        taken: list[int] = []
        while len(taken) < count:
            if self._next not in self.used:
                taken.append(self._next)
                self.used.add(self._next)
            self._next = self._next + 1 if self._next < PACKET_ID_MAX else 1
        return taken

    def take_again(self, packet_id: int) -> bool:
        """Take an identifier that was in use before; whether it was free."""
        is_free = packet_id not in self.used
        self.used.add(packet_id)
        return is_free

    def free(self, packet_ids: Iterable[int]) -> None:
        self.used.difference_update(packet_ids)


class PacketTaker(Protocol):
    """Part of a connection that has taken messages of QoS 2, of which it is not known yet whether
    they are safe."""

    def tell(self, packet_id: int, answer: Callable[[ReasonCode], None]) -> None:
        """Have `answer` called once it is known of a message: its client asks again, over a
        later connection."""


class BegunPacket(NamedTuple):
    """Packet of QoS 2 from the client of which it is not known whether its message was published
    before the connection, or the node, ended: the client sends it again."""

    number: int
    """Number by which queues know the message."""


class FilterNode:
    """Level of topic filters, with the levels below it."""

    __slots__ = ("children", "subscription")

    def __init__(self) -> None:
        self.children: dict[str, FilterNode] = EMPTY_DICT
        self.subscription: TopicSubscription | None = None


class WildcardFilters:
    """Subscriptions whose filters have wildcards, by their levels: to find what matches a topic
    takes as long as its levels and what matches, however many there are."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = FilterNode()

    def put(self, subscription: TopicSubscription) -> None:
        """Have a subscription, in the place of one with the same filter."""
        node = self._root
        for word in subscription.topic_filter.split("/"):
            if node.children is EMPTY_DICT:
                node.children = {}
            node = node.children.setdefault(word, FilterNode())
        node.subscription = subscription

    def remove(self, topic_filter: str) -> None:
        """Remove the subscription of a filter; it is there."""
        words, path = topic_filter.split("/"), [self._root]
        for word in words:
            path.append(path[-1].children[word])
        path[-1].subscription = None
        while words and not path[-1].children and path[-1].subscription is None:
            path.pop()
            del path[-1].children[words.pop()]

    def matching(self, topic: str) -> Iterator[TopicSubscription]:
        """Yield those that match a topic, each once.  S5 4.7."""
        reached = [self._root]
        are_wild = not topic.startswith("$")
        for name in topic.split("/"):
            before, reached = reached, []
            for node in before:
                if not node.children:
                    continue
                words = {name, "+"} if are_wild else {name}
                reached += (node.children[word] for word in words - {"#"} if word in node.children)
                if are_wild and (below := node.children.get("#")) is not None:
                    yield from _subscriptions_of(below)
            are_wild = True
        for node in reached:
            yield from _subscriptions_of(node)
            if (below := node.children.get("#")) is not None:
                yield from _subscriptions_of(below)


def _subscriptions_of(node: FilterNode) -> Iterator[TopicSubscription]:
    if node.subscription is not None:
        yield node.subscription


class SessionState:
    """State of one session, whether its client is connected or not."""

    __slots__ = (
        "_matches",
        "_wild",
        "client_id",
        "completed",
        "direct",
        "expiry_s",
        "held",
        "incoming",
        "is_kept",
        "key",
        "number",
        "packet_ids",
        "record",
        "released",
        "retained",
        "subscriptions",
        "unfinished",
        "user",
    )

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.client_id = key[1]
        self.user = ""
        """Name of the session's user; empty until a connection has opened it here."""
        self.expiry_s = 0
        """How long it lasts behind the end of its connection; `NEVER_S`: until it is ended."""
        self.is_kept = False
        """True if it has been on record: then another node may have taken it over, or ended it."""
        self.record = b""
        """Record that the client's CONNECT has put, or that was there when it was restored: another
        is of a later CONNECT, and says nothing of this connection."""
        self.number = 0
        """Number of the session on record, as its client has connected to it."""
        self.subscriptions: dict[str, TopicSubscription] = {}
        """Subscriptions by topic filter, shared ones by all of it."""
        self.incoming: dict[int, PacketTaker | BegunPacket | None] = {}
        """Packets of QoS 2 from the client that were taken and wait for their PUBREL: None once
        they are safe; before, whoever is to find out."""
        self.packet_ids = PacketIds()
        """Identifiers in use: of `unfinished`, of `released`, and of messages being sent now."""
        self.released: dict[int, None] = {}
        """Packets of QoS 2 to the client that it has, and that wait for their PUBCOMP."""
        self.completed: set[int] = set()
        """Packets of QoS 2 that the client has let go of, and whose messages may yet come again, as
        they were not settled before a node ended."""
        self.direct: dict[int, DirectMessage] = {}
        """Messages sent past any queue and not acknowledged, by packet identifier."""
        self.held: dict[int, Stretch] = {}
        """Messages among them of QoS 2 that a shared queue still has, and gives to no other member
        for as long as the session lasts.  S5 4.8.2."""
        self.unfinished: dict[str, dict[int, SentBefore]] = {}
        """Messages sent before the client left and not acknowledged, by queue and sequence number
        there.  Their identifiers are in use until they are sent again, but for those of shared
        queues: they may be sent to others."""
        self.retained: tuple[PendingRetained, PendingRetained] = {}, {}
        """Retained messages still to be sent: those for subscriptions of QoS 0; and those for all
        others, which wait for the client's window."""
        self._wild: WildcardFilters | None = None
        """Its subscriptions with wildcards; None until there is one."""
        self._matches: dict[tuple[str, bool], TopicMatch] = {}

    @property
    def shared(self) -> list[TopicSubscription]:
        """The subscriptions that it shares with others."""
        return [each for each in self.subscriptions.values() if each.share_name]

    @property
    def is_lasting(self) -> bool:
        """True if it outlives its connection."""
        return self.expiry_s > 0

    def subscribe(self, subscription: TopicSubscription) -> None:
        """Have a subscription, in the place of one with the same filter."""
        self.subscriptions[subscription.full_filter] = subscription
        if subscription.share_name:
            return
        if is_wildcard(subscription.topic_filter):
            if self._wild is None:
                self._wild = WildcardFilters()
            self._wild.put(subscription)
        self._matches.clear()  # mutant: MQ24

    def unsubscribe(self, topic_filter: str) -> None:
        """Have no such subscription any more; it is there."""
        subscription = self.subscriptions.pop(topic_filter)
        if subscription.share_name:
            self.unfinished.pop(subscription.queue(self.client_id), None)
            return
        if self._wild is not None and is_wildcard(topic_filter):
            self._wild.remove(topic_filter)
        for pending in self.retained:
            pending.pop(topic_filter, None)
        self._matches.clear()

    def match(self, topic: str, *, is_own: bool) -> TopicMatch:
        """Return what applies to a message; `is_own` if the same client has published it."""
        found = self._matches.get((topic, is_own))
        if found is None:
            found = self._matched(topic, is_own=is_own)
            if len(topic) <= REMEMBERED_TOPIC_MAX:
                if len(self._matches) >= MATCHES_MAX:
                    self._matches.clear()
                self._matches[topic, is_own] = found
        return found

    def forget_beyond(self, count: int) -> None:
        """Forget what matches which topic if that is remembered of more than `count`."""
        if len(self._matches) > count:
            self._matches.clear()

    def shared_match(self, full_filter: str) -> TopicMatch:
        """Return what applies to a message of a queue that the session shares."""
        subscription = self.subscriptions[full_filter]
        return TopicMatch(
            subscription.qos,
            retain_as_published=bool(subscription.options & RETAIN_AS_PUBLISHED),
            identifiers=(subscription.identifier,) if subscription.identifier else (),
        )

    def _matched(self, topic: str, *, is_own: bool) -> TopicMatch:
        found = list(self._matching(topic))
        matching = [each for each in found if not (is_own and each.options & NO_LOCAL)]
        excluded = {each.qos > 0 for each in found} - {each.qos > 0 for each in matching}
        return TopicMatch(
            max((each.qos for each in matching), default=-1),
            retain_as_published=any(each.options & RETAIN_AS_PUBLISHED for each in matching),
            identifiers=tuple(sorted({each.identifier for each in matching} - {0})),
            excluded_queues=(False in excluded, True in excluded),
            is_in_both_queues=len({each.qos > 0 for each in found}) == 2,
        )

    def _matching(self, topic: str) -> Iterator[TopicSubscription]:
        exact = self.subscriptions.get(topic)
        if exact is not None and not exact.share_name and not is_wildcard(topic):
            yield exact
        if self._wild is not None:
            yield from self._wild.matching(topic)

    def keep_unfinished(self, queue: str, messages: dict[int, SentBefore]) -> None:
        """The client has left: `messages`, by sequence number, are to be sent again as before."""
        if messages:
            self.unfinished.setdefault(queue, {}).update(messages)

    def take_unfinished(self, queue: str, sequence: int) -> SentBefore | None:
        """Return how a message was sent before, if it was."""
        messages = self.unfinished.get(queue)
        if messages is None:
            return None
        before = messages.pop(sequence, None)
        if not messages:
            del self.unfinished[queue]
        return before

    def may_have_had(self, queue: str, sequence: int) -> bool:
        """True if the client may have a message that comes again: from a shared queue others may
        have been sent it."""
        return not is_shared(queue) or sequence in self.unfinished.get(queue, ())

    def drop_unfinished(self, queue: str, noted: Container[int] = ()) -> list[int]:
        """Free the identifiers of messages that are no longer in the queue; all others have been
        sent again.  Return those that are noted, which are not freed: the client may hold them."""
        packet_ids = [each.packet_id for each in self.unfinished.pop(queue, {}).values()]
        self.packet_ids.free(each for each in packet_ids if each not in noted)
        return [each for each in packet_ids if each in noted]


class SessionStates:
    """Session states of a node, by their keys."""

    __slots__ = ("_states",)

    def __init__(self) -> None:
        self._states: dict[SessionKey, SessionState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[SessionState]:
        return iter(tuple(self._states.values()))

    def find(self, key: SessionKey) -> SessionState | None:
        return self._states.get(key)

    def open(self, key: SessionKey) -> SessionState:
        """Return the state of that key, a new one if there is none."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = SessionState(key)
        return state

    def put(self, state: SessionState) -> None:
        """Have a state, in the place of another with its key."""
        self._states[state.key] = state

    def end(self, state: SessionState) -> None:
        """Forget a state, unless another has its place."""
        if self._states.get(state.key) is state:
            del self._states[state.key]
