"""Event publisher: publishes events of the node as the plugin rabbitmq_event_exchange does.

An announcement is a message without a body: its routing key says what has happened
(`queue.created`) and its headers to what, and the user that did it.

Lines of the log become messages, too, as with amq.rabbitmq.log (`LogPublisher`).
"""

from __future__ import annotations

import json
import logging
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from fluffle.broker.access.limits import UserLimits, VhostLimits
from fluffle.broker.base.clock import CallLater, Clock
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.base.logs import (
    FIELDS_ATTRIBUTE,
    FORMATS,
    LOGGED_BY,
    LineFormatter,
    adapt_level,
)
from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.metadata.change import NOTHING, Change, Fact, Kind, Name
from fluffle.broker.metadata.metadata import Decide, Metadata, OnLateError, ignore_done
from fluffle.broker.policies.policies import OPERATOR_POLICY
from fluffle.broker.queues.arguments import QueueType
from fluffle.broker.queues.journal import Owner
from fluffle.broker.routing.exchange import PREDECLARED, ExchangeSpec
from fluffle.broker.routing.topic_filter import shown_arguments
from fluffle.broker.transfer.republish import publish_own, while_it_has_room
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import DELIVERY_MODE_PERSISTENT, Properties
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.terms import term
from fluffle.protocol.wire import Field, FieldTable, encode_table, read_table

EVENT_EXCHANGE = ExchangeSpec("amq.rabbitmq.event", "topic", durable=True, internal=True)
LOG_EXCHANGE = ExchangeSpec("amq.rabbitmq.log", "topic", durable=True, internal=True)
HOME = "/"
"""The virtual host that they are in."""

INTERNAL = "rmq-internal"
"""RabbitMQ's name for the actor of what is done without a request."""
COMMANDS = "rmq-cli"
"""RabbitMQ's name for the actor of what is asked for on the machine of the node."""

ACTOR = "user_who_performed_action"

SHORT_CHARACTERS = 255
"""Length that fits whatever is in a text: nearly all texts of events are names."""

HEADER_BYTES_MAX = 1 << 16
"""Properties are one frame, of 128 KiB unless a client wants smaller ones."""

EventHeaders: TypeAlias = "Mapping[str, object]"
"""Headers as plain values: text, numbers, and lists and mappings of these."""


class EventPublisher:
    """Publisher of the events of one node."""

    def __init__(self, node: str, vhosts: Mapping[str, VirtualHost], clock: Clock) -> None:
        self.node = node
        self._vhosts = vhosts
        self._clock = clock

    @property
    def is_heard(self) -> bool:
        """True if anything is bound, so that there is a sense in telling."""
        home = self._vhosts.get(HOME)
        exchange = home.topology.find(EVENT_EXCHANGE.name) if home is not None else None
        return exchange is not None and len(exchange.matcher) > 0

    def now_ms(self) -> int:
        return self._clock.wall_ms()

    def publish(self, what: str, headers: EventHeaders) -> None:
        """Publish an event, if anything is bound."""
        if not self.is_heard:
            return
        time_ms = self.now_ms()
        properties = Properties(
            headers={
                **{name: header(value) for name, value in headers.items()},
                "timestamp_in_ms": ("l", time_ms),
            },
            delivery_mode=DELIVERY_MODE_PERSISTENT,
            timestamp=time_ms // 1000,
        )
        publish_own(self._vhosts[HOME], EVENT_EXCHANGE.name, [(what, properties, b"")])


def header(value: object) -> Field:
    """Encode a value for a table; as text, and cut, where no table can have it."""
    said = field(value)
    if isinstance(value, str) and len(value) <= SHORT_CHARACTERS:
        return said
    try:
        encoded = encode_table({"": said})
        read_table(encoded, 0)
        if len(encoded) <= HEADER_BYTES_MAX:
            return said
    except (struct.error, ValueError, ProtocolError):
        pass  # a number beyond 64 bits, a long key, or too deep
    text = value if isinstance(value, str) else json.dumps(value)
    return "S", text.encode(errors="surrogateescape")[:HEADER_BYTES_MAX]


