"""basic.publish: runs of frames, and what a client hears of its publishes.

What is done with a run is the publisher's (`core.publisher`); a hot file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, repeat
from typing import TypeAlias

from fluffle.broker.base.errors import BrokerError, NotImplementedHere
from fluffle.broker.core.confirms import Confirms, Run
from fluffle.broker.core.output_buffer import OutputBuffer
from fluffle.broker.core.property_facts import (
    read_facts_in_steps,
    read_lifetimes,
    remember_facts,
)
from fluffle.broker.core.publisher import COPIES_MAX, ROUTE_COST, Publisher, messages_at_once
from fluffle.broker.core.route_lookup import (
    LOOKUP_STOPS_MAX,
    CachedRoute,
    LookupTooLong,
    RouteCache,
    RoutedBatch,
)
from fluffle.broker.metadata.metadata import UnconfirmedAbsence
from fluffle.broker.routing.router import RouteInputs
from fluffle.protocol.hot import ack_frame, nack_frame
from fluffle.protocol.methods import Basic, decode_method, return_frame
from fluffle.protocol.properties import OUTLINED_BYTES_MAX, raw_properties, split_content
from fluffle.protocol.reader import Publishes
from fluffle.protocol.spec import ProtocolError, ReplyCode
from fluffle.protocol.steps import Steps

KINDS_MAX = 256
"""Most different basic.publish frames looked up together, for a few milliseconds."""

DRAWN_MAX = 256
"""Most messages routed at random together, for a few milliseconds."""

METHOD_AT = 7
"""Where the payload of a method frame begins."""


PutBack: TypeAlias = Callable[[list[Publishes]], None]
"""Function that puts batches back, to be taken next, one by one."""


def on_publishes(
    publisher: Publisher, batch: Publishes, put_back: PutBack, *, is_certain: bool
) -> int:
    """Take a batch of messages; return its cost: for each routed batch, its queues, and new routes.

    One that cannot be sorted, or has too much in it for one turn, is put back in parts.
    `is_certain`: all is known that was defined before it came.  LookupTooLong for one that
    `take_in_steps` must take.
    """
    routes = publisher.session.route_cache
    found_count, routes.stops_left = routes.found_count, LOOKUP_STOPS_MAX
    cost = take(publisher, batch, put_back, is_certain=is_certain)
    return cost + ROUTE_COST * (routes.found_count - found_count)


def take(publisher: Publisher, batch: Publishes, put_back: PutBack, *, is_certain: bool) -> int:
    """Take a batch as `on_publishes` does, and return the cost without new routes."""
    session = publisher.session
    methods = batch.methods
    route = session.route_cache.find(methods[0], search_route)
    facts = session.facts.get(batch.outline)
    if facts is None:
        if len(batch.outline) > OUTLINED_BYTES_MAX:
            raise LookupTooLong
        facts = remember_facts(session.facts, batch.outline)
    lifetimes_ms = read_lifetimes(batch.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(methods):
        put_back(parted(batch, len(lifetimes_ms)))
        return 1
    if methods.count(methods[0]) == len(methods):
        if route.needs is not None and (parts := split_for_routing(route.needs, batch)):
            put_back(parts)
            return 1
        if len(methods) * len(route.targets) > COPIES_MAX and len(methods) > 1:
            put_back(spans_of(batch, messages_at_once(route.targets)))
            return 1
        return publisher.publish_run(route, facts, batch, lifetimes_ms, is_certain=is_certain)
    kinds = dict.fromkeys(methods)
    if len(kinds) > KINDS_MAX:
        put_back(spans_of(batch, KINDS_MAX))
        return 1
    found, refusal = find_routes(session.route_cache, kinds)
    if not is_certain and (refusal or any(each.misses for each in found.values())):
        raise UnconfirmedAbsence
    cost = publisher.publish_mixed(methods, found, facts, batch, lifetimes_ms)
    if cost is None:
        put_back(runs_of(batch, repeat(batch.outline)))
        return 1
    if refusal is not None:
        raise refusal
    return cost


def take_in_steps(
    publisher: Publisher, run: Publishes, put_back: PutBack, *, is_certain: bool
) -> Steps[None]:
    """Take messages as `take` does, whatever it takes to find where they go.

    Those that do not go together are put back in parts, so that nothing has been done of what turns
    out to be refused, or to be in doubt.
    """
    session = publisher.session
    if len(runs := runs_of(run, repeat(run.outline))) > 1:
        put_back(runs)
        return
    route = session.route_cache.current(run.methods[0])
    if route is None:
        route = yield from search_route(session.route_cache, run.methods[0])
    if route.needs is not None and (parts := split_for_routing(route.needs, run)):
        put_back(parts)
        return
    facts = session.facts.get(run.outline)
    if facts is None:
        facts = yield from read_facts_in_steps(run.outline)
    lifetimes_ms = read_lifetimes(run.contents) if facts.expires else None
    if isinstance(lifetimes_ms, list) and len(lifetimes_ms) < len(run.methods):
        put_back(parted(run, len(lifetimes_ms)))
        return
    yield from publisher.publish_run_in_steps(
        route, facts, run, lifetimes_ms, is_certain=is_certain
    )


# The routes that basic.publish frames mean


def search_route(routes: RouteCache, method_frame: bytes) -> Steps[CachedRoute]:
    """Decode a basic.publish frame and find where its messages go.

    Raises NotImplementedHere for immediate, NotFound and AccessRefused for the exchange.
    """
    method = decode_method(method_frame[METHOD_AT:-1])
    assert isinstance(method, Basic.Publish)
    if method.immediate:
        raise NotImplementedHere("immediate=true")
    return (
        yield from routes.search(
            method_frame, method.exchange, method.routing_key, mandatory=method.mandatory
        )
    )


def find_routes(
    routes: RouteCache, kinds: Iterable[bytes]
) -> tuple[dict[bytes, CachedRoute], BrokerError | ProtocolError | None]:
    """Routes by basic.publish frame, up to the first that is refused, and what is said to that.

    `kinds` are the frames, each once.
    """
    found: dict[bytes, CachedRoute] = {}
    for method in kinds:
        try:
            route = routes.find(method, search_route)
            if not route.is_admitted:
                routes.admit(route)
        except (BrokerError, ProtocolError) as refusal:
            return found, refusal
        found[method] = route
    return found, None


# Parts of a batch


def split_for_routing(needs: RouteInputs, batch: Publishes) -> list[Publishes]:
    """The parts of a batch that can be routed one by one; none if the whole of it can.

    Who asks for properties wants all of them: for him they are their own outline.
    """
    if needs.property_bindings and set(map(raw_properties, batch.contents)) != {batch.outline}:
        return runs_of(batch, map(raw_properties, batch.contents))
    if needs.is_drawn and len(batch.methods) > DRAWN_MAX:
        return spans_of(batch, DRAWN_MAX)
    return []


def spans_of(batch: Publishes, count: int) -> list[Publishes]:
    """Split a batch into parts of `count` messages."""
    starts = range(0, len(batch.methods), count)
    return [part_of(batch, start, start + count, batch.outline) for start in starts]


def runs_of(batch: Publishes, outlines: Iterable[bytes]) -> list[Publishes]:
    """Split a batch where the basic.publish frame changes, or the outline."""
    runs, start = [], 0
    for (_method, outline), same in groupby(zip(batch.methods, outlines, strict=False)):
        stop = start + sum(1 for _ in same)
        runs.append(part_of(batch, start, stop, outline))
        start = stop
    return runs


def parted(batch: Publishes, at: int) -> list[Publishes]:
    """Split a batch in front of the message at that place, which is refused."""
    spans = (0, at), (at, len(batch.methods))
    return [part_of(batch, start, stop, batch.outline) for start, stop in spans]


def part_of(batch: Publishes, start: int, stop: int, outline: bytes) -> Publishes:
    """The messages from `start` up to `stop`, which have that outline."""
    contents = batch.contents[start:stop]
    size_bytes = sum(map(len, contents))
    return Publishes(batch.channel, batch.methods[start:stop], contents, size_bytes, outline)


# What a client hears of its publishes


class PublishFrames:
    """Frames of one channel that say what became of its publishes."""

    __slots__ = ("_confirms", "_frame_bytes_max", "_number", "_output")

    def __init__(self, number: int, output: OutputBuffer, frame_bytes_max: int) -> None:
        self._number = number
        self._output = output
        self._frame_bytes_max = frame_bytes_max
        self._confirms: Confirms | None = None
        """Ledger that knows more than was sent."""

    def returned(self, routed: RoutedBatch) -> None:
        """basic.return with 312 for messages that were mandatory and went nowhere."""
        number, output = self._number, self._output
        for origin, content in zip(routed.origins, routed.contents, strict=True):
            output.add(
                return_frame(
                    number, ReplyCode.NO_ROUTE, "NO_ROUTE", origin.exchange, origin.routing_key
                )
            )
            output.add(split_content(content, number, self._frame_bytes_max))

    def report(self, confirms: Confirms) -> None:
        for frame in confirm_frames(self._number, confirms):
            self._output.add(frame)

    def report_later(self, confirms: Confirms) -> None:
        self._confirms = confirms
        self._output.ask_later(self)

    def write_output(self) -> None:
        """Say what is known by now, in the midst of writing."""
        if self._confirms is not None:
            self._output.pieces += confirm_frames(self._number, self._confirms)


def confirm_frames(channel: int, confirms: Confirms) -> list[bytes]:
    """Take what has become known, as frames that are coalesced as RabbitMQ does.

    One with `multiple` is for all that lies below each number that is open or has the other answer,
    single ones for the rest; a lone answer goes out with multiple=false.
    """
    accepted, refused, open_from = confirms.take()
    frames: list[bytes] = []
    if accepted:
        acks = coalesced(accepted, refused, open_from)
        frames += [ack_frame(channel, tag, multiple=multiple) for tag, multiple in acks]
    if refused:
        nacks = coalesced(refused, accepted, open_from)
        frames += [nack_frame(channel, tag, multiple=multiple) for tag, multiple in nacks]
    return frames


def coalesced(runs: Sequence[Run], others: Sequence[Run], open_from: int) -> list[tuple[int, bool]]:
    """Tags and whether each stands for all before it, for runs that have the same answer."""
    if len(runs) == 1 and runs[0][0] == runs[0][1]:
        return [(runs[0][0], False)]
    bound = min([open_from, *(first for first, _last in others)])
    below = [last for first, last in runs if first < bound]
    answers = [(max(below), True)] if below else []
    for first, last in runs:
        if first > bound:
            answers += [(tag, False) for tag in range(first, last + 1)]
    return answers
