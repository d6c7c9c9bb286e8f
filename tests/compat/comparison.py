"""Comparison of what two brokers said, but for the differences that are meant."""

import difflib
from collections.abc import Callable

from tests.compat.differences import DIFFERENCES
from tests.compat.scenario import Drive, Scenario, Transcript


def as_meant(name: str, theirs: Transcript, ours: Transcript) -> tuple[Transcript, Transcript]:
    """The two transcripts of `name`, which are equal if only what is meant to differ differs."""
    for difference in DIFFERENCES:
        if difference.concerns(name):
            theirs, ours = difference.applied(theirs), difference.read(ours)
    return theirs, ours


def compare(name: str, theirs: Transcript, ours: Transcript) -> None:
    """Fail with a diff unless fluffle heard in `name` what RabbitMQ's clients did."""
    assert any(theirs.values()), "nothing was heard, so nothing is compared"
    theirs, ours = as_meant(name, theirs, ours)
    assert ours == theirs, difference_of(theirs, ours)


def transcript_of(drive: Drive, port: int, alike: Callable[[str], str] = str) -> Transcript:
    """Transcript of a conversation; `alike` removes what differs from broker to broker."""
    heard = Scenario(drive.__name__, (), drive).run("127.0.0.1", port)
    return {name: [*map(alike, lines)] for name, lines in heard.items()}


def compare_all(theirs: Transcript, ours: Transcript, *, lines_min: int) -> None:
    """Fail unless the two are equal, with nothing that is meant to differ: so many lines."""
    assert sum(map(len, theirs.values())) >= lines_min
    assert ours == theirs, difference_of(theirs, ours)


def difference_of(theirs: Transcript, ours: Transcript) -> str:
    """All that was said, with a mark where only one has said it; empty if they are equal."""
    diff = difflib.unified_diff(text(theirs), text(ours), "RabbitMQ", "fluffle", lineterm="", n=99)
    return "\n".join(diff)


def text(transcript: Transcript) -> list[str]:
    return [f"{name}: {line}" for name, lines in sorted(transcript.items()) for line in lines]
