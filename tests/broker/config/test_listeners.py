"""Addresses for clients: their names, their protocols, and which are wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.config.listeners import kind_of, listeners_of

FIRST, SECOND = ListenAddress("127.0.0.1", 1), ListenAddress("/s", 0)


def names(config: Config) -> dict[str, ListenAddress]:
    return {each.name: each.address for each in listeners_of(config)}


def test_each_address_of_a_kind_has_a_name_of_its_own() -> None:
    config = Config(listen=FIRST, also_listen=(SECOND, SECOND), tls_listen=SECOND)
    assert names(config) == {"amqp": FIRST, "amqp-2": SECOND, "amqp-3": SECOND, "amqps": SECOND}
    assert names(replace(config, listen=None)) == {
        "amqp": SECOND,
        "amqp-2": SECOND,
        "amqps": SECOND,
    }
    assert names(Config(listen=None)) == {}


def test_mqtt_comes_in_four_ways() -> None:
    mqtt = MqttConfig(
        listen=(FIRST, SECOND), tls_listen=(FIRST,), ws_listen=(FIRST,), ws_tls_listen=(SECOND,)
    )
    assert names(Config(listen=None, mqtt=mqtt)) == {
        "mqtt": FIRST,
        "mqtt-2": SECOND,
        "mqtts": FIRST,
        "mqtt-ws": FIRST,
        "mqtt-wss": SECOND,
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("amqp", "amqp"),
        ("amqp-2", "amqp"),
        ("amqps", "amqp/ssl"),
        ("mqtt-17", "mqtt"),
        ("mqtts", "mqtt/ssl"),
        ("mqtt-ws", "http/web-mqtt"),
        ("mqtt-wss-2", "https/web-mqtt"),
    ],
)
def test_a_name_tells_its_kind(name: str, shown: str) -> None:
    kind = kind_of(name)
    assert kind is not None
    assert kind.shown == shown


@pytest.mark.parametrize("name", ["cluster", "management", "metrics", "mqtt-x", "2", ""])
def test_what_is_not_for_clients_is_of_no_kind(name: str) -> None:
    assert kind_of(name) is None


def test_a_proxy_may_stand_before_one_protocol_and_not_the_others() -> None:
    both = MqttConfig(listen=(FIRST,), ws_listen=(FIRST,), ws_proxy_protocol=True)
    for config, proxied in (
        (Config(mqtt=both), ["mqtt-ws"]),
        (Config(proxy_protocol=True, mqtt=both), ["amqp", "mqtt-ws"]),
    ):
        assert [each.name for each in listeners_of(config) if each.is_proxied] == proxied
