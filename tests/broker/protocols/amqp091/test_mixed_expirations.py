"""Messages with and without expirations in one read live as long as if each had come alone."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from fluffle.protocol.methods import Queue, encode_method, make, pamqp_table
from fluffle.protocol.properties import Properties
from fluffle.protocol.wire import to_table
from tests.suite.seeds import seeds
from tests.support.edge import Client, Edge, publish_frames

QUEUES = "abc"
EXPIRATIONS = (None, "0", "1000", "2000", "4000", "+5000", "9000")
PRIORITIES = (None, 0, 1, 3)
EXCHANGES = ("", "", "amq.topic", "amq.fanout")
STEPS_S = (0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0)
"""Between any two of them something expires that was given a whole number of seconds."""


class Case(NamedTuple):
    """Drawn from a seed."""

    arguments: dict[str, dict[str, Any]]
    """Arguments of queues, by their names."""
    confirms: bool
    frames: list[bytes]
    """Frames with one message each."""


def drawn(seed: int) -> Case:
    random = Random(seed)
    frames = [
        publish_frames(
            b"%d" % number, random.choice(QUEUES), 1, exchange=random.choice(EXCHANGES),
            properties=Properties(
                expiration=random.choice(EXPIRATIONS), priority=random.choice(PRIORITIES)
            ),
        )
        for number in range(random.randrange(2, 14))
    ]  # fmt: skip
    arguments = {name: arguments_from(random) for name in QUEUES}
    return Case(arguments, random.random() < 0.5, frames)


def arguments_from(random: Random) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if random.random() < 0.5:
        arguments["x-max-priority"] = 5
    if random.random() < 0.3:
        arguments["x-message-ttl"] = 3000
    if random.random() < 0.3:
        arguments["x-max-length"] = 6
        arguments["x-overflow"] = random.choice(("drop-head", "reject-publish"))
    return arguments


def ready_over_time(case: Case, reads: list[bytes]) -> list[dict[str, int]]:
    """How many messages wait in each queue after each step."""
    edge = Edge()
    client = edge.connect()
    declare(client, case)
    for read in reads:
        client.feed(read)
    edge.run()
    seen = []
    for step_s in STEPS_S:
        edge.advance(step_s)
        seen.append({name: edge.vhost.queues[name].ready_count for name in QUEUES})
    return seen


def declare(client: Client, case: Case) -> None:
    for name, arguments in case.arguments.items():
        table = pamqp_table(to_table(arguments))
        client.send(encode_method(1, make(Queue.Declare, queue=name, arguments=table)))
        client.expect(Queue.DeclareOk)
    for name, exchange, key in (
        ("a", "amq.topic", "a"), ("b", "amq.topic", "b"), ("c", "amq.topic", "#"),
        ("a", "amq.fanout", ""),
    ):  # fmt: skip
        client.bind(name, exchange, key)
    if case.confirms:
        client.confirm_select(1)


@seeds(50)
def test_one_read_is_as_good_as_many(seed: int) -> None:
    case = drawn(seed)
    alone = ready_over_time(case, case.frames)
    assert ready_over_time(case, [b"".join(case.frames)]) == alone


def test_they_expire_at_different_times() -> None:
    """Else the comparison above would prove little."""
    case = Case(
        {name: {} for name in QUEUES},
        confirms=False,
        frames=[
            publish_frames(b"", "a", 1, properties=Properties(expiration=each))
            for each in ("1000", "2000", "4000", None)
        ],
    )
    ready = [each["a"] for each in ready_over_time(case, [b"".join(case.frames)])]
    assert ready == [4, 3, 2, 2, 1, 1, 1, 1, 1]
