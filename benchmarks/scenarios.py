"""The loads that brokers are compared under, a row each.

The first letter says what is asked of the broker, the rest how large the bodies are.
Queues and messages are transient: nothing is asked of the disk.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    description: str
    options: tuple[str, ...]
    """Arguments for amqpload."""


def scenario(name: str, description: str, options: str) -> Scenario:
    return Scenario(name, description, ("-z", *options.split()))


CONFIRMED = "-f -w 1000 -u 300 -k 1"
"""Publisher confirms, at most 1,000 outstanding; prefetch 300, each message acked alone."""

SCENARIOS = {
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
"""For d16 the rates consumed and the CPU are counted by copies delivered, not by publishes."""
