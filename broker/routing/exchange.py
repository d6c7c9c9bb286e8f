"""Exchanges: their types, what was declared, the bindings, and the rules of declaring one.

The rules have RabbitMQ's reply texts, and run in this order: `check_type`, `check_not_default`,
then `check_equivalent` for an exchange that is there, or `check_creatable` for one that is not.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from fluffle.broker.base.errors import (
    AccessRefused,
    PreconditionFailed,
    check_same,
    inequivalent,
    plain,
)
from fluffle.broker.base.queue_names import delayed_queue_of
from fluffle.broker.metadata.nodes import DELAYS, SELECTS
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.choice_exchanges import (
    ChoiceMatcher,
    ConsistentHash,
    LocalRandom,
    ModulusHash,
    Random,
    check_arguments,
)
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.jms_topic import JMS_TOPIC, selector_matcher
from fluffle.broker.routing.matcher import (
    DirectMatcher,
    FanoutMatcher,
    Matcher,
    StaleMatcher,
    headers_matcher,
)
from fluffle.broker.routing.recent_history import MessageHistory, check_length
from fluffle.broker.routing.topic_filter import TopicFilterMatcher
from fluffle.protocol.terms import atom
from fluffle.protocol.wire import TYPE_NAMES, FieldTable

DEFAULT_EXCHANGE = ""
RESERVED_PREFIX = "amq."
ALTERNATE_EXCHANGE = "alternate-exchange"
TRACE_EXCHANGE = "amq.rabbitmq.trace"
LOCAL_RANDOM = "x-local-random"
RECENT_HISTORY = "x-recent-history"
DELAYED = "x-delayed-message"
DELAYED_TYPE = "x-delayed-type"


def _anything(_arguments: FieldTable) -> None:
    """Accept any arguments, as most exchange types do."""


class ExchangeType(NamedTuple):
    """How an exchange of some type matches."""

    make: Callable[[FieldTable, ExchangeHost], Matcher]
    """Makes the matcher, from the arguments of the declare."""
    check: Callable[[FieldTable], None] = _anything
    """Raises PreconditionFailed for arguments that it cannot be made with."""
    since: int = 0
    """The version of definitions that knows it first: while a node is of an older one it is
    refused."""


EXCHANGE_TYPES: dict[str, ExchangeType] = {
    "direct": ExchangeType(lambda _arguments, _host: DirectMatcher()),
    "fanout": ExchangeType(lambda _arguments, _host: FanoutMatcher()),
    "topic": ExchangeType(lambda _arguments, _host: TopicFilterMatcher()),
    "headers": ExchangeType(lambda _arguments, _host: headers_matcher()),
    "x-consistent-hash": ExchangeType(
        lambda arguments, _host: ChoiceMatcher(ConsistentHash(arguments)), check_arguments
    ),
    JMS_TOPIC: ExchangeType(lambda _arguments, _host: selector_matcher(), since=SELECTS),
    LOCAL_RANDOM: ExchangeType(lambda _arguments, host: ChoiceMatcher(LocalRandom(host))),
    "x-modulus-hash": ExchangeType(lambda _arguments, _host: ChoiceMatcher(ModulusHash())),
    RECENT_HISTORY: ExchangeType(lambda _arguments, _host: FanoutMatcher(), check_length),
    "x-random": ExchangeType(lambda _arguments, host: ChoiceMatcher(Random(host.pick))),
    DELAYED: ExchangeType(
        lambda arguments, host: EXCHANGE_TYPES[type_inside(arguments)].make(arguments, host),
        lambda arguments: EXCHANGE_TYPES[type_inside(arguments)].check(arguments),
        since=DELAYS,
    ),
}
"""Exchange types by name.  Besides a row here, a new type needs the following (test_exchange and
test_explain in tests/broker/routing say which of the tables have not got it):

- `routing.explain.REASONS`: why a binding of it does not match;
- if older nodes do not know it: a version in `metadata.nodes`, `since` here, and `KNOWS` there;
- rules of its own, if it has some: `check` here for arguments, `Matcher.check` for bindings;
- if it leads to queues of some type or place alone, as x-local-random does: what a conversion says
  to that (`transfer.conversion.begin`);
- `TYPES` in `protocols/http/pages/views/exchanges.js`, for the page of exchanges;
- the table of README.md; docs/compatibility.md, if it does not do just what RabbitMQ's does;
  `tests/compat/section_04_types.py`, TYPES, if RabbitMQ has it; `cli.rabbitmq.features`,
  `admin.nodes` and `BUILT_IN` in `config.rabbitmq_conf.sources`, if it has it in a plugin.

