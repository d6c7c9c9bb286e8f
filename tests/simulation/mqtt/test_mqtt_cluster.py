"""Sessions of MQTT in whole clusters, seed by seed; and that what must not be is noticed."""

from __future__ import annotations

import pytest

from fluffle.protocol.mqtt.reader import Publishes
from tests.simulation.facts import Violation
from tests.simulation.mqtt.mqtt_clients import Clients
from tests.simulation.mqtt.mqtt_cluster import CalmMqttCluster, FirstMqttCluster, MqttCluster
from tests.simulation.mqtt.mqtt_members import (
    AnsweredSubscription,
    RetainedReader,
    SimulatedSubscriber,
    Transmission,
)
from tests.simulation.mqtt.mqtt_node import Line
from tests.simulation.mqtt.mqtt_wills import Fate
from tests.simulation.run import Run
from tests.simulation.virtual_time import SECOND_US
from tests.suite.seeds import regressions_of, seeds

SIMULATION = pytest.mark.simulation(
    *("raft", "storage", "broker/cluster", "broker/definitions", "broker/metadata"),
    *("broker/queues", "broker/vhosts", "broker/protocols/mqtt", "broker/core"),
    "tests/simulation",
)
"""Folders of the code that runs there."""


def clients_of(run: Run) -> Clients:
    assert isinstance(run.application, MqttCluster)
    return run.application.clients


@seeds(4, at_night=40)
def test_under_faults_nothing_is_lost_and_nothing_of_qos_2_comes_twice(seed: int) -> None:
    run = Run(seed, 3, seconds=8, subject=MqttCluster)
    run.go()
    print(clients_of(run))


@SIMULATION
@seeds(3, at_night=100, slow=True)
def test_many_seeds_find_nothing(seed: int) -> None:
    for nodes in (3, 5):
        run = Run(1000 + seed, nodes, seconds=10, subject=MqttCluster)
        run.go()
        print(clients_of(run))


@pytest.mark.slow("fifteen simulated seconds of a cluster")
@seeds([])
def test_a_seed_that_failed_once(seed: int) -> None:
    test = "simulation/mqtt/test_mqtt_cluster.py::test_a_seed_that_failed_once"
    [once] = [one for one in regressions_of(test) if one.seed == seed]
    for nodes in once.nodes:
        Run(seed, nodes, seconds=15, subject=FirstMqttCluster).go()


@seeds([])
def test_a_seed_with_all_kinds_of_clients_that_failed_once(seed: int) -> None:
    Run(seed, 3, seconds=10, subject=MqttCluster).go()


@seeds(2)
def test_where_nothing_fails_all_comes_once_and_in_order(seed: int) -> None:
    run = Run(seed, 3, seconds=6, subject=CalmMqttCluster)
    run.go()
    clients = clients_of(run)
    publishers = [*(each for each in clients.publishers if each.qos), clients.retaining]
    assert all(len(each.acknowledged) > 3 for each in publishers)
    assert not any(each.again or each.late for each in clients.subscribers)


def test_a_seed_is_one_run() -> None:
    digests = {Run(3, 3, seconds=4, subject=MqttCluster).go().digest for _ in range(2)}
    assert len(digests) == 1


def begun() -> tuple[Clients, SimulatedSubscriber, RetainedReader]:
    """Clients of a run that has not begun: each publisher has sent five messages, and three of
    them were acknowledged."""
    clients = clients_of(Run(1, 3, subject=CalmMqttCluster))
    clients.be_calm()
    for each in (*(each for each in clients.publishers if each.qos), clients.retaining):
        each.next_number = 5
        each.acknowledged.update(range(3))
    return clients, clients.subscribers[1], clients.reader


def line_left(*, hangs_up: bool) -> Line:
    """A connection that a client has left."""
    line = Line.__new__(Line)
    line.is_hung_up = hangs_up
    return line


def sent(payload: bytes, qos: int, *, topic: bytes = b"p", retain: bool = False) -> Publishes:
    return Publishes(topic, b"", qos, retain, False, [1], [payload], len(payload))


