"""Wills that are due: each comes, and comes once, whatever is lost on its way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fluffle.broker.base.client_session import DueWill
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.metadata.nodes import NUMBERS_SESSIONS, RegisteredNode
from fluffle.broker.protocols.mqtt import due_wills
from fluffle.broker.protocols.mqtt import will as wills
from fluffle.broker.protocols.mqtt.will import PendingWill, encode_record
from fluffle.broker.vhosts.client_sessions import keep_will
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.mqtt.packets import Connack, Disconnect, Subscribe, Will
from tests.support.mqtt_edge import MqttClient, MqttEdge
from tests.support.mqtt_nodes import MqttNodes

ENDS = (("there", 1), ("here", 2))


def will(payload: bytes, *, retain: bool = False, delay_s: int = 0) -> Will:
    return Will(b"w", payload, 1, retain=retain, delay_s=delay_s)


def watched() -> tuple[MqttNodes, MqttClient]:
    """Two nodes, and a client of the second that is sent wills."""
    nodes = MqttNodes()
    watcher = nodes.begin("b", "watcher")
    nodes.settle()
    watcher.send(Subscribe(1, [("w", 1)]))
    nodes.settle()
    watcher.packets()
    return nodes, watcher


def payloads(watcher: MqttClient) -> list[bytes]:
    return [payload for _, payload, _ in watcher.messages()]


def wills_on_record(nodes: MqttNodes) -> dict[tuple[str, str], DueWill]:
    return nodes.edge.vhost.client_sessions.due_wills


def lost_by(node: str, count: int, payload: bytes, topic: bytes = b"w") -> Callable[..., None]:
    """Have wills on record that a node has left."""

    def have(mqtt: MqttEdge | MqttNodes) -> None:
        vhost = mqtt.edge.vhost
        for number in range(count):
            client_id = f"c{number}"
            due = Will(topic, payload + b"%d" % number, 1)
            key = b"%16d" % number
            record = encode_record(PendingWill(("/", client_id), "guest", due, ENDS, "there", key))
            name = client_id, key.hex()
            mqtt.edge.editor.have(partial(keep_will, vhost, name, DueWill(node, record)))

    return have


# Ends and new connections that overtake each other


@pytest.mark.parametrize("is_heard_late", [False, True])
def test_the_end_of_a_connection_says_nothing_of_the_next_one(*, is_heard_late: bool) -> None:
    """The CONNECT of the same client at the same node came true before it, and the node has heard
    of that, or not yet."""
    nodes, watcher = watched()
    late: list[Callable[[], None]] = []
    first = nodes.begin("a", "c", will=will(b"first"))
    nodes.settle()
    if is_heard_late:
        nodes.nodes["a"].metadata.hear = late.append
    first.lose()
    second = nodes.begin("a", "c", will=will(b"second"))
    nodes.metadata.commit_last()
    nodes.settle()
    for hear in late:
        hear()
    nodes.settle()
    assert second.expect(Connack).session_present
    assert payloads(watcher) == [b"first"]
    assert not nodes.edge.vhost.client_sessions.by_client["c"].ended_at_ms
    nodes.nodes["a"].metadata.hear = lambda done: done()
    nodes.kill("a")
    nodes.settle()
    assert payloads(watcher) == [b"second"]
    assert not wills_on_record(nodes)


@pytest.mark.parametrize("has_will", [False, True])
@pytest.mark.parametrize("expiry_s", [0, 30, 60])
def test_who_left_before_he_was_let_in_says_nothing_of_the_next_connection(
    expiry_s: int, *, has_will: bool
) -> None:
    """His node hears that he has the session when the next one, of the same client, has it."""
    nodes, watcher = watched()
    late: list[Callable[[], None]] = []
    nodes.begin("a", "c", expiry_s=60).lose()
    nodes.settle()
    nodes.nodes["a"].metadata.hear = late.append
    first = nodes.begin("a", "c", expiry_s=expiry_s, will=will(b"first") if has_will else None)
    first.lose()
    second = nodes.begin("a", "c", expiry_s=60, will=will(b"second") if has_will else None)
    nodes.settle()
    nodes.nodes["a"].metadata.hear = lambda done: done()
    for hear in late:
        hear()
    nodes.settle()
    assert second.expect(Connack).session_present == bool(expiry_s)
    kept = nodes.edge.vhost.client_sessions.by_client["c"]
    assert (kept.ended_at_ms, kept.expiry_s) == (0, 60)
    payloads(watcher)
    nodes.kill("a")
    nodes.settle()
    assert payloads(watcher) == [b"second"] * has_will


def test_the_end_of_a_connection_that_waits_says_nothing_of_the_next_one() -> None:
    """Else it had the will of the first one be published in the end, for the second."""
    nodes, watcher = watched()
    first = nodes.begin("a", "c", will=will(b"first", delay_s=60))
    nodes.settle()
    first.lose()
    second = nodes.begin("a", "c", will=will(b"second", delay_s=30))
    nodes.metadata.commit_last()
    nodes.settle()
    second.lose()
    nodes.settle()
    nodes.edge.advance(31)
    nodes.settle()
    assert payloads(watcher) == [b"second"]
    nodes.edge.advance(60)
    nodes.settle()
    assert payloads(watcher) == []


def test_a_session_goes_on_to_end_though_a_connect_that_was_given_up_has_taken_it() -> None:
    nodes, watcher = watched()
    first = nodes.begin("a", "c", expiry_s=60, will=will(b"first"))
    nodes.settle()
    first.lose()
    second = nodes.begin("a", "c", expiry_s=60, will=will(b"second"))
    nodes.metadata.give_up_last()
    assert second.expect(Connack).code.is_error
    nodes.metadata.commit_last()
    nodes.settle()
    assert payloads(watcher) == [b"first"]
    nodes.edge.advance(61)
    nodes.settle()
    assert "c" not in nodes.edge.vhost.client_sessions.by_client
    assert payloads(watcher) == []


def test_who_connects_twice_at_once_does_not_publish_its_own_will() -> None:
    nodes, watcher = watched()
    nodes.begin("a", "c", will=will(b"first"))
    nodes.begin("a", "c", will=will(b"second"))
    nodes.settle()
    assert payloads(watcher) == [b"first"]
    nodes.begin("b", "c")
    nodes.settle()
    assert payloads(watcher) == [b"second"]


@pytest.mark.parametrize("delay_s", [0, 30])
def test_the_will_of_a_session_comes_that_ends_before_the_end_of_its_connection_is_known(
    delay_s: int,
) -> None:
    """No majority was there for that long."""
    nodes, watcher = watched()
    nodes.begin("a", "c", expiry_s=2, will=will(b"gone", delay_s=delay_s))
    nodes.settle()
    for client in nodes.nodes["a"].clients:
        client.lose()
    nodes.edge.advance(3)
    nodes.settle()
    nodes.edge.advance(3)
    nodes.settle()
    assert payloads(watcher) == [b"gone"]
    assert "c" not in nodes.edge.vhost.client_sessions.by_client


def test_who_comes_elsewhere_with_a_clean_start_has_the_will_published_once() -> None:
    nodes, watcher = watched()
    before = nodes.begin("a", "c", will=will(b"gone", delay_s=30))
    nodes.settle()
    before.lose()
    nodes.settle()
    nodes.begin("b", "c", clean_start=True)
    nodes.settle()
    nodes.edge.advance(31)
    nodes.settle()
    assert payloads(watcher) == [b"gone"]


def test_who_has_taken_leave_leaves_no_will_to_who_connects_while_that_is_done() -> None:
    nodes, watcher = watched()
    before = nodes.begin("a", "c", expiry_s=60)
    nodes.settle()
    before.lose()
    nodes.settle()
    client = nodes.begin("a", "c", expiry_s=0, will=will(b"gone"))
    nodes.settle()
    nodes.nodes["a"].server.connecting["/", "c"] += 1
    client.send(Disconnect(ReasonCode.SUCCESS))
    nodes.settle()
    nodes.nodes["a"].server.connect_over(("/", "c"), is_let_in=False)
    nodes.settle()
    assert payloads(watcher) == []
    assert "c" not in nodes.edge.vhost.client_sessions.by_client


# Lost nodes


def kill_at_each_step(*, is_back: bool) -> None:
    """The node that publishes a will, which is to be retained, is killed after each change."""
    steps = 0
    while True:
        nodes, watcher = watched()
        client = nodes.begin("a", "c", will=will(b"gone", retain=True))
        nodes.settle()
        client.lose()
        for _ in range(steps):
            if nodes.has_work:
                nodes.commit()
        has_work = nodes.has_work
        if is_back:
            nodes.kill("a")
        else:
            nodes.nodes["a"].kill()
            nodes.edge.run()
            nodes.settle()  # what it has asked for may come true late
            nodes.nodes["b"].server.adoption.node_lost("a", lambda: True)
        nodes.settle()
        nodes.edge.advance(1)
        nodes.settle()
        assert set(payloads(watcher)) == {b"gone"}, steps
        assert nodes.edge.vhost.retained.count == 1, steps
        assert not wills_on_record(nodes), steps
        if not has_work:
            break
        steps += 1
    assert steps > 2


@pytest.mark.parametrize("is_back", [False, True])
def test_a_will_comes_though_its_node_is_lost_at_any_step(*, is_back: bool) -> None:
    kill_at_each_step(is_back=is_back)


def test_a_will_is_on_record_until_its_queues_say_that_they_have_it() -> None:
    nodes, watcher = watched()
    nodes.begin("a", "c", will=will(b"gone")).lose()
    client = nodes.begin("a", "c", will=will(b"gone"))
    nodes.settle()
    client.lose()
    nodes.metadata.commit()
    assert wills_on_record(nodes)
    assert not nodes.has_work
    nodes.edge.run()
    assert nodes.has_work
    nodes.settle()
    assert not wills_on_record(nodes)
    assert payloads(watcher) == [b"gone"]


def test_a_will_is_on_record_until_it_is_retained() -> None:
    nodes, _ = watched()
    client = nodes.begin("a", "c", will=will(b"gone", retain=True))
    nodes.settle()
    client.lose()
    nodes.commit()
    assert len(nodes.metadata) == 1, "it is to be retained first"
    nodes.settle()
    assert nodes.edge.vhost.retained.count == 1
    assert not wills_on_record(nodes)


def test_wills_of_a_lost_node_are_adopted_in_parts() -> None:
    nodes, watcher = watched()
    lost_by("lost", 150, b"gone")(nodes)
    server = nodes.nodes["b"].server
    server.adoption.node_lost("lost", lambda: True)
    own, counts = server.services.owners.node, []
    for _ in range(4):
        nodes.edge.advance(0)
        while nodes.has_work:
            nodes.metadata.commit()
            counts.append(sum(each.node == own for each in wills_on_record(nodes).values()))
            nodes.edge.run()
    assert max(counts, default=0) <= due_wills.TAKEN_AT_ONCE
    nodes.settle()
    assert len(payloads(watcher)) == 150
    assert not wills_on_record(nodes)


def test_wills_of_a_node_that_is_back_are_left_to_it() -> None:
    mqtt = MqttEdge()
    lost_by("lost", 3, b"gone")(mqtt)
    mqtt.server.adoption.node_lost("lost", lambda: False)
    mqtt.edge.advance(1)
    assert len(mqtt.edge.vhost.client_sessions.due_wills) == 3


def leave_what_another_has_adopted() -> None:
    """A node has its will published as another takes it over: that one publishes it, too, and has
    it on record."""
    nodes, _ = watched()
    client = nodes.begin("a", "c", will=will(b"gone"))
    nodes.settle()
    client.lose()
    nodes.metadata.commit()
    [(name, due)] = wills_on_record(nodes).items()
    vhost: VirtualHost = nodes.edge.vhost
    other = due._replace(node="other")
    nodes.edge.services.metadata.ensure(partial(keep_will, vhost, name, other))
    nodes.metadata.commit_last()
    nodes.settle()
    assert wills_on_record(nodes) == {name: other}


def test_a_will_that_another_node_has_to_publish_stays_on_record() -> None:
    leave_what_another_has_adopted()


# Nodes that do not know all that is defined


def will_of_a_node_that_is_behind(*, expiry_s: int) -> tuple[MqttNodes, list[Callable[[], None]]]:
    """The connection of a client ends at a node that is yet to hear whether it knows all queues."""
    nodes, late = MqttNodes(), list[Callable[[], None]]()
    client = nodes.begin("a", "c", expiry_s=expiry_s, will=will(b"gone"))
    nodes.settle()
    nodes.nodes["a"].read_barrier.hear = late.append
    client.lose()
    nodes.settle()
    return nodes, late


@pytest.mark.parametrize("expiry_s", [0, 60])
def test_a_will_waits_until_its_node_knows_all_queues(expiry_s: int) -> None:
    nodes, late = will_of_a_node_that_is_behind(expiry_s=expiry_s)
    assert bool(wills_on_record(nodes)) == bool(expiry_s)
    watcher = nodes.begin("b", "watcher")
    nodes.settle()
    watcher.send(Subscribe(1, [("w", 1)]))
    nodes.settle()
    watcher.packets()
    for hear in late:
        hear()
    nodes.settle()
    assert payloads(watcher) == [b"gone"]
    assert not wills_on_record(nodes)


def test_a_will_that_goes_to_no_queue_is_forgotten_once_that_is_certain() -> None:
    nodes, late = will_of_a_node_that_is_behind(expiry_s=60)
    (hear,) = late
    hear()
    nodes.settle()
    assert len(late) == 1
    assert not wills_on_record(nodes)


def test_only_so_many_wills_wait_until_all_queues_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wills, "UNCONFIRMED_MAX", 1)
    nodes, late = will_of_a_node_that_is_behind(expiry_s=0)
    client = nodes.begin("a", "d", expiry_s=0, will=will(b"too many"))
    nodes.settle()
    client.lose()
    nodes.settle()
    (hear,) = late
    hear()
    client = nodes.begin("a", "d", expiry_s=0, will=will(b"later"))
    nodes.settle()
    client.lose()
    nodes.settle()
    assert len(late) == 2


# What is wrong with a will, and how many may wait


@pytest.mark.parametrize("user", ["nobody", "guest"])
def test_a_will_that_cannot_be_published_is_forgotten(user: str) -> None:
    nodes, watcher = watched()
    topic = b"w" if user == "nobody" else b"$SYS/w"
    key = b"%16d" % 1
    due = PendingWill(("/", "c"), user, Will(topic, b"gone", 1), ENDS, "there", key)
    have = partial(keep_will, nodes.edge.vhost, ("c", key.hex()), DueWill("a", encode_record(due)))
    nodes.edge.services.metadata.ensure(have)
    nodes.settle()
    assert not wills_on_record(nodes)
    assert payloads(watcher) == []


def test_a_bug_in_the_way_of_a_will_is_not_passed_over_and_the_will_not_kept_for_ever() -> None:
    mqtt = MqttEdge()
    with pytest.raises(UnicodeDecodeError):
        lost_by(mqtt.edge.services.owners.node, 1, b"gone", topic=b"\xff")(mqtt)
    mqtt.edge.run()
    assert not mqtt.edge.vhost.client_sessions.due_wills


def test_only_so_many_wills_wait_for_their_queues(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(due_wills, "AWAITED_MAX", 1)
    nodes, watcher = watched()
    clients = [nodes.begin("a", name, will=will(name.encode(), retain=True)) for name in "cd"]
    nodes.settle()
    for client in clients:
        client.lose()
    nodes.commit()
    assert "will_not_awaited" not in caplog.text
    nodes.commit()
    assert "will_not_awaited" in caplog.text
    nodes.settle()
    assert sorted(payloads(watcher)) == [b"c", b"d"]
    assert not wills_on_record(nodes)


@pytest.mark.parametrize(("knows", "is_kept"), [(NUMBERS_SESSIONS, False), (7, True)])
def test_a_will_is_on_record_once_all_nodes_know_what_that_is(knows: int, *, is_kept: bool) -> None:
    mqtt, due = MqttEdge(), []
    mqtt.edge.catalogue.will_listeners.append(lambda *name: due.append(name))
    address = ListenAddress("127.0.0.1", 1)
    nodes = mqtt.edge.services.nodes
    assert isinstance(nodes, dict)
    nodes["b"] = RegisteredNode(address, boot=1, nonce=b"", id=1, knows=knows)
    watcher = mqtt.connect("watcher")
    watcher.subscribe("w", options=1)
    mqtt.connect("c", expiry_s=60, will=will(b"cut")).lose()
    mqtt.connect("d", expiry_s=60, will=will(b"taken over"))
    mqtt.connect("d", clean_start=False, expiry_s=60)
    mqtt.connect("e", expiry_s=60, will=will(b"late", delay_s=30)).lose()
    mqtt.edge.advance(31)
    assert payloads(watcher) == [b"cut", b"taken over", b"late"]
    assert bool(due) == is_kept
