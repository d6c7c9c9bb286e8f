"""The process that `benchmarks.embedded` measures: somebody's test, with a broker inside.

It says what its start took, and does what each line that it reads asks for, until there are none.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluffle.broker import ThreadedBroker

BROKERS = 20
VHOSTS = 100
CLUSTERS = 5


def cold(stack: ExitStack) -> "tuple[ThreadedBroker, dict[str, Any]]":
    """From the first import to a connection that is open."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    from fluffle.broker import ThreadedBroker  # noqa: PLC0415  this is what is measured

    imported_s = time.perf_counter()
    broker = stack.enter_context(ThreadedBroker())
    open_to(broker)
    return broker, {
        "imported_ms": (imported_s - began_s) * 1000,
        "open_ms": (time.perf_counter() - began_s) * 1000,
        "cpu_ms": (time.process_time() - cpu_s) * 1000,
        "address": address_of(broker),
        "modules": len(sys.modules),
    }


def open_to(broker: "ThreadedBroker") -> None:
    from benchmarks.client import Address, open_connection  # noqa: PLC0415  after what is measured

    open_connection(Address(*address_of(broker))).close()


def address_of(broker: "ThreadedBroker") -> tuple[str, int]:
    return broker.broker.node.addresses["amqp"]


def more_brokers(_broker: "ThreadedBroker") -> list[float]:
    """How long each of some more takes, to the first connection; in milliseconds."""
    from fluffle.broker import ThreadedBroker  # noqa: PLC0415  as above

    taken_ms = []
    for _ in range(BROKERS):
        began_s = time.perf_counter()
        with ThreadedBroker() as another:
            open_to(another)
            taken_ms.append((time.perf_counter() - began_s) * 1000)
    return taken_ms


def clusters(_broker: "ThreadedBroker") -> list[float]:
    """How long three nodes take until all of them know a leader, and take clients."""
    from fluffle.broker import ThreadedCluster  # noqa: PLC0415  as above

    taken_ms = []
    for _ in range(CLUSTERS + 1):
        began_s = time.perf_counter()
        with ThreadedCluster(nodes=3):
            taken_ms.append((time.perf_counter() - began_s) * 1000)
    return taken_ms[1:]  # the first one imports what clusters need


def vhosts(broker: "ThreadedBroker") -> list[float]:
    """How long each of some takes to be made; each is gone before the next."""
    taken_ms = []
    for number in range(VHOSTS):
        began_s = time.perf_counter()
        broker.add_vhost(f"vhost {number}")
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        broker.delete_vhost(f"vhost {number}")
    return taken_ms


DEEDS: "dict[str, Callable[[ThreadedBroker], list[float]]]" = {
    "brokers": more_brokers,
    "vhosts": vhosts,
    "clusters": clusters,
}


def main() -> None:
    with ExitStack() as stack:
        broker, reported = cold(stack)
        print(json.dumps(reported), flush=True)
        for line in sys.stdin:
            print(json.dumps(DEEDS[line.strip()](broker)), flush=True)


if __name__ == "__main__":
    main()
