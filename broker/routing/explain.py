"""Why a message goes where it goes: the walk of `router`, with all that it passes over.

published to exchange 'events' (topic) with routing key 'order.created'
  + queue 'audit' by '#'
  - queue 'bills' by 'bill.*': where 'bill' should be there is 'order'
goes to: 'audit'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import DEFAULT_EXCHANGE, Exchange, routes_as
from fluffle.broker.routing.matcher import MatchInput
from fluffle.broker.routing.mismatch_reasons import REASONS, shown
from fluffle.broker.routing.router import Walk
from fluffle.broker.routing.topology import Topology
from fluffle.protocol.delays import delay_of
from fluffle.protocol.properties import Properties

PUBLISHED = "published to"
"""How a message comes to the first exchange."""

UNMATCHED_SHOWN_MAX = 50
"""So many of an exchange stand in a text; as data there are all."""


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
        told = (
            f"{binding.destination_kind.value} {binding.destination!r} by {binding.routing_key!r}"
        )
        told += f" with {arguments}" if arguments else ""
        return f"- {told}: {self.reason}" if self.reason else f"+ {told}"


@dataclass(frozen=True, slots=True)
class Visit:
    """Explanation of one exchange that the message comes to."""

    exchange: str
    type: str
    came: str
    """How it comes there."""
    verdicts: tuple[Verdict, ...]
    """Of all its bindings; those that match in front, in the order in which they count."""
    notes: tuple[str, ...]
    """What else there is to know."""

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
    """As `Router.route` has them; if the first exchange is internal, not for clients."""

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
        if delay_ms and exchange.calendar is not None:
            self._queues[exchange.calendar] = None
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
        matched = dict.fromkeys(exchange.matcher.match(keys, properties))
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
