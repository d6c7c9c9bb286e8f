"""Runs a case on both brokers at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from tests.compat.comparing import as_meant
from tests.compat.conftest import EXCHANGE_PLUGINS
from tests.compat.drawn.meeting import Meeting
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.operations import Case
from tests.compat.drawn.player import Player
from tests.compat.http import Http
from tests.compat.oracle import RabbitMQ, free_port
from tests.compat.scenario import Scenario, Transcript
from tests.support.daemon import Daemon

PATIENCE_S = 3.0
_runs = count()


@contextmanager
def both(folder: Path) -> Iterator[tuple[Observer, Observer]]:
    """RabbitMQ and fluffle, each with its management API, through which policies are set."""
    port = free_port()
    config = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}"
    plugins = f"{EXCHANGE_PLUGINS},rabbitmq_management"
    with ExitStack() as running:
        theirs = running.enter_context(RabbitMQ(folder / "rabbitmq", config, plugins))
        ours = Daemon(folder / "fluffle", "--management", "127.0.0.1:0")
        running.enter_context(ours)
        of_theirs = running.enter_context(Observer(theirs.port, Http(port)))
        of_ours = Observer(ours.port, Http(ours.addresses["management"][1]))
        yield of_theirs, running.enter_context(of_ours)
    assert "Traceback" not in ours.log, ours.log


def run(
    name: str,
    case: Case,
    observers: tuple[Observer, Observer],
    patience_s: float = PATIENCE_S,
) -> tuple[Transcript, Transcript]:
    """What clients heard of either, until they heard something else."""

    def same(theirs: tuple[str, ...], ours: tuple[str, ...]) -> bool:
        one, other = as_meant(name, {"notes": [*theirs]}, {"notes": [*ours]})
        return one == other

    meeting = Meeting(same, patience_s)

    def heard(place: int) -> Transcript:
        observer = observers[place]
        player = Player(case, observer, f"r{next(_runs)}.")
        scenario = Scenario(name, (), lambda peer: player.play(peer, meeting, place))
        try:
            return scenario.run("127.0.0.1", observer.port)
        finally:
            player.clear()

    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(heard, 0)
        ours = heard(1)
        return running.result(), ours
