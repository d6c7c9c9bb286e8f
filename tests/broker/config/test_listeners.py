"""Addresses for clients: their names, their protocols, and which are wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fluffle.broker.admin.nodes import CLIENT_PLUGINS
from fluffle.broker.base.features import PROTOCOL_ALIASES
from fluffle.broker.cli.rabbitmq import features
from fluffle.broker.cli.rabbitmq.nodes import PROTOCOLS
from fluffle.broker.config.config import Config, ListenAddress, MqttConfig
from fluffle.broker.config.listeners import LISTENER_KINDS, kind_of, listeners_of
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.rabbitmq_conf import sources

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


# What the checklist at `LISTENER_KINDS` asks for

CLIENT_PROTOCOLS = {kind.protocol for kind in LISTENER_KINDS} - {"amqp"}


def test_every_kind_has_its_option() -> None:
    assert {kind.option for kind in LISTENER_KINDS} <= OPTIONS.keys()


def test_every_kind_has_its_name_and_purpose_in_lists_of_rabbitmqctl() -> None:
    shown = {kind.name: kind.shown for kind in LISTENER_KINDS}
    assert {name: PROTOCOLS[name][0] for name in shown} == shown
    assert set(PROTOCOL_ALIASES.values()) <= {name for name, _purpose in PROTOCOLS.values()}


def test_plugins_of_protocols_are_known_wherever_plugins_are() -> None:
    assert CLIENT_PLUGINS.keys() == CLIENT_PROTOCOLS
    plugins = {name for names in CLIENT_PLUGINS.values() for name in names}
    assert plugins <= sources.PLUGINS.keys() & features.PLUGINS.keys()


def test_every_package_of_a_protocol_is_installed() -> None:
    root = Path(__file__).parents[3]
    text = (root / "pyproject.toml").read_text()
    folders = [*(root / "broker/protocols").iterdir(), *(root / "protocol").iterdir()]
    for folder in folders:
        if (folder / "__init__.py").exists():
            name = ".".join(folder.relative_to(root).parts)
            assert f'"fluffle.{name}"' in text
