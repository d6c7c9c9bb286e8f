"""A policy that is set at one node, and queues that live or are led elsewhere."""

from __future__ import annotations

import json

from fluffle.broker.cluster.queues.quorum_member import QuorumQueueMember
from fluffle.broker.queues.quorum.entry_codec import settings_on_record
from fluffle.broker.queues.settings import QueueSettings
from tests.broker.cluster.queues.test_quorum_queues import Scene, leads, publish, scene
from tests.support.cluster_nodes import ClusterNode, until
from tests.support.definitions import engine_of

__all__ = ["scene"]

SHORT = QueueSettings(max_length=2)


def group_at(node: ClusterNode) -> QuorumQueueMember:
    definition = node.node.catalogue.vhosts["/"].queues["q"].definition
    group = node.cluster.node_sessions.leaders.queues[definition.id]
    assert isinstance(group, QuorumQueueMember)
    return group


def in_force(scene: Scene) -> QueueSettings | None:
    """Settings by which the present leader acts."""
    for node in scene.nodes.running:
        if leads(node, "q") and (led := group_at(node).replica.leadership) is not None:
            return led.queue.settings
    return None


def on_record(node: ClusterNode) -> QueueSettings:
    """Settings with which this node would begin to lead."""
    group = group_at(node)
    assert group.definition is not None
    return settings_on_record(group.replica.image.state.spec, group.definition.spec)


async def set_policy(scene: Scene, at: str, pattern: str, **definition: object) -> None:
    said = json.dumps({key.replace("_", "-"): value for key, value in definition.items()})
    node = scene.nodes[at]
    await node.ask("policies.set", name="p", vhost="/", pattern=pattern, definition=said)


async def test_a_policy_reaches_a_leader_elsewhere_and_those_that_follow_it(scene: Scene) -> None:
    await scene.declare("b")
    await scene.is_led_by("b")
    channel = await scene.channel("c")
    await publish(channel, b"1", b"2", b"3", b"4")
    await set_policy(scene, "a", "^q", max_length=2)
    await until(lambda: all(on_record(node) == SHORT for node in scene.nodes))
    queue = await channel.get_queue("q")
    assert [(await queue.get(no_ack=True)).body for _ in range(2)] == [b"3", b"4"]

    await scene.nodes["b"].kill()
    await until(lambda: scene.leader() in ("a", "c"))
    assert in_force(scene) == SHORT
    await set_policy(scene, "a", "^q", max_length=3)
    await until(lambda: in_force(scene) == QueueSettings(max_length=3))
    await scene.nodes["b"].start()
    await until(lambda: on_record(scene.nodes["b"]).max_length == 3)
    before = group_at(scene.nodes["b"]).replica.image.state.revision

    await scene.nodes["a"].ask("policies.clear", name="p", vhost="/")
    await until(lambda: all(on_record(node) == QueueSettings() for node in scene.nodes))
    assert group_at(scene.nodes["b"]).replica.image.state.revision > before


async def test_a_policy_is_there_after_all_have_been_started_anew(scene: Scene) -> None:
    await scene.declare("b")
    await scene.is_led_by("b")
    await set_policy(scene, "c", "^q", delivery_limit=7)
    await until(lambda: all(on_record(node).delivery_limit == 7 for node in scene.nodes))
    for node in scene.nodes:
        await node.kill()
    await scene.nodes.start()
    await until(lambda: bool(scene.leader()))
    settings = in_force(scene)
    assert settings is not None
    assert settings.delivery_limit == 7
    assert await scene.nodes["a"].ask("queues.show", name="q", vhost="/") is not None


async def test_a_classic_queue_goes_by_it_at_its_home(scene: Scene) -> None:
    channel = await scene.channel("b")
    await channel.declare_queue("classic", durable=True)
    await scene.nodes.agree()
    await set_policy(scene, "a", "classic", dead_letter_exchange="dlx")
    home = scene.nodes["b"].node.catalogue.vhosts["/"]
    await until(lambda: engine_of(home, "classic").settings.dead_letter_exchange == "dlx")
    await scene.nodes["b"].stop()
    await scene.nodes["b"].start()
    home = scene.nodes["b"].node.catalogue.vhosts["/"]
    assert engine_of(home, "classic").settings.dead_letter_exchange == "dlx", "before clients come"
