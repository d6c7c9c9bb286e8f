"""Classic queues that are used from other nodes than their home."""

from tests.compat.nodes import PERSISTENT, Nodes, publish, with_nodes
from tests.compat.scenario import End


@with_nodes
def classic_queue_used_from_other_nodes(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.classic", durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.classic", *"1234")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(1)
    consumes.consume("nodes.classic", "tag")
    consumes.expect("Basic.Deliver")
    consumes.ack(1)
    consumes.expect("Basic.Deliver")
    consumes.cancel("tag")
    consumes.reject(2, requeue=True)
    consumes.settle()
    publishes.get("nodes.classic")
    publishes.declare("nodes.classic", durable=True)
    publishes.purge("nodes.classic")
    publishes.delete("nodes.classic", if_unused=True, if_empty=True)
    nodes.agree()
    it.another().declare("nodes.classic", passive=True)


@with_nodes
def exclusive_queue_is_its_connections_alone(nodes: Nodes) -> None:
    nodes.speaker("owns", "a").declare("nodes.exclusive", exclusive=True)
    nodes.agree()
    other = nodes.speaker("tries", "b")
    other.another().declare("nodes.exclusive", passive=True)
    other.another().declare("nodes.exclusive", exclusive=True)
    other.another().get("nodes.exclusive")
    other.another().consume("nodes.exclusive", "tag")
    other.another().delete("nodes.exclusive")


@with_nodes
def the_node_of_classic_queues_is_stopped(nodes: Nodes) -> None:
    """Its consumers elsewhere are cancelled; durable queues cannot be used, others are gone.

    After SIGKILL RabbitMQ would let clients wait for a minute.
    """
    it = nodes.speaker("declares", "c")
    it.declare("nodes.home", durable=True)
    it.declare("nodes.home.transient")
    it.confirms()
    publish(it, "nodes.home", "kept")
    nodes.agree()
    consumes = nodes.speaker("consumes", "b")
    consumes.qos(1)
    consumes.consume("nodes.home", "tag")
    consumes.expect("Basic.Deliver")
    waits = nodes.speaker("waits", "b")
    waits.consume("nodes.home.transient", "transient")
    with nodes.without("c", End.STOP):
        consumes.expect("Basic.Cancel")
        consumes.ack(1)
        consumes.settle()
        waits.expect("Basic.Cancel")
        other = nodes.speaker("tries", "a")
        other.until_gone("nodes.home.transient")
        other.another().declare("nodes.home", passive=True)
        other.another().get("nodes.home")
        other.another().consume("nodes.home", "tag")
        other.another().purge("nodes.home")
        unsafe = other.another()
        unsafe.publish("", "nodes.home", "returned or not", mandatory=True)
        unsafe.settle()
    again = nodes.speaker("looks", "a")
    again.get("nodes.home")
    again.delete("nodes.home")


@with_nodes
def the_node_of_classic_queues_is_killed(nodes: Nodes) -> None:
    """Requests for queues of a dead node that are answered at once; RabbitMQ lets most others
    wait for a minute."""
    names = [f"nodes.killed.{at}" for at in range(4)]
    it = nodes.speaker("declares", "c")
    it.confirms()
    for name in names:
        it.declare(name, durable=True)
        publish(it, name, "kept")
    nodes.agree()
    consumes = nodes.speaker("consumes", "b")
    consumes.qos(1)
    consumes.consume(names[0], "tag")
    consumes.expect("Basic.Deliver")
    transacts = nodes.speaker("transacts", "b")
    transacts.transact()
    transacts.get(names[1], no_ack=False)
    with nodes.without("c"):
        consumes.expect("Basic.Cancel")
        for holder in (consumes, transacts):
            holder.ack(1)
        transacts.commit()
        consumes.settle()
        consumes.close()
        other = nodes.speaker("tries", "a")
        other.bind(names[0], "amq.direct", "key")
        other.confirms()
        other.publish("", names[0], "lost", mandatory=True, delivery_mode=PERSISTENT)
        other.client.transcript.append(other.confirmed(1))
        other.delete(names[2])
        other.delete(names[3], if_unused=True)
    again = nodes.speaker("looks", "a")
    for name in names:
        again.another().get(name)
    again.delete(*names)
