"""Hosts under random faults: each caller is answered exactly once, and the answer is true."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fluffle.broker.cluster.group_background import HostLimits, ScrubLimits
from fluffle.broker.cluster.hosted_group import UNKNOWN_OUTCOME, ProposalLost
from fluffle.raft.group import Position
from fluffle.raft.log import DATA, Entry
from fluffle.raft.tuning import Tuning
from tests.simulation.toy import put, settle
from tests.suite.seeds import seeds
from tests.support.raft_hosts import HostCluster, Node, ToyMachine

GROUP = 7
STEPS = 400
SEEDS = 12
SMALL = Tuning(append_bytes_max=300, window_messages=3, cached_bytes=200, snapshot_chunk_bytes=100)
OFTEN = HostLimits(
    slice_bytes=400,
    snapshot_bytes_min=1_500,
    snapshot_node_bytes_max=3_000,
    scrub=ScrubLimits(piece_bytes=300, pause_ms=20, rest_ms=100),
)
"""Limits with which all background work is done all the time."""


class Chaos:
    """Three nodes, and everybody who asked them for anything."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.applied: dict[int, tuple[int, bytes]] = {}
        """Index -> term and payload, as any image has it; all must have the same."""
        self.cluster = HostCluster(settings=OFTEN, tuning=SMALL, make=self._make_machine)
        self.cluster.create(GROUP)
        self.proposed: dict[bytes, list[object]] = {}
        """Payload -> outcomes."""
        self.reads: list[tuple[int, list[int | None]]] = []
        """Reads: what was applied anywhere when they were requested, and the answers."""

    def _make_machine(self) -> ToyMachine:
        return Checked(self.applied)

    def go(self) -> None:
        acts = [self.propose] * 6 + [self.read, self.cut, self.mend, self.kill, self.start]
        acts += [self.some_steps] * 6 + [self.settle_some]
        for _ in range(STEPS):
            self.chance.choice(acts)()
        for node in self.cluster.nodes.values():
            if not node.is_running:
                node.start()
        self.mend()
        self.cluster.advance(5_000)

    def node(self) -> Node | None:
        running = [node for node in self.cluster.running() if GROUP in node.host]
        return self.chance.choice(running) if running else None

    def ask(self, payload: bytes) -> None:
        node = self.node()
        if node is not None:
            outcomes = self.proposed.setdefault(payload, [])
            node.host.group(GROUP).propose(payload, outcomes.append)

    def propose(self) -> None:
        self.ask(put(len(self.proposed), self.chance.randrange(200)))

    def settle_some(self) -> None:
        node = self.node()
        if node is not None:
            live = list(node.machine(GROUP).toy.live)
            # No two alike, so that each has a outcome of its own.
            self.ask(settle([*live[: len(live) // 2], 10**9 + len(self.proposed)]))

    def read(self) -> None:
        node = self.node()
        if node is not None:
            answers: list[int | None] = []
            self.reads.append((max(self.applied, default=0), answers))
            node.host.group(GROUP).read_index(answers.append)

    def some_steps(self) -> None:
        for _ in range(self.chance.randrange(8)):
            self.cluster.step()
        self.cluster.now_ms += self.chance.choice([0, 1, 10, 100, 400])

    def cut(self) -> None:
        names = self.chance.sample([node.name for node in self.cluster.running()], 2)
        self.cluster.network.cut(*names)

    def mend(self) -> None:
        for node in self.cluster.running():
            self.cluster.network.connect_all(node.name)

    def kill(self) -> None:
        """At most one is away; mostly it is asked to stop, so that no caller is left without a
        word."""
        running = self.cluster.running()
        if len(running) == 3:
            node = self.chance.choice(running)
            node.host.stop()
            node.kill()

    def start(self) -> None:
        for node in self.cluster.nodes.values():
            if not node.is_running:
                node.start()


class Checked(ToyMachine):
    """Compares each entry with what others have applied there."""

    def __init__(self, applied: dict[int, tuple[int, bytes]]) -> None:
        super().__init__()
        self._applied = applied

    def apply(self, entries: Sequence[Entry]) -> None:
        super().apply(entries)
        for entry in entries:
            payload = entry.payload if entry.kind == DATA else b""
            there = self._applied.setdefault(entry.index, (entry.term, payload))
            assert there == (entry.term, payload)


@seeds(SEEDS)
def test_everybody_is_answered_once_and_with_the_truth(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.go()
    places = {payload: index for index, (_, payload) in chaos.applied.items() if payload}
    assert sum(bool(payload) for _, payload in chaos.applied.values()) == len(places)
    counts = {"applied": 0, "refused": 0, "unsure": 0}
    for payload, outcomes in chaos.proposed.items():
        assert len(outcomes) == 1, outcomes
        outcome = outcomes[0]
        if isinstance(outcome, Position):
            assert chaos.applied[outcome.index] == (outcome.term, payload)
            counts["applied"] += 1
        elif outcome == UNKNOWN_OUTCOME:
            counts["unsure"] += 1
        else:
            assert isinstance(outcome, ProposalLost)
            assert payload not in places
            counts["refused"] += 1
    for applied, answers in chaos.reads:
        assert len(answers) == 1
        assert answers[0] is None or answers[0] >= applied
    assert counts["applied"] > 10, counts
    digests = {node.machine(GROUP).toy.digest for node in chaos.cluster.running()}
    assert len(digests) == 1
    assert all(node.reported.damages == [] for node in chaos.cluster.running())
    assert all(node.reported.refusals == [] for node in chaos.cluster.running())
    assert chaos.cluster.led(GROUP).status.floor > 0
