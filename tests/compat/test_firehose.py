"""The firehose says of messages what RabbitMQ's says."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.compat.comparison import difference_of
from tests.compat.embedded import Serving, serving
from tests.compat.oracle import NODE, RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Peer, Transcript
from tests.compat.test_commands import fluffle_says
from tests.compat.verbs import Speaker, speaker

OWN = re.compile(rf"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+|{NODE}|fluffle@[\w.-]+")
"""Parts of lines that differ from broker to broker and from connection to connection."""

LATE = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
"""A time that does not fit the 31 bits that copies have for it."""


def conversation(peer: Peer, switch: Callable[[str], None]) -> None:
    main = speaker(peer, "main")
    main.declare_exchange("traced", "topic", auto_delete=True)
    for queue in ("traced a", "traced b"):
        main.declare(queue, exclusive=True)
        main.bind(queue, "traced", f"{queue[-1]}.#")
    main.bind("traced a", "traced", "both")
    main.bind("traced b", "traced", "both")
    watch = speaker(peer, "watch")
    watch.declare("watching", exclusive=True)
    watch.bind("watching", "amq.rabbitmq.trace", "#")

    published(main, "before it is on")
    switch("on")
    switch("on")
    everything(main)
    watch.drain("watching")
    for queue in ("traced a", "traced b"):
        main.drain(queue)
    watch.drain("watching")
    switch("off")
    switch("off")
    published(main, "after it is off")
    main.drain("traced a")
    watch.drain("watching")


def published(main: Speaker, body: str) -> None:
    other = main.another()
    other.confirms()
    other.publish("traced", "a.x", body)
    other.confirmed(1)
    other.close()


def everything(main: Speaker) -> None:
    """A bit of all, and return when all of it has been published."""
    properties: dict[str, Any] = {
        "content_type": "a/b", "content_encoding": "gzip", "delivery_mode": 2, "priority": 5,
        "correlation_id": "c", "reply_to": "r", "expiration": "60000", "message_id": "m",
        "timestamp": LATE, "type": "t", "user_id": "guest", "app_id": "a", "cluster_id": "",
    }  # fmt: skip
    other = main.another()
    other.confirms()
    other.publish("traced", "both", "with all properties", headers={"n": 1}, **properties)
    other.publish("traced", "b.1", "with an empty table", headers={})
    other.publish("traced", "nowhere", "unroutable")
    other.publish("traced", "nowhere", "CC", headers={"CC": ["a", "b.c"]})
    other.publish("traced", "nowhere", "BCC", headers={"BCC": ["x"]})
    other.publish("", "traced a", "")
    other.publish("amq.fanout", "", "to nobody")
    other.confirmed(7)
    consumer = main.another()
    consumer.consume("traced b", "tag")
    consumer.expect("Basic.Deliver", 3)
    consumer.close()
    transacting = main.another()
    transacting.transact()
    transacting.publish("traced", "a", "rolled back")
    transacting.roll_back()


def heard(port: int, switch: Callable[[str], None]) -> Transcript:
    peer = Peer("127.0.0.1", port)
    try:
        conversation(peer, switch)
    finally:
        transcript = peer.hang_up()
    return {name: [OWN.sub("…", line) for line in lines] for name, lines in transcript.items()}


def heard_of_rabbitmq(rabbitmq: RabbitMQ) -> Transcript:
    def switch(state: str) -> None:
        rabbitmq.ctl(f"trace_{state}", "-p", "/")

    return heard(rabbitmq.port, switch)


def heard_of_fluffle(fluffle: Serving) -> Transcript:
    def switch(state: str) -> None:
        fluffle_says(fluffle, "vhosts", "trace", "/", state)

    return heard(fluffle.port, switch)


ASKED = asks("firehose.copies", heard_of_rabbitmq, Peer.hang_up)


def test_copies_are_those_of_rabbitmq(
    answers: Answers, oracle: Callable[[], RabbitMQ], tmp_path: Path
) -> None:
    with serving(tmp_path, answers) as fluffle:
        theirs, ours = answers.both(
            ASKED, lambda: heard_of_rabbitmq(oracle()), lambda: heard_of_fluffle(fluffle)
        )
    assert len(theirs["watch"]) > 12
    assert ours == theirs, difference_of(theirs, ours)