A type that only matches needs no more.  One that keeps something has an attribute of `Exchange`,
and is known wherever that is asked for:

- `history` (x-recent-history): `Router` puts it into routes, `route_lookup.keep_in_histories` and
  `transfer.republish` fill it, `core.topology.replay_history` has a new binding get it, and
  `cluster.history_replication` keeps it alike on all nodes;
- `delayed_queue` (x-delayed-message): `Router` and `routing.explain` lead there what is to wait,
  `vhosts.queue_changes.declare_exchange` makes the queue, `routing.changes.exchange_facts` has it
  go with its exchange, and `transfer.republish` sends on what has waited.

Listings, definitions and x-delayed-message find a type here by themselves.
"""


def check_type(name: str) -> None:
    """RabbitMQ checks the type before anything else, even before permissions.

    Where it says `invalid` for a few types and `unknown` for the rest, that depends on whether the
    name is an atom of the Erlang node; we know no atoms.
    """
    if name not in EXCHANGE_TYPES:
        raise PreconditionFailed(f"unknown exchange type '{name}'")


def type_inside(arguments: FieldTable) -> str:
    """Type by which an x-delayed-message exchange with these arguments routes.

    PreconditionFailed if they name none that there is, with the texts of RabbitMQ's plugin.
    """
    _tag, value = arguments.get(DELAYED_TYPE, ("V", None))
    if not isinstance(value, bytes):
        raise PreconditionFailed(
            f"Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type"
        )
    name = value.decode(errors="surrogateescape")
    if name == DELAYED:
        raise PreconditionFailed(
            f"Invalid argument, '{DELAYED}' can't be used for '{DELAYED_TYPE}'"
        )
    check_type(name)
    return name


@dataclass(frozen=True, slots=True)
class ExchangeSpec:
    """The properties that exchange.declare asks for."""

    name: str
    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: FieldTable = field(default_factory=dict)


def routes_as(spec: ExchangeSpec) -> str:
    """The type that says where its messages go."""
    return type_inside(spec.arguments) if spec.type == DELAYED else spec.type


def since_of(spec: ExchangeSpec) -> int:
    """The version of definitions that knows an exchange and where its messages go; 0 is any."""
    return max(EXCHANGE_TYPES[spec.type].since, EXCHANGE_TYPES[routes_as(spec)].since)


PREDECLARED = (
    ExchangeSpec(DEFAULT_EXCHANGE, "direct", durable=True),
    ExchangeSpec("amq.direct", "direct", durable=True),
    ExchangeSpec("amq.fanout", "fanout", durable=True),
    ExchangeSpec("amq.topic", "topic", durable=True),
    ExchangeSpec("amq.headers", "headers", durable=True),
    ExchangeSpec("amq.match", "headers", durable=True),
    ExchangeSpec(TRACE_EXCHANGE, "topic", durable=True, internal=True),
)
"""The exchanges of every virtual host (AMQP 0-9-1 §3.1.3, and RabbitMQ's own for tracing)."""


class Exchange:
    """An exchange with its bindings."""

    __slots__ = ("alternate", "delayed_queue", "history", "matcher", "onward", "spec")

    def __init__(self, spec: ExchangeSpec, host: ExchangeHost) -> None:
        self.spec = spec
        self.matcher: Matcher = EXCHANGE_TYPES[spec.type].make(spec.arguments, host)
        self.onward: dict[str, int] = {}
        """How many bindings lead to each other exchange."""
        self.delayed_queue: str | None = None
        """The queue in which messages wait that are to be routed later, if it has one."""
        self.history: MessageHistory | None = None
        """The last messages, if it keeps them for bindings to come."""
        if spec.type == DELAYED:
            self.delayed_queue = delayed_queue_of(spec.name)
        if routes_as(spec) == RECENT_HISTORY:
            self.history = MessageHistory(spec.arguments, partial(host.kept, spec.name))
        self.alternate = alternate_of(spec, host)
        """Where messages go that match no binding."""

    def add(self, binding: Binding) -> bool:
        """True if it is new."""
        is_new = self.matcher.add(binding)
        if is_new and binding.destination_kind is DestinationKind.EXCHANGE:
            self.onward[binding.destination] = self.onward.get(binding.destination, 0) + 1
        return is_new

    def discard(self, binding: Binding) -> bool:
        """True if it was there."""
        was_there = self.matcher.discard(binding)
        if was_there and binding.destination_kind is DestinationKind.EXCHANGE:
            self._lead_less(binding.destination, 1)
        return was_there

    def _lead_less(self, destination: str, count: int) -> None:
        self.onward[destination] -= count
        if not self.onward[destination]:
            del self.onward[destination]

    def subscriptions(self, queue: str, topic_filter: str) -> Collection[Binding]:
        """The bindings of a queue that have this topic filter; some may be gone already."""
        matcher = self._filter_matcher
        return () if matcher is None else matcher.of_queue(queue, topic_filter)

    def memberships(self, member: str) -> Collection[Binding]:
        """The bindings of shared queues that are this client's; some may be gone already."""
        matcher = self._filter_matcher
        return () if matcher is None else matcher.of_member(member)

    @property
    def members(self) -> Collection[str]:
        """The clients that share queues."""
        matcher = self._filter_matcher
        return () if matcher is None else matcher.members

    @property
    def _filter_matcher(self) -> TopicFilterMatcher | None:
        matcher = self.matcher.inner if isinstance(self.matcher, StaleMatcher) else self.matcher
        return matcher if isinstance(matcher, TopicFilterMatcher) else None

    def forget(self, bindings: Collection[Binding]) -> Iterator[None] | None:
        """Bindings that are there, to one destination, count no more.

        What is left to be done for that, piece by piece, unless it is under way.
        """
        first = next(iter(bindings))
        if first.destination_kind is DestinationKind.EXCHANGE:
            self._lead_less(first.destination, len(bindings))
        if not self.matcher.clears_in_steps:
            for binding in bindings:
                self.matcher.discard(binding)
            return None
        if isinstance(self.matcher, StaleMatcher):
            self.matcher.forget(bindings)
            return None
        self.matcher = stale = StaleMatcher(self.matcher)
        stale.forget(bindings)
        return self._cleared(stale)

    def _cleared(self, stale: StaleMatcher) -> Iterator[None]:
        yield from stale.clear()
        self.matcher = stale.inner


def check_not_default(name: str) -> None:
    """The default exchange cannot be declared, deleted, bound to, or bound."""
    if name == DEFAULT_EXCHANGE:
        raise AccessRefused("operation not permitted on the default exchange")


def declared_alternate(spec: ExchangeSpec) -> str | None:
    """The name of the alternate exchange that a declaration asks for."""
    _, value = spec.arguments.get(ALTERNATE_EXCHANGE, ("V", None))
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else None


def alternate_of(spec: ExchangeSpec, host: ExchangeHost) -> str | None:
    """The alternate exchange in force: a policy counts if the declaration asks for none."""
    declared = declared_alternate(spec)
    return declared if declared is not None else host.alternate_of(spec.name)


def check_creatable(spec: ExchangeSpec, vhost: str) -> None:
    """Refuses to make what must not be made: reserved names, an alternate that is no name."""
    if spec.name.startswith(RESERVED_PREFIX):
        raise AccessRefused(
            f"exchange name '{spec.name}' contains reserved prefix '{RESERVED_PREFIX}*'"
        )
    tag, _ = spec.arguments.get(ALTERNATE_EXCHANGE, ("S", b""))
    if tag != "S":
        raise PreconditionFailed(
            f"invalid type '{TYPE_NAMES[tag]}' for arg '{ALTERNATE_EXCHANGE}'"
            f" in {resource(spec.name, vhost)}"
        )


def check_deletable(name: str, vhost: str) -> None:
    """Refuses to delete the default exchange and those of the broker itself."""
    check_not_default(name)
    if name.startswith(RESERVED_PREFIX):
        raise AccessRefused(f"deletion of system {resource(name, vhost)} not allowed")


def check_bindable(binding: Binding) -> None:
    """Refuses to bind or unbind the default exchange, on either end."""
    check_not_default(binding.source)
    if binding.destination_kind is DestinationKind.EXCHANGE:
        check_not_default(binding.destination)


def check_equivalent(current: ExchangeSpec, received: ExchangeSpec, vhost: str) -> None:
    """Refuses to declare an exchange again as another; of the arguments only one is compared."""
    where = resource(received.name, vhost)
    if received.type != current.type:
        types = f"'{atom(received.type)}'", f"'{atom(current.type)}'"
        raise inequivalent("type", where, *types)
    for name in ("durable", "auto_delete", "internal"):
        new, old = getattr(received, name), getattr(current, name)
        if new != old:
            raise inequivalent(name, where, plain(new), plain(old))
    new, old = (spec.arguments.get(ALTERNATE_EXCHANGE) for spec in (received, current))
    check_same(ALTERNATE_EXCHANGE, where, new, old)


def resource(name: str, vhost: str) -> str:
    """An exchange as reply texts name it."""
    return f"exchange '{name}' in vhost '{vhost}'"
