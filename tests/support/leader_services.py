"""Services of a node to a leadership in tests and benchmarks; the log is a list of proposals."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.dead_letters import DeadMessages
from fluffle.broker.queues.queue_api import UNLIMITED
from fluffle.broker.queues.quorum.dead_letter_outbox import CONFIRM_TIMEOUT_MS
from fluffle.broker.queues.quorum.leader_services import KnownQueues, NodeClock
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.settings import QueueSettings
from tests.support.manual_clock import ManualClock

NO_READERS: Mapping[str, int] = MappingProxyType({})


class AllQueuesThere:
    """The `KnownQueues` of a node on which every queue is defined."""

    def is_there(self, _group: int) -> bool:
        return True

    def is_gone(self, _group: int) -> bool:
        return False


class FakeLeaderServices:
    """A `LeaderServices`, its log and a `Proposer`, on a node on which all goes well.

    What a test is about, it does otherwise.
    """

    queues: KnownQueues = AllQueuesThere()
    dead_letter_confirm_timeout_ms = CONFIRM_TIMEOUT_MS
    consumer_timeout_ms: int | None = None

    def __init__(
        self, spec: QueueSpec, log: list[bytes], clock: NodeClock | None = None, group: int = 0
    ) -> None:
        """`log`: the payloads of the entries that are committed."""
        self.spec = spec
        self.group = group
        self.clock = clock if clock is not None else ManualClock()
        self.entries = log
        self.proposals: deque[tuple[bytes, Callable[[bool], None]]] = deque()
        self.is_touched = False

    @property
    def log(self) -> FakeLeaderServices:
        return self

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self.proposals.append((payload, on_outcome))

    def read_entry(self, index: int) -> bytes:
        return self.entries[index - 1]

    def ended(self) -> None:
        raise AssertionError("every entry is taken")

    def damaged(self, index: int) -> None:
        raise AssertionError(f"nothing is damaged, and entry {index} is said to be")

    def takes(self, _content_bytes: int) -> bool:
        return True

    def may_grow(self) -> bool:
        return True

    def room(self, _holder: int) -> int:
        return UNLIMITED

    def touch(self) -> None:
        self.is_touched = True

    def wake(self, delay_ms: int) -> None:
        """Time is what a test says it is."""

    def release(self, effects: list[Effect]) -> None:
        """Drop the effects."""

    def queue_expired(self) -> None:
        raise AssertionError("the queue is in use")

    def dead_letter(self, _queue: str, _settings: QueueSettings, _dead: DeadMessages) -> None:
        """Drop the dead letters."""

    def dropped_duplicates(self, _count: int) -> None:
        """Ignore the count."""

    def readers(self) -> Mapping[str, int]:
        return NO_READERS
