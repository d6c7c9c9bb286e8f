"""What clients do, one thing at a time, each at random moments: see `kinds_of`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.queues.handout import Outcome
from fluffle.protocol.types import FieldTable
from tests.broker.cluster.streams.client import Client
from tests.broker.cluster.streams.happenings import OUTCOMES
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.town import Town

QUEUES_MAX = 3
BACKLOG_MAX = 100
"""Messages on their way into a queue, in it, or in hands there; then publishers wait."""


def publish(town: Town, workload: Workload, client: Client) -> None:
    """A client waits while its edge is full, or much is on its way or not consumed."""
    backlog = town.book(client.edge.group).image.state.live_count + len(client.ghost.pending)
    if not client.edge.is_full and backlog < BACKLOG_MAX:
        chance, profile = workload.chance, workload.profile
        size = int(chance.random() ** 4 * profile.padding_max)
        client.publish(1 + int(chance.random() ** 2 * profile.batch_max), size)


def attach(_town: Town, workload: Workload, client: Client) -> None:
    chance = workload.chance
    if len(client.consumers) < 3:
        client.attach(
            credit=chance.choice((1, 3, 100)),
            no_ack=chance.random() < 0.15,
            prefetch=chance.choice((0, 2)),
            priority=chance.choice((0, 0, 0, 1, -1)),
        )


def settle(_town: Town, workload: Workload, client: Client) -> None:
    chance, held = workload.chance, client.in_hands()
    if held:
        some = chance.sample(held, chance.randint(1, len(held)))
        client.settle(some, chance.choice(OUTCOMES))


def get(_town: Town, workload: Workload, client: Client) -> None:
    client.get_once(workload.chance.choice((1, 2)), no_ack=workload.chance.random() < 0.2)


def give_up(_town: Town, _workload: Workload, client: Client) -> None:
    """What was got takes too long."""
    client.give_up()


def purge(_town: Town, _workload: Workload, client: Client) -> None:
    client.purge()


def detach(_town: Town, workload: Workload, client: Client) -> None:
    if client.consumers:
        client.detach(workload.chance.choice(client.consumers))


def close(_town: Town, workload: Workload, client: Client) -> None:
    """A channel ends, maybe right after it has acknowledged everything."""
    channels = client.channels()
    if channels:
        if workload.chance.random() < 0.5 and (held := client.in_hands()):
            client.settle(held, Outcome.ACKED)
        client.end_channel(workload.chance.choice(channels))


def abandon(_town: Town, _workload: Workload, client: Client) -> None:
    client.abandon()


def declare(town: Town, workload: Workload) -> None:
    """A queue that may have limits, if it is not there."""
    chance, stations = workload.chance, town.stations()
    if not stations:
        return
    arguments: FieldTable = {"x-queue-type": ("S", b"quorum")}
    arguments["x-delivery-limit"] = ("l", chance.choice((1, 3, 20)))
    if chance.random() < 0.4:
        arguments["x-max-length"] = ("l", chance.choice((2, 10, 30)))
        arguments["x-overflow"] = ("S", b"reject-publish")
    chance.choice(stations).declare(f"q{chance.randrange(QUEUES_MAX)}", arguments)


def delete(town: Town, workload: Workload) -> None:
    stations = town.stations()
    if stations:
        workload.chance.choice(stations).delete(f"q{workload.chance.randrange(QUEUES_MAX)}")


def count(town: Town, workload: Workload) -> None:
    """How many messages are there?  Somebody answers, or it is said that nobody can."""
    stations = [station for station in town.stations() if station.clients]
    if stations:
        station = workload.chance.choice(stations)
        group = workload.chance.choice(sorted(station.clients))
        station.ask_counts(group)


def ambush(town: Town, workload: Workload) -> None:
    """Lie in wait for a hand-out: a rare moment, and many rules are about it."""
    if not town.ambushes:
        town.ambushes.append(workload.chance.choice(("reset", "crash", "crash")))


def kinds_of(town: Town) -> Mapping[str, Callable[[Workload], None]]:
    """As a `Trade` has them."""

    def at_some(do: Callable[[Town, Workload, Client], object]) -> Callable[[Workload], None]:
        return lambda workload: at_some_client(town, workload, do)

    return {
        "publish": at_some(publish),
        "attach": at_some(attach),
        "settle": at_some(settle),
        "get": at_some(get),
        "purge": at_some(purge),
        "give_up": at_some(give_up),
        "detach": at_some(detach),
        "close": at_some(close),
        "abandon": at_some(abandon),
        "declare": lambda workload: declare(town, workload),
        "delete": lambda workload: delete(town, workload),
        "count": lambda workload: count(town, workload),
        "ambush": lambda workload: ambush(town, workload),
    }


def at_some_client(
    town: Town, workload: Workload, do: Callable[[Town, Workload, Client], object]
) -> None:
    """Those of some queue on some node, if there are any."""
    stations = [station for station in town.stations() if station.clients]
    if stations:
        station = workload.chance.choice(stations)
        group = workload.chance.choice(sorted(station.clients))
        do(town, workload, station.clients[group])
        station.ports[group].touch()


def draw_rates(chance: Random) -> dict[str, float]:
    """How often a second, in the whole cluster."""
    return {
        "publish": chance.choice((2.0, 5.0, 10.0, 30.0)),
        "attach": chance.choice((0.5, 1.0)),
        "settle": chance.choice((2.0, 5.0, 10.0)),
        "get": chance.choice((0.0, 1.0, 5.0)),
        "purge": chance.choice((0.0, 0.0, 0.1)),
        "give_up": chance.choice((0.0, 0.3)),
        "detach": chance.choice((0.0, 0.3)),
        "close": chance.choice((0.1, 0.5)),
        "abandon": chance.choice((0.0, 0.0, 0.05)),
        "declare": chance.choice((0.3, 1.0)),
        "delete": chance.choice((0.0, 0.05, 0.2)),
        "count": chance.choice((0.0, 0.5)),
        "ambush": chance.choice((0.0, 0.0, 0.2, 0.5)),
        "read": 0.0,
        "transfer": chance.choice((0.0, 0.0, 0.1, 1.0)),
        "compact": chance.choice((0.0, 0.3, 1.0, 3.0)),
        "move": chance.choice((0.0, 0.0, 0.1, 0.3)),
        "rejoin": chance.choice((0.0, 0.0, 0.1)),
    }
