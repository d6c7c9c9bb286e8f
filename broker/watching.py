"""Who sees what clients of a node do: composed in at its start, and mostly nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fluffle.broker.alarms import Alarms
    from fluffle.broker.chores import Chores
    from fluffle.broker.config import Config
    from fluffle.broker.definitions.catalogue import Catalogue
    from fluffle.broker.outside import Outside
    from fluffle.broker.server.observing import Observer
    from fluffle.broker.statistics.statistics import Statistics
    from fluffle.broker.traffic import Traffic


class Watched(NamedTuple):
    """How a node is."""

    observers: tuple[Observer, ...]
    statistics: Statistics | None = None
    """None where nobody may ask for them."""


def watched(
    config: Config, outside: Outside, catalogue: Catalogue, alarms: Alarms, traffic: Traffic
) -> Watched:
    """As it is configured: what is announced, and counted by object for the management API and
    metrics."""
    observers = outside.observers
    if config.event_exchange:
        from fluffle.broker.server.announcing import begun  # noqa: PLC0415  only if it is used

        clock, known = outside.clock, catalogue.known
        observers = *observers, begun(config.node_name, catalogue.vhosts, clock, known, alarms)
    if config.management_listen is None and config.metrics_listen is None:
        return Watched(observers)
    from fluffle.broker.statistics.statistics import Statistics  # noqa: PLC0415  only if it is used

    statistics = Statistics(catalogue.vhosts, traffic, clock=outside.clock)
    return Watched((*observers, statistics.observer), statistics)


def sampled(statistics: Statistics | None, chores: Chores, outside: Outside) -> Callable[[], None]:
    """Have counts looked at, so that there are rates, and what is gone is forgotten; what ends
    that."""
    if statistics is None:
        return nothing
    clockwork = statistics.clockwork(chores, outside.call_later)
    clockwork.start()
    return clockwork.stop


def nothing() -> None:
    """Nothing has begun."""