def table(values: EventHeaders) -> FieldTable:
    """Plain values as the plugin tags them: all integers are long."""
    return {name: field(value) for name, value in values.items()}


def field(value: object) -> Field:
    match value:
        case bool():
            return "t", value
        case int():
            return "l", value
        case float():
            return "f", value
        case dict():
            return "F", table(value)
        case list() | tuple():
            return "A", [field(each) for each in value]
        case _:
            return "S", str(value).encode(errors="surrogateescape")


def listed(arguments: FieldTable) -> list[str]:
    """Arguments as announcements have them: Erlang terms, one a text."""
    return [term({name: value})[1:-1] for name, value in arguments.items()]


ChangeEvent: TypeAlias = tuple[str, EventHeaders]
"""Name of the event and its headers."""


class ChangeView(NamedTuple):
    """A change, and what was so before it under the names that it puts."""

    change: Change
    before: Mapping[Name, object]
    actor: str


class EventSink(Protocol):
    """Receiver of events about changes."""

    @property
    def node(self) -> str:
        """Name of the node."""

    @property
    def is_heard(self) -> bool:
        """True if there is a sense in telling."""

    def publish(self, what: str, headers: EventHeaders) -> None:
        """This has happened."""


@dataclass(slots=True, eq=False)
class PublishingMetadata:
    """A `Metadata` that announces what comes true of what is asked of it."""

    _inner: Metadata
    _announcer: EventSink
    _find: Callable[[Name], object]
    """Returns the value of a fact, or None."""
    _: KW_ONLY
    actor: str
    """Name of the asker for changes."""
    settler: str = INTERNAL
    """Name of the asker for what has to be."""

    def change(
        self, decide: Decide, done: Callable[[], None], failed: Callable[[BrokerError], None]
    ) -> None:
        seen = DecidedChange(decide, self._find, self.actor)
        self._inner.change(seen.decide, self._announcing(seen, done), failed)

    def ensure(
        self,
        decide: Decide,
        done: Callable[[], None] = ignore_done,
        late: OnLateError | None = None,
    ) -> None:
        seen = DecidedChange(decide, self._find, self.settler)
        self._inner.ensure(seen.decide, self._announcing(seen, done), late)

    def _announcing(self, seen: DecidedChange, done: Callable[[], None]) -> Callable[[], None]:
        def announced() -> None:
            if self._announcer.is_heard:
                for what, headers in described(seen.look, self._announcer.node):
                    self._announcer.publish(what, headers)
            done()

        return announced


class DecidedChange:
    """Change that was decided last, and the events that describe it."""

    def __init__(self, decide: Decide, find: Callable[[Name], object], actor: str) -> None:
        self._decide = decide
        self._find = find
        self._actor = actor
        self.look = ChangeView(NOTHING, {}, actor)

    def decide(self) -> Change:
        change = self._decide()
        before = {fact.name: self._find(fact.name) for fact in change.puts}
        self.look = ChangeView(change, before, self._actor)
        return change


def described(look: ChangeView, node: str) -> Iterator[ChangeEvent]:
    """Events of a change in RabbitMQ's order: an exchange goes before its bindings, a queue behind.

    There is no event for what goes with its user, nor for bindings, and an exchange that deletes
    itself, with their queue: the user who deleted that caused them.
    """
    removes = sorted(look.change.removes, key=lambda fact: fact.kind is not Kind.EXCHANGE)
    kinds = {fact.kind for fact in removes}
    is_queue_gone = any(is_own_queue(fact) for fact in removes)
    for fact in removes:
        if fact.kind in (Kind.PERMISSION, Kind.TOPIC_PERMISSION) and Kind.USER in kinds:
            continue
        by_itself = is_queue_gone and fact.kind in (Kind.BINDING, Kind.EXCHANGE)
        for what, headers in REMOVED.get(fact.kind, nothing)(fact, None, node):
            yield what, {**headers, ACTOR: INTERNAL if by_itself else look.actor}
    for fact in look.change.puts:
        for what, headers in PUT.get(fact.kind, nothing)(fact, look.before[fact.name], node):
            yield what, {**headers, ACTOR: look.actor}


