"""Promises of one node that help to found a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fluffle.broker.cluster.codec import pack
from fluffle.broker.cluster.formation import (
    ANSWER,
    INVITE,
    Formation,
    Founders,
    Promise,
    Stage,
    rows_of,
)
from fluffle.broker.config.config import ListenAddress

HERE = ListenAddress("127.0.0.1", 1)


class Node:
    """The `LocalNode` of b, which has no entry of any cluster."""

    is_begun = False
    members: Founders | None = None
    linked: Collection[str] = ()
    marks_nearby: Collection[str] = ()

    def __init__(self) -> None:
        self.kept: list[Promise] = []

    def is_founder(self, node: str) -> bool:
        raise AssertionError(f"{node} is not asked for")

    def send(self, node: str, payload: bytes) -> None:
        """Drop the frame."""

    def draw_mark(self) -> str:
        raise AssertionError("it is not the first")

    def keep(self, promise: Promise, done: Callable[[], None]) -> None:
        self.kept.append(promise)
        done()

    def go_by(self, promise: Promise) -> None:
        assert promise == self.kept[-1]

    def reach(self, node: str, address: ListenAddress) -> None:
        """Others are heard here as they come."""

    def admit(self, node: str, address: ListenAddress) -> None:
        raise AssertionError(f"{node} is let in by others")


def named(names: str) -> Founders:
    return dict.fromkeys(names, HERE)


def tell(formation: Formation, node: str, mark: str, *, joins: bool = False) -> None:
    """A node that has begun says so, and whether it has let b in."""
    members = rows_of(named(f"{node}b"))
    formation.receive(node, pack(ANSWER, mark, int(Stage.BEGUN), members, joins, node))


def invite(formation: Formation, node: str, mark: str, names: str) -> None:
    formation.receive(node, pack(INVITE, mark, rows_of(named(names))))


def test_who_has_left_a_founding_for_another_cluster_never_helps_there_again() -> None:
    """The node has voted there, and its vote was deleted with its data of that group."""
    node = Node()
    formation = Formation("b", named("abc"), HERE, Promise(), node)
    invite(formation, "a", "5e", "abc")
    tell(formation, "d", "7f", joins=True)
    assert [each.mark for each in node.kept] == ["5e", "7f"]
    formation.link_changed("d", False)
    again = Formation("b", named("abc"), HERE, node.kept[-1], node)  # after a restart, too
    for each in (formation, again):
        tell(each, "a", "5e")
        invite(each, "a", "5e", "abc")
        assert each.promise.mark == "7f"
    tell(again, "e", "9a", joins=True)
    assert again.promise == Promise("9a", left=("5e",))
