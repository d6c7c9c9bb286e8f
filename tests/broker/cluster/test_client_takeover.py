"""Clients that may be connected to one node only: what nodes tell each other of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fluffle.broker.cluster.client_takeover import ROWS_MAX, ClientTakeover
from fluffle.broker.cluster.codec import BadFrame, pack
from tests.support.fakes import Scheduler
from tests.support.frames import FakeSender


class Clients:
    """Clients of one node, by identifier, with the times at which they came."""

    def __init__(self, times: dict[str, int]) -> None:
        self.times = times

    def connected_since(self) -> Iterable[tuple[str, str, int]]:
        return [("/", client_id, at_ms) for client_id, at_ms in self.times.items()]

    def came_at_ms(self, vhost: str, client_id: str) -> int | None:
        return self.times.get(client_id) if vhost == "/" else None

    def came_elsewhere(self, vhost: str, client_id: str) -> None:
        del vhost, self.times[client_id]


class Pair:
    """Two nodes, whose frames are passed on by `deliver`."""

    def __init__(self) -> None:
        self.loop = Scheduler()
        self.frames: list[tuple[str, str, bytes]] = []
        self.clients = {"a": Clients({}), "b": Clients({})}
        self.nodes: dict[str, ClientTakeover] = {}
        for name, other in ("ab", "ba"):
            sender = FakeSender(name, self.frames.append, other)
            self.nodes[name] = node = ClientTakeover(name, sender, self.loop)
            node.here = self.clients[name]

    def come(self, node: str, client_id: str, at_ms: int) -> None:
        self.clients[node].times[client_id] = at_ms
        self.nodes[node].came(("/", client_id), at_ms)

    def deliver(self) -> None:
        """Until nothing is on its way."""
        self.loop.run()
        while self.frames:
            sender, receiver, payload = self.frames.pop(0)
            self.nodes[receiver].receive(sender, payload)

    def times(self, node: str) -> dict[str, int]:
        return self.clients[node].times


def who_came_later_stays() -> None:
    """Have a client come to one node, to the other, and late to the first."""
    pair = Pair()
    pair.come("a", "c", 5)
    pair.deliver()
    pair.come("b", "c", 7)
    pair.deliver()
    assert (pair.times("a"), pair.times("b")) == ({}, {"c": 7})
    pair.come("a", "c", 6)  # it has waited there, and is let in late
    pair.deliver()
    assert (pair.times("a"), pair.times("b")) == ({}, {"c": 7})


def test_who_came_later_stays_in_whichever_order_the_nodes_hear_of_it() -> None:
    who_came_later_stays()


def test_two_that_come_at_one_time_are_not_both_ended() -> None:
    pair = Pair()
    pair.come("a", "c", 5)
    pair.come("b", "c", 5)
    pair.deliver()
    assert (pair.times("a"), pair.times("b")) == ({}, {"c": 5})


def test_clients_of_one_turn_and_all_over_a_new_link_are_in_few_frames() -> None:
    pair = Pair()
    count = 2 * ROWS_MAX + 1
    for number in range(count):
        pair.come("a", f"c{number}", number)
    pair.loop.run()
    assert len(pair.frames) == 3
    pair.frames.clear()
    pair.clients["b"].times["c7"] = 8
    pair.nodes["a"].link_changed("b", True)
    pair.nodes["b"].link_changed("a", True)
    pair.deliver()
    assert (len(pair.times("a")), pair.times("b")) == (count - 1, {"c7": 8})


def test_a_node_without_such_clients_passes_over_those_of_others() -> None:
    pair = Pair()
    pair.nodes["b"].here = None
    pair.come("a", "c", 5)
    pair.nodes["b"].link_changed("a", True)
    pair.deliver()
    assert pair.times("a") == {"c": 5}


@pytest.mark.parametrize("row", [("/", "c"), ("/", "c", "7"), ("/", 1, 7), 3])
def test_what_is_no_client_is_refused(row: object) -> None:
    with pytest.raises(BadFrame):
        Pair().nodes["a"].receive("b", pack(row))
