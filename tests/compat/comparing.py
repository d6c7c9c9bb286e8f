"""Whether two brokers said the same, but for the differences that are meant."""

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.compat.differences import DIFFERENCES
from tests.compat.scenario import Drive, Scenario, Transcript

theirs_by_scenario: dict[str, Transcript] = {}
"""What RabbitMQ said in this session, before any difference."""


def as_meant(name: str, theirs: Transcript, ours: Transcript) -> tuple[Transcript, Transcript]:
    """The two transcripts of `name`, which are equal if only what is meant to differ differs."""
    for difference in DIFFERENCES:
        if difference.concerns(name):
            theirs, ours = difference.applied(theirs), difference.read(ours)
    return theirs, ours


def compare(name: str, theirs: Transcript, ours: Transcript) -> None:
    """Fail with a diff unless fluffle heard in `name` what RabbitMQ's clients did."""
    theirs_by_scenario[name] = theirs
    assert any(theirs.values()), "nothing was heard, so nothing is compared"
    theirs, ours = as_meant(name, theirs, ours)
    assert ours == theirs, difference_of(theirs, ours)


def compare_told(
    drive: Drive,
    rabbitmq_port: int,
    fluffle_port: int,
    *,
    lines_min: int,
    alike: Callable[[str], str] = str,
) -> None:
    """Fail unless clients of both, who say the same at once, hear the same: that many lines or
    more, of which `alike` takes what is of one broker alone."""
    scenario = Scenario(drive.__name__, (), drive)
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(scenario.run, "127.0.0.1", rabbitmq_port)
        ours = told(scenario.run("127.0.0.1", fluffle_port), alike)
        theirs = told(running.result(), alike)
    assert sum(map(len, theirs.values())) >= lines_min
    assert ours == theirs, difference_of(theirs, ours)


def told(transcript: Transcript, alike: Callable[[str], str]) -> Transcript:
    return {name: [*map(alike, lines)] for name, lines in transcript.items()}


def difference_of(theirs: Transcript, ours: Transcript) -> str:
    """All that was said, with a mark where only one has said it; empty if they are equal."""
    diff = difflib.unified_diff(text(theirs), text(ours), "RabbitMQ", "fluffle", lineterm="", n=99)
    return "\n".join(diff)


def text(transcript: Transcript) -> list[str]:
    return [f"{name}: {line}" for name, lines in sorted(transcript.items()) for line in lines]
