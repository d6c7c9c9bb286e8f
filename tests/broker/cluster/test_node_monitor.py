"""Questions between nodes about the nodes they see; silent ones are not awaited."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack
import pytest

from fluffle.broker.base.clock import Timer
from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.node_monitor import AbsentNodes, PeerViews
from fluffle.broker.cluster.rpc import GIVE_UP_S
from fluffle.raft.output import LivenessVerdict

Reported = list[Mapping[str, frozenset[str]]]


class Harness:
    """Three nodes; what is on its way between them, and what is to be done later."""

    def __init__(self) -> None:
        self.absent = {name: AbsentNodes(name, lambda: 0, lambda _node: False) for name in "abc"}
        self.under_way: list[tuple[str, str, bytes]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.nodes = {name: self._made(name) for name in "abc"}

    def _made(self, name: str) -> PeerViews:
        def send(node: str, payload: bytes) -> None:
            self.under_way.append((name, node, payload))

        return PeerViews(self.absent[name], send, self)

    def call_soon(self, _call: Callable[[], None]) -> None:
        raise AssertionError("nothing is asked for at once")

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.later.append((delay_s, call))
        return self

    def cancel(self) -> None:
        raise AssertionError("no timer is cancelled")

    def sees(self, name: str, others: str) -> None:
        for other in others:
            self.absent[name].judged(LivenessVerdict(other, is_alive=True, boot=1))

    def deliver(self) -> None:
        while self.under_way:
            source, target, payload = self.under_way.pop(0)
            self.nodes[target].receive(source, payload)


def test_all_say_whom_they_see() -> None:
    harness, answers = Harness(), Reported()
    harness.sees("b", "acd")
    harness.nodes["a"].ask("bc", answers.append)
    assert answers == []
    harness.deliver()
    assert answers == [{"b": {*"acd"}, "c": set()}]
    ((_, give_up),) = harness.later
    give_up()
    assert len(answers) == 1


def test_who_says_nothing_is_not_waited_for_for_ever() -> None:
    harness, answers = Harness(), Reported()
    harness.nodes["a"].ask("bc", answers.append)
    late = harness.under_way.pop()
    harness.deliver()
    ((seconds, give_up),) = harness.later
    assert (answers, seconds) == ([], GIVE_UP_S)
    give_up()
    assert answers == [{"b": set()}]
    harness.under_way.append(late)
    harness.deliver()
    assert len(answers) == 1


def test_of_nobody_nothing_is_asked() -> None:
    harness, answers = Harness(), Reported()
    harness.nodes["a"].ask("", answers.append)
    ((seconds, give_up),) = harness.later
    assert (answers, seconds) == ([], 0)
    give_up()
    assert answers == [{}]


def test_an_answer_counts_once_and_of_whoever_was_asked() -> None:
    harness, answers = Harness(), Reported()
    harness.nodes["a"].ask("bc", answers.append)
    answer = msgpack.packb((1, 1, "x"))
    for node in "ddbb":
        harness.nodes["a"].receive(node, answer)
    assert answers == []
    harness.nodes["a"].receive("c", msgpack.packb((1, 1)))
    assert answers == [{"b": {"x"}, "c": set()}]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", *map(msgpack.packb, (7, [], [0], [2, 1], [1, "b"], [1, 1, 2], [True, 1]))],
)
def test_what_is_neither_question_nor_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        Harness().nodes["a"].receive("b", payload)
