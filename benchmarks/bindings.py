"""Many bindings on one topic exchange, in this process: what they cost and how fast they route."""

import gc
import os
import time
from collections.abc import Iterator
from typing import cast

from benchmarks.machine import rss_bytes
from benchmarks.measurement import Measurement
from fluffle.broker.daemon.daemon import GC_THRESHOLDS
from fluffle.broker.routing import changes
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.routing.router import Router
from fluffle.broker.routing.topology import Topology

EXCHANGE = "measurements"
QUEUES = 1_000
SITES = 1_000
ROUTES = 100_000
STRIDE = 7_919
"""A prime: the keys that are routed are spread over all bindings, the same in every run."""


def binding_key(number: int) -> str:
    """Half of them end in one wildcard word, half in any number."""
    return f"site{number % SITES}.device{number}.{'*' if number % 2 else '#'}"


def bind(topology: Topology, count: int) -> None:
    for number in range(count):
        binding = Binding(
            EXCHANGE, f"q{number % QUEUES}", DestinationKind.QUEUE, binding_key(number)
        )
        for fact in changes.bind(topology, binding).puts:
            topology.put_binding(cast(Binding, fact.value))


def routing_keys(count: int) -> Iterator[str]:
    for place in range(ROUTES):
        number = place * STRIDE % count
        yield f"site{number % SITES}.device{number}.temperature"


def measure(count: int) -> list[Measurement]:
    """`count` bindings with distinct keys; every key that is routed matches one of them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    rss_before = rss_bytes([os.getpid()])
    topology = Topology("/")
    topology.put_exchange(ExchangeSpec(EXCHANGE, "topic"))
    router = Router(topology, lambda _name: True)

    began = time.process_time()
    bind(topology, count)
    bind_s = time.process_time() - began
    bytes_each = (rss_bytes([os.getpid()]) - rss_before) / count

    keys = list(routing_keys(count))
    began = time.process_time()
    routed = sum(len(router.route(EXCHANGE, (key,), None)) for key in keys)
    route_s = time.process_time() - began
    if routed != len(keys):
        raise AssertionError(f"{len(keys)} keys were routed to {routed} queues")

    memo = {key: router.route(EXCHANGE, (key,), None) for key in keys}
    began = time.process_time()
    for key in keys:
        memo[key]
    memo_s = time.process_time() - began
    what = f"{count:,} bindings on a topic exchange"
    return [
        Measurement(f"{what}: bind", bind_s / count * 1e6, "µs each"),
        Measurement(f"{what}: memory", bytes_each, "B each"),
        Measurement(f"{what}: route", route_s / len(keys) * 1e6, "µs"),
        Measurement(f"{what}: route remembered", memo_s / len(keys) * 1e6, "µs"),
    ]
