"""Why a message goes where it goes: the walk of `router`, with all that it passes over.

published to exchange 'events' (topic) with routing key 'order.created'
  + queue 'audit' by '#'
  - queue 'bills' by 'bill.*': where 'bill' should be there is 'order'
goes to: 'audit'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, Exchange, routes_as
from fluffle.broker.routing.jms_topic import FALSE, JMS_TOPIC, TRUE, headers_of, selector_of
from fluffle.broker.routing.matcher import X_MATCH, HeadersCondition, MatchInput, given_by
from fluffle.broker.routing.router import Walk
from fluffle.broker.routing.topic import ANY_WORDS, ONE_WORD, words_of
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.headers import delay_of
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term
from fluffle.protocol.wire import Field

PLACES_MAX = 3
"""Most words named where another should have been."""

Reason: TypeAlias = Callable[[Binding, Sequence[str], Properties | None], str]
"""(the binding, routing keys, properties); empty if it matches."""


def of_direct(binding: Binding, routing_keys: Sequence[str], _properties: object) -> str:
    if binding.routing_key in routing_keys:
        return ""
    return f"the routing key is {' or '.join(map(repr, routing_keys))}"


def of_fanout(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return ""


def of_topic(binding: Binding, routing_keys: Sequence[str], _properties: object) -> str:
    reasons = [of_pattern(binding.routing_key, key) for key in routing_keys]
    if not all(reasons):
        return ""
    if len(reasons) == 1:
        return reasons[0]
    pairs = zip(routing_keys, reasons, strict=True)
    return "; ".join(f"with {key!r}, {reason}" for key, reason in pairs)


def of_pattern(pattern: str, key: str) -> str:
    """Where a routing key leaves a binding key of a topic exchange."""
    words = words_of(key)
    reached = {0}
    """How many words of the key can stand for what has been seen of the pattern."""
    for wanted in words_of(pattern):
        if wanted == ANY_WORDS:
            reached = set(range(min(reached), len(words) + 1))
            continue
        behind = {at + 1 for at in reached if at < len(words) and wanted in (ONE_WORD, words[at])}
        if not behind:
            return f"where {wanted!r} should be there is {places(words, reached)}"
        reached = behind
    if len(words) in reached:
        return ""
    return f"{'.'.join(words[max(reached) :])!r} is left over at the end"


def places(words: Sequence[str], reached: set[int]) -> str:
    """Words of a key at these places, in the form of text."""
    found = [repr(words[at]) for at in sorted(reached) if at < len(words)]
    if not found:
        return "the end of the key"
    shown = [*dict.fromkeys(found)][:PLACES_MAX]
    return " or ".join(shown) + (" and so on" if len(shown) < len({*found}) else "")


def of_headers(binding: Binding, _routing_keys: object, properties: Properties | None) -> str:
    condition, given = HeadersCondition(binding.arguments), given_by(properties)
    if condition.holds(given):
        return ""
    headers = (properties and properties.headers) or {}
    lacking = [
        of_header(name, binding.arguments[name], headers) for name in condition.lacking(given)
    ]
    return "; ".join(lacking) or f"{X_MATCH} is any, and there is nothing to match"


def of_header(name: str, wanted: Field, headers: Mapping[str, Field]) -> str:
    if name not in headers:
        return f"header {name!r} is absent"
    return f"header {name!r} is {shown(headers[name])}, not {shown(wanted)}"


def shown(field: Field) -> str:
    """A value as people write it."""
    _tag, value = field
    return repr(value.decode(errors="replace")) if isinstance(value, bytes) else term(value)


def of_selector(binding: Binding, _routing_keys: object, properties: Properties | None) -> str:
    found = selector_of(binding)(headers_of(properties))
    if found == TRUE:
        return ""
    return "the selector is false" if found == FALSE else "the selector is neither true nor false"


def of_chance(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "another one was drawn"


def of_local_chance(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "another one was drawn, or its queue is not on this node"


def of_hash(_binding: Binding, _routing_keys: object, _properties: object) -> str:
    return "what is hashed leads to another one"


REASONS: Mapping[str, Reason] = {
    "direct": of_direct,
    "fanout": of_fanout,
    "topic": of_topic,
    "headers": of_headers,
    JMS_TOPIC: of_selector,
    "x-recent-history": of_fanout,
    "x-random": of_chance,
    "x-local-random": of_local_chance,
    "x-consistent-hash": of_hash,
    "x-modulus-hash": of_hash,
}
"""Functions that explain a match, by exchange type."""


PUBLISHED = "published to"
"""How a message comes to the first exchange."""

UNMATCHED_SHOWN_MAX = 50
"""Most unmatched bindings of an exchange in a text; the data have all."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Explanation of why one binding matches or does not."""

    binding: Binding
    reason: str
    """Why it does not match; empty if it does."""

    @property
    def is_match(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        binding = self.binding
        arguments = ", ".join(f"{name}={shown(each)}" for name, each in binding.arguments.items())
        text = (
            f"{binding.destination_kind.value} {binding.destination!r} by {binding.routing_key!r}"
        )
        text += f" with {arguments}" if arguments else ""
        return f"- {text}: {self.reason}" if self.reason else f"+ {text}"


@dataclass(frozen=True, slots=True)
class Visit:
    """Explanation of one exchange that the message comes to."""

    exchange: str
    type: str
    came: str
    """How it comes there."""
    verdicts: tuple[Verdict, ...]
    """Verdicts on all its bindings; those that match in front, in the order in which they count."""
    notes: tuple[str, ...]
    """Further remarks for the reader."""

    def lines(self) -> Iterator[str]:
        yield f"{self.came} exchange {self.exchange!r} ({self.type})"
        unmatched = 0
        for verdict in self.verdicts:
            unmatched += not verdict.is_match
            if verdict.is_match or unmatched <= UNMATCHED_SHOWN_MAX:
                yield f"  {verdict}"
        if unmatched > UNMATCHED_SHOWN_MAX:
            yield f"  and {unmatched - UNMATCHED_SHOWN_MAX} more that do not match"
        for note in self.notes:
            yield f"  {note}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of where a message goes; as text it is for people."""

    routing_keys: tuple[str, ...]
    visits: tuple[Visit, ...]
    """Exchanges in the order in which they are asked."""
    queues: tuple[str, ...]
    """Queues reached, as `Router.route` gives them; if the first exchange is internal, not for
    clients."""

    def __str__(self) -> str:
        keys = ", ".join(map(repr, self.routing_keys))
        lines = [line for visit in self.visits for line in visit.lines()]
        lines[0] += f" with routing key {keys}"
        goes = f"goes to: {', '.join(map(repr, self.queues))}" if self.queues else "goes nowhere"
        return "\n".join((*lines, goes))


def explain(
    topology: Topology,
    queue_exists: Callable[[str], bool],
    exchange: str,
    routing_keys: Sequence[str],
    properties: Properties | None,
) -> Explanation:
    """`routing_keys` as for `Router.route`.  NotFound if there is no such exchange."""
    topology.require(exchange)
    keys = tuple(routing_keys)
    if exchange == DEFAULT_EXCHANGE:
        visit = default_visit(queue_exists, keys)
        found = dict.fromkeys(each.binding.destination for each in visit.verdicts if each.is_match)
        return Explanation(keys, (visit,), tuple(found))
    return ExplainedWalk(topology, exchange, keys, properties).whole()


def default_visit(queue_exists: Callable[[str], bool], keys: tuple[str, ...]) -> Visit:
    """The default exchange has no bindings but those that queues imply."""
    verdicts = [
        Verdict(
            Binding(DEFAULT_EXCHANGE, key, DestinationKind.QUEUE, key),
            "" if queue_exists(key) else "there is no queue of that name",
        )
        for key in dict.fromkeys(keys)
    ]
    return Visit(DEFAULT_EXCHANGE, "direct", PUBLISHED, tuple(verdicts), ())


class ExplainedWalk:
    """Walk over exchanges that records an explanation."""

    __slots__ = ("_came", "_keys", "_properties", "_queues", "_topology", "_walk")

    def __init__(
        self, topology: Topology, start: str, keys: tuple[str, ...], properties: Properties | None
    ) -> None:
        self._topology = topology
        self._keys = keys
        self._properties = properties
        self._walk = Walk(topology, start)
        self._came = {start: PUBLISHED}
        self._queues: dict[str, None] = {}

    def whole(self) -> Explanation:
        visits = tuple(self._visit(exchange) for exchange in self._walk)
        return Explanation(self._keys, visits, tuple(self._queues))

    def _visit(self, exchange: Exchange) -> Visit:
        name, verdicts, notes = exchange.spec.name, list[Verdict](), list[str]()
        delay_ms = delay_of(self._properties.headers) if self._properties is not None else 0
        if delay_ms and exchange.delayed_queue is not None:
            self._queues[exchange.delayed_queue] = None
            notes.append(f"waits there for {delay_ms} ms, and then goes on without x-delay")
        else:
            verdicts = self._verdicts(exchange)
            notes = [*self._onward(exchange, verdicts)]
        if exchange.spec.internal and self._came[name] == PUBLISHED:
            notes.append("is internal: a client that publishes to it is refused (ACCESS_REFUSED)")
        if exchange.matcher.asks is MatchInput.CHANCE:
            notes.append("chance has a say: another message may go elsewhere")
        return Visit(name, exchange.spec.type, self._came[name], tuple(verdicts), tuple(notes))

    def _verdicts(self, exchange: Exchange) -> list[Verdict]:
        keys, properties = self._keys, self._properties
        matched = dict.fromkeys(chain.from_iterable(exchange.matcher.search(keys, properties)))
        reason = REASONS[routes_as(exchange.spec)]
        others = (each for each in exchange.matcher if each not in matched)
        return [
            *(Verdict(each, "") for each in matched),
            *(Verdict(each, reason(each, keys, properties)) for each in others),
        ]

    def _onward(self, exchange: Exchange, verdicts: list[Verdict]) -> Iterator[str]:
        """Follow what matches, else the alternate exchange; what there is to say of that."""
        name, is_matched = exchange.spec.name, False
        for verdict in verdicts:
            if not verdict.is_match:
                continue
            is_matched, binding = True, verdict.binding
            if binding.destination_kind is DestinationKind.QUEUE:
                self._queues[binding.destination] = None
            elif not self._add(binding.destination, f"from exchange {name!r} to"):
                yield f"exchange {binding.destination!r} has been asked: nothing goes round"
        if not verdicts:
            yield "has no bindings"
        if is_matched or exchange.alternate is None:
            return
        if self._topology.find(exchange.alternate) is None:
            yield f"its alternate exchange {exchange.alternate!r} is not there"
        elif self._add(exchange.alternate, f"unmatched by exchange {name!r}, on to its alternate"):
            yield f"nothing matches: it goes to the alternate exchange {exchange.alternate!r}"
        else:
            other = exchange.alternate
            yield f"its alternate exchange {other!r} has been asked: nothing goes round"

    def _add(self, name: str, came: str) -> bool:
        self._came.setdefault(name, came)
        return self._walk.add(name)
