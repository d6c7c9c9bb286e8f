"""Observers of a node: of its clients, its log, its memory and its disk, as configured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fluffle.broker.alarms import DiskWatch, MemoryWatch
from fluffle.broker.base.logs import event, level_of
from fluffle.broker.durability.durability import PageOut
from fluffle.broker.event_publisher import EVENT_EXCHANGE, HOME, LOG_EXCHANGE

if TYPE_CHECKING:
    from fluffle.broker.alarms import Alarms
    from fluffle.broker.base.clock import Clock
    from fluffle.broker.base.traffic import Traffic
    from fluffle.broker.cluster_port import ClusterPort
    from fluffle.broker.config.config import Config
    from fluffle.broker.core.observer import Observer
    from fluffle.broker.core.services import Services
    from fluffle.broker.definitions.catalogue import Catalogue
    from fluffle.broker.durability.durability import Durability
    from fluffle.broker.queues.engine import Queue
    from fluffle.broker.routing.exchange import ExchangeSpec
    from fluffle.broker.runtime.runtime import Runtime
    from fluffle.broker.statistics.statistics import Statistics
    from fluffle.broker.vhosts.vhost import VirtualHost

logger = logging.getLogger(__name__)


class NodeObservers(NamedTuple):
    """How a node is."""

    observers: tuple[Observer, ...]
    statistics: Statistics | None = None
    """Statistics, or None where they are switched off."""


def node_observers(
    config: Config,
    observers: tuple[Observer, ...],
    catalogue: Catalogue,
    *,
    clock: Clock,
    alarms: Alarms,
    traffic: Traffic,
) -> NodeObservers:
    """These, and as it is configured: what is announced, and counted by object for the management
    API and metrics."""
    if config.event_exchange:
        from fluffle.broker.core.client_events import begun  # noqa: PLC0415  only if it is used

        announcer = begun(config.node_name, catalogue.vhosts, clock, catalogue.known, alarms)
        observers = *observers, announcer
    if config.management_listen is None and config.metrics_listen is None:
        return NodeObservers(observers)
    from fluffle.broker.statistics.statistics import Statistics  # noqa: PLC0415  only if it is used

    statistics = Statistics(catalogue.vhosts, traffic, clock=clock)
    return NodeObservers((*observers, statistics.observer), statistics)


def start_sampling(statistics: Statistics | None, runtime: Runtime) -> Callable[[], None]:
    """Have counts looked at, so that there are rates, and what is gone is forgotten; what ends
    that."""
    if statistics is None:
        return nothing
    sample_timer = statistics.sample_timer(runtime.background_tasks, runtime.call_later)
    sample_timer.start()
    return sample_timer.stop


def own_exchanges(
    config: Config, vhosts: Mapping[str, VirtualHost]
) -> Iterator[tuple[VirtualHost, ExchangeSpec]]:
    """Exchanges that the node declares for its events and log, each with its virtual host."""
    wanted: list[tuple[str, ExchangeSpec]] = []
    if config.event_exchange:
        wanted.append((HOME, EVENT_EXCHANGE))
    if config.log_exchange is not None:
        wanted.append((config.default_vhost, LOG_EXCHANGE))
    for name, exchange in wanted:
        vhost = vhosts.get(name)
        if vhost is None:
            event(
                logger, logging.WARNING, "exchange_missing", exchange=exchange.name, no_vhost=name
            )
        else:
            yield vhost, exchange


def start_log_publisher(config: Config, vhosts: Mapping[str, VirtualHost]) -> Callable[[], None]:
    """Start publishing lines logged from now on, if wanted; returns what ends that."""
    if config.log_exchange is None:
        return nothing
    from fluffle.broker.event_publisher import LogPublisher  # noqa: PLC0415  only if it is used

    loop, node = asyncio.get_running_loop(), config.node_name
    home = partial(vhosts.get, config.default_vhost)
    lines = LogPublisher(node, config.log_format, home, loop.call_soon_threadsafe, loop.call_later)
    lines.begin(level_of(config.log_exchange))
    return lines.end


def nothing() -> None:
    """Nothing has begun."""


def start_watches(
    config: Config,
    services: Services,
    durability: Durability,
    cluster_view: ClusterPort,
    queues: Callable[[], Iterator[Queue]],
) -> tuple[Callable[[], None], ...]:
    """Look at memory and disk from now on, and raise alarms; what ends that.

    `queues`: those in this process, whose messages go to the disk while memory is short.
    """
    loop, alarms = asyncio.get_running_loop(), services.alarms
    measures = services.runtime.measures
    page_out = PageOut(queues, durability.journals.spill, durability.commits, services.connections)
    memory = MemoryWatch(alarms, measures, loop.call_later, page_out)
    disk = DiskWatch(alarms, measures, loop.call_later, config.data_dir)
    disk.has_room = cluster_view.watch_room(partial(loop.call_soon, disk.look))
    memory.start()
    disk.start()
    return memory.stop, disk.stop
