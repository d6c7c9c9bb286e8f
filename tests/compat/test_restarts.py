"""Runs every scenario that goes across a restart: all begin, both brokers end and start, all go on.

One restart of each kind serves all: of fluffle, which is a process here, and of RabbitMQ, which
takes eight seconds for it.
"""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from tests.compat.comparison import compare
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asked_across
from tests.compat.replay import Answers
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
    """Broker that can be started again with its data."""

    port: int

    def start(self) -> None: ...


def tell_all(
    broker: Broker, end: Callable[[], object], scenarios: list[Crossing]
) -> dict[str, Transcript]:
    """Transcripts of all these scenarios with one broker, which restarts once.

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
def daemon(tmp_path_factory: pytest.TempPathFactory, definitions: Path) -> Iterator[Daemon]:
    options = "--definitions", str(definitions)
    with Daemon(tmp_path_factory.mktemp("restarting"), *options) as daemon:
        yield daemon
    assert "Traceback" not in daemon.log


@pytest.fixture(scope="module")
def transcripts(
    answers: Answers, oracle: Callable[[], RabbitMQ], daemon: Daemon
) -> dict[str, tuple[Transcript, Transcript]]:
    """Transcripts of both in each scenario, RabbitMQ's first.

    It is asked for all of a kind as soon as nothing is recorded of one.
    """
    found: dict[str, tuple[Transcript, Transcript]] = {}
    for end in End:
        scenarios = [each for each in CROSSINGS.values() if each.end is end]
        end_ours = daemon.stop if end is End.STOP else daemon.kill
        ours = tell_all(daemon, end_ours, scenarios)
        asked = [asked_across(each) for each in scenarios]
        theirs: dict[str, Transcript] = {}
        if any(answers.recorded(each) is None for each in asked):
            rabbitmq = oracle()
            end_theirs = rabbitmq.stop if end is End.STOP else rabbitmq.kill
            theirs = tell_all(rabbitmq, end_theirs, scenarios)
        for each in asked:
            heard = answers.of(each, partial(theirs.__getitem__, each.name))
            found[each.name] = heard, ours[each.name]
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
