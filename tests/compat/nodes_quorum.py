"""Quorum queues that are used from other nodes than the one that leads them."""

from typing import Any

from tests.compat.nodes import PERSISTENT, QUORUM, Nodes, publish, until_counted, with_nodes


@with_nodes
def quorum_queue_declared_here_published_there_consumed_elsewhere(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.three", QUORUM, durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.three", *"12345")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(2)
    consumes.consume("nodes.three", "tag")
    consumes.expect("Basic.Deliver", 2)
    consumes.ack(1)
    consumes.expect("Basic.Deliver")
    consumes.nack(2, requeue=True)
    consumes.expect("Basic.Deliver")
    consumes.ack(0, multiple=True)
    consumes.expect("Basic.Deliver", 2)
    consumes.ack(0, multiple=True)
    consumes.cancel("tag")
    consumes.settle()
    it.declare("nodes.three", QUORUM, durable=True)
    it.delete("nodes.three")


@with_nodes
def quorum_queue_polled_purged_and_deleted_from_other_nodes(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.polled", QUORUM, durable=True)
    it.confirms()
    publish(it, "nodes.polled", *"1234")
    nodes.agree()
    polls = nodes.speaker("polls", "b")
    polls.get("nodes.polled")
    polls.get("nodes.polled", no_ack=False)
    polls.reject(2, requeue=True)
    polls.get("nodes.polled", no_ack=False)
    polls.ack(3)
    purges = nodes.speaker("purges", "c")
    polls.settle()
    purges.purge("nodes.polled")
    polls.get("nodes.polled")
    purges.delete("nodes.polled")
    nodes.agree()
    polls.another().declare("nodes.polled", passive=True)
    polls.delete("nodes.polled")


@with_nodes
def consumers_of_a_quorum_queue_deleted_elsewhere_are_cancelled(nodes: Nodes) -> None:
    nodes.speaker("declares", "a").declare("nodes.deleted", QUORUM, durable=True)
    nodes.agree()
    consumers = [nodes.speaker("consumes", node) for node in "abc"]
    for consumer in consumers:
        consumer.consume("nodes.deleted", "tag")
    nodes.speaker("deletes", "c").delete("nodes.deleted")
    for consumer in consumers:
        consumer.expect("Basic.Cancel")


@with_nodes
def the_same_declared_again_on_another_node(nodes: Nodes) -> None:
    nodes.speaker("declares", "a").declare("nodes.same", QUORUM, durable=True)
    nodes.agree()
    it = nodes.speaker("declares again", "b")
    it.another().declare("nodes.same", QUORUM, durable=True)
    it.another().declare("nodes.same", durable=True)
    it.another().declare("nodes.same", {**QUORUM, "x-max-length": 1}, durable=True)
    it.another().declare("nodes.same", passive=True)
    it.delete("nodes.same")


@with_nodes
def topic_exchange_of_one_node_bound_on_another_published_on_the_third(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare_exchange("nodes.topic", "topic", durable=True)
    it.declare("nodes.bound", QUORUM, durable=True)
    nodes.agree()
    nodes.speaker("binds", "b").bind("nodes.bound", "nodes.topic", "a.#")
    nodes.agree()
    publishes = nodes.speaker("publishes", "c")
    publishes.confirms()
    for number, key in enumerate(("a.b", "b.a", "a"), start=1):
        publishes.publish("nodes.topic", key, key, mandatory=True, delivery_mode=PERSISTENT)
        publishes.confirmed(number)
    it.drain("nodes.bound")
    it.delete("nodes.bound")
    it.delete_exchange("nodes.topic")


@with_nodes
def the_node_that_leads_a_quorum_queue_is_killed(nodes: Nodes) -> None:
    """Consumers on other nodes keep what they hold, and nothing is delivered twice."""
    nodes.speaker("declares", "a").declare("nodes.led", QUORUM, durable=True)
    nodes.agree()
    publishes = nodes.speaker("publishes", "b")
    publishes.confirms()
    publish(publishes, "nodes.led", *"123")
    consumes = nodes.speaker("consumes", "c")
    consumes.qos(2)
    consumes.consume("nodes.led", "tag")
    consumes.expect("Basic.Deliver", 2)
    with nodes.without("a"):
        publish(publishes, "nodes.led", *"456")
        consumes.ack(1)
        consumes.expect("Basic.Deliver")
        consumes.ack(2)
        consumes.expect("Basic.Deliver")
        consumes.ack(0, multiple=True)
        consumes.expect("Basic.Deliver", 2)
        consumes.ack(0, multiple=True)
        consumes.cancel("tag")
        consumes.get("nodes.led")
    it = nodes.speaker("looks", "a")
    it.get("nodes.led")
    it.delete("nodes.led")


@with_nodes
def counts_of_a_quorum_queue_on_other_nodes(nodes: Nodes) -> None:
    """How many messages there are and who consumes, while they are got, purged and deleted."""
    it = nodes.speaker("declares", "a")
    it.declare("nodes.counted", QUORUM, durable=True)
    nodes.agree()
    fills = nodes.speaker("fills", "b")
    fills.confirms()
    publish(fills, "nodes.counted", *"123456")
    for node in "abc":
        looks = nodes.speaker("looks", node)
        until_counted(looks, "nodes.counted", messages=6)
        looks.get("nodes.counted", no_ack=False)
        looks.get("nodes.counted", no_ack=False)
        looks.nack(2, multiple=True, requeue=True)
        until_counted(looks, "nodes.counted", messages=6)
        looks.declare("nodes.counted", QUORUM, durable=True)
    holder = nodes.speaker("holds", "c")
    holder.qos(2)
    holder.consume("nodes.counted", "tag")
    holder.expect("Basic.Deliver", 2)
    for node in "abc":
        until_counted(nodes.speaker("looks again", node), "nodes.counted", messages=4, consumers=1)
    nodes.speaker("purges", "c").purge("nodes.counted")
    holder.nack(2, multiple=True, requeue=True)
    holder.expect("Basic.Deliver", 2)
    holder.cancel("tag")
    holder.nack(4, multiple=True, requeue=True)
    until_counted(holder, "nodes.counted", messages=2)
    nodes.speaker("deletes", "b").delete("nodes.counted")


@with_nodes
def counts_of_dead_letters_on_other_nodes(nodes: Nodes) -> None:
    it = nodes.speaker("declares", "a")
    it.declare("nodes.grave", QUORUM, durable=True)
    to_grave = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "nodes.grave"}
    it.declare("nodes.dying", {**QUORUM, **to_grave}, durable=True)
    it.confirms()
    publish(it, "nodes.dying", *"12345")
    nodes.agree()
    rejects = nodes.speaker("rejects", "b")
    for _ in range(3):
        rejects.get("nodes.dying", no_ack=False)
    rejects.nack(3, multiple=True, requeue=False)
    rejects.settle()
    for node in "abc":
        looks = nodes.speaker("looks", node)
        until_counted(looks, "nodes.dying", messages=2)
        until_counted(looks, "nodes.grave", messages=3)
    gets = nodes.speaker("gets", "c")
    for queue in ("nodes.grave", "nodes.dying"):
        got: Any = gets.get(queue).method
        gets.client.transcript[-1:] = [f"{got.message_count} left in {queue}"]
    nodes.speaker("purges", "b").purge("nodes.grave")
    nodes.speaker("deletes", "c").delete("nodes.dying", "nodes.grave")
