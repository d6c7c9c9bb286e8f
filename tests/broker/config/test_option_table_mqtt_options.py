"""Options about MQTT: what each reaches, and what is said of values that cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.config.config import ListenAddress, MqttConfig
from fluffle.broker.config.option_table import MQTT, OPTIONS
from fluffle.broker.config.option_values import OptionError
from fluffle.broker.config.options import resolve


def mqtt_of(**flags: str) -> MqttConfig:
    """`_` stands for `-`."""
    return resolve({name.replace("_", "-"): [text] for name, text in flags.items()}, {}).config.mqtt


OF_MQTT: tuple[tuple[str, str, str, Any], ...] = (
    (
        "mqtt",
        ":1883\n[::1]:1884\nnone",
        "listen",
        (ListenAddress("", 1883), ListenAddress("::1", 1884)),
    ),
    ("mqtt-tls", ":8883", "tls_listen", (ListenAddress("", 8883),)),
    ("mqtt-ws", ":15675", "ws_listen", (ListenAddress("", 15_675),)),
    ("mqtt-ws-tls", ":15676", "ws_tls_listen", (ListenAddress("", 15_676),)),
    ("mqtt-proxy-protocol", "yes", "proxy_protocol", True),
    ("mqtt-ws-proxy-protocol", "yes", "ws_proxy_protocol", True),
    ("mqtt-login-timeout", "1", "login_timeout_ms", 1),
    ("mqtt-connection-max", "2", "connections_max", 2),
    ("mqtt-ws-connection-max", "3", "ws_connections_max", 3),
    ("mqtt-ws-path", "/mq", "ws_path", "/mq"),
    ("mqtt-ws-max-frame-size", "4KiB", "ws_frame_bytes_max", 4096),
    ("mqtt-ws-idle-timeout", "5", "ws_idle_timeout_ms", 5),
    (
        "mqtt-ws-allow-origins",
        "https://A.example/, http://b:8080",
        "ws_origins",
        frozenset({"https://a.example", "http://b:8080"}),
    ),
    ("mqtt-allow-anonymous", "no", "allow_anonymous", False),
    ("anonymous-login-user", "u", "anonymous_user", "u"),
    ("anonymous-login-password", "hunter2", "anonymous_password", "hunter2"),
    ("mqtt-cert-login", "yes", "cert_login", True),
    (
        "mqtt-cert-client-id-from",
        "subject_alternative_name",
        "cert_client_id_from",
        "subject_alternative_name",
    ),
    ("mqtt-cert-san-type", "uri", "cert_san_type", "uri"),
    ("mqtt-cert-san-index", "6", "cert_san_index", 6),
    ("mqtt-vhost", "v", "vhost", "v"),
    ("mqtt-ignore-colons-in-user", "yes", "ignore_colons_in_user", True),
    ("mqtt-exchange", "e", "exchange", "e"),
    ("mqtt-durable-queue-type", "quorum", "durable_queue_type", "quorum"),
    ("mqtt-max-session-expiry", "0", "session_expiry_s_max", 0),
    ("mqtt-keep-alive-max", "7", "keep_alive_s_max", 7),
    ("mqtt-prefetch", "8", "prefetch", 8),
    ("mqtt-receive-maximum", "9", "receive_max", 9),
    ("mqtt-topic-alias-maximum", "0", "topic_alias_max", 0),
    ("mqtt-max-packet-size", "10", "packet_bytes_max", 10),
    ("mqtt-max-packet-size-unauthenticated", "11", "unauthenticated_packet_bytes_max", 11),
    ("mqtt-mailbox-soft-limit", "0", "mailbox_soft_limit", 0),
    ("mqtt-sparkplug", "yes", "sparkplug", True),
    ("mqtt-disconnect-on-unauthorized", "yes", "disconnect_on_unauthorized", True),
    ("mqtt-server-reference", "b:1883 c:1883", "server_reference", "b:1883 c:1883"),
    ("mqtt-sys-interval", "0", "sys_interval_s", 0),
    ("mqtt-response-information", "r", "response_information", "r"),
    ("mqtt-retained", "no", "retained", False),
    ("mqtt-max-retained-messages", "12", "retained_messages_max", 12),
    ("mqtt-max-retained-size", "13", "retained_bytes_max", 13),
)
"""Each option about MQTT as its variable has it, and the field with its value."""


@pytest.mark.parametrize(("option", "text", "field", "value"), OF_MQTT)
def test_what_is_said_of_mqtt_reaches_the_config(
    option: str, text: str, field: str, value: Any
) -> None:
    config = resolve({}, {OPTIONS[option].variable: text}).config
    assert config.mqtt == replace(MqttConfig(), **{field: value})
    assert "hunter2" not in repr(config)


def test_every_option_about_mqtt_is_tried() -> None:
    assert [name for name, *_ in OF_MQTT] == [option.name for option in MQTT]


def test_mqtt_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert resolve({}, {}).config.mqtt == MqttConfig()
    assert mqtt_of(mqtt="none") == MqttConfig()
    both = MqttConfig(listen=(ListenAddress("", 1), ListenAddress("", 2)))
    assert resolve({}, {"FLUFFLE_MQTT": ":1\n:2"}).config.mqtt == both
    file = tmp_path / "fluffle.toml"
    file.write_text('mqtt = [":1", ":2"]', encoding="utf-8")
    assert resolve({"config": [str(file)]}, {}).config.mqtt == both


def test_a_packet_of_mqtt_holds_the_largest_message_unless_it_says_otherwise() -> None:
    mqtt = mqtt_of(max_message_size="1MiB")
    assert mqtt.packet_bytes_max == (1 << 20) + 131_072
    mqtt = mqtt_of(max_message_size="512MiB")
    assert mqtt.packet_bytes_max == 268_435_460, "none can say that it is larger"
    mqtt = mqtt_of(max_message_size="1MiB", mqtt_max_packet_size="2MiB")
    assert mqtt.packet_bytes_max == 2 << 20


@pytest.mark.parametrize(
    ("option", "text", "advice"),
    [
        ("mqtt", "1883", "write HOST:PORT such as"),
        ("mqtt_ws_tls", "x", "write HOST:PORT such as"),
        ("mqtt_ws_path", "ws", "write a path that begins with a slash, such as /ws"),
        ("mqtt_ws_path", "/a?b", "write a path that begins with a slash, such as /ws"),
        ("mqtt_ws_allow_origins", "example.org", "write https://HOST or https://HOST:PORT"),
        ("mqtt_ws_allow_origins", "https://a/b", "write https://HOST or https://HOST:PORT"),
        ("mqtt_ws_allow_origins", ",", "write https://HOST or https://HOST:PORT"),
        ("mqtt_max_session_expiry", "-1", "write a number from 0 to 4294967295"),
        ("mqtt_prefetch", "0", "write a number from 1 to 65535"),
        ("mqtt_receive_maximum", "65536", "write a number from 1 to 65535"),
        ("mqtt_max_packet_size", "268435461", "write a size up to 268435460 bytes"),
        ("mqtt_max_packet_size_unauthenticated", "0", "write a size up to 268435460 bytes"),
        ("mqtt_exchange", "", "write the name of a topic exchange, such as amq.topic"),
        ("mqtt_exchange", "e" * 256, "write the name of a topic exchange, such as amq.topic"),
        ("mqtt_response_information", "s" * 65_536, "write a text of up to 65535 bytes"),
        ("mqtt_cert_san_type", "other_name", "write dns, ip, email or uri"),
        ("mqtt_cert_client_id_from", "x", "write distinguished_name or subject_alternative_name"),
        ("mqtt_durable_queue_type", "stream", "write classic or quorum"),
    ],
)
def test_what_is_said_of_mqtt_must_be_written_well(option: str, text: str, advice: str) -> None:
    with pytest.raises(OptionError) as refused:
        mqtt_of(**{option: text})
    name = option.replace("_", "-")
    assert str(refused.value).startswith(f"--{name}: cannot use {text!r}; {advice}")