def is_own_queue(fact: Fact) -> bool:
    """True if it is a queue that a client has declared: a delayed queue goes with its exchange."""
    return fact.kind is Kind.QUEUE and not is_delayed_queue(str(fact.key[1]))


def pid(owner: Owner, channel: int = 0) -> str:
    """Text that stands for a connection or a channel where RabbitMQ has an Erlang process."""
    return f"<{owner.node}.{owner.boot}.{owner.number}.{channel}>"


Describe: TypeAlias = Callable[[Fact, Any, str], Iterator[ChangeEvent]]
"""(the fact, what was under its name, the node)"""


def nothing(_fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    """Do nothing: RabbitMQ has no event for this."""
    return iter(())


def exchange_put(fact: Fact, before: object, _node: str) -> Iterator[ChangeEvent]:
    if before is None:
        yield "exchange.created", exchange_headers(str(fact.key[0]), fact.value)


def exchange_headers(vhost: str, spec: Any) -> EventHeaders:
    return {
        "name": spec.name,
        "vhost": vhost,
        "type": spec.type,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "internal": spec.internal,
        "arguments": listed(spec.arguments),
        "policy": "",
    }


def exchange_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    vhost, name = fact.key
    yield "exchange.deleted", {"name": name, "vhost": vhost}


def queue_put(fact: Fact, before: object, node: str) -> Iterator[ChangeEvent]:
    if before is not None:
        return
    definition: Any = fact.value
    spec, owner = definition.spec, definition.owner
    headers = {
        "name": spec.name,
        "vhost": fact.key[0],
        "type": spec.queue_type.module,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "exclusive": owner is not None,
        "arguments": listed(spec.arguments),
    }
    if spec.queue_type is QueueType.CLASSIC:
        home = definition.home or node
        headers |= {"leader": home, "members": [home], "owner_pid": pid(owner) if owner else ""}
    yield "queue.created", headers


def queue_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    vhost, name = fact.key
    definition: Any = fact.value
    kind = definition.spec.queue_type.module
    yield "queue.deleted", {"name": name, "vhost": vhost, "type": kind}


def binding_headers(fact: Fact) -> EventHeaders:
    binding: Any = fact.value
    return {
        "source_name": binding.source,
        "source_kind": "exchange",
        "destination_name": binding.destination,
        "destination_kind": binding.destination_kind.value,
        "routing_key": binding.routing_key,
        "arguments": listed(shown_arguments(binding)),
        "vhost": fact.key[0],
    }


def binding_put(fact: Fact, before: object, _node: str) -> Iterator[ChangeEvent]:
    if before is None:
        yield "binding.created", binding_headers(fact)


def binding_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    yield "binding.deleted", binding_headers(fact)


def user_put(fact: Fact, before: Any, _node: str) -> Iterator[ChangeEvent]:
    user: Any = fact.value
    name = {"name": user.name}
    if before is None:
        yield "user.created", name
    elif before.password != user.password:
        yield f"user.password.{'changed' if user.password else 'cleared'}", name
    if user.tags != (before.tags if before else ()):
        yield "user.tags.set", {**name, "tags": user.tags}
    if user.limits != (before.limits if before else UserLimits()):
        values = limits_of(user.limits)
        head = {"name": "limits", "username": user.name}
        yield f"user.limits.{'set' if values else 'cleared'}", {**head, **values}


def user_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    yield "user.deleted", {"name": fact.key[0]}


def vhost_put(fact: Fact, before: Any, node: str) -> Iterator[ChangeEvent]:
    (name,) = fact.key
    settings: Any = fact.value
    if before is None:
        for spec in PREDECLARED:
            yield "exchange.created", exchange_headers(str(name), spec)
        metadata = settings.metadata
        yield (
            "vhost.created",
            {
                "name": name,
                "description": metadata.get("description", ""),
                "tags": metadata.get("tags", []),
                "default_queue_type": metadata.get("default_queue_type", QueueType.CLASSIC.value),
                "cluster_state": {node: "running"},
                "tracing": False,
            },
        )
    if settings.limits != (before.limits if before else VhostLimits()):
        yield from limits_put(str(name), limits_of(settings.limits))


def limits_put(vhost: str, values: EventHeaders) -> Iterator[ChangeEvent]:
    """Events of limits, which RabbitMQ keeps as a parameter and announces as one, too."""
    head = {"name": "limits", "vhost": vhost}
    parameter = {**head, "component": "vhost-limits"}
    if values:
        yield "parameter.set", {**parameter, "value": dict(values)}
        yield "vhost.limits.set", {**head, **values}
    else:
        yield "parameter.cleared", parameter
        yield "vhost.limits.cleared", head


def limits_of(limits: Any) -> dict[str, object]:
    """Limits that are set, by RabbitMQ's names."""
    values = asdict(limits)
    return {name.replace("_", "-"): each for name, each in values.items() if each is not None}


def vhost_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    (name,) = fact.key
    settings: Any = fact.value
    for spec in PREDECLARED:
        yield "exchange.deleted", {"name": spec.name, "vhost": name}
    if limits_of(settings.limits):
        yield from limits_put(str(name), {})
    yield "vhost.deleted", {"name": name}


def right(what: str, names: tuple[str, ...]) -> Describe:
    """A permission that is given or taken away."""

    def describe(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
        of = dict(zip(("user", "vhost", "exchange"), fact.key, strict=False))
        if names:
            yield what, {**of, **{name: getattr(fact.value, name) for name in names}}
        else:
            yield what, {"user": of["user"], "vhost": of["vhost"]}

    return describe


def policy_put(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    entry: Any = fact.value
    fields = ("pattern", "apply-to", "definition", "priority")
    values = {name: entry[name] for name in fields if name in entry}
    yield "policy.set", {**policy_headers(fact), **values}


def policy_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    yield "policy.cleared", policy_headers(fact)


def policy_headers(fact: Fact) -> EventHeaders:
    return dict(zip(("vhost", "name"), fact.key, strict=True))


def parameter_put(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    entry: Any = fact.value
    headers = parameter_headers(fact)
    yield "parameter.set", {**headers, "value": entry["value"]}
    if headers.pop("component") == OPERATOR_POLICY:
        yield "policy.set", {**headers, **entry["value"]}


def parameter_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    headers = parameter_headers(fact)
    yield "parameter.cleared", dict(headers)
    if headers.pop("component") == OPERATOR_POLICY:
        yield "operator.policy.cleared", headers


def parameter_headers(fact: Fact) -> dict[str, object]:
    return dict(zip(("vhost", "component", "name"), fact.key, strict=True))


def global_put(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    entry: Any = fact.value
    yield "parameter.set", {**global_headers(fact), "value": entry["value"]}


def global_removed(fact: Fact, _before: object, _node: str) -> Iterator[ChangeEvent]:
    yield "parameter.cleared", global_headers(fact)


def global_headers(fact: Fact) -> EventHeaders:
    return {"component": "global", "name": fact.key[0]}


PUT: Mapping[Kind, Describe] = {
    Kind.EXCHANGE: exchange_put,
    Kind.QUEUE: queue_put,
    Kind.BINDING: binding_put,
    Kind.USER: user_put,
    Kind.VHOST: vhost_put,
    Kind.PERMISSION: right("permission.created", ("configure", "write", "read")),
    Kind.TOPIC_PERMISSION: right("topic.permission.created", ("write", "read")),
    Kind.POLICY: policy_put,
    Kind.PARAMETER: parameter_put,
    Kind.GLOBAL_PARAMETER: global_put,
}
REMOVED: Mapping[Kind, Describe] = {
    Kind.EXCHANGE: exchange_removed,
    Kind.QUEUE: queue_removed,
    Kind.BINDING: binding_removed,
    Kind.USER: user_removed,
    Kind.VHOST: vhost_removed,
    Kind.PERMISSION: right("permission.deleted", ()),
    Kind.TOPIC_PERMISSION: right("topic.permission.deleted", ()),
    Kind.POLICY: policy_removed,
    Kind.PARAMETER: parameter_removed,
    Kind.GLOBAL_PARAMETER: global_removed,
}


LINES_MAX = 256
PAUSE_S = 0.1
"""Limit of published log lines: `LINES_MAX` in `PAUSE_S` seconds, others are dropped.  A line that
is logged because a line was published makes no endless loop."""

CONTENT_TYPES: Mapping[str, str] = {"text": "text/plain", "json": "application/json"}


class LogPublisher(logging.Handler):
    """Publisher of the log lines of one node.

    Takes records in any thread, and publishes them in the loop, a bit later.
    """

    def __init__(
        self,
        node: str,
        format_name: str,
        home: Callable[[], VirtualHost | None],
        call_soon: Callable[[Callable[[], None]], object],
        call_later: CallLater,
    ) -> None:
        """`home` is where its exchange is.  `call_soon` may be called in any thread."""
        super().__init__()
        self._node, self._home = header(node), home
        self._content_type = CONTENT_TYPES[format_name]
        self.setFormatter(LineFormatter(FORMATS[format_name]))
        self._call_soon, self._call_later = call_soon, call_later
        self._waiting: list[logging.LogRecord] = []
        self._dropped_count = 0
        """Number of lines dropped since the last publish."""
        self._publishing_thread: int | None = None
        """The thread that is telling some: what it logs meanwhile is about these."""
        self._has_ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line of the log for publishing; the caller holds the handler's lock."""
        if self._has_ended or self._publishing_thread == threading.get_ident():
            return
        if len(self._waiting) >= LINES_MAX:
            self._dropped_count += 1
            return
        self._waiting.append(record)
        if len(self._waiting) == 1:
            self._call_soon(self._wait)

    def begin(self, level: int) -> None:
        """From now on, those of this level and above."""
        self.setLevel(level)
        logging.getLogger(LOGGED_BY).addHandler(self)
        adapt_level()

    def end(self) -> None:
        """No more; what waits is dropped."""
        logging.getLogger(LOGGED_BY).removeHandler(self)
        adapt_level()
        with locked(self):
            self._has_ended = True
            self._waiting.clear()

    def _wait(self) -> None:
        self._call_later(PAUSE_S, self._publish)

    def _publish(self) -> None:
        """Publish the waiting lines, if anything is bound."""
        with locked(self):
            records, self._waiting = self._waiting, []
            dropped_count, self._dropped_count = self._dropped_count, 0
        home = self._home()
        exchange = home.topology.find(LOG_EXCHANGE.name) if home is not None else None
        if home is None or exchange is None or not (records and len(exchange.matcher)):
            return
        if dropped_count:
            records.append(dropped(dropped_count))
        self._publishing_thread = threading.get_ident()
        try:
            messages = map(self._message, records)
            publish_own(home, LOG_EXCHANGE.name, messages, while_it_has_room)
        finally:
            self._publishing_thread = None

    def _message(self, record: logging.LogRecord) -> tuple[str, Properties, bytes]:
        properties = Properties(
            content_type=self._content_type,
            headers={"node": self._node},
            timestamp=int(record.created),
        )
        line = f"{self.format(record)}\n"
        return record.levelname.lower(), properties, line.encode(errors="surrogateescape")


@contextmanager
def locked(handler: logging.Handler) -> Iterator[None]:
    """Hold the handler's lock, so that no other thread gives it a record."""
    handler.acquire()
    try:
        yield
    finally:
        handler.release()


def dropped(count: int) -> logging.LogRecord:
    """Says in the place of so many lines that they are missing."""
    record = logging.LogRecord(LOGGED_BY, logging.WARNING, __file__, 0, "lines_dropped", None, None)
    setattr(record, FIELDS_ATTRIBUTE, {"count": count})
    return record
