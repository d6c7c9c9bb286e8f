"""Whether two brokers said the same, but for the differences that are meant."""

import difflib

from tests.compat.differences import DIFFERENCES
from tests.compat.scenario import Transcript

theirs_by_scenario: dict[str, Transcript] = {}
"""What RabbitMQ said in this session, before any difference."""


def compare(name: str, theirs: Transcript, ours: Transcript) -> None:
    """Fail with a diff unless fluffle heard in `name` what RabbitMQ's clients did."""
    theirs_by_scenario[name] = theirs
    assert any(theirs.values()), "nothing was heard, so nothing is compared"
    for difference in DIFFERENCES:
        if difference.concerns(name):
            theirs, ours = difference.applied(theirs), difference.read(ours)
    diff = difflib.unified_diff(text(theirs), text(ours), "RabbitMQ", "fluffle", lineterm="", n=99)
    assert ours == theirs, "\n".join(diff)


def text(transcript: Transcript) -> list[str]:
    return [f"{name}: {line}" for name, lines in sorted(transcript.items()) for line in lines]
