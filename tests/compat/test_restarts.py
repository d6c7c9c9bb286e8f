"""Runs every scenario that goes across a restart: all begin, both brokers end and start, all go on.

One restart of each kind serves all, since RabbitMQ takes eight seconds for it.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pytest

from tests.compat.comparing import compare
from tests.compat.oracle import RabbitMQ
from tests.compat.scenario import CROSSINGS, Crossing, End, Peer, Transcript, load_scenarios
from tests.support.client import DEADLINE_S
from tests.support.daemon import Daemon

pytestmark = pytest.mark.compat

load_scenarios()


@dataclass(slots=True)
class Told:
    """A scenario on its way, with one broker."""

    peer: Peer
    steps: Iterator[None]

    def go_on(self, port: int) -> None:
        """To the next restart, or to the end."""
        self.peer.port = port
        next(self.steps, None)


class Broker(Protocol):
    """What starts again where it has ended, with its data."""

    port: int

    def start(self) -> None: ...


def tell_all(
    broker: Broker, end: Callable[[], object], scenarios: list[Crossing]
) -> dict[str, Transcript]:
    """What the clients of all these scenarios hear from one broker, which restarts once.

    All hang up, also when the broker does not come back.
    """
    told: dict[str, Told] = {}
    try:
        for scenario in scenarios:
            peer = Peer("127.0.0.1", broker.port)
            told[scenario.name] = Told(peer, scenario.drive(peer))
            told[scenario.name].go_on(broker.port)
        end()
        broker.start()
        for each in told.values():
            each.go_on(broker.port)
    finally:
        transcripts = {name: each.peer.hang_up() for name, each in told.items()}
    return transcripts


@pytest.fixture(scope="module")
def transcripts(rabbitmq: RabbitMQ, fluffle: Daemon) -> dict[str, tuple[Transcript, Transcript]]:
    """What both said in each scenario: first RabbitMQ."""
    found: dict[str, tuple[Transcript, Transcript]] = {}
    for end in End:
        scenarios = [each for each in CROSSINGS.values() if each.end is end]
        ends = {End.STOP: (rabbitmq.stop, fluffle.stop), End.KILL: (rabbitmq.kill, fluffle.kill)}
        end_theirs, end_ours = ends[end]
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(tell_all, rabbitmq, end_theirs, scenarios)
            ours = tell_all(fluffle, end_ours, scenarios)
            theirs = running.result()
        found |= {name: (theirs[name], ours[name]) for name in theirs}
    return found


@pytest.mark.parametrize("name", sorted(CROSSINGS))
def test_fluffle_remembers_what_rabbitmq_does(
    name: str, transcripts: dict[str, tuple[Transcript, Transcript]]
) -> None:
    theirs, ours = transcripts[name]
    compare(name, theirs, ours)


def test_all_hang_up_when_a_broker_does_not_come_back() -> None:
    class Gone:
        port = 0

        def start(self) -> None:
            raise RuntimeError("no leader")

    def drive(peer: Peer) -> Iterator[None]:
        peer.connect()
        yield

    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = Gone()
        broker.port = server.getsockname()[1]
        with pytest.raises(RuntimeError, match="no leader"):
            tell_all(broker, lambda: None, [Crossing("crossing", (), drive, End.KILL)])
        accepted, _address = server.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            assert accepted.recv(1) == b""
