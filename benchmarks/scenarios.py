"""The loads that brokers are compared under, a row each, and who is compared.

The first letter says what is asked of the broker, the rest how large the bodies are.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    description: str
    options: tuple[str, ...]
    """Arguments for amqpload."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A broker, and how it is used."""

    name: str
    title: str
    broker: str
    options: tuple[str, ...] = ()
    """Further arguments for amqpload."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Scenarios that are run under the same conditions and shown together."""

    name: str
    about: str
    contenders: dict[str, Contender]
    scenarios: dict[str, Scenario]


def scenario(name: str, description: str, options: str) -> Scenario:
    return Scenario(name, description, tuple(options.split()))


def suite(
    name: str, about: str, contenders: tuple[Contender, ...], options: str, rows: tuple[str, ...]
) -> Suite:
    """Suite of some of the rows below, each with further arguments."""
    scenarios = {
        row: Scenario(row, ROWS[row].description, (*options.split(), *ROWS[row].options))
        for row in rows
    }
    return Suite(name, about, {who.name: who for who in contenders}, scenarios)


CONFIRMED = "-f -w 1000 -u 300 -k 1"
"""Publisher confirms, at most 1,000 outstanding; prefetch 300, each message acked alone."""

ROWS = {
    row.name: row
    for row in (
        scenario("a16", "16 B, no confirms, auto-ack", "-s 16"),
        scenario("a1k", "1 KiB, no confirms, auto-ack", "-s 1024"),
        scenario("b16", "16 B, 1,000 unconfirmed, prefetch 300, ack each", f"-s 16 {CONFIRMED}"),
        scenario("b1k", "1 KiB, otherwise as b16", f"-s 1024 {CONFIRMED}"),
        scenario("b16k", "16 KiB, otherwise as b16", f"-s 16384 {CONFIRMED}"),
        scenario("w100", "16 B, 100 unconfirmed, prefetch 100", "-s 16 -f -w 100 -u 100 -k 1"),
        scenario("c16", "16 B, one unconfirmed at a time", "-s 16 -f -w 1 -u 300 -k 1"),
        scenario(
            "d16",
            "as b16, fan-out to 10 queues, 2 consuming connections",
            f"-s 16 -x fanout -q 10 -c 2 {CONFIRMED}",
        ),
        scenario(
            "e16",
            "as b16, topic exchange, 1,000 bindings, 10 queues, 2 consuming connections",
            f"-s 16 -x topic -q 10 -b 1000 -c 2 {CONFIRMED}",
        ),
        scenario("f16", "as b16, 100 queues", f"-s 16 -q 100 {CONFIRMED}"),
        scenario("u16", "as b16, a message_id of its own for each", f"-s 16 -m {CONFIRMED}"),
        scenario("h1k", "1 KiB, 2,000 messages a second", "-s 1024 -r 2000 -f -w 0 -u 300 -k 1"),
    )
}
"""Columns for d16: rates consumed and CPU are counted by copies delivered, not by publishes."""

FLUFFLE = Contender("fluffle", "fluffle", "fluffle")
RABBITMQ = Contender("rabbitmq", "RabbitMQ", "rabbitmq")

TRANSIENT = suite(
    "transient",
    "Transient queues and messages: nothing is asked of the disk.",
    (FLUFFLE, RABBITMQ),
    "-z",
    tuple(ROWS),
)
DURABLE = suite(
    "durable",
    "Durable queues and persistent messages.  fluffle and RabbitMQ's quorum queue sync before they "
    "confirm, RabbitMQ's classic queue does not.",
    (
        FLUFFLE,
        Contender("rabbitmq", "RabbitMQ classic", "rabbitmq"),
        Contender("rabbitmq-quorum", "RabbitMQ quorum", "rabbitmq", ("-t", "quorum")),
    ),
    "-P",
    ("b16", "b1k", "b16k", "w100", "c16", "d16", "f16", "u16", "h1k"),
)
QUORUM = suite(
    "quorum",
    "Quorum queues and persistent messages in clusters of three nodes, which share all cores with "
    "the load: publishers at the node that leads the queues, consumers at another.  CPU and memory "
    "are those of all three.",
    (
        Contender("fluffle", "fluffle × 3", "three-fluffles"),
        Contender("rabbitmq", "RabbitMQ × 3", "three-rabbits"),
    ),
    "-P -t quorum",
    ("b16", "b1k", "b16k", "c16", "d16", "f16", "h1k"),
)
SUITES = {found.name: found for found in (TRANSIENT, DURABLE, QUORUM)}
