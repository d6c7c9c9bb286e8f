"""A led queue whose edges are the test, which says what it asks and looks at what leaves."""

from __future__ import annotations

from typing import Any

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import decode
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.holders import Terms
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.queues.quorum.leader_harness import PLAIN, LeaderHarness
from tests.broker.queues.quorum.sample_facts import ORIGIN


class EntryHarness(LeaderHarness):
    """Keeps what leaves, and believes the test."""

    def __init__(self, spec: QueueSpec = PLAIN) -> None:
        self.reported: list[m.Effect] = []
        self.left: list[list[bytes]] = []
        """The contents of what was delivered or got, each time."""
        self.died: list[DeadMessages] = []
        self.damaged: set[int] = set()
        self.ended = 0
        super().__init__(spec)

    def on_damage(self, index: int) -> None:
        self.damaged.add(index)

    def on_ended(self) -> None:
        self.ended += 1

    def on_dead(self, queue: str, settings: QueueSettings, dead: DeadMessages) -> None:
        if not dead.unwanted:
            self.died.append(dead)

    def release(self, effects: list[m.Effect]) -> None:
        self.reported += effects
        for _session, message in effects:
            if isinstance(message, m.Deliver):
                self.left.append(message.contents)
            elif isinstance(message, m.GetAnswer):
                self.left += [deliver.contents for deliver in message.delivers]

    def take(self) -> list[m.Effect]:
        reported, self.reported = self.reported, []
        return reported

    def take_messages(self) -> list[m.FromLeader]:
        return [message for _session, message in self.take()]

    def session(self) -> int:
        return self.led.sessions.open(SessionId("a", 1, 1, 1))

    def facts(self) -> list[Any]:
        """Facts of the last proposed entry."""
        return decode(self.proposals[-1][0]).facts


def bodies(count: int) -> tuple[list[Any], list[bytes]]:
    return [ORIGIN] * count, [b"body %d" % number for number in range(count)]


def with_consumer(
    prefetch: int = 0, *, no_ack: bool = False, spec: QueueSpec = PLAIN
) -> tuple[EntryHarness, int, int]:
    """A queue, its only session, and a consumer of that."""
    harness = EntryHarness(spec)
    session = harness.session()
    harness.led.attach(session, 1, Terms(1, "tag", prefetch=prefetch, no_ack=no_ack))
    harness.settle_down()
    (answer,) = harness.take_messages()
    assert isinstance(answer, m.AnswerReply)
    return harness, session, answer.answer
