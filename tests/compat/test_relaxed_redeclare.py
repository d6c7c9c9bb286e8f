"""Redeclaration of a quorum queue as a classic one, where RabbitMQ is configured to allow it."""

from pathlib import Path
from typing import Any

import pytest

from tests.compat.comparison import compare_all, transcript_of
from tests.compat.embedded import serving
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Scenario, Transcript
from tests.compat.verbs import Speaker, speaker

RELAXED = "quorum_queue.property_equivalence.relaxed_checks_on_redeclaration = true"
CLASSIC, QUORUM = {"x-queue-type": "classic"}, {"x-queue-type": "quorum"}

ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "x-dead-letter-exchange": ("dlx", "other"),
    "x-dead-letter-routing-key": ("k", "other"),
    "x-expires": (600_000, 700_000),
    "x-max-length": (1_000, 2_000),
    "x-max-length-bytes": (100_000, 200_000),
    "x-single-active-consumer": (True, False),
    "x-message-ttl": (600_000, 700_000),
    "x-overflow": ("reject-publish", "drop-head"),
    "x-delivery-limit": (5, 6),
    "x-queue-leader-locator": ("balanced", "client-local"),
    "x-quorum-initial-group-size": (1, 3),
}
"""Arguments of a quorum queue, with a different value each."""


def conversation(peer: Peer) -> None:
    main = speaker(peer, "main")
    plain(main)
    flags(main)
    for key, values in ARGUMENTS.items():
        argument(main, key, *values)
    several(main)
    other_ways(main)


def again(main: Speaker, name: str, arguments: dict[str, Any], **flags: bool) -> None:
    """On a channel of its own, for it may be closed for that."""
    main.client.transcript.append(f"-- {name} {arguments} {flags}")
    main.another().declare(name, arguments, **flags)


def plain(main: Speaker) -> None:
    main.declare("q", QUORUM, durable=True)
    main.fill("q", "a", "b")
    again(main, "q", CLASSIC, durable=True)
    again(main, "q", {}, durable=True)
    again(main, "q", QUORUM, durable=True)
    again(main, "q", {"x-queue-type": "stream"}, durable=True)
    again(main, "q", {"x-queue-type": "nonsense"}, durable=True)
    again(main, "q", {"x-queue-type": 5}, durable=True)
    again(main, "q", CLASSIC, passive=True)
    again(main, "q", {**CLASSIC, "x-max-priority": 5, "x-queue-mode": "lazy"}, durable=True)
    again(main, "q", {**CLASSIC, "x-max-length": 5}, durable=True)
    again(main, "q", {**CLASSIC, "x-nonsense": 5}, durable=True)


def flags(main: Speaker) -> None:
    for names in (
        ("durable", "auto_delete"),
        ("durable", "exclusive"),
        ("exclusive",),
        ("auto_delete",),
        ("exclusive", "auto_delete"),
        (),
    ):
        said = dict.fromkeys(names, True)
        again(main, "q", CLASSIC, **said)
        again(main, "q", {}, **said)
        again(main, "q", QUORUM, **said)


def argument(main: Speaker, key: str, value: Any, other: Any) -> None:
    name = f"with {key}"
    more = {"x-dead-letter-exchange": "dlx"} if key == "x-dead-letter-routing-key" else {}
    main.declare(name, {**QUORUM, **more, key: value}, durable=True)
    again(main, name, {**CLASSIC, **more, key: value}, durable=True)
    again(main, name, {**CLASSIC, **more, key: other}, durable=True)
    again(main, name, {**CLASSIC, **more}, durable=True)
    again(main, name, {**more, key: value}, auto_delete=True)
    again(main, "q", {**CLASSIC, **more, key: value}, durable=True)
    main.delete(name)


def several(main: Speaker) -> None:
    """The first that differs is named."""
    wrong = {key: other for key, (_value, other) in reversed(ARGUMENTS.items())}
    again(main, "q", {**CLASSIC, **wrong}, durable=True)
    again(main, "q", {**CLASSIC, **wrong}, exclusive=True)
    again(main, "q", {**QUORUM, **wrong}, durable=True)


def other_ways(main: Speaker) -> None:
    """Only quorum queues, and only classic ones in their place."""
    main.declare("c", CLASSIC, durable=True)
    again(main, "c", QUORUM, durable=True)
    again(main, "c", {}, durable=True)
    again(main, "c", CLASSIC, durable=True, exclusive=True)
    again(main, "c", CLASSIC)
    again(main, "c", {**CLASSIC, "x-max-length": 5}, durable=True)
    main.delete("c", "q")


def told_by_rabbitmq(folder: Path, config: str) -> Transcript:
    with RabbitMQ(folder, config) as rabbitmq:
        return transcript_of(conversation, rabbitmq.port)


def told_by_fluffle(data_dir: Path, answers: Answers, *options: str) -> Transcript:
    with serving(data_dir, answers, *options) as fluffle:
        return transcript_of(conversation, fluffle.port)


OPTIONS = {RELAXED: ("--quorum-relaxed-redeclare",), "": ()}
ASKED = {
    config: asks(f"relaxed_redeclare.{name}", told_by_rabbitmq, Scenario.run, said=config)
    for name, config in {"on": RELAXED, "off": ""}.items()
}


@pytest.mark.parametrize("config", ASKED, ids=["on", "off"])
def test_the_same_is_let_pass(config: str, answers: Answers, tmp_path: Path) -> None:
    theirs, ours = answers.both(
        ASKED[config],
        lambda: told_by_rabbitmq(tmp_path / "rabbitmq", config),
        lambda: told_by_fluffle(tmp_path / "fluffle", answers, *OPTIONS[config]),
    )
    compare_all(theirs, ours, lines_min=100)
