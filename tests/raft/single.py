"""Single member of a group, with the others played by the test: messages in, messages out."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from fluffle.raft.config import Configuration
from fluffle.raft.group import Group, Status
from fluffle.raft.log import DATA, Entry, HardState, SnapshotMeta
from fluffle.raft.log_store import RecoveredGroup, Write
from fluffle.raft.messages import (
    AppendAccepted,
    AppendRequest,
    GroupMessage,
    Message,
    Ping,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from fluffle.raft.multiraft import MultiRaft
from fluffle.raft.output import Output
from fluffle.raft.ranges import Ranges
from fluffle.raft.state import GroupState
from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP

M = TypeVar("M", bound=Message)


def entry(index: int, term: int, payload: bytes = b"x") -> Entry:
    return Entry(index, term, DATA, payload)


class Single:
    """Node a.  Its disk does nothing before `sync`; `sent` is what left in the last turn."""

    def __init__(
        self,
        nodes: str = "abc",
        *,
        log: tuple[int, ...] = (),
        hard: HardState | None = None,
        config: Configuration | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """`log`: the term of each entry that is on its disk."""
        self.nodes = nodes
        self.now_ms = 1_000
        self.raft = MultiRaft("a", 1, tuning or Tuning(), Random(7))
        config = config or Configuration.initial(nodes)
        snapshot = SnapshotMeta(0, 0, config, Ranges(), 0, 0)
        hard = hard or HardState(log[-1] if log else 0, None)
        found = RecoveredGroup(GROUP, 1, hard, snapshot, last_index=len(log))
        found.terms = [(at, t) for at, t in enumerate(log, 1) if at == 1 or log[at - 2] != t]
        self.raft.load([found])
        self.tokens: list[int] = []
        self.writes: list[Write] = []
        self.output = Output()
        self.turn()
        self.link()

    def link(self) -> None:
        for number, node in enumerate(self.nodes[1:], 1):
            self.raft.tick(self.now_ms)
            self.raft.link_up(node)
            self.raft.receive(node, [Ping(1, number, 1, 1, False)])
        self.turn()

    @property
    def state(self) -> GroupState:
        return self.raft._groups[GROUP]

    @property
    def group(self) -> Group:
        return self.raft.group(GROUP)

    @property
    def status(self) -> Status:
        return self.group.status

    def turn(self) -> Output:
        self.output = self.raft.output()
        if self.output.persist is not None:
            self.tokens.append(self.output.persist.token)
            self.writes += self.output.persist.writes
        for apply in self.output.applies:
            self.group.applied(apply.entries[-1].index)
        return self.output

    def receive(self, node: str, *messages: GroupMessage) -> Output:
        self.raft.tick(self.now_ms)
        self.raft.receive(node, messages)
        return self.turn()

    def advance(self, ms: int) -> Output:
        """The others stay alive."""
        self.now_ms += ms
        self.raft.tick(self.now_ms)
        return self.turn()

    def sync(self) -> Output:
        """Make everything that was written durable."""
        self.raft.durable(self.tokens[-1])
        return self.turn()

    def sent(self, kind: type[M], node: str | None = None) -> list[M]:
        """Messages of one kind sent in the last turn, to one node or all."""
        return [
            message
            for target, messages in self.output.messages.items()
            for message in messages
            if isinstance(message, kind) and node in (None, target)
        ]

    # Usual ways

    def stand(self) -> None:
        """Until it asks for votes: its own is on disk."""
        self.group.campaign()
        self.turn()
        for node in self.nodes[1:]:
            self.receive(node, PreVoteResponse(GROUP, self.status.term + 1, 1, 1, True))
            if self.state.role.value == "candidate":
                break
        self.sync()

    def lead(self) -> None:
        """Until its first entry is on its own disk, and nobody else's."""
        self.stand()
        for node in self.nodes[1 : len(self.nodes) // 2 + 1]:
            self.receive(node, VoteResponse(GROUP, self.status.term, 1, 1, True))
        self.sync()

    def follow(
        self, leader: str, term: int, *entries: Entry, previous: Entry | None = None
    ) -> Output:
        """Hear of a leader."""
        at = (previous.index, previous.term) if previous else (0, 0)
        return self.receive(leader, AppendRequest(GROUP, term, 1, 1, *at, 0, 1, entries))

    def accept(self, node: str, index: int, *, round_: int | None = None) -> Output:
        """A follower has everything up to `index` on disk."""
        leading = self.state.leading
        assert leading is not None
        at = leading.round - 1 if round_ is None else round_
        answer = AppendAccepted(GROUP, self.status.term, 1, 1, index, index, 0, at)
        return self.receive(node, answer)


def vote_request(term: int, *, last: tuple[int, int], is_transfer: bool = False) -> VoteRequest:
    """`last`: term and index of the candidate's last entry."""
    return VoteRequest(GROUP, term, 1, 1, last[1], last[0], is_transfer)
