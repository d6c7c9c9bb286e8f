"""What a dead node has left is removed by whoever leads, once all others have said that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from types import SimpleNamespace
from typing import Any

from fluffle.broker.config import ListenAddress
from fluffle.broker.definitions.leftovers import Leftovers
from fluffle.broker.local_queues import LocalQueues
from fluffle.broker.metadata.nodes import Registered
from fluffle.broker.queues.arguments import Declaration
from fluffle.broker.vhost import VirtualHost
from tests.support.definitions import VhostEditor, editor_of

Told = Callable[[Mapping[str, Set[str]]], None]


class Scene:
    """a leads, b is there, and c has left a queue."""

    def __init__(self) -> None:
        vhost = self.vhost = VirtualHost("/", LocalQueues(lambda _queue: None))
        editor = editor_of(vhost)
        queue = VhostEditor(vhost, editor).declare_queue(Declaration("q"))
        queue.definition = queue.definition._replace(home="c", boot=1)
        nodes = editor.catalogue.nodes.entries
        for name in "abc":
            nodes[name] = Registered(ListenAddress("127.0.0.1", 1), boot=1)
        self.dead = {"c"}
        self.asked: list[Told] = []
        cluster: Any = SimpleNamespace(
            name="a",
            metadata=SimpleNamespace(leads=True, settle=editor.metadata.settle),
            absent=SimpleNamespace(
                is_dead=self.dead.__contains__, is_alive=lambda node: node in {"b", "c"} - self.dead
            ),
            sightings=SimpleNamespace(ask=lambda _others, told: self.asked.append(told)),
        )
        self.leftovers = Leftovers(editor.catalogue, cluster, unused)

    def answer(self) -> None:
        """b says whom it sees, which is a."""
        assert self.asked, "nobody is asked"
        told = self.asked.pop()
        told({"b": {"a"}})


def unused(_delay_s: float, _act: Callable[[], None]) -> Any:
    raise AssertionError("it looks when it is told to")


def test_what_a_dead_node_has_left_is_removed() -> None:
    scene = Scene()
    scene.leftovers.look()
    assert "q" in scene.vhost.queues, "the others are asked first"
    scene.answer()
    assert "q" not in scene.vhost.queues
    scene.leftovers.look()
    assert not scene.asked, "nothing is left"


def test_who_came_back_while_others_were_asked_and_died_again_has_left_it_all_the_same() -> None:
    scene = Scene()
    scene.leftovers.look()
    scene.dead.clear()
    scene.answer()
    assert "q" in scene.vhost.queues
    scene.dead.add("c")
    scene.leftovers.look()
    scene.answer()
    assert "q" not in scene.vhost.queues
