"""Messages that a channel gives back at once, and whether RabbitMQ has them in another order.

In a quorum queue of fluffle they come back in the order in which they were handed out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.compat.drawn.operations import Case

DEAD_LETTERED = "x-dead-letter-exchange"


class Held(NamedTuple):
    """A message that a channel holds."""

    queue: str
    consumer: str
    """Tag of the consumer that got it, `t1` and so on; empty for basic.get."""


UNKNOWN = Held("", "")


class GivenBack(NamedTuple):
    """Messages that a channel gave back with one operation."""

    messages: Mapping[int, Held]
    """Messages by delivery tag."""
    is_end: bool
    """True if the channel has ended."""

    def count(self, queue: str) -> int:
        """How many are of this queue."""
        return sum(held.queue == queue for held in self.messages.values())

    def is_in_order(self, queue: str) -> bool:
        """True if RabbitMQ gives those of a quorum queue back as they were handed out, too."""
        tags = [tag for tag in sorted(self.messages) if self.messages[tag].queue == queue]
        return tags == sorted(tags, key=self._place_at_end if self.is_end else self._place)

    def _place_at_end(self, tag: int) -> tuple[bool, int, str, int]:
        """Place of a message by the consumer, in the order in which they came; then what basic.get
        got, by its delivery tag as text: RabbitMQ has a consumer of that name for it."""
        tag_of_consumer = self.messages[tag].consumer
        if tag_of_consumer:
            return False, int(tag_of_consumer.removeprefix("t")), "", tag
        return True, 0, str(tag), tag

    def _place(self, tag: int) -> tuple[str, int]:
        """Place of a message by the tag of its consumer; what basic.get got comes before."""
        return self.messages[tag].consumer, tag


def short_queues(case: Case) -> set[str]:
    """Queues that are to dead-letter what is too much, at some time of a case."""
    policies = [each.said["definition"] for each in case if each.verb == "set_policy"]
    by_policy = {f"x-{name}" for definition in policies for name in definition} & {DEAD_LETTERED}
    return {
        each.said["queue"]
        for each in case
        if each.verb == "declare"
        and {"x-max-length", DEAD_LETTERED} <= {*each.said.get("arguments", ()), *by_policy}
    }
