"""Headers that a node adds to what clients publish are those that RabbitMQ adds."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.compat.comparison import compare_all, transcript_of
from tests.compat.embedded import serving
from tests.compat.oracle import NODE, RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Scenario, Transcript
from tests.compat.verbs import Speaker, speaker

NOW = re.compile(r"\b1[6-9]\d{8}(\d{3})?\b")
"""A time of today, in seconds or milliseconds."""
NODES = re.compile(rf"{NODE}|fluffle@[\w.-]+")

THEIRS = """
message_interceptors.incoming.set_header_timestamp.overwrite = {0}
message_interceptors.incoming.set_header_routing_node.overwrite = {0}
"""

VOID = ("V", None)
THEIR_OWN: dict[str, Any] = {"timestamp_in_ms": 5, "x-routed-by": "me", "n": 1}


def conversation(peer: Peer) -> None:
    main = speaker(peer, "main")
    main.declare("q", exclusive=True)
    published(main, "", "q")
    routed_by_headers(main)
    kept_by_an_exchange(main)
    returned(main)
    transacted(main)
    died(main)
    answered(main)


def published(main: Speaker, exchange: str, key: str) -> None:
    """Messages that have some of it, all of it, or nothing."""
    other = main.another()
    other.confirms()
    other.publish(exchange, key, "nothing")
    other.publish(exchange, key, "")
    other.publish(exchange, key, "no headers", headers={})
    other.publish(exchange, key, "others", headers={"z": 1, "a": 2}, delivery_mode=2, priority=3)
    other.publish(exchange, key, "own headers", headers=THEIR_OWN)
    other.publish(exchange, key, "own time", timestamp=7, message_id="m", app_id="a")
    other.publish(exchange, key, "all", headers=THEIR_OWN, timestamp=7, content_type="t")
    other.publish(exchange, key, "void", headers={"timestamp_in_ms": VOID, "x-routed-by": VOID})
    other.publish(exchange, key, "CC", headers={"CC": ["nowhere", "q"], "a": 1}, timestamp=0)
    other.publish(exchange, key, "BCC", headers={"BCC": ["nowhere"], **THEIR_OWN})
    other.publish(exchange, key, "user", user_id="guest", headers={"a": 1})
    other.publish(exchange, key, "expires", expiration="60000")
    main.client.transcript.append(other.confirmed(12))
    main.drain("q")

    wrong = main.another()
    wrong.publish(exchange, key, "another user", user_id="nobody")
    wrong.refused()


def routed_by_headers(main: Speaker) -> None:
    for name, match in (
        ("with x", {"x-match": "any-with-x", "x-routed-by": VOID}),
        ("without x", {"x-match": "any", "x-routed-by": VOID}),
    ):
        main.declare(name, exclusive=True)
        main.bind(name, "amq.headers", "", match)
        other = main.another()
        other.confirms()
        other.publish("amq.headers", "", "nothing")
        other.publish("amq.headers", "", "own", headers=THEIR_OWN)
        other.confirmed(2)
        note(main, name)
        main.drain(name)
        main.delete(name)


def note(main: Speaker, what: str) -> None:
    main.client.transcript.append(f"-- {what}")


def kept_by_an_exchange(main: Speaker) -> None:
    main.declare_exchange("kept", "x-recent-history", auto_delete=True)
    main.declare("first", exclusive=True)
    main.bind("first", "kept")
    main.drain("first")
    other = main.another()
    other.confirms()
    other.publish("kept", "", "a", headers={"a": 1})
    other.publish("kept", "", "b")
    other.confirmed(2)
    main.drain("first")
    main.declare("later", exclusive=True)
    main.bind("later", "kept")
    main.drain("later")


def returned(main: Speaker) -> None:
    other = main.another()
    other.publish("amq.direct", "nowhere", "back", mandatory=True, headers={"a": 1})
    other.expect("Basic.Return")
    other.publish("amq.direct", "nowhere", "back", mandatory=True, headers=THEIR_OWN, timestamp=7)
    other.expect("Basic.Return")


def transacted(main: Speaker) -> None:
    other = main.another()
    other.transact()
    other.publish("", "q", "in a transaction")
    other.publish("", "q", "and", headers=THEIR_OWN)
    other.commit()
    main.drain("q")


def died(main: Speaker) -> None:
    """A dead letter keeps what it has been given."""
    main.declare(
        "dying", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"}, exclusive=True
    )
    main.fill("dying", "a")
    main.get("dying", no_ack=False)
    main.reject(main.client.heard[-1].method.delivery_tag, requeue=False)  # type: ignore[attr-defined]
    while main.get("q").name != "Basic.GetOk":
        pass
    main.forget(f"[{main.number}] Basic.GetEmpty")
    main.without_times()


def answered(main: Speaker) -> None:
    """Direct reply-to: a question and its answer."""
    asking = main.another()
    asking.consume("amq.rabbitmq.reply-to", "replies", no_ack=True)
    asking.publish("", "q", "question", reply_to="amq.rabbitmq.reply-to")
    while main.get("q").name != "Basic.GetOk":
        pass
    main.forget(f"[{main.number}] Basic.GetEmpty")
    properties = main.client.heard[-1].properties
    assert properties is not None
    main.publish("", properties.reply_to or "", "answer")
    asking.expect("Basic.Deliver")


def alike(line: str) -> str:
    return NODES.sub("NODE", NOW.sub(time_of, line))


def time_of(found: re.Match[str]) -> str:
    return "MS" if found[1] else "S"


def told_by_rabbitmq(folder: Path, overwrite: str) -> Transcript:
    plugins = "rabbitmq_recent_history_exchange"
    with RabbitMQ(folder, THEIRS.format(overwrite), plugins) as rabbitmq:
        return transcript_of(conversation, rabbitmq.port, alike)


def told_by_fluffle(data_dir: Path, answers: Answers, mode: str) -> Transcript:
    options = f"--set-header-timestamp={mode}", f"--set-header-routing-node={mode}"
    with serving(data_dir, answers, *options) as fluffle:
        return transcript_of(conversation, fluffle.port, alike)


MODES = {"true": "overwrite", "false": "keep"}
"""Modes by the value of RabbitMQ's option: overwrite or keep the client's header."""
ASKED = {
    theirs: asks(f"interceptors.{ours}", told_by_rabbitmq, Scenario.run, said=theirs)
    for theirs, ours in MODES.items()
}


@pytest.mark.parametrize("overwrite", MODES, ids=MODES.values())
def test_headers_are_those_that_rabbitmq_adds(
    overwrite: str, answers: Answers, tmp_path: Path
) -> None:
    theirs, ours = answers.both(
        ASKED[overwrite],
        lambda: told_by_rabbitmq(tmp_path / "rabbitmq", overwrite),
        lambda: told_by_fluffle(tmp_path / "fluffle", answers, MODES[overwrite]),
    )
    compare_all(theirs, ours, lines_min=40)
