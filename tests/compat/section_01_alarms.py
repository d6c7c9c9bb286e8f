"""Section 1.9: who is held up while a resource is low, what he is told, and who goes on."""

from fluffle.protocol.methods import Basic, make
from tests.compat.scenario import Peer, Switch, under_alarm
from tests.compat.verbs import Speaker, speaker
from tests.support.client import CAPABILITIES

SILENT = tuple(name for name in CAPABILITIES if name != "connection.blocked")


def use(it: Speaker, queue: str) -> None:
    """Everything but publishing: that goes on."""
    it.declare(queue, passive=True)
    it.get(queue, no_ack=False)
    it.ack(1)
    it.consume(queue, "tag")
    it.expect("Basic.Deliver")
    it.ack(2)
    it.cancel("tag")
    it.declare(f"{queue}.new", exclusive=True)
    it.settle()


@under_alarm("1.9")
def who_publishes_is_blocked(peer: Peer, switch: Switch) -> None:
    """From the second message on he waits; a client that does not ask to be told is not."""
    consumer = speaker(peer, "consumer")
    for queue in ("alarm.in", "alarm.silent", "alarm.out"):
        consumer.declare(queue)
    consumer.fill("alarm.out", "a", "b")
    publisher, silent = speaker(peer, "publisher"), speaker(peer, "silent", capabilities=SILENT)
    for it in (publisher, silent):
        it.confirms()
    switch("disk", low=True)
    publisher.publish("", "alarm.in", "1")
    publisher.expect("Connection.Blocked")
    publisher.publish("", "alarm.in", "2")
    publisher.send(make(Basic.Qos, prefetch_count=1))
    silent.publish("", "alarm.silent", "1")
    silent.publish("", "alarm.silent", "2")
    use(consumer, "alarm.out")
    use_anew(peer, "newcomer")
    switch("disk", low=False)
    publisher.expect("Connection.Unblocked")
    publisher.expect("Basic.QosOk")
    for it in (publisher, silent):
        peer.note(it.confirmed(2))
    for queue in ("alarm.in", "alarm.silent"):
        consumer.drain(queue)


def use_anew(peer: Peer, name: str) -> None:
    """A connection that comes while the alarm is raised may do everything but publish."""
    it = speaker(peer, name)
    it.declare("alarm.new", exclusive=True)
    it.bind("alarm.new", "amq.direct", "key")
    it.get("alarm.new")
    it.settle()


@under_alarm("1.9")
def who_comes_later_is_blocked_too(peer: Peer, switch: Switch) -> None:
    switch("memory", low=True)
    it = speaker(peer, "publisher")
    it.publish("amq.direct", "nowhere", "lost")
    it.expect("Connection.Blocked")
    switch("memory", low=False)
    it.expect("Connection.Unblocked")
    it.publish("amq.direct", "nowhere", "lost too")
    it.settle()


@under_alarm("1.9")
def memory_is_low_and_then_the_disk(peer: Peer, switch: Switch) -> None:
    one_after_the_other(peer, switch, "memory", "disk")


@under_alarm("1.9")
def the_disk_is_low_and_then_memory(peer: Peer, switch: Switch) -> None:
    one_after_the_other(peer, switch, "disk", "memory")


def one_after_the_other(peer: Peer, switch: Switch, first: str, second: str) -> None:
    """The reason names both, and only when both are enough again publishers go on."""
    early = speaker(peer, "early")
    switch(first, low=True)
    early.publish("amq.direct", "nowhere")
    early.expect("Connection.Blocked")
    switch(second, low=True)
    late = speaker(peer, "late")
    late.publish("amq.direct", "nowhere")
    late.expect("Connection.Blocked")
    switch(first, low=False)
    later = speaker(peer, "later")
    later.publish("amq.direct", "nowhere")
    later.expect("Connection.Blocked")
    switch(second, low=False)
    for it in (early, late, later):
        it.expect("Connection.Unblocked")
        it.settle()
