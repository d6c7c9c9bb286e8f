"""Removal of a dead node's queues by the leader, once all others have confirmed that it is dead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from functools import partial
from types import SimpleNamespace
from typing import Any

from fluffle.broker.base.client_session import ClientSession, DueWill
from fluffle.broker.cluster.node_monitor import DEAD_AFTER_MS, AbsentNodes
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.definitions.ended_queues import BATCH_FACTS, EndedQueues
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.metadata.change import Change, Fact, Kind
from fluffle.broker.metadata.nodes import RegisteredNode
from fluffle.broker.queues.arguments import Declaration, queue_spec
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.vhosts.client_sessions import keep_session, keep_will
from fluffle.broker.vhosts.queue_changes import bind
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.output import LivenessVerdict
from tests.support.definitions import editor_of
from tests.support.manual_clock import ManualClock
from tests.support.queue_host import FakeTurn

Reported = Callable[[Mapping[str, Set[str]]], None]


class Scene:
    """a leads, b is there, and c has left a queue."""

    def __init__(self) -> None:
        vhost = self.vhost = VirtualHost("/", LocalQueues(FakeTurn()))
        editor = self.editor = editor_of(vhost)
        self.left_by("c", "q")
        nodes = editor.catalogue.nodes.entries
        for name in "abc":
            nodes[name] = RegisteredNode(ListenAddress("127.0.0.1", 1), boot=1)
        self.dead = {"c"}
        self.asked: list[Reported] = []
        self.others: list[str] = []
        """The nodes that were asked last, in order."""
        cluster = self.cluster = SimpleNamespace(
            name="a",
            metadata=SimpleNamespace(leads=True, ensure=editor.metadata.ensure),
            absent=SimpleNamespace(
                is_dead=self.dead.__contains__, is_alive=lambda node: node in {"b", "c"} - self.dead
            ),
            peer_views=SimpleNamespace(ask=self.ask),
        )
        there: Any = cluster
        self.leftovers = EndedQueues(editor.catalogue, there, unused)

    def ask(self, others: Collection[str], reported: Reported) -> None:
        self.others = [*others]
        self.asked.append(reported)

    def left_by(self, home: str, name: str) -> None:
        """A queue of a node comes true, of its present life."""
        definition = self.vhost.maker.define(queue_spec(Declaration(name), "/"), None, "/")
        definition = definition._replace(home=home, boot=1)
        fact = Fact(Kind.QUEUE, ("/", name), definition, definition.spec.durable)
        self.editor.have(lambda: Change(puts=(fact,)))

    def answer(self) -> None:
        """b says whom it sees, which is a."""
        assert self.asked, "nobody is asked"
        reported = self.asked.pop()
        reported({"b": {"a"}})


def unused(_delay_s: float, _act: Callable[[], None]) -> Any:
    raise AssertionError("it looks on request")


def test_what_a_dead_node_has_left_is_removed() -> None:
    scene = Scene()
    scene.leftovers.look()
    assert "q" in scene.vhost.queues, "the others are asked first"
    scene.answer()
    assert "q" not in scene.vhost.queues
    scene.leftovers.look()
    assert not scene.asked, "nothing is left"


def test_the_others_are_asked_in_an_order_that_no_hash_decides() -> None:
    scene = Scene()
    nodes = scene.editor.catalogue.nodes.entries
    for number in (7, 3, 9, 1, 8):
        nodes[f"n{number}"] = nodes["b"]
    scene.cluster.absent.is_alive = lambda node: node != "c"
    scene.leftovers.look()
    assert scene.others == ["a", "b", "n1", "n3", "n7", "n8", "n9"]


def test_a_change_removes_so_many_queues_and_bindings_and_no_more() -> None:
    """Queues of clients of MQTT may have some hundred bindings each."""
    scene, sizes = Scene(), list[int]()
    ensure = scene.editor.metadata.ensure
    for number, bindings in enumerate((0, 400, 400, 400, 2 * BATCH_FACTS, 1)):
        name = f"q{number}"
        scene.left_by("c", name)
        for key in range(bindings):
            binding = Binding("amq.topic", name, DestinationKind.QUEUE, f"{key}", {})
            scene.editor.have(partial(bind, scene.vhost, binding, None))

    def counted(decide: Callable[[], Change], done: Callable[[], None]) -> None:
        sizes.append(len(decide().removes))
        ensure(decide, done)

    scene.cluster.metadata.ensure = counted
    scene.leftovers.look()
    scene.answer()
    assert scene.vhost.queues == {}
    assert sizes == [2 + 2 * 401, 401, 1 + 2 * BATCH_FACTS, 2]


def test_who_looks_after_sessions_hears_of_a_node_that_is_dead_or_forgotten() -> None:
    scene, lost = Scene(), dict[str, Callable[[], bool]]()
    scene.editor.catalogue.node_loss_listeners.append(lost.__setitem__)
    sessions = scene.vhost.client_sessions.by_client
    sessions["x"] = ClientSession("guest", 60, 0, "forgotten", b"")
    sessions["y"] = ClientSession("guest", 60, 0, "b", b"")
    scene.leftovers.look()
    assert list(lost) == ["forgotten"]
    scene.answer()
    assert list(lost) == ["forgotten", "c"]
    assert all(is_lost() for is_lost in lost.values())
    scene.dead.clear()
    assert not lost["c"]()


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


def test_what_comes_true_when_all_that_it_had_left_is_removed_goes_too() -> None:
    scene = Scene()
    scene.leftovers.look()
    scene.answer()
    scene.leftovers.look()
    assert not scene.asked
    scene.left_by("c", "late")
    scene.leftovers.look()
    scene.answer()
    assert "late" not in scene.vhost.queues
    scene.leftovers.look()
    assert not scene.asked, "nothing is left"


def test_a_session_or_a_will_that_comes_true_after_that_is_looked_after_too() -> None:
    scene, lost = Scene(), list[str]()
    scene.editor.catalogue.node_loss_listeners.append(lambda node, _is_lost: lost.append(node))
    scene.leftovers.look()
    scene.answer()
    session = ClientSession("guest", 60, 0, "c", b"")
    scene.editor.have(partial(keep_session, scene.vhost, "x", session))
    scene.leftovers.look()
    scene.answer()
    assert lost == ["c", "c"]
    scene.editor.have(partial(keep_will, scene.vhost, ("x", "1"), DueWill("c", b"")))
    scene.leftovers.look()
    scene.answer()
    assert lost == ["c", "c", "c"]
    scene.editor.have(partial(keep_will, scene.vhost, ("x", "2"), DueWill("b", b"")))
    scene.leftovers.look()
    assert not scene.asked


def test_wills_of_a_node_that_is_forgotten_are_looked_after() -> None:
    scene, lost = Scene(), list[str]()
    scene.editor.catalogue.node_loss_listeners.append(lambda node, _is_lost: lost.append(node))
    scene.vhost.client_sessions.due_wills["x", "1"] = DueWill("forgotten", b"")
    scene.leftovers.look()
    assert lost == ["forgotten"]


def test_whoever_leads_for_long_keeps_the_queues_of_its_own_clients() -> None:
    scene, clock = Scene(), ManualClock()
    scene.left_by("a", "mine")
    absent = scene.cluster.absent = AbsentNodes("a", clock.now_ms, lambda _node: False)
    for name in "bc":
        absent.judged(LivenessVerdict(name, is_alive=True, boot=1))
    clock.advance(2 * DEAD_AFTER_MS)
    scene.leftovers.look()
    assert not scene.asked, "everybody is there"
    assert set(scene.vhost.queues) == {"mine", "q"}
