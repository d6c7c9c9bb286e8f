"""Runs a case on both brokers at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from tests.compat.comparison import as_meant
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.operations import Case
from tests.compat.drawn.player import SEEN, Player
from tests.compat.drawn.rendezvous import Judge, Rendezvous, Score
from tests.compat.http import Http
from tests.compat.oracle import EXCHANGE_PLUGINS, RabbitMQ, free_port
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
    """Transcripts of both brokers, up to their first difference."""
    meeting = Rendezvous(partial(same, name), patience_s)
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(heard, name, case, observers[0], meeting, place=0)
        ours = heard(name, case, observers[1], meeting, place=1)
        return running.result(), ours


def replay(
    name: str, case: Case, observer: Observer, theirs: Transcript, patience_s: float = PATIENCE_S
) -> Transcript:
    """Transcript of fluffle, step by step beside a recorded one of RabbitMQ."""
    return heard(name, case, observer, Score(steps_of(theirs), partial(same, name), patience_s))


def same(name: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> bool:
    one, other = as_meant(name, {"notes": [*theirs]}, {"notes": [*ours]})
    return one == other


def steps_of(transcript: Transcript) -> list[tuple[str, ...]]:
    """Observations after each operation."""
    steps: list[tuple[str, ...]] = []
    for note in transcript["notes"]:
        if note.startswith(SEEN):
            steps[-1] = (*steps[-1], note.removeprefix(SEEN))
        else:
            steps.append(())
    return steps


def heard(name: str, case: Case, observer: Observer, meeting: Judge, place: int = 0) -> Transcript:
    """Transcript of one broker."""
    player = Player(case, observer, f"r{next(_runs)}.")
    scenario = Scenario(name, (), lambda peer: player.play(peer, meeting, place))
    try:
        return scenario.run("127.0.0.1", observer.port)
    finally:
        player.clear()