@pytest.mark.parametrize(
    ("payload", "qos"), [(b"p2/1", 2), (b"p1/5", 1), (b"x/1", 1), (b"p1/4", 2), (b"p1/0", 1)]
)
def test_it_is_noticed_what_comes_twice_from_nowhere_with_another_qos_or_late(
    payload: bytes, qos: int
) -> None:
    _, subscriber, _ = begun()
    for first in (b"p2/1", b"p1/1"):
        subscriber.take(sent(first, int(first[1:2])), first)
    with pytest.raises(Violation):
        subscriber.take(sent(payload, qos), payload)


def test_it_is_noticed_what_does_not_come() -> None:
    _, subscriber, _ = begun()
    subscriber.take(sent(b"p1/1", 1), b"p1/1")
    assert subscriber.lacking() == ["p1/0", "p1/2", "p2/0", "p2/1", "p2/2"]


@pytest.mark.parametrize(
    ("transmission", "is_due"),
    [
        (Transmission("a", 1, revision=4), False),
        (Transmission("a", 1, revision=5), True),
        (Transmission("a", 2, revision=4), True),
        (Transmission("b", 1, revision=4), True),
        (Transmission("c", 1, revision=4), True),
    ],
    ids=["not known", "known", "noted first", "waited for since", "waited for"],
)
def test_a_message_may_miss_who_has_subscribed_unknown_to_a_node_that_was_not_waited_for(
    transmission: Transmission, is_due: bool
) -> None:
    clients, subscriber, _ = begun()
    publisher = clients.publishers[0]
    publisher.acknowledged = {0}
    publisher.last_sent[0] = transmission
    subscriber.subscription = AnsweredSubscription(5, {"a": 6, "b": 4})
    assert ("p1/0" in subscriber.lacking()) == is_due


def test_it_is_noticed_if_a_will_comes_that_must_not_or_none_that_must() -> None:
    clients, _, _ = begun()
    [watcher] = {each.watcher for each in clients.will_clients}
    fate = clients.will_clients[0].fates[1] = Fate(1, delay_s=0, expiry_s=9, clean_start=False)
    fate.must = True
    assert len(watcher.lacking()) == 1
    watcher.take(sent(b"w1/1", 1), b"w1/1")
    assert not watcher.lacking()
    fate.never = True
    with pytest.raises(Violation):
        watcher.take(sent(b"w1/1", 1), b"w1/1")
    with pytest.raises(Violation):
        watcher.take(sent(b"w1/2", 1), b"w1/2")


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_will_waits_for_its_delay_from_when_its_node_knows_that_the_client_is_gone(
    hangs_up: bool,
) -> None:
    """The client is back two seconds after it has left; its will is to wait for one."""
    clients, _, _ = begun()
    client = clients.will_clients[0]
    first, second = (
        Fate(number, delay_s=1, expiry_s=9, clean_start=False, line=line_left(hangs_up=hangs_up))
        for number in (1, 2)
    )
    client.fates = {1: first, 2: second}
    client._fate = first
    client.let_in(present=False)
    client.lose()
    clients._mqtt_cluster.cluster.clockwork.run(2 * SECOND_US)
    client._fate = second
    client.let_in(present=True)
    assert (first.must, first.never) == (hangs_up, not hangs_up)


def test_it_is_noticed_if_a_message_comes_to_two_members_of_a_group_or_to_none() -> None:
    clients, _, _ = begun()
    group = clients.group
    assert group is not None
    group.first_due = {}
    first, second, _ = group.members
    first.take(sent(b"p2/1", 1), b"p2/1")
    assert "p2/1" not in group.lacking()
    assert "p2/2" in group.lacking()
    with pytest.raises(Violation):
        second.take(sent(b"p2/1", 2), b"p2/1")


def test_it_is_noticed_if_an_older_message_is_retained() -> None:
    clients, _, reader = begun()
    clients.retaining.acknowledged.add(4)
    assert reader.floors() == {b"kept/0": 0, b"kept/1": 4, b"kept/2": 2}
    clients.is_over, reader.asked_us = True, clients.now_us + 10_000_000
    reader.take(sent(b"r/4", 1, topic=b"kept/1", retain=True), b"r/4")
    assert len(reader.lacking()) == 2
    with pytest.raises(Violation):
        reader.take(sent(b"r/1", 1, topic=b"kept/1", retain=True), b"r/1")
