"""`fluffle mqtt`, and clients of MQTT among connections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import publish
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.broker.cli.running_node import RunningNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    with RunningNode(tmp_path / "data", has_mqtt=True) as running:
        yield running


@contextmanager
def connected(node: RunningNode, client_id: str, topic_filter: str) -> Iterator[Client]:
    """A client whose session lasts, and which has subscribed."""
    client, subscribed = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False), []
    client.on_connect = lambda client, *_: client.subscribe(topic_filter, 1)
    client.on_subscribe = lambda _client, _data, mid, *_: subscribed.append(mid)
    client.connect("127.0.0.1", node.mqtt_port)
    while not subscribed:
        client.loop()
    yield client
    client.disconnect()
    while client.loop() == 0:
        """Until the node has closed the connection."""


def test_sessions_are_listed_with_their_filters_and_who_is_away(node: RunningNode) -> None:
    with connected(node, "away", "a/#"):
        pass
    with connected(node, "there", "b/+"):
        rows = json.loads(node.output("mqtt", "sessions", "--json"))
        (connection,) = json.loads(node.output("connections", "list", "--json"))
        columns = "client_id,protocol,state"
        listed = node.output("connections", "list", "--columns", columns)
    assert {row["client_id"]: row["expires_at_ms"] is not None for row in rows} == {
        "away": True,
        "there": False,
    }
    assert {row["client_id"]: (row["filters"], row["connection"]) for row in rows} == {
        "away": (["a/#"], ""),
        "there": (["b/+"], connection["name"]),
    }
    assert connection["client_id"] == "there"
    assert listed.splitlines()[1].split() == ["there", "MQTT", "3-1-1", "running"]
    shown = node.output("mqtt", "sessions", "--columns", "client_id,filters").splitlines()
    assert sorted(line.split() for line in shown[1:]) == [["away", "a/#"], ["there", "b/+"]]
    header = node.output("mqtt", "sessions", "--columns", "all").splitlines()[0].split()
    assert sorted(header) == sorted(rows[0])
    assert node.output("mqtt", "sessions", "--vhost", "/", "--json").count("client_id") == 2
    assert "does not exist" in node.refusal("mqtt", "sessions", "--vhost", "none")


def test_a_session_ends_with_a_queue_of_it(node: RunningNode) -> None:
    with connected(node, "away", "a/#"):
        pass
    (row,) = json.loads(node.output("mqtt", "sessions", "--json"))
    node.output("queues", "delete", row["queues"][0])
    assert json.loads(node.output("mqtt", "sessions", "--json")) == []


def test_what_topics_retain_is_listed_shown_and_removed(node: RunningNode) -> None:
    for topic in ("a/1", "a/2", "a/3"):
        publish.single(
            topic, f"on {topic}", qos=1, retain=True, hostname="127.0.0.1", port=node.mqtt_port
        )
    rows = json.loads(node.output("mqtt", "retained", "--json"))
    assert sorted(row["topic"] for row in rows) == ["a/1", "a/2", "a/3"]
    header = node.output("mqtt", "retained", "--columns", "all").splitlines()[0].split()
    assert sorted(header) == sorted(rows[0])
    assert json.loads(node.output("mqtt", "retained-show", "a/2", "--json"))["payload"] == "on a/2"
    assert "on a/2" in node.output("mqtt", "retained-show", "a/2")
    assert node.output("mqtt", "retained-clear", "a/2") == ""
    nothing = "nothing is retained under 'a/2' in vhost '/'"
    assert node.refusal("mqtt", "retained-clear", "a/2") == nothing
    assert node.refusal("mqtt", "retained-show", "a/2") == nothing
    for words in ([], ["a/1", "--all"]):
        assert node.run("mqtt", "retained-clear", *words).exit_code == 2
    assert node.output("mqtt", "retained-clear", "--all") == "2\n"
    assert json.loads(node.output("mqtt", "retained", "--json")) == []
