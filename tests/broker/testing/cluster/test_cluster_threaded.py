"""Clusters in a thread of their own, with a client that blocks."""

from __future__ import annotations

import threading

import pika
import pytest

from fluffle.broker import ThreadedCluster
from fluffle.broker.testing.cluster.node import ProcessState

QUORUM = {"x-queue-type": "quorum"}


def test_what_is_confirmed_outlives_its_leader() -> None:
    with ThreadedCluster(nodes=3) as cluster:
        parameters = pika.URLParameters(cluster.urls[1])
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.queue_declare("orders", durable=True, arguments=QUORUM)
            channel.confirm_delivery()
            channel.basic_publish("", "orders", b"first")
            if cluster.leader("orders") == 1:
                cluster.move_leader("orders", 2)
            cluster.kill(leader := cluster.leader("orders"))
            assert cluster[leader].state is ProcessState.DOWN
            channel.basic_publish("", "orders", b"second")
            cluster.vhost().expect("orders", count=2)
            found = [message.text() for message in cluster.vhost().messages("orders")]
            assert found == ["first", "second"]
    assert "fluffle cluster" not in {thread.name for thread in threading.enumerate()}


def test_disks_networks_clocks_and_clients_are_there_as_well() -> None:
    with (
        ThreadedCluster(nodes=1) as cluster,
        pika.BlockingConnection(pika.URLParameters(cluster.url)) as connection,
    ):
        connection.channel().queue_declare("orders", arguments={"x-expires": 60_000})
        cluster[0].disk.slow(ms=1)
        cluster.clock.advance(minutes=1)
        assert cluster.vhost().queues() == {}
        cluster.net.delay(ms=1)
        (client,) = cluster[0].clients.connections()
        client.reset()
        with pytest.raises(pika.exceptions.AMQPError):
            connection.process_data_events()


def test_what_fails_there_is_raised_here() -> None:
    with ThreadedCluster(nodes=1) as cluster:
        with pytest.raises(ValueError, match="there is no node 1"):
            cluster.kill(1)
        with pytest.raises(AttributeError, match="has no attribute 'burn'"):
            cluster.burn(0)
