"""Actions of clients, one thing at a time, each at random moments: see `kinds_of`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from fluffle.broker.admin.members import lead_steps, with_member, without_member
from fluffle.broker.cluster.ports import METADATA_GROUP
from fluffle.broker.queues.expiry_times import Lifetimes
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.queues.queue_api import Outcome
from fluffle.protocol.wire import FieldTable
from tests.broker.cluster.queue_sessions.random_steps import OUTCOMES
from tests.simulation.queues.queue_clients import QueueClients
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload, is_hurt

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster
    from tests.simulation.queues.queue_node import QueueNode

QUEUES_MAX = 3
BACKLOG_MAX = 100
"""Messages on their way into a queue, in it, or in hands there; then publishers wait."""

PRIORITIES = ((None,), (None,), (None,), (0,), (5,), (40,), (0, 40, 5))
"""Priorities of messages that are published together, in turn."""

ALIKE = 10
"""Number of messages published anywhere among which some may have the same key."""

DARK_US = SECOND_US

HELD_MS = (600, 3_000)
"""Times for which a message may be held.  Longer than what passes between two looks of a run that
settles, at which its clients acknowledge: else the messages would come back for ever."""


LONG_MS = 2_000
"""Longest TTL of messages that have one each."""


def publish(queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    """A client waits while its edge is full, or much is on its way or not consumed."""
    backlog = queue_cluster.checker(client.session.group).image.state.live_count + len(
        client.model.pending
    )
    if not client.session.is_full and backlog < BACKLOG_MAX:
        chance, profile = workload.chance, workload.profile
        size = int(chance.random() ** 4 * profile.padding_max)
        expiration_ms = chance.choice((None, None, None, 0, 100, LONG_MS))
        priorities = chance.choice(PRIORITIES)
        count = 1 + int(chance.random() ** 2 * profile.batch_max)
        lifetimes_ms: Lifetimes = expiration_ms
        if expiration_ms == LONG_MS:
            lifetimes_ms = [LONG_MS >> place % 8 for place in range(count)]
        latest = client.names.published // ALIKE
        keys = (latest, None, latest + 1) if chance.random() < 0.3 else (None,)
        client.publish(count, size, lifetimes_ms, priorities, keys)


def attach(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    chance = workload.chance
    if len(client.consumers) < 3:
        client.attach(
            no_ack=chance.random() < 0.15,
            prefetch=chance.choice((0, 1, 2, 10)),
            is_exclusive=chance.random() < 0.1,
            priority=chance.choice((0, 0, 0, 1, -1)),
            timeout_ms=chance.choice((None, None, None, HELD_MS[0])),
        )


def settle(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    chance, held = workload.chance, client.in_hands()
    if held:
        some = chance.sample(held, chance.randint(1, len(held)))
        client.settle(some, chance.choice(OUTCOMES))


def get(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    client.get_once(workload.chance.choice((1, 2)), no_ack=workload.chance.random() < 0.2)


def get_stuck(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    """The socket of a consumer does not drain any more, or does again."""
    if client.consumers:
        client.get_stuck(workload.chance.choice(client.consumers))


def purge(_queue_cluster: QueueCluster, _workload: Workload, client: QueueClients) -> None:
    client.purge()


def detach(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    if client.consumers:
        client.detach(workload.chance.choice(client.consumers))


def close(_queue_cluster: QueueCluster, workload: Workload, client: QueueClients) -> None:
    """A channel ends, maybe right after it has acknowledged everything."""
    channels = client.channels()
    if channels:
        if workload.chance.random() < 0.5 and (held := client.in_hands()):
            client.settle(held, Outcome.ACKED)
        client.end_channel(workload.chance.choice(channels))
        if workload.chance.random() < 0.5:
            client.ask_settling()


def declare(queue_cluster: QueueCluster, workload: Workload) -> None:
    """A queue that may have limits, if it is not there."""
    chance, queue_nodes = workload.chance, queue_cluster.open_nodes()
    if not queue_nodes:
        return
    arguments: FieldTable = {"x-queue-type": ("S", b"quorum")}
    arguments["x-delivery-limit"] = ("l", chance.choice((1, 3, 20)))
    if chance.random() < 0.4:
        arguments["x-max-length"] = ("l", chance.choice((2, 10, 30)))
        arguments["x-overflow"] = ("S", chance.choice((b"reject-publish", b"drop-head")))
        if chance.random() < 0.5:
            arguments["x-max-length-bytes"] = ("l", chance.choice((50, 2_000)))
    if chance.random() < 0.4:
        arguments["x-dead-letter-exchange"] = ("S", b"")
        target = f"q{chance.randrange(QUEUES_MAX)}".encode()
        arguments["x-dead-letter-routing-key"] = ("S", target)
        if chance.random() < 0.5:
            arguments["x-dead-letter-strategy"] = ("S", b"at-least-once")
            arguments["x-overflow"] = ("S", b"reject-publish")
    if chance.random() < 0.3:
        arguments["x-message-deduplication"] = ("t", True)
    if chance.random() < 0.3:
        arguments["x-delayed-retry-type"] = ("S", chance.choice((b"all", b"failed", b"returned")))
        arguments["x-delayed-retry-min"] = ("l", chance.choice((10, 300, 2_000)))
        arguments["x-delayed-retry-max"] = ("l", 3_000)
    if chance.random() < 0.4:
        arguments["x-message-ttl"] = ("l", chance.choice((0, 20, 500, 3_000)))
    if chance.random() < 0.3:
        arguments["x-expires"] = ("l", chance.choice((1_000, 4_000)))
    if chance.random() < 0.4:
        arguments["x-consumer-timeout"] = ("l", chance.choice(HELD_MS))
    if chance.random() < 0.3:
        arguments["x-single-active-consumer"] = ("t", True)
    if chance.random() < 0.3:
        arguments["x-quorum-target-group-size"] = ("l", chance.choice((3, 5)))
    if chance.random() < 0.3:
        arguments["x-quorum-initial-group-size"] = ("l", chance.choice((1, 2, 5)))
    name = f"q{chance.randrange(QUEUES_MAX)}"
    chance.choice(queue_nodes).defining.declare(
        name, arguments, queue_cluster.redeclared_queues.answered
    )


def delete(queue_cluster: QueueCluster, workload: Workload) -> None:
    queue_nodes = queue_cluster.open_nodes()
    if queue_nodes:
        workload.chance.choice(queue_nodes).defining.delete(
            f"q{workload.chance.randrange(QUEUES_MAX)}"
        )


def leave_in_the_dark(queue_cluster: QueueCluster, workload: Workload) -> None:
    """Some node hears nothing from who orders the definitions for a while, and is to lead a queue
    as soon as that goes by what it has not heard of."""
    cluster, leader = queue_cluster.cluster, workload.leader(METADATA_GROUP)
    if leader is not None:
        queue_cluster.in_the_dark = node = workload.chance.choice(cluster.names)
        if node != leader.node:
            cluster.network.cut(leader.node, node)
            cluster.clockwork.after(DARK_US, cluster.network.mend, leader.node, node)


def change_policy(queue_cluster: QueueCluster, workload: Workload) -> None:
    """An operator wants a queue, or all of them, to go by other settings."""
    chance, queue_nodes = workload.chance, queue_cluster.open_nodes()
    if not queue_nodes:
        return
    if chance.random() < 0.5 and not workload.is_steady:
        leave_in_the_dark(queue_cluster, workload)
    name = chance.choice(("q0", "q1", "q2", "q"))
    defining = chance.choice(queue_nodes).defining
    if chance.random() < 0.3:
        defining.clear_policy(name)
        return
    definition: dict[str, object] = {"delivery-limit": chance.choice((1, 3, 20))}
    if chance.random() < 0.5:
        definition["max-length"] = chance.choice((2, 10, 30))
        definition["overflow"] = chance.choice(("reject-publish", "drop-head"))
    if chance.random() < 0.4:
        definition["message-ttl"] = chance.choice((0, 20, 500, 3_000))
    if chance.random() < 0.5:
        definition["dead-letter-exchange"] = ""
        definition["dead-letter-routing-key"] = f"q{chance.randrange(QUEUES_MAX)}"
        if chance.random() < 0.5:
            definition["dead-letter-strategy"] = "at-least-once"
            definition["overflow"] = "reject-publish"
    if chance.random() < 0.3:
        definition["delayed-retry-type"] = chance.choice(("all", "failed", "returned"))
        definition["delayed-retry-min"] = chance.choice((10, 300, 2_000))
        definition["delayed-retry-max"] = 3_000
    if chance.random() < 0.2:
        definition["x-message-deduplication"] = True
    if chance.random() < 0.2:
        definition["expires"] = chance.choice((1_000, 4_000))
    defining.set_policy(name, f"^{name}", definition)


def some_definition(
    queue_cluster: QueueCluster, workload: Workload
) -> tuple[QueueNode, QueueDefinition] | None:
    """Definition of a queue that can be moved, as some node knows it: nothing is hurt, nor on its
    way."""
    queue_nodes = [queue_node for queue_node in queue_cluster.open_nodes() if queue_node.clients]
    if not queue_nodes or workload.is_steady:
        return None
    queue_node = workload.chance.choice(queue_nodes)
    group = workload.chance.choice(sorted(queue_node.clients))
    spec = queue_cluster.cluster.registry.groups[group]
    is_moving = {voter.node for voter in spec.config.voters} != spec.wanted
    if is_moving or is_hurt(queue_cluster.cluster, spec):
        return None
    return queue_node, queue_node.clients[group].queue.definition


def grow_or_shrink(queue_cluster: QueueCluster, workload: Workload) -> None:
    """An operator wants a queue on one node more, or less, or both."""
    found, chance = some_definition(queue_cluster, workload), workload.chance
    if found is None:
        return
    queue_node, definition = found
    name, what = definition.spec.name, chance.random()
    others = sorted({*queue_cluster.cluster.names} - {*definition.wanted})
    if others and what < 0.7:
        queue_node.defining.redefine_queue(name, partial(with_member, chance.choice(others)))
    if len(definition.wanted) > 1 and what > 0.3:
        queue_node.defining.redefine_queue(
            name, partial(without_member, chance.choice(definition.wanted))
        )


def hand_over(queue_cluster: QueueCluster, workload: Workload) -> None:
    """An operator wants another member to lead."""
    found = some_definition(queue_cluster, workload)
    if found is not None:
        queue_node, definition = found
        node = workload.chance.choice([node for node, _incarnation in definition.members])
        for step in lead_steps(node, definition):
            queue_node.defining.redefine_queue(definition.spec.name, step)


def count(queue_cluster: QueueCluster, workload: Workload) -> None:
    """How many messages are there?  Somebody answers, or it is said that nobody can."""
    queue_nodes = [queue_node for queue_node in queue_cluster.open_nodes() if queue_node.clients]
    if queue_nodes:
        queue_node = workload.chance.choice(queue_nodes)
        group = workload.chance.choice(sorted(queue_node.clients))
        queue_node.ask_counts(group)


def ambush(queue_cluster: QueueCluster, workload: Workload) -> None:
    """Lie in wait for a hand-out: a rare moment, and many rules are about it."""
    if not queue_cluster.ambushes:
        queue_cluster.ambushes.append(workload.chance.choice(("reset", "crash", "crash")))


def await_arrival(queue_cluster: QueueCluster, _workload: Workload) -> None:
    """The same for who has sent a dead letter, and does not know yet that it has arrived."""
    queue_cluster.is_arrival_awaited = True


def kinds_of(queue_cluster: QueueCluster) -> Mapping[str, Callable[[Workload], None]]:
    """Actions by kind, as an `Application` has them."""

    def at_some(
        do: Callable[[QueueCluster, Workload, QueueClients], object],
    ) -> Callable[[Workload], None]:
        return lambda workload: at_some_client(queue_cluster, workload, do)

    return {
        "publish": at_some(publish),
        "attach": at_some(attach),
        "settle": at_some(settle),
        "get": at_some(get),
        "purge": at_some(purge),
        "get_stuck": at_some(get_stuck),
        "detach": at_some(detach),
        "close": at_some(close),
        "declare": lambda workload: declare(queue_cluster, workload),
        "delete": lambda workload: delete(queue_cluster, workload),
        "grow or shrink": lambda workload: grow_or_shrink(queue_cluster, workload),
        "hand over": lambda workload: hand_over(queue_cluster, workload),
        "change policy": lambda workload: change_policy(queue_cluster, workload),
        "count": lambda workload: count(queue_cluster, workload),
        "ambush": lambda workload: ambush(queue_cluster, workload),
        "await arrival": lambda workload: await_arrival(queue_cluster, workload),
    }


def at_some_client(
    queue_cluster: QueueCluster,
    workload: Workload,
    do: Callable[[QueueCluster, Workload, QueueClients], object],
) -> None:
    """Act as a client of some queue on some node, if there are any."""
    queue_nodes = [queue_node for queue_node in queue_cluster.open_nodes() if queue_node.clients]
    if queue_nodes:
        queue_node = workload.chance.choice(queue_nodes)
        group = workload.chance.choice(sorted(queue_node.clients))
        client = queue_node.clients[group]
        do(queue_cluster, workload, client)
        client.port.touch()


def draw_rates(chance: Random) -> dict[str, float]:
    """How often a second, in the whole cluster."""
    return {
        "publish": chance.choice((2.0, 5.0, 10.0, 30.0)),
        "attach": chance.choice((0.5, 1.0)),
        "settle": chance.choice((2.0, 5.0, 10.0)),
        "get": chance.choice((0.0, 1.0, 5.0)),
        "purge": chance.choice((0.0, 0.0, 0.1)),
        "get_stuck": chance.choice((0.0, 0.5)),
        "detach": chance.choice((0.0, 0.3)),
        "close": chance.choice((0.1, 0.5)),
        "declare": chance.choice((0.3, 1.0)),
        "delete": chance.choice((0.0, 0.05, 0.2)),
        "change policy": chance.choice((0.0, 0.0, 0.3, 1.0)),
        "count": chance.choice((0.0, 0.5)),
        "ambush": chance.choice((0.0, 0.0, 0.2, 0.5)),
        "await arrival": chance.choice((0.0, 0.2, 1.0)),
        "read": 0.0,
        "transfer": chance.choice((0.0, 0.0, 0.1, 1.0)),
        "compact": chance.choice((0.0, 0.3, 1.0, 3.0)),
        "grow or shrink": chance.choice((0.0, 0.0, 0.1, 0.3)),
        "hand over": chance.choice((0.0, 0.0, 0.1, 0.3)),
    }
